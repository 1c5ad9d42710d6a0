//! What a container has from outside of itself, which criu neither saves nor makes: sources of
//! bind mounts, and namespaces that it shares with others (for open files, see
//! [`super::descriptors`]).
//!
//! `checkpoint` gives each a name, and `restore` says under the same name what takes its place.

use super::rpc::{ExternalMount, InheritFd, JoinNamespace};
use crate::cgroup::Cgroup;
use crate::cgroup::host::Layout;
use crate::error::{Context, Error, Result};
use crate::plan::mounts::{Mount, Source};
use crate::plan::namespaces::{Kind, Namespaces};
use crate::plan::{Plan, Rootfs};
use crate::rootfs::resolve;
use crate::sys::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The mounts of the container whose sources are outside, by their paths inside, with the sources.
///
/// Hidden directories lie under a file system of their own, which criu saves; only `is_file` can
/// tell them from hidden files. A name that the images do not have means nothing to criu.
pub fn mounts(
    plan: &Plan,
    groups: &Cgroup,
    is_file: impl Fn(&Path) -> bool,
) -> Result<Vec<ExternalMount>> {
    let rootfs = &plan.rootfs;
    let root = fs::openat(fs::CWD, &rootfs.path, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let mut all = Vec::new();
    for mount in &rootfs.mounts {
        match &mount.source {
            Source::Bind { source, recursive } => {
                let inside = real_path(&root, &mount.destination);
                all.push(external(&inside, source)?);
                if *recursive {
                    below(source, &inside, &mut all)?;
                }
            }
            Source::Cgroup => bound_groups(mount, plan, groups, &mut all)?,
            _ => {}
        }
    }
    for path in rootfs.masked.iter().filter(|path| is_file(path)) {
        all.push(external(path, Path::new("/dev/null"))?);
    }
    // There device nodes are mounts of the host's.
    if plan.namespaces.has(Kind::User) {
        for device in &rootfs.devices {
            all.push(external(&device.path, &device.path)?);
        }
    }
    Ok(all)
}

fn external(inside: &Path, source: &Path) -> Result<ExternalMount> {
    let text = |path: &Path| {
        let text = path.to_str().map(String::from);
        text.ok_or_else(|| Error::new(format!("{path:?} is not UTF-8, which criu's images want")))
    };
    Ok(ExternalMount { key: text(inside)?, val: text(source)? })
}

/// The path without links, as criu finds it in the mount table. What exists only in the container's
/// own mounts has none that we could follow from here.
fn real_path(root: &OwnedFd, path: &Path) -> PathBuf {
    let found = resolve::existing(root, path).ok().flatten();
    let link = found.map(|fd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())));
    let top = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
    let read = |path: &Path| fs::readlinkat(fs::CWD, path).ok();
    link.and_then(|link| {
        let (real, top) = (read(&link)?, read(&top)?);
        Some(Path::new("/").join(real.strip_prefix(top).ok()?))
    })
    .unwrap_or_else(|| path.into())
}

/// The mounts below the source of a recursive bind mount, which came along.
fn below(source: &Path, inside: &Path, all: &mut Vec<ExternalMount>) -> Result<()> {
    let source = std::fs::canonicalize(source).wrap(|| format!("open {}", source.display()))?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").wrap(|| "read our mounts")?;
    for line in table.lines() {
        let Some(point) = line.split(' ').nth(4).map(unescape) else { continue };
        if let Ok(rest) = point.strip_prefix(&source)
            && !rest.as_os_str().is_empty()
        {
            all.push(external(&inside.join(rest), &point)?);
        }
    }
    Ok(())
}

/// The mount table writes blanks as `\040` (proc_pid_mountinfo(5)).
fn unescape(field: &str) -> PathBuf {
    let mut text = String::new();
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => text.push(code.into()),
            None => text.push('\\'),
        }
        rest = if code.is_some() { &after[3..] } else { after };
    }
    text.push_str(rest);
    text.into()
}

/// The groups in a mount of type cgroup that are bound there. A v2 mount of a cgroup namespace is
/// criu's own to make.
fn bound_groups(
    mount: &Mount,
    plan: &Plan,
    groups: &Cgroup,
    all: &mut Vec<ExternalMount>,
) -> Result<()> {
    let unified = plan.cgroup.layout() == Some(Layout::Unified);
    for place in groups.places() {
        match (unified, place.unified) {
            (true, true) if !plan.cgroup.namespace => {
                all.push(external(&mount.destination, &place.path)?);
            }
            (false, false) => {
                all.push(external(&mount.destination.join(place.name()), &place.path)?);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The name that criu's images give a namespace that is shared, for the kinds that it can take as
/// a descriptor.
fn shared_key(kind: Kind) -> Option<(&'static str, &'static str)> {
    match kind {
        Kind::Network => Some(("net", "extRootNetNS")),
        Kind::Pid => Some(("pid", "extRootPidNS")),
        _ => None,
    }
}

/// Refuses what criu can neither leave out nor join again.
pub fn check_namespaces(namespaces: &Namespaces) -> Result<()> {
    if !namespaces.has(Kind::Mount) {
        return Err(Error::new(
            "linux.namespaces has no \"mount\": CRIU cannot restore mounts of a namespace that others use",
        ));
    }
    match namespaces
        .join
        .iter()
        .find(|(kind, _)| matches!(kind, Kind::User | Kind::Mount | Kind::Cgroup))
    {
        Some((kind, path)) => Err(Error::new(format!(
            "linux.namespaces: the {} namespace is joined ({}), which CRIU cannot restore",
            kind.name(),
            path.display()
        ))),
        None => Ok(()),
    }
}

/// Namespaces to leave out of the images.
pub fn left_out(namespaces: &Namespaces) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (kind, path) in &namespaces.join {
        if let Some((name, key)) = shared_key(*kind) {
            let file = std::fs::metadata(path)
                .wrap(|| format!("linux.namespaces: open the {} namespace", kind.name()))?;
            all.push(format!("{name}[{}]:{key}", file.ino()));
        }
    }
    Ok(all)
}

/// The same namespaces to be joined, and the descriptors that must stay open meanwhile.
pub fn joined(
    namespaces: &Namespaces,
) -> Result<(Vec<InheritFd>, Vec<JoinNamespace>, Vec<OwnedFd>)> {
    let (mut inherited, mut joined, mut open) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, fd) in crate::namespaces::open(namespaces)? {
        match shared_key(kind) {
            Some((_, key)) => {
                inherited.push(InheritFd { key: key.into(), fd: fd.as_raw_fd() });
                open.push(fd);
            }
            None => {
                let path = namespaces.path(kind).and_then(Path::to_str);
                let path = path.ok_or_else(|| Error::new("a namespace's path is not UTF-8"))?;
                joined.push(JoinNamespace { ns: kind.file().into(), ns_file: path.into() });
            }
        }
    }
    Ok((inherited, joined, open))
}

/// Makes the places in the root file system where mounts from outside will lie, as `create` would.
pub fn make_mount_points(rootfs: &Rootfs) -> Result<()> {
    let root = fs::openat(fs::CWD, &rootfs.path, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    for (i, mount) in rootfs.mounts.iter().enumerate() {
        let covered = |earlier: &Mount| mount.destination.starts_with(&earlier.destination);
        if rootfs.mounts[..i].iter().any(covered) {
            continue;
        }
        let is_file = match &mount.source {
            Source::Bind { source, .. } => !source.is_dir(),
            _ => false,
        };
        let made = match is_file {
            true => resolve::file(&root, &mount.destination),
            false => resolve::directory(&root, &mount.destination),
        };
        match made {
            // On a read-only root file system it must exist already; criu will tell.
            Err(e) if e.errno() != Some(libc::EROFS) => {
                return Err(e.wrap(format!("make {}", mount.destination.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_in_the_mount_table_are_read() {
        assert_eq!(unescape(r"/a\040b\134c"), Path::new(r"/a b\c"));
    }

    #[test]
    fn what_cannot_be_joined_again_is_refused() {
        let linux = r#"{"namespaces":[{"type":"mount","path":"/m"}]}"#;
        let namespaces = Namespaces::new(&serde_json::from_str(linux).unwrap()).unwrap();
        let e = check_namespaces(&namespaces).unwrap_err().to_string();
        assert!(e.contains("mount") && e.contains("/m"), "{e}");
    }
}
