//! Who runs: `USER[:GROUP]` of an image or a command line, resolved in the image's own files.
//!
//! `/etc/passwd` and `/etc/group` belong to the image and are hostile: they are opened within the
//! root, never through a device or a pipe, and read up to a bound. A name of digits alone is a
//! number, however many users have it as their name.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::order;
use crate::{Context, Error, Result};

/// Most bytes of a passwd or group file.
const MAX_FILE: u64 = 4 << 20;

/// A resolved user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory, `/` where the image knows none.
    pub home: String,
}

/// The passwd and group files of a root.
pub struct Accounts {
    passwd: Vec<Vec<String>>,
    group: Vec<Vec<String>>,
}

impl Accounts {
    /// Reads the files below `root`; missing ones are empty.
    pub fn read(root: BorrowedFd<'_>) -> Result<Accounts> {
        Ok(Accounts { passwd: table(root, "etc/passwd", 7)?, group: table(root, "etc/group", 4)? })
    }

    /// Resolves `USER`, `UID`, `USER:GROUP` and mixtures; nothing means 0:0. `more` are further
    /// groups, by name or number (`--group-add`).
    pub fn resolve(&self, spec: &str, more: &[String]) -> Result<User> {
        let (user, group) = match spec.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
            None => (spec, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let entry = self.find_user(user)?;
        let uid = match entry {
            Some(entry) => id(&entry[2]).wrap(|| format!("user {user} in /etc/passwd"))?,
            None => id(user)?,
        };
        let gid = match (group, entry) {
            (Some(group), _) => self.gid(group)?,
            (None, Some(entry)) => id(&entry[3]).wrap(|| format!("user {user} in /etc/passwd"))?,
            (None, None) => 0,
        };
        let mut groups = Vec::new();
        if group.is_none() && !is_number(user) {
            groups = self.memberships(user)?;
        }
        for group in more {
            groups.push(self.gid(group)?);
        }
        groups.retain(|g| *g != gid);
        order::sort(&mut groups);
        groups.dedup();
        let home = entry.map(|e| e[5].as_str()).filter(|home| home.starts_with('/'));
        Ok(User { uid, gid, groups, home: home.unwrap_or("/").to_owned() })
    }

    /// The passwd entry: by name, or for a number by id (where it may be absent).
    fn find_user(&self, user: &str) -> Result<Option<&Vec<String>>> {
        if is_number(user) {
            let uid = id(user)?;
            return Ok(self.passwd.iter().find(|e| id(&e[2]).is_ok_and(|i| i == uid)));
        }
        let found = self.passwd.iter().find(|e| e[0] == user);
        found
            .map(Some)
            .ok_or_else(|| Error::new(format!("no user {user} in the image's /etc/passwd")))
    }

    fn gid(&self, group: &str) -> Result<u32> {
        if is_number(group) {
            return id(group);
        }
        match self.group.iter().find(|e| e[0] == group) {
            Some(entry) => id(&entry[2]).wrap(|| format!("group {group} in /etc/group")),
            None => Err(Error::new(format!("no group {group} in the image's /etc/group"))),
        }
    }

    fn memberships(&self, user: &str) -> Result<Vec<u32>> {
        let member = |e: &&Vec<String>| e[3].split(',').any(|name| name == user);
        let gid = |e: &Vec<String>| id(&e[2]).wrap(|| format!("group {} in /etc/group", e[0]));
        self.group.iter().filter(member).map(gid).collect()
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// An id that the kernel accepts: below 2³¹, as every runtime demands.
fn id(text: &str) -> Result<u32> {
    match text.parse::<u32>() {
        Ok(id) if is_number(text) && id <= i32::MAX as u32 => Ok(id),
        _ => Err(Error::new(format!("{text:?} is no id between 0 and {}", i32::MAX))),
    }
}

/// A colon-separated file, lines with fewer fields dropped.
fn table(root: BorrowedFd<'_>, path: &str, fields: usize) -> Result<Vec<Vec<String>>> {
    let text = read_file(root, path).wrap(|| format!("read /{path} of the image"))?;
    let text = String::from_utf8_lossy(&text);
    let rows = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
    Ok(rows.filter(|row| row.len() >= fields).collect())
}

/// A regular file within the root; empty if there is none.
fn read_file(root: BorrowedFd<'_>, path: &str) -> Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // A path first, so that not even opening has an effect on what is no file.
    let probe = fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), within);
    let probe = match probe {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        probe => probe?,
    };
    if FileType::from_raw_mode(fs::fstat(&probe)?.st_mode) != FileType::RegularFile {
        return Err(Error::new("not a regular file"));
    }
    let file = File::from(fs::openat2(root, path, flags, Mode::empty(), within)?);
    if !file.metadata()?.is_file() {
        return Err(Error::new("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_FILE {
        true => Err(Error::new(format!("larger than {MAX_FILE} bytes"))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        let rows = |text: &str| {
            text.lines().map(|l| l.split(':').map(str::to_owned).collect()).collect::<Vec<Vec<_>>>()
        };
        Accounts {
            passwd: rows(
                "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n\
                 12:x:77:77::/odd:/bin/sh\nbad:x:99999999999:1::/:/bin/sh",
            ),
            group: rows("root:x:0:\napp:x:1001:\nvideo:x:44:app,root\naudio:x:29:app"),
        }
    }

    #[test]
    fn names_and_numbers() {
        let a = accounts();
        let user = |spec| a.resolve(spec, &[]).map(|u| (u.uid, u.gid, u.groups, u.home));
        assert_eq!(user("").unwrap(), (0, 0, vec![], "/root".into()));
        assert_eq!(user("app").unwrap(), (1000, 1001, vec![29, 44], "/home/app".into()));
        assert_eq!(user("1000").unwrap(), (1000, 1001, vec![], "/home/app".into()));
        assert_eq!(user("app:video").unwrap(), (1000, 44, vec![], "/home/app".into()));
        assert_eq!(user("5000:7").unwrap(), (5000, 7, vec![], "/".into()));
        // A user *named* 12 is not who "12" is.
        assert_eq!(user("12").unwrap(), (12, 0, vec![], "/".into()));
    }

    #[test]
    fn unknown_and_impossible_ones_are_errors() {
        for bad in ["nobody", "app:nogroup", "4294967296", "2147483648", "-1", "bad", "+1"] {
            assert!(accounts().resolve(bad, &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn groups_are_added() {
        let more = ["audio".to_owned(), "9".to_owned(), "0".to_owned()];
        assert_eq!(accounts().resolve("0", &more).unwrap().groups, [9, 29]);
        assert!(accounts().resolve("0", &["x".to_owned()]).is_err());
    }
}
