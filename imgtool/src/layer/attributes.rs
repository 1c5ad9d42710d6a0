//! Owner, mode, extended attributes and times of what was just made, in the order that keeps them:
//! chown clears set-id bits and file capabilities, writing an attribute moves no time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

use super::root::proc_path;
use super::rootless;
use super::tar::{Entry, Time, show};
use super::{Ownership, XattrSpace};

/// What an entry says about itself beyond its content.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    pub(crate) fn of(entry: &mut Entry) -> Attributes {
        let xattrs = std::mem::take(&mut entry.xattrs);
        Attributes { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs }
    }
}

/// How attributes are written in this run.
pub(crate) struct Setter {
    pub(crate) ownership: Ownership,
    /// The name space whose `overlay.` attributes have a meaning where this tree will be mounted.
    pub(crate) escape: Option<XattrSpace>,
    /// Our own ids, which new files have already.
    own: (u32, u32),
    /// Attributes that this file system or our privileges refused.
    pub(crate) refused: u64,
}

impl Setter {
    pub(crate) fn new(ownership: Ownership, escape: Option<XattrSpace>) -> Setter {
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Setter { ownership, escape, own, refused: 0 }
    }

    /// An open regular file, new, in a directory whose set-gid bit is `setgid`.
    pub(crate) fn file(&mut self, fd: &OwnedFd, of: &Attributes, setgid: bool) -> Result<()> {
        if self.ownership == Ownership::Keep && (setgid || (of.uid, of.gid) != self.own) {
            let (uid, gid) = ids(of);
            fs::fchown(fd, uid, gid).map_err(|e| owner(e, of))?;
        }
        // Before the mode: without privilege, `user.` attributes need the right to write.
        let owner = rootless::value(self.ownership, of);
        let owner = owner.as_ref().map(|value| (&rootless::NAME[..], &value[..]));
        for (name, value) in of.xattrs.iter().map(|(n, v)| (&n[..], &v[..])).chain(owner) {
            self.xattr(name, |name| fs::fsetxattr(fd, name, value, XattrFlags::empty()))?;
        }
        fs::fchmod(fd, Mode::from_raw_mode(of.mode)).wrap(|| "set the mode")?;
        fs::futimens(fd, &times(of.mtime)).wrap(|| "set the time")
    }

    /// An open directory; attributes of an earlier layer that this one does not repeat go away.
    pub(crate) fn dir(&mut self, fd: &OwnedFd, of: &Attributes, existed: bool) -> Result<()> {
        if existed {
            self.make_ours(fd)?;
            self.clear_xattrs(fd, of)?;
        }
        self.file(fd, of, true)
    }

    /// Anything else, by name: never through a link.
    pub(crate) fn special(
        &mut self,
        at: BorrowedFd<'_>,
        name: &[u8],
        of: &Attributes,
        link: bool,
    ) -> Result<()> {
        if self.ownership == Ownership::Keep {
            let (uid, gid) = ids(of);
            fs::chownat(at, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| owner(e, of))?;
        }
        let path = proc_path(at, name);
        if !link {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = fs::openat(at, name, flags, Mode::empty()).wrap(|| "open")?;
            let own = proc_path(fd.as_fd(), b"");
            let own = own.strip_suffix(b"/").unwrap_or(&own);
            fs::chmod(own, Mode::from_raw_mode(of.mode)).wrap(|| "set the mode")?;
        }
        for (attribute, value) in &of.xattrs {
            let set = |name: &[u8]| fs::lsetxattr(&path[..], name, value, XattrFlags::empty());
            self.xattr(attribute, set)?;
        }
        fs::utimensat(at, name, &times(of.mtime), AtFlags::SYMLINK_NOFOLLOW).wrap(|| "set the time")
    }

    fn xattr(&mut self, name: &[u8], set: impl Fn(&[u8]) -> rustix::io::Result<()>) -> Result<()> {
        if is_host_label(name) {
            return Ok(());
        }
        let escaped = self.escape.and_then(|space| space.escape(name));
        match set(escaped.as_deref().unwrap_or(name)) {
            Ok(()) => Ok(()),
            // The file system has no such attributes, or they are not ours to set: as with every
            // other engine the file stays, without them.
            Err(Errno::OPNOTSUPP | Errno::PERM) => {
                self.refused += 1;
                Ok(())
            }
            Err(e) => Err(Error::from(e).wrap(format!("set attribute {}", show(name)))),
        }
    }

    /// A directory of an earlier layer may be closed to its own owner, if that has no privilege.
    fn make_ours(&self, fd: &OwnedFd) -> Result<()> {
        match self.ownership {
            Ownership::Keep => Ok(()),
            Ownership::Ours => fs::fchmod(fd, Mode::RWXU).wrap(|| "open the directory to us"),
        }
    }

    fn clear_xattrs(&self, fd: &OwnedFd, of: &Attributes) -> Result<()> {
        for name in list_xattrs(|buf| fs::flistxattr(fd, buf)).wrap(|| "list attributes")? {
            let kept = of.xattrs.iter().any(|(n, _)| *n == name) || is_host_label(&name);
            let ours = self.escape.is_some_and(|space| space.owns(&name));
            if !kept && !ours {
                match fs::fremovexattr(fd, &name[..]) {
                    Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::NODATA) => (),
                    Err(e) => return Err(Error::from(e).wrap("remove an attribute")),
                }
            }
        }
        Ok(())
    }
}

/// Labels that a host gives to its own files; they mean nothing elsewhere.
pub(crate) fn is_host_label(name: &[u8]) -> bool {
    matches!(name, b"security.selinux" | b"security.ima" | b"security.evm" | b"security.SMACK64")
}

/// All attribute names, by `flistxattr` or `llistxattr`.
pub(crate) fn list_xattrs(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut buffer = vec![0; 1024];
    loop {
        match list(&mut buffer) {
            Ok(n) => {
                let names = buffer[..n].split(|&b| b == 0).filter(|name| !name.is_empty());
                return Ok(names.map(<[u8]>::to_vec).collect());
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(e) => return Err(e),
        }
    }
}

fn ids(of: &Attributes) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(of.uid)), Some(Gid::from_raw(of.gid)))
}

fn owner(e: Errno, of: &Attributes) -> Error {
    Error::from(e).wrap(format!("give it to {}:{}", of.uid, of.gid))
}

/// Access time follows modification time, so that two runs make the same tree.
pub(crate) fn times(mtime: Time) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) };
    Timestamps { last_access: time, last_modification: time }
}
