//! Bundles: recognising one, and changing two settings of its config.json.
//!
//! A user's bundle is never written to. When `-t` or a command differ from what its
//! config.json says, the container gets a config.json of its own, whose relative paths are
//! made absolute.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::container::write_atomically;
use crate::error::{Context, Error, Result};

/// The bundle that `source` names; `None` when it must be an image's name.
///
/// # Errors
/// When it is clearly meant as a path and there is no bundle.
pub fn recognise(source: &OsStr) -> Result<Option<PathBuf>> {
    let path = Path::new(source);
    if path.join("config.json").is_file() {
        return std::path::absolute(path).map(Some).wrap("find the working directory");
    }
    let text = source.to_string_lossy();
    let is_path = text == "." || text == ".." || text.starts_with(['/', '.']);
    if !is_path {
        return Ok(None);
    }
    Err(Error::new(match path.is_dir() {
        true => format!("bundle {text}: there is no config.json in it (runc spec makes one)"),
        false => format!("bundle {text}: no such directory"),
    }))
}

/// A bundle's config.json.
#[derive(Debug)]
pub struct BundleConfig {
    path: PathBuf,
    json: Value,
}

impl BundleConfig {
    /// Reads a bundle's config.json.
    ///
    /// # Errors
    /// When it cannot be read, is no JSON, or has no process.
    pub fn read(bundle: &Path) -> Result<Self> {
        let path = bundle.join("config.json");
        let bytes = std::fs::read(&path).wrap_with(|| format!("read {}", path.display()))?;
        let json: Value =
            serde_json::from_slice(&bytes).wrap_with(|| format!("parse {}", path.display()))?;
        if !json["process"].is_object() {
            let error = Error::new("process: missing; there is nothing to run");
            return Err(error.wrap(path.display().to_string()));
        }
        Ok(Self { path, json })
    }

    /// The process's arguments.
    pub fn args(&self) -> Vec<String> {
        let args = self.json["process"]["args"].as_array();
        let text = |arg: &Value| arg.as_str().map(str::to_owned);
        args.into_iter().flatten().filter_map(text).collect()
    }

    /// Sets the terminal and, unless it is empty, the command; tells whether that changed
    /// anything. A terminal also brings `TERM`, as with docker.
    ///
    /// # Errors
    /// For a command that is not UTF-8: JSON cannot hold it.
    pub fn adjust(&mut self, tty: bool, command: &[OsString]) -> Result<bool> {
        let before = self.json["process"].clone();
        let process = &mut self.json["process"];
        if process["terminal"].as_bool().unwrap_or(false) != tty {
            process["terminal"] = json!(tty);
        }
        if tty {
            add_term(process);
        }
        if !command.is_empty() {
            let text = |arg: &OsString| {
                arg.to_str()
                    .map(str::to_owned)
                    .ok_or_else(|| Error::new(format!("command {arg:?}: is not UTF-8")))
            };
            process["args"] = json!(command.iter().map(text).collect::<Result<Vec<_>>>()?);
        }
        Ok(*process != before)
    }

    /// Writes the changed config.json back in its place.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_back(&self) -> Result<()> {
        write_atomically(&self.path, &serde_json::to_vec_pretty(&self.json)?)
    }

    /// Writes the changed config.json into a new bundle, for the same rootfs and mounts.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_to(&mut self, bundle: &Path) -> Result<()> {
        let origin = self.path.parent().unwrap_or(Path::new("/")).to_owned();
        absolute(&mut self.json["root"]["path"], &origin);
        let mounts = self.json["mounts"].as_array_mut();
        for mount in mounts.into_iter().flatten().filter(|mount| is_bind(mount)) {
            absolute(&mut mount["source"], &origin);
        }
        crate::container::make_dir(bundle).wrap_with(|| format!("make {}", bundle.display()))?;
        self.path = bundle.join("config.json");
        self.write_back()
    }
}

fn add_term(process: &mut Value) {
    let is_term = |value: &Value| value.as_str().is_some_and(|text| text.starts_with("TERM="));
    match process["env"].as_array_mut() {
        Some(env) if env.iter().any(is_term) => {}
        Some(env) => env.push(json!("TERM=xterm")),
        None => process["env"] = json!(["TERM=xterm"]),
    }
}

/// By type or by option, as runtimes recognise it.
fn is_bind(mount: &Value) -> bool {
    let options = mount["options"].as_array().into_iter().flatten();
    mount["type"] == "bind"
        || options.into_iter().any(|option| option == "bind" || option == "rbind")
}

fn absolute(value: &mut Value, origin: &Path) {
    let relative = value.as_str().filter(|path| !path.starts_with('/'));
    if let Some(path) = relative.map(|path| origin.join(path)) {
        *value = json!(path.to_string_lossy());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_adjusted_in_a_copy() {
        let dir = std::env::temp_dir().join(format!("shim-bundle-{}", std::process::id()));
        let (origin, copy) = (dir.join("a"), dir.join("b"));
        std::fs::create_dir_all(&origin).unwrap();
        assert!(recognise(origin.as_os_str()).is_err());
        let json = r#"{"root":{"path":"rootfs"},"process":{"terminal":true,"args":["sh"]},
            "mounts":[{"type":"proc","source":"proc"},{"source":"x","options":["rbind"]}],"own":1}"#;
        std::fs::write(origin.join("config.json"), json).unwrap();
        assert_eq!(recognise(origin.as_os_str()).unwrap().unwrap(), origin);
        assert_eq!(recognise("busybox".as_ref()).unwrap(), None);

        let mut config = BundleConfig::read(&origin).unwrap();
        assert!(config.adjust(false, &["ls".into(), "-l".into()]).unwrap());
        config.write_to(&copy).unwrap();
        let changed: Value =
            serde_json::from_slice(&std::fs::read(copy.join("config.json")).unwrap()).unwrap();
        assert_eq!(changed["root"]["path"], json!(origin.join("rootfs").to_str()));
        assert_eq!(changed["mounts"][0]["source"], "proc");
        assert_eq!(changed["mounts"][1]["source"], json!(origin.join("x").to_str()));
        assert_eq!(changed["process"]["args"], json!(["ls", "-l"]));
        assert_eq!(changed["own"], 1);

        let mut again = BundleConfig::read(&copy).unwrap();
        assert!(!again.adjust(false, &[]).unwrap());
        assert!(again.adjust(true, &[]).unwrap());
        assert_eq!(again.json["process"]["env"], json!(["TERM=xterm"]));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
