//! A directory as the root of a path name space: nothing is ever resolved outside it.
//!
//! Every access is one `openat2` below the root's descriptor with `RESOLVE_IN_ROOT` and
//! `RESOLVE_NO_MAGICLINKS` (open(2)), so neither `..` nor a symbolic link leads out, also when
//! the tree changes meanwhile.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// How many symbolic links one path may lead through (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// A root.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
}

/// What a path leads to.
#[derive(Debug)]
pub struct Found {
    /// The path without symbolic links, relative to the root.
    pub path: PathBuf,
    /// What is there, if anything is.
    pub stat: Option<Stat>,
}

impl Found {
    /// Is a directory there?
    pub fn is_dir(&self) -> bool {
        self.stat.as_ref().is_some_and(|stat| kind(stat) == FileType::Directory)
    }
}

/// The type of what `stat` describes.
pub fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

impl Tree {
    /// The tree whose root is the directory `path` of the caller's own name space.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(path, flags, Mode::empty())
            .wrap(|| format!("open directory {}", path.display()))?;
        Ok(Self { root })
    }

    /// The tree below `root`.
    pub fn of(root: OwnedFd) -> Self {
        Self { root }
    }

    /// The root itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    fn at(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
    }

    /// What is at `path`; a symbolic link is not followed in its last component.
    pub fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        let fd = match self.at(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(errno).wrap(|| format!("look up /{}", path.display())),
        };
        fs::fstat(&fd).map(Some).wrap(|| format!("look up /{}", path.display()))
    }

    /// Opens a regular file for reading, and nothing else: a pipe or device is refused.
    pub fn file(&self, path: &Path) -> Result<File> {
        let what = || format!("open /{}", path.display());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let fd = self.at(path, flags).wrap(what)?;
        if kind(&fs::fstat(&fd).wrap(what)?) != FileType::RegularFile {
            return Err(Error::new("it is not a regular file").wrap(what()));
        }
        Ok(fd.into())
    }

    /// Opens anything as a path descriptor, following links.
    pub fn path_fd(&self, path: &Path) -> Result<OwnedFd> {
        self.at(path, OFlags::PATH).wrap(|| format!("open /{}", path.display()))
    }

    /// The target of the symbolic link at `path`.
    pub fn read_link(&self, path: &Path) -> Result<Vec<u8>> {
        let what = || format!("read link /{}", path.display());
        let fd = self.at(path, OFlags::PATH | OFlags::NOFOLLOW).wrap(what)?;
        Ok(fs::readlinkat(&fd, "", Vec::new()).wrap(what)?.into_bytes())
    }

    /// The names in a directory, sorted.
    pub fn names(&self, path: &Path) -> Result<Vec<OsString>> {
        let what = || format!("read directory /{}", path.display());
        let fd = self.at(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW).wrap(what)?;
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut entries = RawDir::new(&fd, buffer.spare_capacity_mut());
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            let name = entry.wrap(what)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// The extended attributes that belong into a layer, sorted: file capabilities and the user's
    /// own. Labels of this host and overlay's marks stay behind.
    pub fn xattrs(&self, path: &Path, stat: &Stat) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        if !matches!(kind(stat), FileType::RegularFile | FileType::Directory) {
            return Ok(Vec::new());
        }
        let what = || format!("read extended attributes of /{}", path.display());
        let fd = self.at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW).wrap(what)?;
        let mut found = Vec::new();
        for name in attribute_names(&fd).wrap(what)? {
            let ours = name == b"security.capability"
                || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
            if ours {
                let mut value = vec![0; 64 << 10];
                let length =
                    fs::fgetxattr(&fd, name.as_slice(), value.as_mut_slice()).wrap(what)?;
                value.truncate(length);
                found.push((name, value));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Follows `path` with all its symbolic links. What does not exist is kept as it is spelled,
    /// so the result says where something *would* be.
    pub fn find(&self, path: &Path) -> Result<Found> {
        let mut left: Vec<OsString> = components(path).into_iter().rev().collect();
        let (mut at, mut stat, mut links) = (PathBuf::new(), self.stat(Path::new(""))?, 0);
        while let Some(name) = left.pop() {
            if name == ".." {
                at.pop();
                stat = self.stat(&at)?;
                continue;
            }
            let next = at.join(&name);
            stat = self.stat(&next)?;
            if stat.as_ref().is_some_and(|stat| kind(stat) == FileType::Symlink) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Error::new(format!(
                        "/{}: too many symbolic links",
                        path.display()
                    )));
                }
                let target = PathBuf::from(OsString::from_vec(self.read_link(&next)?));
                if target.is_absolute() {
                    at = PathBuf::new();
                }
                left.extend(components(&target).into_iter().rev());
                stat = self.stat(&at)?;
            } else {
                at = next;
            }
        }
        Ok(Found { path: at, stat })
    }
}

/// The components of a path, `..` included, the root and `.` not.
fn components(path: &Path) -> Vec<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

fn attribute_names(fd: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut list = vec![0; 64 << 10];
    let length = match fs::flistxattr(fd, list.as_mut_slice()) {
        Err(Errno::NOTSUP) => 0,
        result => result?,
    };
    let names = list[..length].split(|byte| *byte == 0);
    Ok(names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// The bytes of a path.
pub fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}
