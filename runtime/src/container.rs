//! The state directory: what outlives the runtime's own process.
//!
//! `ROOT/ID/` holds `state.json`, the bundle's `config.json` as it was at create, and two FIFOs
//! while the container waits for its start. Mutating verbs hold an exclusive lock on the directory.
//! Files are replaced by rename, so that a reader sees the old or the new one. ROOT is expected on
//! a tmpfs and to be gone after a reboot, so nothing is synchronised to a disk.
//!
//! How its name is taken and given back: `directory.rs`.
//!
//! The status is never stored: it follows from whether the recorded process lives. A pid alone may
//! be another process's by now, so the start time (proc_pid_stat(5), field 22) is compared too.

use crate::cgroup::driver::Driver;
use crate::cgroup::{Cgroup, Place};
use crate::directory::{self, STATE};
use crate::error::{self, Context, Error, Result};
use crate::plan::namespaces::Kind;
use crate::root_mount::RootMount;
use crate::sys::fs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The layout of `state.json`. It grows by properties that may be missing, so that every older
/// layout can be read: a runtime that is replaced keeps its containers. A newer one is refused, not
/// guessed at.
///
/// | version | what came with it |
/// |---|---|
/// | 1 | |
/// | 2 | `cgroup_driver`; before, the cgroup file systems were the only one |
/// | 3 | `root_mount`; before, every container had a mount namespace of its own, or no mount |
pub const VERSION: u32 = 3;
/// Waits in it for one byte, that of `start`.
pub const START: &str = "start.fifo";
/// The same FIFO before `create` is done.
pub const PENDING: &str = ".start.fifo";
/// Is there once the deletion has begun.
const DELETING: &str = ".deleting";
/// How long `create` waits for another runtime to let go of the name, so that one that was just killed
/// is not taken for one that is at work.
const PATIENCE: Duration = Duration::from_secs(1);
/// Says in it why execve(2) failed; closed without a word when it succeeded.
pub const RESULT: &str = "result.fifo";

/// A container's name: letters, digits and `_+-.`, not `.` or `..`, at most 1024 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks a name given by a caller.
    pub fn new(id: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        if id.is_empty() || id.len() > 1024 || !id.chars().all(allowed) || matches!(id, "." | "..")
        {
            return Err(Error::new(format!(
                "invalid container ID {id:?}: use letters, digits and any of _ + - ."
            )));
        }
        Ok(Self(id.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Layout of this file.
    pub version: u32,
    /// `ociVersion` of the configuration.
    pub oci_version: String,
    /// The container's name.
    pub id: String,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The root file system, absolute.
    pub rootfs: PathBuf,
    /// When it was made, RFC 3339.
    pub created: String,
    /// User id of who made it.
    pub owner: u32,
    /// Annotations of the configuration.
    pub annotations: BTreeMap<String, String>,
    /// Pid of the first process on the host; 0 before it exists.
    pub pid: i32,
    /// Its start time in clock ticks since boot.
    pub start_time: u64,
    /// Control groups.
    pub cgroups: Vec<Place>,
    /// Who keeps them (since version 2).
    #[serde(default)]
    pub cgroup_driver: Driver,
    /// The namespaces in which the container is not with the host.
    pub namespaces: Vec<Kind>,
    /// Directories of the resctrl file system that go with the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resctrl: Vec<PathBuf>,
    /// The mount of the root file system, where that is in a mount namespace that others use (since
    /// version 3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_mount: Option<RootMount>,
    /// What the first process was given as stdin, stdout and stderr, as /proc/PID/fd tells it
    /// (proc_pid_fd(5)); nothing where it has a terminal of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stdio: Vec<String>,
}

/// What a container is doing (runtime.md, State).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` has not finished.
    Creating,
    /// It waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// The program is held by the freezer.
    Paused,
    /// The program has ended.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// An open state directory.
#[derive(Debug)]
pub struct Container {
    /// The directory.
    pub directory: OwnedFd,
    /// Its path.
    pub path: PathBuf,
    /// What `state.json` says.
    pub record: Record,
    root: PathBuf,
    locked: bool,
}

impl Container {
    /// Makes a locked state directory for a new container.
    ///
    /// # Errors
    /// The name is in use ([`error::Kind::Exists`]), or the directory cannot be made.
    pub fn create(root: &Path, id: &ContainerId, record: Record) -> Result<Self> {
        directory::make_root(root)?;
        let path = root.join(id.as_str());
        let Some(directory) = directory::take(&path)? else {
            return Err(Error::of(
                error::Kind::Exists,
                format!(
                    "container with given ID already exists: {id}; delete it first, or choose another name"
                ),
            ));
        };
        let container = Self { directory, path, record, root: root.into(), locked: true };
        match container.save() {
            Ok(()) => Ok(container),
            Err(error) => Err(error.undone(container.erase())),
        }
    }

    /// Opens the container `id`, without a lock.
    pub fn open(root: &Path, id: &ContainerId) -> Result<Self> {
        let (directory, path) = directory::find(root, id.as_str())?;
        let record = match Self::read(&directory, &path) {
            // Who has the lock is about to write it, or to remove the directory.
            Err(e) if e.kind() == error::Kind::Corrupt => {
                fs::flock(&directory, libc::LOCK_SH).wrap(|| "lock the container")?;
                fs::flock(&directory, libc::LOCK_UN)?;
                if directory::is_removed(&directory)? {
                    return Self::open(root, id);
                }
                Self::read(&directory, &path)?
            }
            other => other?,
        };
        Ok(Self { directory, path, record, root: root.into(), locked: false })
    }

    /// Opens the container and waits for its lock; what others changed meanwhile is seen.
    pub fn open_locked(root: &Path, id: &ContainerId) -> Result<Self> {
        let (directory, path) = directory::find_locked(root, id.as_str())?;
        let record = Self::read(&directory, &path)?;
        Ok(Self { directory, path, record, root: root.into(), locked: true })
    }

    /// Opens and locks the container whose name stands in the way of a new one, if it is a remnant: a
    /// runtime was killed while it made or deleted it. One that never had a state is removed at once.
    ///
    /// # Errors
    /// None for a container that is whole, or at which another runtime is at work: that is `Whole`.
    pub fn open_remnant(root: &Path, id: &ContainerId) -> Result<Remnant> {
        let deadline = Instant::now() + PATIENCE;
        let (directory, path) = loop {
            let found = match directory::find(root, id.as_str()) {
                Err(e) if e.kind() == error::Kind::NotFound => return Ok(Remnant::Gone),
                other => other?,
            };
            if fs::flock(&found.0, libc::LOCK_EX | libc::LOCK_NB).wrap(|| "lock the container")? {
                if !directory::is_removed(&found.0)? {
                    break found;
                }
            } else if Instant::now() > deadline {
                return Ok(Remnant::Whole);
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        if !fs::exists(&directory, Path::new(STATE))? {
            return match directory::is_ours(&path)? {
                true => directory::erase(root, &path).map(|()| Remnant::Gone),
                false => Ok(Remnant::Whole),
            };
        }
        let record = Self::read(&directory, &path)?;
        let container = Self { directory, path, record, root: root.into(), locked: true };
        Ok(if container.is_remnant()? {
            Remnant::Left(Box::new(container))
        } else {
            Remnant::Whole
        })
    }

    /// With the lock in our hands: did the runtime that had it leave the container half-made or
    /// half-deleted?
    fn is_remnant(&self) -> Result<bool> {
        let has = |name: &str| fs::exists(&self.directory, Path::new(name));
        if self.record.pid == 0 || has(PENDING)? || has(DELETING)? {
            return Ok(true);
        }
        // Its first process ended before any `start`, as it does when `create` is killed at its end.
        Ok(has(START)? && !self.alive()?)
    }

    /// Marks the container as one whose deletion has begun. The mark serves `create` alone, after a
    /// runtime that was killed: a file system that is full must not keep a container from being deleted.
    pub fn mark_for_deletion(&self) {
        drop(fs::mkfifoat(&self.directory, Path::new(DELETING), 0o600));
    }

    /// Has somebody else removed the container?
    pub fn is_removed(&self) -> Result<bool> {
        directory::is_removed(&self.directory)
    }

    fn read(directory: &OwnedFd, path: &Path) -> Result<Record> {
        let corrupt = |why: String| {
            Error::of(
                error::Kind::Corrupt,
                format!(
                    "{}: {why}; `delete --force` removes what is left of the container",
                    path.join("state.json").display()
                ),
            )
        };
        let file = match fs::openat(directory, Path::new(STATE), libc::O_RDONLY, 0) {
            Err(e) if e.errno() == Some(libc::ENOENT) => {
                return Err(corrupt("is missing: create or delete was interrupted".into()));
            }
            other => other?,
        };
        let mut text = Vec::new();
        std::fs::File::from(file)
            .read_to_end(&mut text)
            .wrap(|| format!("read {}", path.join("state.json").display()))?;
        decode(&text).map_err(|e| corrupt(e.to_string()))
    }

    /// Writes `state.json` anew.
    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.record).map_err(|e| Error::new(e.to_string()))?;
        self.write("state.json", &text)
    }

    /// Writes a file of the state directory, all or nothing.
    pub fn write(&self, name: &str, data: &[u8]) -> Result<()> {
        let temporary = format!(".{name}.new");
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
        let file = fs::openat(&self.directory, Path::new(&temporary), flags, 0o600)?;
        std::fs::File::from(file)
            .write_all(data)
            .wrap(|| format!("write {}", self.path.join(name).display()))?;
        fs::rename(&self.directory, Path::new(&temporary), Path::new(name))
    }

    /// The configuration that the container was made from.
    pub fn config(&self) -> Result<oci_spec::runtime::Spec> {
        let path = self.path.join("config.json");
        Ok(crate::plan::document::read(&path)?.0)
    }

    /// The container's control groups.
    pub fn cgroup(&self) -> Cgroup {
        Cgroup::recover(self.record.cgroups.clone(), self.record.cgroup_driver.clone())
    }

    /// What the container is doing now.
    pub fn status(&self) -> Result<Status> {
        if self.record.pid == 0 {
            let abandoned = self.locked || self.try_lock()?;
            return Ok(if abandoned { Status::Stopped } else { Status::Creating });
        }
        if !self.alive()? {
            return Ok(Status::Stopped);
        }
        for (fifo, status) in [(START, Status::Created), (PENDING, Status::Creating)] {
            if fs::exists(&self.directory, Path::new(fifo))? {
                return Ok(status);
            }
        }
        Ok(if self.cgroup().frozen()? { Status::Paused } else { Status::Running })
    }

    /// Lets others change the container.
    pub fn unlock(&mut self) -> Result<()> {
        self.locked = false;
        fs::flock(&self.directory, libc::LOCK_UN).map(drop)
    }

    fn try_lock(&self) -> Result<bool> {
        let free = fs::flock(&self.directory, libc::LOCK_EX | libc::LOCK_NB)?;
        if free {
            fs::flock(&self.directory, libc::LOCK_UN)?;
        }
        Ok(free)
    }

    /// Do the container's processes end with the first one? They do in a pid namespace of its own.
    pub fn ends_with_init(&self) -> bool {
        self.record.namespaces.contains(&Kind::Pid)
    }

    /// Does the recorded process live, and is it still that process?
    pub fn alive(&self) -> Result<bool> {
        Ok(start_time(self.record.pid)?.is_some_and(|time| time == self.record.start_time))
    }

    /// A descriptor of the first process that cannot come to mean another one; `None` if it ended.
    pub fn pidfd(&self) -> Result<Option<OwnedFd>> {
        match crate::sys::process::pidfd_open(self.record.pid) {
            // The look at the start time comes after the opening, so that it is the same process.
            Ok(fd) => Ok(self.alive()?.then_some(fd)),
            Err(e) if matches!(e.errno(), Some(libc::ESRCH | libc::EINVAL)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Takes away what the container has mounted where others are, too.
    pub fn unmount(&self) -> Result<()> {
        self.record.root_mount.iter().try_for_each(RootMount::remove)
    }

    /// Removes the state directory.
    pub fn erase(&self) -> Result<()> {
        directory::erase(&self.root, &self.path)
    }
}

/// What stands in the way of a new container of the same name.
pub enum Remnant {
    /// Nothing any more.
    Gone,
    /// What a dead runtime left, locked.
    Left(Box<Container>),
    /// A container, or another runtime that is making or deleting one.
    Whole,
}

/// Removes what is left of a container whose `state.json` makes no sense; `false` when it does by now.
///
/// # Errors
/// It is gone ([`error::Kind::NotFound`]), or cannot be removed.
pub fn erase_corrupt(root: &Path, id: &ContainerId) -> Result<bool> {
    let (directory, path) = directory::find_locked(root, id.as_str())?;
    match Container::read(&directory, &path) {
        Err(e) if e.kind() == error::Kind::Corrupt => directory::erase(root, &path).map(|()| true),
        other => other.map(|_| false),
    }
}

/// Reads `state.json` of this layout or an older one.
fn decode(text: &[u8]) -> Result<Record> {
    // The number first: a newer layout need not fit our properties.
    #[derive(Deserialize)]
    struct Layout {
        version: u32,
    }
    let layout: Layout = serde_json::from_slice(text).map_err(|e| Error::new(e.to_string()))?;
    if !(1..=VERSION).contains(&layout.version) {
        return Err(Error::new(format!(
            "has version {}, and this runtime knows up to {VERSION}: it was written by another one",
            layout.version
        )));
    }
    let record: Record = serde_json::from_slice(text).map_err(|e| Error::new(e.to_string()))?;
    // What is saved again is saved in our layout.
    Ok(Record { version: VERSION, ..record })
}

/// The names of all containers below `root`, sorted.
pub fn all(root: &Path) -> Result<Vec<ContainerId>> {
    let entries = match std::fs::read_dir(root) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.wrap(|| format!("read {}", root.display()))?,
    };
    let mut ids: Vec<ContainerId> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .filter_map(|entry| ContainerId::new(entry.file_name().to_str()?).ok())
        .collect();
    ids.sort();
    Ok(ids)
}

/// When the process began, in clock ticks since boot; `None` if it is gone or a zombie.
///
/// What cannot be read is an error, never "gone": a container would be taken for stopped.
pub fn start_time(pid: i32) -> Result<Option<u64>> {
    let mut buffer = [0u8; 1024];
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let read = fs::openat(fs::CWD, &path, libc::O_RDONLY, 0)
        .and_then(|file| fs::read(file.as_fd(), &mut buffer));
    match read {
        Ok(n) => Ok(parse_stat(&String::from_utf8_lossy(&buffer[..n]))),
        Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        Err(e) => Err(e.wrap(format!("look at process {pid}"))),
    }
}

/// The command may contain spaces and parentheses, so fields are counted from its end.
fn parse_stat(text: &str) -> Option<u64> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" | "x" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_be_paths() {
        for bad in ["", ".", "..", "a/b", "a b", "\u{e9}", &"x".repeat(1025)] {
            assert!(ContainerId::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(ContainerId::new("a_B+1-.").unwrap().as_str(), "a_B+1-.");
    }

    #[test]
    fn the_start_time_is_found_behind_any_command() {
        let stat = "7 (a) Z 1) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(parse_stat(stat), Some(4242));
        assert_eq!(parse_stat("7 (a) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"), None);
    }

    #[test]
    fn older_states_are_read_and_newer_ones_refused() {
        let first = br#"{"version":1,"oci_version":"1.0.0","id":"c","bundle":"/b","rootfs":"/b/r",
            "created":"","owner":0,"annotations":{},"pid":7,"start_time":8,"cgroups":[],
            "namespaces":["pid"]}"#;
        let record = decode(first).unwrap();
        assert_eq!((record.version, record.pid), (VERSION, 7));
        assert_eq!(record.cgroup_driver, Driver::Cgroupfs);
        let newer = br#"{"version":99,"else":1}"#;
        assert!(decode(newer).unwrap_err().to_string().contains("version 99"));
    }

    #[test]
    fn we_have_a_start_time() {
        assert!(start_time(std::process::id() as i32).unwrap().is_some());
    }
}
