//! Where things are by default: the state directory and the sibling programs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};

/// The directory of all containers, absolute.
///
/// # Errors
/// When neither $XDG_DATA_HOME nor $HOME is set (not root), or the working directory is gone.
pub fn state_dir(asked: Option<&Path>) -> Result<PathBuf> {
    let dir = match asked {
        Some(dir) => dir.to_owned(),
        None if rustix::process::geteuid().is_root() => "/var/lib/davit/containers".into(),
        None => data_home()?.join("davit/containers"),
    };
    std::path::absolute(&dir).wrap_with(|| format!("state directory {}", dir.display()))
}

fn data_home() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    match (set("XDG_DATA_HOME"), set("HOME")) {
        (Some(data), _) => Ok(data.into()),
        (None, Some(home)) => Ok(PathBuf::from(home).join(".local/share")),
        (None, None) => Err(Error::new(
            "no default state directory: HOME and XDG_DATA_HOME are not set (use --state DIR)",
        )),
    }
}

/// Finds a sibling program: the path asked for; else the one beside our executable, with
/// our own prefix (davit-shim finds davit-runtime); else the one on PATH.
///
/// # Errors
/// When there is none that can be executed.
pub fn sibling(name: &str, asked: Option<&Path>) -> Result<PathBuf> {
    let found = match asked {
        Some(path) if path.components().count() > 1 => {
            let path = std::path::absolute(path).wrap("find the working directory")?;
            Some(path).filter(|path| is_executable(path))
        }
        Some(name) => on_path(name),
        None => beside_us(name).or_else(|| on_path(Path::new(name))),
    };
    found.ok_or_else(|| match asked {
        Some(path) => Error::new(format!("--{name} {}: no such program", path.display())),
        None => Error::new(format!("no {name} beside this program or on PATH (use --{name} PATH)")),
    })
}

fn beside_us(name: &str) -> Option<PathBuf> {
    let us = std::env::current_exe().ok()?;
    let prefix = us.file_name()?.to_str()?.strip_suffix("shim")?;
    let path = us.with_file_name(format!("{prefix}{name}"));
    is_executable(&path).then_some(path)
}

fn on_path(name: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut dirs = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    dirs.find(|dir| is_executable(&dir.join(name))).map(|dir| dir.join(name))
}

fn is_executable(path: &Path) -> bool {
    let may_run =
        |meta: std::fs::Metadata| meta.is_file() && meta.permissions().mode() & 0o111 != 0;
    std::fs::metadata(path).is_ok_and(may_run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_path_and_by_name() {
        let sh = Path::new("/bin/sh");
        assert_eq!(sibling("runtime", Some(sh)).unwrap(), sh);
        assert!(sibling("runtime", Some(Path::new("sh"))).unwrap().ends_with("sh"));
        let error = sibling("runtime", Some(Path::new("/no/such"))).unwrap_err();
        assert!(error.to_string().contains("/no/such"), "{error}");
        assert!(sibling("no-such-program-at-all", None).is_err());
    }
}
