//! What the disturbed containers ask for.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use serde_json::{Value, json};

use crate::user_namespace::{self, FIRST};
use crate::{Bundle, Case};

/// Who the user is who has no privileges.
pub const USER: u32 = 65_533;

/// A bundle to disturb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The default.
    Plain,
    /// All six hooks, a user namespace, a filter, kernel parameters, limits and an ordinary user.
    Rich,
    /// A terminal.
    Terminal,
    /// A user namespace with one range of the host's ids.
    Mapped,
    /// A user namespace with several.
    Ranges,
    /// Mounts with maps of their own.
    Idmapped,
    /// A filter whose calls wait for an agent.
    Notified,
    /// What a user without privileges can have, its own id mapped to root.
    Rootless,
    /// The same with subordinate ids, which newuidmap(1) maps.
    Subordinate,
}

impl Kind {
    /// Is the verb a user's who has no privileges?
    pub fn is_rootless(self) -> bool {
        matches!(self, Kind::Rootless | Kind::Subordinate)
    }

    /// The bundle, with a program that runs `script`.
    pub fn bundle(self, case: &Case, script: &str) -> Bundle {
        let made = match self {
            Kind::Plain => case.bundle(),
            Kind::Rich => rich(case.bundle()),
            Kind::Terminal => case.bundle().set("/process/terminal", true),
            Kind::Mapped => user_namespace::mapped(case),
            Kind::Ranges => {
                let ranges = json!([range(0, FIRST, 1000), range(1000, FIRST + 5000, 64_000)]);
                maps(user_namespace::mapped(case), ranges)
            }
            Kind::Idmapped => idmapped(case),
            Kind::Notified => notified(case),
            Kind::Rootless => rootless(case, json!([range(0, USER, 1)])),
            Kind::Subordinate => rootless(case, json!([range(0, USER, 1), range(1, FIRST, 1000)])),
        };
        made.sh(script)
    }
}

fn range(inside: u32, outside: u32, size: u32) -> Value {
    json!({ "containerID": inside, "hostID": outside, "size": size })
}

fn maps(bundle: Bundle, ranges: Value) -> Bundle {
    bundle.set("/linux/uidMappings", ranges.clone()).set("/linux/gidMappings", ranges)
}

/// More of what a container can ask for, so that more of the runtime is walked through.
fn rich(bundle: Bundle) -> Bundle {
    let host = json!([{ "path": "/bin/true", "timeout": 20 }]);
    let inside = json!([{ "path": "/bin/true" }]);
    maps(bundle.namespace("user", None), json!([range(0, 0, 65536)]))
        .set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }))
        .set("/linux/maskedPaths", json!(["/proc/kcore", "/sys/firmware"]))
        .set("/linux/readonlyPaths", json!(["/proc/sys"]))
        .set(
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["keyctl"], "action": "SCMP_ACT_ERRNO" }
        ] }),
        )
        .set("/linux/resources/pids", json!({ "limit": 50 }))
        .set("/process/user", json!({ "uid": 1000, "gid": 1000, "additionalGids": [2000] }))
        .set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 512, "hard": 512 }]))
        .set("/process/oomScoreAdj", 500)
        .set(
            "/hooks",
            json!({
                "prestart": host, "createRuntime": host, "createContainer": inside,
                "startContainer": inside, "poststart": host, "poststop": host,
            }),
        )
        .mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "size=1m"])
        .mount("/mnt", "bind", "/usr", &["rbind", "ro"])
}

fn idmapped(case: &Case) -> Bundle {
    let source = case.dir().join("source");
    fs::create_dir_all(&source).expect("make the source");
    let maps = json!([range(0, 1234, 10)]);
    let bundle = case.bundle();
    fs::create_dir_all(bundle.rootfs().join("data")).expect("make the target");
    bundle
        .writable()
        .push(
            "/mounts",
            json!({
                "destination": "/data", "type": "bind", "source": source, "options": ["bind"],
                "uidMappings": maps, "gidMappings": maps,
            }),
        )
        .mount("/tmp", "tmpfs", "tmpfs", &["idmap=uids=0-77-1;gids=0-78-1", "mode=755"])
}

fn notified(case: &Case) -> Bundle {
    let bundle = case.bundle();
    bundle.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": super::world::agent(case),
            "syscalls": [{ "names": ["swapon"], "action": "SCMP_ACT_NOTIFY" }],
        }),
    )
}

fn rootless(case: &Case, ranges: Value) -> Bundle {
    let mut bundle = maps(case.bundle().namespace("user", None), ranges)
        .set("/linux/cgroupsPath", json!(null))
        .set("/linux/resources", json!({}));
    // The group of terminals need not be mapped.
    for mount in bundle.config["mounts"].as_array_mut().expect("mounts") {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| !option.as_str().is_some_and(|o| o.starts_with("gid=")));
        }
    }
    for path in [case.dir(), &bundle.dir, &bundle.rootfs()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    fs::create_dir_all(case.root()).expect("make the state root");
    chown(case.root(), Some(USER), Some(USER)).expect("give it to the user");
    bundle
}
