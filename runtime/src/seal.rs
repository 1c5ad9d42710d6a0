//! Running from a copy that nothing can write to.
//!
//! A process that has entered a container, but not yet executed the container's program, is the
//! runtime: its `/proc/PID/exe` is the host's binary, and a container that gets hold of it as root
//! could overwrite what the host runs next (CVE-2019-5736). So the verbs that enter containers
//! first execute themselves again from a file that cannot be written to, whoever asks: the binary
//! seen through a detached read-only overlay, which costs nothing, or a sealed copy in memory.
//!
//! Whether that has happened is told by looking at /proc/self/exe, never by the environment: the
//! caller's environment may be the container's.

use crate::error::{Context, Error, Result};
use crate::sys::mount::{FsContext, attr};
use crate::sys::{self, fs, process};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
/// Any other directory of the host, of a file system that overlayfs takes (proc is not).
const SECOND_LOWER: &str = "/sys";
const PROC_SELF_EXE: &str = "/proc/self/exe";

/// Do these arguments ask for a verb that enters a container?
///
/// It is asked before they are parsed, so that they are parsed once. A word that only looks like
/// such a verb costs a needless execution and nothing else.
pub fn needed(args: &[std::ffi::OsString]) -> bool {
    args.iter().any(|word| ["create", "run", "exec"].iter().any(|verb| word == verb))
}

/// Executes the program again from a sealed copy, unless it runs from one already.
///
/// Returns how it is sealed.
pub fn ensure() -> Result<&'static str> {
    let exe = fs::openat(fs::CWD, Path::new(PROC_SELF_EXE), libc::O_RDONLY, 0)
        .wrap(|| "open our own program (is /proc mounted?)")?;
    if let Some(how) = sealed(&exe)? {
        return Ok(how);
    }
    let copy = overlay(&exe).or_else(|_| memory(&exe))?;
    let collect = |all: Vec<std::ffi::OsString>| -> Result<Vec<CString>> {
        all.into_iter().map(|word| sys::cstring(word.into_vec())).collect()
    };
    let argv = collect(std::env::args_os().collect())?;
    let environment = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let envp = collect(environment.collect())?;
    match process::fexecve(&copy, &argv, &envp).wrap(|| "execute a sealed copy of ourselves") {
        Err(e) => Err(e),
        Ok(never) => match never {},
    }
}

/// Is the file sealed in memory, or on a detached overlay that has no writable layer?
fn sealed(exe: &OwnedFd) -> Result<Option<&'static str>> {
    if fs::seals(exe).is_ok_and(|seals| seals & fs::ALL_SEALS == fs::ALL_SEALS) {
        return Ok(Some("memfd"));
    }
    if fs::fstatfs(exe)? != OVERLAYFS_SUPER_MAGIC || !fs::is_read_only(exe)? {
        return Ok(None);
    }
    // The root of a container may be a read-only overlay, too, but its files can be found by path.
    let path = fs::readlinkat(fs::CWD, Path::new(PROC_SELF_EXE))?;
    let here = fs::fstat(exe)?;
    let found = fs::lstatat(fs::CWD, &path)
        .is_ok_and(|there| (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino));
    Ok((!found).then_some("overlay"))
}

/// An overlay of two lower directories and no upper one: not even root can make it writable.
fn overlay(exe: &OwnedFd) -> Result<OwnedFd> {
    let path = std::env::current_exe().wrap(|| "find our own program")?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::new(format!("{path:?} is in no directory")));
    };
    let lower = directory.to_str().ok_or_else(|| Error::new("the path is not UTF-8"))?;
    if lower.contains([':', ',', '\\']) {
        return Err(Error::new("the path has characters that overlay options give a meaning"));
    }
    let context = FsContext::open("overlay")?;
    // With one lower directory alone the kernel wants an upper one; a second serves as well.
    context.set("lowerdir", &format!("{lower}:{SECOND_LOWER}"))?;
    context.set_flag("ro")?;
    let mount = context.mount(attr::RDONLY | attr::NODEV)?;
    let file = fs::openat(&mount, Path::new(name), libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    match identity(&file)? == identity(exe)? {
        true => Ok(file),
        false => Err(Error::new("a mount on our own program hides another file of that name")),
    }
}

/// What tells a file from another that an overlay shows, where device and inode numbers may differ.
fn identity(file: &OwnedFd) -> Result<[i64; 6]> {
    let st = fs::fstat(file)?;
    Ok([
        st.st_size,
        i64::from(st.st_mode),
        st.st_mtime,
        st.st_mtime_nsec,
        st.st_ctime,
        st.st_ctime_nsec,
    ])
}

fn memory(exe: &OwnedFd) -> Result<OwnedFd> {
    let copy = fs::memfd_create("runtime")?;
    let size = fs::fstat(exe)?.st_size as usize;
    let mut copied = 0;
    while copied < size {
        match fs::sendfile(&copy, exe, size - copied)? {
            0 => return Err(Error::new("our own program became shorter")),
            n => copied += n,
        }
    }
    fs::fchmod(&copy, 0o700)?;
    fs::add_seals(&copy, fs::ALL_SEALS)?;
    Ok(copy)
}
