//! What a copied tree was like when it was unpacked, so that its changes can be told later by
//! looking at each file once and at its content never.
//!
//! One line for each file: mode, inode, size, ctime, owner, a digest of a directory's attributes,
//! path. Every change of a file moves its ctime, which nobody can set back; a directory's moves
//! with every child, so those are compared by mode, owner and attributes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, FileType, Stat};

use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::order;

use super::XattrSpace;
use super::root::{names, open_dir};
use super::tar::show;
use super::upper::DiffOptions;
use super::write::{Writer, xattrs};

const HEADER: &str = "davit index 1";

/// Line of each child, by name.
type Children = BTreeMap<Vec<u8>, Vec<u8>>;

/// Writes the index of the tree at `root` to the file `index`.
pub fn write_index(root: &Path, index: &Path) -> Result<()> {
    let root = open(root)?;
    let file = std::fs::File::create(index).wrap(|| "create")?;
    let mut out = BufWriter::new(file);
    writeln!(out, "{HEADER}").wrap(|| "write")?;
    walk(root.as_fd(), b"", &mut |at, name, path, stat| {
        let line = [&line(at, name, stat)?, &b" "[..], &escape(path), b"\n"].concat();
        out.write_all(&line).wrap(|| "write")
    })?;
    out.flush().wrap(|| "write")
}

/// Writes the layer of what changed in the tree at `root` since its `index` was written. As with
/// [`super::from_upper`], the same tree gives the same bytes.
pub fn from_index<W: Write>(
    root: &Path,
    index: &Path,
    writer: W,
    options: &DiffOptions,
) -> Result<W> {
    let root = open(root)?;
    let before = read(index).wrap(|| format!("read {}", index.display()))?;
    let out = Writer::new(writer, options.space, options.max_mtime).owned(options.ownership);
    let mut diff = Diff { out, before, options, pending: Vec::new() };
    let old = diff.before.get(&b""[..]).and_then(|c| c.get(&b"."[..])).cloned();
    let now = stat(root.as_fd(), b".")?;
    if old.is_some_and(|old| old != line(root.as_fd(), b".", &now).unwrap_or_default()) {
        diff.out.entry(root.as_fd(), b".", b".", &now)?;
    }
    diff.dir(root.as_fd(), b"")?;
    diff.out.finish()
}

struct Diff<'a, W> {
    out: Writer<W>,
    before: BTreeMap<Vec<u8>, Children>,
    options: &'a DiffOptions,
    pending: Vec<(Vec<u8>, OwnedFd, Vec<u8>)>,
}

impl<W: Write> Diff<'_, W> {
    fn dir(&mut self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        let mut before = self.before.remove(path).unwrap_or_default();
        before.remove(&b"."[..]);
        let now = names(dir).wrap(|| format!("list {}", show(path)))?;
        let mut all: Vec<&Vec<u8>> = now.iter().chain(before.keys()).collect();
        order::sort(&mut all);
        all.dedup();
        for name in all {
            let child = join(path, name);
            if now.binary_search(name).is_err() {
                self.flush()?;
                self.out.marker(&join(path, &[b".wh.", &name[..]].concat()))?;
                continue;
            }
            let found = stat(dir, name).wrap(|| show(&child))?;
            let old = before.get(name);
            let same = old.is_some_and(|old| *old == line(dir, name, &found).unwrap_or_default());
            match FileType::from_raw_mode(found.st_mode) {
                FileType::Directory => {
                    let was_dir = old.is_some_and(|old| old.starts_with(b"4"));
                    self.directory(dir, name, child, same, was_dir)?;
                }
                _ if same || self.is_stub(&child, &found, old.is_some()) => (),
                _ => {
                    self.flush()?;
                    self.out.entry(dir, name, &child, &found)?;
                }
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: Vec<u8>,
        same: bool,
        was_dir: bool,
    ) -> Result<()> {
        let fd = open_dir(parent, name).wrap(|| show(&path))?;
        let depth = self.pending.len();
        let at = rustix::io::dup(parent).wrap(|| "dup")?;
        self.pending.push((path.clone(), at, name.to_vec()));
        if !same && (was_dir || !self.options.stubs.contains(&path)) {
            self.flush()?;
        }
        self.dir(fd.as_fd(), &path)?;
        self.pending.truncate(depth);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        for (path, at, name) in std::mem::take(&mut self.pending) {
            let found = stat(at.as_fd(), &name).wrap(|| show(&path))?;
            self.out.entry(at.as_fd(), &name, &path, &found)?;
        }
        Ok(())
    }

    fn is_stub(&self, path: &[u8], found: &Stat, existed: bool) -> bool {
        let empty =
            FileType::from_raw_mode(found.st_mode) == FileType::RegularFile && found.st_size == 0;
        empty && !existed && self.options.stubs.iter().any(|s| s == path)
    }
}

type Visit<'v> = dyn FnMut(BorrowedFd<'_>, &[u8], &[u8], &Stat) -> Result<()> + 'v;

/// Every file below, parents first; the root itself as `.`.
fn walk(dir: BorrowedFd<'_>, path: &[u8], visit: &mut Visit<'_>) -> Result<()> {
    if path.is_empty() {
        visit(dir, b".", b".", &stat(dir, b".")?)?;
    }
    for name in names(dir).wrap(|| format!("list {}", show(path)))? {
        let child = join(path, &name);
        let found = stat(dir, &name).wrap(|| show(&child))?;
        visit(dir, &name, &child, &found).wrap(|| show(&child))?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            walk(open_dir(dir, &name).wrap(|| show(&child))?.as_fd(), &child, visit)?;
        }
    }
    Ok(())
}

fn line(at: BorrowedFd<'_>, name: &[u8], s: &Stat) -> Result<Vec<u8>> {
    let owner = format!("{}:{}", s.st_uid, s.st_gid);
    let text = match FileType::from_raw_mode(s.st_mode) {
        FileType::Directory => {
            let attributes = xattrs(at, name, XattrSpace::Trusted)?;
            let digest = match attributes.is_empty() {
                true => "-".to_owned(),
                false => Digest::sha256(format!("{attributes:?}").as_bytes()).hex().to_owned(),
            };
            format!("{:o} - - - {owner} {digest}", s.st_mode)
        }
        _ => {
            let time = format!("{}.{}", s.st_ctime, s.st_ctime_nsec);
            format!("{:o} {} {} {time} {owner} -", s.st_mode, s.st_ino, s.st_size)
        }
    };
    Ok(text.into_bytes())
}

fn read(index: &Path) -> Result<BTreeMap<Vec<u8>, Children>> {
    let mut lines = BufReader::new(std::fs::File::open(index)?).split(b'\n');
    if lines.next().transpose()?.as_deref() != Some(HEADER.as_bytes()) {
        return Err(Error::new("no index of this version"));
    }
    let mut before: BTreeMap<Vec<u8>, Children> = BTreeMap::new();
    for line in lines {
        let line = line?;
        let mut fields = line.splitn(7, |&b| b == b' ');
        let path = fields.nth(6).ok_or_else(|| Error::new("a line is cut off"))?;
        let facts = line[..line.len() - path.len() - 1].to_vec();
        let path = unescape(path);
        let cut = path.iter().rposition(|&b| b == b'/');
        let (dir, name) = cut.map_or((&b""[..], &path[..]), |i| (&path[..i], &path[i + 1..]));
        before.entry(dir.to_vec()).or_default().insert(name.to_vec(), facts);
    }
    Ok(before)
}

fn escape(path: &[u8]) -> Vec<u8> {
    let escape = |&b: &u8| match b {
        b'\n' => b"\\n".to_vec(),
        b'\\' => b"\\\\".to_vec(),
        b => vec![b],
    };
    path.iter().flat_map(escape).collect()
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&b) = bytes.next() {
        path.push(match b {
            b'\\' if bytes.next() == Some(&b'n') => b'\n',
            b => b,
        });
    }
    path
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

fn stat(at: BorrowedFd<'_>, name: &[u8]) -> Result<Stat> {
    fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW).wrap(|| "stat")
}

fn open(path: &Path) -> Result<OwnedFd> {
    open_dir(CWD, path.as_os_str().as_encoded_bytes()).wrap(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_escaping() {
        for path in [&b"a b"[..], b"a\nb", b"a\\nb", b"\\", b"\xff\n\\"] {
            assert_eq!(unescape(&escape(path)), path);
            assert!(!escape(path).contains(&b'\n'));
        }
    }
}
