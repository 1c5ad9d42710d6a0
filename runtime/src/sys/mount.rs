//! The mount API of descriptors (fsopen(2), open_tree(2), move_mount(2), mount_setattr(2)).

use super::{check, check_fd, cpath, cstring, errno};
use crate::error::Result;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// Attributes that mount_setattr(2) and fsmount(2) know.
pub mod attr {
    /// Read only.
    pub const RDONLY: u64 = 0x1;
    /// No set-user-id programs.
    pub const NOSUID: u64 = 0x2;
    /// No device nodes.
    pub const NODEV: u64 = 0x4;
    /// No program execution.
    pub const NOEXEC: u64 = 0x8;
    /// The field of access time updates; 0 in it is relatime.
    pub const ATIME_FIELD: u64 = 0x70;
    /// Access times are never updated.
    pub const NOATIME: u64 = 0x10;
    /// Access times are always updated.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories are never updated.
    pub const NODIRATIME: u64 = 0x80;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
    /// Owners are shifted by a user namespace's maps.
    pub const IDMAP: u64 = 0x10_0000;
}

/// mount_setattr(2)'s argument.
#[repr(C)]
#[derive(Default, Clone, Copy, Debug, serde::Serialize)]
pub struct MountAttr {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE; 0 leaves it.
    pub propagation: u64,
    /// The user namespace of an idmapped mount.
    #[serde(skip)]
    pub userns_fd: u64,
}

/// A file system being configured (fsopen(2)).
pub struct FsContext {
    fd: OwnedFd,
    fstype: String,
}

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_SET_FD: u32 = 5;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;

impl FsContext {
    /// fsopen(2).
    pub fn open(fstype: &str) -> Result<Self> {
        let c = cstring(fstype)?;
        // SAFETY: `c` is terminated; 1 is FSOPEN_CLOEXEC.
        let fd = unsafe { libc::syscall(libc::SYS_fsopen, c.as_ptr(), 1u32) };
        let fd = check_fd(fd, || format!("fsopen({fstype:?})"))?;
        Ok(Self { fd, fstype: fstype.into() })
    }

    /// fspick(2) of the file system whose mount's root `fd` is, to change its options.
    pub fn pick(fd: impl AsFd) -> Result<Self> {
        let raw = fd.as_fd().as_raw_fd();
        // SAFETY: the path is an empty string; 9 is FSPICK_CLOEXEC | FSPICK_EMPTY_PATH.
        let fd = unsafe { libc::syscall(libc::SYS_fspick, raw, c"".as_ptr(), 9u32) };
        Ok(Self { fd: check_fd(fd, || format!("fspick({raw})"))?, fstype: "remount".into() })
    }

    /// Puts the options into force.
    pub fn reconfigure(&self) -> Result<()> {
        self.config(FSCONFIG_CMD_RECONFIGURE, None, None, 0)
    }

    fn config(&self, command: u32, key: Option<&str>, value: Option<&str>, aux: i32) -> Result<()> {
        let raw = self.fd.as_raw_fd();
        let ckey = key.map(cstring).transpose()?;
        let cvalue = value.map(cstring).transpose()?;
        let null = std::ptr::null();
        // SAFETY: each pointer is null or terminated, as the command demands.
        let r = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                raw,
                command,
                ckey.as_ref().map_or(null, |c| c.as_ptr()),
                cvalue.as_ref().map_or(null, |c| c.as_ptr()),
                aux,
            )
        };
        if r == -1 {
            let error = errno();
            let said = self.messages();
            return Err(super::failed(error, || {
                let fstype = &self.fstype;
                match (key, value) {
                    (Some(k), Some(v)) => format!("fsconfig({fstype}, {k:?}={v:?}){said}"),
                    (Some(k), None) => format!("fsconfig({fstype}, {k:?}){said}"),
                    _ if command == FSCONFIG_CMD_RECONFIGURE => {
                        format!("fsconfig({fstype}, reconfigure){said}")
                    }
                    _ => format!("fsconfig({fstype}, create){said}"),
                }
            }));
        }
        Ok(())
    }

    /// Sets `key=value`.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        self.config(FSCONFIG_SET_STRING, Some(key), Some(value), 0)
    }

    /// Sets a flag such as `ro`.
    pub fn set_flag(&self, key: &str) -> Result<()> {
        self.config(FSCONFIG_SET_FLAG, Some(key), None, 0)
    }

    /// Sets `key` to a descriptor.
    pub fn set_fd(&self, key: &str, value: impl AsFd) -> Result<()> {
        self.config(FSCONFIG_SET_FD, Some(key), None, value.as_fd().as_raw_fd())
    }

    /// Makes the superblock and a detached mount of it (fsmount(2)) with these attributes.
    pub fn mount(self, attributes: u64) -> Result<OwnedFd> {
        self.config(FSCONFIG_CMD_CREATE, None, None, 0)?;
        let raw = self.fd.as_raw_fd();
        // SAFETY: no memory is passed; 1 is FSMOUNT_CLOEXEC.
        let fd = unsafe { libc::syscall(libc::SYS_fsmount, raw, 1u32, attributes as u32) };
        check_fd(fd, || format!("fsmount({}, {attributes:#x})", self.fstype))
    }

    /// What the file system itself says about the last failure.
    fn messages(&self) -> String {
        let Ok(copy) = self.fd.try_clone() else { return String::new() };
        let mut buffer = [0u8; 512];
        match std::fs::File::from(copy).read(&mut buffer) {
            Ok(n) => format!(" [{}]", String::from_utf8_lossy(&buffer[..n]).trim()),
            Err(_) => String::new(),
        }
    }
}

const OPEN_TREE_CLONE: i32 = 1;
const AT_RECURSIVE: i32 = 0x8000;

/// open_tree(2) with OPEN_TREE_CLONE: a detached bind mount of `path`; an empty path binds `dir`.
pub fn clone_tree(dir: impl AsFd, path: &Path, recursive: bool) -> Result<OwnedFd> {
    let raw = dir.as_fd().as_raw_fd();
    let c = cpath(path)?;
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_EMPTY_PATH;
    if recursive {
        flags |= AT_RECURSIVE;
    }
    // SAFETY: `c` is terminated.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, raw, c.as_ptr(), flags) };
    check_fd(fd, || {
        let kind = if recursive { "CLONE|AT_RECURSIVE" } else { "CLONE" };
        format!("open_tree({raw}, {path:?}, {kind})")
    })
}

/// move_mount(2) of a detached mount onto the file that `target` names, and nowhere else.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let (mount, target) = (mount.as_fd().as_raw_fd(), target.as_fd().as_raw_fd());
    let empty = c"".as_ptr();
    // SAFETY: both paths are empty strings; the flags say that the descriptors are meant.
    let r = unsafe {
        libc::syscall(libc::SYS_move_mount, mount, empty, target, empty, 0x4u32 | 0x40u32)
    };
    check(r, || format!("move_mount({mount}, {target})")).map(drop)
}

/// mount_setattr(2) of the mount that `fd` is on; `recursive` reaches every mount below.
pub fn set_attributes(fd: impl AsFd, attributes: MountAttr, recursive: bool) -> Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is empty and the structure has the size that is passed.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            raw,
            c"".as_ptr(),
            flags,
            &attributes,
            size_of::<MountAttr>(),
        )
    };
    check(r, || {
        let MountAttr { set, clear, propagation, .. } = attributes;
        format!(
            "mount_setattr({raw}, set={set:#x}, clear={clear:#x}, propagation={propagation:#x})"
        )
    })
    .map(drop)
}

/// mount(2) that changes the propagation of the mount at `path`.
pub fn set_propagation(path: &Path, flags: u64) -> Result<()> {
    let c = cpath(path)?;
    let null = std::ptr::null();
    // SAFETY: `c` is terminated, and the other pointers are ignored for these flags.
    let r = unsafe { libc::mount(null, c.as_ptr(), null, flags, null.cast()) };
    check(r, || format!("mount(NULL, {path:?}, NULL, {flags:#x})")).map(drop)
}

/// mount(2) of a new file system at `path`.
pub fn mount_with_data(source: &str, path: &Path, fstype: &str, data: &str) -> Result<()> {
    let (s, p, f, d) = (cstring(source)?, cpath(path)?, cstring(fstype)?, cstring(data)?);
    // SAFETY: all four strings are terminated.
    let r = unsafe { libc::mount(s.as_ptr(), p.as_ptr(), f.as_ptr(), 0, d.as_ptr().cast()) };
    check(r, || format!("mount({source:?}, {path:?}, {fstype:?}, 0, {data:?})")).map(drop)
}

/// mount(2) with MS_MOVE.
pub fn move_to(from: &Path, to: &Path) -> Result<()> {
    let (f, t) = (cpath(from)?, cpath(to)?);
    let null = std::ptr::null();
    // SAFETY: both strings are terminated, and the other pointers are ignored.
    let r = unsafe { libc::mount(f.as_ptr(), t.as_ptr(), null, libc::MS_MOVE, null.cast()) };
    check(r, || format!("mount({from:?}, {to:?}, NULL, MS_MOVE)")).map(drop)
}

/// umount2(2) with MNT_DETACH.
pub fn detach(path: &Path) -> Result<()> {
    let c = cpath(path)?;
    // SAFETY: `c` is terminated.
    let r = unsafe { libc::umount2(c.as_ptr(), libc::MNT_DETACH) };
    check(r, || format!("umount2({path:?}, MNT_DETACH)")).map(drop)
}

/// pivot_root(".", "."): the working directory becomes the root, and the old root lies over it.
pub fn pivot_here() -> Result<()> {
    let dot = c".".as_ptr();
    // SAFETY: both strings are terminated.
    let r = unsafe { libc::syscall(libc::SYS_pivot_root, dot, dot) };
    check(r, || "pivot_root(\".\", \".\")".into()).map(drop)
}
