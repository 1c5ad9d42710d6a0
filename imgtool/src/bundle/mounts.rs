//! The container's mounts: dockerd's defaults, changed by settings, then the user's.

use serde_json::{Value, json};

use super::host::Host;
use super::settings::{Ipc, Network, Settings};
use crate::order;

const SHM_SIZE: u64 = 64 << 20;

/// All mounts, in the order in which they are made: defaults, then the user's, parents first.
pub(crate) fn all(settings: &Settings, host: &Host, user: &[Value]) -> Vec<Value> {
    let mut user = user.to_vec();
    let depth = |mount: &Value| destination(mount).matches('/').count();
    order::sort_by(&mut user, |a, b| depth(a).cmp(&depth(b)));
    let own: Vec<&str> = user.iter().map(destination).collect();
    let replaced = |mount: &Value| {
        let at = destination(mount);
        own.contains(&at) || own.contains(&"/dev") && at.starts_with("/dev/")
    };
    let mut mounts = defaults(settings, host);
    mounts.retain(|mount| !replaced(mount));
    mounts.extend(user.clone());
    mounts
}

fn destination(mount: &Value) -> &str {
    mount["destination"].as_str().unwrap_or_default()
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

fn bind(source: &str, destination: &str, options: &[&str]) -> Value {
    mount(destination, "bind", source, &[&["rbind"], options].concat())
}

fn defaults(settings: &Settings, host: &Host) -> Vec<Value> {
    let safe = ["nosuid", "noexec", "nodev"];
    let closed = if settings.privileged { &safe[..] } else { &["nosuid", "noexec", "nodev", "ro"] };
    let dev = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &safe),
        mount("/dev", "tmpfs", "tmpfs", &dev),
        devpts(host),
        sysfs(settings, host, closed),
    ];
    // Without privilege there is no cgroup to show but the host's.
    if host.rootless.is_none() {
        mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", closed));
    }
    mounts.push(match settings.ipc {
        Ipc::Host => bind("/dev/mqueue", "/dev/mqueue", &safe),
        _ => mount("/dev/mqueue", "mqueue", "mqueue", &safe),
    });
    match settings.ipc {
        Ipc::None => (),
        Ipc::Host => mounts.push(bind("/dev/shm", "/dev/shm", &safe)),
        Ipc::Private => {
            let size = format!("size={}", settings.shm_size.unwrap_or(SHM_SIZE));
            let options = ["nosuid", "noexec", "nodev", "mode=1777", &size];
            mounts.push(mount("/dev/shm", "tmpfs", "shm", &options));
        }
    }
    if settings.network == Network::Host {
        for file in ["/etc/resolv.conf", "/etc/hosts"] {
            if std::path::Path::new(file).is_file() {
                mounts.push(bind(file, file, &["ro", "rprivate"]));
            }
        }
    }
    mounts
}

/// Group 5 is tty's; a user namespace of a single id does not have it.
fn devpts(host: &Host) -> Value {
    let mut options = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    let has_tty = |r: &super::host::Rootless| r.subgids.iter().any(|(_, count)| *count >= 5);
    if host.rootless.as_ref().is_none_or(has_tty) {
        options.push("gid=5");
    }
    mount("/dev/pts", "devpts", "devpts", &options)
}

/// A new sysfs needs rights over the network namespace, which the host's does not grant to a user
/// namespace: its tree is bound instead.
fn sysfs(settings: &Settings, host: &Host, options: &[&str]) -> Value {
    match host.rootless.is_some() && settings.network == Network::Host {
        true => mount("/sys", "none", "/sys", &[&["rbind"], options].concat()),
        false => mount("/sys", "sysfs", "sysfs", options),
    }
}

/// A bind that shares mounts needs a root that does.
pub(crate) fn root_propagation(user: &[Value]) -> Option<&'static str> {
    let has = |wanted: &[&str]| {
        let options = user.iter().filter_map(|m| m["options"].as_array()).flatten();
        options.filter_map(Value::as_str).any(|o| wanted.contains(&o))
    };
    match () {
        () if has(&["shared", "rshared"]) => Some("shared"),
        () if has(&["slave", "rslave"]) => Some("rslave"),
        () => None,
    }
}

/// tmpfs options over dockerd's: a later one withdraws what it contradicts.
pub(crate) fn tmpfs(target: &str, options: &[String]) -> Value {
    let mut all: Vec<String> = ["noexec", "nosuid", "nodev", "rprivate"].map(str::to_owned).into();
    for option in options {
        let key = option.split('=').next().unwrap_or(option);
        let opposite = match key.strip_prefix("no") {
            Some(rest) => rest.to_owned(),
            None if key == "ro" => "rw".to_owned(),
            None if key == "rw" => "ro".to_owned(),
            None => format!("no{key}"),
        };
        all.retain(|o| *o != opposite && o.split('=').next() != Some(key));
        all.push(option.clone());
    }
    json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": all})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmpfs_options_override() {
        let options = ["exec".to_owned(), "size=1m".to_owned(), "size=2m".to_owned()];
        let made = tmpfs("/t", &options);
        assert_eq!(made["options"], json!(["nosuid", "nodev", "rprivate", "exec", "size=2m"]));
    }

    #[test]
    fn shared_binds_need_a_shared_root() {
        let mounts = [bind("/a", "/b", &["rslave"]), bind("/c", "/d", &["rprivate"])];
        assert_eq!(root_propagation(&mounts), Some("rslave"));
        assert_eq!(root_propagation(&mounts[1..]), None);
    }
}
