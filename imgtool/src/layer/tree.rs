//! Whole trees: copied within this machine through the same archive that layers are.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

use super::apply::{Options, apply};
use super::attributes::{Attributes, Setter};
use super::path::components;
use super::root::{Root, names, open_dir};
use super::tar::{Time, show};
use super::write::{Writer, xattrs};
use super::{Ownership, XattrSpace};

/// Gives the directory `to` the mode, owner, attributes and time of `from`.
pub fn copy_attributes(from: &Path, to: &Path) -> Result<()> {
    let open = |path: &Path| {
        open_dir(CWD, path.as_os_str().as_encoded_bytes())
            .wrap(|| format!("open {}", path.display()))
    };
    copy_dir_attributes(&open(from)?, &open(to)?).wrap(|| format!("describe {}", to.display()))
}

fn copy_dir_attributes(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let stat = fs::fstat(from).wrap(|| "stat")?;
    let of = Attributes {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
        xattrs: xattrs(from.as_fd(), b".", XattrSpace::Trusted)?,
    };
    Setter::new(ownership(), None).dir(to, &of, true)
}

/// Makes the directory `path` below `root`, with its parents, where they are missing: mode 0755,
/// and ours. Links are followed within the root.
pub fn make_dirs(root: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
    let parts = components(path)?;
    let mut failed = Ok(());
    let mut made = |_: &[u8], dir: &super::root::Dir| {
        failed = failed.and_then(|()| fs::fchmod(dir, Mode::from_raw_mode(0o755)));
    };
    Root::new(root).dir(&parts, true, &mut made)?;
    failed.wrap(|| format!("make {}", show(path)))
}

/// Copies what is in the directory `path` below `root`, and the directory's own attributes, into
/// the directory `to`. Nothing there, or no directory, copies nothing.
pub fn copy_tree(root: BorrowedFd<'_>, path: &[u8], to: &Path) -> Result<()> {
    let path = components(path)?.join(&b'/');
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let from = match fs::openat2(root, &path[..], flags, Mode::empty(), within) {
        Ok(from) => from,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(e) => return Err(Error::from(e).wrap(show(&path))),
    };
    let to = open_dir(CWD, to.as_os_str().as_encoded_bytes()).wrap(|| "open the copy")?;
    let (reader, writer) = std::io::pipe().wrap(|| "make a pipe")?;
    std::thread::scope(|scope| {
        let source = from.as_fd();
        let writing = scope.spawn(move || {
            let mut out = Writer::new(writer, XattrSpace::Trusted, None).owned(ownership());
            archive(&mut out, source, b"")?;
            out.finish().map(drop)
        });
        let options = Options { ownership: ownership(), ..Default::default() };
        let applied = apply(reader, to.as_fd(), &options);
        let written = writing.join().map_err(|_| Error::new("the reading thread panicked"))?;
        // If applying failed, the writer met a closed pipe.
        applied.and(written)
    })?;
    copy_dir_attributes(&from, &to)
}

fn ownership() -> Ownership {
    crate::snapshot::ownership()
}

fn archive<W: Write>(out: &mut Writer<W>, dir: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
    for name in names(dir).wrap(|| format!("list {}", show(path)))? {
        let child = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
        let stat = fs::statat(dir, &name[..], AtFlags::SYMLINK_NOFOLLOW).wrap(|| show(&child))?;
        out.entry(dir, &name, &child, &stat)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            archive(out, open_dir(dir, &name).wrap(|| show(&child))?.as_fd(), &child)?;
        }
    }
    Ok(())
}
