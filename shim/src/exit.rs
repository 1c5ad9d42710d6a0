//! How a container ended, and the file that says so for good.
//!
//! `exit` in the container's directory holds the decimal code (0 to 255; 128 + n after
//! signal n) without a newline, as conmon writes it. It appears atomically, by rename, and
//! only after its bytes are on disk. The block it needs is allocated when the container
//! starts, so that a disk which is full at the end cannot lose the code.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

const FILE: &str = "exit";
const RESERVED: &str = "exit.next";

/// The exit code that a shell would show for a wait status.
pub fn code_of(status: ExitStatus) -> Option<u8> {
    match (status.code(), status.signal()) {
        (Some(code), _) => Some(code as u8),
        (None, Some(signal)) => Some((128 + signal) as u8),
        (None, None) => None,
    }
}

/// Allocates the place of the code, and withdraws that of an earlier run.
///
/// # Errors
/// Those of the file system: a container that cannot report its end must not begin.
pub fn reserve(dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(dir.join(RESERVED))?;
    file.write_all_at(b"000", 0)?;
    file.sync_all()
}

/// Makes `code` the container's durable exit code. Atomic: readers see all or nothing.
///
/// # Errors
/// Those of the file system.
pub fn record(dir: &Path, code: u8) -> io::Result<()> {
    let text = code.to_string();
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join(RESERVED))?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)?;
    file.sync_all()?;
    std::fs::rename(dir.join(RESERVED), dir.join(FILE))?;
    File::open(dir)?.sync_all()
}

/// The durable exit code and the time at which it was written, or `None` while the
/// container has not ended.
///
/// # Errors
/// Those of the file system; `InvalidData` when the file does not hold a code.
pub fn read(dir: &Path) -> io::Result<Option<(u8, std::time::SystemTime)>> {
    let path = dir.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let code =
        text.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not an exit code"))?;
    Ok(Some((code, std::fs::metadata(&path)?.modified()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_appears_at_once_and_replaces_its_reservation() {
        let dir = std::env::temp_dir().join(format!("shim-exit-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        reserve(&dir).unwrap();
        assert!(read(&dir).unwrap().is_none());
        for code in [137, 7, 0] {
            record(&dir, code).unwrap();
            assert_eq!(read(&dir).unwrap().unwrap().0, code);
            assert!(!dir.join(RESERVED).exists());
            reserve(&dir).unwrap();
            assert!(read(&dir).unwrap().is_none());
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
