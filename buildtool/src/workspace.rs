//! The directory in which one build works, and what dead builds left of theirs.
//!
//! `STORE/davit/builds/<id>/` holds the `lock` that its builder keeps, mount points, the upper
//! directories of RUN, the runtime's state. Its containers are in cgroups called
//! `davit-build-<id>-<n>`. Whoever can take the lock of such a directory knows that its builder
//! is gone, and that all its processes and mounts went with it (`sandbox`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use imgtool::store::Store;
use rustix::fs::{FlockOperation, flock};

use crate::cache::unique;
use crate::error::{Context, Result};

/// The working directory of this build; removed when dropped.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
    id: String,
    count: AtomicU32,
    _lock: File,
}

impl Workspace {
    /// Creates a working directory in `store`, after removing those of dead builds.
    pub fn create(store: &Store) -> Result<Self> {
        let builds = store.private_dir("builds")?;
        let door =
            File::create(builds.join(".lock")).wrap(|| format!("lock {}", builds.display()))?;
        flock(&door, FlockOperation::LockExclusive)
            .wrap(|| format!("lock {}", builds.display()))?;
        reap(&builds)?;
        let id = unique()[..12].to_owned();
        let path = builds.join(&id);
        let what = || format!("create {}", path.display());
        fs::create_dir(&path).wrap(what)?;
        let lock = File::create(path.join("lock")).wrap(what)?;
        flock(&lock, FlockOperation::LockExclusive).wrap(what)?;
        Ok(Self { path, id, count: AtomicU32::new(0), _lock: lock })
    }

    /// A new directory with a name of its own.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(format!("{name}-{}", self.number()));
        fs::create_dir(&path).wrap(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// The runtime's state directory.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// A name for a container and its cgroup.
    pub fn container(&self) -> String {
        format!("{}{}", prefix(&self.id), self.number())
    }

    fn number(&self) -> u32 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        remove(&self.path, &self.id);
    }
}

fn prefix(id: &str) -> String {
    format!("davit-build-{id}-")
}

/// Removes what dead builds left.
fn reap(builds: &Path) -> Result<()> {
    let what = || format!("look for dead builds in {}", builds.display());
    for entry in fs::read_dir(builds).wrap(what)? {
        let path = entry.wrap(what)?.path();
        let Some(id) = path.file_name().and_then(|name| name.to_str()).filter(|_| path.is_dir())
        else {
            continue;
        };
        let dead = match File::open(path.join("lock")) {
            Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
            // Its builder died between creating the directory and the lock.
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if dead {
            remove(&path, id);
        }
    }
    Ok(())
}

/// Removes a build's cgroups and directory. What can not be removed now stays for the next build.
fn remove(path: &Path, id: &str) {
    for hierarchy in cgroup_roots() {
        let Ok(entries) = fs::read_dir(&hierarchy) else { continue };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix(id)) {
                remove_cgroup(&entry.path());
            }
        }
    }
    let _ = fs::remove_dir_all(path);
}

/// Removes a cgroup and those below it. The processes were killed, and may take a moment to go.
fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    for _ in 0..100 {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            _ => return,
        }
    }
}

/// Where cgroup hierarchies are mounted (proc_pid_mountinfo(5)).
fn cgroup_roots() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let root = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let kind = right.split(' ').next()?;
        let cgroup = kind == "cgroup" || kind == "cgroup2";
        cgroup.then(|| left.split(' ').nth(4).map(PathBuf::from))?
    };
    mounts.lines().filter_map(root).collect()
}
