//! Being told when the kernel kills a process because the container's memory is used up.

use super::Cgroup;
use crate::error::{Context, Error, Result};
use crate::sys::{event, fs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Who tells.
#[derive(Debug)]
pub enum OomWatch {
    /// v1: an eventfd that the kernel counts up (kernel's cgroup-v1/memory.rst, section 10).
    Counter {
        /// The eventfd.
        counter: OwnedFd,
        /// A file of the group: the kernel counts up at the end of the group, too.
        witness: PathBuf,
    },
    /// v2: `memory.events`, whose changes inotify reports, with the kills seen so far.
    File {
        /// The inotify descriptor.
        changes: OwnedFd,
        /// The file.
        path: PathBuf,
        /// `oom_kill` when last looked at.
        seen: u64,
    },
}

impl OomWatch {
    /// Begins to watch; the groups' directories are open.
    ///
    /// # Errors
    /// The memory controller is in none of the groups.
    pub fn new(cgroup: &Cgroup) -> Result<Self> {
        let lacking = || Error::new("the container has no memory cgroup, which tells of OOM kills");
        let (place, directory) = cgroup.holder("memory").ok_or_else(lacking)?;
        if place.unified {
            let path = place.path.join("memory.events");
            let changes = event::watch(&path).map_err(|e| match e.errno() {
                Some(libc::ENOENT) => lacking(),
                _ => e,
            })?;
            let seen = kills(&path).unwrap_or(0);
            return Ok(Self::File { changes, path, seen });
        }
        let counter = event::eventfd()?;
        let file = fs::openat(directory, Path::new("memory.oom_control"), libc::O_RDONLY, 0)?;
        let control = fs::openat(directory, Path::new("cgroup.event_control"), libc::O_WRONLY, 0)?;
        let line = format!("{} {}", counter.as_raw_fd(), file.as_raw_fd());
        fs::write_once(&control, line.as_bytes()).wrap(|| "ask for OOM events")?;
        Ok(Self::Counter { counter, witness: place.path.join("memory.oom_control") })
    }

    /// Is readable when [`Self::happened`] is to be asked.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Counter { counter, .. } => counter.as_fd(),
            Self::File { changes, .. } => changes.as_fd(),
        }
    }

    /// Was anything killed since the last question?
    pub fn happened(&mut self) -> bool {
        let mut buffer = [0u8; 4096];
        let news = fs::read(self.descriptor(), &mut buffer).is_ok();
        match self {
            Self::Counter { witness, .. } => news && witness.exists(),
            // Asked even without news, which may be late; no file means that the group is gone.
            Self::File { path, seen, .. } => {
                let now = kills(path).unwrap_or(*seen);
                std::mem::replace(seen, now) < now
            }
        }
    }
}

fn kills(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.parse().ok()
}
