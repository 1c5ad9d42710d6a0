//! The reaper: the container's parent, and the last process that may die.
//!
//! It starts the runtime, parks both ends of the container's stdio, starts the monitor,
//! and then sleeps in poll until a child ends. It handles no byte of output and no client,
//! so there is next to nothing in it that can fail or be attacked; when the container's
//! process ends, it writes the exit code and only then tells anybody. A monitor that dies
//! is replaced.
//!
//! What it says to its parent over the report pipe, one line each:
//! `started PID`, or `failed CODE MESSAGE`; later `warning MESSAGE` and `exit CODE`. The
//! pipe closes when everything is tidied up.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions};

use crate::console::{self, ConsoleSocket};
use crate::container::{Lock, write_atomically};
use crate::error::{Context, Error, Result, code};
use crate::monitor::{ENDED, MonitorOrders, STDIN_CLOSED};
use crate::orders::Orders;
use crate::process::{Recorded, timespec};
use crate::runtime::Runtime;
use crate::{container, exit, image, sys};

/// Forwarded to the container's process when somebody sends them to the reaper.
const FORWARDED: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];
/// First pause before a dead monitor is replaced; doubles up to `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Monitors that may die after the container has ended before its last output is given up.
const LAST_TRIES: u32 = 3;

/// Runs a container from `create` to its removal.
///
/// # Errors
/// What happened is reported to the parent and into the container's directory; the error
/// is for the exit status alone.
pub fn run(orders: &Orders) -> Result<()> {
    sys::close_all_but(&[orders.lock_fd, orders.attach_fd, orders.report_fd])
        .wrap("close inherited descriptors")?;
    let mut reaper = Reaper::begin(orders)?;
    let started = reaper.start();
    match started {
        Ok(init) => reaper.supervise(init),
        Err(error) => {
            let report = format!("failed {} {error}", error.code().unwrap_or(code::OURS));
            reaper.give_up(&error);
            reaper.report(&report);
            Err(error)
        }
    }
}

struct Reaper<'a> {
    orders: &'a Orders,
    dir: PathBuf,
    runtime: Runtime,
    signals: OwnedFd,
    listener: OwnedFd,
    report: File,
    parked: Parked,
    monitor: Option<Monitor>,
    _lock: Lock,
}

/// Our copies of the monitor's descriptors: while these live, the container's pipes have
/// a reader and its terminal has a master, whatever happens to the monitor.
#[derive(Default)]
struct Parked {
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    console: Option<OwnedFd>,
}

struct Monitor {
    pid: Pid,
    /// Gone before the monitor itself is: its end was seen, its death not yet.
    channel: Option<OwnedFd>,
}

/// The container's process.
struct Init {
    pid: Pid,
    pidfd: OwnedFd,
}

impl<'a> Reaper<'a> {
    fn begin(orders: &'a Orders) -> Result<Self> {
        let take = |fd| sys::inherited(fd).wrap("take an inherited descriptor");
        let lock = Lock(take(orders.lock_fd)?.into());
        let report = File::from(take(orders.report_fd)?);
        let listener = take(orders.attach_fd)?;
        rustix::process::setsid().wrap("setsid")?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .wrap("become the subreaper")?;
        let mut watched = vec![libc::SIGCHLD, libc::SIGHUP];
        watched.extend(FORWARDED);
        let signals = sys::signal_fd(&watched).wrap("signalfd")?;
        let dir = orders.dir();
        let runtime = Runtime {
            path: orders.runtime.clone(),
            args: orders.runtime_args.clone(),
            deadline: orders.deadline,
            log: dir.join("runtime.log"),
            oom_score_adj: protect_from_oom(),
        };
        let us = Recorded::of(std::process::id() as i32);
        us.ok_or_else(|| Error::new("read /proc/self/stat"))?.write(&dir.join("reaper"))?;
        Ok(Self {
            orders,
            dir,
            runtime,
            signals,
            listener,
            report,
            parked: Parked::default(),
            monitor: None,
            _lock: lock,
        })
    }

    /// Creates the container, puts a monitor beside it, starts it.
    fn start(&mut self) -> Result<Init> {
        for stale in ["started", "init", "error"] {
            let _ = std::fs::remove_file(self.dir.join(stale));
        }
        exit::reserve(&self.dir).wrap("make room for the exit code")?;
        let init = self.create()?;
        let monitor = self.spawn_monitor(init.pid)?;
        self.monitor = Some(monitor);
        // Before `start`: a quick container may have ended when the runtime returns.
        write_atomically(&self.dir.join("started"), b"")?;
        self.runtime.call("start", &[&self.orders.id])?;
        self.report(&format!("started {}", init.pid.as_raw_nonzero()));
        Ok(init)
    }

    fn create(&mut self) -> Result<Init> {
        let pid_file = self.dir.join("pid");
        let _ = std::fs::remove_file(&pid_file);
        let mut command = self.runtime.command("create");
        command.arg("--bundle").arg(&self.orders.bundle);
        command.arg("--pid-file").arg(&pid_file);
        let console = match self.orders.tty {
            true => Some(self.give_console(&mut command)?),
            false => {
                self.give_pipes(&mut command)?;
                None
            }
        };
        command.arg(&self.orders.id);
        let mut child = self.runtime.spawn(&mut command)?;
        // Our copies of the container's own ends go: only then does a pipe know its end.
        drop(command);
        let stderr = self.parked.stderr.as_ref().map(AsFd::as_fd);
        self.runtime.finish("create", &mut child, stderr)?;
        let init =
            read_pid(&pid_file).wrap_with(|| format!("{} create", self.runtime.path.display()))?;
        if let Some(socket) = console {
            let master = socket.receive();
            let master = master.wrap("receive the terminal from the runtime")?;
            console::set_onlcr(&master).wrap("set up the terminal")?;
            self.parked.console = Some(master);
        }
        let recorded = Recorded::of(init.pid.as_raw_nonzero().get());
        if let Some(recorded) = recorded {
            recorded.write(&self.dir.join("init"))?;
        }
        let _ = std::fs::remove_file(&pid_file);
        Ok(init)
    }

    fn give_console(&self, command: &mut Command) -> Result<ConsoleSocket> {
        let socket = ConsoleSocket::bind(&self.dir, &self.orders.id);
        let socket = socket.wrap("make the console socket")?;
        command.arg("--console-socket").arg(socket.path());
        command.stderr(Stdio::piped());
        Ok(socket)
    }

    fn give_pipes(&mut self, command: &mut Command) -> Result<()> {
        let (read, write) = container_pipe(Container::Writes)?;
        command.stdout(Stdio::from(write));
        self.parked.stdout = Some(read);
        let (read, write) = container_pipe(Container::Writes)?;
        command.stderr(Stdio::from(write));
        self.parked.stderr = Some(read);
        if self.orders.stdin {
            let (read, write) = container_pipe(Container::Reads)?;
            command.stdin(Stdio::from(read));
            self.parked.stdin = Some(write);
        }
        Ok(())
    }

    fn spawn_monitor(&self, init: Pid) -> Result<Monitor> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .wrap("make the monitor's channel")?;
        let raw = |fd: &Option<OwnedFd>| fd.as_ref().map(|fd| fd.as_raw_fd());
        let orders = MonitorOrders {
            dir: self.dir.clone(),
            init: init.as_raw_nonzero().get(),
            log: self.orders.log.clone(),
            reaper_fd: theirs.as_raw_fd(),
            attach_fd: self.listener.as_raw_fd(),
            stdout_fd: raw(&self.parked.stdout),
            stderr_fd: raw(&self.parked.stderr),
            stdin_fd: raw(&self.parked.stdin),
            console_fd: raw(&self.parked.console),
        };
        let inherited = [
            Some(&theirs),
            Some(&self.listener),
            self.parked.stdout.as_ref(),
            self.parked.stderr.as_ref(),
            self.parked.stdin.as_ref(),
            self.parked.console.as_ref(),
        ];
        let inherited: Vec<&OwnedFd> = inherited.into_iter().flatten().collect();
        let mut command = Command::new("/proc/self/exe");
        std::os::unix::process::CommandExt::arg0(&mut command, "shim");
        command.args(orders.to_args());
        let child = spawn_with(&mut command, &inherited).wrap("start the monitor")?;
        if let Some(recorded) = Recorded::of(child.id() as i32) {
            // For people and `ps` alone: a full disk must not keep a monitor away.
            let _ = recorded.write(&self.dir.join("monitor"));
        }
        // Reaped by the main loop with everybody else.
        let pid = Pid::from_raw(child.id() as i32).ok_or_else(|| Error::new("no pid"))?;
        Ok(Monitor { pid, channel: Some(ours) })
    }

    /// Sleeps until the container has ended and its output is dealt with; then tidies up.
    fn supervise(&mut self, init: Init) -> Result<()> {
        let mut ended: Option<u8> = None;
        let mut deaths = 0u32;
        let mut again: Option<Instant> = None;
        loop {
            let patience = again.map(|at| at.saturating_duration_since(Instant::now()));
            self.sleep(patience, &init)?;
            while let Some((pid, status)) = reap() {
                if pid == init.pid && ended.is_none() {
                    ended = exit::code_of(status);
                    deaths = 0;
                    self.note_end(ended);
                } else if self.monitor.as_ref().is_some_and(|m| m.pid == pid) {
                    self.monitor = None;
                    if ended.is_some() && (status.success() || deaths >= LAST_TRIES) {
                        return self.finish();
                    }
                    again = Some(Instant::now() + pause(deaths));
                    deaths += 1;
                }
            }
            if again.is_some_and(|at| at <= Instant::now()) {
                again = None;
                // Without descriptors or memory there is no monitor now; later, perhaps.
                match self.spawn_monitor(init.pid) {
                    Ok(monitor) => self.monitor = Some(monitor),
                    Err(_) if ended.is_some() && deaths >= LAST_TRIES => {
                        return self.finish();
                    }
                    Err(_) => {
                        again = Some(Instant::now() + pause(deaths));
                        deaths += 1;
                    }
                }
                self.tell_monitor(ended);
            }
        }
    }

    /// Waits for a signal or for a word of the monitor, and deals with both.
    fn sleep(&mut self, patience: Option<Duration>, init: &Init) -> Result<()> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let channel = self.monitor.as_ref().and_then(|m| m.channel.as_ref());
        fds.extend(channel.map(|fd| PollFd::new(fd, PollFlags::IN)));
        match rustix::event::poll(&mut fds, patience.map(timespec).as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::from(errno).wrap("poll")),
        }
        let monitor_speaks =
            fds.get(1).is_some_and(|fd| fd.revents().intersects(PollFlags::IN | PollFlags::HUP));
        drop(fds);
        while let Some(signal) = sys::read_signal(self.signals.as_fd()).wrap("read signalfd")? {
            if FORWARDED.contains(&signal)
                && let Some(signal) = Signal::from_named_raw(signal)
            {
                // ESRCH: it has just ended, and SIGCHLD says so.
                let _ = rustix::process::pidfd_send_signal(&init.pidfd, signal);
            }
        }
        if monitor_speaks {
            self.hear_monitor();
        }
        Ok(())
    }

    fn hear_monitor(&mut self) {
        let Some(monitor) = &mut self.monitor else {
            return;
        };
        let Some(channel) = &monitor.channel else {
            return;
        };
        let mut word = [0u8; 1];
        match rustix::net::recv(channel, &mut word, RecvFlags::DONTWAIT) {
            Ok((1, _)) if word[0] == STDIN_CLOSED => self.parked.stdin = None,
            Ok((1, _)) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            _ => monitor.channel = None,
        }
    }

    /// The durable fact first, then the news.
    fn note_end(&mut self, ended: Option<u8>) {
        let Some(code) = ended else { return };
        if let Err(error) = exit::record(&self.dir, code) {
            self.warn(&Error::from(error).wrap("write the exit code"));
        }
        self.tell_monitor(ended);
        self.report(&format!("exit {code}"));
    }

    fn tell_monitor(&self, ended: Option<u8>) {
        let channel = self.monitor.as_ref().and_then(|m| m.channel.as_ref());
        if let (Some(code), Some(channel)) = (ended, channel) {
            let word = [&[ENDED], code.to_string().as_bytes()].concat();
            // A monitor that died is replaced, and told then.
            let _ = rustix::net::send(channel, &word, SendFlags::NOSIGNAL);
        }
    }

    /// The container has ended and its output is where it belongs.
    fn finish(&mut self) -> Result<()> {
        self.parked = Parked::default();
        let deleted = self.runtime.delete(&self.orders.id);
        let tidy = deleted.and_then(|()| match self.orders.remove {
            true => self.remove_everything(),
            false => Ok(()),
        });
        if let Err(error) = &tidy {
            self.warn(error);
        }
        tidy
    }

    fn remove_everything(&self) -> Result<()> {
        if let Some(imgtool) = &self.orders.imgtool {
            image::umount(imgtool, &self.orders.bundle)?;
        }
        container::remove_dir(&self.orders.root, &self.orders.id).wrap("remove the container")
    }

    /// Leaves nothing of a container that could not be started.
    fn give_up(&mut self, error: &Error) {
        if let Some(monitor) = self.monitor.take() {
            let _ = rustix::process::kill_process(monitor.pid, Signal::KILL);
        }
        // It may exist halfway or not at all: the runtime's own complaint would be noise.
        let _ = self.runtime.delete(&self.orders.id);
        match self.orders.fresh {
            true => {
                if let Err(error) = self.remove_everything() {
                    self.warn(&error);
                }
            }
            false => {
                let code = error.code().unwrap_or(code::OURS);
                let _ = exit::record(&self.dir, code);
                self.warn(error);
            }
        }
    }

    /// Tells the parent, and whoever asks later.
    fn warn(&mut self, error: &Error) {
        let _ = write_atomically(&self.dir.join("error"), format!("{error}\n").as_bytes());
        self.report(&format!("warning {error}"));
    }

    /// The parent may be long gone (`run -d`): Rust ignores SIGPIPE, and so do we.
    fn report(&mut self, line: &str) {
        let _ = self.report.write_all(format!("{line}\n").as_bytes());
    }
}

/// Which end of a pipe is the container's.
#[derive(PartialEq, Eq)]
enum Container {
    Reads,
    Writes,
}

/// A pipe as (reading end, writing end). The container's end may be reopened by any user
/// through /dev/stdout and its kin, as with conmon.
fn container_pipe(container: Container) -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).wrap("pipe")?;
    let its_end = match container {
        Container::Reads => &read,
        Container::Writes => &write,
    };
    let everybody = rustix::fs::Mode::from_raw_mode(0o777);
    rustix::fs::fchmod(its_end, everybody).wrap("fchmod of a pipe")?;
    Ok((read, write))
}

/// Starts a command that inherits `fds` under their present numbers. Single-threaded
/// processes only: the descriptors are inheritable for a moment.
pub fn spawn_with(command: &mut Command, fds: &[&OwnedFd]) -> io::Result<std::process::Child> {
    use rustix::io::FdFlags;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    for fd in fds {
        rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
    }
    let child = command.spawn();
    for fd in fds {
        rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
    child
}

fn read_pid(path: &std::path::Path) -> Result<Init> {
    let text = std::fs::read_to_string(path).wrap_with(|| {
        format!("read the pid file {} that it should have written", path.display())
    })?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Error::new(format!("its pid file holds {text:?}, no pid")))?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .wrap_with(|| format!("the process {} that it reports", text.trim()))?;
    // ECHILD: somebody else's process would never end for us.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options)
        .wrap_with(|| format!("the process {} that it reports", text.trim()))?;
    Ok(Init { pid, pidfd })
}

fn reap() -> Option<(Pid, ExitStatus)> {
    let (pid, status) = rustix::process::wait(WaitOptions::NOHANG).ok()??;
    Some((pid, ExitStatus::from_raw(status.as_raw())))
}

fn pause(deaths: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << deaths.min(16)).min(LONGEST_PAUSE)
}

/// Asks the kernel to look elsewhere first when memory runs out; returns the score that
/// we had. Best effort: only root may lower it.
fn protect_from_oom() -> String {
    let path = "/proc/self/oom_score_adj";
    let before = std::fs::read_to_string(path).unwrap_or_else(|_| "0".to_owned());
    let _ = std::fs::write(path, "-1000");
    before.trim().to_owned()
}
