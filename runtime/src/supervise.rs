//! `run`, `restore` and `exec` in the foreground: the wait, with signals forwarded, orphans reaped,
//! the terminal shown, and what it ends with.

use crate::container::Container;
use crate::delete;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::plan::hooks::Hooks;
use crate::sys::process::{self, Ended};
use crate::sys::{self, fs, signal, tty};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Makes ready for the wait, before the child exists.
pub fn begin(no_subreaper: bool) -> Result<()> {
    if !no_subreaper {
        process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0)?;
    }
    // Now, so that no signal is lost.
    signal::block_all()
}

/// What the verb exits with when the program has ended so.
pub fn exit_code(ended: Option<Ended>) -> Result<i32> {
    let none = || Error::new("somebody else has taken the container's exit status");
    ended.map(Ended::code).ok_or_else(none)
}

/// Ends a container that nobody waits for any more, and takes it away.
pub fn abandon(container: Container, hooks: &Hooks, log: &Log, error: Error) -> Error {
    let pid = container.record.pid;
    let ended = container.pidfd().and_then(|pidfd| {
        // One that has ended already cannot be killed, and is reaped here.
        pidfd.into_iter().for_each(|fd| drop(process::pidfd_kill(&fd, libc::SIGKILL)));
        process::waitpid(pid, 0)
    });
    error.undone(ended.and_then(|_| delete::destroy(container, hooks, log)))
}

/// Waits until the process `pid` ends. Every signal must be blocked already.
///
/// `None`: the process is no child of ours any more.
pub fn wait(pid: i32, console: Option<&OwnedFd>) -> Result<Option<Ended>> {
    match console {
        None => without_terminal(pid),
        Some(master) => with_terminal(pid, master),
    }
}

fn without_terminal(pid: i32) -> Result<Option<Ended>> {
    // It may have ended before we looked, and its SIGCHLD been merged with an earlier one.
    loop {
        if let Some(ended) = reap(pid)? {
            return Ok(ended);
        }
        forward(pid, signal::wait_any()?)?;
    }
}

/// Reaps whatever has ended. `Some(None)`: there are no children left, `pid` among them.
fn reap(pid: i32) -> Result<Option<Option<Ended>>> {
    loop {
        match process::waitpid(-1, libc::WNOHANG)? {
            Some((ended, how)) if ended == pid => return Ok(Some(Some(how))),
            Some(_) => {}
            None => {
                return match process::kill(pid, 0) {
                    Err(e) if e.errno() == Some(libc::ESRCH) => Ok(Some(None)),
                    // It is there, though perhaps not ours to signal.
                    _ => Ok(None),
                };
            }
        }
    }
}

/// Passes a signal on, except those that are about ourselves.
fn forward(pid: i32, number: i32) -> Result<()> {
    const OWN: [i32; 6] =
        [libc::SIGCHLD, libc::SIGPIPE, libc::SIGURG, libc::SIGTTIN, libc::SIGTTOU, libc::SIGWINCH];
    if OWN.contains(&number) {
        return Ok(());
    }
    match process::kill(pid, number) {
        Err(e) if e.errno() != Some(libc::ESRCH) => Err(e),
        _ => Ok(()),
    }
}

/// Our own terminal in raw mode; the former mode comes back on every way out.
struct RawTerminal {
    former: Option<tty::Settings>,
    input: BorrowedFd<'static>,
}

impl RawTerminal {
    fn new() -> Result<Self> {
        let input = sys::standard(0)?;
        let former = tty::settings(input).ok();
        if let Some(former) = &former {
            tty::apply(input, &former.raw())?;
        }
        Ok(Self { former, input })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(former) = &self.former {
            // On the way out there is nobody to tell.
            drop(tty::apply(self.input, former));
        }
    }
}

fn with_terminal(pid: i32, master: &OwnedFd) -> Result<Option<Ended>> {
    let (input, output) = (sys::standard(0)?, sys::standard(1)?);
    let terminal = RawTerminal::new()?;
    copy_size(input, master);
    let signals = signal::signalfd()?;
    let mut input_open = true;
    let ended = loop {
        let mut fds = vec![(signals.as_fd(), libc::POLLIN), (master.as_fd(), libc::POLLIN)];
        if input_open {
            fds.push((input, libc::POLLIN));
        }
        let ready = signal::poll(&fds, None)?;
        if ready[1] != 0 {
            copy(master.as_fd(), output)?;
        }
        if ready.get(2).is_some_and(|r| *r != 0) {
            input_open = copy(input, master.as_fd())?;
        }
        if ready[0] == 0 {
            // The terminal is hung up but the process lives: the signal is all there is to wait for.
            if ready[1] & libc::POLLHUP != 0 {
                signal::poll(&[(signals.as_fd(), libc::POLLIN)], None)?;
            }
            continue;
        }
        while let Some(number) = signal::next_signal(&signals)? {
            if number == libc::SIGWINCH {
                copy_size(input, master);
            }
            forward(pid, number)?;
        }
        if let Some(ended) = reap(pid)? {
            break ended;
        }
    };
    // What the program wrote last is still in the terminal.
    while signal::poll(&[(master.as_fd(), libc::POLLIN)], Some(Duration::ZERO))?[0] & libc::POLLIN
        != 0
    {
        if !copy(master.as_fd(), output)? {
            break;
        }
    }
    drop(terminal);
    Ok(ended)
}

/// Copies once; `false` at the end of the input (on a terminal: EIO).
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool> {
    let mut buffer = [0u8; 8192];
    let n = match fs::read(from, &mut buffer) {
        Ok(n) => n,
        Err(e) if e.errno() == Some(libc::EIO) => 0,
        Err(e) => return Err(e),
    };
    let mut rest = &buffer[..n];
    while !rest.is_empty() {
        match fs::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(e) if e.errno() == Some(libc::EAGAIN) => {
                signal::poll(&[(to, libc::POLLOUT)], None)?;
            }
            // The reader of our output is gone; the container is not told, as with a real terminal.
            Err(e) if matches!(e.errno(), Some(libc::EPIPE | libc::EIO)) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(n > 0)
}

fn copy_size(from: BorrowedFd<'_>, to: &OwnedFd) {
    if let Ok((rows, columns)) = tty::size(from) {
        // A size that cannot be set leaves the terminal as it was.
        drop(tty::set_size(to, rows, columns));
    }
}
