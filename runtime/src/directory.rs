//! State directories: how a container's name is taken, found, locked and given back.
//!
//! Who makes or removes a directory holds its lock, and looks then whether it still has a name: one
//! that was removed meanwhile has no links left, and whatever has its name by now is another's. So no
//! lock of all containers is needed.

use crate::error::{self, Context, Error, Result};
use crate::sys::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The file that a directory has as soon as it is somebody's.
pub const STATE: &str = "state.json";

/// Opens a state directory.
pub fn open_directory(path: &Path) -> Result<OwnedFd> {
    fs::openat(fs::CWD, path, libc::O_RDONLY | libc::O_DIRECTORY, 0)
}

/// The open state directory and its path.
pub fn find(root: &Path, id: &str) -> Result<(OwnedFd, PathBuf)> {
    let path = root.join(id);
    match open_directory(&path) {
        Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ENOTDIR)) => Err(Error::of(
            error::Kind::NotFound,
            format!("container does not exist: {id} is not below {}", root.display()),
        )),
        other => Ok((other.wrap(|| "open the state directory")?, path)),
    }
}

/// As [`find`], with the lock, and still with its name: it may have been deleted, and even made anew,
/// while we waited.
pub fn find_locked(root: &Path, id: &str) -> Result<(OwnedFd, PathBuf)> {
    loop {
        let found = find(root, id)?;
        fs::flock(&found.0, libc::LOCK_EX).wrap(|| "lock the container")?;
        if !is_removed(&found.0)? {
            return Ok(found);
        }
    }
}

/// A removed directory has no links (rmdir(2)).
pub fn is_removed(directory: &OwnedFd) -> Result<bool> {
    Ok(fs::fstat(directory)?.st_nlink == 0)
}

/// Makes a locked, empty state directory; `None` when the name is taken.
///
/// # Errors
/// It cannot be made; then nothing is left.
pub fn take(path: &Path) -> Result<Option<OwnedFd>> {
    loop {
        match fs::mkdirat(fs::CWD, path, 0o711) {
            Err(e) if e.errno() == Some(libc::EEXIST) => return Ok(None),
            other => other.wrap(|| "make the state directory")?,
        }
        match open_directory(path).and_then(|fd| Ok((lock_new(&fd)?, fd))) {
            Ok((Claim::Ours, directory)) => return Ok(Some(directory)),
            Ok((Claim::Anothers, _)) => return Ok(None),
            Ok((Claim::Removed, _)) => {}
            Err(e) if e.errno() == Some(libc::ENOENT) => {}
            // Nothing of ours is in it yet: if something is, it is another's, and stays.
            Err(e) => return Err(e.undone(fs::unlinkat(fs::CWD, path, libc::AT_REMOVEDIR))),
        }
    }
}

/// Whose a directory is that was just made.
enum Claim {
    Ours,
    /// Before it was locked, somebody took it for a dead runtime's.
    Removed,
    /// The same, and made it anew.
    Anothers,
}

fn lock_new(directory: &OwnedFd) -> Result<Claim> {
    fs::flock(directory, libc::LOCK_EX)?;
    if is_removed(directory)? {
        return Ok(Claim::Removed);
    }
    let taken = fs::exists(directory, Path::new(STATE))?;
    Ok(if taken { Claim::Anothers } else { Claim::Ours })
}

/// Removes a state directory whose `state.json` need not be readable.
pub fn erase(root: &Path, path: &Path) -> Result<()> {
    if path.parent() != Some(root) {
        return Err(Error::new(format!(
            "{} is not directly below {}",
            path.display(),
            root.display()
        )));
    }
    std::fs::remove_dir_all(path).wrap(|| format!("remove {}", path.display()))
}

/// Has it nothing but what a runtime puts there? Whoever names a directory of other things by --root
/// and an id must not lose it to a `create`.
pub fn is_ours(path: &Path) -> Result<bool> {
    const NAMES: [&str; 9] = [
        ".state.json.new",
        "config.json",
        ".config.json.new",
        "start.fifo",
        ".start.fifo",
        "result.fifo",
        ".deleting",
        "notify",
        "criu-root",
    ];
    let entries = std::fs::read_dir(path).wrap(|| format!("read {}", path.display()))?;
    for entry in entries {
        let entry = entry.wrap(|| format!("read {}", path.display()))?;
        if !NAMES.iter().any(|name| entry.file_name() == *name) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the directory of all states, if there is none.
pub fn make_root(root: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if root.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(root).wrap(|| {
        format!("make the directory for states {} (choose another by --root)", root.display())
    })
}
