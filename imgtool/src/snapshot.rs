//! Layers, extracted once and shared: the lower directories of overlay mounts.
//!
//! `davit/snapshots/<trusted|user>/` in the store holds one directory for each layer, named by its
//! diffID, so that layers unpack in parallel and images share what they have in common. A layer
//! that leans on lower ones (its archive leaves out a parent directory, or links to a file below)
//! has no meaning alone: it is extracted onto a mount of those, and named by its chain.
//!
//! Directories appear complete, by rename; a lock for each keeps two processes from doing the same
//! work; a directory of the two name spaces is never used in the other. Bytes are verified when
//! they enter; mounting a snapshot reads nothing again.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::image::Image;
use crate::layer::{self, Applied, Ownership, Whiteouts, XattrSpace};
use crate::overlay::{self, Layers, Outcome};
use crate::parallel;
use crate::progress::Progress;
use crate::store::Store;
use crate::{Context, Error, Result};

/// The snapshots of a store, in the name space that this process can use.
pub struct Snapshots<'s> {
    store: &'s Store,
    dir: PathBuf,
    space: XattrSpace,
    progress: Progress,
}

/// Kept beside each snapshot.
#[derive(Serialize, Deserialize)]
struct Info {
    diff_id: Digest,
    size: u64,
    entries: u64,
    /// The archive describes the root directory itself.
    root: bool,
}

/// Why there is no snapshot.
enum Missing {
    /// Only with its lower layers.
    Leans,
    /// Overlay cannot be used here.
    Impossible(String),
}

impl<'s> Snapshots<'s> {
    /// Opens the snapshots of `store`, creating the directory (mode 0700) if it is missing.
    pub fn open(store: &'s Store) -> Result<Snapshots<'s>> {
        let space = space();
        let dir = store.private_dir("snapshots")?.join(match space {
            XattrSpace::Trusted => "trusted",
            XattrSpace::User => "user",
        });
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).wrap(|| intent(&dir))?;
        Ok(Snapshots { store, dir, space, progress: Progress::new(true) })
    }

    /// Shows a bar for each layer that is extracted.
    #[must_use]
    pub fn showing(mut self, progress: &Progress) -> Snapshots<'s> {
        self.progress = progress.clone();
        self
    }

    /// The name space of overlay's attributes in these directories, which the mount must use too.
    pub fn space(&self) -> XattrSpace {
        self.space
    }

    /// Extracts what is not there yet. The directories of the image's layers, topmost first; never
    /// empty, and good for [`overlay::mount`] until the store's owner removes them.
    ///
    /// `Impossible`: a layer leans on others, and overlay, which is needed to extract it, cannot
    /// be used here.
    pub fn ensure(&self, image: &Image) -> Result<Outcome<Vec<PathBuf>>> {
        let layers: Vec<(&Descriptor, &Digest)> = image.layers().collect();
        let alone =
            parallel::try_map(parallel::threads(), &layers, |_, (blob, id)| self.alone(blob, id))?;
        let mut lowers: Vec<PathBuf> = Vec::with_capacity(layers.len());
        let mut chain: Option<Digest> = None;
        for ((blob, id), dir) in layers.iter().zip(alone) {
            chain = Some(match &chain {
                None => (*id).clone(),
                Some(below) => Digest::sha256(format!("{below} {id}").as_bytes()),
            });
            let dir = match (dir, &chain) {
                (Some(dir), _) => Ok(dir),
                (None, Some(chain)) => self.chained(blob, id, chain, &lowers)?,
                (None, None) => unreachable!("the chain was set above"),
            };
            match dir {
                Ok(dir) => lowers.insert(0, dir),
                Err(why) => return Ok(Outcome::Impossible(why)),
            }
        }
        if lowers.is_empty() {
            lowers.push(self.empty()?);
        }
        Ok(Outcome::Mounted(lowers))
    }

    /// The directory that is like the root of the image: the topmost whose archive describes it.
    pub fn root_like(lowers: &[PathBuf]) -> Result<Option<&Path>> {
        for lower in lowers {
            let info = lower.with_file_name("info.json");
            match fs::read(&info) {
                Ok(bytes) => {
                    let info: Info = serde_json::from_slice(&bytes).wrap(|| intent(&info))?;
                    if info.root {
                        return Ok(Some(lower));
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => (),
                Err(e) => return Err(Error::from(e).wrap(intent(&info))),
            }
        }
        Ok(None)
    }

    /// The layer by itself; `None` if it leans.
    fn alone(&self, blob: &Descriptor, id: &Digest) -> Result<Option<PathBuf>> {
        let key = key(id);
        let marker = self.dir.join(format!("{key}.leans"));
        if marker.exists() {
            return Ok(None);
        }
        let made = self.make(&key, blob, id, |work| {
            let options = self.options(Whiteouts::Overlay(self.space), id, true);
            let applied = self.apply(blob, id, open(&work.join("fs"))?.as_fd(), &options)?;
            match applied.leans {
                None => Ok(Ok(applied)),
                Some(_) => Ok(Err(Missing::Leans)),
            }
        })?;
        match made {
            Ok(dir) => Ok(Some(dir)),
            Err(_) => {
                File::create(&marker).wrap(|| intent(&marker))?;
                Ok(None)
            }
        }
    }

    /// The layer on top of `lowers`; the error is why overlay cannot be used.
    fn chained(
        &self,
        blob: &Descriptor,
        id: &Digest,
        chain: &Digest,
        lowers: &[PathBuf],
    ) -> Result<std::result::Result<PathBuf, String>> {
        let made = self.make(&format!("chain-{}", key(chain)), blob, id, |work| {
            let upper = work.join("fs");
            if lowers.is_empty() {
                let options = self.options(Whiteouts::Overlay(self.space), id, false);
                return self.apply(blob, id, open(&upper)?.as_fd(), &options).map(Ok);
            }
            if let Some(like) = Self::root_like(lowers)? {
                layer::copy_attributes(like, &upper)?;
            }
            let scratch = work.join("work");
            fs::create_dir(&scratch).wrap(|| intent(&scratch))?;
            let layers = Layers { lowers, upper: Some((&upper, &scratch)), space: self.space };
            let mounted = match overlay::detached(layers)? {
                Outcome::Mounted(fd) => fd,
                Outcome::Impossible(why) => return Ok(Err(Missing::Impossible(why))),
            };
            let options = self.options(Whiteouts::Remove, id, false);
            let applied = self.apply(blob, id, mounted.as_fd(), &options)?;
            drop(mounted);
            fs::remove_dir_all(&scratch).wrap(|| intent(&scratch))?;
            Ok(Ok(applied))
        })?;
        Ok(made.map_err(|missing| match missing {
            Missing::Impossible(why) => why,
            Missing::Leans => "a layer leans on lower ones".to_owned(),
        }))
    }

    /// The snapshot `key`, made by `extract` in a work directory with an empty `fs` if missing.
    fn make(
        &self,
        key: &str,
        blob: &Descriptor,
        id: &Digest,
        extract: impl FnOnce(&Path) -> Result<std::result::Result<Applied, Missing>>,
    ) -> Result<std::result::Result<PathBuf, Missing>> {
        let done = self.dir.join(key);
        let tree = done.join("fs");
        if tree.exists() {
            return Ok(Ok(tree));
        }
        let lock = self.lock(key)?;
        if tree.exists() {
            return Ok(Ok(tree));
        }
        // Under the lock, so whatever lies there belongs to a process that is gone.
        let work = Scratch::new(self.dir.join(format!("{key}.tmp")))?;
        let fs_dir = work.0.join("fs");
        fs::DirBuilder::new().mode(0o755).create(&fs_dir).wrap(|| intent(&fs_dir))?;
        let applied = match extract(&work.0)? {
            Ok(applied) => applied,
            Err(missing) => return Ok(Err(missing)),
        };
        let info = Info {
            diff_id: id.clone(),
            size: blob.size,
            entries: applied.entries,
            root: applied.root,
        };
        let path = work.0.join("info.json");
        fs::write(&path, serde_json::to_vec(&info)?).wrap(|| intent(&path))?;
        // The new name must never outlive, in a crash, what it names.
        rustix::fs::syncfs(open(&work.0)?).wrap(|| intent(&done))?;
        fs::rename(&work.0, &done).wrap(|| intent(&done))?;
        drop(lock);
        Ok(Ok(tree))
    }

    fn apply(
        &self,
        blob: &Descriptor,
        id: &Digest,
        root: BorrowedFd<'_>,
        options: &layer::Options,
    ) -> Result<Applied> {
        let bar = self.progress.bar(id.short(), Some(blob.size));
        let applied = layer::apply(bar.reader(self.store.open_blob(blob)?), root, options)
            .wrap(|| format!("unpack layer {id}"));
        bar.clear();
        applied
    }

    fn options(&self, whiteouts: Whiteouts, id: &Digest, alone: bool) -> layer::Options {
        let diff_id = Some(id.clone());
        layer::Options { whiteouts, ownership: ownership(), diff_id, alone, ..Default::default() }
    }

    /// For an image of no layers.
    fn empty(&self) -> Result<PathBuf> {
        let dir = self.dir.join("empty").join("fs");
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&dir).wrap(|| intent(&dir))?;
        Ok(dir)
    }

    fn lock(&self, key: &str) -> Result<File> {
        let path = self.dir.join(format!("{key}.lock"));
        let file = File::create(&path).wrap(|| intent(&path))?;
        flock(&file, FlockOperation::LockExclusive).wrap(|| intent(&path))?;
        Ok(file)
    }
}

/// A directory that goes away with its contents, unless it was renamed.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Scratch> {
        let scratch = Scratch(path);
        scratch.remove()?;
        fs::DirBuilder::new().mode(0o700).create(&scratch.0).wrap(|| intent(&scratch.0))?;
        Ok(scratch)
    }

    fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::from(e).wrap(format!("remove {}", self.0.display())))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing sensible is left to do about a failure; the next one to hold the lock tries again.
        let _ = self.remove();
    }
}

/// The name space that mounts of this process use.
pub fn space() -> XattrSpace {
    match crate::bundle::host::in_initial_user_namespace() && rustix::process::geteuid().is_root() {
        true => XattrSpace::Trusted,
        false => XattrSpace::User,
    }
}

/// Root keeps the owners in the archive; anybody else has only one id to give.
pub fn ownership() -> Ownership {
    match rustix::process::geteuid().is_root() {
        true => Ownership::Keep,
        false => Ownership::Ours,
    }
}

fn key(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}

fn open(dir: &Path) -> Result<File> {
    File::open(dir).wrap(|| intent(dir))
}

fn intent(path: &Path) -> String {
    format!("snapshot {}", path.display())
}
