//! Id maps of a new user namespace (user_namespaces(7)), written by the parent.

use crate::error::{Context, Error, Result};
use crate::plan::namespaces::{IdRange, Namespaces};
use crate::procfs::Proc;
use crate::sys::process as sys;
use std::process::Command;

/// Writes both maps of the process `pid`.
pub fn write(pid: i32, namespaces: &Namespaces, proc: &Proc) -> Result<()> {
    let user = (&namespaces.uid_map, "uid", sys::euid());
    let group = (&namespaces.gid_map, "gid", sys::egid());
    // Without CAP_SETGID a gid map can be written only once setgroups(2) is given up; newgidmap
    // does what it may by itself.
    let own_group = is_own(group.0, group.2);
    if sys::euid() != 0 && own_group {
        proc.write(&format!("{pid}/setgroups"), b"deny").wrap(|| "linux.gidMappings")?;
    }
    for (map, kind, own) in [user, group] {
        one(pid, map, kind, own, proc).wrap(|| format!("linux.{kind}Mappings"))?;
    }
    Ok(())
}

/// Does the map hold nothing but our own id, which needs no privilege?
fn is_own(map: &[IdRange], own: u32) -> bool {
    matches!(map, [range] if range.outside == own && range.count == 1)
}

fn one(pid: i32, map: &[IdRange], kind: &str, own: u32, proc: &Proc) -> Result<()> {
    if sys::euid() != 0 && !is_own(map, own) {
        return by_helper(pid, map, kind);
    }
    let lines: Vec<String> =
        map.iter().map(|r| format!("{} {} {}", r.inside, r.outside, r.count)).collect();
    // The kernel takes a map in one write, and only once.
    proc.write(&format!("{pid}/{kind}_map"), lines.join("\n").as_bytes())
}

/// newuidmap(1) and newgidmap(1) may map what /etc/subuid and /etc/subgid give the user.
fn by_helper(pid: i32, map: &[IdRange], kind: &str) -> Result<()> {
    let program = format!("new{kind}map");
    let numbers = map.iter().flat_map(|r| [r.inside, r.outside, r.count]);
    let output = Command::new(&program)
        .arg(pid.to_string())
        .args(numbers.map(|n| n.to_string()))
        .output()
        .wrap(|| {
            format!(
                "run {program} (Debian's package uidmap); without it only your own id can be mapped"
            )
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("{program}: {} (see /etc/sub{kind})", said.trim())))
}
