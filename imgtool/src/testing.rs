//! What the unit tests of several modules need.

use std::path::{Path, PathBuf};

/// A path below the temporary directory that goes away with its test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Nothing exists at the path yet; `name` must be unique among the tests.
    pub(crate) fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("imgtool-{}-{name}", std::process::id()));
        drop(std::fs::remove_dir_all(&dir));
        Scratch(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
