//! The container's file system tree: built on descriptors inside the new mount namespace, then
//! entered with pivot_root(2).
//!
//! The image is hostile: any path in it may be a link to anywhere, and may change while we look.
//! So every path inside is resolved once, below the root's descriptor, to a descriptor
//! ([`resolve`]); what is mounted is made detached, finished, and only then attached to it.

pub mod cgroup;
pub mod console;
pub mod copyup;
pub mod devices;
pub mod masks;
pub mod mounts;
pub mod resolve;
pub mod sources;

use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Result};
use crate::plan::mounts::Propagation;
use crate::plan::{MountedIn, Plan, Rootfs};
use crate::procfs::{self, Proc};
use crate::sync::Child;
use crate::sys::fs::Resolve;
use crate::sys::mount::{self as sys, MountAttr};
use crate::sys::{self as kernel, fs, process};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What must be opened while the child still has the identity that can reach it.
///
/// In a new user namespace the child is the caller's user until it becomes the mapped root, whom
/// the host's directories need not let through.
pub struct Opened {
    /// None until the parent has lent it.
    tree: Option<OwnedFd>,
    /// Where the tree is attached; in a namespace that is joined it is looked up there.
    place: Option<OwnedFd>,
    /// One for each mount.
    sources: Vec<sources::Opened>,
    room: Room,
}

/// Our limit of open files, as it is to be again once the sources are mounted.
struct Room(Option<(u64, u64)>);

/// Descriptors that are in use besides those of sources.
const OTHERS: u64 = 64;

impl Room {
    /// Raises the limit where there are more sources than it has room for.
    fn make(mounts: usize) -> Result<Self> {
        let needed = mounts as u64 + OTHERS;
        if needed < OTHERS * 8 {
            // No system has so low a limit that asking would be worth the call.
            return Ok(Self(None));
        }
        let (soft, hard) = process::rlimit(libc::RLIMIT_NOFILE)?;
        if needed <= soft {
            return Ok(Self(None));
        }
        if needed > hard {
            return Err(Error::new(format!(
                "mounts: {mounts} of them need {needed} descriptors; RLIMIT_NOFILE allows {hard}: raise it"
            )));
        }
        process::set_rlimit(0, libc::RLIMIT_NOFILE, needed, hard)?;
        Ok(Self(Some((soft, hard))))
    }

    /// The program inherits the caller's limit, not ours.
    fn give_back(&self) -> Result<()> {
        match self.0 {
            Some((soft, hard)) => process::set_rlimit(0, libc::RLIMIT_NOFILE, soft, hard),
            None => Ok(()),
        }
    }
}

impl Opened {
    /// All that is open.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let sources = self.sources.iter().filter_map(sources::Opened::descriptor);
        self.tree.iter().chain(&self.place).map(AsFd::as_fd).chain(sources)
    }

    /// The mount of the root file system, which is in no namespace yet.
    pub fn tree(&self) -> Result<BorrowedFd<'_>> {
        let missing = || Error::new("the root file system was not opened");
        self.tree.as_ref().map(AsFd::as_fd).ok_or_else(missing)
    }

    /// Has no mount that a user namespace gets show anything outside of it, as the kernel has it for
    /// those that one is born with (mount_namespaces(7)).
    pub fn enslave(&self) -> Result<()> {
        let slave = Propagation { kind: libc::MS_SLAVE, recursive: true };
        self.sources
            .iter()
            .filter_map(sources::Opened::tree)
            .try_for_each(|tree| propagate(tree, slave))
    }

    /// Gives back the limit of open files, by who has opened this for somebody else.
    pub fn give_room_back(&self) -> Result<()> {
        self.room.give_back()
    }

    /// Asks the parent for what the child could not open.
    pub fn complete(&mut self, plan: &Rootfs, sync: &Child) -> Result<()> {
        if self.tree.is_none() {
            self.tree = Some(sync.borrow_mount(None)?);
        }
        sources::borrow(plan, &mut self.sources, sync)
    }
}

/// The root file system's mount.
pub struct Root {
    /// Its root directory.
    pub fd: OwnedFd,
    /// Where our descriptors are named, by a /proc that nobody in the container can forge.
    pub descriptors: &'static str,
    /// Do others use the mount namespace, too?
    shared: bool,
}

impl Root {
    /// Clones a file of the host's, detached, for the container.
    ///
    /// Where others use the mount namespace, too, it leaves the peer group of what it comes from:
    /// what is mounted over it here would be mounted there as well.
    pub fn clone_file(&self, file: impl AsFd) -> Result<OwnedFd> {
        let tree = sys::clone_tree(file, Path::new(""), false)?;
        if self.shared {
            propagate(&tree, Propagation { kind: libc::MS_PRIVATE, recursive: false })?;
        }
        Ok(tree)
    }
}

/// Clones the root file system, and those sources of bind mounts that cannot wait, detached.
///
/// This comes before the tree is made a slave of the host's, since a clone keeps the peer group
/// that its origin has now: a mount that asks to be shared stays shared with the host.
pub fn open(plan: &Rootfs, in_user_namespace: bool) -> Result<Opened> {
    let (tree, at) = match sys::clone_tree(fs::CWD, &plan.path, true) {
        // What the host's directories hide from us cannot be a place for us either. Our root can:
        // it is the one directory that everybody has, and pivot_root(2) replaces it anyway.
        Err(e) if e.errno() == Some(libc::EACCES) && in_user_namespace => (None, Path::new("/")),
        other => (Some(other.wrap(|| "open the root file system")?), plan.path.as_path()),
    };
    let place = match plan.mounted_in {
        MountedIn::Own | MountedIn::Callers => Some(place(at)?),
        MountedIn::Joined => None,
    };
    let room = Room::make(plan.mounts.len())?;
    Ok(Opened { tree, place, sources: sources::open(plan, in_user_namespace)?, room })
}

/// Attaches the root file system to itself, so that it is a mount, and mounts everything in it.
///
/// `proc` is a procfs that can be trusted: needed where the mount namespace is a joined one.
pub fn build(plan: &Plan, opened: Opened, groups: &Cgroup, proc: Option<&Proc>) -> Result<Root> {
    let rootfs = &plan.rootfs;
    let tree = opened.tree.ok_or_else(|| Error::new("the root file system was not opened"))?;
    let propagation = before_pivot(rootfs.propagation);
    let descriptors = match rootfs.mounted_in {
        MountedIn::Joined => {
            // The /proc that is there may be anybody's. From here to the end ours is the directory.
            fs::fchdir(procfs::given(proc)?)?;
            "self/fd"
        }
        _ => "/proc/self/fd",
    };
    if rootfs.mounted_in == MountedIn::Own {
        sys::set_propagation(Path::new("/"), libc::MS_REC | libc::MS_SLAVE)
            .wrap(|| "keep the container's mounts away from the host")?;
    }
    propagate(&tree, propagation)?;
    let place = match opened.place {
        Some(place) => place,
        None => place_in_joined(&rootfs.path)?,
    };
    sys::attach(&tree, &place)
        .wrap(|| format!("mount the root file system {}", rootfs.path.display()))?;
    if rootfs.mounted_in.is_shared() {
        // Below a mount that is shared it has become shared, too.
        propagate(&tree, propagation)?;
    }
    let root = Root { fd: tree, descriptors, shared: rootfs.mounted_in.is_shared() };
    for (mount, source) in rootfs.mounts.iter().zip(opened.sources) {
        mounts::apply(&root, mount, source, plan, groups)
            .wrap(|| format!("mount {}", mount.destination.display()))?;
    }
    opened.room.give_back()?;
    devices::create(&root, plan)?;
    masks::apply(&root, rootfs)?;
    resolve::directory(&root.fd, &plan.process.cwd)
        .wrap(|| format!("make the working directory {}", plan.process.cwd.display()))
        // On a read-only root file system it must exist already; chdir(2) will tell.
        .map(drop)
        .or_else(|e| if e.errno() == Some(libc::EROFS) { Ok(()) } else { Err(e) })?;
    if rootfs.mounted_in == MountedIn::Joined {
        fs::chdir(Path::new("/"))?;
    }
    Ok(root)
}

fn place(path: &Path) -> Result<OwnedFd> {
    fs::openat(fs::CWD, path, libc::O_PATH | libc::O_DIRECTORY, 0)
        .wrap(|| "open the root file system")
}

/// The directory of the same path in the joined namespace. None is made there, and no link of that
/// namespace leads us to another one.
fn place_in_joined(path: &Path) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    fs::openat2(fs::CWD, path, flags, 0, Resolve::NO_LINKS).wrap(|| {
        format!(
            "the mount namespace of linux.namespaces must have the directory {}, over which the root file system is mounted there",
            path.display()
        )
    })
}

/// A private or slave tree is so from the start. "shared" means a peer group of the container's own
/// (config-linux.md, Rootfs Mount Propagation), from which pivot_root(2) is refused, and "unbindable"
/// would hinder our own mounts: both are set at the end.
fn before_pivot(wanted: Propagation) -> Propagation {
    match wanted.kind {
        libc::MS_SHARED | libc::MS_UNBINDABLE => {
            Propagation { kind: libc::MS_PRIVATE, recursive: true }
        }
        _ => Propagation { recursive: true, ..wanted },
    }
}

fn propagate(mount: &OwnedFd, wanted: Propagation) -> Result<()> {
    if wanted.kind == 0 {
        return Ok(());
    }
    let attributes = MountAttr { propagation: wanted.kind, ..MountAttr::default() };
    sys::set_attributes(mount, attributes, wanted.recursive)
}

/// Makes the tree the root directory, and lets go of the host's.
pub fn enter(root: &Root, plan: &Rootfs) -> Result<()> {
    if plan.mounted_in.is_shared() {
        // The root directory of all the others stays where it is.
        fs::fchdir(&root.fd).wrap(|| "enter the root file system")?;
        fs::chroot(Path::new(".")).wrap(|| "make the root file system the root")?;
        fs::chdir(Path::new("/"))?;
    } else if plan.no_pivot {
        move_over_root(root)?;
    } else {
        fs::fchdir(&root.fd).wrap(|| "enter the root file system")?;
        // The old root ends up mounted over the new one, which "." still is: detaching "." leaves
        // no directory of the container needed to hold it.
        sys::pivot_here().wrap(|| "make the root file system the root")?;
        sys::detach(Path::new(".")).wrap(|| "let go of the host's root")?;
        fs::chdir(Path::new("/"))?;
    }
    if matches!(plan.propagation.kind, libc::MS_SHARED | libc::MS_UNBINDABLE) {
        let recursive = if plan.propagation.recursive { libc::MS_REC } else { 0 };
        sys::set_propagation(Path::new("/"), plan.propagation.kind | recursive)
            .wrap(|| "linux.rootfsPropagation")?;
    }
    if plan.readonly {
        let attributes = MountAttr { set: sys::attr::RDONLY, ..MountAttr::default() };
        let top = fs::openat(fs::CWD, Path::new("/"), libc::O_PATH | libc::O_DIRECTORY, 0)?;
        sys::set_attributes(&top, attributes, false).wrap(|| "make the root read-only")?;
    }
    Ok(())
}

/// The way of a ramdisk, from which pivot_root(2) is impossible (`--no-pivot`).
fn move_over_root(root: &Root) -> Result<()> {
    fs::fchdir(&root.fd).wrap(|| "enter the root file system")?;
    // Without these two the container could mount them again and see the host's.
    for host in ["/proc", "/sys"] {
        match sys::detach(Path::new(host)) {
            Err(e) if !matches!(e.errno(), Some(libc::EINVAL | libc::EPERM | libc::ENOENT)) => {
                return Err(e.wrap("hide the host's file systems"));
            }
            _ => {}
        }
    }
    sys::move_to(Path::new("."), Path::new("/")).wrap(|| "move the root file system over /")?;
    fs::chroot(Path::new("."))?;
    fs::chdir(Path::new("/"))
}

/// Changes into the working directory, and makes sure that it lies inside.
///
/// A descriptor of a host directory that leaked in could be reached as `/proc/self/fd/N`; the
/// kernel then calls the directory unreachable (getcwd(2)).
pub fn change_directory(path: &Path) -> Result<()> {
    fs::chdir(path).wrap(|| "process.cwd")?;
    let real = fs::raw_getcwd()?;
    if !real.is_absolute() {
        return Err(kernel::failed(libc::ENOENT, || format!("getcwd() = {real:?}"))
            .wrap(format!("process.cwd: {} lies outside the container", path.display())));
    }
    Ok(())
}
