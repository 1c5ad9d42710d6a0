//! Finding the other programs of this tool set.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The program `name`: the one given, else the one beside this program with the same prefix
/// (`davit-buildtool` finds `davit-runtime`), else the first on PATH.
pub fn find(given: Option<&Path>, name: &str) -> Result<PathBuf> {
    match given {
        Some(path) if path.components().count() > 1 => existing(path),
        Some(path) => on_path(path)
            .ok_or_else(|| Error::new(format!("no program {} on PATH", path.display()))),
        None => {
            Ok(beside(name).or_else(|| on_path(Path::new(name))).unwrap_or_else(|| name.into()))
        }
    }
}

fn existing(path: &Path) -> Result<PathBuf> {
    match is_program(path) {
        // The builder's /proc is not the caller's, but its directories are.
        true => Ok(std::path::absolute(path)?),
        false => Err(Error::new(format!("{} is not an executable file", path.display()))),
    }
}

fn beside(name: &str) -> Option<PathBuf> {
    let ourselves = std::env::current_exe().ok()?;
    let prefix =
        ourselves.file_name()?.to_str()?.strip_suffix("buildtool").unwrap_or_default().to_owned();
    let path = ourselves.with_file_name(format!("{prefix}{name}"));
    is_program(&path).then_some(path)
}

fn on_path(name: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
