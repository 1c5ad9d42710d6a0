//! Files and directories, relative to descriptors.

use super::{again, check, check_fd, cpath, errno, failed};
use crate::error::Result;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The directory from which relative paths start when no descriptor is given.
pub const CWD: BorrowedFd<'static> = {
    // SAFETY: AT_FDCWD is not a descriptor that could be closed; the *at calls know it.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
};

/// What openat2(2) lets a path walk through.
#[derive(Clone, Copy)]
pub struct Resolve(u64);

impl Resolve {
    /// The directory is the root: `..` and absolute links stay below it, magic links fail.
    pub const IN_ROOT: Self = Self(0x10 | 0x02);
    /// As [`Self::IN_ROOT`], and no component may be a symbolic link.
    pub const IN_ROOT_NO_LINKS: Self = Self(0x10 | 0x02 | 0x04);
    /// No component may be a symbolic link or a magic one.
    pub const NO_LINKS: Self = Self(0x02 | 0x04);
    /// The walk stays below the directory and on its mount, and magic links fail.
    pub const ON_THIS_MOUNT: Self = Self(0x08 | 0x02 | 0x01);
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// How often a walk that the kernel could not make safe is tried at least, and how long.
const WALKS: u32 = 128;
const WALK_TIME: Duration = Duration::from_millis(2);

/// openat2(2), always O_CLOEXEC. A walk that races with a rename or a mount anywhere on the machine
/// (EAGAIN) is tried again, until it has been often and long enough for chance.
pub fn openat2(
    dir: impl AsFd,
    path: &Path,
    flags: i32,
    mode: u32,
    resolve: Resolve,
) -> Result<OwnedFd> {
    let raw = dir.as_fd().as_raw_fd();
    let name = cpath(path)?;
    let how = OpenHow {
        flags: (flags | libc::O_CLOEXEC) as u64,
        mode: u64::from(mode),
        resolve: resolve.0,
    };
    let (mut walks, mut first) = (0, None);
    loop {
        // SAFETY: `name` is terminated and `how` has the size that is passed.
        let fd = unsafe {
            libc::syscall(libc::SYS_openat2, raw, name.as_ptr(), &how, size_of::<OpenHow>())
        };
        if fd != -1 || !matches!(errno(), libc::EAGAIN | libc::EINTR) {
            return check_fd(fd, || {
                format!("openat2({raw}, {path:?}, {flags:#x}, resolve={:#x})", resolve.0)
            });
        }
        walks += 1;
        let begun = *first.get_or_insert_with(Instant::now);
        if walks >= WALKS && begun.elapsed() >= WALK_TIME {
            return Err(failed(libc::EAGAIN, || format!("openat2({raw}, {path:?}) {walks} times")));
        }
    }
}

/// openat(2), always O_CLOEXEC.
pub fn openat(dir: impl AsFd, path: &Path, flags: i32, mode: u32) -> Result<OwnedFd> {
    let raw = dir.as_fd().as_raw_fd();
    let name = cpath(path)?;
    // SAFETY: `name` is terminated; the mode is read only with O_CREAT or O_TMPFILE.
    let open = || unsafe { libc::openat(raw, name.as_ptr(), flags | libc::O_CLOEXEC, mode) };
    let fd = again(open);
    check_fd(fd.into(), || match raw {
        libc::AT_FDCWD => format!("open({path:?}, {flags:#x})"),
        _ => format!("openat({raw}, {path:?}, {flags:#x})"),
    })
}

/// mkdirat(2).
pub fn mkdirat(dir: impl AsFd, name: &Path, mode: u32) -> Result<()> {
    let raw = dir.as_fd().as_raw_fd();
    let c = cpath(name)?;
    // SAFETY: `c` is terminated.
    let r = unsafe { libc::mkdirat(raw, c.as_ptr(), mode) };
    check(r, || format!("mkdirat({raw}, {name:?}, {mode:#o})")).map(drop)
}

/// mknodat(2); `mode` holds type and permissions.
pub fn mknodat(dir: impl AsFd, name: &Path, mode: u32, rdev: u64) -> Result<()> {
    let raw = dir.as_fd().as_raw_fd();
    let c = cpath(name)?;
    // SAFETY: `c` is terminated.
    let r = unsafe { libc::mknodat(raw, c.as_ptr(), mode, rdev) };
    check(r, || format!("mknodat({raw}, {name:?}, {mode:#o}, {rdev:#x})")).map(drop)
}

/// symlinkat(2).
pub fn symlinkat(target: &Path, dir: impl AsFd, name: &Path) -> Result<()> {
    let raw = dir.as_fd().as_raw_fd();
    let (t, c) = (cpath(target)?, cpath(name)?);
    // SAFETY: both strings are terminated.
    let r = unsafe { libc::symlinkat(t.as_ptr(), raw, c.as_ptr()) };
    check(r, || format!("symlinkat({target:?}, {raw}, {name:?})")).map(drop)
}

/// unlinkat(2); `flags` is 0 or AT_REMOVEDIR.
pub fn unlinkat(dir: impl AsFd, name: &Path, flags: i32) -> Result<()> {
    let raw = dir.as_fd().as_raw_fd();
    let c = cpath(name)?;
    // SAFETY: `c` is terminated.
    let r = unsafe { libc::unlinkat(raw, c.as_ptr(), flags) };
    check(r, || format!("unlinkat({raw}, {name:?}, {flags:#x})")).map(drop)
}

/// linkat(2) of an open file that has no name yet (O_TMPFILE) to `path`, which must not exist.
pub fn link(fd: impl AsFd, path: &Path) -> Result<()> {
    let from = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let (f, t) = (cpath(&from)?, cpath(path)?);
    let flags = libc::AT_SYMLINK_FOLLOW;
    // SAFETY: both strings are terminated.
    let r = unsafe { libc::linkat(libc::AT_FDCWD, f.as_ptr(), libc::AT_FDCWD, t.as_ptr(), flags) };
    check(r, || format!("linkat({from:?}, {path:?})")).map(drop)
}

/// renameat(2) within one directory.
pub fn rename(dir: impl AsFd, from: &Path, to: &Path) -> Result<()> {
    let raw = dir.as_fd().as_raw_fd();
    let (f, t) = (cpath(from)?, cpath(to)?);
    // SAFETY: both strings are terminated.
    let r = unsafe { libc::renameat(raw, f.as_ptr(), raw, t.as_ptr()) };
    check(r, || format!("renameat({raw}, {from:?}, {to:?})")).map(drop)
}

/// fstat(2).
pub fn fstat(fd: impl AsFd) -> Result<libc::stat> {
    let raw = fd.as_fd().as_raw_fd();
    let mut st = std::mem::MaybeUninit::uninit();
    // SAFETY: `st` is large enough, and is read only after success.
    unsafe {
        check(libc::fstat(raw, st.as_mut_ptr()), || format!("fstat({raw})"))?;
        Ok(st.assume_init())
    }
}

/// The number of the mount that `fd` is on (statx(2)): since Linux 6.8 one that no other mount ever
/// gets, before that one that no other has while it is mounted.
pub fn mount_id(fd: impl AsFd) -> Result<u64> {
    let raw = fd.as_fd().as_raw_fd();
    let mask = libc::STATX_MNT_ID | libc::STATX_MNT_ID_UNIQUE;
    let mut st = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty string, `st` is large enough, and all-zero is valid for it.
    let st = unsafe {
        let r = libc::statx(raw, c"".as_ptr(), libc::AT_EMPTY_PATH, mask, st.as_mut_ptr());
        check(r, || format!("statx({raw}, {mask:#x})"))?;
        st.assume_init()
    };
    match st.stx_mask & mask {
        0 => Err(failed(libc::ENOTSUP, || format!("statx({raw}, {mask:#x})"))),
        _ => Ok(st.stx_mnt_id),
    }
}

/// fstatat(2) with AT_SYMLINK_NOFOLLOW.
pub fn lstatat(dir: impl AsFd, name: &Path) -> Result<libc::stat> {
    let raw = dir.as_fd().as_raw_fd();
    let c = cpath(name)?;
    let mut st = std::mem::MaybeUninit::uninit();
    // SAFETY: `c` is terminated, `st` is large enough and is read only after success.
    unsafe {
        let r = libc::fstatat(raw, c.as_ptr(), st.as_mut_ptr(), libc::AT_SYMLINK_NOFOLLOW);
        check(r, || format!("fstatat({raw}, {name:?})"))?;
        Ok(st.assume_init())
    }
}

/// Is there a file of that name, of whatever type?
pub fn exists(dir: impl AsFd, name: &Path) -> Result<bool> {
    match lstatat(dir, name) {
        Ok(_) => Ok(true),
        Err(e) if e.errno() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The magic number of the file system that holds `fd` (fstatfs(2)).
pub fn fstatfs(fd: impl AsFd) -> Result<i64> {
    let raw = fd.as_fd().as_raw_fd();
    let mut st = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `st` is large enough, and is read only after success.
    let st = unsafe {
        check(libc::fstatfs(raw, st.as_mut_ptr()), || format!("fstatfs({raw})"))?;
        st.assume_init()
    };
    #[allow(clippy::unnecessary_cast)] // the field's type differs between architectures
    Ok(st.f_type as i64)
}

/// Is the mount that holds `fd` read-only (fstatvfs(3))?
pub fn is_read_only(fd: impl AsFd) -> Result<bool> {
    let raw = fd.as_fd().as_raw_fd();
    let mut st = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `st` is large enough, and is read only after success.
    let st = unsafe {
        check(libc::fstatvfs(raw, st.as_mut_ptr()), || format!("fstatvfs({raw})"))?;
        st.assume_init()
    };
    Ok(st.f_flag & libc::ST_RDONLY != 0)
}

/// readlinkat(2); an empty name reads the link that `dir` itself is (O_PATH | O_NOFOLLOW).
pub fn readlinkat(dir: impl AsFd, name: &Path) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let raw = dir.as_fd().as_raw_fd();
    let c = cpath(name)?;
    let mut buffer = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer is writable for the length that is passed.
    let n = unsafe { libc::readlinkat(raw, c.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let n = check(n, || format!("readlinkat({raw}, {name:?})"))?;
    buffer.truncate(n as usize);
    Ok(std::ffi::OsString::from_vec(buffer).into())
}

/// fchmod(2), through /proc-less fchmodat: `fd` must not be O_PATH.
pub fn fchmod(fd: impl AsFd, mode: u32) -> Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: no memory is passed.
    check(unsafe { libc::fchmod(raw, mode) }, || format!("fchmod({raw}, {mode:#o})")).map(drop)
}

/// fchownat(2) of the file itself, never of what a link points to.
pub fn lchownat(dir: impl AsFd, name: &Path, uid: u32, gid: u32) -> Result<()> {
    let raw = dir.as_fd().as_raw_fd();
    let c = cpath(name)?;
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    // SAFETY: `c` is terminated.
    let r = unsafe { libc::fchownat(raw, c.as_ptr(), uid, gid, flags) };
    check(r, || format!("fchownat({raw}, {name:?}, {uid}, {gid})")).map(drop)
}

/// fchown(2).
pub fn fchown(fd: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: no memory is passed.
    check(unsafe { libc::fchown(raw, uid, gid) }, || format!("fchown({raw}, {uid}, {gid})"))
        .map(drop)
}

/// fchmodat(2) of `name` in `dir`; a link is followed, so the caller has just made the file.
pub fn chmodat(dir: impl AsFd, name: &Path, mode: u32) -> Result<()> {
    let raw = dir.as_fd().as_raw_fd();
    let c = cpath(name)?;
    // SAFETY: `c` is terminated.
    let r = unsafe { libc::fchmodat(raw, c.as_ptr(), mode, 0) };
    check(r, || format!("fchmodat({raw}, {name:?}, {mode:#o})")).map(drop)
}

/// faccessat(2) as the kernel has always had it: may the process, with its real ids, use the file
/// in the way of `mode`? The C library would make it an faccessat2(2).
pub fn accessat_real(dir: impl AsFd, name: &Path, mode: i32) -> Result<()> {
    let raw = dir.as_fd().as_raw_fd();
    let c = cpath(name)?;
    // SAFETY: `c` is terminated, and the call takes these three arguments.
    let r = unsafe { libc::syscall(libc::SYS_faccessat, raw, c.as_ptr(), mode) };
    check(r, || format!("faccessat({raw}, {name:?}, {mode})")).map(drop)
}

/// faccessat2(2): may the process, with its effective ids, use the file in the way of `mode`?
pub fn accessat(dir: impl AsFd, name: &Path, mode: i32) -> Result<()> {
    let raw = dir.as_fd().as_raw_fd();
    let c = cpath(name)?;
    // SAFETY: `c` is terminated.
    let r = unsafe { libc::faccessat(raw, c.as_ptr(), mode, libc::AT_EACCESS) };
    check(r, || format!("faccessat({raw}, {name:?}, {mode})")).map(drop)
}

/// mkfifoat(3).
pub fn mkfifoat(dir: impl AsFd, name: &Path, mode: u32) -> Result<()> {
    mknodat(dir, name, libc::S_IFIFO | mode, 0)
}

/// flock(2); `false` when LOCK_NB was asked and somebody else holds the lock.
pub fn flock(fd: impl AsFd, operation: i32) -> Result<bool> {
    let raw = fd.as_fd().as_raw_fd();
    loop {
        // SAFETY: no memory is passed.
        if unsafe { libc::flock(raw, operation) } == 0 {
            return Ok(true);
        }
        match errno() {
            libc::EINTR => {}
            libc::EWOULDBLOCK if operation & libc::LOCK_NB != 0 => return Ok(false),
            e => return Err(failed(e, || format!("flock({raw}, {operation})"))),
        }
    }
}

/// write(2) of the whole buffer in one call, as files under /proc and /sys/fs/cgroup demand.
pub fn write_once(fd: impl AsFd, data: &[u8]) -> Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: the buffer is readable for the length that is passed.
    let n = again(|| unsafe { libc::write(raw, data.as_ptr().cast(), data.len()) });
    check(n, || format!("write({raw}, {:?})", String::from_utf8_lossy(data))).map(drop)
}

/// write(2) of as much as fits, again after EINTR; returns how much that was.
pub fn write(fd: impl AsFd, data: &[u8]) -> Result<usize> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: the buffer is readable for the length that is passed.
    let n = again(|| unsafe { libc::write(raw, data.as_ptr().cast(), data.len()) });
    check(n, || format!("write({raw})")).map(|n| n as usize)
}

/// read(2), again after EINTR.
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: the buffer is writable for the length that is passed.
    let n = again(|| unsafe { libc::read(raw, buffer.as_mut_ptr().cast(), buffer.len()) });
    check(n, || format!("read({raw})")).map(|n| n as usize)
}

/// memfd_create(2), close-on-exec, sealable and executable.
pub fn memfd_create(name: &str) -> Result<OwnedFd> {
    let c = super::cstring(name)?;
    // SAFETY: `c` is terminated.
    let fd = unsafe {
        libc::memfd_create(c.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | MFD_EXEC)
    };
    if fd == -1 && errno() == libc::EINVAL {
        // Before Linux 6.3 there is no MFD_EXEC, and every memfd is executable.
        // SAFETY: as above.
        let fd =
            unsafe { libc::memfd_create(c.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        return check_fd(fd.into(), || format!("memfd_create({name:?})"));
    }
    check_fd(fd.into(), || format!("memfd_create({name:?}, MFD_EXEC)"))
}

const MFD_EXEC: u32 = 0x10;

/// All of F_ADD_SEALS: nothing about the file can change any more.
pub const ALL_SEALS: i32 =
    libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// fcntl(F_ADD_SEALS).
pub fn add_seals(fd: impl AsFd, seals: i32) -> Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: no memory is passed.
    let r = unsafe { libc::fcntl(raw, libc::F_ADD_SEALS, seals) };
    check(r, || format!("fcntl({raw}, F_ADD_SEALS, {seals:#x})")).map(drop)
}

/// fcntl(F_GET_SEALS); a file that cannot be sealed is an error.
pub fn seals(fd: impl AsFd) -> Result<i32> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: no memory is passed.
    check(unsafe { libc::fcntl(raw, libc::F_GET_SEALS) }, || format!("fcntl({raw}, F_GET_SEALS)"))
}

/// sendfile(2) of up to `count` bytes from the current position of `from`.
pub fn sendfile(to: impl AsFd, from: impl AsFd, count: usize) -> Result<usize> {
    let (to, from) = (to.as_fd().as_raw_fd(), from.as_fd().as_raw_fd());
    // SAFETY: a null offset means the descriptor's own position.
    let n = unsafe { libc::sendfile(to, from, std::ptr::null_mut(), count) };
    check(n, || format!("sendfile({to}, {from}, {count})")).map(|n| n as usize)
}

/// fcntl(F_DUPFD_CLOEXEC): a copy at the lowest free number from `least` on.
pub fn dup_above(fd: impl AsFd, least: i32) -> Result<OwnedFd> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: no memory is passed.
    let r = unsafe { libc::fcntl(raw, libc::F_DUPFD_CLOEXEC, least) };
    check_fd(r.into(), || format!("fcntl({raw}, F_DUPFD_CLOEXEC, {least})"))
}

/// dup2(2) onto a standard descriptor number, without close-on-exec.
pub fn dup_onto(fd: impl AsFd, number: i32) -> Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: only 0, 1 and 2 are passed, which no OwnedFd of this program owns.
    check(unsafe { libc::dup2(raw, number) }, || format!("dup2({raw}, {number})")).map(drop)
}

/// dup3(2): has the number of `fd` name what `with` names.
pub fn replace(fd: impl AsFd, with: OwnedFd) -> Result<()> {
    let (number, raw) = (fd.as_fd().as_raw_fd(), with.as_raw_fd());
    // SAFETY: `fd` is open, and whoever owns it owns it still; only what it names is another.
    let r = unsafe { libc::dup3(raw, number, libc::O_CLOEXEC) };
    check(r, || format!("dup3({raw}, {number}, O_CLOEXEC)")).map(drop)
}

/// fcntl(F_SETFD, 0): the program that is executed next has the descriptor, too.
pub fn keep_across_exec(fd: impl AsFd) -> Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: no memory is passed.
    let r = unsafe { libc::fcntl(raw, libc::F_SETFD, 0) };
    check(r, || format!("fcntl({raw}, F_SETFD, 0)")).map(drop)
}

/// A descriptor that the caller of this program has left open, by its number, for writing.
pub fn inherited_writer(number: i32) -> Result<BorrowedFd<'static>> {
    // SAFETY: no memory is passed.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
    let flags = check(flags, || format!("fcntl({number}, F_GETFL)"))?;
    if flags & libc::O_ACCMODE == libc::O_RDONLY {
        return Err(failed(libc::EBADF, || format!("write({number})")));
    }
    // SAFETY: it is open, and nothing in this program owns or closes what the caller left open.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

/// close_range(2) with CLOSE_RANGE_CLOEXEC: marks every descriptor from `first` on.
pub fn cloexec_from(first: u32) -> Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// For callers that use none of the descriptors that they close.
fn close_range(first: u32, last: u32, flags: u32) -> Result<()> {
    // SAFETY: the callers keep every descriptor that is still going to be used.
    let r = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    check(r, || format!("close_range({first}, {last}, {flags:#x})")).map(drop)
}

/// close_range(2) of every descriptor from `first` on but those in `keep`.
///
/// For a child that never returns to the frames whose descriptors it closes.
pub fn close_all_but(keep: &[BorrowedFd<'_>], first: u32) -> Result<()> {
    let mut numbers: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    numbers.sort_unstable();
    let mut from = first;
    for number in numbers.into_iter().filter(|n| *n >= first) {
        close_between(from, number)?;
        from = number + 1;
    }
    close_between(from, u32::MAX)
}

/// Closes the descriptors from `from` to the one before `until`.
fn close_between(from: u32, until: u32) -> Result<()> {
    if from >= until {
        return Ok(());
    }
    close_range(from, until - 1, 0)
}

/// chdir(2).
pub fn chdir(path: &Path) -> Result<()> {
    let c = cpath(path)?;
    // SAFETY: `c` is terminated.
    check(unsafe { libc::chdir(c.as_ptr()) }, || format!("chdir({path:?})")).map(drop)
}

/// fchdir(2).
pub fn fchdir(fd: impl AsFd) -> Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: no memory is passed.
    check(unsafe { libc::fchdir(raw) }, || format!("fchdir({raw})")).map(drop)
}

/// chroot(2).
pub fn chroot(path: &Path) -> Result<()> {
    let c = cpath(path)?;
    // SAFETY: `c` is terminated.
    check(unsafe { libc::chroot(c.as_ptr()) }, || format!("chroot({path:?})")).map(drop)
}

/// The kernel's own view of the working directory: outside the root it is not absolute.
pub fn raw_getcwd() -> Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let mut buffer = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer is writable for the length that is passed.
    let n = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    let n = check(n, || "getcwd()".into())? as usize;
    buffer.truncate(n.saturating_sub(1));
    Ok(std::ffi::OsString::from_vec(buffer).into())
}
