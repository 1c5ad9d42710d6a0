//! A container's directory: what was asked for, and the facts that its keepers add.
//!
//! ```text
//! STATE/names/NAME        symbolic link to ID: made atomically, so names are unique
//! STATE/ID/container.json what was asked for; written once, before the directory appears
//!          lock           flock(2)ed by the reaper for as long as it lives
//!          reaper monitor init     "PID STARTTIME BOOTID" of each process
//!          started        its time of change is when the container was started
//!          exit           the exit code (see exit.rs)
//!          lost           how much of the log could not be written (see log/)
//!          error          what went wrong after the start, one line
//!          log attach bundle/
//! ```
//!
//! Nothing here is trusted when a status is asked for: it follows from the lock, which the
//! kernel releases whatever kills its holder, from the exit file, and from processes that
//! are identified by start time and boot, never by a bare pid.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::{exit, id, process};

/// What was asked for, as `container.json` holds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// 64 hex digits.
    pub id: String,
    /// Unique among the containers of one state directory.
    pub name: String,
    /// The image that the bundle was made from, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The bundle that the user named, if any, absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<PathBuf>,
    /// The bundle given to the runtime, absolute: `origin`, or one of the container's own.
    pub bundle: PathBuf,
    /// The process's arguments.
    pub command: Vec<String>,
    /// RFC 3339, UTC.
    pub created: jiff::Timestamp,
    /// The container has a terminal.
    pub tty: bool,
    /// The container's stdin is open.
    pub stdin: bool,
    /// Removed when it ends.
    pub remove: bool,
    /// The log file, or none.
    pub log: Option<PathBuf>,
    /// The runtime's executable, absolute.
    pub runtime: PathBuf,
    /// Arguments before the runtime's verb.
    pub runtime_args: Vec<String>,
    /// Seconds that one call of the runtime may take.
    pub runtime_timeout: u64,
    /// imgtool's executable (image bundles only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imgtool: Option<PathBuf>,
}

/// One container of a state directory.
#[derive(Debug, Clone)]
pub struct Container {
    /// The directory of all containers.
    pub root: PathBuf,
    /// What was asked for.
    pub config: Config,
}

/// What a container is doing, derived and never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Its reaper lives and has not yet started it.
    Created,
    /// Its process runs under its reaper.
    Running,
    /// Its process runs, but its reaper was killed: the exit code may get lost.
    Orphaned,
    /// It has ended with this code.
    Exited(u8),
    /// It is gone and nobody saw how (a reboot, or its reaper was killed first).
    Lost,
}

/// The lock of a container, held while this lives; inherited by the reaper.
#[derive(Debug)]
pub struct Lock(pub File);

const CONFIG: &str = "container.json";
const LOCK: &str = "lock";

impl Container {
    /// Makes the container's directory and name, and returns it locked. The directory
    /// appears at once and complete.
    ///
    /// # Errors
    /// When the name is in use, or the file system fails; then nothing is left.
    pub fn create(root: &Path, config: Config) -> Result<(Self, Lock)> {
        let names = root.join("names");
        make_dir(&names).wrap_with(|| format!("make {}", names.display()))?;
        // One at a time: whoever holds this is the only one with a hidden directory, or
        // with a name whose directory does not exist yet.
        let guard = File::open(&names).wrap_with(|| format!("open {}", names.display()))?;
        rustix::fs::flock(&guard, FlockOperation::LockExclusive)
            .wrap_with(|| format!("lock {}", names.display()))?;
        sweep(root);
        let hidden = root.join(format!(".new-{}", config.id));
        let container = Self { root: root.to_owned(), config };
        let made = container.fill(&hidden).and_then(|lock| {
            container.claim_name()?;
            std::fs::rename(&hidden, container.dir()).wrap("rename the new directory")?;
            Ok(lock)
        });
        match made {
            Ok(lock) => Ok((container, lock)),
            Err(error) => {
                container.release_name();
                let _ = std::fs::remove_dir_all(&hidden);
                Err(error)
            }
        }
    }

    fn fill(&self, dir: &Path) -> Result<Lock> {
        let made = std::fs::DirBuilder::new().mode(0o700).create(dir);
        made.wrap_with(|| format!("make {}", dir.display()))?;
        let json = serde_json::to_vec_pretty(&self.config)?;
        write_atomically(&dir.join(CONFIG), &json)?;
        let lock = lock_file(&dir.join(LOCK), true)?;
        lock.ok_or_else(|| Error::new(format!("lock {}: held by somebody", dir.display())))
    }

    /// Writes `container.json` again, after the bundle was made. The caller holds the lock.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save(&self) -> Result<()> {
        let json = serde_json::to_vec_pretty(&self.config)?;
        write_atomically(&self.dir().join(CONFIG), &json)
    }

    fn claim_name(&self) -> Result<()> {
        let link = self.root.join("names").join(&self.config.name);
        if let Ok(owner) = std::fs::read_link(&link) {
            if self.root.join(&owner).exists() {
                return Err(self.name_in_use(&owner.to_string_lossy()));
            }
            // What a crash between two steps leaves.
            std::fs::remove_file(&link).wrap_with(|| format!("remove {}", link.display()))?;
        }
        std::os::unix::fs::symlink(&self.config.id, &link)
            .wrap_with(|| format!("make {}", link.display()))
    }

    fn name_in_use(&self, owner: &str) -> Error {
        let name = &self.config.name;
        Error::new(format!(
            "container name {name:?} is in use by {}: remove that one (shim rm {name}) or choose another --name",
            id::short(owner)
        ))
    }

    fn release_name(&self) {
        release_name(&self.root, &self.config.name, &self.config.id);
    }

    /// The container's own directory.
    pub fn dir(&self) -> PathBuf {
        self.root.join(&self.config.id)
    }

    /// Reads the container in `root/id`.
    ///
    /// # Errors
    /// When the directory or its `container.json` is missing or damaged.
    pub fn load(root: &Path, id: &str) -> Result<Self> {
        let path = root.join(id).join(CONFIG);
        let bytes = std::fs::read(&path).wrap_with(|| format!("read {}", path.display()))?;
        let config =
            serde_json::from_slice(&bytes).wrap_with(|| format!("parse {}", path.display()))?;
        Ok(Self { root: root.to_owned(), config })
    }

    /// Finds a container by name, id, or a prefix of its id that no other shares.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn find(root: &Path, wanted: &str) -> Result<Self> {
        if id::check_name(wanted).is_ok()
            && let Ok(id) = std::fs::read_link(root.join("names").join(wanted))
            && root.join(&id).exists()
        {
            return Self::load(root, &id.to_string_lossy());
        }
        let mut matches = ids(root)?;
        matches.retain(|id| id::is_hex(wanted) && id.starts_with(wanted));
        match matches.as_slice() {
            [one] => Self::load(root, one),
            [] => Err(Error::new(format!(
                "no container {wanted:?} in {} (shim ps -a lists them)",
                root.display()
            ))),
            several => Err(Error::new(format!(
                "{wanted:?} is the beginning of {} ids: type more of it",
                several.len()
            ))),
        }
    }

    /// Takes the lock, waiting for at most `patience`. `None`: somebody holds it still.
    ///
    /// # Errors
    /// When the container was removed meanwhile.
    pub fn lock(&self, patience: Duration) -> Result<Option<Lock>> {
        let path = self.dir().join(LOCK);
        let end = Instant::now() + patience;
        loop {
            let lock =
                lock_file(&path, false).wrap_with(|| format!("container {}", self.config.name))?;
            if lock.is_some() || Instant::now() >= end {
                return Ok(lock);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What the container is doing now.
    pub fn status(&self) -> Status {
        let dir = self.dir();
        let exited = || exit::read(&dir).ok().flatten().map(|(code, _)| code);
        if let Some(code) = exited() {
            return Status::Exited(code);
        }
        if is_locked(&dir.join(LOCK)) {
            return match dir.join("started").exists() {
                true => Status::Running,
                false => Status::Created,
            };
        }
        // The reaper is gone: the code may have been written since we looked.
        match (exited(), process::Recorded::read(&dir.join("init"))) {
            (Some(code), _) => Status::Exited(code),
            (None, Some(init)) if init.open().is_some() => Status::Orphaned,
            (None, _) => Status::Lost,
        }
    }

    /// When the container was last started.
    pub fn started(&self) -> Option<SystemTime> {
        let started = std::fs::metadata(self.dir().join("started"));
        started.and_then(|meta| meta.modified()).ok()
    }

    /// The last thing that went wrong outside the container's process.
    pub fn trouble(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.dir().join("error")).ok()?;
        Some(text.trim_end().to_owned())
    }
}

/// The ids of all containers in `root`, sorted; none when `root` does not exist.
///
/// # Errors
/// When the directory cannot be read.
pub fn ids(root: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::from(error).wrap(format!("read {}", root.display()))),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry.wrap_with(|| format!("read {}", root.display()))?;
        ids.extend(name.file_name().into_string().ok().filter(|n| id::is_id(n)));
    }
    ids.sort();
    Ok(ids)
}

/// Removes a container's directory and name. Idempotent; the caller holds its lock.
///
/// # Errors
/// Those of the file system.
pub fn remove_dir(root: &Path, id: &str) -> io::Result<()> {
    let dir = root.join(id);
    let names = std::fs::read_dir(root.join("names"));
    for entry in names.into_iter().flatten().flatten() {
        release_name(root, &entry.file_name().to_string_lossy(), id);
    }
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Removes what a `run` that was killed between its first two steps has left.
fn sweep(root: &Path) {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let hidden = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".new-"));
    for entry in hidden {
        // Best effort: it is invisible, and the next `run` tries again.
        let _ = std::fs::remove_dir_all(entry.path());
    }
}

/// Writes a small file so that readers see the old or the new text, and never half of it.
///
/// # Errors
/// Those of the file system, with the path.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let next = path.with_extension("next");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&next)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&next, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&next);
        Error::from(error).wrap(format!("write {}", path.display()))
    })
}

/// Makes a directory for this user alone, with its parents.
///
/// # Errors
/// Those of mkdir(2).
pub fn make_dir(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path)
}

/// Opens and locks; `None` when another open file holds the lock.
fn lock_file(path: &Path, create: bool) -> Result<Option<Lock>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .mode(0o600)
        .open(path)
        .wrap_with(|| format!("open {}", path.display()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::AGAIN) => return Ok(None),
        Err(errno) => return Err(Error::from(errno).wrap(format!("lock {}", path.display()))),
    }
    // A lock on a file that was unlinked while we opened it protects nothing.
    let same = |meta: std::fs::Metadata| file.metadata().is_ok_and(|ours| ours.ino() == meta.ino());
    if !std::fs::metadata(path).is_ok_and(same) {
        return Err(Error::new("it was removed just now"));
    }
    Ok(Some(Lock(file)))
}

fn release_name(root: &Path, name: &str, id: &str) {
    let link = root.join("names").join(name);
    if std::fs::read_link(&link).is_ok_and(|owner| owner == Path::new(id)) {
        let _ = std::fs::remove_file(link);
    }
}

/// Whether somebody holds the lock. Asks with a shared lock, so that two who ask at the
/// same time do not take each other for the holder.
fn is_locked(path: &Path) -> bool {
    let probe = FlockOperation::NonBlockingLockShared;
    let is_refused = |file| rustix::fs::flock(&file, probe) == Err(rustix::io::Errno::AGAIN);
    File::open(path).is_ok_and(|file: File| is_refused(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str) -> Config {
        Config {
            id: id::random().unwrap(),
            name: name.into(),
            image: None,
            origin: None,
            bundle: "/b".into(),
            command: vec!["sh".into()],
            created: jiff::Timestamp::now(),
            tty: false,
            stdin: false,
            remove: false,
            log: None,
            runtime: "/bin/false".into(),
            runtime_args: vec![],
            runtime_timeout: 1,
            imgtool: None,
        }
    }

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("shim-{name}-{}", std::process::id()))
    }

    #[test]
    fn names_are_unique_prefixes_are_found_and_statuses_derived() {
        let root = scratch("container");
        let (first, lock) = Container::create(&root, config("web")).unwrap();
        let error = Container::create(&root, config("web")).unwrap_err();
        assert!(error.to_string().contains("in use by"), "{error}");
        assert_eq!(ids(&root).unwrap().len(), 1);
        assert_eq!(first.status(), Status::Created);
        assert!(first.lock(Duration::ZERO).unwrap().is_none());

        let id = &first.config.id;
        for wanted in ["web", id, &id[..7]] {
            assert_eq!(&Container::find(&root, wanted).unwrap().config.id, id);
        }
        assert!(Container::find(&root, "nope").is_err());
        drop(lock);
        assert_eq!(first.status(), Status::Lost);
        exit::record(&first.dir(), 7).unwrap();
        assert_eq!(first.status(), Status::Exited(7));
        remove_dir(&root, id).unwrap();
        remove_dir(&root, id).unwrap();
        assert!(Container::find(&root, "web").is_err());
        Container::create(&root, config("web")).unwrap();
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_name_left_by_a_crash_is_taken_over() {
        let root = scratch("crash");
        make_dir(&root.join("names")).unwrap();
        make_dir(&root.join(".new-0/bundle")).unwrap();
        std::os::unix::fs::symlink("0".repeat(64), root.join("names/web")).unwrap();
        Container::create(&root, config("web")).unwrap();
        assert!(!root.join(".new-0").exists());
        std::fs::remove_dir_all(&root).unwrap();
    }
}
