//! Mounts of type `cgroup`: the container's view of its control groups.

use super::{Root, resolve};
use crate::cgroup::Cgroup;
use crate::cgroup::host::{Hierarchy, Host, Layout};
use crate::error::{Context, Error, Result};
use crate::plan::Plan;
use crate::plan::mounts::Mount;
use crate::plan::namespaces::Kind;
use crate::sys::fs;
use crate::sys::mount::{self as sys, FsContext, MountAttr};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Mounts cgroup2, or a tmpfs with a directory for each v1 hierarchy.
pub fn mount(root: &Root, mount: &Mount, plan: &Plan, groups: &Cgroup) -> Result<()> {
    let target = resolve::directory(&root.fd, &mount.destination)?;
    let detected;
    let host = match &plan.cgroup.host {
        Some(host) => host,
        // Without groups of its own, by --cgroup-manager=disabled, it sees the caller's.
        None => {
            detected = Host::detect()?.ok_or_else(|| {
                Error::new("this host has no cgroup hierarchy below /sys/fs/cgroup")
            })?;
            &detected
        }
    };
    let made = match host.layout {
        Layout::Unified if plan.cgroup.namespace => unified(mount)?,
        Layout::Unified => own_group(mount, plan, groups, &host.hierarchies)?,
        Layout::Legacy | Layout::Hybrid => {
            return legacy(&target, mount, plan, groups, &host.hierarchies);
        }
    };
    sys::attach(&made, &target)
}

/// Without a cgroup namespace a new mount would show the host's whole tree, and give all mounts of
/// it our options (`nsdelegate` among them): so it is a group that is bound, the container's, or,
/// read-only, the caller's where it has none (rootless).
fn own_group(
    mount: &Mount,
    plan: &Plan,
    groups: &Cgroup,
    hierarchies: &[Hierarchy],
) -> Result<OwnedFd> {
    let set = mount.attributes.set | forced(plan);
    let (path, set) = match (groups.unified_path(), hierarchies.iter().find(|h| h.unified)) {
        (Some(path), _) => (path.to_owned(), set),
        (None, Some(Hierarchy { mount, own, .. })) => {
            (mount.join(own.strip_prefix("/").unwrap_or(own)), set | sys::attr::RDONLY)
        }
        (None, None) => return Err(Error::new("this host has no cgroup2 below /sys/fs/cgroup")),
    };
    let tree = sys::clone_tree(fs::CWD, &path, false)?;
    leave_host(&tree, set)?;
    Ok(tree)
}

/// Gives a clone of the host's mount attributes of its own, and makes it a slave: the mount namespace
/// may be the host's, and what is mounted below must not show there.
fn leave_host(tree: &OwnedFd, set: u64) -> Result<()> {
    let attributes = MountAttr { set, propagation: libc::MS_SLAVE, ..MountAttr::default() };
    sys::set_attributes(tree, attributes, false)
}

/// Attributes of a bound group: to a user namespace's root that owns it, it would be open to write
/// to, without a cgroup namespace that says how far (CVE-2023-25809).
fn forced(plan: &Plan) -> u64 {
    if plan.namespaces.has(Kind::User) { sys::attr::RDONLY } else { 0 }
}

/// A mount of cgroup2 shows the tree from the root of our cgroup namespace on.
fn unified(mount: &Mount) -> Result<OwnedFd> {
    let context = FsContext::open("cgroup2")?;
    context.set("source", "cgroup")?;
    context.mount(mount.attributes.set)
}

fn legacy(
    target: &OwnedFd,
    mount: &Mount,
    plan: &Plan,
    groups: &Cgroup,
    hierarchies: &[Hierarchy],
) -> Result<()> {
    let context = FsContext::open("tmpfs")?;
    context.set("source", "tmpfs")?;
    context.set("mode", "755")?;
    let top = context.mount(mount.attributes.set & !sys::attr::RDONLY)?;
    sys::attach(&top, target)?;
    for hierarchy in hierarchies.iter().filter(|h| !h.unified) {
        one(&top, hierarchy, mount, plan, groups)
            .wrap(|| format!("cgroup {}", hierarchy.controllers.join(",")))?;
    }
    if mount.attributes.set & sys::attr::RDONLY != 0 {
        let attributes = MountAttr { set: sys::attr::RDONLY, ..MountAttr::default() };
        sys::set_attributes(&top, attributes, false)?;
    }
    Ok(())
}

fn one(
    top: &OwnedFd,
    hierarchy: &Hierarchy,
    mount: &Mount,
    plan: &Plan,
    groups: &Cgroup,
) -> Result<()> {
    let name = hierarchy.mount.file_name().unwrap_or_default();
    fs::mkdirat(top, Path::new(name), 0o755)?;
    let place = fs::openat(top, Path::new(name), libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let set = mount.attributes.set;
    let made = if plan.cgroup.namespace {
        let context = FsContext::open("cgroup")?;
        context.set("source", "cgroup")?;
        for controller in &hierarchy.controllers {
            match controller.strip_prefix("name=") {
                Some(name) => {
                    context.set_flag("none")?;
                    context.set("name", name)?;
                }
                None => context.set_flag(controller)?,
            }
        }
        context.mount(set)?
    } else {
        // Without a group of its own (rootless), the container is in the caller's.
        let own = hierarchy.own.strip_prefix("/").unwrap_or(&hierarchy.own);
        let callers = hierarchy.mount.join(own);
        let group = groups.path_of(&hierarchy.controllers).unwrap_or(&callers);
        let tree = sys::clone_tree(fs::CWD, group, false)?;
        let set = set | forced(plan);
        leave_host(&tree, set)?;
        tree
    };
    sys::attach(&made, &place)?;
    // `cpu` and `cpuacct` are found under both names where they share a hierarchy.
    for controller in hierarchy.controllers.iter().filter(|c| !c.starts_with("name=")) {
        if Path::new(controller) != Path::new(name) {
            fs::symlinkat(Path::new(name), top, Path::new(controller))?;
        }
    }
    Ok(())
}
