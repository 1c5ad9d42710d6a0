//! From an overlay's upper directory to a layer.
//!
//! The upper directory holds what was changed, and some things that were not: files copied up for
//! an open that never wrote, directories copied up for a child that came and went, mount points
//! that a runtime made. The archive holds changes only, and for each the directories above it, so
//! that it leans on no other layer for what those are like.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

use super::root::{names, open_dir};
use super::tar::show;
use super::whiteout::is_whiteout;
use super::write::{Writer, xattrs};
use super::{Ownership, XattrSpace};

/// How to make a layer from a directory of changes.
#[derive(Clone, Debug)]
pub struct DiffOptions {
    /// Where the overlay kept its attributes.
    pub space: XattrSpace,
    /// Seconds since 1970; later times become this one (SOURCE_DATE_EPOCH). The same tree then
    /// gives the same bytes whenever it was written.
    pub max_mtime: Option<i64>,
    /// Paths from the root, without a leading slash, that a runtime may have made to mount
    /// something on: `etc/resolv.conf`, `dev`, `run/secrets/key`. Each is left out if it is new
    /// and *empty*: a file of no bytes, or a directory that holds nothing but such stubs. What has
    /// content, or was there before, is never left out.
    pub stubs: Vec<Vec<u8>>,
    /// A directory with the attributes that the root had at first; the root's own entry (`./`) is
    /// written if it differs in mode, owner or attributes. `None`: never written.
    pub root: Option<PathBuf>,
    /// What the tree was unpacked with.
    pub ownership: Ownership,
}

impl Default for DiffOptions {
    fn default() -> Self {
        let space = XattrSpace::Trusted;
        let ownership = Ownership::Keep;
        DiffOptions { space, max_mtime: None, stubs: Vec::new(), root: None, ownership }
    }
}

/// Writes the layer (uncompressed tar) of what `upper` changes over `lowers`, topmost first, which
/// are the directories that the overlay was mounted with. Returns `writer`.
///
/// The order is that of the names' bytes, owners are numbers, whiteouts have no time: the same tree
/// gives the same bytes. The overlay should be unmounted, or nobody writing.
pub fn from_upper<W: Write>(
    upper: &Path,
    lowers: &[PathBuf],
    writer: W,
    options: &DiffOptions,
) -> Result<W> {
    let root = open(upper)?;
    let lowers = lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>>>()?;
    let mut diff = Diff {
        out: Writer::new(writer, options.space, options.max_mtime).owned(options.ownership),
        lowers: &lowers,
        options,
        pending: Vec::new(),
    };
    if let Some(like) = &options.root {
        let like = open(like)?;
        let (old, new) = (stat(&like, b".")?, stat(&root, b".")?);
        if !same_dir(like.as_fd(), &old, root.as_fd(), b".", &new, options.space)? {
            diff.out.entry(root.as_fd(), b".", b".", &new)?;
        }
    }
    let all = (0..lowers.len()).collect();
    diff.dir(root.as_fd(), b"", all)?;
    diff.out.finish()
}

struct Diff<'a, W> {
    out: Writer<W>,
    lowers: &'a [OwnedFd],
    options: &'a DiffOptions,
    /// Directories on the way to here that are not written yet: path, parent, name.
    pending: Vec<(Vec<u8>, OwnedFd, Vec<u8>)>,
}

/// What lower layers have at a path.
enum Below {
    Nothing,
    /// Not a directory: its parent in that layer, and what it is.
    Other(OwnedFd, Stat),
    /// A directory: as the first layer has it, and all layers that contribute.
    Dir(OwnedFd, Stat, Vec<usize>),
}

impl<W: Write> Diff<'_, W> {
    /// All children of the directory `path`, to which the layers `below` contribute.
    fn dir(&mut self, dir: BorrowedFd<'_>, path: &[u8], below: Vec<usize>) -> Result<()> {
        for name in names(dir).wrap(|| format!("list {}", show(path)))? {
            let child = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            let found = stat(dir, &name).wrap(|| show(&child))?;
            let old = self.below(path, &name, &below)?;
            if is_whiteout(&found) {
                if !matches!(old, Below::Nothing) {
                    self.flush()?;
                    self.out.marker(&whiteout(path, &name))?;
                }
            } else if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                self.directory(dir, name, child, &found, old)?;
            } else if !self.is_stub(&child, &found, &old)
                && !self.unchanged(dir, &name, &found, &old).wrap(|| show(&child))?
            {
                self.flush()?;
                self.out.entry(dir, &name, &child, &found)?;
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: Vec<u8>,
        path: Vec<u8>,
        found: &Stat,
        old: Below,
    ) -> Result<()> {
        let fd = open_dir(parent, &name).wrap(|| show(&path))?;
        let space = self.options.space;
        let opaque = is_opaque(&fd, space).wrap(|| show(&path))?;
        let (changed, hides, below) = match old {
            Below::Dir(at, stat, layers) => {
                let same = same_dir(at.as_fd(), &stat, parent, &name, found, space)?;
                (!same || opaque, opaque, if opaque { Vec::new() } else { layers })
            }
            Below::Nothing => (!self.options.stubs.contains(&path), false, Vec::new()),
            Below::Other(..) => (true, false, Vec::new()),
        };
        let depth = self.pending.len();
        let at = rustix::io::dup(parent).wrap(|| "dup")?;
        self.pending.push((path.clone(), at, name));
        if changed {
            self.flush()?;
        }
        if hides {
            self.out.marker(&[&path, &b"/.wh..wh..opq"[..]].concat())?;
        }
        self.dir(fd.as_fd(), &path, below)?;
        self.pending.truncate(depth);
        Ok(())
    }

    /// Writes the directories that lead to what comes next.
    fn flush(&mut self) -> Result<()> {
        for (path, at, name) in std::mem::take(&mut self.pending) {
            let found = stat(&at, &name).wrap(|| show(&path))?;
            self.out.entry(at.as_fd(), &name, &path, &found)?;
        }
        Ok(())
    }

    fn is_stub(&self, path: &[u8], found: &Stat, old: &Below) -> bool {
        let empty =
            FileType::from_raw_mode(found.st_mode) == FileType::RegularFile && found.st_size == 0;
        empty && matches!(old, Below::Nothing) && self.options.stubs.iter().any(|s| s == path)
    }

    /// Whether a file is as the lower layers have it: attributes and bytes.
    fn unchanged(&self, at: BorrowedFd<'_>, name: &[u8], new: &Stat, old: &Below) -> Result<bool> {
        let Below::Other(dir, old) = old else { return Ok(false) };
        // Copying up gives a file of its own: one of several names got the others since.
        if new.st_nlink > 1 {
            return Ok(false);
        }
        let facts = |s: &Stat| {
            let time = (s.st_mtime, s.st_mtime_nsec);
            (s.st_mode, s.st_uid, s.st_gid, s.st_size, time, s.st_rdev)
        };
        let space = self.options.space;
        if facts(old) != facts(new) || xattrs(dir.as_fd(), name, space)? != xattrs(at, name, space)?
        {
            return Ok(false);
        }
        Ok(match FileType::from_raw_mode(new.st_mode) {
            FileType::RegularFile => same_bytes(dir.as_fd(), at, name)?,
            FileType::Symlink => {
                fs::readlinkat(dir, name, Vec::new())? == fs::readlinkat(at, name, Vec::new())?
            }
            _ => true,
        })
    }

    fn below(&self, path: &[u8], name: &[u8], layers: &[usize]) -> Result<Below> {
        let mut found: Option<(OwnedFd, Stat, Vec<usize>)> = None;
        for (rank, &layer) in layers.iter().enumerate() {
            let Some(dir) = self.lower_dir(layer, path)? else { continue };
            let stat = match fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(Error::from(e).wrap(format!("lower {}", show(path)))),
            };
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            match (&mut found, is_dir) {
                (None, false) if is_whiteout(&stat) => return Ok(Below::Nothing),
                (None, false) => return Ok(Below::Other(dir, stat)),
                (Some(_), false) => break,
                (_, true) => {
                    let opaque = is_opaque(&open_dir(&dir, name)?, self.options.space)?;
                    found.get_or_insert_with(|| (dir, stat, Vec::new())).2.push(layer);
                    if opaque || rank + 1 == layers.len() {
                        break;
                    }
                }
            }
        }
        Ok(found.map_or(Below::Nothing, |(dir, stat, layers)| Below::Dir(dir, stat, layers)))
    }

    fn lower_dir(&self, layer: usize, path: &[u8]) -> Result<Option<OwnedFd>> {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match fs::openat2(&self.lowers[layer], path, flags, Mode::empty(), within) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(e) => Err(Error::from(e).wrap(format!("lower {}", show(path)))),
        }
    }
}

fn whiteout(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if dir.is_empty() { b"" } else { b"/" };
    [dir, slash, b".wh.", name].concat()
}

/// Directories are compared without their times: those change with every child.
fn same_dir(
    old_at: BorrowedFd<'_>,
    old: &Stat,
    new_at: BorrowedFd<'_>,
    name: &[u8],
    new: &Stat,
    space: XattrSpace,
) -> Result<bool> {
    let facts = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid);
    Ok(facts(old) == facts(new) && xattrs(old_at, name, space)? == xattrs(new_at, name, space)?)
}

fn same_bytes(a: BorrowedFd<'_>, b: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
    let open = |at| -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(at, name, flags, Mode::empty()).wrap(|| "open")
    };
    let (a, b) = (open(a)?, open(b)?);
    let (mut x, mut y) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let n = fill(&a, &mut x)?;
        let m = fill(&b, &mut y)?;
        if x[..n] != y[..m] {
            return Ok(false);
        }
        if n < x.len() {
            return Ok(true);
        }
    }
}

fn fill(fd: &OwnedFd, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::read(fd, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(Errno::INTR) => (),
            Err(e) => return Err(Error::from(e).wrap("read")),
        }
    }
    Ok(filled)
}

fn is_opaque(fd: &OwnedFd, space: XattrSpace) -> Result<bool> {
    let mut value = [0; 4];
    match fs::fgetxattr(fd, space.opaque(), &mut value[..]) {
        Ok(n) => Ok(&value[..n] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(Error::from(e).wrap(format!("read {}", space.opaque()))),
    }
}

fn stat(at: impl AsFd, name: &[u8]) -> Result<Stat> {
    fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW).wrap(|| "stat")
}

fn open(path: &Path) -> Result<OwnedFd> {
    open_dir(CWD, path.as_os_str().as_encoded_bytes()).wrap(|| format!("open {}", path.display()))
}
