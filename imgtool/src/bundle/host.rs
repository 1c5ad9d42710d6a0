//! What the host is like, as far as a bundle depends on it.

use std::fs;
use std::path::Path;

use crate::{Context, Error, Result};

use super::seccomp::parse_kernel;

/// Facts about this host and our place on it.
#[derive(Clone, Debug)]
pub struct Host {
    /// Kernel version.
    pub kernel: (u32, u32),
    /// `std::env::consts::ARCH`.
    pub arch: &'static str,
    /// Capabilities that can be granted, one bit each: what the kernel knows, and for root what
    /// its own bounding set holds. A user namespace has them all.
    pub caps: u64,
    /// /sys/fs/cgroup is cgroup v2.
    pub cgroup2: bool,
    /// We lack root's rights over ids and mounts: the container needs a user namespace.
    pub rootless: Option<Rootless>,
    /// Parameters that dockerd sets in a network namespace, where this kernel has them.
    pub net_sysctls: Vec<(&'static str, &'static str)>,
}

/// The ids that an unprivileged user may map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootless {
    /// Our user id, which is root inside.
    pub uid: u32,
    /// Our group id.
    pub gid: u32,
    /// Ranges of `/etc/subuid`: first id and count.
    pub subuids: Vec<(u32, u32)>,
    /// Ranges of `/etc/subgid`.
    pub subgids: Vec<(u32, u32)>,
}

impl Host {
    /// Looks.
    pub fn detect() -> Result<Host> {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let kernel = parse_kernel(&release);
        let uid = rustix::process::geteuid();
        Ok(Host {
            kernel: kernel.ok_or_else(|| Error::new(format!("odd kernel release {release:?}")))?,
            arch: std::env::consts::ARCH,
            caps: grantable(uid.is_root()),
            cgroup2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            rootless: (!uid.is_root()).then(Rootless::detect).transpose()?,
            net_sysctls: net_sysctls(uid.is_root() && in_initial_user_namespace()),
        })
    }
}

impl Rootless {
    fn detect() -> Result<Rootless> {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let name = user_name(uid);
        let ranges = |path: &str| {
            let text = match fs::read_to_string(path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
                text => text.wrap(|| format!("read {path}"))?,
            };
            Ok::<_, Error>(sub_ids(&text, uid, name.as_deref()))
        };
        Ok(Rootless { uid, gid, subuids: ranges("/etc/subuid")?, subgids: ranges("/etc/subgid")? })
    }
}

fn grantable(root: bool) -> u64 {
    let last = read("/proc/sys/kernel/cap_last_cap").and_then(|s| s.trim().parse::<u32>().ok());
    let known = u64::MAX >> (63 - last.unwrap_or(40).min(63));
    let status = read("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding = bounding.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    known & bounding.filter(|_| root).unwrap_or(u64::MAX)
}

/// Whether ids mean here what they mean on disk.
pub fn in_initial_user_namespace() -> bool {
    let map = read("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Ping without CAP_NET_RAW, low ports without CAP_NET_BIND_SERVICE, as dockerd has it. The group
/// range names ids that a user namespace may not have.
fn net_sysctls(all_ids: bool) -> Vec<(&'static str, &'static str)> {
    let wanted = [
        ("net.ipv4.ip_unprivileged_port_start", "0", true),
        ("net.ipv4.ping_group_range", "0 2147483647", all_ids),
    ];
    let exists = |name: &str| Path::new("/proc/sys").join(name.replace('.', "/")).exists();
    let kept = wanted.into_iter().filter(|(name, _, use_it)| *use_it && exists(name));
    kept.map(|(name, value, _)| (name, value)).collect()
}

fn user_name(uid: u32) -> Option<String> {
    let passwd = read("/etc/passwd")?;
    let mut rows = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let row = rows.find(|r| r.get(2).is_some_and(|id| id.parse() == Ok(uid)))?;
    Some(row[0].to_owned())
}

/// Lines `NAME-OR-UID:FIRST:COUNT` that are ours (subuid(5)).
fn sub_ids(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let ours = |who: &str| Some(who) == name || who.parse() == Ok(uid);
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let who = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        ours(who).then_some((first, count))
    };
    text.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_by_name_or_number() {
        let text = "ann:100000:65536\nbob:1:2\n1000:300000:10\n# x\nann:bad:1\n";
        assert_eq!(sub_ids(text, 1000, Some("ann")), [(100000, 65536), (300000, 10)]);
        assert_eq!(sub_ids(text, 7, None), []);
    }
}
