//! Files that appear whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FlockOperation;

use crate::{Context, Error, Result};

/// A locked temporary file; removed when dropped, unless it was moved into place.
#[derive(Debug)]
pub(super) struct Temp {
    pub(super) file: File,
    path: PathBuf,
    kept: bool,
}

impl Temp {
    /// Creates a file in `dir` and locks it, so that gc knows a living one from a leftover.
    pub(super) fn create(dir: &Path) -> Result<Temp> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!("{}-{n}", std::process::id()));
            match OpenOptions::new().write(true).read(true).create_new(true).mode(0o644).open(&path)
            {
                Ok(file) => {
                    let temp = Temp { file, path, kept: false };
                    rustix::fs::flock(&temp.file, FlockOperation::LockExclusive)
                        .wrap(|| format!("lock {}", temp.path.display()))?;
                    return Ok(temp);
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(Error::from(e).wrap(format!("create {}", path.display()))),
            }
        }
    }

    /// Opens the file of this name in `dir`, or creates it, and locks it; `None` if somebody else
    /// has. The caller has the store to itself or shared, so nobody removes it meanwhile.
    pub(super) fn take_up(dir: &Path, name: &str) -> Result<Option<Temp>> {
        let path = dir.join(name);
        let context = || format!("open {}", path.display());
        let file = OpenOptions::new()
            .write(true)
            .read(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .wrap(context)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(Error::from(e).wrap(format!("lock {}", path.display()))),
        }
        // Whoever had it may have finished, and moved it away, before we had the lock.
        let ours = file.metadata().wrap(context)?;
        let is_there = std::fs::symlink_metadata(&path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        Ok(is_there.then_some(Temp { file, path, kept: false }))
    }

    /// Leaves the file where it is, and unlocks it.
    pub(super) fn leave(mut self) {
        self.kept = true;
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the file, moves it to `target` and syncs the directory.
    pub(super) fn persist(mut self, target: &Path) -> Result<()> {
        self.file.sync_all().wrap(|| format!("sync {}", self.path.display()))?;
        std::fs::rename(&self.path, target)
            .wrap(|| format!("rename {} to {}", self.path.display(), target.display()))?;
        self.kept = true;
        sync_dir(target.parent().unwrap_or(Path::new("/")))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.kept {
            // Nobody to tell: gc removes what could not be removed here.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Replaces `target` by these bytes: all or nothing.
pub(super) fn write_atomic(tmp: &Path, target: &Path, bytes: &[u8]) -> Result<()> {
    let mut temp = Temp::create(tmp)?;
    temp.file.write_all(bytes).wrap(|| format!("write {}", target.display()))?;
    temp.persist(target)
}

/// `mkdir -p` with mode 0700.
pub(super) fn make_dir(dir: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .wrap(|| format!("create directory {}", dir.display()))
}

/// Opens a lock file, creating it if missing. Anyone who can read it can lock it.
pub(super) fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path)
        .wrap(|| format!("open {}", path.display()))
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).wrap(|| format!("sync {}", dir.display()))
}
