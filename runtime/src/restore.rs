//! `restore`: makes a container anew from the files that `checkpoint` wrote, by CRIU.
//!
//! The state, the cgroup and the undoing of a failure are those of `create`; in the place of our
//! first process stands criu, whose child becomes a child of ours.

use crate::cgroup::Cgroup;
use crate::container::{Container, ContainerId, Status, start_time};
use crate::create::{check_terminal, record, send_fd, state_of};
use crate::criu::options::{Common, Directories, config_file, require_root};
use crate::criu::rpc::{CgroupMode, CgroupRoot, Features, Notice, Request, Type};
use crate::criu::{self, Birth, Worker, outside};
use crate::delete;
use crate::error::{Context, Error, Result};
use crate::hooks;
use crate::log::Log;
use crate::pid_file;
use crate::plan::{Options, Plan};
use crate::supervise;
use crate::sys::{fs, process, signal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
        if !wanted.no_subreaper {
            process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0)?;
        }
        // Before the child exists, so that no signal is lost.
        signal::block_all()?;
    }
    let (container, plan, pid, console) = launch(wanted, log)?;
    if wanted.detach {
        return Ok(0);
    }
    let ended = supervise::wait(pid, console.as_ref())?;
    delete::destroy(container, &plan.hooks, log)?;
    ended
        .map(process::Ended::code)
        .ok_or_else(|| Error::new("somebody else has taken the container's exit status"))
}

fn launch(wanted: &Wanted<'_>, log: &Log) -> Result<(Container, Plan, i32, Option<OwnedFd>)> {
    let (plan, config) = Plan::load(&wanted.bundle, None, wanted.options)?;
    plan.fallbacks.iter().for_each(|f| log.debug(f));
    outside::check_namespaces(&plan.namespaces)?;
    check_terminal(&plan.process, wanted.console_socket.as_deref(), !wanted.detach)?;
    let directories = Directories::open(&wanted.common, "restore.log", false)?;
    directories.open_to(&plan.namespaces)?;
    let container = delete::claim(wanted.root, &wanted.id, record(&plan, &wanted.id), log)?;
    let mut revival =
        Revival { wanted, plan, directories, container, cgroup: None, pid: None, console: None };
    match revival.carry_out(&config) {
        Ok(pid) => {
            let Revival { mut container, plan, console, .. } = revival;
            container.unlock()?;
            log.debug(&format!("container {} has pid {pid}", wanted.id));
            Ok((container, plan, pid, console))
        }
        Err(error) => Err(revival.undo(error)),
    }
}

/// A container on its way back.
struct Revival<'a> {
    wanted: &'a Wanted<'a>,
    plan: Plan,
    directories: Directories,
    container: Container,
    cgroup: Option<Cgroup>,
    pid: Option<i32>,
    console: Option<OwnedFd>,
}

impl Revival<'_> {
    fn carry_out(&mut self, config: &[u8]) -> Result<i32> {
        self.container.write("config.json", config)?;
        if self.plan.cgroup.systemd.is_some() {
            return Err(Error::new(
                "--systemd-cgroup: restore makes control groups in the cgroup file systems alone; leave it out, and give linux.cgroupsPath as a path",
            ));
        }
        let cgroup = Cgroup::create(&self.plan.cgroup, self.wanted.id.as_str())?;
        self.container.record.cgroups = cgroup.places();
        self.cgroup = Some(cgroup);
        fs::mkdirat(&self.container.directory, Path::new(CRIU_ROOT), 0o711)?;
        outside::make_mount_points(&self.plan.rootfs)?;
        let pid = self.revive()?;
        self.finish(pid)?;
        Ok(pid)
    }

    fn revive(&mut self) -> Result<i32> {
        let namespaces = outside::joined(&self.plan.namespaces)?;
        let place = self.container.path.join(CRIU_ROOT);
        let place = std::path::absolute(&place).wrap(|| "find the state directory")?;
        let (inherited, joined, open) = namespaces;
        let mut request = self.request(&place)?;
        let images = &self.directories.images;
        let outer = outside::inherited(images, self.plan.preserve_fds)?;
        if let Some(opts) = &mut request.opts {
            opts.inherit_fd = inherited;
            opts.inherit_fd.extend(outer.descriptors);
            opts.join_ns = joined;
        }
        let rootfs = self.plan.rootfs.path.clone();
        let cgroup = self.cgroup.take();
        let birth = Birth {
            cgroup: cgroup.as_ref(),
            mounts: Some(criu::OwnMounts { root: &rootfs, place: &place }),
            directories: self.directories.opened()?,
            keep: open.iter().chain(&outer.files).map(AsFd::as_fd).collect(),
            stdio: true,
        };
        let worker = Worker::start(&birth);
        drop(birth);
        self.cgroup = cgroup;
        let response = worker?.ask(&request, |notice, fd| self.notified(notice, fd))?;
        match response.restore.map(|restored| restored.pid).filter(|_| response.success) {
            Some(pid) => Ok(pid),
            None => Err(criu::failure("restore", &response, &self.directories.log())),
        }
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
        if let Some(cgroup) = &self.cgroup {
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
            (Some("setup-namespaces"), Some(pid), _) => self.run_hooks(pid),
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

    /// The hooks that `create` runs on the host once the namespaces are there.
    fn run_hooks(&mut self, pid: i32) -> Result<()> {
        let plan = &self.plan;
        if plan.hooks.prestart.is_empty() && plan.hooks.create_runtime.is_empty() {
            return Ok(());
        }
        self.remember(pid)?;
        let output = hooks::Output::open(&self.plan.heeded)?;
        let state = state_of(&self.container, &self.plan, Status::Creating, pid);
        hooks::run("prestart", &self.plan.hooks.prestart, &state, &output)?;
        hooks::run("createRuntime", &self.plan.hooks.create_runtime, &state, &output)
    }

    fn remember(&mut self, pid: i32) -> Result<()> {
        self.pid = Some(pid);
        self.container.record.pid = pid;
        // Once it is let go it may end at any time, and then has none.
        if let Some(time) = start_time(pid)? {
            self.container.record.start_time = time;
        }
        self.container.save()
    }

    fn finish(&mut self, pid: i32) -> Result<()> {
        self.remember(pid)?;
        if self.container.record.start_time == 0 {
            return Err(Error::new("the restored process ended before it was known"));
        }
        fs::unlinkat(&self.container.directory, Path::new(CRIU_ROOT), libc::AT_REMOVEDIR)?;
        match &self.wanted.pid_file {
            Some(path) => pid_file::write(path, pid),
            None => Ok(()),
        }
    }

    /// A restore that failed leaves nothing.
    fn undo(self, error: Error) -> Error {
        let mut left = Vec::new();
        if let Some(pid) = self.pid.filter(|_| self.container.alive().unwrap_or(false)) {
            left.extend(process::kill(pid, libc::SIGKILL).err());
        }
        if let Some(cgroup) = &self.cgroup {
            left.extend(cgroup.kill_all(Instant::now() + Duration::from_secs(5)).err());
        }
        if let Some(pid) = self.pid {
            left.extend(process::waitpid(pid, 0).err());
        }
        left.extend(self.cgroup.as_ref().and_then(|cgroup| cgroup.remove().err()));
        left.extend(self.container.erase().err());
        match left.is_empty() {
            true => error,
            false => {
                let all: Vec<String> = left.iter().map(Error::to_string).collect();
                error.wrap(format!("(and left behind: {})", all.join("; ")))
            }
        }
    }
}
