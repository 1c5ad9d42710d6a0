//! Where systemd has put a process, read from the process itself rather than guessed from names.

use crate::cgroup::host::{Hierarchy, Host};
use crate::error::{Context, Error, Result};
use crate::sys::fs;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// /proc/PID/cgroup (cgroups(7)).
#[derive(Debug)]
pub struct Listing(String);

impl Listing {
    /// Reads the listing of a process.
    pub fn of(pid: i32) -> Result<Self> {
        Self::read(&format!("/proc/{pid}/cgroup"))
    }

    /// Our own, under whatever pid /proc knows us.
    fn own() -> Result<Self> {
        Self::read("/proc/self/cgroup")
    }

    fn read(path: &str) -> Result<Self> {
        std::fs::read_to_string(path).map(Self).wrap(|| format!("read {path}"))
    }

    /// The directory of the group that `unit` is in this hierarchy; `None` if the process is not in
    /// it there, because systemd does not manage the hierarchy.
    ///
    /// # Errors
    /// The group cannot be reached from our own cgroup namespace.
    pub fn place(&self, hierarchy: &Hierarchy, unit: &str) -> Result<Option<PathBuf>> {
        let Some(group) = self.group(hierarchy) else { return Ok(None) };
        if group.file_name().is_none_or(|name| name != unit) {
            return Ok(None);
        }
        if group.components().any(|c| c == Component::ParentDir) {
            return Err(Error::new(format!(
                "systemd has put {unit} into {}, outside of the cgroup namespace that we are in",
                group.display()
            )));
        }
        Ok(Some(hierarchy.mount.join(group.strip_prefix("/").unwrap_or(group))))
    }

    fn group(&self, hierarchy: &Hierarchy) -> Option<&Path> {
        let wanted = hierarchy.controllers.join(",");
        self.0.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            (fields.next()? == wanted).then(|| fields.next().map(Path::new))?
        })
    }
}

/// Opens the file by which the calling process enters the group `below` its own v2 group.
pub fn door(host: &Host, below: &Path) -> Result<OwnedFd> {
    let unified = host.hierarchies.iter().find(|h| h.unified);
    let hierarchy = unified.ok_or_else(|| {
        Error::new("run.oci.delegate-cgroup: only cgroup v2 can be delegated safely")
    })?;
    let listing = Listing::own()?;
    let own = listing.group(hierarchy).unwrap_or(Path::new("/"));
    let own = own.strip_prefix("/").unwrap_or(own);
    let path = hierarchy.mount.join(own).join(below).join("cgroup.procs");
    fs::openat(fs::CWD, &path, libc::O_WRONLY, 0).wrap(|| "run.oci.delegate-cgroup")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchy(controllers: &[&str], unified: bool) -> Hierarchy {
        Hierarchy {
            controllers: controllers.iter().map(|c| c.to_string()).collect(),
            mount: "/m".into(),
            own: "/".into(),
            unified,
        }
    }

    #[test]
    fn the_unit_is_where_the_process_says() {
        let text = "2:cpu,cpuacct:/user\n1:name=systemd:/s.slice/u.scope\n0::/s.slice/u.scope\n";
        let listing = Listing(text.into());
        let v2 = hierarchy(&[], true);
        let place = listing.place(&v2, "u.scope").unwrap();
        assert_eq!(place.as_deref(), Some(Path::new("/m/s.slice/u.scope")));
        let named = hierarchy(&["name=systemd"], false);
        assert!(listing.place(&named, "u.scope").unwrap().is_some());
        assert!(
            listing.place(&hierarchy(&["cpu", "cpuacct"], false), "u.scope").unwrap().is_none()
        );
        assert!(listing.place(&v2, "other.scope").unwrap().is_none());
    }

    #[test]
    fn a_unit_outside_of_our_namespace_is_an_error() {
        let listing = Listing("0::/../s.slice/u.scope\n".into());
        let e = listing.place(&hierarchy(&[], true), "u.scope").unwrap_err().to_string();
        assert!(e.contains("outside of the cgroup namespace"), "{e}");
    }
}
