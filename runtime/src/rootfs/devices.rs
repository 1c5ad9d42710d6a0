//! Device nodes and the links of `/dev` (config-linux.md, Default Devices; Dev symbolic links).

use super::{Root, resolve};
use crate::error::{Context, Error, Result};
use crate::plan::Plan;
use crate::plan::devices::Device;
use crate::plan::mounts::Source;
use crate::plan::namespaces::Kind;
use crate::sys::{fs, mount};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Makes the nodes and links, unless `/dev` is somebody else's directory.
pub fn create(root: &Root, plan: &Plan) -> Result<()> {
    let bound = |m: &crate::plan::mounts::Mount| {
        m.destination == Path::new("/dev") && matches!(m.source, Source::Bind { .. })
    };
    if plan.rootfs.mounts.iter().any(bound) {
        return Ok(());
    }
    // A user namespace may not make device nodes (mknod(2)): the host's are mounted instead.
    let by_mount = plan.namespaces.has(Kind::User);
    // The nodes' modes are what the configuration says, whatever our umask is.
    let mask = crate::sys::process::umask(0);
    let made = create_all(root, plan, by_mount);
    crate::sys::process::umask(mask);
    made
}

fn create_all(root: &Root, plan: &Plan, by_mount: bool) -> Result<()> {
    let dev = resolve::directory(&root.fd, Path::new("/dev"))?;
    for device in &plan.rootfs.devices {
        let path = &device.path;
        let done = match path.strip_prefix("/dev") {
            // The usual case needs no walk: a name directly in /dev.
            Ok(name) if name.components().count() == 1 => one(root, &dev, name, device, by_mount),
            _ => resolve::parent(&root.fd, path)
                .and_then(|(at, name)| one(root, &at, name, device, by_mount)),
        };
        done.wrap(|| format!("make device {}", path.display()))?;
    }
    let kcore = Path::new("/proc/kcore");
    let core = kcore.exists().then_some(("/dev/core", "/proc/kcore"));
    for (path, target) in LINKS.iter().copied().chain(core) {
        let name = Path::new(path).strip_prefix("/dev").unwrap_or(Path::new(path));
        link(&dev, name, Path::new(target)).wrap(|| format!("make link {path}"))?;
    }
    Ok(())
}

fn one(root: &Root, at: &OwnedFd, name: &Path, device: &Device, by_mount: bool) -> Result<()> {
    let rdev = libc::makedev(device.major, device.minor);
    // A pipe is no device, and anybody may make one.
    let by_mount = by_mount && device.mode & libc::S_IFMT != libc::S_IFIFO;
    let made = match by_mount {
        false => fs::mknodat(at, name, device.mode, rdev),
        true => bind(root, at, name, device),
    };
    match made {
        Ok(()) if by_mount => Ok(()),
        Ok(()) if (device.uid, device.gid) == (0, 0) => Ok(()),
        Ok(()) => fs::lchownat(at, name, device.uid, device.gid),
        // An image may bring the node along.
        Err(e) if e.errno() == Some(libc::EEXIST) => keep(at, name, device),
        Err(e) if e.errno() == Some(libc::EPERM) && !by_mount => bind(root, at, name, device),
        Err(e) => Err(e),
    }
}

/// Accepts a node that is there already, if it is the right one.
fn keep(at: impl AsFd, name: &Path, device: &Device) -> Result<()> {
    let st = fs::lstatat(&at, name)?;
    let same_kind = st.st_mode & libc::S_IFMT == device.mode & libc::S_IFMT;
    let rdev = libc::makedev(device.major, device.minor);
    if !same_kind || (st.st_rdev != rdev && device.mode & libc::S_IFMT != libc::S_IFIFO) {
        return Err(Error::new("the image has another file of that name"));
    }
    // It is no link, and nothing else runs in the container yet.
    fs::chmodat(&at, name, device.mode & 0o7777)?;
    fs::lchownat(&at, name, device.uid, device.gid)
}

/// Mounts the host's node over an empty file.
fn bind(root: &Root, at: impl AsFd, name: &Path, device: &Device) -> Result<()> {
    let host = fs::openat(fs::CWD, &device.path, libc::O_PATH | libc::O_NOFOLLOW, 0)
        .wrap(|| "open the host's device")?;
    let st = fs::fstat(&host)?;
    let right = st.st_mode & libc::S_IFMT == device.mode & libc::S_IFMT
        && st.st_rdev == libc::makedev(device.major, device.minor);
    if !right {
        return Err(Error::new(format!(
            "the host's {} is not {}:{}, and a user namespace cannot make a device",
            device.path.display(),
            device.major,
            device.minor
        )));
    }
    match fs::mknodat(&at, name, libc::S_IFREG, 0) {
        Err(e) if e.errno() != Some(libc::EEXIST) => return Err(e),
        _ => {}
    }
    let target = fs::openat(&at, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    let tree = root.clone_file(&host)?;
    mount::attach(&tree, &target)
}

fn link(dev: &OwnedFd, name: &Path, target: &Path) -> Result<()> {
    match fs::symlinkat(target, dev, name) {
        Err(e) if e.errno() == Some(libc::EEXIST) => {
            // `/dev/ptmx` may also be a node or a mount; whatever else is there, is the image's.
            let there = fs::readlinkat(dev, name).ok();
            if there.as_deref() == Some(target) || name == Path::new("ptmx") {
                return Ok(());
            }
            fs::unlinkat(dev, name, 0)?;
            fs::symlinkat(target, dev, name)
        }
        other => other,
    }
}
