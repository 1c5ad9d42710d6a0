//! A foreground session with a container: its output to ours, our input and signals to it.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::container::Container;
use crate::detach::DetachKeys;
use crate::error::{Context, Error, Result};
use crate::process::timespec;
use crate::protocol::{CHUNK, Hello, PACKET, ToClient, ToMonitor};
use crate::runtime::Runtime;
use crate::terminal::{self, RawMode};
use crate::{socket, sys};

/// Signals that reach the container instead of us.
const FORWARDED: [i32; 9] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGIO,
    libc::SIGVTALRM,
];
/// Time between SIGTERM and SIGKILL for a container whose foreground's stdout is closed.
const AFTER_BROKEN_PIPE: Duration = Duration::from_secs(2);

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The container ended with this code.
    Exited(u8),
    /// The user typed the detach keys.
    Detached,
    /// The monitor and the reaper are gone; the container's directory knows more.
    Abandoned,
}

/// What a session is made of.
#[derive(Debug)]
pub struct Session {
    /// The container's directory, to reconnect when a monitor was replaced.
    pub dir: PathBuf,
    /// The container's id for the runtime.
    pub id: String,
    /// Delivers signals.
    pub runtime: Runtime,
    /// What the monitor was told about us.
    pub hello: Hello,
    /// The container has a terminal.
    pub tty: bool,
    /// Our stdin goes to the container.
    pub stdin: bool,
    /// Keys that detach (terminals only).
    pub keys: DetachKeys,
    /// Signals, blocked since before the container was started: none is lost.
    pub signals: OwnedFd,
}

/// A descriptor for the signals of a session: the terminal's size and, unless they are to
/// act on us, those that are passed on.
///
/// # Errors
/// Those of signalfd(2).
pub fn catch_signals(pass_on: bool) -> Result<OwnedFd> {
    let mut signals = vec![libc::SIGWINCH];
    if pass_on {
        signals.extend(FORWARDED);
    }
    sys::signal_fd(&signals).wrap("catch signals")
}

struct State {
    socket: OwnedFd,
    stdin_open: bool,
    /// Packets that the monitor does not take yet; input is not read meanwhile.
    pending: Vec<Vec<u8>>,
    kill_at: Option<Instant>,
    outcome: Option<Outcome>,
}

impl Session {
    /// A session with a container as it was asked for.
    pub fn new(container: &Container, hello: Hello, keys: DetachKeys, signals: OwnedFd) -> Self {
        Self {
            dir: container.dir(),
            id: container.config.id.clone(),
            runtime: container.runtime(),
            hello,
            tty: container.config.tty,
            stdin: container.config.stdin,
            keys,
            signals,
        }
    }

    /// Runs the session over an introduced connection.
    ///
    /// # Errors
    /// When our terminal or our output fail. The terminal is restored in any case.
    pub fn run(&mut self, socket: OwnedFd) -> Result<Outcome> {
        let raw = self.tty && self.stdin && rustix::termios::isatty(rustix::stdio::stdin());
        let guard = raw.then(|| RawMode::enter(rustix::stdio::stdin())).transpose();
        let guard = guard.wrap("set the terminal to raw mode")?;
        let mut state = State {
            socket,
            stdin_open: self.stdin,
            pending: Vec::new(),
            kill_at: None,
            outcome: None,
        };
        self.send_size(&mut state);
        let outcome = loop {
            if let Some(outcome) = state.outcome {
                break outcome;
            }
            self.turn(&mut state)?;
        };
        if outcome == Outcome::Detached {
            state.send(ToMonitor::Detach.encode());
            // The cursor is wherever the container's program left it.
            let _ = io::stdout().write_all(b"\r\n");
        }
        drop(guard);
        Ok(outcome)
    }

    fn turn(&mut self, state: &mut State) -> Result<()> {
        let writing = !state.pending.is_empty();
        let mut flags = PollFlags::IN;
        if writing {
            flags |= PollFlags::OUT;
        }
        let stdin = rustix::stdio::stdin();
        let mut fds =
            vec![PollFd::new(&state.socket, flags), PollFd::new(&self.signals, PollFlags::IN)];
        if state.stdin_open && !writing {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        let left = |at: Instant| timespec(at.saturating_duration_since(Instant::now()));
        match rustix::event::poll(&mut fds, state.kill_at.map(left).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::from(errno).wrap("poll")),
        }
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        if state.kill_at.is_some_and(|at| at <= Instant::now()) {
            state.kill_at = None;
            self.signal(libc::SIGKILL);
        }
        if !ready[1].is_empty() {
            self.take_signals(state)?;
        }
        if ready[0].contains(PollFlags::OUT) {
            state.flush();
        }
        if ready[0].intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.take_output(state)?;
        }
        if ready.get(2).is_some_and(|flags| !flags.is_empty()) {
            self.take_input(state);
        }
        Ok(())
    }

    fn take_signals(&self, state: &mut State) -> Result<()> {
        while let Some(signal) = sys::read_signal(self.signals.as_fd()).wrap("read signals")? {
            match signal {
                libc::SIGWINCH => self.send_size(state),
                signal => self.signal(signal),
            }
        }
        Ok(())
    }

    /// A container that has just ended takes no signal, and that is no failure.
    fn signal(&self, signal: i32) {
        if let Err(error) = self.runtime.kill(&self.id, signal)
            && !crate::exit::read(&self.dir).is_ok_and(|code| code.is_some())
            && self.dir.exists()
        {
            warn(&format!("forward signal {signal}: {error}"));
        }
    }

    fn send_size(&self, state: &mut State) {
        if self.tty
            && let Some((rows, columns)) = terminal::size()
        {
            state.send(ToMonitor::Resize(rows, columns).encode());
        }
    }

    fn take_output(&mut self, state: &mut State) -> Result<()> {
        let mut buffer = [0u8; PACKET];
        let length = match rustix::net::recv(&state.socket, &mut buffer, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Ok((0, _)) | Err(_) => return self.reconnect(state),
            Ok((length, _)) => length.min(PACKET),
        };
        match ToClient::decode(&buffer[..length]) {
            Some(ToClient::Stdout(bytes)) => self.print(state, &mut io::stdout(), bytes),
            Some(ToClient::Stderr(bytes)) => self.print(state, &mut io::stderr(), bytes),
            Some(ToClient::Exit(code)) => {
                state.outcome = Some(Outcome::Exited(code));
                Ok(())
            }
            Some(ToClient::Notice(text)) => Err(Error::new(text)),
            None => Err(Error::new("the monitor sent something that is no message")),
        }
    }

    /// Like a process at the end of a broken pipe, the container of a foreground session
    /// ends when nobody reads its output any more.
    fn print(&self, state: &mut State, to: &mut impl Write, bytes: &[u8]) -> Result<()> {
        match to.write_all(bytes).and_then(|()| to.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && self.hello.foreground => {
                if state.kill_at.is_none() {
                    self.signal(libc::SIGTERM);
                    state.kill_at = Some(Instant::now() + AFTER_BROKEN_PIPE);
                }
                Ok(())
            }
            Err(error) => Err(Error::from(error).wrap("write the container's output")),
        }
    }

    /// A monitor that was killed is replaced behind the same socket.
    fn reconnect(&self, state: &mut State) -> Result<()> {
        match socket::connect(&self.dir, self.hello) {
            Ok(socket) => {
                state.socket = socket;
                self.send_size(state);
            }
            Err(_) => {
                warn("the connection ended before the output did: some may be missing");
                state.outcome = Some(Outcome::Abandoned);
            }
        }
        Ok(())
    }

    fn take_input(&mut self, state: &mut State) {
        let mut buffer = [0u8; CHUNK];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) | Err(_) => {
                state.stdin_open = false;
                state.send(ToMonitor::StdinEnd.encode());
            }
            Ok(length) if self.tty => {
                let (typed, detached) = self.keys.filter(&buffer[..length]);
                // Held keys may come back with the next ones: more than one chunk.
                for chunk in typed.chunks(CHUNK) {
                    state.send(ToMonitor::Stdin(chunk).encode());
                }
                if detached {
                    state.outcome = Some(Outcome::Detached);
                }
            }
            Ok(length) => state.send(ToMonitor::Stdin(&buffer[..length]).encode()),
        }
    }
}

impl State {
    fn send(&mut self, packet: Vec<u8>) {
        self.pending.push(packet);
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(packet) = self.pending.first() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, packet, flags) {
                Ok(_) => drop(self.pending.remove(0)),
                Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => return,
                // The end of the connection is noticed where it is read.
                Err(_) => self.pending.clear(),
            }
        }
    }
}

/// One line for the user, beside the container's own output.
pub fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "shim: warning: {text}");
}
