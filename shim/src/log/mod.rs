//! Where a container's output is kept. The monitor writes, `shim logs` reads.
//!
//! A log may lose lines (a full disk), and then it says how many; it never stops the
//! container and never waits for a reader.

pub mod k8s_file;
pub mod reader;

use std::io;
use std::path::Path;

use k8s_file::K8sFile;

/// One of a container's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// File descriptor 1; a terminal's only stream.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

impl Stream {
    /// The name in a log line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A place for a container's output.
#[derive(Debug)]
pub enum Log {
    /// CRI's text format, conmon's `k8s-file`.
    K8sFile(K8sFile),
    /// Output is shown to whoever is attached, and kept nowhere.
    Discard,
}

impl Log {
    /// Opens the log; `lost` is the file that tells what could not be written.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: Option<&Path>, lost: &Path) -> io::Result<Self> {
        match path {
            Some(path) => Ok(Self::K8sFile(K8sFile::open(path, lost)?)),
            None => Ok(Self::Discard),
        }
    }

    /// Keeps one chunk of output. Never fails and never blocks for long: what cannot be
    /// written is counted.
    pub fn write(&mut self, stream: Stream, chunk: &[u8]) {
        match self {
            Self::K8sFile(file) => file.write(stream, chunk),
            Self::Discard => {}
        }
    }

    /// Brings what was written to the disk.
    pub fn finish(&mut self) {
        match self {
            Self::K8sFile(file) => file.finish(),
            Self::Discard => {}
        }
    }
}
