//! A /proc for what must not be written anywhere else: labels, id maps, kernel parameters, scores.
//!
//! Whoever can mount something over a file of /proc, or put a link in its place, can have a label
//! swallowed, or have it written to where it does harm (CVE-2019-16884, CVE-2025-52881). So what is
//! written goes through a procfs that nobody else has: mounted detached, in no tree, under nobody's
//! hands. A kernel that forbids it (without privilege, or in a container whose own /proc has parts
//! hidden) leaves the /proc that is there. It must then be the root of a procfs, and no step of a
//! path below it may cross into another mount or through a magic link: what lies over a file of it
//! is an error, never written to.
//!
//! It is opened once, by the parent, and only if the plan has something to write. The child inherits
//! it, and lets go of it before it becomes the container's.

use crate::error::{Context, Error, Result};
use crate::plan::mounts::Mount;
use crate::plan::namespaces::Kind;
use crate::plan::process::Process;
use crate::plan::{MountedIn, Plan};
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::{FsContext, attr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// The inode number of a procfs's root directory.
const PROC_ROOT_INO: u64 = 1;

/// The root directory of a procfs that can be trusted.
#[derive(Debug)]
pub struct Proc {
    top: OwnedFd,
    fallback: Option<String>,
}

impl Proc {
    /// Mounts a private procfs, or verifies the one at /proc.
    pub fn open() -> Result<Self> {
        match private() {
            Ok(top) => Ok(Self { top, fallback: None }),
            Err(refused) => {
                let top = verified(Path::new("/proc"))?;
                let fallback =
                    format!("the procfs at /proc, verified, not one of our own: {refused}");
                Ok(Self { top, fallback: Some(fallback) })
            }
        }
    }

    /// Why it is the procfs at /proc, if it is.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Writes `text` to the file at `path`, relative to the top, in one write(2).
    pub fn write(&self, path: &str, text: &[u8]) -> Result<()> {
        let path = Path::new(path);
        let file = fs::openat2(&self.top, path, libc::O_WRONLY, 0, Resolve::ON_THIS_MOUNT);
        let file = file.map_err(|e| match e.errno() {
            Some(libc::EXDEV) => e.wrap("something is mounted over a part of /proc"),
            _ => e,
        })?;
        fs::write_once(&file, text)
    }
}

impl AsFd for Proc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }
}

/// A procfs for making this container, if there is anything to write, or if the child will be where
/// the /proc is somebody else's.
pub fn for_plan(plan: &Plan) -> Result<Option<Proc>> {
    let namespaces = &plan.namespaces;
    let wanted = !plan.sysctl.is_empty()
        || namespaces.makes(Kind::User)
        || !namespaces.offsets.is_empty()
        || plan.rootfs.mounted_in == MountedIn::Joined
        || plan.rootfs.mounts.iter().any(maps_ids)
        || wanted_by(&plan.process);
    wanted.then(Proc::open).transpose()
}

/// A procfs for a process that joins a container, if there is anything to write.
pub fn for_process(process: &Process) -> Result<Option<Proc>> {
    wanted_by(process).then(Proc::open).transpose()
}

/// Is a user namespace made for the mount alone?
fn maps_ids(mount: &Mount) -> bool {
    mount.idmap.as_ref().is_some_and(|idmap| idmap.maps.is_some())
}

fn wanted_by(process: &Process) -> bool {
    process.apparmor.is_some() || process.selinux.is_some() || process.oom_score_adj.is_some()
}

/// What a step that writes is given: it is there, because the plan was asked ([`for_plan`]).
pub fn given(proc: Option<&Proc>) -> Result<&Proc> {
    proc.ok_or_else(|| Error::new("no procfs was opened for what is to be written to it"))
}

fn private() -> Result<OwnedFd> {
    FsContext::open("proc")?.mount(attr::NOSUID | attr::NODEV | attr::NOEXEC)
}

/// Opens `path`, if it is the root directory of a procfs.
fn verified(path: &Path) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let top = fs::openat(fs::CWD, path, flags, 0).wrap(|| "open a procfs (is /proc mounted?)")?;
    let is_root =
        fs::fstatfs(&top)? == PROC_SUPER_MAGIC && fs::fstat(&top)?.st_ino == PROC_ROOT_INO;
    match is_root {
        true => Ok(top),
        false => {
            Err(Error::new(format!("{path:?} is not the root of a procfs: it cannot be trusted")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(top: OwnedFd) -> Proc {
        Proc { top, fallback: None }
    }

    #[test]
    fn only_the_root_of_a_procfs_is_verified() {
        assert!(verified(Path::new("/proc")).is_ok());
        for other in ["/", "/proc/self", "/proc/sys", "/dev", "/proc/self/root/proc/1"] {
            assert!(verified(Path::new(other)).is_err(), "{other}");
        }
    }

    #[test]
    fn a_verified_procfs_is_written_to_and_not_left() {
        let proc = through(verified(Path::new("/proc")).unwrap());
        proc.write("thread-self/comm", b"written").unwrap();
        assert_eq!(std::fs::read_to_string("/proc/thread-self/comm").unwrap(), "written\n");
        // Through a magic link, and out of it.
        for path in ["self/root/dev/null", "self/exe", "../dev/null", "/dev/null"] {
            assert!(proc.write(path, b"").is_err(), "{path}");
        }
    }

    #[test]
    fn something_mounted_over_a_part_is_an_error() {
        // A directory of another file system stands for a mount over a part of /proc.
        let top = fs::openat(fs::CWD, Path::new("/"), libc::O_PATH, 0).unwrap();
        let e = through(top).write("proc/thread-self/comm", b"x").unwrap_err().to_string();
        assert!(e.starts_with("something is mounted over a part of /proc"), "{e}");
    }
}
