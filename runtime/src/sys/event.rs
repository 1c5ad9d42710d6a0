//! Descriptors by which the kernel tells that something happened.

use super::{check, check_fd};
use crate::error::Result;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// eventfd(2), close-on-exec and non-blocking.
pub fn eventfd() -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    check_fd(fd.into(), || "eventfd(0)".into())
}

/// inotify(7): a descriptor that is readable once the file at `path` has changed.
pub fn watch(path: &Path) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
    let fd = check_fd(fd.into(), || "inotify_init1()".into())?;
    let c = super::cpath(path)?;
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: `c` is terminated.
    let r = unsafe { libc::inotify_add_watch(raw, c.as_ptr(), libc::IN_MODIFY) };
    check(r, || format!("inotify_add_watch({raw}, {path:?}, IN_MODIFY)"))?;
    Ok(fd)
}
