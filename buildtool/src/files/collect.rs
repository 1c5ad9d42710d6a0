//! What the sources of COPY and ADD name: found, listed in order, and hashed.
//!
//! A source is a file or a directory's contents. Modification times are not looked at, and for
//! the build context neither are owners, so a checkout, a copy and a `touch` give the same.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use imgtool::digest::{Algorithm, Digest, Hasher};
use rayon::prelude::*;
use rustix::fs::{self, FileType, Stat};

use super::tarball::Kind;
use super::tree::{Tree, bytes, kind};
use crate::dockerignore::{Ignore, Inherited};
use crate::error::{Context, Error, Result};
use crate::pattern::{self, Pattern};
use crate::sandbox::check_stopped;
use crate::steps::absolute;

/// One file, directory, link or device of a source.
#[derive(Debug, Clone)]
pub struct Item {
    /// Below the source; empty for the source itself.
    pub relative: PathBuf,
    /// In the tree it comes from.
    pub path: PathBuf,
    /// Its type.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner: 0 for the build context.
    pub uid: u32,
    /// Group: 0 for the build context.
    pub gid: u32,
    /// Modification time; used for unpacked archives alone.
    pub mtime: i64,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Which file it is, when it has several names that must stay one file.
    pub inode: Option<(u64, u64)>,
    /// Digest of a regular file's content.
    pub digest: Option<Digest>,
}

/// What one source path, or one match of a pattern, named.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its last component.
    pub name: OsString,
    /// Itself first, then what is below it, parents first.
    pub items: Vec<Item>,
}

impl Source {
    /// Is it a directory, of which the contents are copied?
    pub fn is_dir(&self) -> bool {
        self.items.first().is_some_and(|item| item.kind == Kind::Dir)
    }
}

/// Where sources are looked for.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    /// The tree.
    pub tree: &'a Tree,
    /// Its name in messages.
    pub name: &'a str,
    /// What does not exist in it (`.dockerignore`).
    pub ignore: &'a Ignore,
    /// Do files keep owners and hard links? (They do except in the build context.)
    pub keep_identity: bool,
}

impl Origin<'_> {
    /// All that `pattern` names, without what `exclude` matches. A plain path must exist; a
    /// pattern with wildcards may match nothing.
    pub fn gather(&self, pattern: &str, exclude: &Ignore) -> Result<Vec<Source>> {
        let clean = absolute("/", pattern);
        let clean = clean.trim_start_matches('/');
        if !pattern::has_wildcard(clean) {
            let path = PathBuf::from(pattern::unescape(clean));
            let source = self.source(&path, exclude)?;
            let missing = || {
                Error::new(format!("{pattern:?} not found in {}{}", self.name, self.hint(&path)))
            };
            return Ok(vec![source.ok_or_else(missing)?]);
        }
        let mut found = vec![PathBuf::new()];
        for component in clean.split('/') {
            found = self.step(&found, component)?;
        }
        let sources: Result<Vec<_>> = found.iter().map(|path| self.source(path, exclude)).collect();
        Ok(sources?.into_iter().flatten().collect())
    }

    fn hint(&self, path: &Path) -> &'static str {
        let there = self.tree.find(path).is_ok_and(|found| found.stat.is_some());
        if there { ": .dockerignore excludes it" } else { "" }
    }

    /// One component of a pattern against the names in each of `dirs`.
    fn step(&self, dirs: &[PathBuf], component: &str) -> Result<Vec<PathBuf>> {
        if !pattern::has_wildcard(component) {
            let name = pattern::unescape(component);
            return Ok(dirs.iter().map(|dir| dir.join(&name)).collect());
        }
        let bad = |why| Error::new(format!("bad pattern {component:?}: {why}"));
        let pattern = Pattern::file(component).map_err(bad)?;
        let mut matches = Vec::new();
        for dir in dirs {
            let found = self.tree.find(dir)?;
            if !found.is_dir() {
                continue;
            }
            let names = self.tree.names(&found.path)?;
            let named = names.iter().filter(|name| pattern.matches(&name.to_string_lossy()));
            matches.extend(named.map(|name| dir.join(name)));
        }
        Ok(matches)
    }

    /// The source at `path`, a link there followed; `None` if it does not exist or is ignored.
    fn source(&self, path: &Path, exclude: &Ignore) -> Result<Option<Source>> {
        let found = self.tree.find(path)?;
        let Some(stat) = &found.stat else { return Ok(None) };
        let name = path.file_name().unwrap_or_default().to_owned();
        let is_dir = kind(stat) == FileType::Directory;
        let mut walk = Walk { origin: self, exclude, items: Vec::new() };
        let outer = self.inherited(&found.path);
        let (ignored, inherited) = self.ignore.check(&found.path.to_string_lossy(), &outer);
        let ignored = ignored && !found.path.as_os_str().is_empty();
        if !is_dir {
            let excluded = exclude.check(&name.to_string_lossy(), &Inherited::default()).0;
            if ignored || excluded {
                return Ok((excluded && !ignored).then_some(Source { name, items: Vec::new() }));
            }
            walk.add(Path::new(""), &found.path, stat)?;
        } else {
            walk.add(Path::new(""), &found.path, stat)?;
            walk.dir(Path::new(""), &found.path, &inherited, &Inherited::default())?;
            if ignored && walk.items.len() == 1 {
                return Ok(None);
            }
        }
        Ok(Some(Source { name, items: walk.items }))
    }

    /// What the ignore rules say of the directories above `path`.
    fn inherited(&self, path: &Path) -> Inherited {
        let above: Vec<&Path> =
            path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
        above.iter().rev().fold(Inherited::default(), |inherited, dir| {
            self.ignore.check(&dir.to_string_lossy(), &inherited).1
        })
    }
}

struct Walk<'a> {
    origin: &'a Origin<'a>,
    exclude: &'a Ignore,
    items: Vec<Item>,
}

impl Walk<'_> {
    fn dir(
        &mut self,
        relative: &Path,
        path: &Path,
        ignore: &Inherited,
        exclude: &Inherited,
    ) -> Result<()> {
        for name in self.origin.tree.names(path)? {
            let (relative, path) = (relative.join(&name), path.join(&name));
            let (ignored, ignore) = self.origin.ignore.check(&path.to_string_lossy(), ignore);
            let (excluded, exclude) = self.exclude.check(&relative.to_string_lossy(), exclude);
            let hidden = ignored || excluded;
            let prunable = (!ignored || !self.origin.ignore.has_exceptions())
                && (!excluded || !self.exclude.has_exceptions());
            if hidden && prunable {
                continue;
            }
            let Some(stat) = self.origin.tree.stat(&path)? else { continue };
            let is_dir = kind(&stat) == FileType::Directory;
            if hidden && !is_dir {
                continue;
            }
            let before = self.items.len();
            self.add(&relative, &path, &stat)?;
            if is_dir {
                self.dir(&relative, &path, &ignore, &exclude)?;
            }
            // A hidden directory exists only for the sake of what an exception keeps in it.
            if hidden && self.items.len() == before + 1 {
                self.items.pop();
            }
        }
        Ok(())
    }

    fn add(&mut self, relative: &Path, path: &Path, stat: &Stat) -> Result<()> {
        let tree = self.origin.tree;
        let (major, minor) = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        let kind = match kind(stat) {
            FileType::RegularFile => Kind::File(stat.st_size as u64),
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink(tree.read_link(path)?),
            FileType::CharacterDevice => Kind::Char(major, minor),
            FileType::BlockDevice => Kind::Block(major, minor),
            FileType::Fifo => Kind::Fifo,
            // A socket has no content and no meaning without the process behind it.
            _ => return Ok(()),
        };
        let keep = self.origin.keep_identity;
        let linked = keep && stat.st_nlink > 1 && matches!(kind, Kind::File(_));
        self.items.push(Item {
            relative: relative.to_owned(),
            path: path.to_owned(),
            kind,
            // What the context's own directory is like is no part of the context: a temporary
            // directory (0700) and a checkout give the same.
            mode: if keep || !path.as_os_str().is_empty() { stat.st_mode & 0o7777 } else { 0o755 },
            uid: if keep { stat.st_uid } else { 0 },
            gid: if keep { stat.st_gid } else { 0 },
            mtime: stat.st_mtime,
            xattrs: tree.xattrs(path, stat)?,
            inode: linked.then_some((stat.st_dev, stat.st_ino)),
            digest: None,
        });
        Ok(())
    }
}

/// Hashes the content of every regular file of `sources`, on all cores.
pub fn hash(tree: &Tree, sources: &mut [Source]) -> Result<()> {
    let items: Vec<&mut Item> = sources.iter_mut().flat_map(|source| &mut source.items).collect();
    items.into_par_iter().try_for_each(|item| {
        check_stopped()?;
        if matches!(item.kind, Kind::File(_)) {
            let digest = digest_of(tree, &item.path);
            item.digest = Some(digest.wrap(|| format!("read /{}", item.path.display()))?);
        }
        Ok(())
    })
}

fn digest_of(tree: &Tree, path: &Path) -> Result<Digest> {
    let (mut file, mut hasher) = (tree.file(path)?, Hasher::new(Algorithm::Sha256));
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Feeds what `item` is, except its times, to a cache key.
pub fn identify(item: &Item, mut field: impl FnMut(&[u8])) {
    field(bytes(&item.relative));
    let (tag, detail): (&[u8], Vec<u8>) = match &item.kind {
        Kind::File(_) => {
            (b"file", item.digest.as_ref().map(Digest::to_string).unwrap_or_default().into())
        }
        Kind::Dir => (b"dir", Vec::new()),
        Kind::Symlink(target) => (b"symlink", target.clone()),
        Kind::Hardlink(target) => (b"hardlink", target.clone()),
        Kind::Char(major, minor) => (b"char", format!("{major}:{minor}").into()),
        Kind::Block(major, minor) => (b"block", format!("{major}:{minor}").into()),
        Kind::Fifo => (b"fifo", Vec::new()),
    };
    field(tag);
    field(&detail);
    field(format!("{:o} {} {} {}", item.mode, item.uid, item.gid, item.xattrs.len()).as_bytes());
    for (name, value) in &item.xattrs {
        field(name);
        field(value);
    }
}
