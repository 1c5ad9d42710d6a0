//! Garbage collection: removes the blobs that nothing names.
//!
//! Roots are the entries of `index.json` and the descriptor lists in `davit/roots/`. Collection
//! needs the store to itself: every [`Store`] holds the lock shared while open, so whatever
//! another process is about to name is safe.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::{MAX_NESTING, Store, files};
use crate::descriptor::{Descriptor, media_type};
use crate::digest::Digest;
use crate::image::Document;
use crate::{Context, Error, Result};

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Number of files.
    pub files: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
}

impl Store {
    /// Keeps these, and all that they point at, from being collected, until the root of this
    /// name is set again or removed. `name` is a file name.
    pub fn set_root(&self, name: &str, descriptors: &[Descriptor]) -> Result<()> {
        let path = self.private_dir("roots")?.join(checked_name(name)?);
        files::write_atomic(&self.davit().join("tmp"), &path, &serde_json::to_vec(descriptors)?)
    }

    /// Removes a root. Idempotent.
    pub fn remove_root(&self, name: &str) -> Result<()> {
        let path = self.davit().join("roots").join(checked_name(name)?);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::from(e).wrap(format!("remove {}", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// Removes what no root reaches. With `wait` it waits until nobody else uses the store;
    /// without, it returns `None` if somebody does.
    pub fn collect(self, wait: bool) -> Result<Option<Collected>> {
        self.init()?;
        let lock = self.in_use.get().expect("init takes the lock");
        let how = match wait {
            true => FlockOperation::LockExclusive,
            false => FlockOperation::NonBlockingLockExclusive,
        };
        match rustix::fs::flock(lock, how) {
            Ok(()) => self
                .sweep()
                .wrap(|| format!("collect garbage in {}", self.root.display()))
                .map(Some),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(Error::from(e).wrap(format!("lock store {}", self.root.display()))),
        }
    }

    /// Waits until nobody else uses the store, and keeps others out until it is dropped.
    pub fn lock_exclusively(&self) -> Result<()> {
        self.init()?;
        let lock = self.in_use.get().expect("init takes the lock");
        rustix::fs::flock(lock, FlockOperation::LockExclusive)
            .wrap(|| format!("lock store {}", self.root.display()))
    }

    fn sweep(&self) -> Result<Collected> {
        let live = self.live()?;
        let mut collected = Collected::default();
        for algorithm in [crate::digest::Algorithm::Sha256, crate::digest::Algorithm::Sha512] {
            let dir = self.root.join("blobs").join(algorithm.name());
            remove_files(&dir, &mut collected, |name| {
                Digest::parse(&format!("{}:{name}", algorithm.name()))
                    .is_ok_and(|digest| !live.contains(&digest))
            })?;
        }
        remove_files(&self.davit().join("compressed"), &mut Collected::default(), |name| {
            Digest::parse(&format!("sha256:{name}")).is_ok_and(|d| self.compressed(&d).is_none())
        })?;
        let tmp = self.davit().join("tmp");
        remove_files(&tmp, &mut collected, |name| is_abandoned(&tmp.join(name)))?;
        Ok(collected)
    }

    /// The digests of everything that a root reaches. An unreadable manifest that is present
    /// stops the collection: what it points at is unknown.
    fn live(&self) -> Result<HashSet<Digest>> {
        let mut live = HashSet::new();
        for root in self.entries()?.iter().chain(&self.extra_roots()?) {
            self.mark(root, &mut live, 0)?;
        }
        let dir = self.davit().join("compressed");
        for name in file_names(&dir)? {
            let Ok(diff_id) = Digest::parse(&format!("sha256:{name}")) else { continue };
            match self.compressed(&diff_id) {
                Some(compressed) if live.contains(&diff_id) => drop(live.insert(compressed.digest)),
                _ => {}
            }
        }
        Ok(live)
    }

    fn mark(&self, at: &Descriptor, live: &mut HashSet<Digest>, depth: usize) -> Result<()> {
        let is_document =
            media_type::is_manifest(&at.media_type) || media_type::is_index(&at.media_type);
        if !live.insert(at.digest.clone()) || !is_document || !self.has_blob(at) {
            return Ok(());
        }
        match self.document(at)? {
            Document::Manifest(m) => live.extend(m.blobs().map(|d| d.digest.clone())),
            Document::Index(_) if depth >= MAX_NESTING => {
                return Err(Error::new(format!("{}: indexes nested too deeply", at.digest)));
            }
            Document::Index(index) => {
                for entry in &index.manifests {
                    self.mark(entry, live, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    fn extra_roots(&self) -> Result<Vec<Descriptor>> {
        let dir = self.davit().join("roots");
        let mut roots = Vec::new();
        for name in file_names(&dir)? {
            let path = dir.join(name);
            let bytes = std::fs::read(&path).wrap(|| format!("read {}", path.display()))?;
            let list: Vec<Descriptor> =
                serde_json::from_slice(&bytes).wrap(|| format!("parse {}", path.display()))?;
            roots.extend(list);
        }
        Ok(roots)
    }
}

fn checked_name(name: &str) -> Result<&str> {
    match name {
        "" | "." | ".." => Err(Error::new(format!("invalid root name \"{name}\""))),
        _ if name.contains('/') => Err(Error::new(format!("invalid root name \"{name}\""))),
        _ => Ok(name),
    }
}

/// A temporary file whose writer is gone holds no lock.
fn is_abandoned(path: &Path) -> bool {
    File::open(path)
        .is_ok_and(|f| rustix::fs::flock(&f, FlockOperation::NonBlockingLockExclusive).is_ok())
}

fn file_names(dir: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::from(e).wrap(format!("read {}", dir.display()))),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(
            entry.wrap(|| format!("read {}", dir.display()))?.file_name().into_string().ok(),
        );
    }
    Ok(names)
}

fn remove_files(
    dir: &Path,
    collected: &mut Collected,
    doomed: impl Fn(&str) -> bool,
) -> Result<()> {
    for name in file_names(dir)? {
        let path = dir.join(&name);
        if doomed(&name) {
            let size = std::fs::symlink_metadata(&path).map_or(0, |m| m.len());
            std::fs::remove_file(&path).wrap(|| format!("remove {}", path.display()))?;
            collected.files += 1;
            collected.bytes += size;
        }
    }
    Ok(())
}
