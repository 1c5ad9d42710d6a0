//! Becoming the container's user, and finding its home.

use crate::error::{Context, Result};
use crate::plan::process::Process;
use crate::sys::{fs, process as sys};
use std::io::Read as _;
use std::path::Path;

/// Switches groups, group and user id; permitted capabilities stay for the steps that follow.
pub fn switch(process: &Process) -> Result<()> {
    sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0)?;
    let groups = match process.keep_groups {
        false => sys::setgroups(&process.groups),
        true => Ok(()),
    };
    match groups {
        // A user namespace made without privilege forbids it (user_namespaces(7), setgroups); the
        // caller's groups then stay, which shows as unmapped ones. Groups asked for are an error.
        Err(e) if e.errno() == Some(libc::EPERM) && process.groups.is_empty() => {}
        other => other.wrap(|| "process.user.additionalGids")?,
    }
    sys::setgid(process.gid).wrap(|| "process.user.gid")?;
    sys::setuid(process.uid).wrap(|| "process.user.uid")?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 0, 0).map(drop)
}

/// A passwd file larger than this is not read: it is the image's, and may be endless.
const PASSWD_LIMIT: u64 = 1 << 20;

/// The home directory that the container's /etc/passwd gives `uid`; `/` if it gives none.
///
/// The file is opened without blocking and only if it is a regular one: a FIFO would make us wait
/// for the image's pleasure.
pub fn home(uid: u32) -> String {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;
    let text = fs::openat(fs::CWD, Path::new("/etc/passwd"), flags, 0).ok().and_then(|file| {
        let regular = fs::fstat(&file).is_ok_and(|st| st.st_mode & libc::S_IFMT == libc::S_IFREG);
        let mut text = Vec::new();
        let file = std::fs::File::from(file);
        (regular && file.take(PASSWD_LIMIT).read_to_end(&mut text).is_ok()).then_some(text)
    });
    let text = text.unwrap_or_default();
    home_in(&String::from_utf8_lossy(&text), uid).unwrap_or_else(|| "/".into())
}

fn home_in(passwd: &str, uid: u32) -> Option<String> {
    let line = passwd
        .lines()
        .find(|line| line.split(':').nth(2).and_then(|field| field.parse().ok()) == Some(uid))?;
    line.split(':').nth(5).filter(|home| !home.is_empty()).map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_found_by_number() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\n\nbad\nwww:x:33:33:x:/var/www:/bin/sh\nno:x:5:5:::\n";
        assert_eq!(home_in(passwd, 33).as_deref(), Some("/var/www"));
        assert_eq!(home_in(passwd, 5), None);
        assert_eq!(home_in(passwd, 99), None);
    }
}
