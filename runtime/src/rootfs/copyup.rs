//! `tmpcopyup`: a tmpfs that begins with what the directory below it holds.

use crate::error::{Context, Result};
use crate::sys::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Copies the content and the owner of the directory `from` (O_PATH) to the directory `to`.
///
/// No name is followed out of `from`: each entry is opened relative to its directory and without
/// following links. Sockets, which mean nothing without who listens, are left out. `descriptors` is
/// where a /proc that can be trusted names ours.
pub fn copy(from: &OwnedFd, to: &OwnedFd, descriptors: &str) -> Result<()> {
    let from = fs::openat(from, Path::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let listed = Path::new(descriptors).join(from.as_raw_fd().to_string());
    for entry in std::fs::read_dir(&listed).wrap(|| "read the directory to copy")? {
        let name = PathBuf::from(entry.wrap(|| "read the directory to copy")?.file_name());
        copy_entry(&from, to, &name, descriptors).wrap(|| format!("copy {}", name.display()))?;
    }
    let st = fs::fstat(&from)?;
    fs::lchownat(to, Path::new(""), st.st_uid, st.st_gid)
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &Path, descriptors: &str) -> Result<()> {
    let st = fs::lstatat(from, name)?;
    let mode = st.st_mode & 0o7777;
    match st.st_mode & libc::S_IFMT {
        libc::S_IFDIR => {
            let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            fs::mkdirat(to, name, 0o700)?;
            let below = fs::openat(to, name, libc::O_RDONLY | flags & !libc::O_PATH, 0)?;
            copy(&fs::openat(from, name, flags, 0)?, &below, descriptors)?;
            fs::fchmod(&below, mode)
        }
        libc::S_IFREG => {
            let read = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
            let write = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
            let mut source = std::fs::File::from(fs::openat(from, name, read, 0)?);
            let mut copy = std::fs::File::from(fs::openat(to, name, write, 0o600)?);
            std::io::copy(&mut source, &mut copy).wrap(|| "copy the content")?;
            fs::fchown(&copy, st.st_uid, st.st_gid)?;
            fs::fchmod(&copy, mode)
        }
        libc::S_IFLNK => {
            fs::symlinkat(&fs::readlinkat(from, name)?, to, name)?;
            fs::lchownat(to, name, st.st_uid, st.st_gid)
        }
        libc::S_IFSOCK => Ok(()),
        kind => {
            fs::mknodat(to, name, kind | mode, st.st_rdev)?;
            fs::lchownat(to, name, st.st_uid, st.st_gid)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_tree_is_copied_and_links_are_not_followed() {
        let top = std::env::temp_dir().join(format!("copyup-{}", std::process::id()));
        std::fs::create_dir_all(top.join("from/sub")).unwrap();
        std::fs::create_dir(top.join("to")).unwrap();
        std::fs::write(top.join("from/sub/file"), "content").unwrap();
        let mode = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(top.join("from/sub/file"), mode).unwrap();
        std::os::unix::fs::symlink("/etc", top.join("from/link")).unwrap();
        let open = |name: &str, flags| fs::openat(fs::CWD, &top.join(name), flags, 0).unwrap();
        let (from, to) = (open("from", libc::O_PATH), open("to", libc::O_RDONLY));
        copy(&from, &to, "/proc/self/fd").unwrap();
        assert_eq!(std::fs::read_to_string(top.join("to/sub/file")).unwrap(), "content");
        let mode = std::fs::metadata(top.join("to/sub/file")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(std::fs::read_link(top.join("to/link")).unwrap(), Path::new("/etc"));
        std::fs::remove_dir_all(&top).unwrap();
    }
}
