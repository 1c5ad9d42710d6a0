//! A container that is half made, by `create` or by `restore`, and its undoing.
//!
//! State first, then the cgroup, then the process: whatever is interrupted in between can be found
//! and removed by `delete --force`, and every failure takes away what was made until then.

use crate::cgroup::Cgroup;
use crate::cgroup::driver::Driver;
use crate::container::{Container, ContainerId, Record, Status, start_time};
use crate::delete;
use crate::error::{Error, Result};
use crate::hooks::{self, Output, State};
use crate::log::Log;
use crate::pid_file;
use crate::plan::Plan;
use crate::plan::namespaces::Kind;
use crate::rdt::{self, Groups};
use crate::sys::process;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// What has been made so far.
pub struct Half {
    /// Its state, locked.
    pub container: Container,
    /// Its groups.
    pub cgroup: Option<Cgroup>,
    /// Its first process, a child of ours, with a descriptor of it.
    pub child: Option<(i32, OwnedFd)>,
    /// Where the output of hooks goes.
    pub output: Output,
}

impl Half {
    /// Makes the state of a container that will have nothing yet.
    pub fn new(root: &Path, id: &ContainerId, plan: &Plan, log: &Log) -> Result<Self> {
        let output = Output::open(&plan.heeded)?;
        let container = delete::claim(root, id, record(plan, id), log)?;
        Ok(Self { container, cgroup: None, child: None, output })
    }

    /// Makes the groups, as far as they can be without a process.
    pub fn make_groups(&mut self, plan: &Plan) -> Result<()> {
        let cgroup = Cgroup::create(&plan.cgroup, &self.container.record.id)?;
        if *cgroup.driver() == Driver::Cgroupfs {
            self.container.record.cgroups = cgroup.places();
        }
        self.cgroup = Some(cgroup);
        Ok(())
    }

    /// The groups, once they are made.
    pub fn groups(&self) -> Result<&Cgroup> {
        self.cgroup.as_ref().ok_or_else(|| Error::new("the container has no cgroup yet"))
    }

    /// Has systemd make the groups around the process `pid`, which waits; `false` where systemd is
    /// not the driver.
    ///
    /// The state names the scope once it is ours, not before: the name may be another container's,
    /// which whoever cleans up after us would then end. If we die in between, so does the waiting
    /// process, and systemd takes the empty scope away.
    pub fn adopt(&mut self, plan: &Plan, pid: i32) -> Result<bool> {
        let Some(cgroup) = self.cgroup.as_mut().filter(|c| *c.driver() != Driver::Cgroupfs) else {
            return Ok(false);
        };
        cgroup.adopt(&plan.cgroup, &self.container.record.id, pid)?;
        self.container.record.cgroups = cgroup.places();
        self.container.record.cgroup_driver = cgroup.driver().clone();
        self.container.save().map(|()| true)
    }

    /// The first process.
    pub fn pid(&self) -> Result<i32> {
        let pid = self.child.as_ref().map(|(pid, _)| *pid);
        pid.ok_or_else(|| Error::new("the container has no process yet"))
    }

    /// Writes the first process into the state; `false`: it has ended and been reaped.
    pub fn remember(&mut self) -> Result<bool> {
        let pid = self.pid()?;
        self.container.record.pid = pid;
        let time = start_time(pid)?;
        if let Some(time) = time {
            self.container.record.start_time = time;
        }
        self.container.save()?;
        Ok(time.is_some())
    }

    /// The state as hooks see it.
    pub fn state<'a>(&'a self, plan: &'a Plan, status: Status, pid: i32) -> State<'a> {
        State {
            oci_version: crate::SPEC_VERSION,
            id: &self.container.record.id,
            status,
            pid,
            bundle: &plan.bundle,
            annotations: &plan.annotations,
        }
    }

    /// Runs the hooks that want the namespaces and what was there before them (runtime.md,
    /// Lifecycle, steps 3 and 4).
    pub fn run_host_hooks(&self, plan: &Plan) -> Result<()> {
        // "Created" is what comes after step 2, and hooks do.
        let state = self.state(plan, Status::Created, self.pid()?);
        hooks::run("prestart", &plan.hooks.prestart, &state, &self.output)?;
        hooks::run("createRuntime", &plan.hooks.create_runtime, &state, &self.output)
    }

    /// Takes everything away again; what cannot be taken away is added to the error.
    pub fn undo(self, plan: &Plan, pid_file: Option<&Path>, error: Error) -> Error {
        let mut left = Vec::new();
        if let Some((_, pidfd)) = &self.child {
            pid_file.into_iter().for_each(pid_file::withdraw);
            // One that has ended already cannot be killed.
            drop(process::pidfd_kill(pidfd, libc::SIGKILL));
        }
        if let Some(cgroup) = &self.cgroup {
            // This thaws, too: criu may have left it frozen, and nothing that is frozen ends.
            left.extend(cgroup.kill_all(Instant::now() + Duration::from_secs(5)).err());
        }
        if let Some((pid, _)) = &self.child {
            left.extend(process::waitpid(*pid, 0).err());
            let state = self.state(plan, Status::Stopped, 0);
            left.extend(hooks::run_all("poststop", &plan.hooks.poststop, &state, &self.output));
        }
        left.extend(self.cgroup.as_ref().and_then(|cgroup| cgroup.remove().err()));
        left.extend(self.container.unmount().err());
        left.extend(rdt::remove(&self.container.record.resctrl).err());
        left.extend(self.container.erase().err());
        error.leaving(&left)
    }
}

/// The state file of a container that is about to be made.
fn record(plan: &Plan, id: &ContainerId) -> Record {
    let cgroups = match plan.cgroup.driver(id.as_str()) {
        Driver::Cgroupfs => Cgroup::planned(&plan.cgroup, id.as_str()),
        // See [`Half::adopt`].
        Driver::Systemd(_) => Vec::new(),
    };
    Record {
        version: crate::container::VERSION,
        oci_version: plan.oci_version.clone(),
        id: id.to_string(),
        bundle: plan.bundle.clone(),
        rootfs: plan.rootfs.path.clone(),
        created: crate::log::now(),
        owner: process::euid(),
        annotations: plan.annotations.clone(),
        pid: 0,
        start_time: 0,
        cgroups,
        cgroup_driver: Driver::Cgroupfs,
        namespaces: Kind::ALL.into_iter().filter(|k| plan.namespaces.has(*k)).collect(),
        resctrl: plan.rdt.as_ref().map_or(Vec::new(), |r| Groups::new(r, id.as_str()).own()),
        root_mount: None,
        stdio: if plan.process.terminal { Vec::new() } else { stdio() },
    }
}

/// What our standard descriptors lead to, which the first process inherits; closed ones to nothing.
fn stdio() -> Vec<String> {
    let link = |number| std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
    (0..3).map(|number| link(number).to_string_lossy().into_owned()).collect()
}
