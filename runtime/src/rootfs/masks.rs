//! `linux.maskedPaths` and `linux.readonlyPaths`.

use super::{Root, resolve};
use crate::error::{Context, Error, Result};
use crate::plan::Rootfs;
use crate::sys::fs;
use crate::sys::mount::{self as sys, FsContext, MountAttr, attr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Makes paths read-only, then hides others. What does not exist needs neither.
pub fn apply(root: &Root, plan: &Rootfs) -> Result<()> {
    for path in &plan.readonly_paths {
        read_only(root, path).wrap(|| format!("linux.readonlyPaths: {}", path.display()))?;
    }
    let mut masks = Masks::default();
    for path in &plan.masked {
        masks.hide(root, path).wrap(|| format!("linux.maskedPaths: {}", path.display()))?;
    }
    Ok(())
}

fn read_only(root: &Root, path: &Path) -> Result<()> {
    let Some(target) = resolve::existing(&root.fd, path)? else { return Ok(()) };
    let tree = sys::clone_tree(&target, Path::new(""), true)?;
    let attributes = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
    sys::set_attributes(&tree, attributes, true)?;
    sys::attach(&tree, &target)
}

/// What is mounted over hidden paths: made at the first use, then cloned.
#[derive(Default)]
struct Masks {
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

impl Masks {
    fn hide(&mut self, root: &Root, path: &Path) -> Result<()> {
        let Some(target) = resolve::existing(&root.fd, path)? else { return Ok(()) };
        let is_directory = fs::fstat(&target)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let mask = if is_directory { self.empty_directory()? } else { self.null_device(root)? };
        sys::attach(&mask, &target)
    }

    /// A read-only tmpfs without room for anything, one superblock for all paths.
    fn empty_directory(&mut self) -> Result<OwnedFd> {
        if let Some(first) = &self.empty {
            return sys::clone_tree(first, Path::new(""), false);
        }
        let context = FsContext::open("tmpfs")?;
        context.set("source", "tmpfs")?;
        context.set("nr_blocks", "1")?;
        context.set("nr_inodes", "1")?;
        context.set_flag("ro")?;
        let made = context.mount(attr::RDONLY)?;
        self.empty = Some(made.as_fd().try_clone_to_owned().wrap(|| "duplicate a mount")?);
        Ok(made)
    }

    /// The host's /dev/null, after a look that it is the real one: the image's may be a link that
    /// would have something else mounted, readable, where something was to be hidden.
    fn null_device(&mut self, root: &Root) -> Result<OwnedFd> {
        if self.null.is_none() {
            let flags = libc::O_PATH | libc::O_NOFOLLOW;
            let fd = fs::openat(fs::CWD, Path::new("/dev/null"), flags, 0)?;
            let st = fs::fstat(&fd)?;
            if st.st_mode & libc::S_IFMT != libc::S_IFCHR || st.st_rdev != libc::makedev(1, 3) {
                return Err(Error::new("the host's /dev/null is not the null device (1:3)"));
            }
            self.null = Some(fd);
        }
        match &self.null {
            Some(fd) => root.clone_file(fd),
            None => Err(Error::new("/dev/null has not been opened")),
        }
    }
}
