//! Entering namespaces: those given by path, and those that cannot be made by clone3(2) alone.

use crate::error::{Context, Error, Result};
use crate::plan::namespaces::{Kind, Namespaces};
use crate::procfs::{self, Proc};
use crate::sys::{fs, process as sys};
use std::os::fd::OwnedFd;

/// The flags that clone3(2) takes for the new namespaces.
///
/// A cgroup namespace is unshared by the child once it is in its group, whose place becomes the
/// namespace's root. Time offsets can be written only between unshare(2) and the first child.
pub fn clone_flags(namespaces: &Namespaces) -> u64 {
    let late = [Kind::Cgroup, Kind::Time];
    let flag = |kind: &Kind| kind.flag() as u32 as u64;
    namespaces.new.iter().filter(|kind| !late.contains(kind)).map(flag).sum()
}

/// Is a helper process needed, whose child then is the container's first process?
pub fn need_helper(namespaces: &Namespaces) -> bool {
    !namespaces.join.is_empty() || namespaces.makes(Kind::Time)
}

/// Opens the namespaces to join, while the host's paths mean what the caller meant.
pub fn open(namespaces: &Namespaces) -> Result<Vec<(Kind, OwnedFd)>> {
    let open = |(kind, path): &(Kind, std::path::PathBuf)| {
        let fd = fs::openat(fs::CWD, path, libc::O_RDONLY, 0)
            .wrap(|| format!("linux.namespaces: open the {} namespace", kind.name()))?;
        Ok((*kind, fd))
    };
    namespaces.join.iter().map(open).collect()
}

/// Joins namespaces: first those that our own privileges open, then the user namespace, then those
/// that only its root may enter.
///
/// Either may be the owner of one that is joined: what another container made in its user namespace
/// belongs to that, but a time namespace is made before it (time_namespaces(7)), and the caller may
/// have made others for the container.
pub fn join(opened: &[(Kind, OwnedFd)]) -> Result<()> {
    let Some((_, user)) = opened.iter().find(|(kind, _)| *kind == Kind::User) else {
        return opened.iter().try_for_each(|(kind, fd)| enter(*kind, fd));
    };
    let mut closed = Vec::new();
    for (kind, fd) in opened.iter().filter(|(kind, _)| *kind != Kind::User) {
        match enter(*kind, fd) {
            Err(e) if e.errno() == Some(libc::EPERM) => closed.push((*kind, fd)),
            other => other?,
        }
    }
    enter(Kind::User, user)?;
    closed.into_iter().try_for_each(|(kind, fd)| enter(kind, fd))
}

fn enter(kind: Kind, fd: &OwnedFd) -> Result<()> {
    sys::setns(fd, kind.flag()).map_err(|e| {
        let hint = match e.errno() {
            Some(libc::EINVAL) if kind == Kind::User => "; it may be the one that we are in",
            Some(libc::EINVAL) => "; the file is not such a namespace",
            _ => "",
        };
        e.wrap(format!("linux.namespaces: join the {} namespace{hint}", kind.name()))
    })
}

/// Makes a time namespace for our children, with its clocks set.
pub fn make_time(namespaces: &Namespaces, proc: Option<&Proc>) -> Result<()> {
    if !namespaces.makes(Kind::Time) {
        return Ok(());
    }
    sys::unshare(Kind::Time.flag()).map_err(|e| match e.errno() {
        Some(libc::EINVAL) => {
            Error::new("linux.namespaces: this kernel has no time namespaces (Linux 5.6)")
        }
        _ => e.wrap("linux.namespaces: time"),
    })?;
    let lines: Vec<String> = namespaces
        .offsets
        .iter()
        .map(|o| format!("{} {} {}", o.clock, o.seconds, o.nanoseconds))
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    procfs::given(proc)?
        .write("self/timens_offsets", lines.join("\n").as_bytes())
        .wrap(|| "linux.timeOffsets")
}
