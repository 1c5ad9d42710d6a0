//! Overlay mounts, by descriptors.
//!
//! Layers are handed to the kernel one by one (`lowerdir+`), as open directories where it takes
//! those (6.13), by name before (6.5), and as the one string of mount(2) before that. The string
//! ends at a page, some 200 layers; `lowerdir+` ends at 500.
//!
//! Overlay cannot be used everywhere: on top of another overlay (most CI containers), on file
//! systems without attributes, or without privilege. That is no error but an [`Outcome`], with the
//! kernel's reason: the caller copies instead, and says so.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    move_mount, unmount,
};

use crate::layer::XattrSpace;
use crate::{Context, Error, Result};

/// Most lower layers that the kernel stacks (OVL_MAX_STACK).
pub const MAX_LAYERS: usize = 500;

/// Bytes that mount(2) takes as options: a page, at least this.
const PAGE: usize = 4096;

/// Settings that keep what is in the upper directory plain: nothing in it refers to a lower layer.
const PLAIN: [(&str, &str); 3] =
    [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

/// What is stacked, topmost lower layer first.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// At least one, or two without an upper.
    pub lowers: &'a [PathBuf],
    /// Upper and work directory, on one file system; without, the mount is read-only.
    pub upper: Option<(&'a Path, &'a Path)>,
    /// Where overlay keeps its attributes.
    pub space: XattrSpace,
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome<T> {
    /// It is mounted.
    Mounted(T),
    /// Overlay cannot be used here; why.
    Impossible(String),
}

/// Mounts `layers` on the directory `target`.
///
/// Errors are failures of another kind than "not here": a layer is missing, the target is none.
pub fn mount(layers: Layers<'_>, target: &Path) -> Result<Outcome<()>> {
    let intent = || format!("mount overlay on {}", target.display());
    let place = open(target).wrap(intent)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    match detached(layers).wrap(intent)? {
        Outcome::Mounted(fd) => match move_mount(&fd, "", &place, "", flags) {
            Ok(()) => Ok(Outcome::Mounted(())),
            Err(e) => Err(Error::from(e).wrap("move_mount").wrap(intent())),
        },
        Outcome::Impossible(modern) => classic(layers, target, modern).wrap(intent),
    }
}

/// Mounts `layers` nowhere: the descriptor is the root of a file system that goes away with it.
pub fn detached(layers: Layers<'_>) -> Result<Outcome<OwnedFd>> {
    if layers.lowers.len() > MAX_LAYERS {
        let n = layers.lowers.len();
        return Ok(Outcome::Impossible(format!("{n} layers are more than the kernel stacks")));
    }
    let lowers = layers.lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>>>()?;
    let upper = layers.upper.map(|(u, w)| Ok::<_, Error>((open(u)?, open(w)?))).transpose()?;
    let mut reason = String::new();
    for by_fd in [true, false] {
        let context = match fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(context) => context,
            Err(e) => return Ok(Outcome::Impossible(format!("fsopen(\"overlay\"): {}", text(e)))),
        };
        match configure(&context, layers.space, &lowers, upper.as_ref(), by_fd) {
            Ok(fd) => return Ok(Outcome::Mounted(fd)),
            Err(e @ (Errno::NOENT | Errno::NOSPC | Errno::IO)) => return Err(e.into()),
            Err(e) => reason = messages(&context).unwrap_or_else(|| text(e)),
        }
    }
    if let (Some((upper_fd, work_fd)), Some((upper, work))) = (&upper, layers.upper) {
        // The kernel knows them by what we called them.
        reason = reason.replace(&proc_name(upper_fd), &upper.display().to_string());
        reason = reason.replace(&proc_name(work_fd), &work.display().to_string());
    }
    Ok(Outcome::Impossible(reason))
}

fn configure(
    context: &OwnedFd,
    space: XattrSpace,
    lowers: &[OwnedFd],
    upper: Option<&(OwnedFd, OwnedFd)>,
    by_fd: bool,
) -> rustix::io::Result<OwnedFd> {
    let set = |key: &str, dir: &OwnedFd| match by_fd {
        true => fsconfig_set_fd(context, key, dir),
        false => fsconfig_set_string(context, key, proc_name(dir)),
    };
    fsconfig_set_string(context, "source", "overlay")?;
    for (key, value) in PLAIN {
        fsconfig_set_string(context, key, value)?;
    }
    if space == XattrSpace::User {
        fsconfig_set_flag(context, "userxattr")?;
    }
    for lower in lowers {
        set("lowerdir+", lower)?;
    }
    if let Some((upper, work)) = upper {
        set("upperdir", upper)?;
        set("workdir", work)?;
    }
    fsconfig_create(context)?;
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// What the kernel wrote into the context; the first error of them.
fn messages(context: &OwnedFd) -> Option<String> {
    let mut buffer = [0; 1024];
    let mut found = None;
    while let Ok(n) = rustix::io::read(context, &mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..n]).trim().to_owned();
        if let Some(error) = line.strip_prefix("e ").filter(|_| found.is_none()) {
            found = Some(error.to_owned());
        }
    }
    found
}

/// mount(2), for kernels whose overlay does not know `lowerdir+`.
fn classic(layers: Layers<'_>, target: &Path, modern: String) -> Result<Outcome<()>> {
    let lowers = layers.lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = lowers.iter().map(proc_name).collect();
    let mut data = format!("lowerdir={}", names.join(":"));
    for (key, value) in PLAIN {
        data.push_str(&format!(",{key}={value}"));
    }
    if layers.space == XattrSpace::User {
        data.push_str(",userxattr");
    }
    let upper = layers.upper.map(|(u, w)| Ok::<_, Error>((open(u)?, open(w)?))).transpose()?;
    if let Some((upper, work)) = &upper {
        data.push_str(&format!(",upperdir={},workdir={}", proc_name(upper), proc_name(work)));
    }
    let data = match std::ffi::CString::new(data) {
        Ok(data) if data.as_bytes().len() < PAGE => data,
        _ => return Ok(Outcome::Impossible(modern)),
    };
    match rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), &*data) {
        Ok(()) => Ok(Outcome::Mounted(())),
        Err(e @ (Errno::NOENT | Errno::NOSPC | Errno::IO)) => Err(e.into()),
        Err(_) => Ok(Outcome::Impossible(modern)),
    }
}

/// Whether something is mounted on `path` itself.
pub fn is_mount_point(path: &Path) -> Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match fs::statx(CWD, path, flags, StatxFlags::TYPE) {
        Ok(stat) => Ok(stat.stx_attributes.contains(fs::StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(Error::from(e).wrap(format!("stat {}", path.display()))),
    }
}

/// Unmounts whatever is mounted on `path`, however often. Idempotent.
pub fn umount(path: &Path) -> Result<()> {
    while is_mount_point(path)? {
        unmount(path, UnmountFlags::NOFOLLOW).map_err(|e| {
            let hint = if e == Errno::BUSY { " (a process is still in it)" } else { "" };
            Error::new(format!("umount {}: {}{hint}", path.display(), text(e)))
        })?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).wrap(|| format!("open {}", path.display()))
}

fn proc_name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn text(e: Errno) -> String {
    Error::from(e).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    /// Detached mounts need no mount namespace of their own: they vanish with the descriptor.
    #[test]
    fn stacks_as_many_layers_as_the_kernel_takes() {
        if !rustix::process::geteuid().is_root() {
            return; // Mounting needs root.
        }
        let dir = Scratch::new("overlay");
        std::fs::create_dir(dir.path()).unwrap();
        let make = |name: String| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let lowers: Vec<PathBuf> = (0..=MAX_LAYERS).map(|n| make(format!("layer{n}"))).collect();
        for (n, lower) in lowers.iter().enumerate() {
            std::fs::write(lower.join(format!("file{n}")), "").unwrap();
        }
        for count in [1, 127, MAX_LAYERS, MAX_LAYERS + 1] {
            let (upper, work) = (make(format!("upper{count}")), make(format!("work{count}")));
            let lowers = &lowers[..count];
            let layers =
                Layers { lowers, upper: Some((&upper, &work)), space: XattrSpace::Trusted };
            match detached(layers).unwrap() {
                Outcome::Mounted(root) => {
                    assert!(count <= MAX_LAYERS);
                    let merged = std::fs::read_dir(proc_name(&root)).unwrap().count();
                    assert_eq!(merged, count);
                    std::fs::write(format!("{}/new", proc_name(&root)), "x").unwrap();
                    assert_eq!(std::fs::read(upper.join("new")).unwrap(), b"x");
                }
                // On top of another overlay, as in most CI containers, nothing can be mounted.
                Outcome::Impossible(why) => {
                    assert!(count > MAX_LAYERS || why.contains("not supported"), "{count}: {why}");
                }
            }
        }
    }
}
