//! One layer's archive onto a directory.
//!
//! The archive is hostile. What a name means is decided in [`super::path`]; where it lies, in
//! [`super::root`]; existing things are unlinked, never opened for writing, so that neither a link
//! nor a device nor another name of the same file is ever written through. Directories stay
//! private (0700) until the end, when their own modes and times are set, deepest first.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::digest::{Algorithm, Digest};
use crate::error::{Context, Error, Result};
use crate::order;

use super::attributes::{Attributes, Setter};
use super::decompress::{Limits, pipeline};
use super::path::{Name, classify, components};
use super::root::{Dir, Root, mkdir, open_dir, proc_path, remove, type_of};
use super::tar::{Archive, Entry, Kind, Time, show};
use super::whiteout::Hider;
use super::{Ownership, Whiteouts};

/// How to apply a layer.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What whiteouts become.
    pub whiteouts: Whiteouts,
    /// Whether files get the owners that the archive names.
    pub ownership: Ownership,
    /// The digest that the uncompressed archive must have; another one is an error.
    pub diff_id: Option<Digest>,
    /// Bounds against bombs.
    pub limits: Limits,
    /// Stop, with [`Applied::leans`] saying why, as soon as an entry needs a lower layer: a hard
    /// link to a file, or a parent directory, that this archive does not hold.
    pub alone: bool,
}

impl Options {
    /// Lets us change a directory that is closed to its owner, where that is all that we are.
    /// Returns its mode.
    fn opened(&self, dir: &Dir) -> Option<u32> {
        let closed = self.ownership == Ownership::Ours && dir.mode & 0o700 != 0o700;
        // If it is not ours, what is to be done in it fails, and says so.
        (closed && fs::fchmod(dir, Mode::from_raw_mode(dir.mode | 0o700)).is_ok())
            .then_some(dir.mode)
    }
}

/// What was applied.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of the uncompressed archive.
    pub size: u64,
    /// Members, whiteouts included.
    pub entries: u64,
    /// Whether the archive says what the root directory itself is like.
    pub root: bool,
    /// With [`Options::alone`]: why this layer cannot stand without its lower ones.
    pub leans: Option<String>,
    /// Extended attributes that the file system or our privileges refused.
    pub refused_xattrs: u64,
    /// Devices replaced by empty files, for want of privilege.
    pub faked_devices: u64,
    /// Something other than zeros follows the archive's end. It counts for the digest, nothing else.
    pub trailing: bool,
}

/// Applies the layer that `reader` holds (plain, gzip or zstd) to the directory `root`.
///
/// `root` should be reachable by nobody else meanwhile (a parent of mode 0700). Errors name the
/// member; what was written until then stays, and is the caller's to remove.
pub fn apply<R: Read + Send>(
    reader: R,
    root: BorrowedFd<'_>,
    options: &Options,
) -> Result<Applied> {
    let algorithm = options.diff_id.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
    let ((applied, leans), summary) = pipeline(reader, &options.limits, algorithm, |chunks| {
        let mut archive = Archive::new(chunks);
        let mut extractor = Extractor::new(root, options);
        let leans = extractor.all(&mut archive)?;
        let trailing = archive.finish()?;
        Ok((Partial { trailing, ..extractor.done }, leans))
    })?;
    if let Some(expected) = options.diff_id.as_ref().filter(|d| **d != summary.digest) {
        return Err(Error::new(format!(
            "the uncompressed layer has digest {}, its image says {expected}",
            summary.digest
        )));
    }

    Ok(Applied {
        diff_id: summary.digest,
        size: summary.size,
        entries: applied.entries,
        root: applied.root,
        leans,
        refused_xattrs: applied.refused_xattrs,
        faked_devices: applied.faked_devices,
        trailing: applied.trailing,
    })
}

/// Counts that [`Applied`] will hold.
#[derive(Default)]
struct Partial {
    entries: u64,
    root: bool,
    refused_xattrs: u64,
    faked_devices: u64,
    trailing: bool,
}

/// What a directory gets when everything is in place.
struct Later {
    path: Vec<u8>,
    /// `None`: the archive does not describe it, only its time is put back.
    own: Option<Attributes>,
    existed: bool,
    mtime: (i64, u32),
    /// The mode to put back: the directory was closed to its owner, us without privilege.
    closed: Option<u32>,
}

struct Extractor<'o, 'fd> {
    options: &'o Options,
    root: Root<'fd>,
    /// What the kernel calls the root.
    root_path: Vec<u8>,
    set: Setter,
    hider: Hider,
    later: HashMap<u64, Later>,
    /// Directories made because something lies in them, by inode, until the archive names them.
    implied: HashMap<u64, Vec<u8>>,
    done: Partial,
}

/// Why an entry stops the run.
enum Stop {
    Failed(Error),
    Leans(String),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Stop {
        Stop::Failed(e)
    }
}

impl<'o, 'fd> Extractor<'o, 'fd> {
    fn new(root: BorrowedFd<'fd>, options: &'o Options) -> Self {
        Extractor {
            options,
            root: Root::new(root),
            root_path: kernel_path(root),
            set: Setter::new(options.ownership, options.whiteouts.space()),
            hider: Hider::new(options.whiteouts),
            later: HashMap::new(),
            implied: HashMap::new(),
            done: Partial::default(),
        }
    }

    /// Every member, then the directories; `Some` if the layer leans on lower ones.
    fn all(&mut self, archive: &mut Archive<'_>) -> Result<Option<String>> {
        while let Some(mut entry) = archive.next()? {
            self.done.entries += 1;
            if self.done.entries > self.options.limits.max_entries {
                let most = self.options.limits.max_entries;
                return Err(Error::new(format!("the layer has more than {most} members")));
            }
            match self.member(&mut entry, archive) {
                Ok(()) => (),
                Err(Stop::Leans(why)) => return Ok(Some(why)),
                Err(Stop::Failed(e)) => return Err(e.wrap(show(&entry.path))),
            }
        }
        if let (true, Some(path)) = (self.options.alone, self.implied.values().next()) {
            return Ok(Some(format!("the archive implies the directory {}", show(path))));
        }
        self.finish_dirs()?;
        self.done.refused_xattrs = self.set.refused;
        Ok(None)
    }

    fn member(&mut self, entry: &mut Entry, archive: &mut Archive<'_>) -> Result<(), Stop> {
        let path = std::mem::take(&mut entry.path);
        let result =
            components(&path).map_err(Stop::from).and_then(|parts| match classify(&parts)? {
                Name::Ignored => Ok(()),
                Name::Plain => match parts.split_last() {
                    None => self.root_entry(entry),
                    Some((name, parents)) => self.plain(parents, name, entry, archive),
                },
                Name::Whiteout(name) => Ok(self.whiteout(&parts[..parts.len() - 1], name)?),
                Name::Opaque => Ok(self.opaque(&parts[..parts.len() - 1])?),
            });
        entry.path = path;
        result
    }

    fn root_entry(&mut self, entry: &mut Entry) -> Result<(), Stop> {
        if entry.kind != Kind::Dir {
            return Err(
                Error::new("the archive makes the root something else than a directory").into()
            );
        }
        let root = self.existing(&[])?.ok_or_else(|| Error::new("the root is gone"))?;
        self.done.root = true;
        self.describe(&root, Vec::new(), entry, true);
        Ok(())
    }

    fn plain(
        &mut self,
        parents: &[&[u8]],
        name: &[u8],
        entry: &mut Entry,
        archive: &mut Archive<'_>,
    ) -> Result<(), Stop> {
        let parent = self.parent(parents)?;
        match &entry.kind {
            Kind::Dir => {
                let path = [parents, &[name]].concat().join(&b'/');
                self.directory(&parent, name, path, entry)?;
            }
            Kind::File => self.file(&parent, name, entry, archive)?,
            Kind::HardLink(target) => self.hard_link(&parent, name, &target.clone())?,
            _ => self.special(&parent, name, entry)?,
        }
        self.hider.wrote(parent.ino, name);
        Ok(())
    }

    /// The directory for a new member, made where the archive did not name it (yet).
    fn parent(&mut self, parents: &[&[u8]]) -> Result<Rc<Dir>> {
        if let Some(dir) = self.existing(parents)? {
            return Ok(dir);
        }
        // The first that is there gets a child, which changes its time.
        for depth in (0..parents.len()).rev() {
            if self.existing(&parents[..depth])?.is_some() {
                break;
            }
        }
        let (implied, later) = (&mut self.implied, &mut self.later);
        let root = &self.root_path;
        let mut made = |path: &[u8], dir: &Dir| {
            let path = real_path(root, dir, path);
            implied.insert(dir.ino, path.clone());
            let (mode, mtime) = (0o755, Time::default());
            let own = Attributes { mode, uid: 0, gid: 0, mtime, xattrs: Vec::new() };
            later.insert(
                dir.ino,
                Later { path, own: Some(own), existed: false, mtime: (0, 0), closed: None },
            );
        };
        let dir = self.root.dir(parents, true, &mut made)?;
        let dir = dir.ok_or_else(|| Error::new("the parent directory is gone"))?;
        self.remember(&dir, parents);
        Ok(dir)
    }

    /// The directory, if it is there.
    fn existing(&mut self, parts: &[&[u8]]) -> Result<Option<Rc<Dir>>> {
        let dir = self.root.dir(parts, false, &mut |_, _| ())?;
        if let Some(dir) = &dir {
            self.remember(dir, parts);
        }
        Ok(dir)
    }

    /// Working in a directory changes its time: put it back at the end.
    fn remember(&mut self, dir: &Dir, parts: &[&[u8]]) {
        let root = &self.root_path;
        self.later.entry(dir.ino).or_insert_with(|| Later {
            path: real_path(root, dir, &parts.join(&b'/')),
            own: None,
            existed: true,
            mtime: dir.mtime,
            closed: self.options.opened(dir),
        });
    }

    /// Sets down what the archive says of a directory.
    fn describe(&mut self, dir: &Dir, path: Vec<u8>, entry: &mut Entry, existed: bool) {
        self.implied.remove(&dir.ino);
        if existed {
            self.options.opened(dir);
        }
        let own = Some(Attributes::of(entry));
        let path = real_path(&self.root_path, dir, &path);
        self.later.insert(dir.ino, Later { path, own, existed, mtime: dir.mtime, closed: None });
    }

    fn directory(
        &mut self,
        parent: &Dir,
        name: &[u8],
        path: Vec<u8>,
        entry: &mut Entry,
    ) -> Result<()> {
        let (fd, existed) = match mkdir(parent, name) {
            Ok(fd) => (fd, false),
            Err(Errno::EXIST) if type_of(parent, name)? == Some(FileType::Directory) => {
                (open_dir(parent, name).wrap(|| "open")?, true)
            }
            Err(Errno::EXIST) => {
                let hidden = self.hider.is_whiteout(parent.as_fd(), name)?;
                self.clear(parent, name)?;
                let fd = mkdir(parent, name).wrap(|| "make directory")?;
                if hidden {
                    self.hider.mark_opaque(&fd)?;
                }
                (fd, false)
            }
            Err(e) => return Err(Error::from(e).wrap("make directory")),
        };
        let dir = Dir::new(fd)?;
        self.describe(&dir, path, entry, existed);
        Ok(())
    }

    fn file(
        &mut self,
        parent: &Dir,
        name: &[u8],
        entry: &mut Entry,
        archive: &mut Archive<'_>,
    ) -> Result<()> {
        let fd = self.create(parent, name)?;
        match entry.sparse.take() {
            None => dense(&fd, archive)?,
            Some((size, map)) => {
                fs::ftruncate(&fd, size).wrap(|| "set the size")?;
                for (offset, length) in map {
                    let mut at = offset;
                    while at < offset + length {
                        at += write_some(&fd, archive, (at, offset + length - at))?;
                    }
                }
            }
        }
        self.set.file(&fd, &Attributes::of(entry), parent.setgid)
    }

    /// A new file; what had the name is unlinked first.
    fn create(&mut self, parent: &Dir, name: &[u8]) -> Result<OwnedFd> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        match fs::openat(parent, name, flags, mode) {
            Err(Errno::EXIST) => {
                self.clear(parent, name)?;
                fs::openat(parent, name, flags, mode).wrap(|| "create")
            }
            result => result.wrap(|| "create"),
        }
    }

    fn hard_link(&mut self, parent: &Dir, name: &[u8], target: &[u8]) -> Result<(), Stop> {
        let wrap = |e: Errno| Error::from(e).wrap(format!("link to {}", show(target)));
        let parts = components(target)?;
        let Some((last, parents)) = parts.split_last() else {
            return Err(Error::new("a hard link to the root").into());
        };
        let dir = self.existing(parents)?;
        let found =
            dir.as_ref().map(|dir| type_of(dir.as_ref(), last)).transpose().map_err(wrap)?;
        let (Some(dir), Some(Some(kind))) = (dir, found) else {
            return Err(match self.options.alone {
                true => Stop::Leans(format!("a hard link to {}, of a lower layer", show(target))),
                false => wrap(Errno::NOENT).into(),
            });
        };
        if kind == FileType::Directory || (dir.ino, *last) == (parent.ino, name) {
            return Err(Error::new(format!("{} cannot be linked to", show(target))).into());
        }
        // No AT_SYMLINK_FOLLOW: a link to a symbolic link is just that.
        let link = || fs::linkat(dir.as_ref(), *last, parent, name, AtFlags::empty());
        match link() {
            Err(Errno::EXIST) => {
                self.clear(parent, name)?;
                Ok(link().map_err(wrap)?)
            }
            result => Ok(result.map_err(wrap)?),
        }
    }

    fn special(&mut self, parent: &Dir, name: &[u8], entry: &mut Entry) -> Result<()> {
        if matches!(entry.kind, Kind::Char(0, 0)) {
            return Err(Error::new("device 0:0 is overlay's whiteout; layers write .wh. names"));
        }
        let make = || match &entry.kind {
            Kind::Symlink(target) => fs::symlinkat(&target[..], parent, name),
            Kind::Char(major, minor) => {
                node(parent, name, FileType::CharacterDevice, *major, *minor)
            }
            Kind::Block(major, minor) => node(parent, name, FileType::BlockDevice, *major, *minor),
            _ => node(parent, name, FileType::Fifo, 0, 0),
        };
        let mut result = make();
        if result == Err(Errno::EXIST) {
            self.clear(parent, name)?;
            result = make();
        }
        let link = matches!(entry.kind, Kind::Symlink(_));
        match result {
            // Without the privilege to make a device an empty file keeps its place.
            Err(Errno::PERM) if self.options.ownership == Ownership::Ours && !link => {
                self.done.faked_devices += 1;
                let fd = self.create(parent, name)?;
                self.set.file(&fd, &Attributes::of(entry), parent.setgid)
            }
            Err(e) => Err(Error::from(e).wrap("create")),
            Ok(()) => self.set.special(parent.as_fd(), name, &Attributes::of(entry), link),
        }
    }

    /// Takes away whatever has a name that is needed.
    fn clear(&mut self, parent: &Dir, name: &[u8]) -> Result<()> {
        let kind = type_of(parent, name).wrap(|| "stat")?;
        if matches!(kind, Some(FileType::Directory | FileType::Symlink)) {
            self.root.forget();
        }
        remove(parent.as_fd(), name).wrap(|| "remove what is in the way")
    }

    fn whiteout(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<()> {
        let parent = match self.options.whiteouts {
            // Nothing to remove where there is no directory.
            Whiteouts::Remove => self.existing(parents)?,
            Whiteouts::Overlay(_) => Some(self.parent(parents)?),
        };
        let Some(parent) = parent else { return Ok(()) };
        self.hider.hide(&parent, name)?;
        self.root.forget();
        Ok(())
    }

    fn opaque(&mut self, parts: &[&[u8]]) -> Result<()> {
        let dir = match self.options.whiteouts {
            Whiteouts::Remove => self.existing(parts)?,
            Whiteouts::Overlay(_) => Some(self.parent(parts)?),
        };
        let Some(dir) = dir else { return Ok(()) };
        self.hider.hide_all(&dir)?;
        self.root.forget();
        Ok(())
    }

    /// Gives every directory its own mode, owner, attributes and time, children before parents.
    fn finish_dirs(&mut self) -> Result<()> {
        let mut dirs: Vec<(u64, Later)> = self.later.drain().collect();
        order::sort_by(&mut dirs, |(_, a), (_, b)| b.path.cmp(&a.path));
        self.root.forget();
        for (ino, later) in dirs {
            let parts = components(&later.path)?;
            // Removed or replaced since: nothing left to describe.
            let dir = match self.root.dir(&parts, false, &mut |_, _| ()) {
                Ok(Some(dir)) if dir.ino == ino => dir,
                _ => continue,
            };
            self.root.forget();
            let fd = rustix::io::dup(dir.as_fd()).wrap(|| "open")?;
            let done = match later.own {
                Some(own) => self.set.dir(&fd, &own, later.existed),
                None => {
                    if let Some(mode) = later.closed {
                        fs::fchmod(&fd, Mode::from_raw_mode(mode)).wrap(|| "set the mode")?;
                    }
                    let (seconds, nanos) = later.mtime;
                    let times = super::attributes::times(Time { seconds, nanos });
                    fs::futimens(&fd, &times).wrap(|| "set the time")
                }
            };
            done.wrap(|| format!("finish directory {}", show(&later.path)))?;
        }
        Ok(())
    }
}

/// Where a directory is, below the root: `path`, unless that leads through links, which may be gone
/// by the end. Without /proc it stays as it is.
fn real_path(root: &[u8], dir: &Dir, path: &[u8]) -> Vec<u8> {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    match kernel_path(dir).strip_prefix(root) {
        Some(b"") => Vec::new(),
        Some([b'/', below @ ..]) => below.to_vec(),
        _ => path.to_vec(),
    }
}

/// What the kernel calls an open directory; empty if it does not say.
fn kernel_path(dir: impl AsFd) -> Vec<u8> {
    let link = proc_path(dir, b"");
    let link = link.strip_suffix(b"/").unwrap_or(&link);
    fs::readlink(link, Vec::new()).map_or_else(|_| Vec::new(), |path| path.into_bytes())
}

fn node(at: &Dir, name: &[u8], kind: FileType, major: u32, minor: u32) -> rustix::io::Result<()> {
    fs::mknodat(at, name, kind, Mode::empty(), fs::makedev(major, minor))
}

/// Zeros of this length become a hole. Layers should not use tar's sparse forms (image-spec,
/// layer.md), so a sparse file comes as zeros.
const HOLE: usize = 64 << 10;
/// Nothing smaller can be a hole.
const PAGE: usize = 4096;

/// Writes a content that the archive holds in full.
fn dense(fd: &OwnedFd, archive: &mut Archive<'_>) -> Result<()> {
    let (mut at, mut end) = (0, 0);
    loop {
        let piece = archive.data(u64::MAX)?;
        if piece.is_empty() {
            break;
        }
        for block in piece.chunks(HOLE) {
            // Where chunks of the archive meet, a piece may be shorter.
            if block.len() < PAGE || !is_zero(block) {
                write_at(fd, block, at)?;
                end = at + block.len() as u64;
            }
            at += block.len() as u64;
        }
    }
    match end < at {
        true => fs::ftruncate(fd, at).wrap(|| "set the size"),
        false => Ok(()),
    }
}

/// Each byte is zero: the first is, and each is like the one before. (Zeros to compare with would
/// make up 64 KiB of the program.)
fn is_zero(block: &[u8]) -> bool {
    block.first() == Some(&0) && block[1..] == block[..block.len() - 1]
}

/// Writes the next piece of a sparse member's content at a place.
fn write_some(fd: &OwnedFd, archive: &mut Archive<'_>, (at, most): (u64, u64)) -> Result<u64> {
    let piece = archive.data(most)?;
    write_at(fd, piece, at)?;
    match piece.len() {
        0 => Err(Error::new("sparse content ends early")),
        n => Ok(n as u64),
    }
}

fn write_at(fd: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, at) {
            Ok(n) => (bytes, at) = (&bytes[n..], at + n as u64),
            Err(Errno::INTR) => (),
            Err(e) => return Err(Error::from(e).wrap("write")),
        }
    }
    Ok(())
}
