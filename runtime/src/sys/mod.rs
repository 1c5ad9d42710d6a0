//! The kernel's calls, one wrapper per call, and the only module that may say `unsafe`.
//!
//! Each wrapper takes safe types, sets the close-on-exec flag where the call has one, and on
//! failure renders the call as strace would, so that a user sees what was asked of the kernel:
//! `mknodat(5, "null", 0o20666): operation not permitted (EPERM)`.
//!
//! The wrappers stand here rather than in a library because the start path needs calls that nix
//! and rustix do not have (`clone3` into a cgroup, `mount_setattr`, `seccomp`, `bpf`), and because
//! one way of rendering errors serves all of them (see docs/dependencies.md).
#![allow(unsafe_code)]

pub mod bpf;
pub mod event;
pub mod fs;
pub mod mount;
pub mod netlink;
pub mod process;
pub mod regex;
pub mod sched;
pub mod signal;
pub mod socket;
pub mod tty;

use crate::errno::describe;
use crate::error::{Error, Kind, Result};
use std::ffi::CString;
use std::os::fd::{FromRawFd, OwnedFd};

/// The errno that the last failing call of this thread left.
fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// An error for the call rendered by `call` that failed with `errno`.
pub(crate) fn failed(errno: i32, call: impl FnOnce() -> String) -> Error {
    Error::of(Kind::Errno(errno), format!("{}: {}", call(), describe(errno)))
}

/// Turns `-1` into the error of the call that `call` renders.
fn check<T: Copy + PartialEq + From<i8>>(value: T, call: impl FnOnce() -> String) -> Result<T> {
    if value == T::from(-1) { Err(failed(errno(), call)) } else { Ok(value) }
}

/// Makes a call again as long as a signal interrupts it (signal(7), EINTR).
fn again<T: Copy + PartialEq + From<i8>>(mut call: impl FnMut() -> T) -> T {
    loop {
        let value = call();
        if value != T::from(-1) || errno() != libc::EINTR {
            return value;
        }
    }
}

/// Like [`check`], for a call that returns a new descriptor.
fn check_fd(value: libc::c_long, call: impl FnOnce() -> String) -> Result<OwnedFd> {
    let fd = check(value, call)? as i32;
    // SAFETY: the kernel has just returned this descriptor to us and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One of the standard descriptors 0, 1 and 2; an error if it is closed.
pub fn standard(number: i32) -> Result<std::os::fd::BorrowedFd<'static>> {
    debug_assert!((0..3).contains(&number));
    // SAFETY: no memory is passed.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) }, || format!("fcntl({number}, F_GETFD)"))?;
    // SAFETY: it is open, and this program never closes its standard descriptors.
    Ok(unsafe { std::os::fd::BorrowedFd::borrow_raw(number) })
}

/// A C string; the only failure is a NUL byte inside, which the error shows.
pub fn cstring(text: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(text).map_err(|e| {
        let shown = String::from_utf8_lossy(&e.clone().into_vec()).into_owned();
        Error::new(format!("{shown:?} contains a NUL byte"))
    })
}

/// A path as a C string.
pub fn cpath(path: impl AsRef<std::path::Path>) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    cstring(path.as_ref().as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_is_refused() {
        assert!(cstring("a\0b").unwrap_err().to_string().contains("NUL"));
    }
}
