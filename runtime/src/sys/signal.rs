//! Signals: masks, dispositions, waiting.

use super::{again, check, check_fd, errno, failed};
use crate::error::Result;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Blocks every signal; they are then taken by [`wait_any`] or [`signalfd`].
pub fn block_all() -> Result<()> {
    set_mask(true)
}

/// Unblocks every signal.
pub fn unblock_all() -> Result<()> {
    set_mask(false)
}

fn full(filled: bool) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: both calls initialise the set.
    unsafe {
        if filled {
            libc::sigfillset(set.as_mut_ptr());
        } else {
            libc::sigemptyset(set.as_mut_ptr());
        }
        set.assume_init()
    }
}

fn set_mask(blocked: bool) -> Result<()> {
    let set = full(blocked);
    // SAFETY: the set is initialised, and no old one is asked for.
    let r = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()) };
    check(r, || "sigprocmask(SIG_SETMASK)".into()).map(drop)
}

/// Sets the dispositions that a program can inherit changed back to the default.
///
/// Across execve(2) only "ignored" survives, and Rust's start-up ignores SIGPIPE; a caller may
/// have ignored others (nohup: SIGHUP), which a container must not see.
pub fn default_dispositions() {
    for signal in 1..=64 {
        if matches!(signal, libc::SIGKILL | libc::SIGSTOP | 32 | 33) {
            continue;
        }
        // SAFETY: the default disposition runs no code of ours. Failure means that the signal
        // does not exist on this architecture.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Has `command` begin with no signal blocked: Rust's standard library no longer sees to
/// it, a child of ours would otherwise inherit what [`block_all`] has done.
pub fn unblock_in(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt as _;
    let begin = || {
        set_mask(false)
            .map_err(|e| std::io::Error::from_raw_os_error(e.errno().unwrap_or(libc::EINVAL)))
    };
    // SAFETY: between fork and exec this only calls sigprocmask(2), which is async-signal-safe.
    unsafe { command.pre_exec(begin) };
}

/// sigwaitinfo(2): the next signal, of those that are blocked, and who sent it.
pub fn wait_any() -> Result<i32> {
    let set = full(true);
    loop {
        // SAFETY: the set is initialised, and no information is asked for.
        let signal = unsafe { libc::sigwaitinfo(&set, std::ptr::null_mut()) };
        if signal != -1 || errno() != libc::EINTR {
            return check(signal, || "sigwaitinfo()".into());
        }
    }
}

/// signalfd(2) of every signal, close-on-exec and non-blocking.
pub fn signalfd() -> Result<OwnedFd> {
    let set = full(true);
    // SAFETY: the set is initialised.
    let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    check_fd(fd.into(), || "signalfd()".into())
}

/// The next signal from a [`signalfd`], or `None` when there is none.
pub fn next_signal(fd: impl AsFd) -> Result<Option<i32>> {
    let raw = fd.as_fd().as_raw_fd();
    let mut info = std::mem::MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer has the size that is passed, and is read only after a full read.
    unsafe {
        if libc::read(raw, info.as_mut_ptr().cast(), size) == size as isize {
            return Ok(Some(info.assume_init().ssi_signo as i32));
        }
    }
    match errno() {
        libc::EAGAIN => Ok(None),
        e => Err(failed(e, || format!("read(signalfd {raw})"))),
    }
}

/// What poll(2) found on one descriptor.
pub type Ready = i16;

/// poll(2): waits until something happens on one of the descriptors, or the time is over.
///
/// Returns the events of each, in order; all zero after the time, and only then.
pub fn poll(fds: &[(BorrowedFd<'_>, i16)], timeout: Option<Duration>) -> Result<Vec<Ready>> {
    let mut polled: Vec<libc::pollfd> = fds
        .iter()
        .map(|(fd, events)| libc::pollfd { fd: fd.as_raw_fd(), events: *events, revents: 0 })
        .collect();
    let end = timeout.map(|t| Instant::now() + t);
    let r = again(|| {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let millis = left.map_or(-1, |t| i32::try_from(t.as_millis()).unwrap_or(i32::MAX));
        // SAFETY: the array has the length that is passed.
        unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, millis) }
    });
    check(r, || "poll()".into())?;
    Ok(polled.iter().map(|p| p.revents).collect())
}
