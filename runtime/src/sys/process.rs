//! Processes: making them, what they are allowed, and how they end.

use super::{check, check_fd, cpath, errno, failed};
use crate::error::Result;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// What clone3(2) made: on which side of the fork are we?
pub enum Fork {
    /// In the parent: the child's pid, and a descriptor of it.
    Parent(i32, OwnedFd),
    /// In the child.
    Child,
}

/// clone3(2) like fork(2): the child continues with a copy of everything.
///
/// `flags` are namespaces and CLONE_PARENT; CLONE_PIDFD is always asked. With `cgroup`, the
/// child begins its life in that cgroup v2 directory (CLONE_INTO_CGROUP, Linux 5.7).
pub fn clone(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork> {
    let mut pidfd: i32 = -1;
    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    // With CLONE_PARENT the child sends the signal of the caller itself; clone3 wants a zero then.
    args.exit_signal =
        if flags & libc::CLONE_PARENT as u64 != 0 { 0 } else { libc::SIGCHLD as u64 };
    if let Some(cgroup) = cgroup {
        args.flags |= 0x2_0000_0000;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no stack is given, so the child runs on a copy of ours; this process has one thread
    // (asserted by the caller), so no lock can be held by a thread that the child does not have.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<libc::clone_args>()) };
    let pid = check(pid, || {
        let into = if cgroup.is_some() { " into a cgroup" } else { "" };
        format!("clone3({:#x}{into})", args.flags)
    })?;
    if pid == 0 {
        return Ok(Fork::Child);
    }
    // SAFETY: on success the kernel has stored a new descriptor in `pidfd`.
    Ok(Fork::Parent(pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// How many threads this process has.
pub fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// unshare(2).
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::unshare(flags) }, || format!("unshare({flags:#x})")).map(drop)
}

/// setns(2): `fd` names a namespace, or is a pidfd of a process whose namespaces are joined.
pub fn setns(fd: impl AsFd, flags: i32) -> Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: no memory is passed.
    check(unsafe { libc::setns(raw, flags) }, || format!("setns({raw}, {flags:#x})")).map(drop)
}

/// execve(2); returns only when it fails.
pub fn execve(path: &Path, argv: &[CString], envp: &[CString]) -> Result<Infallible> {
    let c = cpath(path)?;
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: every pointer is terminated, and both arrays end with a null.
    unsafe { libc::execve(c.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Err(failed(errno(), || format!("execve({path:?})")))
}

/// execveat(2) of the file that `fd` names; returns only when it fails.
pub fn fexecve(fd: impl AsFd, argv: &[CString], envp: &[CString]) -> Result<Infallible> {
    let raw = fd.as_fd().as_raw_fd();
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: as for execve, with an empty path.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            raw,
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(failed(errno(), || format!("execveat({raw})")))
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// _exit(2): ends the process at once, running nothing.
pub fn exit(code: i32) -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(code) }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It returned this code.
    Exited(i32),
    /// A signal killed it.
    Killed(i32),
}

impl Ended {
    /// The code that a shell would report: 128 + n for signal n.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => 128 + signal,
        }
    }
}

/// waitpid(2). `None`: nothing has ended (WNOHANG), or there is no such child.
pub fn waitpid(pid: i32, options: i32) -> Result<Option<(i32, Ended)>> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is writable. __WALL also reaps children that send no SIGCHLD.
        let r = unsafe { libc::waitpid(pid, &mut status, options | libc::__WALL) };
        return match r {
            0 => Ok(None),
            -1 if errno() == libc::EINTR => continue,
            -1 if errno() == libc::ECHILD => Ok(None),
            -1 => Err(failed(errno(), || format!("waitpid({pid})"))),
            pid if libc::WIFSIGNALED(status) => {
                Ok(Some((pid, Ended::Killed(libc::WTERMSIG(status)))))
            }
            pid => Ok(Some((pid, Ended::Exited(libc::WEXITSTATUS(status))))),
        };
    }
}

/// pidfd_open(2).
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    check_fd(fd, || format!("pidfd_open({pid})"))
}

/// pidfd_send_signal(2).
pub fn pidfd_kill(pidfd: impl AsFd, signal: i32) -> Result<()> {
    let raw = pidfd.as_fd().as_raw_fd();
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo means that of kill(2).
    let r = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, raw, signal, none, 0) };
    check(r, || format!("pidfd_send_signal({raw}, {signal})")).map(drop)
}

/// pidfd_getfd(2): a copy, close-on-exec, of the descriptor that has this number there.
pub fn pidfd_getfd(pidfd: impl AsFd, number: i32) -> Result<OwnedFd> {
    let raw = pidfd.as_fd().as_raw_fd();
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, raw, number, 0) };
    check_fd(fd, || format!("pidfd_getfd({raw}, {number})"))
}

/// kill(2).
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::kill(pid, signal) }, || format!("kill({pid}, {signal})")).map(drop)
}

/// setsid(2).
pub fn setsid() -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::setsid() }, || "setsid()".into()).map(drop)
}

/// geteuid(2).
pub fn euid() -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::geteuid() }
}

/// getegid(2).
pub fn egid() -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::getegid() }
}

/// umask(2); returns the former one.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::umask(mask) }
}

/// setgroups(2), of this thread alone.
pub fn setgroups(groups: &[u32]) -> Result<()> {
    // SAFETY: the array has the length that is passed.
    let r = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    check(r, || format!("setgroups({groups:?})")).map(drop)
}

/// setresgid(2), all three, of this thread alone.
pub fn setgid(gid: u32) -> Result<()> {
    // SAFETY: no memory is passed.
    let r = unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) };
    check(r, || format!("setresgid({gid})")).map(drop)
}

/// setresuid(2), all three, of this thread alone.
pub fn setuid(uid: u32) -> Result<()> {
    // SAFETY: no memory is passed.
    let r = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    check(r, || format!("setresuid({uid})")).map(drop)
}

/// prctl(2) for the options whose arguments are all numbers.
pub fn prctl(option: i32, a: u64, b: u64) -> Result<i32> {
    // SAFETY: the callers pass only options that take numbers.
    check(unsafe { libc::prctl(option, a, b, 0u64, 0u64) }, || format!("prctl({option}, {a}, {b})"))
}

/// capset(2) of this thread: effective, permitted and inheritable sets as bit masks.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let data = [0, 32].map(|shift| CapData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    });
    // SAFETY: version 3 takes a header and two data structures.
    let r = unsafe { libc::syscall(libc::SYS_capset, &header, data.as_ptr()) };
    check(r, || {
        format!("capset(effective={effective:#x}, permitted={permitted:#x}, inheritable={inheritable:#x})")
    })
    .map(drop)
}

/// capget(2) of this thread: the effective, permitted and inheritable sets.
pub fn capget() -> Result<(u64, u64, u64)> {
    let mut header = CapHeader { version: 0x2008_0522, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 takes a header and fills two data structures.
    let r = unsafe { libc::syscall(libc::SYS_capget, &mut header, data.as_mut_ptr()) };
    check(r, || "capget()".into())?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let [a, b] = data;
    Ok((
        join(a.effective, b.effective),
        join(a.permitted, b.permitted),
        join(a.inheritable, b.inheritable),
    ))
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// prlimit(2) of the process `pid`.
pub fn set_rlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let null = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: the new limit is readable, and no old one is asked for.
    let r = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &limit, null) };
    check(r, || format!("prlimit({pid}, {resource}, soft={soft}, hard={hard})")).map(drop)
}

/// getrlimit(2) of this process: soft and hard limit.
pub fn rlimit(resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let null = std::ptr::null::<libc::rlimit64>();
    // SAFETY: the old limit is writable, and no new one is given.
    let r = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, null, &mut limit) };
    check(r, || format!("prlimit(0, {resource})"))?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// seccomp(2) with SECCOMP_SET_MODE_FILTER; with SECCOMP_FILTER_FLAG_NEW_LISTENER returns the
/// listener, which is close-on-exec.
pub fn install_seccomp(program: &[crate::seccomp::Insn], flags: u32) -> Result<Option<OwnedFd>> {
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const crate::seccomp::Insn,
    }
    let fprog = Program { len: program.len() as u16, filter: program.as_ptr() };
    // SAFETY: the program is an array of sock_filter of that length (at most BPF_MAXINSNS).
    let r = unsafe { libc::syscall(libc::SYS_seccomp, 1, flags, &fprog) };
    let intent = || format!("seccomp(SET_MODE_FILTER, {flags:#x}, {} instructions)", program.len());
    match flags & crate::seccomp::FLAG_NEW_LISTENER {
        0 => check(r, intent).map(|_| None),
        _ => check_fd(r, intent).map(Some),
    }
}

/// sethostname(2).
pub fn sethostname(name: &str) -> Result<()> {
    // SAFETY: the pointer is readable for the length that is passed.
    let r = unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
    check(r, || format!("sethostname({name:?})")).map(drop)
}

/// setdomainname(2).
pub fn setdomainname(name: &str) -> Result<()> {
    // SAFETY: the pointer is readable for the length that is passed.
    let r = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    check(r, || format!("setdomainname({name:?})")).map(drop)
}

/// keyctl(KEYCTL_JOIN_SESSION_KEYRING): a new session keyring of that name.
pub fn join_session_keyring(name: &CStr) -> Result<i64> {
    // SAFETY: `name` is terminated; 1 is KEYCTL_JOIN_SESSION_KEYRING.
    let r = unsafe { libc::syscall(libc::SYS_keyctl, 1, name.as_ptr()) };
    #[allow(clippy::useless_conversion)] // c_long is 32 bits wide on some architectures
    check(r, || format!("keyctl(JOIN_SESSION_KEYRING, {name:?})")).map(Into::into)
}

/// personality(2).
pub fn personality(persona: u64) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::personality(persona) }, || format!("personality({persona:#x})")).map(drop)
}

/// set_mempolicy(2); `nodes` is a bit mask in 64-bit words.
pub fn set_mempolicy(mode: i32, nodes: &[u64]) -> Result<()> {
    let bits = nodes.len() * 64 + usize::from(!nodes.is_empty());
    // SAFETY: the mask is readable for the number of bits that is passed.
    let r = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), bits) };
    check(r, || format!("set_mempolicy({mode:#x}, {nodes:x?})")).map(drop)
}
