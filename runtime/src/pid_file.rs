//! `--pid-file`.

use crate::error::{Context, Result};
use crate::sys::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Writes the pid without a newline, which callers do not expect, all or nothing.
///
/// The file gets its name last, so that nothing is left of one that was not finished.
pub fn write(path: &Path, pid: i32) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let text = pid.to_string();
    let done = match fs::openat(fs::CWD, directory, libc::O_TMPFILE | libc::O_WRONLY, 0o644) {
        Ok(file) => fs::write_once(&file, text.as_bytes()).and_then(|()| name(&file, path)),
        // Not every file system has files without a name.
        Err(e) if matches!(e.errno(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {
            std::fs::write(path, &text).wrap(|| format!("write {}", path.display()))
        }
        Err(e) => Err(e),
    };
    done.wrap(|| format!("--pid-file {}", path.display()))
}

/// Names a file in the place of an earlier one.
fn name(file: &OwnedFd, path: &Path) -> Result<()> {
    match fs::link(file, path) {
        Err(e) if e.errno() == Some(libc::EEXIST) => {
            fs::unlinkat(fs::CWD, path, 0)?;
            fs::link(file, path)
        }
        other => other,
    }
}

/// Takes the file away again, since the process will never be; there may be none yet.
pub fn withdraw(path: &Path) {
    drop(std::fs::remove_file(path));
}
