//! `linux.cgroupsPath` and `linux.resources`, checked.

use super::devices::Rule;
use super::driver::Driver;
use super::host::{Hierarchy, Host, Layout};
use super::resources;
use crate::error::{Error, Result};
use crate::plan::Cgroups;
use crate::plan::namespaces::{Kind, Namespaces};
use oci_spec::runtime::{Linux, LinuxResources};
use serde::Serialize;
use std::path::{Component, Path, PathBuf};

/// Which groups to make and what to write into them.
#[derive(Debug, Serialize)]
pub struct CgroupPlan {
    /// `linux.cgroupsPath`, checked; absolute counts from each hierarchy's mount point.
    pub path: Option<PathBuf>,
    /// The limits.
    pub resources: LinuxResources,
    /// Device rules, in order.
    pub devices: Vec<Rule>,
    /// Is the container in a cgroup namespace of its own?
    pub namespace: bool,
    /// The hierarchies; `None` where there are none, or none are wanted.
    pub host: Option<Host>,
    /// What a missing permission means.
    pub wanted: Cgroups,
}

impl CgroupPlan {
    /// Checks the two properties against what the host has.
    pub fn new(
        linux: &Linux,
        namespaces: &Namespaces,
        wanted: Cgroups,
        fallbacks: &mut Vec<String>,
    ) -> Result<Self> {
        let path = linux.cgroups_path().as_deref().filter(|p| !p.as_os_str().is_empty());
        let path = path.map(check_path).transpose()?;
        let host = if wanted == Cgroups::None { None } else { Host::detect()? };
        let resources = linux.resources().clone().unwrap_or_default_empty();
        match &host {
            Some(host) => drop(resources::writes(&resources, &host.sides())?),
            None if wanted == Cgroups::None => {}
            None => fallbacks.push("no cgroup hierarchy is mounted: no cgroup is made".into()),
        }
        let devices = Rule::all(resources.devices().as_deref())?;
        Ok(Self { path, resources, devices, namespace: namespaces.has(Kind::Cgroup), host, wanted })
    }

    /// The path of the group below the hierarchy's mount point.
    ///
    /// Without `cgroupsPath`, and for a relative one, it counts from our own group; in v2 from the
    /// one above ours, because a group with processes cannot hand controllers down
    /// (cgroups(7), "no internal processes").
    pub fn path_in(&self, hierarchy: &Hierarchy, id: &str) -> PathBuf {
        let name = self.path.clone().unwrap_or_else(|| PathBuf::from(id));
        let base = match (name.is_absolute(), hierarchy.unified) {
            (true, _) => PathBuf::new(),
            (false, true) => hierarchy.own.parent().unwrap_or(Path::new("/")).into(),
            (false, false) => hierarchy.own.clone(),
        };
        let whole = base.join(name);
        whole.strip_prefix("/").map(Path::to_path_buf).unwrap_or(whole)
    }

    /// Who is to keep the groups of the container `id`.
    pub fn driver(&self, _id: &str) -> Driver {
        Driver::Cgroupfs
    }

    /// May the container do without, where the caller has no permission to make its groups?
    pub fn dispensable(&self) -> bool {
        let limits = self.writes().map(|all| !all.is_empty()).unwrap_or(true);
        self.wanted == Cgroups::IfAllowed && self.path.is_none() && !limits
    }

    /// What will be written on this host, for `runtime plan`.
    pub fn writes(&self) -> Result<Vec<resources::Write>> {
        match &self.host {
            Some(host) => resources::writes(&self.resources, &host.sides()),
            None => Ok(Vec::new()),
        }
    }

    /// The layout of the host's hierarchies, if it has any.
    pub fn layout(&self) -> Option<Layout> {
        self.host.as_ref().map(|h| h.layout)
    }
}

fn check_path(path: &Path) -> Result<PathBuf> {
    if path.components().any(|c| c == Component::ParentDir) {
        return Err(Error::new(format!(
            "config.json: linux.cgroupsPath: {path:?} contains \"..\""
        )));
    }
    if path.to_string_lossy().matches(':').count() == 2 && !path.is_absolute() {
        return Err(Error::new(format!(
            "config.json: linux.cgroupsPath: {path:?} is of the form slice:prefix:name, which needs --systemd-cgroup"
        )));
    }
    Ok(path.components().collect())
}

trait UnwrapEmpty {
    fn unwrap_or_default_empty(self) -> LinuxResources;
}

impl UnwrapEmpty for Option<LinuxResources> {
    fn unwrap_or_default_empty(self) -> LinuxResources {
        self.unwrap_or_else(|| serde_json::from_slice(b"{}").expect("every resource is optional"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(path: &str) -> Result<CgroupPlan> {
        let linux: Linux = serde_json::from_str(&format!(r#"{{"cgroupsPath":{path:?}}}"#)).unwrap();
        CgroupPlan::new(&linux, &Namespaces::default(), Cgroups::Required, &mut Vec::new())
    }

    fn hierarchy(own: &str, unified: bool) -> Hierarchy {
        Hierarchy { controllers: vec![], mount: "/m".into(), own: own.into(), unified }
    }

    #[test]
    fn paths_count_from_where_they_should() {
        assert_eq!(plan("/x/y").unwrap().path_in(&hierarchy("/o", false), "c"), Path::new("x/y"));
        assert_eq!(plan("x").unwrap().path_in(&hierarchy("/o", false), "c"), Path::new("o/x"));
        assert_eq!(plan("").unwrap().path_in(&hierarchy("/", false), "c"), Path::new("c"));
        assert_eq!(plan("").unwrap().path_in(&hierarchy("/s/o", true), "c"), Path::new("s/c"));
        assert_eq!(plan("").unwrap().path_in(&hierarchy("/", true), "c"), Path::new("c"));
    }

    #[test]
    fn a_path_cannot_climb() {
        assert!(plan("/x/../../y").unwrap_err().to_string().contains("cgroupsPath"));
        assert!(plan("system.slice:runc:1").unwrap_err().to_string().contains("--systemd-cgroup"));
    }
}
