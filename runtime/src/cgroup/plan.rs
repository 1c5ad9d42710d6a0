//! `linux.cgroupsPath` and `linux.resources`, checked.

use super::devices::Rule;
use super::driver::Driver;
use super::host::{Hierarchy, Host, Layout};
use super::resources;
use super::systemd::properties::{self, Property};
use super::systemd::{self, unit};
use crate::error::{Error, Result};
use oci_spec::runtime::{Linux, LinuxResources};
use serde::Serialize;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// Whether control groups are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum Cgroups {
    /// They are; what hinders it is an error.
    #[default]
    Required,
    /// They are if the caller may, and if the configuration asks for no limit they may be missing.
    IfAllowed,
    /// The latter as root of a user namespace, else the former.
    Auto,
    /// They are not.
    None,
}

impl Cgroups {
    /// May they be missing where permission is? Asked only once it is.
    pub fn may_be_missing(self) -> bool {
        self == Self::IfAllowed || (self == Self::Auto && crate::rootless::in_user_namespace())
    }
}

/// Which groups to make and what to write into them.
#[derive(Debug, Serialize)]
pub struct CgroupPlan {
    /// `linux.cgroupsPath`, checked; absolute counts from each hierarchy's mount point.
    ///
    /// With systemd as the driver it is in `systemd` instead.
    pub path: Option<PathBuf>,
    /// The scope that systemd is to make; `None` where we make the groups ourselves.
    pub systemd: Option<systemd::Wanted>,
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
    /// Checks the two properties against what the host has. `namespace`: does the container get a
    /// cgroup namespace of its own?
    pub fn new(
        linux: &Linux,
        namespace: bool,
        wanted: Cgroups,
        systemd: Option<systemd::Wanted>,
        fallbacks: &mut Vec<String>,
    ) -> Result<Self> {
        let path = match systemd {
            None => cgroups_path(linux).map(check_path).transpose()?,
            Some(_) => None,
        };
        let host = if wanted == Cgroups::None { None } else { Host::detect()? };
        let resources = linux.resources().clone().unwrap_or_default_empty();
        match &host {
            Some(host) => drop(resources::writes(&resources, &host.sides())?),
            None if wanted == Cgroups::None => {}
            None => fallbacks.push("no cgroup hierarchy is mounted: no cgroup is made".into()),
        }
        let devices = Rule::all(resources.devices().as_deref())?;
        Ok(Self { path, systemd, resources, devices, namespace, host, wanted })
    }

    /// The path of the group below the hierarchy's mount point.
    ///
    /// Without `cgroupsPath`, and for a relative one, it counts from our own group; in v2 from the
    /// one above ours, because a group with processes cannot hand controllers down
    /// (cgroups(7), "no internal processes").
    pub fn path_in(&self, hierarchy: &Hierarchy, id: &str) -> PathBuf {
        if let Some(wanted) = &self.systemd {
            return wanted.expected(&hierarchy.own, id);
        }
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
    pub fn driver(&self, id: &str) -> Driver {
        match (&self.systemd, &self.host) {
            (Some(wanted), Some(_)) => Driver::Systemd(wanted.unit(id)),
            _ => Driver::Cgroupfs,
        }
    }

    /// The way into the group that is delegated to the container, for who is in the one above it:
    /// the limits of the root that the container sees are not its own to change.
    pub fn delegated_door(&self) -> Result<Option<OwnedFd>> {
        let delegated = self.systemd.as_ref().and_then(|wanted| wanted.delegated.as_deref());
        match (delegated, &self.host) {
            (Some(below), Some(host)) => systemd::place::door(host, below).map(Some),
            _ => Ok(None),
        }
    }

    /// The properties of the scope around the process `pid`; those of annotations win.
    pub fn unit_properties(
        &self,
        wanted: &systemd::Wanted,
        id: &str,
        pid: i32,
    ) -> Result<Vec<Property>> {
        let unified = self.layout() == Some(Layout::Unified);
        let pid = unit::pid_argument(pid)?;
        let mut all = properties::of_scope(&wanted.slice, id, pid, unified);
        all.extend(properties::from_writes(&self.writes()?));
        // A user's systemd may not load device filters.
        if !wanted.bus.user {
            all.extend(properties::from_devices(&self.devices));
        }
        all.retain(|own| wanted.properties.iter().all(|given| given.name != own.name));
        all.extend(wanted.properties.iter().cloned());
        Ok(all)
    }

    /// May the container do without, where the caller has no permission to make its groups?
    pub fn dispensable(&self) -> bool {
        let limits = self.writes().map(|all| !all.is_empty()).unwrap_or(true);
        self.path.is_none() && !limits && self.wanted.may_be_missing()
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

/// `linux.cgroupsPath`; an empty one is none.
pub fn cgroups_path(linux: &Linux) -> Option<&Path> {
    linux.cgroups_path().as_deref().filter(|p| !p.as_os_str().is_empty())
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
        CgroupPlan::new(&linux, false, Cgroups::Required, None, &mut Vec::new())
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
