//! What the descriptors of a container's processes lead to outside of it: the other ends of pipes,
//! and files of mounts that the container does not have.
//!
//! Any process may hold such a file under any number (a shell puts its stdout aside for the time of
//! an `echo > file`), so that all of them are looked at, while they stand still. `checkpoint` leaves
//! the files out of the images by their names, and `restore` opens them again.

use super::rpc::InheritFd;
use crate::container::Record;
use crate::error::{Context, Error, Result};
use crate::sys::fs::{self, Resolve};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// The file beside the images that tells what the first process's descriptors were, as runc writes
/// it: an array of what /proc/PID/fd/N led to.
pub const DESCRIPTORS: &str = "descriptors.json";
/// The file beside the images that tells where the files from outside are: an object of their paths
/// by the names that criu gives them (`file[MOUNT:INODE]`, both in hexadecimal).
pub const FILES: &str = "outside-files.json";

/// The paths of files from outside, by criu's names.
type Files = BTreeMap<String, PathBuf>;

/// Writes down what the descriptors of the container's processes lead to, its first one's and those
/// of `pids`; returns the names of the files that criu is to leave out. They must stand still.
///
/// # Errors
/// A file from outside has been deleted, so that nobody could open it again.
pub fn save(record: &Record, pids: &[i32], images: BorrowedFd<'_>) -> Result<Vec<String>> {
    let links = links(record.pid)?.unwrap_or_default();
    write(images, DESCRIPTORS, &listed(&links, &record.stdio))?;
    let mut files = Files::new();
    for pid in pids.iter().chain([&record.pid]) {
        files.extend(outside(*pid).wrap(|| format!("look at process {pid} of the container"))?);
    }
    write(images, FILES, &files)?;
    Ok(files.into_keys().collect())
}

/// The descriptors in the order of their numbers. A pipe that the process was given keeps its number
/// while it is put aside.
fn listed(links: &[(usize, PathBuf)], given: &[String]) -> Vec<String> {
    let mut all = vec![String::new(); links.last().map_or(3, |(n, _)| n + 1).clamp(3, 256)];
    for (number, link) in links {
        if let Some(entry) = all.get_mut(*number) {
            *entry = link.to_string_lossy().into_owned();
        }
    }
    for (entry, was) in all.iter_mut().zip(given).filter(|(_, was)| was.starts_with("pipe:")) {
        entry.clone_from(was);
    }
    all
}

/// The numbers of a process's descriptors, and what they lead to; none for one that is gone.
fn links(pid: i32) -> Result<Option<Vec<(usize, PathBuf)>>> {
    let directory = PathBuf::from(format!("/proc/{pid}/fd"));
    let entries = match std::fs::read_dir(&directory) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(None),
        other => other.wrap(|| format!("read {}", directory.display()))?,
    };
    let numbers = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<usize>().ok());
    let read = |n: usize| std::fs::read_link(directory.join(n.to_string())).ok().map(|to| (n, to));
    let mut links: Vec<_> = numbers.filter_map(read).collect();
    links.sort();
    Ok(Some(links))
}

/// The files from outside that a process has open.
fn outside(pid: i32) -> Result<Files> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let mut files = Files::new();
    let links = links(pid)?.unwrap_or_default();
    let links = links.into_iter().filter(|(_, link)| is_path(link));
    let mut mounts = None;
    for (number, link) in links {
        let mounts = match &mounts {
            Some(mounts) => mounts,
            None => mounts.insert(mounts_of(&process)?),
        };
        let info = read(&process.join(format!("fdinfo/{number}")))?;
        let Some(mount) = outside_mount(&info, mounts)? else { continue };
        let place = process.join(format!("fd/{number}"));
        let found = std::fs::metadata(&place).wrap(|| format!("look at {}", place.display()))?;
        if is_terminal(&found) {
            continue;
        }
        if found.nlink() == 0 {
            return Err(Error::new(format!(
                "descriptor {number} is a file outside of the container that has been deleted, so that it could not be opened again: {}",
                link.display()
            )));
        }
        if !is_at(&found, &link) {
            return Err(Error::new(format!(
                "descriptor {number} is a file outside of the container that is not where its name says, so that another one would be opened again: {}",
                link.display()
            )));
        }
        files.insert(format!("file[{mount:x}:{:x}]", found.ino()), link);
    }
    Ok(files)
}

/// Is it this file that the host has at the path? In a mount that is nowhere attached a container can
/// give a file of its own the name of any of the host's.
fn is_at(file: &Metadata, path: &Path) -> bool {
    let there = open(path).and_then(|fd| fs::fstat(&fd));
    there.is_ok_and(|there| (there.st_dev, there.st_ino) == (file.dev(), file.ino()))
}

/// A file from outside. The kernel named it without links: whoever has put one into its path since
/// leads elsewhere.
fn open(path: &Path) -> Result<OwnedFd> {
    fs::openat2(fs::CWD, path, libc::O_PATH, 0, Resolve::NO_LINKS)
}

/// Pipes, sockets and the like have no path; files in memory have one that leads nowhere, and are
/// criu's own to save.
fn is_path(link: &Path) -> bool {
    link.is_absolute() && !link.as_os_str().as_encoded_bytes().starts_with(b"/memfd:")
}

/// Terminals have options of their own (`--shell-job`, `--console-socket`). By their major numbers
/// (Documentation/admin-guide/devices.txt): 4 and 5, and 136 to 143 for pseudo-terminals.
fn is_terminal(found: &Metadata) -> bool {
    found.file_type().is_char_device() && matches!(libc::major(found.rdev()), 4 | 5 | 136..=143)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).wrap(|| format!("read {}", path.display()))
}

/// The numbers of the mounts that the process sees.
fn mounts_of(process: &Path) -> Result<BTreeSet<u32>> {
    let table = read(&process.join("mountinfo"))?;
    Ok(table.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect())
}

/// The mount of a file, if it is none of `mounts`. `info` is the descriptor's file in
/// /proc/PID/fdinfo.
fn outside_mount(info: &str, mounts: &BTreeSet<u32>) -> Result<Option<u32>> {
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim);
    let Some(id) = id else { return Ok(None) };
    let id = id.parse().map_err(|_| Error::new(format!("mnt_id {id:?} is no number")))?;
    Ok((!mounts.contains(&id)).then_some(id))
}

fn write(images: BorrowedFd<'_>, name: &str, what: &impl Serialize) -> Result<()> {
    use std::io::Write as _;
    let text = serde_json::to_vec(what).map_err(|e| Error::new(e.to_string()))?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW;
    let file = fs::openat(images, Path::new(name), flags, 0o600)?;
    std::fs::File::from(file).write_all(&text).wrap(|| format!("write {name}"))
}

/// Reads a file beside the images; images of others may not have it.
fn load<T: Default + for<'a> Deserialize<'a>>(images: impl AsFd, name: &str) -> Result<T> {
    let file = match fs::openat(images, Path::new(name), libc::O_RDONLY, 0) {
        Err(e) if e.errno() == Some(libc::ENOENT) => return Ok(T::default()),
        other => other?,
    };
    let text =
        std::io::read_to_string(std::fs::File::from(file)).wrap(|| format!("read {name}"))?;
    serde_json::from_str(&text).map_err(|e| Error::new(format!("--image-path: {name}: {e}")))
}

/// What takes the place of descriptors in the images.
#[derive(Default)]
pub struct Inherited {
    /// For criu.
    pub descriptors: Vec<InheritFd>,
    /// Files that were opened for it.
    pub files: Vec<OwnedFd>,
}

impl Inherited {
    /// One pipe may have several numbers (2>&1); criu wants each name once.
    fn add(&mut self, key: &str, fd: i32) {
        if self.descriptors.iter().all(|earlier| earlier.key != key) {
            self.descriptors.push(InheritFd { key: key.into(), fd });
        }
    }
}

/// The other end of a pipe is outside: pipes become our standard descriptors, and `preserve_fds`
/// more. A file from outside is opened again (criu wants it as long as it was).
pub fn inherited(images: impl AsFd + Copy, preserve_fds: u32) -> Result<Inherited> {
    let all: Vec<String> = load(images, DESCRIPTORS)?;
    let files: Files = load(images, FILES)?;
    let mut inherited = Inherited::default();
    for number in 0..3 + preserve_fds as usize {
        let was = all.get(number).map(String::as_str).unwrap_or_default();
        if was.starts_with("pipe:") {
            inherited.add(was, number as i32);
        } else if number >= 3 && !files.values().any(|path| path == Path::new(was)) {
            return Err(Error::new(format!(
                "--preserve-fds: descriptor {number} of the checkpointed process was no pipe that ours could replace"
            )));
        }
    }
    for (key, path) in &files {
        let file = open(path)
            .wrap(|| "open a file that a process of the container had open, by no link")?;
        inherited.add(key, file.as_raw_fd());
        inherited.files.push(file);
    }
    Ok(inherited)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Images(PathBuf);

    impl Images {
        fn new(name: &str, descriptors: &str, files: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("fds-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(DESCRIPTORS), descriptors).unwrap();
            std::fs::write(dir.join(FILES), files).unwrap();
            Self(dir)
        }

        fn open(&self) -> OwnedFd {
            fs::openat(fs::CWD, &self.0, libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap()
        }
    }

    impl Drop for Images {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn pipes_are_replaced_and_files_opened_again_each_but_once() {
        let list = r#"["/dev/null","pipe:[1]","pipe:[1]","pipe:[a]","/etc/passwd"]"#;
        let images = Images::new("pipes", list, r#"{"file[1:5]":"/dev/null"}"#);
        let fd = images.open();
        let all = inherited(&fd, 1).unwrap();
        let found: Vec<_> = all.descriptors.iter().map(|i| (i.key.as_str(), i.fd)).collect();
        let null = all.files[0].as_raw_fd();
        assert_eq!(found, [("pipe:[1]", 1), ("pipe:[a]", 3), ("file[1:5]", null)]);
        assert_eq!(inherited(&fd, 0).unwrap().descriptors.len(), 2);
        let e = inherited(&fd, 2).err().unwrap().to_string();
        assert!(e.contains("--preserve-fds") && e.contains("descriptor 4"), "{e}");
    }

    #[test]
    fn files_of_other_mounts_are_outside() {
        let mounts = BTreeSet::from([24]);
        assert_eq!(outside_mount("pos:\t0\nmnt_id:\t24\n", &mounts).unwrap(), None);
        assert_eq!(outside_mount("flags:\t0\nmnt_id:\t26\n", &mounts).unwrap(), Some(26));
        assert!(is_path(Path::new("/a")) && !is_path(Path::new("pipe:[7]")));
        assert!(!is_path(Path::new("/memfd:x (deleted)")));
    }

    #[test]
    fn a_name_is_believed_if_it_leads_to_the_file_without_a_link() {
        let dir = Images::new("names", "[]", "{}");
        let (file, link) = (dir.0.join(FILES), dir.0.join("link"));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let found = std::fs::metadata(&file).unwrap();
        assert!(is_at(&found, &file));
        for other in [link, dir.0.join(DESCRIPTORS), dir.0.join("missing")] {
            assert!(!is_at(&found, &other), "{}", other.display());
        }
        let list = format!(r#"{{"file[1:5]":{:?}}}"#, dir.0.join("link"));
        let images = Images::new("linked", "[]", &list);
        let e = inherited(&images.open(), 0).err().unwrap().to_string();
        assert!(e.contains("by no link") && e.contains("ELOOP"), "{e}");
    }

    #[test]
    fn a_pipe_that_is_put_aside_keeps_its_number() {
        let links = [(0, "/dev/null"), (1, "/count"), (10, "pipe:[7]")];
        let links = links.map(|(number, link)| (number, PathBuf::from(link)));
        let given = ["/dev/null", "pipe:[7]", ""].map(String::from);
        let all = listed(&links, &given);
        assert_eq!(
            (all.len(), &*all[0], &*all[1], &*all[10]),
            (11, "/dev/null", "pipe:[7]", "pipe:[7]")
        );
        assert_eq!(listed(&links, &[])[1], "/count");
        assert_eq!(listed(&[], &given)[1], "pipe:[7]");
    }

    #[test]
    fn what_is_ours_or_gone_is_not_outside() {
        let null = std::process::Stdio::null;
        let mut child = std::process::Command::new("sleep");
        let mut child = child.arg("100").stdin(null()).stdout(null()).spawn().unwrap();
        let found = outside(child.id() as i32).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, Files::new());
        assert_eq!(outside(i32::MAX).unwrap(), Files::new());
        let null = std::fs::metadata("/dev/null").unwrap();
        assert!(is_terminal(&std::fs::metadata("/dev/tty").unwrap()) && !is_terminal(&null));
    }

    #[test]
    fn a_garbled_list_is_an_error() {
        for (list, files, name) in [("{}", "{}", DESCRIPTORS), ("[]", "[]", FILES)] {
            let images = Images::new("garbled", list, files);
            assert!(inherited(&images.open(), 0).err().unwrap().to_string().contains(name));
        }
    }
}
