//! A layer in the making: files laid out at their destinations over what is there already.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use imgtool::digest::{Algorithm, Digest, Hasher};
use rustix::fs::{FileType, Stat};

use super::collect::{Item, Source};
use super::mode::Mode;
use super::tarball::{Kind, Member, Writer};
use super::tree::{Tree, bytes, kind};
use crate::error::{Context, Error, Result};
use crate::sandbox::check_stopped;

/// Where a member's content comes from.
#[derive(Debug, Clone)]
enum Content {
    None,
    Bytes(Vec<u8>),
    File { tree: Rc<Tree>, path: PathBuf, digest: Option<Digest> },
}

#[derive(Debug, Clone)]
struct Placed {
    member: Member,
    content: Content,
}

/// How new files look.
#[derive(Debug, Clone)]
pub struct Look {
    /// `--chown`, resolved.
    pub owner: Option<(u32, u32)>,
    /// `--chmod`.
    pub mode: Option<Mode>,
    /// The time of everything new, and the latest time of anything.
    pub time: i64,
    /// Do files keep their own, earlier times? (Unpacked archives do.)
    pub keep_time: bool,
}

/// The layer.
pub struct Layout<'a> {
    /// What lies below; `None` for a layer that depends on nothing.
    base: Option<&'a Tree>,
    look: Look,
    members: BTreeMap<PathBuf, Placed>,
    links: HashMap<(u64, u64), PathBuf>,
    changed: bool,
}

impl<'a> Layout<'a> {
    /// An empty layer over `base`.
    pub fn new(base: Option<&'a Tree>, look: Look) -> Self {
        Self { base, look, members: BTreeMap::new(), links: HashMap::new(), changed: false }
    }

    /// Does the layer change anything?
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// Changes how what is placed from now on looks.
    pub fn set_keep_time(&mut self, keep: bool) {
        self.look.keep_time = keep;
    }

    /// Where `destination` (absolute) leads, links of the base followed.
    fn real(&self, destination: &str) -> Result<PathBuf> {
        let path = Path::new(destination.trim_matches('/'));
        match self.base {
            Some(base) => Ok(base.find(path)?.path),
            None => Ok(path.to_owned()),
        }
    }

    /// The type of what is at the real path `path`, in this layer or below it.
    fn type_at(&self, path: &Path) -> Result<Option<FileType>> {
        if path.as_os_str().is_empty() {
            return Ok(Some(FileType::Directory));
        }
        if let Some(placed) = self.members.get(path) {
            let directory = placed.member.kind == Kind::Dir;
            return Ok(Some(if directory { FileType::Directory } else { FileType::RegularFile }));
        }
        Ok(self.below(path)?.as_ref().map(kind))
    }

    fn below(&self, path: &Path) -> Result<Option<Stat>> {
        self.base.map_or(Ok(None), |base| base.stat(path))
    }

    /// Is there a directory at `destination`?
    pub fn is_dir(&self, destination: &str) -> Result<bool> {
        Ok(self.type_at(&self.real(destination)?)? == Some(FileType::Directory))
    }

    /// Creates the directory `destination` and those above it, unless they exist.
    pub fn directory(&mut self, destination: &str) -> Result<PathBuf> {
        let path = self.real(destination)?;
        self.parents(&path.join("x"))?;
        Ok(path)
    }

    /// Makes sure of the directories above `path`. Existing ones are repeated as they are, so
    /// that the layer can be unpacked without those below it.
    fn parents(&mut self, path: &Path) -> Result<()> {
        let mut above: Vec<&Path> =
            path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
        above.reverse();
        for dir in above {
            match self.type_at(dir)? {
                Some(FileType::Directory) => self.repeat(dir)?,
                Some(_) => {
                    return Err(Error::new(format!("/{} is not a directory", dir.display())));
                }
                None => {
                    let (uid, gid) = self.look.owner.unwrap_or((0, 0));
                    let mtime = self.look.time;
                    self.put(
                        dir,
                        Kind::Dir,
                        Meta { mode: 0o755, uid, gid, mtime, xattrs: Vec::new() },
                        Content::None,
                    );
                }
            }
        }
        Ok(())
    }

    /// Takes a directory of the base into the layer, unchanged.
    fn repeat(&mut self, path: &Path) -> Result<()> {
        let (None, Some(base)) = (self.members.get(path), self.base) else {
            return Ok(());
        };
        let Some(stat) = base.stat(path)? else { return Ok(()) };
        let meta = Meta {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: stat.st_mtime.min(self.look.time),
            xattrs: base.xattrs(path, &stat)?,
        };
        let changed = self.changed;
        self.put(path, Kind::Dir, meta, Content::None);
        self.changed = changed;
        Ok(())
    }

    fn put(&mut self, path: &Path, kind: Kind, meta: Meta, content: Content) {
        let member = Member {
            path: bytes(path).to_vec(),
            kind,
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            mtime: meta.mtime,
            xattrs: meta.xattrs,
        };
        self.members.insert(path.to_owned(), Placed { member, content });
        self.changed = true;
    }

    /// Places a file whose content is at hand, with mode 0644.
    pub fn inline(&mut self, name: &str, content: &str, destination: &str) -> Result<()> {
        let target = self.target(Path::new(name), destination)?;
        let (uid, gid) = self.look.owner.unwrap_or((0, 0));
        let meta = Meta {
            mode: self.mode(0o644, false),
            uid,
            gid,
            mtime: self.look.time,
            xattrs: Vec::new(),
        };
        self.check_file(&target)?;
        self.parents(&target)?;
        self.put(&target, Kind::File(content.len() as u64), meta, Content::Bytes(content.into()));
        Ok(())
    }

    /// Where a file called `name` goes: into `destination` if that is a directory.
    fn target(&self, name: &Path, destination: &str) -> Result<PathBuf> {
        let path = self.real(destination)?;
        let into = destination.ends_with('/') || self.type_at(&path)? == Some(FileType::Directory);
        Ok(if into { path.join(name) } else { path })
    }

    /// Places a source: a file at or in `destination`, or a directory's contents in it.
    pub fn place(&mut self, tree: &Rc<Tree>, source: &Source, destination: &str) -> Result<()> {
        let Some(first) = source.items.first() else { return Ok(()) };
        if !source.is_dir() {
            let target = self.target(Path::new(&source.name), destination)?;
            return self.item(tree, first, &target);
        }
        let root = self.real(destination)?;
        match self.type_at(&root)? {
            Some(FileType::Directory) => self.parents(&root.join("x"))?,
            Some(_) => {
                return Err(Error::new(format!(
                    "cannot copy a directory to /{}: it is not one",
                    root.display()
                )));
            }
            None => self.item(tree, first, &root)?,
        }
        for item in &source.items[1..] {
            self.item(tree, item, &root.join(&item.relative))?;
        }
        Ok(())
    }

    fn item(&mut self, tree: &Rc<Tree>, item: &Item, target: &Path) -> Result<()> {
        match item.kind {
            Kind::Dir => match self.type_at(target)? {
                None | Some(FileType::Directory) => {}
                Some(_) => {
                    return Err(Error::new(format!(
                        "cannot copy a directory to /{}: it is not one",
                        target.display()
                    )));
                }
            },
            _ => self.check_file(target)?,
        }
        self.parents(target)?;
        let link = item.inode.and_then(|inode| self.links.get(&inode)).cloned();
        let meta = self.meta(item);
        if let Some(first) = link {
            self.put(target, Kind::Hardlink(bytes(&first).to_vec()), meta, Content::None);
            return Ok(());
        }
        if let Some(inode) = item.inode {
            self.links.insert(inode, target.to_owned());
        }
        let content = match item.kind {
            Kind::File(_) => Content::File {
                tree: Rc::clone(tree),
                path: item.path.clone(),
                digest: item.digest.clone(),
            },
            _ => Content::None,
        };
        self.put(target, item.kind.clone(), meta, content);
        Ok(())
    }

    fn check_file(&self, target: &Path) -> Result<()> {
        if target.as_os_str().is_empty() || self.type_at(target)? == Some(FileType::Directory) {
            let message = format!("cannot copy a file to /{}: it is a directory", target.display());
            return Err(Error::new(message));
        }
        Ok(())
    }

    fn mode(&self, bits: u32, directory: bool) -> u32 {
        self.look.mode.as_ref().map_or(bits, |mode| mode.apply(bits, directory))
    }

    fn meta(&self, item: &Item) -> Meta {
        let (uid, gid) = self.look.owner.unwrap_or((item.uid, item.gid));
        let time = if self.look.keep_time { item.mtime } else { self.look.time };
        Meta {
            mode: match item.kind {
                Kind::Symlink(_) => 0o777,
                _ => self.mode(item.mode, item.kind == Kind::Dir),
            },
            uid,
            gid,
            mtime: time.min(self.look.time),
            xattrs: item.xattrs.clone(),
        }
    }

    /// Writes the layer. A file that is no longer what was hashed is an error.
    pub fn write(self, out: impl Write) -> Result<()> {
        let mut writer = Writer::new(out);
        for (path, placed) in self.late_links() {
            check_stopped()?;
            let what = || format!("add /{} to the layer", path.display());
            writer.header(&placed.member).wrap(what)?;
            let Kind::File(size) = placed.member.kind else { continue };
            writer.content(size, |out| placed.content.copy(out)).wrap(what)?;
        }
        writer.finish()?.flush()?;
        Ok(())
    }

    /// The members in order, each hard link after the file that it names.
    fn late_links(self) -> Vec<(PathBuf, Placed)> {
        let is_link =
            |(_, placed): &(PathBuf, Placed)| matches!(placed.member.kind, Kind::Hardlink(_));
        let (links, mut rest): (Vec<_>, Vec<_>) = self.members.into_iter().partition(is_link);
        rest.extend(links);
        rest
    }
}

struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Content {
    fn copy(&self, out: &mut dyn Write) -> io::Result<u64> {
        match self {
            Self::None => Ok(0),
            Self::Bytes(bytes) => out.write_all(bytes).map(|()| bytes.len() as u64),
            Self::File { tree, path, digest } => {
                let mut file = tree.file(path).map_err(io::Error::other)?;
                copy_verified(&mut file, out, digest.as_ref())
            }
        }
    }
}

fn copy_verified(
    file: &mut impl Read,
    out: &mut dyn Write,
    digest: Option<&Digest>,
) -> io::Result<u64> {
    let (mut hasher, mut total) = (Hasher::new(Algorithm::Sha256), 0);
    let mut buffer = vec![0; 128 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        if digest.is_some() {
            hasher.update(&buffer[..read]);
        }
        out.write_all(&buffer[..read])?;
        total += read as u64;
    }
    match digest {
        Some(expected) if hasher.finish() != *expected => {
            Err(io::Error::other("it changed during the build"))
        }
        _ => Ok(total),
    }
}
