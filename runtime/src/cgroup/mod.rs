//! Control groups (cgroups(7)): finding the hierarchies, making the container's group in each,
//! writing its limits, putting the child in, and taking everything away again.
//!
//! Three layouts exist. *Legacy*: one v1 hierarchy for each controller. *Hybrid*: the same, and a
//! v2 hierarchy beside it. *Unified*: v2 alone. A child is born inside its v2 group
//! (`CLONE_INTO_CGROUP`), and writes itself into its v1 groups: a thread that moves itself, by `0`
//! in `tasks`, needs no lock on all processes and so waits for no grace period, which is what
//! makes a write to `cgroup.procs` cost milliseconds.

pub mod change;
pub mod devices;
mod directory;
pub mod driver;
mod freezer;
pub mod host;
pub mod oom;
pub mod plan;
pub mod resources;
pub mod statistics;
pub mod systemd;

use crate::error::{Context, Error, Result};
use crate::sys;
use crate::sys::fs;
use directory::{
    collect, complete_cpuset, enable_controllers, inherit_cpuset, make_below, open_directory, put,
    refuse_occupied, remove_tree,
};
use driver::Driver;
use host::{Hierarchy, Host, Layout};
use plan::CgroupPlan;
use resources::{Sides, Write};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use systemd::place::Listing;

/// The container's group in one hierarchy, as the state file keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Place {
    /// Controllers of the hierarchy; none for v2, `name=…` for a named one.
    pub controllers: Vec<String>,
    /// Directory of the group, absolute.
    pub path: PathBuf,
    /// Is it cgroup v2?
    pub unified: bool,
}

impl Place {
    /// The name under which the hierarchy is mounted: `memory`, `cpu,cpuacct`, `systemd`.
    pub fn name(&self) -> String {
        let all: Vec<&str> =
            self.controllers.iter().map(|c| c.strip_prefix("name=").unwrap_or(c)).collect();
        all.join(",")
    }

    fn has(&self, controller: &str) -> bool {
        self.unified || self.controllers.iter().any(|c| c == controller)
    }
}

/// The container's groups, with an open directory each while it is being made.
#[derive(Debug)]
pub struct Cgroup {
    places: Vec<(Place, Option<OwnedFd>)>,
    driver: Driver,
    /// Has the driver been told to make them? Only then is there something to take away.
    standing: bool,
}

impl Cgroup {
    /// Makes the groups that `plan` names, and writes their limits.
    ///
    /// Whatever was made is removed again on failure.
    pub fn create(plan: &CgroupPlan, id: &str) -> Result<Self> {
        let Some(host) = &plan.host else { return Ok(Self::none()) };
        let driver = plan.driver(id);
        if matches!(driver, Driver::Systemd(_)) {
            // A scope needs a process: [`Self::adopt`] makes it.
            let planned = Self::planned(plan, id).into_iter().map(|p| (p, None)).collect();
            return Ok(Self { places: planned, driver, standing: false });
        }
        let places = Vec::with_capacity(host.hierarchies.len());
        let mut cgroup = Self { places, driver, standing: true };
        let made = host.hierarchies.iter().try_for_each(|hierarchy| {
            let (place, directory) = make(hierarchy, plan, id)?;
            cgroup.places.push((place, Some(directory)));
            Ok(())
        });
        let done = made.and_then(|()| cgroup.configure(plan, host.layout));
        if let Err(e) = done {
            if matches!(e.errno(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
                && plan.dispensable()
            {
                cgroup.remove()?;
                return Ok(Self::none());
            }
            let left = cgroup.remove().err().map(|l| format!(" ({l})")).unwrap_or_default();
            return Err(e.wrap(format!("make cgroup{left}")));
        }
        Ok(cgroup)
    }

    /// Has systemd, if it is the driver, make the scope of the container `id` around the waiting
    /// process `pid`; when this returns, the process is in its groups and their limits are set.
    pub fn adopt(&mut self, plan: &CgroupPlan, id: &str, pid: i32) -> Result<()> {
        let (Driver::Systemd(unit), Some(wanted), Some(host)) =
            (&self.driver, &plan.systemd, &plan.host)
        else {
            return Ok(());
        };
        let properties = plan.unit_properties(wanted, id, pid)?;
        let mut connection = unit.connect().wrap(|| "--systemd-cgroup")?;
        let job = unit.start(&mut connection, &properties)?;
        // Only now: a scope of this name that was there before is another container's.
        self.standing = true;
        unit.await_start(&mut connection, &job)?;
        let listing = Listing::of(pid)?;
        let mut places = Vec::with_capacity(host.hierarchies.len());
        for hierarchy in &host.hierarchies {
            let scope = match listing.place(hierarchy, &unit.name)? {
                Some(path) => path,
                None if host.layout == Layout::Unified => {
                    return Err(Error::new(format!(
                        "systemd has not put process {pid} into {}",
                        unit.name
                    )));
                }
                // A v1 hierarchy that systemd leaves alone.
                None => {
                    let (place, directory) = make(hierarchy, plan, id)?;
                    put(&directory, pid)?;
                    place.path
                }
            };
            places.push(self.below_scope(hierarchy, scope, wanted, pid)?);
        }
        self.places = places;
        self.configure(plan, host.layout).wrap(|| format!("limit {}", unit.name))
    }

    /// Moves the process into the group below the scope that the annotations ask for, if they do,
    /// and makes the delegated one below that.
    fn below_scope(
        &self,
        hierarchy: &Hierarchy,
        scope: PathBuf,
        wanted: &systemd::Wanted,
        pid: i32,
    ) -> Result<(Place, Option<OwnedFd>)> {
        let mut path = scope;
        let mut directory = open_directory(fs::CWD, &path)?;
        if let Some(name) = &wanted.subgroup {
            let below = make_below(&directory, name)?;
            put(&below, pid)?;
            if hierarchy.unified {
                // Now that the scope has no process of its own.
                enable_controllers(directory.as_fd());
                if let Some(delegated) = &wanted.delegated {
                    make_below(&below, delegated)?;
                }
            }
            directory = below;
            path.push(name);
        }
        let controllers = hierarchy.controllers.clone();
        let place = Place { controllers, path, unified: hierarchy.unified };
        Ok((place, Some(directory)))
    }

    /// Where [`Self::create`] will make them.
    pub fn planned(plan: &CgroupPlan, id: &str) -> Vec<Place> {
        let hierarchies = plan.host.iter().flat_map(|host| &host.hierarchies);
        hierarchies.map(|hierarchy| place(hierarchy, plan, id)).collect()
    }

    /// The groups of a container made earlier.
    pub fn recover(places: Vec<Place>, driver: Driver) -> Self {
        let places = places.into_iter().map(|p| (p, None)).collect();
        Self { places, driver, standing: true }
    }

    /// No groups at all.
    fn none() -> Self {
        Self { places: Vec::new(), driver: Driver::Cgroupfs, standing: true }
    }

    /// Who keeps the groups.
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Groups below these: each entry is `path` for all hierarchies, or `controllers:path` for one
    /// of v1 (`exec --cgroup`).
    pub fn below(mut self, entries: &[String]) -> Result<Self> {
        for entry in entries {
            let (controllers, path) = match entry.split_once(':') {
                Some((controllers, path)) => (Some(controllers), path),
                None => (None, entry.as_str()),
            };
            let relative = Path::new(path.trim_start_matches('/'));
            if relative.components().any(|c| c == std::path::Component::ParentDir) {
                return Err(Error::new(format!(
                    "--cgroup {entry:?} leads out of the container's cgroup"
                )));
            }
            let mut found = false;
            for (place, _) in &mut self.places {
                let meant = controllers.is_none_or(|list| {
                    list.split(',')
                        .any(|c| place.name() == c || place.controllers.iter().any(|own| own == c))
                });
                if meant {
                    found = true;
                    place.path.push(relative);
                }
            }
            if !found {
                return Err(Error::new(format!(
                    "--cgroup {entry:?}: the container has no such controller"
                )));
            }
        }
        Ok(self)
    }

    /// What the state file keeps.
    pub fn places(&self) -> Vec<Place> {
        self.places.iter().map(|(p, _)| p.clone()).collect()
    }

    /// The groups with their open directories, for the mounts of type `cgroup`.
    pub fn open_places(&self) -> impl Iterator<Item = (&Place, BorrowedFd<'_>)> {
        self.places.iter().filter_map(|(p, fd)| fd.as_ref().map(|fd| (p, fd.as_fd())))
    }

    /// The group in the v1 hierarchy that has exactly these controllers.
    pub fn path_of(&self, controllers: &[String]) -> Option<&Path> {
        let mut places = self.places.iter().map(|(p, _)| p);
        places.find(|p| !p.unified && p.controllers == controllers).map(|p| p.path.as_path())
    }

    /// The path of the v2 group.
    pub fn unified_path(&self) -> Option<&Path> {
        self.places.iter().map(|(p, _)| p).find(|p| p.unified).map(|p| p.path.as_path())
    }

    /// The v2 directory in which a child can be born.
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.open_places().find(|(place, _)| place.unified).map(|(_, fd)| fd)
    }

    /// Opens what a child needs to write itself into the v1 groups.
    pub fn doors(&self) -> Result<Vec<OwnedFd>> {
        self.open_places()
            .filter(|(place, _)| !place.unified)
            .map(|(_, fd)| fs::openat(fd, Path::new("tasks"), libc::O_WRONLY, 0))
            .collect()
    }

    /// The same for the v2 group, for a child that could not be born there.
    pub fn unified_door(&self) -> Result<Option<OwnedFd>> {
        self.birthplace()
            .map(|fd| fs::openat(fd, Path::new("cgroup.procs"), libc::O_WRONLY, 0))
            .transpose()
    }

    /// Opens the directories of a recovered group, for a process that joins.
    pub fn open(&mut self) -> Result<()> {
        for (place, fd) in &mut self.places {
            *fd = Some(fs::openat(fs::CWD, &place.path, libc::O_DIRECTORY | libc::O_PATH, 0)?);
        }
        Ok(())
    }

    /// Which version of cgroups holds each controller of these groups.
    pub fn sides(&self) -> Sides {
        Sides::new(self.places.iter().map(|(p, _)| (p.controllers.as_slice(), p.unified)))
    }

    /// The open group that holds a controller: v1's where both versions are there.
    fn holder(&self, controller: &str) -> Option<(&Place, BorrowedFd<'_>)> {
        let legacy = self.open_places().find(|(p, _)| !p.unified && p.has(controller));
        legacy.or_else(|| self.open_places().find(|(p, _)| p.unified))
    }

    /// The directory into which a write goes.
    fn directory_for(&self, write: &Write) -> Result<BorrowedFd<'_>> {
        let found = self.holder(write.controller).map(|(_, directory)| directory);
        found.ok_or_else(|| write.refused("this host has no such controller"))
    }

    /// Turns to the v2 group below the container's in which process `pid` is, and opens it; `false`
    /// if that is the container's own.
    ///
    /// # Errors
    /// The process is outside the container's group.
    pub fn follow(&mut self, pid: i32) -> Result<bool> {
        let Some((place, fd)) = self.places.iter_mut().find(|(p, _)| p.unified) else {
            return Ok(false);
        };
        let file = format!("/proc/{pid}/cgroup");
        let table = std::fs::read_to_string(&file).wrap(|| format!("read {file}"))?;
        let theirs = table.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let host = Host::detect()?;
        let mount = host.iter().flat_map(|h| &h.hierarchies).find(|h| h.unified).map(|h| &h.mount);
        let path = mount.map(|mount| mount.join(theirs)).unwrap_or_default();
        if !path.starts_with(&place.path) {
            return Err(Error::new(format!(
                "the container's first process is in cgroup /{theirs}, outside {}",
                place.path.display()
            )));
        }
        if path == place.path {
            return Ok(false);
        }
        *fd = Some(open_directory(fs::CWD, &path)?);
        place.path = path;
        Ok(true)
    }

    fn configure(&self, plan: &CgroupPlan, layout: Layout) -> Result<()> {
        for write in plan.writes()? {
            write.carry_out(self.directory_for(&write)?)?;
        }
        self.limit_devices(plan, layout)
    }

    fn limit_devices(&self, plan: &CgroupPlan, layout: Layout) -> Result<()> {
        if plan.devices.is_empty() {
            return Ok(());
        }
        match layout {
            Layout::Unified => match self.birthplace().map(|d| devices::attach(d, &plan.devices)) {
                // Without privilege no filter can be loaded, and no device be made either.
                Some(Err(e)) if e.errno() == Some(libc::EPERM) && plan.wanted.may_be_missing() => {
                    Ok(())
                }
                Some(done) => done,
                None => Ok(()),
            },
            Layout::Legacy | Layout::Hybrid => {
                let found =
                    self.open_places().find(|(place, _)| place.has("devices") && !place.unified);
                let Some((_, directory)) = found else {
                    return Err(Error::new(
                        "linux.resources.devices: this host has no devices controller",
                    ));
                };
                devices::write(directory, &plan.devices)
            }
        }
    }

    /// All processes in the groups, also in groups below them.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let best = self.places.iter().map(|(p, _)| p).min_by_key(|p| match () {
            () if p.has("pids") && !p.unified => 0,
            () if p.unified => 1,
            () => 2,
        });
        let mut all = Vec::new();
        if let Some(place) = best {
            collect(&place.path, &mut all)?;
        }
        all.sort_unstable();
        Ok(all)
    }

    /// Ends every process in the groups, and waits until they are empty.
    pub fn kill_all(&self, deadline: Instant) -> Result<()> {
        if !self.standing {
            return Ok(());
        }
        let unified = self.places.iter().find(|(p, _)| p.unified);
        if let Some((place, _)) = unified {
            // Linux 5.14; before that the file is missing, and the loop below does the work.
            if std::fs::write(place.path.join("cgroup.kill"), "1").is_ok() {
                self.thaw()?;
            }
        }
        loop {
            let pids = self.pids()?;
            if pids.is_empty() {
                return Ok(());
            }
            for pid in &pids {
                match sys::process::kill(*pid, libc::SIGKILL) {
                    Err(e) if e.errno() != Some(libc::ESRCH) => return Err(e),
                    _ => {}
                }
            }
            self.thaw()?;
            if Instant::now() > deadline {
                return Err(Error::new(format!("processes {pids:?} do not end after SIGKILL")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Removes the groups and every group below them. Missing ones are no error.
    pub fn remove(&self) -> Result<()> {
        if !self.standing {
            return Ok(());
        }
        if let Driver::Systemd(unit) = &self.driver {
            unit.stop()?;
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        for (place, _) in &self.places {
            remove_tree(&place.path, deadline)?;
        }
        Ok(())
    }
}

/// Makes the group in one hierarchy, with the directories above it.
fn make(hierarchy: &Hierarchy, plan: &CgroupPlan, id: &str) -> Result<(Place, OwnedFd)> {
    let relative = plan.path_in(hierarchy, id);
    let mut directory = open_directory(fs::CWD, &hierarchy.mount)?;
    let mut parts = relative.components().peekable();
    while let Some(part) = parts.next() {
        let name = Path::new(part.as_os_str());
        if hierarchy.unified {
            enable_controllers(directory.as_fd());
        }
        let made = match fs::mkdirat(&directory, name, 0o755) {
            Ok(()) => true,
            Err(e) if e.errno() == Some(libc::EEXIST) => false,
            Err(e) => return Err(e.wrap(format!("under {}", hierarchy.mount.display()))),
        };
        let opened = open_directory(&directory, name).and_then(|below| {
            if hierarchy.controllers.iter().any(|c| c == "cpuset") {
                match made {
                    true => inherit_cpuset(directory.as_fd(), below.as_fd())?,
                    false if parts.peek().is_none() => complete_cpuset(below.as_fd())?,
                    // It is completed when a group is made below it.
                    false => {}
                }
            }
            Ok(below)
        });
        let below = opened.map_err(|error| match made {
            // Nobody knows of it yet, so nobody else would remove it.
            true => error.undone(fs::unlinkat(&directory, name, libc::AT_REMOVEDIR)),
            false => error,
        })?;
        if !made && parts.peek().is_none() {
            refuse_occupied(&hierarchy.mount.join(&relative))?;
        }
        directory = below;
    }
    Ok((place(hierarchy, plan, id), directory))
}

fn place(hierarchy: &Hierarchy, plan: &CgroupPlan, id: &str) -> Place {
    Place {
        controllers: hierarchy.controllers.clone(),
        path: hierarchy.mount.join(plan.path_in(hierarchy, id)),
        unified: hierarchy.unified,
    }
}
