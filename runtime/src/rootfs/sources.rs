//! The sources of mounts: what has to be opened before the tree is built, and what then.
//!
//! A source is opened when its mount's turn comes, so that the kernel numbers the mounts in the order
//! that the configuration lists (mountinfo is sorted by that number since Linux 6.8), unless it must
//! be earlier: where the mount is to stay shared with the host's, and where the child gives up the
//! identity that can reach it, or leaves the namespace that it is in.
//!
//! The child opens what it can: in a new user namespace it still is the caller's user, but without
//! the caller's capabilities over the host. The rest is lent by the parent, on descriptors: sources
//! behind directories that only a capability opens, and id-mapped mounts, which need privilege over
//! the file system.

use crate::error::{Context, Error, Result};
use crate::idmap;
use crate::plan::mounts::{Idmap, Mount, Source};
use crate::plan::namespaces::{IdRange, Kind, Namespaces};
use crate::plan::{MountedIn, Plan, Rootfs};
use crate::procfs::{self, Proc};
use crate::sync::Child;
use crate::sys::mount::{self as sys, MountAttr, attr};
use crate::sys::process::{self, Fork};
use crate::sys::{fs, socket};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What has been opened for one mount.
pub enum Opened {
    /// Nothing: it is made anew.
    Nothing,
    /// Its detached tree.
    Tree(OwnedFd),
    /// The link that its source is, which is copied.
    Link(PathBuf),
    /// The user namespace that maps its ids.
    UserNamespace(OwnedFd),
    /// Nothing yet: the parent has it.
    Lent,
    /// Nothing yet: nothing is in the way of doing so when its turn comes.
    Later,
}

impl Opened {
    /// Its detached tree, if it has one.
    pub fn tree(&self) -> Option<&OwnedFd> {
        match self {
            Self::Tree(fd) => Some(fd),
            _ => None,
        }
    }

    /// What is open of it.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tree(fd) | Self::UserNamespace(fd) => Some(fd.as_fd()),
            Self::Nothing | Self::Link(_) | Self::Lent | Self::Later => None,
        }
    }
}

/// Opens what the child itself can open.
pub fn open(plan: &Rootfs, in_user_namespace: bool) -> Result<Vec<Opened>> {
    let in_order = plan.mounted_in == MountedIn::Own && !in_user_namespace;
    let one = |mount: &Mount| match &mount.source {
        _ if mount.idmap.is_some() && !mount.links.copy => Ok(Opened::Lent),
        Source::Bind { .. } if in_order && !mount.is_shared() => Ok(Opened::Later),
        Source::Bind { source, recursive } => match bind_source(mount, source, *recursive) {
            Err(e) if e.errno() == Some(libc::EACCES) && in_user_namespace => Ok(Opened::Lent),
            other => other,
        },
        _ => Ok(Opened::Nothing),
    };
    plan.mounts.iter().map(one).collect()
}

/// Asks the parent for what the child could not open.
pub fn borrow(plan: &Rootfs, opened: &mut [Opened], sync: &Child) -> Result<()> {
    for (number, (mount, slot)) in plan.mounts.iter().zip(opened).enumerate() {
        if matches!(slot, Opened::Lent) {
            let fd = sync.borrow_mount(Some(number))?;
            *slot = match mount.source {
                Source::Bind { .. } => Opened::Tree(fd),
                _ => Opened::UserNamespace(fd),
            };
        }
    }
    Ok(())
}

/// Opens what could wait until the mount's turn.
///
/// What could not is opened anew, to have a number that fits, where the kernel clones what is in no
/// namespace yet (Linux 6.15).
pub fn in_turn(mount: &Mount, opened: Opened) -> Result<Opened> {
    match (&mount.source, opened) {
        (Source::Bind { source, recursive }, Opened::Later) => {
            bind_source(mount, source, *recursive)
        }
        (Source::Bind { recursive, .. }, Opened::Tree(tree))
            if mount.is_shared() && mount.idmap.is_none() =>
        {
            match sys::clone_tree(&tree, Path::new(""), *recursive) {
                Err(e) if e.errno() == Some(libc::EINVAL) => Ok(Opened::Tree(tree)),
                other => other.map(Opened::Tree),
            }
        }
        (_, opened) => Ok(opened),
    }
}

fn bind_source(mount: &Mount, source: &Path, recursive: bool) -> Result<Opened> {
    let intent = || format!("open the source of {}", mount.destination.display());
    if mount.links.copy {
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        let there = fs::openat(fs::CWD, source, flags, 0).wrap(intent)?;
        if fs::fstat(&there)?.st_mode & libc::S_IFMT == libc::S_IFLNK {
            return fs::readlinkat(&there, Path::new("")).map(Opened::Link);
        }
    }
    tree(mount, source, recursive).map(Opened::Tree).wrap(intent)
}

fn tree(mount: &Mount, source: &Path, recursive: bool) -> Result<OwnedFd> {
    match mount.links.keep_source {
        true => {
            let flags = libc::O_PATH | libc::O_NOFOLLOW;
            sys::clone_tree(fs::openat(fs::CWD, source, flags, 0)?, Path::new(""), recursive)
        }
        false => sys::clone_tree(fs::CWD, source, recursive),
    }
}

/// The parent's side: opens what the mount `number` of the plan needs, or else the root file
/// system, for the child `pid`.
pub fn lend(plan: &Plan, number: Option<usize>, pid: i32, proc: Option<&Proc>) -> Result<OwnedFd> {
    let Some(number) = number else {
        let tree = sys::clone_tree(fs::CWD, &plan.rootfs.path, true);
        return tree.and_then(|tree| enslave(tree, plan)).wrap(|| "open the root file system");
    };
    let mount = plan
        .rootfs
        .mounts
        .get(number)
        .ok_or_else(|| Error::new(format!("the plan has no mount {number}")))?;
    let made = match (&mount.source, &mount.idmap) {
        (Source::Bind { source, recursive }, None) => {
            tree(mount, source, *recursive).and_then(|tree| enslave(tree, plan))
        }
        (Source::Bind { source, recursive }, Some(map)) => tree(mount, source, *recursive)
            .and_then(|tree| {
                shift(&tree, &user_namespace(map, plan, pid, proc)?, map.recursive)?;
                Ok(tree)
            }),
        (_, Some(map)) => user_namespace(map, plan, pid, proc),
        (_, None) => Err(Error::new("nothing of it has to be opened")),
    };
    made.wrap(|| format!("mount {}", mount.destination.display()))
}

/// The kernel makes the mounts that a child in a new user namespace is born with slaves of ours, so
/// that none of its own shows up on the host (mount_namespaces(7)); a lent one is to be no other.
fn enslave(tree: OwnedFd, plan: &Plan) -> Result<OwnedFd> {
    if plan.namespaces.has(Kind::User) {
        let attributes = MountAttr { propagation: libc::MS_SLAVE, ..MountAttr::default() };
        sys::set_attributes(&tree, attributes, true)?;
    }
    Ok(tree)
}

/// Has the files of a detached mount appear with the owners that the user namespace maps to.
pub fn shift(mount: &OwnedFd, user_namespace: &OwnedFd, recursive: bool) -> Result<()> {
    let userns_fd = user_namespace.as_raw_fd() as u64;
    let attributes = MountAttr { set: attr::IDMAP, userns_fd, ..MountAttr::default() };
    sys::set_attributes(mount, attributes, recursive).map_err(|e| {
        let hint = match e.errno() {
            Some(libc::EINVAL) => {
                "idmap: this kernel or file system has no id-mapped mounts (Linux 5.12; tmpfs 6.3, overlay 5.19)"
            }
            Some(libc::EPERM) => "idmap: it needs CAP_SYS_ADMIN over the file system, and no idmap yet",
            _ => "idmap",
        };
        e.wrap(hint)
    })
}

/// A user namespace with these maps: the container's own where it has them, else one that exists
/// as a descriptor alone.
fn user_namespace(map: &Idmap, plan: &Plan, pid: i32, proc: Option<&Proc>) -> Result<OwnedFd> {
    let own = &plan.namespaces;
    match &map.maps {
        Some((uids, gids)) if *uids != own.uid_map || *gids != own.gid_map => {
            new_user_namespace(uids, gids, procfs::given(proc)?)
        }
        _ => open_user_namespace(pid),
    }
}

fn open_user_namespace(pid: i32) -> Result<OwnedFd> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/{}", Kind::User.file()));
    fs::openat(fs::CWD, &path, libc::O_RDONLY, 0)
}

fn new_user_namespace(uids: &[IdRange], gids: &[IdRange], proc: &Proc) -> Result<OwnedFd> {
    let (ours, theirs) = socket::pair()?;
    let flags = libc::CLONE_NEWUSER as u64;
    let (pid, pidfd) = match process::clone(flags, None)? {
        Fork::Parent(pid, pidfd) => (pid, pidfd),
        Fork::Child => {
            drop(ours);
            // It holds the namespace until the parent is done with it, or gone.
            drop(socket::receive(&theirs, 1));
            process::exit(0)
        }
    };
    let maps = Namespaces { uid_map: uids.into(), gid_map: gids.into(), ..Namespaces::default() };
    let opened = idmap::write(pid, &maps, proc).and_then(|()| open_user_namespace(pid));
    process::pidfd_kill(&pidfd, libc::SIGKILL)?;
    process::waitpid(pid, 0)?;
    opened.wrap(|| "idmap: make a user namespace for it")
}
