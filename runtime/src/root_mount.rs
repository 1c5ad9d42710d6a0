//! The mount of a root file system that lies in a mount namespace which others use, too.
//!
//! A mount namespace of the container's own takes its mounts along when it ends. In the runtime's, or
//! in one that was joined, all of them hang below one mount, the root file system on itself, and
//! whoever takes the container away takes that away. It is known by its number, which is recorded
//! before it is attached: what else lies, or comes to lie, at the path is never touched.

use crate::error::{Context, Error, Result};
use crate::plan::namespaces::Kind;
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::{self as sys, MountAttr};
use crate::sys::process::{self, Fork};
use crate::sys::socket;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootMount {
    /// `root.path`, absolute.
    path: PathBuf,
    /// The mount's number (statx(2)).
    id: u64,
    /// The file by which the mount namespace was joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    joined_by: Option<PathBuf>,
    /// Device and inode number of the mount namespace.
    namespace: (u64, u64),
}

/// No error has more bytes.
const LONGEST: usize = 4096;

impl RootMount {
    /// Of the mount `tree`, which is to lie at `path` in the mount namespace of the file `joined_by`,
    /// opened as `namespace`, or else in ours.
    pub fn new(path: &Path, tree: impl AsFd, joined: Option<(&Path, &OwnedFd)>) -> Result<Self> {
        let namespace = match joined {
            Some((_, fd)) => identity(fd)?,
            None => identity(&own()?)?,
        };
        let joined_by = joined.map(|(path, _)| path.to_owned());
        Ok(Self { path: path.to_owned(), id: fs::mount_id(tree)?, joined_by, namespace })
    }

    /// Takes the mount away, and all that is below it, if it is there.
    pub fn remove(&self) -> Result<()> {
        // Without its namespace the mount is gone, too.
        let Some(namespace) = self.find()? else { return Ok(()) };
        let (ours, theirs) = socket::pair()?;
        // In a child, since it changes the namespace and the working directory.
        match process::clone(0, None)? {
            Fork::Child => {
                drop(ours);
                let said = self.take_away(&namespace).err().map(|e| e.to_string());
                let text = said.unwrap_or_default();
                drop(socket::send(&theirs, &text.as_bytes()[..text.len().min(LONGEST)], None));
                process::exit(i32::from(!text.is_empty()))
            }
            Fork::Parent(pid, _) => {
                drop(theirs);
                let heard = socket::receive(&ours, LONGEST);
                match process::waitpid(pid, 0)? {
                    Some((_, ended)) if ended.code() == 0 => Ok(()),
                    _ => Err(Error::new(String::from_utf8_lossy(&heard?.0).into_owned())
                        .wrap(format!("unmount the root file system {}", self.path.display()))),
                }
            }
        }
    }

    /// The mount namespace, if it still is there: ours, that of the file by which it was joined, or
    /// that of some process.
    fn find(&self) -> Result<Option<OwnedFd>> {
        let ours = own()?;
        if identity(&ours)? == self.namespace {
            return Ok(Some(ours));
        }
        let processes = std::fs::read_dir("/proc").wrap(|| "look for a mount namespace")?;
        let of = |entry: std::fs::DirEntry| {
            let name = entry.file_name();
            let number = name.to_str()?.parse::<u32>().ok()?;
            Some(PathBuf::from(format!("/proc/{number}/ns/{}", Kind::Mount.file())))
        };
        let files = self.joined_by.iter().cloned().chain(processes.flatten().filter_map(of));
        // What cannot be opened has ended meanwhile, or is none of ours.
        let opened = files.filter_map(|path| fs::openat(fs::CWD, &path, libc::O_RDONLY, 0).ok());
        let is_it = |fd: &OwnedFd| identity(fd).is_ok_and(|found| found == self.namespace);
        Ok(opened.into_iter().find(is_it))
    }

    fn take_away(&self, namespace: &OwnedFd) -> Result<()> {
        if identity(&own()?)? != self.namespace {
            process::setns(namespace, Kind::Mount.flag()).wrap(|| "enter the mount namespace")?;
        }
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let top = match fs::openat2(fs::CWD, &self.path, flags, 0, Resolve::NO_LINKS) {
            Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => {
                return Ok(());
            }
            other => other?,
        };
        if fs::mount_id(&top)? != self.id {
            return Ok(());
        }
        // The end of a mount below one that is shared with the host's would be the end of the host's.
        let alone = MountAttr { propagation: libc::MS_PRIVATE, ..MountAttr::default() };
        sys::set_attributes(&top, alone, true)?;
        fs::fchdir(&top)?;
        sys::detach(Path::new("."))
    }
}

fn own() -> Result<OwnedFd> {
    let path = format!("/proc/self/ns/{}", Kind::Mount.file());
    fs::openat(fs::CWD, Path::new(&path), libc::O_RDONLY, 0).wrap(|| "open our mount namespace")
}

fn identity(namespace: &OwnedFd) -> Result<(u64, u64)> {
    let st = fs::fstat(namespace)?;
    Ok((st.st_dev, st.st_ino))
}
