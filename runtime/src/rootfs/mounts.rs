//! Carrying out one entry of `mounts`.

use super::sources::{self, Opened};
use super::{Root, cgroup, copyup, propagate, resolve};
use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Result};
use crate::plan::Plan;
use crate::plan::mounts::{Mount, Propagation, Source};
use crate::sys::mount::{self as sys, FsContext, MountAttr};
use crate::sys::{self as kernel, fs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// The longest value that fsconfig(2) takes.
const LONGEST_VALUE: usize = 255;

/// What mount(2) reads of its data.
const PAGE: usize = 4096;

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
    opened: Opened,
    plan: &Plan,
    groups: &Cgroup,
) -> Result<()> {
    match (&mount.source, sources::in_turn(mount, opened)?) {
        (Source::Filesystem { fstype, source, data }, opened) => {
            let user_namespace = match opened {
                Opened::UserNamespace(fd) => Some(fd),
                _ => None,
            };
            let kind = Kind { fstype, source, data };
            filesystem(root, mount, kind, user_namespace.as_ref())
        }
        (Source::Bind { .. }, Opened::Tree(tree)) => bind(root, mount, tree),
        (Source::Bind { .. }, Opened::Link(link)) => copy_link(root, mount, &link),
        (Source::Bind { .. }, _) => Err(Error::new("the source has not been opened")),
        (Source::Cgroup, _) => {
            cgroup::mount(root, mount, plan, groups)?;
            attach_later(root, mount)
        }
        (Source::Remount { data }, _) => remount(root, mount, data),
    }
}

/// A file system to be made: type, device or name, and its own options.
struct Kind<'a> {
    fstype: &'a str,
    source: &'a str,
    data: &'a [(String, Option<String>)],
}

fn filesystem(
    root: &Root,
    mount: &Mount,
    kind: Kind<'_>,
    user_namespace: Option<&OwnedFd>,
) -> Result<()> {
    let Kind { fstype, source, data } = kind;
    let strict = matches!(fstype, "proc" | "sysfs");
    let covers = fstype == "tmpfs"
        && !data.iter().any(|(key, _)| key == "mode")
        && resolve::existing(&root.fd, &mount.destination)?.is_some();
    let target = if strict {
        resolve::directory_without_links(&root.fd, &mount.destination)?
    } else {
        resolve::directory(&root.fd, &mount.destination)?
    };
    if !strict {
        check_overmount(root, &target)?;
    }
    let too_long = |v: &Option<String>| v.as_ref().is_some_and(|v| v.len() > LONGEST_VALUE);
    if data.iter().any(|(_, value)| too_long(value)) {
        return in_one_string(root, mount, &kind, &target);
    }
    let context = FsContext::open(fstype)?;
    context.set("source", source)?;
    for (key, value) in data {
        match value {
            Some(value) => context.set(key, value)?,
            None => context.set_flag(key)?,
        }
    }
    if covers {
        // The directory keeps the permissions that the image gave it; a new one has tmpfs's own,
        // 1777, for the engines that mount one for a user other than root.
        let mode = fs::fstat(&target)?.st_mode & 0o7777;
        context.set("mode", &format!("{mode:o}"))?;
    }
    let readonly = mount.attributes.set & sys::attr::RDONLY;
    let late = if mount.copy_up { readonly } else { 0 };
    let made = context.mount(mount.attributes.set & !late)?;
    if let (Some(map), Some(user_namespace)) = (&mount.idmap, user_namespace) {
        sources::shift(&made, user_namespace, map.recursive)?;
    }
    if mount.copy_up {
        copyup::copy(&target, &made, root.descriptors).wrap(|| "tmpcopyup")?;
    }
    if late != 0 {
        sys::set_attributes(&made, MountAttr { set: late, ..MountAttr::default() }, false)?;
    }
    finish(&made, &target, mount)
}

/// fsconfig(2) takes values below 256 bytes, mount(2) all options together below a page. Overlays
/// with many layers have values that only the latter takes.
fn in_one_string(root: &Root, mount: &Mount, kind: &Kind<'_>, target: &OwnedFd) -> Result<()> {
    let option = |(key, value): &(String, Option<String>)| match value {
        Some(value) => format!("{key}={value}"),
        None => key.clone(),
    };
    let data = kind.data.iter().map(option).collect::<Vec<_>>().join(",");
    if data.len() >= PAGE {
        return Err(Error::new(format!(
            "options: {} bytes of them for the file system; mount(2) takes less than {PAGE}",
            data.len()
        )));
    }
    if mount.idmap.is_some() || mount.copy_up {
        return Err(Error::new(format!(
            "options: idmap and tmpcopyup go with values of at most {LONGEST_VALUE} bytes alone"
        )));
    }
    let place = name_of(root, target);
    sys::mount_with_data(kind.source, &place, kind.fstype, &data)?;
    let made = resolve::existing(&root.fd, &mount.destination)?
        .ok_or_else(|| Error::new("it has vanished while it was mounted"))?;
    if fs::fstat(&made)?.st_dev == fs::fstat(target)?.st_dev {
        return Err(Error::new("another process changed the path while it was mounted"));
    }
    sys::set_attributes(&made, mount.attributes, false)?;
    attach_later(root, mount)
}

fn bind(root: &Root, mount: &Mount, tree: OwnedFd) -> Result<()> {
    let is_directory = fs::fstat(&tree)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
    let target = match (mount.links.keep_destination, is_directory) {
        (true, _) => resolve::itself(&root.fd, &mount.destination, is_directory)?,
        (false, true) => resolve::directory(&root.fd, &mount.destination)?,
        (false, false) => resolve::file(&root.fd, &mount.destination)?,
    };
    if is_directory != (fs::fstat(&target)?.st_mode & libc::S_IFMT == libc::S_IFDIR) {
        // move_mount(2) would say EINVAL; engines look for these words.
        return Err(kernel::failed(libc::ENOTDIR, || {
            "the source is a file and the destination is a directory".into()
        }));
    }
    let whole_proc =
        fs::fstatfs(&tree)? == PROC_SUPER_MAGIC && mount.destination == Path::new("/proc");
    if !whole_proc {
        check_overmount(root, &target)?;
    }
    if !mount.is_shared() {
        // Mounts that the container makes below must not appear on the host.
        propagate(&tree, Propagation { kind: libc::MS_SLAVE, recursive: true })?;
    }
    let MountAttr { set, clear, .. } = mount.attributes;
    if set | clear != 0 {
        let attributes = MountAttr { set, clear, ..MountAttr::default() };
        sys::set_attributes(&tree, attributes, false).map_err(locked)?;
    }
    finish(&tree, &target, mount)
}

/// Makes the link that the source is anew, unless it is there.
fn copy_link(root: &Root, mount: &Mount, link: &Path) -> Result<()> {
    let (directory, name) = resolve::parent(&root.fd, &mount.destination)?;
    match fs::symlinkat(link, &directory, name) {
        Err(e) if e.errno() == Some(libc::EEXIST) => match fs::readlinkat(&directory, name) {
            Ok(there) if there == link => Ok(()),
            _ => Err(e.wrap("copy-symlink: the image has something else there")),
        },
        other => other.wrap(|| "copy-symlink"),
    }
}

/// In a user namespace, what the mount got from outside cannot be taken from it.
fn locked(error: Error) -> Error {
    match error.errno() {
        Some(libc::EPERM) => error.wrap(
            "options: a flag of the source's mount is locked, because that belongs to another user namespace",
        ),
        _ => error,
    }
}

/// What all mounts have in common: recursive attributes, the attaching, propagation.
fn finish(made: &OwnedFd, target: &OwnedFd, mount: &Mount) -> Result<()> {
    if mount.recursive.set | mount.recursive.clear != 0 {
        sys::set_attributes(made, mount.recursive, true).map_err(locked)?;
    }
    sys::attach(made, target)?;
    mount.propagation.iter().try_for_each(|p| propagate(made, *p))
}

/// As [`finish`], for what is attached already.
fn attach_later(root: &Root, mount: &Mount) -> Result<()> {
    if mount.recursive.set | mount.recursive.clear == 0 && mount.propagation.is_empty() {
        return Ok(());
    }
    let made = resolve::existing(&root.fd, &mount.destination)?
        .ok_or_else(|| Error::new("nothing is there"))?;
    if mount.recursive.set | mount.recursive.clear != 0 {
        sys::set_attributes(&made, mount.recursive, true).map_err(locked)?;
    }
    mount.propagation.iter().try_for_each(|p| propagate(&made, *p))
}

fn remount(root: &Root, mount: &Mount, data: &[(String, Option<String>)]) -> Result<()> {
    let target = resolve::existing(&root.fd, &mount.destination)?
        .ok_or_else(|| Error::new("remount: nothing is there"))?;
    if !data.is_empty() {
        let context = FsContext::pick(&target).wrap(|| "remount")?;
        for (key, value) in data {
            match value {
                Some(value) => context.set(key, value).wrap(|| "remount")?,
                None => context.set_flag(key).wrap(|| "remount")?,
            }
        }
        context.reconfigure().wrap(|| "remount")?;
    }
    sys::set_attributes(&target, mount.attributes, false).map_err(locked).wrap(|| "remount")?;
    attach_later(root, mount)
}

/// Refuses to mount over files of /proc, through whatever link they were reached: a forged
/// /proc/self/attr would swallow what is written there for security.
fn check_overmount(root: &Root, target: &OwnedFd) -> Result<()> {
    if fs::fstatfs(target)? != PROC_SUPER_MAGIC {
        return Ok(());
    }
    let real = fs::readlinkat(fs::CWD, &name_of(root, target))?;
    let top = fs::readlinkat(fs::CWD, &name_of(root, &root.fd))?;
    let inside = real.strip_prefix(&top).unwrap_or(&real);
    let allowed = inside
        .strip_prefix("proc")
        .is_ok_and(|file| PROC_OVERMOUNTS.iter().any(|ok| file == Path::new(ok)));
    if allowed {
        return Ok(());
    }
    Err(Error::new(format!("it would lie over /{}, a part of proc", inside.display())))
}

/// The magic link to what a descriptor names, by a /proc that still is ours.
fn name_of(root: &Root, fd: &OwnedFd) -> PathBuf {
    Path::new(root.descriptors).join(fd.as_raw_fd().to_string())
}
