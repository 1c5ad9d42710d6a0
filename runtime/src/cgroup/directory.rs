//! Groups as the directories that they are: made, entered, read and removed.

use crate::error::{Context, Error, Result};
use crate::sys::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Makes the group `name`, which may be there, below an open one.
pub(super) fn make_below(directory: &OwnedFd, name: &Path) -> Result<OwnedFd> {
    match fs::mkdirat(directory, name, 0o755) {
        Err(e) if e.errno() != Some(libc::EEXIST) => Err(e),
        _ => open_directory(directory, name),
    }
}

/// Moves a process into a group.
pub(super) fn put(directory: &OwnedFd, pid: i32) -> Result<()> {
    let file = fs::openat(directory, Path::new("cgroup.procs"), libc::O_WRONLY, 0)?;
    fs::write_once(&file, pid.to_string().as_bytes())
        .wrap(|| format!("move process {pid} into its cgroup"))
}

pub(super) fn open_directory(at: impl AsFd, name: &Path) -> Result<OwnedFd> {
    fs::openat(at, name, libc::O_DIRECTORY | libc::O_PATH, 0)
}

/// A group that already has processes belongs to somebody else.
pub(super) fn refuse_occupied(path: &Path) -> Result<()> {
    let mut pids = Vec::new();
    collect(path, &mut pids)?;
    if pids.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!(
        "cgroup {} is in use by processes {pids:?}; choose another linux.cgroupsPath or container id",
        path.display()
    )))
}

/// Hands every controller of a v2 directory on to those below it.
///
/// A failure shows later, by name, if a limit needs the controller (its file is then missing).
pub(super) fn enable_controllers(directory: BorrowedFd<'_>) {
    let Ok(file) = fs::openat(directory, Path::new("cgroup.controllers"), libc::O_RDONLY, 0) else {
        return;
    };
    let mut buffer = [0u8; 512];
    let n = fs::read(&file, &mut buffer).unwrap_or(0);
    let all = String::from_utf8_lossy(&buffer[..n]).into_owned();
    let Ok(control) = fs::openat(directory, Path::new("cgroup.subtree_control"), libc::O_RDWR, 0)
    else {
        return;
    };
    let n = fs::read(&control, &mut buffer).unwrap_or(0);
    let enabled = String::from_utf8_lossy(&buffer[..n]).into_owned();
    let enabled: Vec<&str> = enabled.split_whitespace().collect();
    for controller in all.split_whitespace().filter(|c| !enabled.contains(c)) {
        // One by one: one controller that cannot be enabled must not hold back the others.
        if fs::write_once(&control, format!("+{controller}").as_bytes()).is_err() {
            continue;
        }
    }
}

/// The files of a v1 cpuset without which nothing can enter it.
const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// A new v1 cpuset has neither CPUs nor memory nodes, and nothing can enter it before it has.
pub(super) fn inherit_cpuset(parent: BorrowedFd<'_>, child: BorrowedFd<'_>) -> Result<()> {
    CPUSET.iter().try_for_each(|name| {
        let value = complete(parent, name)?;
        hand_down(child, name, &value)
    })
}

/// Gives a v1 cpuset what it lacks if whoever made it was killed before, or has not come to it yet.
pub(super) fn complete_cpuset(directory: BorrowedFd<'_>) -> Result<()> {
    CPUSET.iter().try_for_each(|name| complete(directory, name).map(drop))
}

/// What the file says; one that is empty is filled from the group above first. That of the
/// hierarchy's root is never empty (cpuset(7)).
fn complete(directory: BorrowedFd<'_>, name: &str) -> Result<Vec<u8>> {
    let mut buffer = [0u8; 4096];
    let file = fs::openat(directory, Path::new(name), libc::O_RDONLY, 0)?;
    let n = fs::read(&file, &mut buffer)?;
    let value = buffer[..n].trim_ascii_end();
    if !value.is_empty() {
        return Ok(value.to_vec());
    }
    let above = open_directory(directory, Path::new(".."))?;
    let value = complete(above.as_fd(), name)?;
    hand_down(directory, name, &value)?;
    Ok(value)
}

fn hand_down(directory: BorrowedFd<'_>, name: &str, value: &[u8]) -> Result<()> {
    let file = fs::openat(directory, Path::new(name), libc::O_WRONLY, 0)?;
    fs::write_once(&file, value).wrap(|| format!("hand {name} down to the container's cgroup"))
}

/// Reads `cgroup.procs` of a directory and of all directories below it.
pub(super) fn collect(path: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let file = path.join("cgroup.procs");
    match std::fs::read_to_string(&file) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => return Ok(()),
        // A threaded v2 group lists its processes in the domain above it.
        Err(e) if e.raw_os_error() == Some(libc::ENOTSUP) => {}
        Err(e) => return Err(e).wrap(|| format!("read {}", file.display())),
    }
    for below in subdirectories(path)? {
        collect(&below, pids)?;
    }
    Ok(())
}

/// The names of a directory's files.
pub(super) fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).collect()
}

/// The groups below a group; none if it is gone.
fn subdirectories(path: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
        Ok(found)
    };
    match read() {
        Err(e) if e.kind() == std::io::ErrorKind::Interrupted => subdirectories(path),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(Vec::new()),
        other => other.wrap(|| format!("read {}", path.display())),
    }
}

/// Removes a group and those below it. A group that has only just become empty may still be busy.
pub(super) fn remove_tree(path: &Path, deadline: Instant) -> Result<()> {
    loop {
        match std::fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                for below in subdirectories(path)? {
                    remove_tree(&below, deadline)?;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) => return Err(e).wrap(|| format!("remove cgroup {}", path.display())),
        }
    }
}
