//! Which programs the tests drive, and where they are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::command::detached;

/// One of the project's programs, as built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The OCI runtime; `RUNTIME=` puts another one in its place.
    Runtime,
    /// Images: store, registries, bundles.
    Imgtool,
    /// Dockerfiles.
    Buildtool,
    /// Supervision.
    Shim,
}

impl Program {
    /// The file name under which cargo builds it.
    pub fn name(self) -> &'static str {
        match self {
            Program::Runtime => "runtime",
            Program::Imgtool => "imgtool",
            Program::Buildtool => "buildtool",
            Program::Shim => "shim",
        }
    }

    /// Where it is: `DAVIT_BIN=DIR`, else the target directory that holds this very test.
    ///
    /// # Panics
    /// When it has not been built; the message says how to.
    pub fn path(self) -> PathBuf {
        let path = bin_dir().join(self.name());
        let name = self.name();
        assert!(path.exists(), "{} is missing: run `cargo build -p {name}` first", path.display());
        path
    }

    /// Whether it has been built, for tests of which it is not the subject.
    ///
    /// # Errors
    /// The reason for a skip, unless `DAVIT_BIN` says that all is built.
    pub fn built(self) -> Result<(), String> {
        if std::env::var_os("DAVIT_BIN").is_some() || bin_dir().join(self.name()).exists() {
            return Ok(());
        }
        Err(format!("{} has not been built", self.name()))
    }

    /// A command that runs it, with stdin empty.
    pub fn command(self) -> Command {
        detached(&self.path())
    }
}

fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("DAVIT_BIN") {
        return PathBuf::from(dir);
    }
    let exe = std::env::current_exe().expect("find the test's own executable");
    // target/TRIPLE/PROFILE/deps/TEST
    exe.ancestors().nth(2).expect("the test lies in target/…/deps").to_owned()
}

/// The runtime under test: `RUNTIME=` as a path or as a name on PATH, else ours.
pub fn runtime() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var("RUNTIME") {
        Ok(name) if !name.is_empty() => {
            find(&name).unwrap_or_else(|| panic!("RUNTIME={name}: no such program"))
        }
        _ => Program::Runtime.path(),
    })
}

/// The name by which the runtime under test introduces itself: `runtime`, `runc`, `crun`, …
pub(crate) fn runtime_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let output = detached(runtime()).arg("--version").output().expect("run --version");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace().next().unwrap_or("unknown").to_owned()
    })
}

/// Where PATH (or the usual system directories) holds `name`; a path is taken as it is.
pub fn find(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return std::fs::canonicalize(name).ok();
    }
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

/// As [`find`], for a client that a test needs: a missing one is the reason of a skip.
pub fn find_program(name: &str) -> Result<PathBuf, String> {
    find(name).ok_or_else(|| format!("{name} is not installed"))
}
