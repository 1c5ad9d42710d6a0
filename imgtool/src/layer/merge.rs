//! What a stack of layers comes to, held in memory: names, types and attributes, but no contents.
//!
//! Needs no privilege and writes nothing, so owners and devices survive where [`super::apply()`]
//! could not make them. The rules are those of `apply` on a directory, and a test holds the two to
//! the same result. Contents are known by where they lie: the layer, and the place in its archive.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Context, Error, Result};
use crate::order;

use super::XattrSpace;
use super::decompress::{Limits, pipeline};
use super::path::{Name, classify, components};
use super::tar::{Archive, Entry, Kind, Time, show};
use super::write::Writer;

/// Links that a path may lead through, as the kernel has it.
const MAX_LINKS: usize = 40;

/// Where a file's content lies: the layer, counted from 0, and the place in its archive.
type Origin = (usize, u64);

/// The tree that layers make.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    layers: usize,
    /// Hash the contents too.
    contents: bool,
    /// What the current layer has written: directory, name.
    written: HashSet<(usize, Vec<u8>)>,
    described: bool,
}

#[derive(Debug)]
struct Node {
    entry: Entry,
    size: u64,
    origin: Origin,
    content: Option<Digest>,
    children: BTreeMap<Vec<u8>, usize>,
}

const ROOT: usize = 0;

impl Tree {
    /// An empty root directory. With `contents`, files are compared by what is in them, too.
    pub fn new(contents: bool) -> Tree {
        let nodes = vec![Node::implied()];
        Tree { nodes, layers: 0, contents, written: HashSet::new(), described: false }
    }

    /// Adds a layer on top; one whose uncompressed digest is not `diff_id` is an error. What it is
    /// uncompressed also goes to `spool`.
    pub fn add<R: Read + Send>(
        &mut self,
        reader: R,
        diff_id: &Digest,
        mut spool: impl Write,
    ) -> Result<()> {
        let limits = Limits::default();
        self.written.clear();
        let ((), summary) = pipeline(reader, &limits, diff_id.algorithm(), |mut chunks| {
            let mut archive = Archive::new(Box::new(|| {
                let chunk = chunks()?;
                spool.write_all(chunk.as_ref().map_or(&[], |c| &c[..])).wrap(|| "keep a copy")?;
                Ok(chunk)
            }));
            let mut entries = 0;
            while let Some(mut entry) = archive.next()? {
                let path = std::mem::take(&mut entry.path);
                self.member(&path, entry, &mut archive).wrap(|| show(&path))?;
                entries += 1;
                if entries > limits.max_entries {
                    let most = limits.max_entries;
                    return Err(Error::new(format!("the layer has more than {most} members")));
                }
            }
            archive.finish().map(drop)
        })?;
        self.layers += 1;
        check(&summary.digest, diff_id)
    }

    fn member(&mut self, path: &[u8], entry: Entry, archive: &mut Archive<'_>) -> Result<()> {
        let parts = components(path)?;
        let (name, parents) = match parts.split_last() {
            None => return self.root_entry(entry),
            Some((name, parents)) => (*name, parents),
        };
        match classify(&parts)? {
            Name::Ignored => Ok(()),
            Name::Plain => self.plain(parents, name, entry, archive),
            Name::Whiteout(hidden) => {
                if let Some(dir) = self.dir(parents, false)? {
                    self.prune(dir, hidden);
                }
                Ok(())
            }
            Name::Opaque => {
                if let Some(dir) = self.dir(parents, false)? {
                    self.prune_children(dir);
                }
                Ok(())
            }
        }
    }

    fn root_entry(&mut self, entry: Entry) -> Result<()> {
        if entry.kind != Kind::Dir {
            return Err(Error::new("the archive makes the root no directory"));
        }
        self.nodes[ROOT].entry = entry;
        self.described = true;
        Ok(())
    }

    fn plain(
        &mut self,
        parents: &[&[u8]],
        name: &[u8],
        entry: Entry,
        archive: &mut Archive<'_>,
    ) -> Result<()> {
        let dir = self.dir(parents, true)?.ok_or_else(|| Error::new("no parent directory"))?;
        let old = self.nodes[dir].children.get(name).copied();
        let node = match (&entry.kind, old) {
            (Kind::Char(0, 0), _) => {
                return Err(Error::new(
                    "device 0:0 is overlay's whiteout; layers write .wh. names",
                ));
            }
            (Kind::HardLink(target), _) => self.link_target(target, dir, name)?,
            (Kind::Dir, Some(old)) if self.nodes[old].entry.kind == Kind::Dir => {
                self.nodes[old].entry = entry;
                old
            }
            _ => {
                let size = entry.sparse.as_ref().map_or(archive.remaining(), |(size, _)| *size);
                let origin = (self.layers, archive.position());
                let content = match self.contents && entry.kind == Kind::File {
                    true => Some(hash(&entry, size, archive)?),
                    false => None,
                };
                self.nodes.push(Node { entry, size, origin, content, children: BTreeMap::new() });
                self.nodes.len() - 1
            }
        };
        self.nodes[dir].children.insert(name.to_vec(), node);
        self.written.insert((dir, name.to_vec()));
        Ok(())
    }

    fn link_target(&mut self, target: &[u8], dir: usize, name: &[u8]) -> Result<usize> {
        let none = || Error::new(format!("link to {}: no such file", show(target)));
        let parts = components(target)?;
        let (last, parents) = parts.split_last().ok_or_else(|| Error::new("link to the root"))?;
        let at = self.dir(parents, false)?.ok_or_else(none)?;
        let node = *self.nodes[at].children.get(*last).ok_or_else(none)?;
        if self.nodes[node].entry.kind == Kind::Dir || (at, *last) == (dir, name) {
            return Err(Error::new(format!("{} cannot be linked to", show(target))));
        }
        Ok(node)
    }

    /// The directory at `parts`, symbolic links followed within the tree; with `make`, directories
    /// that are missing are made, but not behind a link.
    fn dir(&mut self, parts: &[&[u8]], make: bool) -> Result<Option<usize>> {
        let mut todo: VecDeque<(Vec<u8>, bool)> =
            parts.iter().map(|part| (part.to_vec(), make)).collect();
        let mut walk = vec![ROOT];
        let mut links = 0;
        while let Some((part, make)) = todo.pop_front() {
            let at = *walk.last().unwrap_or(&ROOT);
            match &part[..] {
                b"" | b"." => continue,
                b".." => {
                    walk.truncate(walk.len().saturating_sub(1).max(1));
                    continue;
                }
                _ => (),
            }
            let Some(&child) = self.nodes[at].children.get(&part) else {
                if !make {
                    return Ok(None);
                }
                self.nodes.push(Node::implied());
                let made = self.nodes.len() - 1;
                self.nodes[at].children.insert(part, made);
                walk.push(made);
                continue;
            };
            match &self.nodes[child].entry.kind {
                Kind::Dir => walk.push(child),
                Kind::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Error::new("too many symbolic links on the way"));
                    }
                    if target.starts_with(b"/") {
                        walk.truncate(1);
                    }
                    for piece in target.split(|&b| b == b'/').rev() {
                        todo.push_front((piece.to_vec(), false));
                    }
                }
                _ => return Err(Error::new(format!("{} is not a directory", show(&part)))),
            }
        }
        Ok(walk.last().copied())
    }

    /// Removes a name and all below, but for what this layer wrote; true if something stays.
    fn prune(&mut self, dir: usize, name: &[u8]) -> bool {
        let Some(&node) = self.nodes[dir].children.get(name) else { return false };
        let own = self.written.contains(&(dir, name.to_vec()));
        let is_dir = self.nodes[node].entry.kind == Kind::Dir;
        let kept = (is_dir && self.prune_children(node)) || own;
        if !kept {
            self.nodes[dir].children.remove(name);
        }
        kept
    }

    fn prune_children(&mut self, dir: usize) -> bool {
        let names: Vec<Vec<u8>> = self.nodes[dir].children.keys().cloned().collect();
        names.iter().fold(false, |kept, name| self.prune(dir, name) | kept)
    }

    /// Every path, parents first, in the order of the names' bytes; the root as `.`.
    fn paths(&self) -> Vec<(Vec<u8>, usize)> {
        let mut all = vec![(b".".to_vec(), ROOT)];
        self.collect(ROOT, b"", &mut all);
        all
    }

    fn collect(&self, dir: usize, path: &[u8], all: &mut Vec<(Vec<u8>, usize)>) {
        for (name, &node) in &self.nodes[dir].children {
            let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let child = [path, slash, name].concat();
            all.push((child.clone(), node));
            self.collect(node, &child, all);
        }
    }

    /// Writes the tree as one archive, in the order of the names' bytes, parents first: the same
    /// tree gives the same bytes, whatever layers it is made of. `layers` are the uncompressed
    /// archives that were added, in that order. Times after `max_mtime` become this one.
    pub fn write<W: Write>(&self, out: W, max_mtime: Option<i64>, layers: &[File]) -> Result<W> {
        let mut out = Writer::new(out, XattrSpace::Trusted, max_mtime);
        let mut first: HashMap<usize, Vec<u8>> = HashMap::new();
        for (path, node) in self.paths() {
            let Node { entry, size, origin, .. } = &self.nodes[node];
            match (&entry.kind, first.get(&node)) {
                (Kind::Dir, _) if node == ROOT && !self.described => (),
                (Kind::Dir, _) => out.member(&path, entry, 0)?,
                (_, Some(first)) => {
                    let kind = Kind::HardLink(first.clone());
                    out.member(&path, &Entry { kind, ..entry.clone() }, 0)?;
                }
                (kind, None) => {
                    out.member(&path, entry, *size)?;
                    if *kind == Kind::File {
                        let mut stored = Stored { file: &layers[origin.0], at: origin.1 };
                        expand(entry, *size, &mut stored, |piece| out.content(piece))
                            .wrap(|| show(&path))?;
                        out.pad(*size)?;
                    }
                    first.insert(node, path);
                }
            }
        }
        out.finish()
    }

    /// What is different in `new`, by path.
    pub fn changes(&self, new: &Tree) -> Vec<Change> {
        let (old_paths, new_paths) = (self.paths(), new.paths());
        let (mut old, mut now) = (BTreeMap::new(), BTreeMap::new());
        old.extend(old_paths.iter().map(|(path, node)| (&path[..], *node)));
        now.extend(new_paths.iter().map(|(path, node)| (&path[..], *node)));
        let mut changes = Vec::new();
        for (path, node) in &now {
            let what = match old.get(path) {
                None => Some(What::Added),
                Some(old) if self.same(*old, new, *node) => None,
                Some(_) => Some(What::Changed),
            };
            changes.extend(what.map(|what| Change { path: path.to_vec(), what }));
        }
        let gone = old.keys().filter(|path| !now.contains_key(*path));
        changes.extend(gone.map(|path| Change { path: path.to_vec(), what: What::Deleted }));
        order::sort_by(&mut changes, |a, b| a.path.cmp(&b.path));
        changes
    }

    fn same(&self, node: usize, new: &Tree, other: usize) -> bool {
        let (a, b) = (&self.nodes[node], &new.nodes[other]);
        let facts = |n: &Node| {
            let e = &n.entry;
            let mut xattrs = e.xattrs.clone();
            order::sort(&mut xattrs);
            (e.kind.clone(), e.mode, e.uid, e.gid, xattrs, n.size, n.content.clone())
        };
        // A directory's time changes with every child.
        facts(a) == facts(b) && (a.entry.kind == Kind::Dir || a.entry.mtime == b.entry.mtime)
    }
}

/// A path that is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Path from the root without a leading slash; the root is `.`.
    pub path: Vec<u8>,
    /// How.
    pub what: What,
}

/// How a path is different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It is new.
    Added,
    /// Its type, attributes, time or content is another.
    Changed,
    /// It is gone.
    Deleted,
}

impl Node {
    /// A directory that no archive describes: as `apply` makes them.
    fn implied() -> Node {
        let entry = Entry {
            path: Vec::new(),
            kind: Kind::Dir,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
            sparse: None,
        };
        Node { entry, size: 0, origin: (0, 0), content: None, children: BTreeMap::new() }
    }
}

/// Members and bytes of an archive that could be a layer.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of the uncompressed archive.
    pub size: u64,
    /// Members.
    pub entries: u64,
}

/// Reads an archive (plain, gzip or zstd) as a layer would be, and writes nothing. Errors name the
/// member that no layer can have.
pub fn check_archive<R: Read + Send>(reader: R) -> Result<Checked> {
    let limits = Limits::default();
    let (entries, summary) = pipeline(reader, &limits, Algorithm::Sha256, |chunks| {
        let mut archive = Archive::new(chunks);
        let mut entries = 0;
        while let Some(entry) = archive.next()? {
            components(&entry.path)
                .and_then(|parts| classify(&parts).map(drop))
                .wrap(|| show(&entry.path))?;
            entries += 1;
        }
        archive.finish()?;
        Ok(entries)
    })?;
    Ok(Checked { diff_id: summary.digest, size: summary.size, entries })
}

fn check(found: &Digest, expected: &Digest) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::new(format!(
            "the uncompressed layer has digest {found}, its image says {expected}"
        ))),
    }
}

fn hash(entry: &Entry, size: u64, archive: &mut Archive<'_>) -> Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    expand(entry, size, archive, |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok(hasher.finish())
}

/// Where stored content comes from, piece by piece.
trait Content {
    /// The next piece, of at most `most` bytes; empty at the end.
    fn piece(&mut self, most: u64, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<u64>;
}

impl Content for Archive<'_> {
    fn piece(&mut self, most: u64, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let piece = self.data(most)?;
        each(piece)?;
        Ok(piece.len() as u64)
    }
}

/// Content in an archive on disk.
struct Stored<'f> {
    file: &'f File,
    at: u64,
}

impl Content for Stored<'_> {
    fn piece(&mut self, most: u64, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let mut buffer = [0; 32 << 10];
        let want = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.file.read_at(&mut buffer[..want], self.at).wrap(|| "read the layer")?;
        self.at += n as u64;
        each(&buffer[..n])?;
        Ok(n as u64)
    }
}

/// The content of a file as a reader sees it, holes as zeros.
fn expand(
    entry: &Entry,
    size: u64,
    content: &mut dyn Content,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let whole = [(0, size)];
    let map = entry.sparse.as_ref().map_or(&whole[..], |(_, map)| &map[..]);
    let mut at = 0;
    for &(offset, length) in map.iter().chain([&(size, 0)]) {
        while at < offset {
            let n = (offset - at).min(ZEROS.len() as u64);
            each(&ZEROS[..n as usize])?;
            at += n;
        }
        while at < offset + length {
            let n = content.piece(offset + length - at, &mut each)?;
            if n == 0 {
                return Err(Error::new("its content ends early"));
            }
            at += n;
        }
    }
    Ok(())
}
