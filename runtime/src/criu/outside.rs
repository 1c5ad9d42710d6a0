//! What a container has from outside of itself, which criu neither saves nor makes: sources of
//! bind mounts, namespaces that it shares with others, and its standard descriptors.
//!
//! `checkpoint` gives each a name, and `restore` says under the same name what takes its place.

use super::rpc::{ExternalMount, InheritFd, JoinNamespace};
use crate::cgroup::Cgroup;
use crate::cgroup::host::Layout;
use crate::error::{Context, Error, Result};
use crate::plan::mounts::{Mount, Source};
use crate::plan::namespaces::{Kind, Namespaces};
use crate::plan::{Plan, Rootfs};
use crate::rootfs::resolve;
use crate::sys::fs;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The file beside the images that tells what the first process's descriptors were, as runc writes
/// it: an array of what /proc/PID/fd/N led to. Behind a file from outside of the container stands,
/// after a blank, the name that criu gives it (`file[MOUNT:INODE]`).
pub const DESCRIPTORS: &str = "descriptors.json";

/// The mounts of the container whose sources are outside, by their paths inside, with the sources.
///
/// Hidden directories lie under a file system of their own, which criu saves; only `is_file` can
/// tell them from hidden files. A name that the images do not have means nothing to criu.
pub fn mounts(
    plan: &Plan,
    groups: &Cgroup,
    is_file: impl Fn(&Path) -> bool,
) -> Result<Vec<ExternalMount>> {
    let rootfs = &plan.rootfs;
    let root = fs::openat(fs::CWD, &rootfs.path, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let mut all = Vec::new();
    for mount in &rootfs.mounts {
        match &mount.source {
            Source::Bind { source, recursive } => {
                let inside = real_path(&root, &mount.destination);
                all.push(external(&inside, source)?);
                if *recursive {
                    below(source, &inside, &mut all)?;
                }
            }
            Source::Cgroup => bound_groups(mount, plan, groups, &mut all)?,
            _ => {}
        }
    }
    for path in rootfs.masked.iter().filter(|path| is_file(path)) {
        all.push(external(path, Path::new("/dev/null"))?);
    }
    // There device nodes are mounts of the host's.
    if plan.namespaces.has(Kind::User) {
        for device in &rootfs.devices {
            all.push(external(&device.path, &device.path)?);
        }
    }
    Ok(all)
}

fn external(inside: &Path, source: &Path) -> Result<ExternalMount> {
    let text = |path: &Path| {
        let text = path.to_str().map(String::from);
        text.ok_or_else(|| Error::new(format!("{path:?} is not UTF-8, which criu's images want")))
    };
    Ok(ExternalMount { key: text(inside)?, val: text(source)? })
}

/// The path without links, as criu finds it in the mount table. What exists only in the container's
/// own mounts has none that we could follow from here.
fn real_path(root: &OwnedFd, path: &Path) -> PathBuf {
    let found = resolve::existing(root, path).ok().flatten();
    let link = found.map(|fd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())));
    let top = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
    let read = |path: &Path| fs::readlinkat(fs::CWD, path).ok();
    link.and_then(|link| {
        let (real, top) = (read(&link)?, read(&top)?);
        Some(Path::new("/").join(real.strip_prefix(top).ok()?))
    })
    .unwrap_or_else(|| path.into())
}

/// The mounts below the source of a recursive bind mount, which came along.
fn below(source: &Path, inside: &Path, all: &mut Vec<ExternalMount>) -> Result<()> {
    let source = std::fs::canonicalize(source).wrap(|| format!("open {}", source.display()))?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").wrap(|| "read our mounts")?;
    for line in table.lines() {
        let Some(point) = line.split(' ').nth(4).map(unescape) else { continue };
        if let Ok(rest) = point.strip_prefix(&source)
            && !rest.as_os_str().is_empty()
        {
            all.push(external(&inside.join(rest), &point)?);
        }
    }
    Ok(())
}

/// The mount table writes blanks as `\040` (proc_pid_mountinfo(5)).
fn unescape(field: &str) -> PathBuf {
    let mut text = String::new();
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => text.push(code.into()),
            None => text.push('\\'),
        }
        rest = if code.is_some() { &after[3..] } else { after };
    }
    text.push_str(rest);
    text.into()
}

/// The groups in a mount of type cgroup that are bound there. A v2 mount of a cgroup namespace is
/// criu's own to make.
fn bound_groups(
    mount: &Mount,
    plan: &Plan,
    groups: &Cgroup,
    all: &mut Vec<ExternalMount>,
) -> Result<()> {
    let unified = plan.cgroup.layout() == Some(Layout::Unified);
    for place in groups.places() {
        match (unified, place.unified) {
            (true, true) if !plan.cgroup.namespace => {
                all.push(external(&mount.destination, &place.path)?);
            }
            (false, false) => {
                all.push(external(&mount.destination.join(place.name()), &place.path)?);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The name that criu's images give a namespace that is shared, for the kinds that it can take as
/// a descriptor.
fn shared_key(kind: Kind) -> Option<(&'static str, &'static str)> {
    match kind {
        Kind::Network => Some(("net", "extRootNetNS")),
        Kind::Pid => Some(("pid", "extRootPidNS")),
        _ => None,
    }
}

/// Refuses what criu can neither leave out nor join again.
pub fn check_namespaces(namespaces: &Namespaces) -> Result<()> {
    if !namespaces.has(Kind::Mount) {
        return Err(Error::new(
            "linux.namespaces has no \"mount\": CRIU cannot restore mounts of a namespace that others use",
        ));
    }
    match namespaces
        .join
        .iter()
        .find(|(kind, _)| matches!(kind, Kind::User | Kind::Mount | Kind::Cgroup))
    {
        Some((kind, path)) => Err(Error::new(format!(
            "linux.namespaces: the {} namespace is joined ({}), which CRIU cannot restore",
            kind.name(),
            path.display()
        ))),
        None => Ok(()),
    }
}

/// Namespaces to leave out of the images.
pub fn left_out(namespaces: &Namespaces) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (kind, path) in &namespaces.join {
        if let Some((name, key)) = shared_key(*kind) {
            let file = std::fs::metadata(path)
                .wrap(|| format!("linux.namespaces: open the {} namespace", kind.name()))?;
            all.push(format!("{name}[{}]:{key}", file.ino()));
        }
    }
    Ok(all)
}

/// The same namespaces to be joined, and the descriptors that must stay open meanwhile.
pub fn joined(
    namespaces: &Namespaces,
) -> Result<(Vec<InheritFd>, Vec<JoinNamespace>, Vec<OwnedFd>)> {
    let (mut inherited, mut joined, mut open) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, fd) in crate::namespaces::open(namespaces)? {
        match shared_key(kind) {
            Some((_, key)) => {
                inherited.push(InheritFd { key: key.into(), fd: fd.as_raw_fd() });
                open.push(fd);
            }
            None => {
                let path = namespaces.path(kind).and_then(Path::to_str);
                let path = path.ok_or_else(|| Error::new("a namespace's path is not UTF-8"))?;
                joined.push(JoinNamespace { ns: kind.file().into(), ns_file: path.into() });
            }
        }
    }
    Ok((inherited, joined, open))
}

/// Writes down what the descriptors of the process lead to; returns the names of files that are
/// outside of its mount namespace, which criu is to leave out.
pub fn save_descriptors(pid: i32, images: BorrowedFd<'_>) -> Result<Vec<String>> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let read = |file: &str| {
        let path = process.join(file);
        std::fs::read_to_string(&path).wrap(|| format!("read {}", path.display()))
    };
    let table = read("mountinfo")?;
    let mounts: BTreeSet<&str> = table.lines().filter_map(|line| line.split(' ').next()).collect();
    let directory = process.join("fd");
    let entries = std::fs::read_dir(&directory).wrap(|| format!("read {}", directory.display()))?;
    let numbers = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<usize>().ok());
    let mut all = vec![String::new(); numbers.max().map_or(3, |last| last + 1).clamp(3, 256)];
    let mut left_out = Vec::new();
    for (number, entry) in all.iter_mut().enumerate() {
        let path = directory.join(number.to_string());
        let Ok(link) = std::fs::read_link(&path) else { continue };
        *entry = link.to_string_lossy().into_owned();
        if !entry.starts_with('/') {
            continue;
        }
        let Some(key) = outside_key(&read(&format!("fdinfo/{number}"))?, &path, &mounts)? else {
            continue;
        };
        *entry = format!("{entry} {key}");
        left_out.push(key);
    }
    let text = serde_json::to_vec(&all).map_err(|e| Error::new(e.to_string()))?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW;
    let file = fs::openat(images, Path::new(DESCRIPTORS), flags, 0o600)?;
    use std::io::Write as _;
    std::fs::File::from(file).write_all(&text).wrap(|| format!("write {DESCRIPTORS}"))?;
    Ok(left_out)
}

/// criu's name for a file by its mount and inode, in hexadecimal, if the mount is not among
/// `mounts`. `info` is the descriptor's file in /proc/PID/fdinfo.
fn outside_key(info: &str, file: &Path, mounts: &BTreeSet<&str>) -> Result<Option<String>> {
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim);
    let Some(id) = id.filter(|id| !mounts.contains(id)) else { return Ok(None) };
    let id: u32 = id.parse().map_err(|_| Error::new(format!("mnt_id {id:?} is no number")))?;
    let inode = std::fs::metadata(file).wrap(|| format!("look at {}", file.display()))?.ino();
    Ok(Some(format!("file[{id:x}:{inode:x}]")))
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
    /// One file may have several numbers (2>&1); criu wants each name once.
    fn add(&mut self, key: &str, fd: i32) {
        if self.descriptors.iter().all(|earlier| earlier.key != key) {
            self.descriptors.push(InheritFd { key: key.into(), fd });
        }
    }
}

/// The other end of a pipe is outside: pipes become our standard descriptors, and `preserve_fds`
/// more. A file from outside is opened again (criu wants it as long as it was).
pub fn inherited(images: impl AsFd, preserve_fds: u32) -> Result<Inherited> {
    let text = match fs::openat(images, Path::new(DESCRIPTORS), libc::O_RDONLY, 0) {
        // Images of others have none.
        Err(e) if e.errno() == Some(libc::ENOENT) => String::from("[]"),
        other => std::io::read_to_string(std::fs::File::from(other?))
            .wrap(|| format!("read {DESCRIPTORS}"))?,
    };
    let all: Vec<String> = serde_json::from_str(&text)
        .map_err(|e| Error::new(format!("--image-path: {DESCRIPTORS}: {e}")))?;
    let mut inherited = Inherited::default();
    let ours = 3 + preserve_fds as usize;
    for number in 0..ours.max(all.len()) {
        let was = all.get(number).map(String::as_str).unwrap_or_default();
        if let Some((path, key)) = was.rsplit_once(" file[") {
            let file = fs::openat(fs::CWD, Path::new(path), libc::O_PATH, 0)
                .wrap(|| format!("open what descriptor {number} was"))?;
            inherited.add(&format!("file[{key}"), file.as_raw_fd());
            inherited.files.push(file);
        } else if was.starts_with("pipe:") && number < ours {
            inherited.add(was, number as i32);
        } else if (3..ours).contains(&number) {
            return Err(Error::new(format!(
                "--preserve-fds: descriptor {number} of the checkpointed process was no pipe that ours could replace"
            )));
        }
    }
    Ok(inherited)
}

/// Makes the places in the root file system where mounts from outside will lie, as `create` would.
pub fn make_mount_points(rootfs: &Rootfs) -> Result<()> {
    let root = fs::openat(fs::CWD, &rootfs.path, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    for (i, mount) in rootfs.mounts.iter().enumerate() {
        let covered = |earlier: &Mount| mount.destination.starts_with(&earlier.destination);
        if rootfs.mounts[..i].iter().any(covered) {
            continue;
        }
        let is_file = match &mount.source {
            Source::Bind { source, .. } => !source.is_dir(),
            _ => false,
        };
        let made = match is_file {
            true => resolve::file(&root, &mount.destination),
            false => resolve::directory(&root, &mount.destination),
        };
        match made {
            // On a read-only root file system it must exist already; criu will tell.
            Err(e) if e.errno() != Some(libc::EROFS) => {
                return Err(e.wrap(format!("make {}", mount.destination.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(text: &str, name: &str) -> (PathBuf, OwnedFd) {
        let dir = std::env::temp_dir().join(format!("outside-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(DESCRIPTORS), text).unwrap();
        let fd = fs::openat(fs::CWD, &dir, libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap();
        (dir, fd)
    }

    #[test]
    fn pipes_are_replaced_and_files_opened_again_each_but_once() {
        let list = r#"["/dev/null file[1:5]","pipe:[1]","pipe:[1]","pipe:[a]","/etc/passwd"]"#;
        let (dir, fd) = images(list, "pipes");
        let all = inherited(&fd, 1).unwrap();
        let found: Vec<_> = all.descriptors.iter().map(|i| (i.key.as_str(), i.fd)).collect();
        let null = all.files[0].as_raw_fd();
        assert_eq!(found, [("file[1:5]", null), ("pipe:[1]", 1), ("pipe:[a]", 3)]);
        assert_eq!(inherited(&fd, 0).unwrap().descriptors.len(), 2);
        let e = inherited(&fd, 2).err().unwrap().to_string();
        assert!(e.contains("--preserve-fds") && e.contains("descriptor 4"), "{e}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn files_of_other_mounts_are_outside() {
        let mounts = BTreeSet::from(["24"]);
        let file = Path::new("/dev/null");
        assert_eq!(outside_key("pos:\t0\nmnt_id:\t24\n", file, &mounts).unwrap(), None);
        let key = outside_key("flags:\t0\nmnt_id:\t26\n", file, &mounts).unwrap().unwrap();
        assert!(key.starts_with("file[1a:"), "{key}");
    }

    #[test]
    fn a_garbled_list_is_an_error() {
        let (dir, fd) = images("{}", "garbled");
        assert!(inherited(&fd, 0).err().unwrap().to_string().contains(DESCRIPTORS));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn blanks_in_the_mount_table_are_read() {
        assert_eq!(unescape(r"/a\040b\134c"), Path::new(r"/a b\c"));
    }

    #[test]
    fn what_cannot_be_joined_again_is_refused() {
        let linux = r#"{"namespaces":[{"type":"mount","path":"/m"}]}"#;
        let namespaces = Namespaces::new(&serde_json::from_str(linux).unwrap()).unwrap();
        let e = check_namespaces(&namespaces).unwrap_err().to_string();
        assert!(e.contains("mount") && e.contains("/m"), "{e}");
    }
}
