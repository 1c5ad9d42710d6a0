//! The system calls that rustix does not wrap, and nothing else.
//!
//! The only module of this crate that may say `unsafe`. Every function here is one
//! thin, synchronous wrapper; policy lives with the callers.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

/// Takes over a descriptor that the parent passed by number, and marks it close-on-exec.
///
/// # Errors
/// `EBADF` when the number is not an open descriptor.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD takes an integer and touches no memory; a bad number is reported.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open (just proven), and each number is claimed once, by
    // the role that its parent started with exactly these numbers (see `orders.rs`).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes every descriptor above 2 that is not in `keep`: a caller's leaked pipe must not
/// stay open for as long as a container lives.
///
/// Call it before the process opens anything: Rust-owned descriptors would dangle.
///
/// # Errors
/// When /proc/self/fd cannot be read.
pub fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        if let Some(fd) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) {
            open.push(fd);
        }
    }
    for fd in open.into_iter().filter(|fd| *fd > 2 && !keep.contains(fd)) {
        // SAFETY: nothing in this process owns the number yet (the function's contract);
        // the directory's own descriptor is closed already, and EBADF is harmless.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// A descriptor that becomes readable when one of `signals` is pending. From here on these
/// signals, and no others, are blocked, whatever the mask was that we inherited.
///
/// Children inherit the mask: see `unblock_signals`.
///
/// # Errors
/// Those of sigprocmask(2) and signalfd(2).
pub fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    set_signal_mask(signals)?;
    let set = signal_set(signals);
    // SAFETY: `set` is initialised; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Starts a command with no signal blocked, although we block some.
pub fn unblock_signals(command: &mut Command) {
    // SAFETY: the closure makes one system call between fork and exec, on its own stack.
    unsafe { command.pre_exec(|| set_signal_mask(&[])) };
}

fn set_signal_mask(signals: &[i32]) -> io::Result<()> {
    let set = signal_set(signals);
    // SAFETY: `set` is initialised, and the old mask is not asked for.
    match unsafe { libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The number of the next pending signal, or `None` when there is none.
///
/// # Errors
/// Those of read(2), `EAGAIN` excepted.
pub fn read_signal(fd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(fd, &mut info) {
        // ssi_signo is the first field, an u32 in native order (signalfd(2)).
        Ok(_) => Ok(Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))),
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the whole set; sigaddset only sets bits in it and
    // refuses numbers that are not signals.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

/// Makes a runtime's process die with us, with no signal blocked and with the OOM score
/// that we were started with rather than our own protected one: its container would
/// inherit both.
///
/// `oom_score_adj` is the decimal text for /proc/self/oom_score_adj.
pub fn tie_to_us(command: &mut Command, oom_score_adj: String) {
    unblock_signals(command);
    let parent = rustix::process::getpid();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // The parent may have died between fork and prctl: then no signal ever comes.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // Best effort: an unprivileged process may raise the score but not lower it.
        if let Ok(file) = rustix::fs::open(
            c"/proc/self/oom_score_adj",
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        ) {
            let _ = rustix::io::write(&file, oom_score_adj.as_bytes());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes only direct system calls: it does
    // not allocate (the text was made before), takes no lock and touches no shared state.
    unsafe { command.pre_exec(prepare) };
}

/// The exit status of a process that somebody else has reaped, asked from a pidfd that
/// was opened while it lived: `PIDFD_GET_INFO` with `PIDFD_INFO_EXIT` (Linux 6.15).
///
/// `None` where the kernel cannot tell.
pub fn exit_status_of(pidfd: BorrowedFd<'_>) -> Option<ExitStatus> {
    /// `struct pidfd_info` of linux/pidfd.h, as of Linux 6.15.
    #[repr(C)]
    #[derive(Default)]
    struct PidfdInfo {
        mask: u64,
        cgroupid: u64,
        ids: [u32; 11],
        exit_code: i32,
        coredump: [u32; 2],
    }
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    // _IOWR(PIDFS_IOCTL_MAGIC = 0xFF, 11, struct pidfd_info)
    let request = (3u64 << 30) | ((size_of::<PidfdInfo>() as u64) << 16) | (0xFF << 8) | 11;
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request's size field is the struct's size, so that the kernel writes
    // within it; on kernels without the request it fails with ENOTTY or EINVAL.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), request as _, &mut info) };
    (done == 0 && info.mask & PIDFD_INFO_EXIT != 0).then(|| ExitStatus::from_raw(info.exit_code))
}
