//! Whiteouts, in both spellings: names removed from a tree, or overlay's own marks in a layer.
//!
//! A whiteout hides what *lower* layers hold, never what its own layer does, and may stand before or
//! behind it in the archive. So a tree that is changed in place has to remember what this layer
//! wrote: by inode of the directory and name, which is what a path finally means.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, XattrFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

use super::root::{Dir, names, open_dir, remove, type_of};
use super::tar::show;
use super::{Whiteouts, XattrSpace};

/// Hides things, sparing what this layer wrote.
pub(crate) struct Hider {
    mode: Whiteouts,
    written: HashSet<(u64, Vec<u8>)>,
}

impl Hider {
    pub(crate) fn new(mode: Whiteouts) -> Self {
        Hider { mode, written: HashSet::new() }
    }

    /// The layer itself wrote `name`.
    pub(crate) fn wrote(&mut self, dir: u64, name: &[u8]) {
        if self.mode == Whiteouts::Remove {
            self.written.insert((dir, name.to_vec()));
        }
    }

    /// A whiteout for `name`.
    pub(crate) fn hide(&mut self, dir: &Dir, name: &[u8]) -> Result<()> {
        match self.mode {
            Whiteouts::Remove => self.prune(dir.as_fd(), dir.ino, name).map(drop),
            Whiteouts::Overlay(_) => match type_of(dir, name).wrap(|| "stat")? {
                None => make_whiteout(dir.as_fd(), name),
                // The layer's own directory stands in place of the lower one.
                Some(FileType::Directory) => {
                    self.mark_opaque(&open_dir(dir, name).wrap(|| "open")?)
                }
                // Anything else hides the lower name by being there.
                Some(_) => Ok(()),
            },
        }
    }

    /// An opaque whiteout: all that lower layers hold in `dir`.
    pub(crate) fn hide_all(&mut self, dir: &Dir) -> Result<()> {
        match self.mode {
            Whiteouts::Remove => self.prune_children(dir.as_fd(), dir.ino).map(drop),
            Whiteouts::Overlay(_) => self.mark_opaque(dir),
        }
    }

    /// Marks a directory as opaque for overlay; nothing to do in a tree changed in place.
    pub(crate) fn mark_opaque(&self, dir: impl AsFd) -> Result<()> {
        let Whiteouts::Overlay(space) = self.mode else { return Ok(()) };
        fs::fsetxattr(dir, space.opaque(), b"y", XattrFlags::empty())
            .wrap(|| format!("set {}", space.opaque()))
    }

    /// Whether `name` is a whiteout in overlay's form.
    pub(crate) fn is_whiteout(&self, at: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
        if self.mode == Whiteouts::Remove {
            return Ok(false);
        }
        let stat = fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW).wrap(|| "stat")?;
        Ok(is_whiteout(&stat))
    }

    /// Removes `name` and all below, but for what this layer wrote; true if something stays.
    fn prune(&self, at: BorrowedFd<'_>, ino: u64, name: &[u8]) -> Result<bool> {
        let wrap = || format!("hide {}", show(name));
        let own = self.written.contains(&(ino, name.to_vec()));
        match type_of(at, name).wrap(wrap)? {
            None => Ok(false),
            Some(FileType::Directory) => {
                let dir = Dir::new(open_dir(at, name).wrap(wrap)?)?;
                let kept = self.prune_children(dir.as_fd(), dir.ino)? || own;
                if !kept {
                    fs::unlinkat(at, name, AtFlags::REMOVEDIR).wrap(wrap)?;
                }
                Ok(kept)
            }
            Some(_) if own => Ok(true),
            Some(_) => remove(at, name).wrap(wrap).map(|()| false),
        }
    }

    fn prune_children(&self, dir: BorrowedFd<'_>, ino: u64) -> Result<bool> {
        let mut kept = false;
        for name in names(dir).wrap(|| "list a directory")? {
            kept |= self.prune(dir, ino, &name)?;
        }
        Ok(kept)
    }
}

impl XattrSpace {
    /// The attribute that marks a directory as opaque.
    pub(crate) fn opaque(self) -> &'static str {
        match self {
            XattrSpace::Trusted => "trusted.overlay.opaque",
            XattrSpace::User => "user.overlay.opaque",
        }
    }

    /// The prefix of overlay's own attributes.
    pub(crate) fn prefix(self) -> &'static [u8] {
        match self {
            XattrSpace::Trusted => b"trusted.overlay.",
            XattrSpace::User => b"user.overlay.",
        }
    }

    /// Whether overlay reads this attribute itself.
    pub(crate) fn owns(self, name: &[u8]) -> bool {
        name.starts_with(self.prefix())
    }

    /// The name under which overlay (6.7) shows `name` instead of obeying it.
    pub(crate) fn escape(self, name: &[u8]) -> Option<Vec<u8>> {
        let rest = name.strip_prefix(self.prefix())?;
        Some([self.prefix(), b"overlay.", rest].concat())
    }

    /// The reverse: what an attribute in an upper directory is called in the merged tree; `None`
    /// for overlay's own.
    pub(crate) fn unescape(self, name: &[u8]) -> Option<Vec<u8>> {
        let Some(rest) = name.strip_prefix(self.prefix()) else { return Some(name.to_vec()) };
        let inner = rest.strip_prefix(b"overlay.")?;
        Some([self.prefix(), inner].concat())
    }
}

/// Overlay's whiteout: a character device 0:0.
pub(crate) fn is_whiteout(stat: &fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn make_whiteout(at: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match fs::mknodat(at, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(Error::from(e).wrap(format!("make a whiteout for {}", show(name)))),
    }
}
