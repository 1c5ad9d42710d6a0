//! The container's terminal: made in its own devpts, never through a path that it controls.

use super::{Root, resolve};
use crate::error::{Context, Error, Result};
use crate::sys::{fs, mount, tty};
use std::os::fd::OwnedFd;
use std::path::Path;

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Both ends of a pseudoterminal (pty(7)).
pub struct Console {
    /// The end that the supervisor holds.
    pub master: OwnedFd,
    /// The end that the process gets as its stdio.
    pub slave: OwnedFd,
}

/// Opens a new pseudoterminal of the container's devpts.
pub fn open(root: &Root) -> Result<Console> {
    let place = Path::new("/dev/pts");
    let pts = resolve::existing(&root.fd, place)?
        .ok_or_else(|| Error::new("process.terminal needs a devpts mount at /dev/pts"))?;
    from_devpts(&pts)
}

/// Opens a new pseudoterminal of the devpts whose root directory is given.
pub fn from_devpts(pts: &OwnedFd) -> Result<Console> {
    if fs::fstatfs(pts)? != DEVPTS_SUPER_MAGIC {
        return Err(Error::new("process.terminal: /dev/pts is not a devpts mount"));
    }
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NOFOLLOW;
    let master = fs::openat(pts, Path::new("ptmx"), flags, 0).wrap(|| "open /dev/pts/ptmx")?;
    let st = fs::fstat(&master)?;
    if st.st_mode & libc::S_IFMT != libc::S_IFCHR || st.st_rdev != libc::makedev(5, 2) {
        return Err(Error::new("/dev/pts/ptmx is not the pseudoterminal multiplexer (5:2)"));
    }
    tty::unlock(&master)?;
    let slave = tty::peer(&master).wrap(|| "open the terminal")?;
    Ok(Console { master, slave })
}

/// Mounts the terminal at /dev/console, where programs look for it.
pub fn mount_at_dev_console(root: &Root, slave: &OwnedFd) -> Result<()> {
    let target = resolve::file(&root.fd, Path::new("/dev/console"))?;
    let tree = root.clone_file(slave)?;
    mount::attach(&tree, &target).wrap(|| "mount /dev/console")
}

/// Makes the terminal the process's stdio and its controlling terminal.
pub fn take(slave: &OwnedFd, size: Option<(u16, u16)>, owner: u32) -> Result<()> {
    if let Some((rows, columns)) = size {
        tty::set_size(slave, rows, columns)?;
    }
    match fs::fchown(slave, owner, u32::MAX) {
        // An unmapped user keeps what devpts gave it.
        Err(e) if !matches!(e.errno(), Some(libc::EINVAL | libc::EPERM)) => return Err(e),
        _ => {}
    }
    tty::make_controlling(slave)?;
    (0..3).try_for_each(|number| fs::dup_onto(slave, number))
}
