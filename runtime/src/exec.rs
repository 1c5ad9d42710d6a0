//! `exec`: another process in a container that runs. The parent's half; `join.rs` is the other.

use crate::birth::assert_single_thread;
use crate::caps::Set;
use crate::cgroup::Cgroup;
use crate::container::{Container, ContainerId, Status};
use crate::create::{check_terminal, send_fd, set_oom_score};
use crate::error::{Context, Error, Result};
use crate::hooks::State;
use crate::join::Join;
use crate::log::Log;
use crate::plan::namespaces::Kind;
use crate::plan::process::Process;
use crate::plan::seccomp::Listener;
use crate::plan::seccomp::Seccomp;
use crate::plan::{self, Options, document};
use crate::procfs::{self, Proc};
use crate::sync::{self, FromChild, Parent, ToChild};
use crate::sys::process::{self, Fork};
use crate::sys::{fs, signal};
use crate::{listener, pid_file, rlimits, supervise};
use oci_spec::runtime as oci;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What the process is to be: from a file, or the container's own with changes.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// A file with a `process` object.
    pub file: Option<PathBuf>,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Working directory.
    pub cwd: Option<PathBuf>,
    /// Variables in addition.
    pub env: Vec<String>,
    /// User, and group if given.
    pub user: Option<(u32, Option<u32>)>,
    /// Groups in addition.
    pub additional_gids: Vec<u32>,
    /// Capabilities in addition.
    pub capabilities: Vec<String>,
    /// A terminal.
    pub terminal: bool,
    /// No new privileges; the container's own value if not given.
    pub no_new_privileges: Option<bool>,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// SELinux label.
    pub label: Option<String>,
}

/// What `exec` is asked for.
#[derive(Debug)]
pub struct Request<'a> {
    /// Directory of all states.
    pub root: &'a Path,
    /// The container's name.
    pub id: ContainerId,
    /// The process.
    pub wanted: Wanted,
    /// Return when it runs.
    pub detach: bool,
    /// Where its pid is written.
    pub pid_file: Option<PathBuf>,
    /// Who receives the terminal.
    pub console_socket: Option<PathBuf>,
    /// Who receives a pidfd of it.
    pub pidfd_socket: Option<PathBuf>,
    /// Allow it in a container that is paused, where it waits until the container goes on.
    pub ignore_paused: bool,
    /// Group below the container's own: `[controllers:]path`, for v1 each controller its own.
    pub cgroups: Vec<String>,
    /// Descriptors.
    pub options: Options,
}

/// The verb; returns the program's exit code, or 0 when detached.
pub fn exec(request: &Request<'_>, log: &Log) -> Result<i32> {
    let container = Container::open(request.root, &request.id)?;
    match container.status()? {
        Status::Running | Status::Created => {}
        Status::Paused if request.ignore_paused => {}
        Status::Paused => {
            return Err(Error::new(
                "cannot exec in a paused container (use --ignore-paused to override)",
            ));
        }
        status => return Err(Error::new(format!("cannot exec in a {status} container"))),
    }
    let spec = container.config()?;
    let planned = plan_process(request, &spec)?;
    check_terminal(&planned, request.console_socket.as_deref(), !request.detach)?;
    let linux = spec.linux().clone().unwrap_or_else(plan::empty_linux);
    let filter = Seccomp::new(&linux, spec.annotations().as_ref())?;
    if !request.detach {
        signal::block_all()?;
    }
    let mut cgroup = container.cgroup().below(&request.cgroups)?;
    cgroup.open().wrap(|| "open the container's cgroup")?;
    let attempt =
        |cgroup: &Cgroup| make(request, &container, &planned, filter.as_ref(), cgroup, log);
    let (pid, sync, console) = match attempt(&cgroup) {
        // A v2 group that hands controllers down takes no process (cgroups(7), "no internal
        // processes"): the first process has moved below it, and so do we.
        Err(e) if e.errno() == Some(libc::EBUSY) && request.cgroups.is_empty() => {
            if !cgroup.follow(container.record.pid)? {
                return Err(e);
            }
            log.debug(&format!("the process joins the cgroup of the first one: {e}"));
            attempt(&cgroup)?
        }
        made => made?,
    };
    if let Some(path) = &request.pid_file {
        pid_file::write(path, pid)?;
    }
    sync.say(ToChild::Start)?;
    if let Err(error) = sync.hear_exec() {
        process::waitpid(pid, 0)?;
        return Err(error);
    }
    log.debug(&format!("process {pid} runs in container {}", request.id));
    if request.detach {
        return Ok(0);
    }
    match supervise::wait(pid, console.as_ref())? {
        Some(ended) => Ok(ended.code()),
        None => Err(Error::new("somebody else has taken the process's exit status")),
    }
}

fn plan_process(request: &Request<'_>, spec: &oci::Spec) -> Result<Process> {
    let wanted = &request.wanted;
    let mut process: oci::Process = match &wanted.file {
        Some(path) => {
            let text =
                std::fs::read(path).wrap(|| format!("--process: read {}", path.display()))?;
            document::parse(&text, path)?
        }
        None => spec.process().clone().ok_or_else(|| Error::new("the container has no process"))?,
    };
    if wanted.file.is_none() {
        adjust(&mut process, wanted);
    }
    let empty = plan::empty_linux();
    let linux = spec.linux().as_ref().unwrap_or(&empty);
    let annotations = spec.annotations().clone().unwrap_or_default().into_iter().collect();
    let heeded = plan::annotations::Annotations::new(&annotations)?;
    let mut planned = Process::new(&process, linux, &heeded, request.options).wrap(|| "process")?;
    for name in &wanted.capabilities {
        planned.capabilities.add(Set::named(name).wrap(|| "--cap")?);
    }
    if wanted.file.is_none() {
        // The score and the CPU list of the container's own program are not the new one's.
        planned.oom_score_adj = spec.process().as_ref().and_then(|p| p.oom_score_adj());
    }
    Ok(planned)
}

/// Applies the command line to the container's own process.
fn adjust(process: &mut oci::Process, wanted: &Wanted) {
    process.set_args(Some(wanted.args.clone()));
    process.set_terminal(Some(wanted.terminal));
    if let Some(cwd) = &wanted.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(wanted.env.iter().cloned());
    process.set_env(Some(env));
    if let Some((uid, gid)) = wanted.user {
        process.user_mut().set_uid(uid);
        if let Some(gid) = gid {
            process.user_mut().set_gid(gid);
        }
    }
    if !wanted.additional_gids.is_empty() {
        let mut gids = process.user().additional_gids().clone().unwrap_or_default();
        gids.extend(&wanted.additional_gids);
        process.user_mut().set_additional_gids(Some(gids));
    }
    if let Some(value) = wanted.no_new_privileges {
        process.set_no_new_privileges(Some(value));
    }
    if let Some(profile) = &wanted.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &wanted.label {
        process.set_selinux_label(Some(label.clone()));
    }
}

type Made = (i32, Parent, Option<OwnedFd>);

/// Makes the process up to the point where only the start is missing.
fn make(
    request: &Request<'_>,
    container: &Container,
    planned: &Process,
    filter: Option<&Seccomp>,
    cgroup: &Cgroup,
    log: &Log,
) -> Result<Made> {
    let pid = container.record.pid;
    let open_ns = |kind: Kind| {
        let path = PathBuf::from(format!("/proc/{pid}/ns/{}", kind.file()));
        fs::openat(fs::CWD, &path, libc::O_RDONLY, 0)
    };
    let mounts = open_ns(Kind::Mount)?;
    let root = match container.record.root_mount {
        None => None,
        Some(_) => {
            let path = PathBuf::from(format!("/proc/{pid}/root"));
            Some(fs::openat(fs::CWD, &path, libc::O_PATH | libc::O_DIRECTORY, 0)?)
        }
    };
    let own_user_namespace = differs(&open_ns(Kind::User)?, Kind::User)?;
    // Opened last: a pid that means the same process after the opening meant it before, too.
    let target = container
        .pidfd()?
        .ok_or_else(|| Error::new(format!("container not running: {}", request.id)))?;
    let (sync, child_end) = sync::pair()?;
    let proc = procfs::for_process(planned)?;
    if let Some(why) = proc.as_ref().and_then(Proc::fallback) {
        log.debug(why);
    }
    assert_single_thread()?;
    let join = Join {
        process: planned,
        filter,
        birthplace: cgroup.birthplace(),
        doors: cgroup.doors()?,
        all_doors: cgroup.doors()?.into_iter().chain(cgroup.unified_door()?).collect(),
        target,
        namespaces: flags(container, own_user_namespace),
        mounts,
        root,
        own_user_namespace,
        preserve_fds: request.options.preserve_fds,
        proc: proc.as_ref(),
        sync: child_end,
    };
    let helper = match process::clone(0, None)? {
        Fork::Child => join.helper(),
        Fork::Parent(pid, _) => pid,
    };
    // The child's end must be closed here, or its end would never be heard.
    drop(join);
    let mut made = None;
    let place = Place {
        container,
        proc: proc.as_ref(),
        listener: filter.and_then(|f| f.listener.as_ref()),
    };
    let talked = talk(request, planned, &place, &sync, helper, &mut made);
    match (talked, made) {
        (Ok(console), Some((pid, _))) => Ok((pid, sync, console)),
        (Ok(_), None) => Err(Error::new("no process was made")),
        (Err(error), None) => Err(error),
        (Err(error), Some((pid, pidfd))) => {
            drop(process::pidfd_kill(&pidfd, libc::SIGKILL));
            process::waitpid(pid, 0)?;
            Err(error)
        }
    }
}

/// The namespaces to enter at once: all that the container does not share with the host, but for
/// mounts (entered by the child) and a user namespace that is our own (setns(2): EINVAL).
fn flags(container: &Container, own_user_namespace: bool) -> i32 {
    let wanted = |kind: &&Kind| match kind {
        Kind::Mount => false,
        Kind::User => own_user_namespace,
        _ => true,
    };
    container.record.namespaces.iter().filter(wanted).map(|kind| kind.flag()).sum()
}

/// Is the namespace another one than ours?
fn differs(theirs: &OwnedFd, kind: Kind) -> Result<bool> {
    let path = PathBuf::from(format!("/proc/self/ns/{}", kind.file()));
    let ours = fs::openat(fs::CWD, &path, libc::O_RDONLY, 0)?;
    let (a, b) = (fs::fstat(theirs)?, fs::fstat(&ours)?);
    Ok((a.st_dev, a.st_ino) != (b.st_dev, b.st_ino))
}

/// Where the process is made, and who answers for its filter.
struct Place<'a> {
    container: &'a Container,
    proc: Option<&'a Proc>,
    listener: Option<&'a Listener>,
}

impl Place<'_> {
    fn deliver_listener(&self, made: (i32, &OwnedFd), number: i32) -> Result<()> {
        let agent =
            self.listener.ok_or_else(|| Error::new("a listener was made that nobody asked for"))?;
        let record = &self.container.record;
        let state = State {
            oci_version: crate::SPEC_VERSION,
            id: &record.id,
            status: self.container.status()?,
            pid: record.pid,
            bundle: &record.bundle,
            annotations: &record.annotations,
        };
        listener::deliver(agent, made, number, &state)
    }
}

fn talk(
    request: &Request<'_>,
    planned: &Process,
    place: &Place<'_>,
    sync: &Parent,
    helper: i32,
    made: &mut Option<(i32, OwnedFd)>,
) -> Result<Option<OwnedFd>> {
    let mut console = None;
    let (pid, pidfd) = sync.hear_made(helper)?;
    let pidfd = &made.insert((pid, pidfd)).1;
    set_oom_score(pid, planned, place.proc)?;
    loop {
        let (message, fd) = sync.hear()?;
        match (message, fd) {
            (FromChild::NeedsLimits, _) => {
                rlimits::apply(pid, &planned.rlimits)?;
                sync.say(ToChild::Limited)?;
            }
            (FromChild::Console, Some(master)) => match &request.console_socket {
                Some(path) => send_fd(path, &master, b"/dev/ptmx").wrap(|| "--console-socket")?,
                None => console = Some(master),
            },
            (FromChild::Listener(number), _) => {
                place.deliver_listener((pid, pidfd), number)?;
                sync.say(ToChild::Listening)?;
            }
            (FromChild::Ready, _) => {
                // Not before: what failed on its way may be tried again.
                if let Some(path) = &request.pidfd_socket {
                    send_fd(path, pidfd, b"pidfd").wrap(|| "--pidfd-socket")?;
                }
                return Ok(console);
            }
            (other, _) => return Err(Error::new(format!("unexpected message {other:?}"))),
        }
    }
}
