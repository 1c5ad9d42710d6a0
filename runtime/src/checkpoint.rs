//! `checkpoint`: writes a container's processes into files, by CRIU, and ends the container unless
//! it is to stay.

use crate::cgroup::driver::Driver;
use crate::container::{Container, ContainerId, Status};
use crate::criu::options::{Common, Directories, config_file, require_root};
use crate::criu::rpc::{Features, PageServer, Request, Type};
use crate::criu::{self, Birth, Worker, descriptors, outside};
use crate::delete;
use crate::error::{Context, Error, Result};
use crate::log::Log;
use crate::plan::hooks::Hooks;
use crate::plan::{Options, Plan, Systemd};
use crate::rootfs::resolve;
use crate::sys::{fs, process, signal};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What `checkpoint` is asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// What it shares with `restore`.
    pub common: Common,
    /// Images made before, of which these hold only what has changed since.
    pub parent_path: Option<PathBuf>,
    /// Let the processes go on.
    pub leave_running: bool,
    /// Leave out connections that are not yet accepted.
    pub tcp_skip_in_flight: bool,
    /// A descriptor of the caller's that gets a byte when the server of lazy pages is ready.
    pub status_fd: Option<i32>,
    /// Who takes the pages.
    pub page_server: Option<PageServer>,
    /// Write the memory alone, and let the processes go on.
    pub pre_dump: bool,
    /// Allow files without a name, by giving them one.
    pub link_remap: bool,
}

impl Wanted {
    fn check(&self) -> Result<()> {
        if self.pre_dump && self.common.lazy_pages {
            return Err(Error::new(
                "--lazy-pages with --pre-dump: a pre-dump leaves no memory behind to be fetched",
            ));
        }
        if self.status_fd.is_some() && !self.common.lazy_pages {
            return Err(Error::new("--status-fd: it tells of nothing without --lazy-pages"));
        }
        if self.common.lazy_pages && self.page_server.is_none() {
            return Err(Error::new(
                "--lazy-pages: the memory is fetched from --page-server, which is missing",
            ));
        }
        Ok(())
    }

    /// What criu and the kernel must be able to do for it.
    fn require_features(&self) -> Result<()> {
        if self.pre_dump || self.parent_path.is_some() {
            let option = if self.pre_dump { "--pre-dump" } else { "--parent-path" };
            criu::require(Features { mem_track: Some(true), lazy_pages: None }, option)?;
        }
        if self.common.lazy_pages {
            let features = Features { mem_track: None, lazy_pages: Some(true) };
            criu::require(features, "--lazy-pages")?;
        }
        Ok(())
    }
}

/// The verb.
pub fn checkpoint(root: &Path, id: &ContainerId, wanted: &Wanted, log: &Log) -> Result<()> {
    require_root("checkpoint")?;
    wanted.check()?;
    let status_fd = wanted.status_fd.map(fs::inherited_writer).transpose();
    let status_fd = status_fd.wrap(|| "--status-fd")?;
    let container = Container::open_locked(root, id)?;
    let before = container.status()?;
    if !matches!(before, Status::Running | Status::Paused) {
        return Err(Error::new(format!(
            "container not running: {id} is {before}, and cannot be checkpointed"
        )));
    }
    wanted.require_features()?;
    let directories = Directories::open(&wanted.common, "dump.log", true)?;
    if let Some(parent) = &wanted.parent_path {
        let place = wanted.common.images().join(parent);
        std::fs::read_dir(&place).wrap(|| format!("--parent-path: open {}", place.display()))?;
    }
    if before == Status::Running {
        stop(&container, log)?;
    }
    let done = request(&container, wanted, &directories)
        .and_then(|request| dump(&request, status_fd, &directories));
    if let Err(error) = done {
        return Err(match go_on(&container, before) {
            Ok(()) => error,
            Err(stuck) => error.wrap(format!("(and the container stays frozen: {stuck})")),
        });
    }
    log.debug(&format!("the images are in {}", wanted.common.images().display()));
    match wanted.leave_running || wanted.pre_dump {
        true => go_on(&container, before),
        false => finish(container, log),
    }
}

/// Has the processes stand still: what we tell criu of them is to be true when it looks at them.
fn stop(container: &Container, log: &Log) -> Result<()> {
    let cgroup = container.cgroup();
    if cgroup.freezer().is_none() {
        log.debug("the container has no freezer cgroup: its processes run until criu stops them");
        return Ok(());
    }
    cgroup.freeze().wrap(|| "stop the container's processes")
}

/// The container is left as it was.
fn go_on(container: &Container, before: Status) -> Result<()> {
    let cgroup = container.cgroup();
    match before == Status::Running && cgroup.frozen()? {
        true => cgroup.thaw(),
        false => Ok(()),
    }
}

fn request(container: &Container, wanted: &Wanted, directories: &Directories) -> Result<Request> {
    // Of a scope the path has a form that only systemd's cgroups have.
    let by_systemd = matches!(container.record.cgroup_driver, Driver::Systemd(_));
    let systemd = by_systemd.then_some(Systemd::System);
    let options = Options { systemd, ..Options::default() };
    let plan = Plan::new(container.record.bundle.clone(), container.config()?, options)?;
    outside::check_namespaces(&plan.namespaces)?;
    let cgroup = container.cgroup();
    let mut opts = wanted.common.to_rpc();
    directories.enter_into(&mut opts);
    opts.pid = Some(container.record.pid);
    opts.root = Some(plan.rootfs.path.display().to_string());
    opts.leave_running = Some(wanted.leave_running);
    opts.tcp_skip_in_flight = Some(wanted.tcp_skip_in_flight);
    opts.link_remap = Some(wanted.link_remap);
    opts.ps = wanted.page_server.clone();
    opts.status_fd = wanted.status_fd;
    opts.track_mem = Some(wanted.pre_dump || wanted.parent_path.is_some());
    opts.parent_img = wanted.parent_path.as_ref().map(|path| path.display().to_string());
    opts.config_file = config_file(&plan.annotations);
    opts.freeze_cgroup = cgroup.freezer().map(|(path, _)| path.display().to_string());
    opts.external = outside::left_out(&plan.namespaces)?;
    let pid = container.record.pid;
    opts.external.extend(descriptors::save(
        &container.record,
        &cgroup.pids()?,
        directories.images.as_fd(),
    )?);
    opts.ext_mnt = outside::mounts(&plan, &cgroup, |path| is_file(pid, path))?;
    // What a mount is called in the images is what it is called in the container.
    opts.ext_mnt.iter_mut().for_each(|mount| mount.val.clone_from(&mount.key));
    let kind = if wanted.pre_dump { Type::PreDump } else { Type::Dump };
    Ok(Request { kind: kind.into(), opts: Some(opts), ..Request::default() })
}

fn dump(
    request: &Request,
    status_fd: Option<BorrowedFd<'_>>,
    directories: &Directories,
) -> Result<()> {
    let keep = status_fd.into_iter().collect();
    let worker =
        Worker::start(&Birth { keep, directories: directories.opened()?, ..Birth::default() })?;
    // Nothing that criu tells on the way needs an answer but that it may go on.
    let response = worker.ask(request, |_, _| Ok(()))?;
    match response.success {
        true => Ok(()),
        false => Err(criu::failure("checkpoint", &response, &directories.log())),
    }
}

/// Is what the container sees at this path a file? Its root may be looked at while it runs.
fn is_file(pid: i32, path: &Path) -> bool {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let opened = fs::openat(fs::CWD, &root, libc::O_PATH | libc::O_DIRECTORY, 0);
    let found = opened.and_then(|root| resolve::existing(&root, path)).ok().flatten();
    let mode = found.and_then(|fd| fs::fstat(&fd).ok()).map(|st| st.st_mode & libc::S_IFMT);
    mode.is_some_and(|kind| kind != libc::S_IFDIR)
}

/// The processes are saved, and criu has ended them: the container goes as if deleted.
fn finish(container: Container, log: &Log) -> Result<()> {
    // What is frozen ends when it thaws.
    container.cgroup().thaw()?;
    if let Some(pidfd) = container.pidfd()? {
        let patience = Some(Duration::from_secs(10));
        if signal::poll(&[(pidfd.as_fd(), libc::POLLIN)], patience)? == [0] {
            process::pidfd_kill(&pidfd, libc::SIGKILL)?;
        }
    }
    let hooks = Hooks::new(container.config()?.hooks().as_ref())?;
    delete::destroy(container, &hooks, log)
}
