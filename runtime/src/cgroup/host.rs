//! Which hierarchies this host has, where they are mounted, and where in them we are.

use super::resources::Sides;
use crate::error::{Context, Result};
use crate::sys::fs;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// How controllers are spread over hierarchies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// cgroup v1 alone.
    Legacy,
    /// cgroup v1, with a v2 hierarchy beside it.
    Hybrid,
    /// cgroup v2 alone.
    Unified,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hierarchy {
    /// Its controllers; none for v2.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Our own group in it, absolute.
    pub own: PathBuf,
    /// Is it cgroup v2?
    pub unified: bool,
}

/// All hierarchies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Host {
    /// How the controllers are spread.
    pub layout: Layout,
    /// The hierarchies, as /proc/self/cgroup lists them.
    pub hierarchies: Vec<Hierarchy>,
}

/// Where every distribution mounts the hierarchies.
const ROOT: &str = "/sys/fs/cgroup";
const CGROUP_SUPER_MAGIC: i64 = 0x27_e0eb;
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

impl Host {
    /// Looks at /proc/self/cgroup and below /sys/fs/cgroup; `None` if nothing is mounted there.
    ///
    /// The mount table is not read: its length grows with the host's mounts.
    pub fn detect() -> Result<Option<Self>> {
        let text =
            std::fs::read_to_string("/proc/self/cgroup").wrap(|| "read /proc/self/cgroup")?;
        Self::from_listing(&text, Path::new(ROOT), magic)
    }

    /// Which version of cgroups holds each controller.
    pub fn sides(&self) -> Sides {
        Sides::new(self.hierarchies.iter().map(|h| (h.controllers.as_slice(), h.unified)))
    }

    /// As [`Self::detect`], with the listing and the file systems' magic numbers given.
    fn from_listing(
        text: &str,
        root: &Path,
        magic: impl Fn(&Path) -> Result<Option<i64>>,
    ) -> Result<Option<Self>> {
        let unified_root = magic(root)? == Some(CGROUP2_SUPER_MAGIC);
        let mut hierarchies = Vec::new();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(own)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let own = PathBuf::from(own);
            if controllers.is_empty() {
                let mount = if unified_root { root.into() } else { root.join("unified") };
                if magic(&mount)? == Some(CGROUP2_SUPER_MAGIC) {
                    hierarchies.push(Hierarchy { controllers: vec![], mount, own, unified: true });
                }
            } else if !unified_root {
                let mount = root.join(controllers.strip_prefix("name=").unwrap_or(controllers));
                if magic(&mount)? == Some(CGROUP_SUPER_MAGIC) {
                    let controllers = controllers.split(',').map(String::from).collect();
                    hierarchies.push(Hierarchy { controllers, mount, own, unified: false });
                }
            }
        }
        let legacy = hierarchies.iter().any(|h| !h.unified);
        let unified = hierarchies.iter().any(|h| h.unified);
        let layout = match (legacy, unified) {
            (true, false) => Layout::Legacy,
            (true, true) => Layout::Hybrid,
            (false, true) => Layout::Unified,
            (false, false) => return Ok(None),
        };
        Ok(Some(Self { layout, hierarchies }))
    }
}

/// The file system's magic number; `None` where there is no such directory, or not for us.
fn magic(path: &Path) -> Result<Option<i64>> {
    match fs::openat(fs::CWD, path, libc::O_PATH | libc::O_DIRECTORY, 0) {
        Ok(fd) => fs::fstatfs(fd).map(Some),
        Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES)) => {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "4:memory:/a\n3:cpu,cpuacct:/\n2:name=systemd:/s\n0::/u\n";

    fn host(v1: bool, root: Option<i64>, unified: Option<i64>) -> Option<Host> {
        let magic = |path: &Path| match path.to_str() {
            Some("/c") => root,
            Some("/c/unified") => unified,
            Some("/c/memory" | "/c/cpu,cpuacct" | "/c/systemd") => v1.then_some(CGROUP_SUPER_MAGIC),
            _ => None,
        };
        Host::from_listing(LISTING, Path::new("/c"), |path| Ok(magic(path))).unwrap()
    }

    #[test]
    fn layouts_are_told_apart() {
        let two = Some(CGROUP2_SUPER_MAGIC);
        assert_eq!(host(true, None, None).unwrap().layout, Layout::Legacy);
        assert_eq!(host(true, None, two).unwrap().layout, Layout::Hybrid);
        let unified = host(true, two, None).unwrap();
        assert_eq!(unified.layout, Layout::Unified);
        assert_eq!(unified.hierarchies.len(), 1);
        assert_eq!(host(false, None, None), None);
    }

    #[test]
    fn names_and_places_are_kept() {
        let host = host(true, None, None).unwrap();
        assert_eq!(host.hierarchies[1].controllers, ["cpu", "cpuacct"]);
        assert_eq!(host.hierarchies[2].mount, Path::new("/c/systemd"));
        assert_eq!(host.hierarchies[0].own, Path::new("/a"));
    }
}
