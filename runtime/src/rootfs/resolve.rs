//! Paths inside the container, to descriptors; missing parts are made.

use crate::error::{Context, Error, Result};
use crate::sys::fs::{self, Resolve};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

/// What stands at the end of a path that is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Directory,
    File,
}

/// As many links as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// What the path names inside `root`, as an O_PATH descriptor, if it exists.
pub fn existing(root: impl AsFd, path: &Path) -> Result<Option<OwnedFd>> {
    match fs::openat2(root, relative(path), libc::O_PATH, 0, Resolve::IN_ROOT) {
        Ok(fd) => Ok(Some(fd)),
        Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The directory that the path names inside `root`, made with mode 0755 if it is missing.
pub fn directory(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    match fs::openat2(&root, relative(path), flags, 0, Resolve::IN_ROOT) {
        Err(e) if e.errno() == Some(libc::ENOENT) => make(root, path, Leaf::Directory),
        other => other,
    }
}

/// As [`directory`], refusing symbolic links on the way: for /proc and /sys, which would otherwise
/// be mounted where an image wants them and not where they are looked for.
pub fn directory_without_links(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    match fs::openat2(&root, relative(path), flags, 0, Resolve::IN_ROOT_NO_LINKS) {
        Err(e) if e.errno() == Some(libc::ENOENT) => make(root, path, Leaf::Directory),
        Err(e) if matches!(e.errno(), Some(libc::ELOOP | libc::ENOTDIR)) => {
            Err(e.wrap("the image has something else than a directory there"))
        }
        other => other,
    }
}

/// What the path names inside `root`, to mount a file over it; made as an empty file if missing.
pub fn file(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    match existing(&root, path)? {
        Some(fd) => Ok(fd),
        None => make(root, path, Leaf::File),
    }
}

/// The directory that holds the last component of `path`, made if missing, and that component.
pub fn parent(root: impl AsFd, path: &Path) -> Result<(OwnedFd, &Path)> {
    let name = path.file_name().ok_or_else(|| Error::new(format!("{path:?} has no file name")))?;
    let directory = directory(root, path.parent().unwrap_or(Path::new("/")))?;
    Ok((directory, Path::new(name)))
}

/// What the path itself is, a symbolic link not followed; made if it is missing.
pub fn itself(root: impl AsFd, path: &Path, is_directory: bool) -> Result<OwnedFd> {
    let (directory, name) = parent(root, path)?;
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    match fs::openat(&directory, name, flags, 0) {
        Err(e) if e.errno() == Some(libc::ENOENT) => {
            make_one(&directory, name, if is_directory { Leaf::Directory } else { Leaf::File })?;
            fs::openat(&directory, name, flags, 0)
        }
        other => other,
    }
}

fn relative(path: &Path) -> &Path {
    match path.strip_prefix("/") {
        Ok(rest) if rest.as_os_str().is_empty() => Path::new("."),
        Ok(rest) => rest,
        Err(_) => path,
    }
}

/// Walks the path one component at a time, making what is missing. Links are followed inside
/// `root`, dangling ones too: what they point to is made.
fn make(root: impl AsFd, path: &Path, leaf: Leaf) -> Result<OwnedFd> {
    let open = libc::O_PATH | libc::O_NOFOLLOW;
    let top = fs::openat(&root, Path::new("."), open | libc::O_DIRECTORY, 0)?;
    // The directories walked through, so that `..` cannot leave the root.
    let mut walked = vec![top];
    let mut todo: VecDeque<OsString> = parts(path);
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        let here = walked.last().expect("the root is never popped").as_fd();
        if name == ".." {
            if walked.len() > 1 {
                walked.pop();
            }
            continue;
        }
        let name = Path::new(&name);
        let last = todo.is_empty();
        let kind = match fs::lstatat(here, name) {
            Ok(st) => st.st_mode & libc::S_IFMT,
            Err(e) if e.errno() == Some(libc::ENOENT) => {
                make_one(here, name, if last { leaf } else { Leaf::Directory })?;
                0
            }
            Err(e) => return Err(e),
        };
        if kind == libc::S_IFLNK {
            links += 1;
            if links > MAX_LINKS {
                return Err(Error::new(format!("{path:?}: too many symbolic links (ELOOP)")));
            }
            let target = fs::readlinkat(here, name)?;
            if target.is_absolute() {
                walked.truncate(1);
            }
            for part in parts(&target).into_iter().rev() {
                todo.push_front(part);
            }
            continue;
        }
        let wants_directory = !last || leaf == Leaf::Directory;
        let flags = open | if wants_directory { libc::O_DIRECTORY } else { 0 };
        let below = fs::openat(here, name, flags, 0)?;
        walked.push(below);
    }
    Ok(walked.pop().expect("the root is never popped"))
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_os_string()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

/// mknod(2) rather than open(2): it never follows a link and never truncates.
fn make_one(at: impl AsFd, name: &Path, leaf: Leaf) -> Result<()> {
    let made = match leaf {
        Leaf::Directory => fs::mkdirat(at, name, 0o755),
        Leaf::File => fs::mknodat(at, name, libc::S_IFREG | 0o644, 0),
    };
    match made {
        Err(e) if e.errno() == Some(libc::EEXIST) => Ok(()),
        other => other.wrap(|| "make a mount point"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str) -> (Self, OwnedFd) {
            let path = std::env::temp_dir().join(format!("resolve-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("root")).unwrap();
            let fd = fs::openat(fs::CWD, &path.join("root"), libc::O_PATH, 0).unwrap();
            (Self(path), fd)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn missing_directories_are_made_inside() {
        let (scratch, root) = Scratch::new("inside");
        directory(&root, Path::new("/a/../../b/c")).unwrap();
        assert!(scratch.0.join("root/b/c").is_dir());
    }

    #[test]
    fn links_lead_nowhere_else() {
        let (scratch, root) = Scratch::new("links");
        let inside = scratch.0.join("root");
        symlink("/outside", inside.join("abs")).unwrap();
        symlink("../../../outside", inside.join("rel")).unwrap();
        directory(&root, Path::new("/abs/x")).unwrap();
        file(&root, Path::new("/rel/f")).unwrap();
        assert!(inside.join("outside/x").is_dir());
        assert!(inside.join("outside/f").is_file());
        assert!(!scratch.0.join("outside").exists());
    }

    #[test]
    fn a_dangling_link_gets_its_target() {
        let (scratch, root) = Scratch::new("dangling");
        symlink("../run/stub.conf", scratch.0.join("root/resolv.conf")).unwrap();
        file(&root, Path::new("/resolv.conf")).unwrap();
        assert!(scratch.0.join("root/run/stub.conf").is_file());
    }

    #[test]
    fn a_circle_ends() {
        let (scratch, root) = Scratch::new("circle");
        symlink("b", scratch.0.join("root/a")).unwrap();
        symlink("a", scratch.0.join("root/b")).unwrap();
        assert!(directory(&root, Path::new("/a/x")).unwrap_err().to_string().contains("ELOOP"));
    }

    #[test]
    fn proc_must_be_a_real_directory() {
        let (scratch, root) = Scratch::new("proc");
        std::fs::create_dir(scratch.0.join("root/elsewhere")).unwrap();
        symlink("elsewhere", scratch.0.join("root/proc")).unwrap();
        assert!(directory_without_links(&root, Path::new("/proc")).is_err());
    }
}
