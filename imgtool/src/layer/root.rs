//! A directory tree reached by descriptors alone.
//!
//! Every name from an archive is resolved by `openat2(RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS)` to a
//! descriptor of its parent directory; everything after that is an `*at` call on one component that
//! never follows a link. No path is ever put together as a string and resolved again.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::order;

use super::tar::show;

/// Directories kept open; more would meet the usual limit of 1024 descriptors.
const CACHED: usize = 200;

/// An open directory below the root.
pub(crate) struct Dir {
    fd: OwnedFd,
    /// Identity within the tree.
    pub(crate) ino: u64,
    /// New files take the directory's group, not ours.
    pub(crate) setgid: bool,
    /// Permission bits when it was first opened.
    pub(crate) mode: u32,
    /// Modification time when it was first opened.
    pub(crate) mtime: (i64, u32),
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The tree.
pub(crate) struct Root<'fd> {
    fd: BorrowedFd<'fd>,
    open: HashMap<Vec<u8>, Rc<Dir>>,
}

impl<'fd> Root<'fd> {
    pub(crate) fn new(fd: BorrowedFd<'fd>) -> Self {
        Root { fd, open: HashMap::new() }
    }

    /// The directory at `parts`; with `create`, missing ones are made and told to `made`.
    /// `None`: it does not exist, and was not to be made.
    pub(crate) fn dir(
        &mut self,
        parts: &[&[u8]],
        create: bool,
        made: &mut dyn FnMut(&[u8], &Dir),
    ) -> Result<Option<Rc<Dir>>> {
        let path = parts.join(&b'/');
        if let Some(dir) = self.open.get(&path) {
            return Ok(Some(dir.clone()));
        }
        let fd = match self.resolve(&path) {
            Ok(fd) => fd,
            Err(Errno::NOENT) if create => self.make(parts, made)?,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(Error::from(e).wrap(format!("open directory {}", show(&path)))),
        };
        let dir = Rc::new(Dir::new(fd)?);
        if self.open.len() >= CACHED {
            self.open.clear();
        }
        self.open.insert(path, dir.clone());
        Ok(Some(dir))
    }

    /// Forgets open directories: one of them, or a link on the way to one, was removed.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
    }

    fn resolve(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        retry(|| fs::openat2(self.fd, path, flags, Mode::empty(), within))
    }

    /// Makes what is missing on the way to `parts`.
    fn make(&self, parts: &[&[u8]], made: &mut dyn FnMut(&[u8], &Dir)) -> Result<OwnedFd> {
        let mut at = self.resolve(b"").wrap(|| "open the root")?;
        for depth in 1..=parts.len() {
            let path = parts[..depth].join(&b'/');
            at = match self.resolve(&path) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => {
                    let dir = Dir::new(mkdir(&at, parts[depth - 1]).wrap(|| {
                        format!("make directory {}, implied by the archive", show(&path))
                    })?)?;
                    made(&path, &dir);
                    dir.fd
                }
                Err(e) => return Err(Error::from(e).wrap(format!("open {}", show(&path)))),
            };
        }
        Ok(at)
    }
}

impl Dir {
    pub(crate) fn new(fd: OwnedFd) -> Result<Dir> {
        let stat = fs::fstat(&fd).wrap(|| "stat a directory")?;
        let setgid = stat.st_mode & 0o2000 != 0;
        let mtime = (stat.st_mtime, stat.st_mtime_nsec as u32);
        Ok(Dir { fd, ino: stat.st_ino, setgid, mode: stat.st_mode & 0o7777, mtime })
    }
}

/// `/proc/self/fd/N/NAME`, for the xattr calls, which take no directory descriptor. The first part
/// is our own descriptor, the last is one component that those calls (`l…xattr`) do not follow.
pub(crate) fn proc_path(dir: impl AsFd, name: &[u8]) -> Vec<u8> {
    [format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).as_bytes(), name].concat()
}

/// openat2 gives EAGAIN when a rename elsewhere made it unsure; that is no error.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    for _ in 0..64 {
        match call() {
            Err(Errno::AGAIN | Errno::INTR) => (),
            done => return done,
        }
    }
    call()
}

/// Opens the directory `name`, not following a link.
pub(crate) fn open_dir(at: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(at, name, flags, Mode::empty())
}

/// Makes a directory that only we can enter for now, and opens it.
pub(crate) fn mkdir(at: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    fs::mkdirat(&at, name, Mode::RWXU)?;
    open_dir(at, name)
}

/// Type of `name` itself; `None` where there is nothing.
pub(crate) fn type_of(at: impl AsFd, name: &[u8]) -> rustix::io::Result<Option<FileType>> {
    match fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The names in a directory, sorted by bytes.
pub(crate) fn names(dir: impl AsFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    // A descriptor of its own: the reading position belongs to it.
    let own = open_dir(&dir, b".")?;
    let mut buffer = Vec::with_capacity(32 << 10);
    let mut entries = RawDir::new(own, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    order::sort(&mut names);
    Ok(names)
}

/// Removes `name` with everything below; never follows a link. Nothing there is success.
pub(crate) fn remove(at: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    match fs::unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // EPERM is what POSIX has unlink say of a directory.
        Err(Errno::ISDIR | Errno::PERM) => (),
        Err(e) => return Err(e),
    }
    let dir = open_dir(at, name)?;
    // Without privilege a directory may be closed to its owner; where that is not us, the next call
    // will tell.
    let _ = fs::fchmod(&dir, Mode::RWXU);
    for child in names(&dir)? {
        remove(dir.as_fd(), &child)?;
    }
    fs::unlinkat(at, name, AtFlags::REMOVEDIR)
}
