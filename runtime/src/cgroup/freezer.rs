//! Stopping the processes of the groups where they are: `freezer.state` of v1, `cgroup.freeze` of
//! v2, which of the two there is.

use super::Cgroup;
use crate::error::{Context, Error, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

impl Cgroup {
    /// Stops every process in the groups until [`Self::thaw`].
    pub fn freeze(&self) -> Result<()> {
        match self.freezer() {
            Some((directory, true)) => freeze_unified(&directory),
            Some((directory, false)) => freeze_legacy(&directory),
            None => Err(Error::new("the container has no freezer cgroup, so it cannot be paused")),
        }
    }

    /// Lets frozen processes run again.
    pub fn thaw(&self) -> Result<()> {
        let Some((directory, unified)) = self.freezer() else { return Ok(()) };
        let (file, word) =
            if unified { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
        match write(&directory.join(file), word) {
            // It is gone, and its processes with it: systemd removes a scope that has become empty.
            Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
            other => other,
        }
    }

    /// Are the processes stopped by the freezer? Those of a group that is gone are not.
    pub fn frozen(&self) -> Result<bool> {
        let Some((directory, unified)) = self.freezer() else { return Ok(false) };
        let path = directory.join(if unified { "cgroup.freeze" } else { "freezer.state" });
        let state = match std::fs::read_to_string(&path) {
            // A v2 group has the file from Linux 5.2 on.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {
                return Ok(false);
            }
            other => other.wrap(|| format!("read {}", path.display()))?,
        };
        Ok(if unified { state.trim() == "1" } else { !matches!(state.trim(), "THAWED" | "") })
    }

    /// The group by which the processes are frozen, and whether it is one of v2.
    pub fn freezer(&self) -> Option<(PathBuf, bool)> {
        let places = || self.places.iter().map(|(p, _)| p);
        let legacy = places().find(|p| !p.unified && p.has("freezer"));
        legacy.or_else(|| places().find(|p| p.unified)).map(|p| (p.path.clone(), p.unified))
    }
}

fn write(path: &Path, word: &str) -> Result<()> {
    std::fs::write(path, word).wrap(|| format!("write {word} to {}", path.display()))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).wrap(|| format!("read {}", path.display()))
}

fn freeze_legacy(directory: &Path) -> Result<()> {
    let path = directory.join("freezer.state");
    // Written each time: a process that was just being born is caught by the next word.
    wait(&path, "FROZEN", "THAWED", || {
        write(&path, "FROZEN")?;
        Ok(read(&path)?.trim() == "FROZEN")
    })
}

fn freeze_unified(directory: &Path) -> Result<()> {
    let path = directory.join("cgroup.freeze");
    let events = directory.join("cgroup.events");
    wait(&path, "1", "0", || Ok(read(&events)?.lines().any(|line| line == "frozen 1")))
}

/// Writes `on` and waits until all processes stand still; where they do not, they run on.
fn wait(path: &Path, on: &str, off: &str, still: impl Fn() -> Result<bool>) -> Result<()> {
    write(path, on)?;
    let mut tries = 0;
    let error = loop {
        match still() {
            Ok(true) => return Ok(()),
            Ok(false) if tries < 1000 => tries += 1,
            Ok(false) => break Error::new(format!("{} does not take hold", path.display())),
            Err(error) => break error,
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    write(path, off)?;
    Err(error.wrap("the container runs on"))
}
