//! Writes archives: ustar headers, PAX records for what they cannot hold, nothing that depends on
//! when or where it is written.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar_core::{EntryBuilder, EntryType};

use crate::error::{Context, Error, Result};
use crate::order;

use super::attributes::{is_host_label, list_xattrs};
use super::root::proc_path;
use super::rootless;
use super::tar::{Entry, Kind, Time, show};
use super::{Ownership, XattrSpace};

/// An archive being written.
pub(crate) struct Writer<W> {
    out: W,
    /// Overlay's name space in the tree that is read.
    space: XattrSpace,
    /// Times after this one become this one.
    max_mtime: Option<i64>,
    /// Our own ids, which stand for 0:0 in a tree that was unpacked without privilege.
    ours: Option<(u32, u32)>,
    /// First name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W, space: XattrSpace, max_mtime: Option<i64>) -> Self {
        let links = HashMap::new();
        Writer { out, space, max_mtime, ours: None, links, buffer: vec![0; 256 << 10] }
    }

    /// Owners are those that `ownership` stood for when the tree was unpacked.
    pub(crate) fn owned(mut self, ownership: Ownership) -> Self {
        let own = || (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        self.ours = (ownership == Ownership::Ours).then(own);
        self
    }

    /// The owner in the archive.
    fn owner(&self, stat: &Stat, xattrs: &[(Vec<u8>, Vec<u8>)]) -> (u32, u32) {
        let Some((uid, gid)) = self.ours else { return (stat.st_uid, stat.st_gid) };
        let told = xattrs.iter().find(|(name, _)| name[..] == rootless::NAME);
        told.and_then(|(_, value)| rootless::owner(value)).unwrap_or((
            if stat.st_uid == uid { 0 } else { stat.st_uid },
            if stat.st_gid == gid { 0 } else { stat.st_gid },
        ))
    }

    /// The member `path`, which is `name` in `at` and has `stat`. Sockets have no place in an
    /// archive and are passed over.
    pub(crate) fn entry(
        &mut self,
        at: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
    ) -> Result<()> {
        self.entry_inner(at, name, path, stat).wrap(|| show(path))
    }

    fn entry_inner(
        &mut self,
        at: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
    ) -> Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut entry = EntryBuilder::new_ustar();
        match kind {
            FileType::Directory => entry.path([path, b"/"].concat()),
            FileType::Socket => return Ok(()),
            _ => entry.path(path),
        };
        let xattrs = xattrs(at, name, self.space)?;
        self.describe(&mut entry, stat, self.owner(stat, &xattrs))?;
        if let Some(first) = self.linked(kind, path, stat) {
            entry.entry_type(EntryType::Link).link_name(first);
            return self.header(&mut entry);
        }
        for (name, value) in xattrs {
            if self.ours.is_some() && name[..] == rootless::NAME {
                continue;
            }
            let key = std::str::from_utf8(&name).map_err(|_| Error::new("odd attribute name"))?;
            entry.add_pax(&format!("SCHILY.xattr.{key}"), value);
        }
        match kind {
            FileType::RegularFile => return self.file(&mut entry, at, name, stat),
            FileType::Directory => drop(entry.entry_type(EntryType::Directory)),
            FileType::Symlink => {
                let target = fs::readlinkat(at, name, Vec::new()).wrap(|| "read the link")?;
                entry.entry_type(EntryType::Symlink).link_name(target.as_bytes());
            }
            FileType::Fifo => drop(entry.entry_type(EntryType::Fifo)),
            FileType::CharacterDevice | FileType::BlockDevice => {
                let (major, minor) = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
                entry.entry_type(match kind {
                    FileType::BlockDevice => EntryType::Block,
                    _ => EntryType::Char,
                });
                entry.device(major, minor).map_err(|e| Error::new(e.to_string()))?;
            }
            _ => return Err(Error::new("neither file nor directory nor device")),
        }
        self.header(&mut entry)
    }

    /// A member as another archive has it, under the name `path`. If it is a file, `size` bytes of
    /// [`Writer::content`] and a [`Writer::pad`] must follow.
    pub(crate) fn member(&mut self, path: &[u8], of: &Entry, size: u64) -> Result<()> {
        self.member_inner(path, of, size).wrap(|| show(path))
    }

    fn member_inner(&mut self, path: &[u8], of: &Entry, size: u64) -> Result<()> {
        let bad = |e: tar_core::HeaderError| Error::new(e.to_string());
        let mut entry = EntryBuilder::new_ustar();
        match of.kind {
            Kind::Dir => entry.path([path, b"/"].concat()),
            _ => entry.path(path),
        };
        self.attributes(&mut entry, of.mode, (of.uid, of.gid), of.mtime)?;
        match &of.kind {
            Kind::File => drop(entry.entry_type(EntryType::Regular).size(size).map_err(bad)?),
            Kind::Dir => drop(entry.entry_type(EntryType::Directory)),
            Kind::Fifo => drop(entry.entry_type(EntryType::Fifo)),
            Kind::Symlink(target) => drop(entry.entry_type(EntryType::Symlink).link_name(target)),
            Kind::HardLink(target) => {
                entry.entry_type(EntryType::Link).link_name(target);
                return self.header(&mut entry);
            }
            Kind::Char(major, minor) => {
                entry.entry_type(EntryType::Char).device(*major, *minor).map_err(bad)?;
            }
            Kind::Block(major, minor) => {
                entry.entry_type(EntryType::Block).device(*major, *minor).map_err(bad)?;
            }
        }
        let mut xattrs: Vec<_> = of.xattrs.iter().filter(|(n, _)| !is_host_label(n)).collect();
        order::sort(&mut xattrs);
        for (name, value) in xattrs {
            let key = std::str::from_utf8(name).map_err(|_| Error::new("odd attribute name"))?;
            entry.add_pax(&format!("SCHILY.xattr.{key}"), value);
        }
        self.header(&mut entry)
    }

    /// A piece of a file's content.
    pub(crate) fn content(&mut self, piece: &[u8]) -> Result<()> {
        self.out.write_all(piece).wrap(|| "write the archive")
    }

    /// Ends a content of `size` bytes.
    pub(crate) fn pad(&mut self, size: u64) -> Result<()> {
        let padding = (size.wrapping_neg() % 512) as usize;
        self.content(&[0; 512][..padding])
    }

    /// An empty file, which is how whiteouts are spelled.
    pub(crate) fn marker(&mut self, path: &[u8]) -> Result<()> {
        let mut entry = EntryBuilder::new_ustar();
        entry.path(path).entry_type(EntryType::Regular);
        self.header(&mut entry).wrap(|| show(path))
    }

    /// The end of the archive.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.out.write_all(&[0; 1024]).wrap(|| "write the archive")?;
        self.out.flush().wrap(|| "write the archive")?;
        Ok(self.out)
    }

    fn describe(&self, entry: &mut EntryBuilder, stat: &Stat, owner: (u32, u32)) -> Result<()> {
        let mtime = Time { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 };
        self.attributes(entry, stat.st_mode & 0o7777, owner, mtime)
    }

    fn attributes(
        &self,
        entry: &mut EntryBuilder,
        mode: u32,
        (uid, gid): (u32, u32),
        mtime: Time,
    ) -> Result<()> {
        let bad = |e: tar_core::HeaderError| Error::new(e.to_string());
        let (seconds, nanos) = match (mtime.seconds, self.max_mtime) {
            (seconds, Some(max)) if seconds >= max => (max, 0),
            (seconds, _) => (seconds, mtime.nanos),
        };
        entry.mode(mode).map_err(bad)?;
        entry.uid(u64::from(uid)).map_err(bad)?;
        entry.gid(u64::from(gid)).map_err(bad)?;
        entry.mtime(u64::try_from(seconds).unwrap_or(0)).map_err(bad)?;
        if nanos != 0 || seconds < 0 {
            entry.add_pax("mtime", pax_time(seconds, nanos));
        }
        Ok(())
    }

    /// The first name of a file that has been written already.
    fn linked(&mut self, kind: FileType, path: &[u8], stat: &Stat) -> Option<Vec<u8>> {
        if stat.st_nlink < 2 || kind == FileType::Directory {
            return None;
        }
        let first = self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.to_vec());
        (first != path).then(|| first.clone())
    }

    fn file(
        &mut self,
        entry: &mut EntryBuilder,
        at: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
    ) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = fs::openat(at, name, flags, Mode::empty()).wrap(|| "open")?;
        let now = fs::fstat(&fd).wrap(|| "stat")?;
        if (now.st_dev, now.st_ino) != (stat.st_dev, stat.st_ino) && now.st_size != stat.st_size {
            return Err(Error::new("it was replaced while being read"));
        }
        let size = stat.st_size as u64;
        entry.entry_type(EntryType::Regular);
        entry.size(size).map_err(|e| Error::new(e.to_string()))?;
        self.header(entry)?;
        let mut file = std::fs::File::from(fd).take(size);
        let mut left = size;
        while left > 0 {
            let n = file.read(&mut self.buffer).wrap(|| "read")?;
            if n == 0 {
                return Err(Error::new("it shrank while being read"));
            }
            self.out.write_all(&self.buffer[..n]).wrap(|| "write the archive")?;
            left -= n as u64;
        }
        self.pad(size)
    }

    fn header(&mut self, entry: &mut EntryBuilder) -> Result<()> {
        self.out.write_all(&entry.finish_bytes()).wrap(|| "write the archive")
    }
}

fn pax_time(seconds: i64, nanos: impl Into<i128>) -> String {
    let total = i128::from(seconds) * 1_000_000_000 + nanos.into();
    let (sign, total) = if total < 0 { ("-", -total) } else { ("", total) };
    let text = format!("{sign}{}.{:09}", total / 1_000_000_000, total % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Attributes that belong into an archive, sorted: not the host's labels, nor overlay's own.
pub(crate) fn xattrs(
    at: BorrowedFd<'_>,
    name: &[u8],
    space: XattrSpace,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = proc_path(at.as_fd(), name);
    let path = path.strip_suffix(b"/.").unwrap_or(&path);
    let names = if name == b"." {
        list_xattrs(|buf| fs::listxattr(path, buf))
    } else {
        list_xattrs(|buf| fs::llistxattr(path, buf))
    };
    let mut all = Vec::new();
    for raw in names.wrap(|| "list attributes")? {
        let Some(shown) = space.unescape(&raw).filter(|n| !is_host_label(n)) else { continue };
        let value = read_xattr(path, &raw, name == b".")
            .wrap(|| format!("read attribute {}", show(&raw)))?;
        all.push(match &shown[..] {
            b"security.capability" => (shown, v2_capability(value)),
            _ => (shown, value),
        });
    }
    order::sort(&mut all);
    Ok(all)
}

fn read_xattr(path: &[u8], name: &[u8], follow: bool) -> rustix::io::Result<Vec<u8>> {
    let mut value = vec![0; 256];
    loop {
        let got = match follow {
            true => fs::getxattr(path, name, &mut value[..]),
            false => fs::lgetxattr(path, name, &mut value[..]),
        };
        match got {
            Ok(n) => {
                value.truncate(n);
                return Ok(value);
            }
            Err(Errno::RANGE) if value.len() < 1 << 20 => value.resize(value.len() * 16, 0),
            Err(e) => return Err(e),
        }
    }
}

/// File capabilities of version 3 name the root of a user namespace on this host; version 2 is the
/// same without.
fn v2_capability(mut value: Vec<u8>) -> Vec<u8> {
    if value.len() == 24 && value[3] == 3 {
        value.truncate(20);
        value[3] = 2;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact() {
        assert_eq!(pax_time(5, 0u64), "5");
        assert_eq!(pax_time(5, 120_000_000u64), "5.12");
        assert_eq!(pax_time(-2, 750_000_000u64), "-1.25");
        assert_eq!(pax_time(-10, 0u64), "-10");
    }

    #[test]
    fn capabilities_lose_their_root() {
        let v3 = [[0, 0, 0, 3].as_slice(), &[7; 16], &[1, 0, 0, 0]].concat();
        assert_eq!(v2_capability(v3), [[0, 0, 0, 2].as_slice(), &[7; 16]].concat());
    }
}
