//! Devices: dockerd's default rules, and what `--device` and `--privileged` pass in.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::{Value, json};

use crate::order;
use crate::{Context, Error, Result};

use super::settings::Settings;

/// Nodes to make in the container, and the rules of its device cgroup.
#[derive(Clone, Debug)]
pub(crate) struct Devices {
    pub(crate) nodes: Vec<Value>,
    pub(crate) rules: Vec<Value>,
}

/// Deepest directory below a `--device` directory.
const MAX_DEPTH: usize = 8;

impl Devices {
    /// Looks at the host's device files.
    pub(crate) fn resolve(settings: &Settings) -> Result<Devices> {
        let mut devices = Devices { nodes: Vec::new(), rules: default_rules() };
        for map in &settings.device {
            let host = Path::new(&map.host);
            let before = devices.nodes.len();
            devices
                .add(host, &map.path, &map.access, 0)
                .wrap(|| format!("--device {}", map.host))?;
            if devices.nodes.len() == before {
                return Err(Error::new(format!("--device {}: no device there", map.host)));
            }
        }
        if settings.privileged {
            devices.add(Path::new("/dev"), "/dev", "rwm", 0).wrap(|| "--privileged")?;
            devices.rules = vec![json!({"allow": true, "access": "rwm"})];
        }
        Ok(devices)
    }

    fn add(&mut self, host: &Path, path: &str, access: &str, depth: usize) -> Result<()> {
        // What the user names may be a link; what lies in a directory counts only by itself.
        let meta = if depth == 0 { fs::metadata(host) } else { fs::symlink_metadata(host) };
        let meta = meta.wrap(|| host.display().to_string())?;
        let kind = match meta.file_type() {
            t if t.is_char_device() => "c",
            t if t.is_block_device() => "b",
            t if t.is_dir() && depth < MAX_DEPTH => return self.add_dir(host, path, access, depth),
            _ if depth == 0 => return Err(Error::new("not a device")),
            _ => return Ok(()),
        };
        if self.nodes.iter().any(|node| node["path"] == path) {
            return Ok(());
        }
        let rdev = meta.rdev();
        let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
        self.nodes.push(json!({
            "path": path, "type": kind, "major": major, "minor": minor,
            "fileMode": meta.mode() & 0o7777, "uid": meta.uid(), "gid": meta.gid(),
        }));
        self.rules.push(json!({
            "allow": true, "type": kind, "major": major, "minor": minor, "access": access,
        }));
        Ok(())
    }

    /// A directory of devices; the container's own file systems below /dev are left alone.
    fn add_dir(&mut self, host: &Path, path: &str, access: &str, depth: usize) -> Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(host).wrap(|| host.display().to_string())? {
            let name = entry.wrap(|| host.display().to_string())?.file_name();
            names.extend(name.into_string().ok());
        }
        order::sort(&mut names);
        for name in names {
            let own =
                ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "ptmx"];
            if !(path == "/dev" && own.contains(&name.as_str())) {
                self.add(&host.join(&name), &format!("{path}/{name}"), access, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// Nothing but null, zero, full, random, urandom, tty and console; not fuse.
fn default_rules() -> Vec<Value> {
    let rule = |allow: bool, major: u32, minor: u32| json!({"allow": allow, "type": "c", "major": major, "minor": minor, "access": "rwm"});
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    rules.extend([(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)].map(|(a, b)| rule(true, a, b)));
    rules.push(rule(false, 10, 229));
    rules
}
