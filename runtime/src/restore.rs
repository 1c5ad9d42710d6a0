//! `restore`: makes a container anew from the files that `checkpoint` wrote, by CRIU.
//!
//! The state, the cgroup and the undoing of a failure are those of `create`; in the place of our
//! first process stands criu, whose child becomes a child of ours. What `create` does to that process
//! and what is inherited, is done to criu before it is told to begin.

use crate::cgroup::Cgroup;
use crate::container::{Container, ContainerId};
use crate::create::{check_terminal, send_fd};
use crate::criu::options::{Common, Directories, config_file, require_root};
use crate::criu::rpc::{CgroupMode, CgroupRoot, Features, Notice, Request, Type};
use crate::criu::{self, Birth, Worker, descriptors, outside};
use crate::delete;
use crate::error::{Context, Error, Result};
use crate::half::Half;
use crate::log::Log;
use crate::net_devices;
use crate::pid_file;
use crate::plan::{Options, Plan};
use crate::rdt::Groups;
use crate::supervise;
use crate::sys::{fs, process};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where criu has the root file system mounted, in a mount namespace of its own.
const CRIU_ROOT: &str = "criu-root";

/// What `restore` is asked for.
pub struct Wanted<'a> {
    /// Directory of all states.
    pub root: &'a Path,
    /// The container's name.
    pub id: ContainerId,
    /// The bundle.
    pub bundle: PathBuf,
    /// What it shares with `checkpoint`.
    pub common: Common,
    /// Where the pid is written.
    pub pid_file: Option<PathBuf>,
    /// Who receives the terminal.
    pub console_socket: Option<PathBuf>,
    /// Return when the program runs.
    pub detach: bool,
    /// Do not become the parent of the container's orphans.
    pub no_subreaper: bool,
    /// Close connections instead of restoring them.
    pub tcp_close: bool,
    /// LSM label of the restored processes.
    pub lsm_profile: Option<String>,
    /// LSM context of the restored mounts.
    pub lsm_mount_context: Option<String>,
    /// Further options.
    pub options: Options,
}

/// The verb; returns the exit code of the program, or 0 when detached.
pub fn restore(wanted: &Wanted<'_>, log: &Log) -> Result<i32> {
    require_root("restore")?;
    if wanted.options.no_pivot {
        return Err(Error::new(
            "--no-pivot: CRIU enters the root file system by pivot_root(2) alone",
        ));
    }
    if wanted.common.lazy_pages {
        let features = Features { mem_track: None, lazy_pages: Some(true) };
        criu::require(features, "--lazy-pages")?;
    }
    if !wanted.detach {
        supervise::begin(wanted.no_subreaper)?;
    }
    let (container, plan, console) = launch(wanted, log)?;
    if wanted.detach {
        return Ok(0);
    }
    match supervise::wait(container.record.pid, console.as_ref()) {
        Err(error) => Err(supervise::abandon(container, &plan.hooks, log, error)),
        Ok(ended) => {
            delete::destroy(container, &plan.hooks, log)?;
            supervise::exit_code(ended)
        }
    }
}

fn launch(wanted: &Wanted<'_>, log: &Log) -> Result<(Container, Plan, Option<OwnedFd>)> {
    let (plan, config) = Plan::load(&wanted.bundle, None, wanted.options)?;
    plan.fallbacks.iter().for_each(|f| log.debug(f));
    outside::check_namespaces(&plan.namespaces)?;
    check_terminal(&plan.process, wanted.console_socket.as_deref(), !wanted.detach)?;
    let directories = Directories::open(&wanted.common, "restore.log", false)?;
    directories.open_to(&plan.namespaces)?;
    let half = Half::new(wanted.root, &wanted.id, &plan, log)?;
    let mut revival = Revival { wanted, plan, directories, half, console: None };
    match revival.carry_out(&config) {
        Ok(()) => {
            let Revival { half: Half { mut container, .. }, plan, console, .. } = revival;
            container.unlock()?;
            log.debug(&format!("container {} has pid {}", wanted.id, container.record.pid));
            Ok((container, plan, console))
        }
        Err(error) => {
            let Revival { half, plan, .. } = revival;
            Err(half.undo(&plan, wanted.pid_file.as_deref(), error))
        }
    }
}

/// A container on its way back.
struct Revival<'a> {
    wanted: &'a Wanted<'a>,
    plan: Plan,
    directories: Directories,
    half: Half,
    console: Option<OwnedFd>,
}

impl Revival<'_> {
    fn carry_out(&mut self, config: &[u8]) -> Result<()> {
        self.half.container.write("config.json", config)?;
        self.half.make_groups(&self.plan)?;
        fs::mkdirat(&self.half.container.directory, Path::new(CRIU_ROOT), 0o711)?;
        outside::make_mount_points(&self.plan.rootfs)?;
        self.revive()?;
        self.finish()
    }

    fn revive(&mut self) -> Result<()> {
        let (inherited, joined, open) = outside::joined(&self.plan.namespaces)?;
        let outer = descriptors::inherited(&self.directories.images, self.plan.preserve_fds)?;
        let place = self.half.container.path.join(CRIU_ROOT);
        let place = std::path::absolute(&place).wrap(|| "find the state directory")?;
        let worker = Worker::start(&Birth {
            cgroup: self.half.cgroup.as_ref(),
            mounts: Some(criu::OwnMounts { root: &self.plan.rootfs.path, place: &place }),
            directories: self.directories.opened()?,
            keep: open.iter().chain(&outer.files).map(AsFd::as_fd).collect(),
            stdio: true,
        })?;
        self.place(worker.pid())?;
        let mut request = self.request(&place)?;
        if let Some(opts) = &mut request.opts {
            opts.inherit_fd = inherited;
            opts.inherit_fd.extend(outer.descriptors);
            opts.join_ns = joined;
        }
        let response = worker.ask(&request, |notice, fd| self.notified(notice, fd))?;
        match response.restore.filter(|_| response.success) {
            Some(restored) => self.remember(restored.pid),
            None => Err(criu::failure("restore", &response, &self.directories.log())),
        }
    }

    /// Puts criu where the restored processes are to be born, as far as it is not there yet.
    fn place(&mut self, worker: i32) -> Result<()> {
        self.half.adopt(&self.plan, worker)?;
        let Some(rdt) = &self.plan.rdt else { return Ok(()) };
        let groups = Groups::new(rdt, self.wanted.id.as_str());
        groups.make(rdt)?;
        groups.enter(worker)
    }

    fn request(&self, place: &Path) -> Result<Request> {
        let (wanted, plan) = (self.wanted, &self.plan);
        let mut opts = wanted.common.to_rpc();
        self.directories.enter_into(&mut opts);
        opts.root = Some(place.display().to_string());
        opts.rst_sibling = Some(true);
        opts.evasive_devices = Some(true);
        opts.tcp_close = Some(wanted.tcp_close);
        opts.lsm_profile = wanted.lsm_profile.clone();
        opts.lsm_mount_context = wanted.lsm_mount_context.clone();
        opts.config_file = config_file(&plan.annotations);
        if let Some(cgroup) = &self.half.cgroup {
            opts.ext_mnt = outside::mounts(plan, cgroup, |_| true)?;
            if wanted.common.manage_cgroups != Some(CgroupMode::Ignore) {
                opts.cg_root = self.cgroup_roots(cgroup);
            }
        }
        Ok(Request { kind: Type::Restore.into(), opts: Some(opts), ..Request::default() })
    }

    /// The groups below which those of the images are restored: ours, whatever theirs were called.
    fn cgroup_roots(&self, cgroup: &Cgroup) -> Vec<CgroupRoot> {
        let hierarchies = self.plan.cgroup.host.iter().flat_map(|host| &host.hierarchies);
        let places = cgroup.places();
        let root =
            |(hierarchy, place): (&crate::cgroup::host::Hierarchy, &crate::cgroup::Place)| {
                let path = place.path.strip_prefix(&hierarchy.mount).ok()?;
                let path = Path::new("/").join(path).display().to_string();
                let ctrl = (!place.unified).then(|| place.controllers.join(","));
                Some(CgroupRoot { ctrl, path })
            };
        hierarchies.zip(&places).filter_map(root).collect()
    }

    /// What criu tells on the way.
    fn notified(&mut self, notice: &Notice, fd: Option<OwnedFd>) -> Result<()> {
        match (notice.script.as_deref(), notice.pid, fd) {
            (Some("setup-namespaces"), Some(pid), _) => self.furnish(pid),
            (Some("post-restore"), Some(pid), _) => self.remember(pid),
            (Some("orphan-pts-master"), _, Some(master)) => match &self.wanted.console_socket {
                Some(path) => send_fd(path, &master, b"/dev/ptmx").wrap(|| "--console-socket"),
                None => {
                    self.console = Some(master);
                    Ok(())
                }
            },
            _ => Ok(()),
        }
    }

    /// What `create` does from the host once the namespaces are there.
    fn furnish(&mut self, pid: i32) -> Result<()> {
        self.remember(pid)?;
        net_devices::move_all(&self.plan.net_devices, pid)?;
        self.half.run_host_hooks(&self.plan)
    }

    /// Once it is let go it may end at any time; it is a child of ours, though, and waits for us.
    fn remember(&mut self, pid: i32) -> Result<()> {
        if self.half.child.is_none() {
            self.half.child = Some((pid, process::pidfd_open(pid)?));
        }
        self.half.remember().map(drop)
    }

    fn finish(&mut self) -> Result<()> {
        let container = &self.half.container;
        if container.record.start_time == 0 {
            return Err(Error::new("the restored process ended before it was known"));
        }
        fs::unlinkat(&container.directory, Path::new(CRIU_ROOT), libc::AT_REMOVEDIR)?;
        match &self.wanted.pid_file {
            Some(path) => pid_file::write(path, container.record.pid),
            None => Ok(()),
        }
    }
}
