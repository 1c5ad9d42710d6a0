//! Carrying out one entry of `mounts`.

use super::{Root, cgroup, copyup, propagate, resolve};
use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Result};
use crate::plan::Plan;
use crate::plan::mounts::{Mount, Propagation, Source};
use crate::sys::fs;
use crate::sys::mount::{self as sys, FsContext, MountAttr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Files of /proc over which a mount is legitimate: lxcfs and its kin show a container's share of
/// the machine there.
const PROC_OVERMOUNTS: &[&str] = &[
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "uptime",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
];

/// Makes the mount, gives it its attributes, and attaches it.
pub fn apply(
    root: &Root,
    mount: &Mount,
    source: Option<OwnedFd>,
    plan: &Plan,
    groups: &Cgroup,
) -> Result<()> {
    match (&mount.source, source) {
        (Source::Filesystem { fstype, source, data }, _) => {
            filesystem(root, mount, fstype, source, data)
        }
        (Source::Bind { .. }, Some(tree)) => bind(root, mount, tree),
        (Source::Bind { .. }, None) => Err(Error::new("the source has not been opened")),
        (Source::Cgroup, _) => cgroup::mount(root, mount, plan, groups),
        (Source::Remount, _) => remount(root, mount),
    }
}

fn filesystem(
    root: &Root,
    mount: &Mount,
    fstype: &str,
    source: &str,
    data: &[(String, Option<String>)],
) -> Result<()> {
    let strict = matches!(fstype, "proc" | "sysfs");
    let target = if strict {
        resolve::directory_without_links(&root.fd, &mount.destination)?
    } else {
        resolve::directory(&root.fd, &mount.destination)?
    };
    if !strict {
        check_overmount(root, &target)?;
    }
    let context = FsContext::open(fstype)?;
    context.set("source", source)?;
    for (key, value) in data {
        match value {
            Some(value) => context.set(key, value)?,
            None => context.set_flag(key)?,
        }
    }
    if fstype == "tmpfs" && !data.iter().any(|(key, _)| key == "mode") {
        // The directory keeps the permissions that the image gave it.
        let mode = fs::fstat(&target)?.st_mode & 0o7777;
        context.set("mode", &format!("{mode:o}"))?;
    }
    if !mount.copy_up {
        let made = context.mount(mount.attributes.set)?;
        return finish(&made, &target, mount);
    }
    let made = context.mount(mount.attributes.set & !sys::attr::RDONLY)?;
    copyup::copy(&target, &made).wrap(|| "tmpcopyup")?;
    if mount.attributes.set & sys::attr::RDONLY != 0 {
        let set = sys::attr::RDONLY;
        sys::set_attributes(&made, MountAttr { set, ..MountAttr::default() }, false)?;
    }
    finish(&made, &target, mount)
}

fn bind(root: &Root, mount: &Mount, tree: OwnedFd) -> Result<()> {
    let is_directory = fs::fstat(&tree)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
    let target = if is_directory {
        resolve::directory(&root.fd, &mount.destination)?
    } else {
        resolve::file(&root.fd, &mount.destination)?
    };
    let whole_proc =
        fs::fstatfs(&tree)? == PROC_SUPER_MAGIC && mount.destination == Path::new("/proc");
    if !whole_proc {
        check_overmount(root, &target)?;
    }
    if !mount.propagation.iter().any(|p| p.kind == libc::MS_SHARED) {
        // Mounts that the container makes below must not appear on the host.
        propagate(&tree, Propagation { kind: libc::MS_SLAVE, recursive: true })?;
    }
    let MountAttr { set, clear, .. } = mount.attributes;
    if set | clear != 0 {
        sys::set_attributes(&tree, MountAttr { set, clear, ..MountAttr::default() }, false)?;
    }
    finish(&tree, &target, mount)
}

/// What all mounts have in common: recursive attributes, the attaching, propagation.
fn finish(made: &OwnedFd, target: &OwnedFd, mount: &Mount) -> Result<()> {
    if mount.recursive.set | mount.recursive.clear != 0 {
        sys::set_attributes(made, mount.recursive, true)?;
    }
    sys::attach(made, target)?;
    mount.propagation.iter().try_for_each(|p| propagate(made, *p))
}

fn remount(root: &Root, mount: &Mount) -> Result<()> {
    let target = resolve::existing(&root.fd, &mount.destination)?
        .ok_or_else(|| Error::new("remount: nothing is there"))?;
    sys::set_attributes(&target, mount.attributes, false).wrap(|| "remount")?;
    mount.propagation.iter().try_for_each(|p| propagate(&target, *p))
}

/// Refuses to mount over files of /proc, through whatever link they were reached: a forged
/// /proc/self/attr would swallow what is written there for security.
fn check_overmount(root: &Root, target: &OwnedFd) -> Result<()> {
    if fs::fstatfs(target)? != PROC_SUPER_MAGIC {
        return Ok(());
    }
    let real = descriptor_path(target)?;
    let top = descriptor_path(&root.fd)?;
    let inside = real.strip_prefix(&top).unwrap_or(&real);
    let allowed = inside
        .strip_prefix("proc")
        .is_ok_and(|file| PROC_OVERMOUNTS.iter().any(|ok| file == Path::new(ok)));
    if allowed {
        return Ok(());
    }
    Err(Error::new(format!("it would lie over /{}, a part of proc", inside.display())))
}

/// The path of what a descriptor names, by the host's /proc, which is still ours.
fn descriptor_path(fd: &OwnedFd) -> Result<PathBuf> {
    fs::readlinkat(fs::CWD, &PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())))
}
