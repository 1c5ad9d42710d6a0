//! The monitor: one single-threaded poll loop that moves a container's bytes.
//!
//! It reads the container's output into the log and to whoever is attached, and feeds its
//! stdin. It owns nothing that cannot be replaced: the reaper holds the same descriptors,
//! so when a monitor is killed, the container notices nothing, and a new one goes on
//! where the bytes are. Memory is bounded by what one chunk, one stdin buffer and the
//! attach queues hold; stdin and output stop being read when their takers are slow.
//!
//! When the container's process has ended, output is read until its end, or for
//! `DRAIN` at most: a grandchild that escaped with a copy of stdout must not keep a
//! finished container alive.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::attach::{Clients, Request};
use crate::error::{Context, Result};
use crate::log::{Log, Stream};
use crate::orders::{MONITOR, number, split, unknown};
use crate::process::timespec;
use crate::protocol::{CHUNK, PACKET, winsize};
use crate::{exit, process, sys};

/// How long output is awaited after the container's process has ended, and how long slow
/// watchers may take to read their last bytes.
pub const DRAIN: Duration = Duration::from_secs(2);
/// How long the new parent of a container whose reaper was killed may take to reap it.
const REAPED_WITHIN: Duration = Duration::from_secs(5);
/// Pause between looks at what poll cannot tell.
const TICK: Duration = Duration::from_millis(100);
/// Input that waits for the container to read it.
const STDIN_BUFFER: usize = 64 << 10;
/// Chunks read from one stream before the others get their turn.
const TURN: usize = 16;

/// What the reaper starts a monitor with. Descriptors are passed by number.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MonitorOrders {
    /// The container's directory.
    pub dir: PathBuf,
    /// The container's process.
    pub init: i32,
    /// The log file; none without.
    pub log: Option<PathBuf>,
    /// The two-way channel to the reaper.
    pub reaper_fd: RawFd,
    /// Listening socket for attach clients.
    pub attach_fd: RawFd,
    /// Readable end of the container's stdout.
    pub stdout_fd: Option<RawFd>,
    /// Readable end of the container's stderr.
    pub stderr_fd: Option<RawFd>,
    /// Writable end of the container's stdin.
    pub stdin_fd: Option<RawFd>,
    /// The master of the container's terminal, instead of the three.
    pub console_fd: Option<RawFd>,
}

/// From the reaper to the monitor, followed by the decimal exit code.
pub const ENDED: u8 = b'x';
/// From the monitor to the reaper: close your copy of stdin.
pub const STDIN_CLOSED: u8 = b's';

impl MonitorOrders {
    /// The argument vector that says all this.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut dir = OsString::from("dir=");
        dir.push(&self.dir);
        let mut args = vec![MONITOR.into(), dir];
        if let Some(log) = &self.log {
            let mut arg = OsString::from("log=");
            arg.push(log);
            args.push(arg);
        }
        args.push(format!("init={}", self.init).into());
        args.push(format!("reaper={}", self.reaper_fd).into());
        args.push(format!("attach={}", self.attach_fd).into());
        let optional = [
            ("stdout", self.stdout_fd),
            ("stderr", self.stderr_fd),
            ("stdin", self.stdin_fd),
            ("console", self.console_fd),
        ];
        let given = |(key, fd): (&str, Option<RawFd>)| fd.map(|fd| format!("{key}={fd}").into());
        args.extend(optional.into_iter().filter_map(given));
        args
    }

    /// Reads what `to_args` wrote, without its first word.
    ///
    /// # Errors
    /// On anything else.
    pub fn from_args(args: impl Iterator<Item = OsString>) -> Result<Self> {
        let mut orders = Self::default();
        for arg in args {
            let (key, value) = split(&arg)?;
            match key {
                b"dir" => orders.dir = value.into(),
                b"log" => orders.log = Some(value.into()),
                b"init" => orders.init = number(&value)?,
                b"reaper" => orders.reaper_fd = number(&value)?,
                b"attach" => orders.attach_fd = number(&value)?,
                b"stdout" => orders.stdout_fd = Some(number(&value)?),
                b"stderr" => orders.stderr_fd = Some(number(&value)?),
                b"stdin" => orders.stdin_fd = Some(number(&value)?),
                b"console" => orders.console_fd = Some(number(&value)?),
                _ => return Err(unknown(&arg)),
            }
        }
        Ok(orders)
    }

    /// Every descriptor that the monitor keeps.
    pub fn fds(&self) -> Vec<RawFd> {
        let optional = [self.stdout_fd, self.stderr_fd, self.stdin_fd, self.console_fd];
        let mut fds = vec![self.reaper_fd, self.attach_fd];
        fds.extend(optional.into_iter().flatten());
        fds
    }
}

/// Runs a monitor to the container's end.
///
/// # Errors
/// When it cannot begin: a log that does not open, for one. The reaper records it.
pub fn run(orders: &MonitorOrders) -> Result<()> {
    sys::close_all_but(&orders.fds()).wrap("close inherited descriptors")?;
    let mut monitor = Monitor::begin(orders)?;
    while !monitor.is_done() {
        monitor.turn().wrap("poll")?;
    }
    monitor.log.finish();
    monitor.say_goodbye()
}

struct Monitor {
    dir: PathBuf,
    reaper: Option<OwnedFd>,
    /// Kept to learn how the container ended should the reaper be killed.
    init: Option<OwnedFd>,
    listener: OwnedFd,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    console: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    stdin_buffer: Vec<u8>,
    stdin_ends: bool,
    clients: Clients,
    log: Log,
    /// The container has ended without a reaper, and how is not known yet.
    orphan_ended: Option<Instant>,
    /// The code, where it is known, and since when.
    ended: Option<(Option<u8>, Instant)>,
    buffer: Box<[u8; PACKET]>,
}

/// Whose turn a poll answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Reaper,
    Init,
    Listener,
    Stdout,
    Stderr,
    Console,
    Stdin,
}

impl Monitor {
    fn begin(orders: &MonitorOrders) -> Result<Self> {
        let take = |fd: RawFd| sys::inherited(fd).wrap_with(|| format!("take descriptor {fd}"));
        let nonblocking = |fd: RawFd| -> Result<OwnedFd> {
            let fd = take(fd)?;
            rustix::io::ioctl_fionbio(&fd, true).wrap("make a descriptor non-blocking")?;
            Ok(fd)
        };
        let optional = |fd: Option<RawFd>| fd.map(nonblocking).transpose();
        let init = process::Recorded::of(orders.init).and_then(|init| init.open());
        Ok(Self {
            dir: orders.dir.clone(),
            reaper: Some(take(orders.reaper_fd)?),
            init,
            listener: nonblocking(orders.attach_fd)?,
            stdout: optional(orders.stdout_fd)?,
            stderr: optional(orders.stderr_fd)?,
            console: optional(orders.console_fd)?,
            stdin: optional(orders.stdin_fd)?,
            stdin_buffer: Vec::new(),
            stdin_ends: false,
            clients: Clients::default(),
            log: Log::open(orders.log.as_deref(), &orders.dir.join("lost"))
                .wrap_with(|| format!("open the log {:?}", orders.log))?,
            orphan_ended: None,
            ended: None,
            buffer: Box::new([0; PACKET]),
        })
    }

    /// Everything was read, or the time for that is over.
    fn is_done(&self) -> bool {
        let Some((_, since)) = self.ended else {
            return false;
        };
        if self.clients.are_behind() {
            return false;
        }
        let streams = [&self.stdout, &self.stderr, &self.console];
        streams.iter().all(|stream| stream.is_none()) || since.elapsed() >= DRAIN
    }

    /// Waits for something to happen and does all of it.
    fn turn(&mut self) -> io::Result<()> {
        let ticking = self.ended.is_some() || self.orphan_ended.is_some();
        let timeout = ticking.then(|| timespec(TICK));
        let (sources, answers, clients) = self.poll(timeout.as_ref())?;
        // Newcomers first: a client that connected before the container was started must
        // be known before the first output is read.
        self.clients.accept(self.listener.as_fd());
        let requests = self.clients.serve(&clients, self.buffer.as_mut_slice());
        for request in requests {
            self.obey(request);
        }
        for (source, answer) in sources.into_iter().zip(answers) {
            if !answer.is_empty() {
                self.handle(source);
            }
        }
        if self.orphan_ended.is_some() {
            self.replace_reaper();
        }
        Ok(())
    }

    /// One poll(2): the sources asked, the answers, and the answers for the clients.
    #[allow(clippy::type_complexity)]
    fn poll(
        &self,
        timeout: Option<&rustix::event::Timespec>,
    ) -> io::Result<(Vec<Source>, Vec<PollFlags>, Vec<PollFlags>)> {
        let mut sources = Vec::with_capacity(8);
        let mut fds = Vec::with_capacity(16);
        for (source, fd, flags) in self.interests() {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
        let stdin_full = self.stdin_buffer.len() >= STDIN_BUFFER;
        for (fd, flags) in self.clients.interests(stdin_full) {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
        match rustix::event::poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut answers = fds.iter().map(PollFd::revents);
        let ours = answers.by_ref().take(sources.len()).collect();
        let clients = answers.collect();
        Ok((sources, ours, clients))
    }

    fn interests(&self) -> Vec<(Source, BorrowedFd<'_>, PollFlags)> {
        let reading = !self.clients.are_behind();
        let reaper_gone = self.reaper.is_none() && self.orphan_ended.is_none();
        let taker = self.stdin.as_ref().or(self.console.as_ref());
        let feeding = !self.stdin_buffer.is_empty();
        [
            (Source::Reaper, self.reaper.as_ref(), true),
            (Source::Init, self.init.as_ref(), reaper_gone),
            (Source::Listener, Some(&self.listener), true),
            (Source::Stdout, self.stdout.as_ref(), reading),
            (Source::Stderr, self.stderr.as_ref(), reading),
            (Source::Console, self.console.as_ref(), reading),
            (Source::Stdin, taker, feeding),
        ]
        .into_iter()
        .filter(|(_, _, wanted)| *wanted)
        .filter_map(|(source, fd, _)| {
            let flags = match source {
                Source::Stdin => PollFlags::OUT,
                _ => PollFlags::IN,
            };
            fd.map(|fd| (source, fd.as_fd(), flags))
        })
        .collect()
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Reaper => self.hear_reaper(),
            Source::Init => self.replace_reaper(),
            Source::Listener => {}
            Source::Stdout | Source::Stderr | Source::Console => self.pump(source),
            Source::Stdin => self.feed(),
        }
    }

    /// Moves output, for one turn at most.
    fn pump(&mut self, source: Source) {
        let (slot, stream) = match source {
            Source::Stderr => (&mut self.stderr, Stream::Stderr),
            Source::Console => (&mut self.console, Stream::Stdout),
            _ => (&mut self.stdout, Stream::Stdout),
        };
        for _ in 0..TURN {
            let Some(fd) = slot.as_ref() else { return };
            match rustix::io::read(fd, &mut self.buffer[..CHUNK]) {
                // A terminal whose last user is gone says EIO.
                Ok(0) | Err(Errno::IO) => {
                    *slot = None;
                    return;
                }
                Ok(length) => {
                    self.log.write(stream, &self.buffer[..length]);
                    self.clients.output(stream, &self.buffer[..length]);
                }
                Err(_) => return,
            }
            if self.clients.are_behind() {
                return;
            }
        }
    }

    fn obey(&mut self, request: Request) {
        let open = self.stdin.is_some() || self.console.is_some();
        match request {
            Request::Stdin(bytes) if open && !self.stdin_ends => {
                self.stdin_buffer.extend_from_slice(&bytes);
                self.feed();
            }
            // A terminal has no end: whoever attaches next may type again.
            Request::StdinEnd if self.stdin.is_some() => {
                self.stdin_ends = true;
                self.feed();
            }
            Request::Resize(rows, columns) => {
                if let Some(console) = &self.console {
                    // The pty may be closed at the other end: nobody to tell.
                    let _ = rustix::termios::tcsetwinsize(console, winsize(rows, columns));
                }
            }
            Request::Stdin(_) | Request::StdinEnd => {}
        }
    }

    /// Gives the container as much input as it takes now.
    fn feed(&mut self) {
        let taker = self.stdin.as_ref().or(self.console.as_ref());
        while let Some(fd) = taker
            && !self.stdin_buffer.is_empty()
        {
            match rustix::io::write(fd, &self.stdin_buffer) {
                Ok(length) => drop(self.stdin_buffer.drain(..length)),
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => {
                    // Nobody reads it any more.
                    self.stdin_buffer = Vec::new();
                    self.stdin_ends = self.stdin.is_some();
                }
            }
        }
        self.stdin_buffer.shrink_to(CHUNK);
        if self.stdin_ends && self.stdin.take().is_some() {
            self.tell_reaper(STDIN_CLOSED);
        }
    }

    fn tell_reaper(&mut self, what: u8) {
        if let Some(reaper) = &self.reaper {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            // A dead reaper is noticed where its channel is read.
            let _ = rustix::net::send(reaper, &[what], flags);
        }
    }

    fn hear_reaper(&mut self) {
        let Some(reaper) = &self.reaper else { return };
        let mut message = [0u8; 16];
        match rustix::net::recv(reaper, &mut message, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok((0, _)) | Err(_) => {
                self.reaper = None;
                // Nobody is left who could ever tell how it ended.
                if self.init.is_none() {
                    self.end(None);
                }
            }
            Ok((length, _)) => {
                let code = std::str::from_utf8(&message[1..length.min(16)]).ok();
                if let (ENDED, Some(code)) = (message[0], code.and_then(|c| c.parse().ok())) {
                    self.end(Some(code));
                }
            }
        }
    }

    /// The reaper was killed, and now the container has ended: where the kernel can still
    /// tell how (Linux 6.15), the code is recorded all the same. The kernel tells once the
    /// container's new parent has reaped it, which takes a slow init a while.
    fn replace_reaper(&mut self) {
        let Some(init) = &self.init else { return };
        let since = *self.orphan_ended.get_or_insert_with(Instant::now);
        let code = sys::exit_status_of(init.as_fd()).and_then(exit::code_of);
        if code.is_none() && since.elapsed() < REAPED_WITHIN {
            return;
        }
        if let Some(code) = code {
            // It stays "lost" when the disk refuses; there is nobody left to tell.
            let _ = exit::record(&self.dir, code);
        }
        self.init = None;
        self.end(code);
    }

    fn end(&mut self, code: Option<u8>) {
        self.ended.get_or_insert((code, Instant::now()));
        if let Some(code) = code {
            self.clients.announce(code);
        }
    }

    /// Tells the clients, and gives watchers a moment to read their last bytes.
    fn say_goodbye(&mut self) -> Result<()> {
        let Some((Some(code), _)) = self.ended else {
            return Ok(());
        };
        self.clients.accept(self.listener.as_fd());
        self.clients.serve(&[], self.buffer.as_mut_slice());
        self.clients.farewell(code);
        let since = Instant::now();
        while self.clients.have_queues() && (self.clients.are_behind() || since.elapsed() < DRAIN) {
            let (_, _, clients) = self.poll(Some(&timespec(TICK))).wrap("poll")?;
            self.clients.serve(&clients, self.buffer.as_mut_slice());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_carry_everything() {
        let orders = MonitorOrders {
            dir: "/var/x y".into(),
            init: 77,
            log: Some("/dev/full".into()),
            reaper_fd: 3,
            attach_fd: 4,
            stdout_fd: Some(5),
            stderr_fd: Some(6),
            stdin_fd: None,
            console_fd: None,
        };
        let args = orders.to_args().into_iter().skip(1);
        assert_eq!(MonitorOrders::from_args(args).unwrap(), orders);
    }
}
