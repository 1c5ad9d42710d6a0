//! `spec`: writes a `config.json` to start from, the one that runc writes.

use crate::error::{Context, Error, Result};
use crate::sys::process;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;

/// The verb. An existing file is never overwritten.
pub fn spec(path: &Path, rootless: bool) -> Result<()> {
    let config =
        if rootless { rootless_config(process::euid(), process::egid()) } else { config() };
    let mut text = serde_json::to_string_pretty(&config).map_err(|e| Error::new(e.to_string()))?;
    text.push('\n');
    let file = std::fs::File::options().write(true).create_new(true).open(path);
    match file {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::new(format!(
            "{} exists already; remove it first, or name another directory by --bundle",
            path.display()
        ))),
        other => other
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .wrap(|| format!("write {}", path.display())),
    }
}

/// The default configuration: a shell on a terminal, in five namespaces of its own.
pub fn config() -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": crate::SPEC_VERSION,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm"
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "davit",
        "mounts": mounts(),
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces(),
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
                "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
                "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
            ]
        }
    })
}

fn mounts() -> Value {
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        {
            "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]
        },
        {
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        },
        {
            "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]
        },
        {
            "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"]
        },
        {
            "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"]
        },
        {
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]
        }
    ])
}

/// As in runc: a cgroup namespace where controllers are on cgroup v2.
fn namespaces() -> Value {
    let mut kinds = vec!["pid", "network", "ipc", "uts", "mount"];
    let layout = crate::cgroup::host::Host::detect().ok().flatten().map(|host| host.layout);
    if layout == Some(crate::cgroup::host::Layout::Unified) {
        kinds.push("cgroup");
    }
    kinds.iter().map(|kind| json!({ "type": kind })).collect()
}

/// The default configuration for a user without privilege: a user namespace that maps the user to
/// root, no network namespace, no limits, and the host's /sys.
pub fn rootless_config(uid: u32, gid: u32) -> Value {
    let mut config = config();
    let linux = &mut config["linux"];
    let map = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    linux["uidMappings"] = map(uid);
    linux["gidMappings"] = map(gid);
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|n| n["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
    let mounts = config["mounts"].as_array_mut();
    for mount in mounts.into_iter().flatten() {
        if mount["destination"] == "/sys" {
            // sysfs shows the network namespace, which is the host's and so not the user's to mount.
            *mount = json!({
                "destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]
            });
        } else if let Some(options) = mount.get_mut("options").and_then(|o| o.as_array_mut()) {
            // Group 5 is not mapped.
            options.retain(|o| o.as_str().is_none_or(|o| !o.starts_with("gid=")));
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_configurations_parse() {
        for value in [config(), rootless_config(1000, 1000)] {
            let spec: oci_spec::runtime::Spec = serde_json::from_value(value).unwrap();
            assert_eq!(spec.version(), crate::SPEC_VERSION);
        }
    }

    #[test]
    fn rootless_needs_nothing_of_the_hosts() {
        let text = rootless_config(1000, 100).to_string();
        assert!(!text.contains("gid=5") && !text.contains("\"network\""), "{text}");
        assert!(text.contains("\"hostID\":100"), "{text}");
    }
}
