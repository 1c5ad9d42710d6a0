//! `create`: the parent's half of making a container; `init.rs` is the other half.
//!
//! State first, then the cgroup, then the child: whatever is interrupted in between can be found
//! and removed by `delete --force`. Every failure on the way undoes what was done.

use crate::birth::{Birth, Born, bear};
use crate::container::{Container, ContainerId, RESULT, START, Status};
use crate::error::{Context, Error, Result};
use crate::half::Half;
use crate::init::Gate;
use crate::log::Log;
use crate::plan::namespaces::Kind;
use crate::plan::process::Process;
use crate::plan::{Options, Plan};
use crate::procfs::{self, Proc};
use crate::rdt::Groups;
use crate::root_mount::RootMount;
use crate::rootfs::{self, Opened, sources};
use crate::sync::{self, FromChild, Parent, ToChild};
use crate::sys::{fs, socket};
use crate::{idmap, listener, lsm, namespaces, net_devices, notify, pid_file, rlimits};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What `create` and `run` are asked for.
pub struct Request<'a> {
    /// Directory of all states.
    pub root: &'a Path,
    /// The container's name.
    pub id: ContainerId,
    /// The bundle.
    pub bundle: PathBuf,
    /// Its configuration, if that is not `config.json`.
    pub config: Option<PathBuf>,
    /// Where the pid is written.
    pub pid_file: Option<PathBuf>,
    /// Who receives the terminal.
    pub console_socket: Option<PathBuf>,
    /// Who receives a pidfd of the first process.
    pub pidfd_socket: Option<PathBuf>,
    /// Further options.
    pub options: Options,
    /// The caller starts the container itself, at once (`run`).
    pub starts: bool,
    /// `run` without `--detach` shows the terminal itself.
    pub foreground: bool,
}

impl Request<'_> {
    /// The same, started by the caller itself.
    pub fn started(self) -> Self {
        Self { starts: true, ..self }
    }
}

/// A container whose first process waits for its start.
pub struct Launched {
    /// Its state.
    pub container: Container,
    /// What it was made from.
    pub plan: Plan,
    /// Its first process.
    pub pid: i32,
    /// A descriptor of it.
    pub pidfd: OwnedFd,
    /// The line to it.
    pub sync: Parent,
    /// The terminal, if `run` shows it itself.
    pub console: Option<OwnedFd>,
}

/// The verb.
pub fn create(request: &Request<'_>, log: &Log) -> Result<()> {
    launch(request, log).map(drop)
}

/// Makes the container up to the point where only the start is missing.
pub fn launch(request: &Request<'_>, log: &Log) -> Result<Launched> {
    let (mut plan, config) =
        Plan::load(&request.bundle, request.config.as_deref(), request.options)?;
    notify::plan(&mut plan, &request.root.join(request.id.as_str()))?;
    plan.fallbacks.iter().for_each(|f| log.debug(f));
    check_terminal(&plan.process, request.console_socket.as_deref(), request.foreground)?;
    lsm::check_mount_label(&plan.rootfs)?;
    let mut half = Half::new(request.root, &request.id, &plan, log)?;
    let built = build(request, &plan, &config, &mut half, log).and_then(|line| {
        // Explicitly: the first process has a copy of the descriptor until its program runs.
        half.container.unlock()?;
        Ok(line)
    });
    match built {
        Ok((sync, console)) => {
            let Half { container, child, .. } = half;
            let (pid, pidfd) = child.ok_or_else(|| Error::new("no child was made"))?;
            Ok(Launched { container, plan, pid, pidfd, sync, console })
        }
        Err(error) => Err(half.undo(&plan, request.pid_file.as_deref(), error)),
    }
}

/// A terminal needs somebody who holds its other end.
pub fn check_terminal(process: &Process, socket: Option<&Path>, foreground: bool) -> Result<()> {
    match (process.terminal, socket, foreground) {
        (true, None, false) => Err(Error::new(
            "process.terminal is true: cannot allocate tty if the runtime will detach without setting --console-socket",
        )),
        (false, Some(_), _) => Err(Error::new(
            "--console-socket is given, but process.terminal is not true: there is no terminal to send",
        )),
        _ => Ok(()),
    }
}

fn build(
    request: &Request<'_>,
    plan: &Plan,
    config: &[u8],
    half: &mut Half,
    log: &Log,
) -> Result<(Parent, Option<OwnedFd>)> {
    half.container.write("config.json", config)?;
    notify::prepare(&half.container)?;
    let id = request.id.as_str();
    half.make_groups(plan)?;
    let gate = match request.starts {
        true => Gate::Parent,
        false => fifos(&half.container)?,
    };
    let (sync, child_end) = sync::pair()?;
    let mut proc = procfs::for_plan(plan)?;
    if let Some(why) = proc.as_ref().and_then(Proc::fallback) {
        log.debug(why);
    }
    let joined = namespaces::open(&plan.namespaces)?;
    let opened = open_for_child(plan, &mut half.container, &joined)?;
    let cgroup = half.groups()?;
    let born = Birth { plan, cgroup, gate, id, output: &half.output, proc: &mut proc, opened };
    let made = bear(born, &joined, child_end, log)?;
    drop(joined);
    let mut talk = Talk { request, plan, sync, console: None, proc };
    half.child = match made {
        Born::Child(pid, pidfd) => Some((pid, pidfd)),
        Born::Helper(helper) => Some(talk.sync.hear_made(helper)?),
    };
    let pid = half.pid()?;
    if half.adopt(plan, pid)? {
        talk.sync.say(ToChild::Placed)?;
    }
    set_oom_score(pid, &plan.process, talk.proc.as_ref())?;
    if let Some(rdt) = &plan.rdt {
        let groups = Groups::new(rdt, id);
        groups.make(rdt)?;
        groups.enter(pid)?;
    }
    net_devices::move_all(&plan.net_devices, pid)?;
    talk.until_ready(half)?;
    finish(request, plan, half, &talk.sync, log)?;
    if !request.starts {
        talk.sync.say(ToChild::Saved)?;
    }
    Ok((talk.sync, talk.console))
}

/// The root file system and the sources of its mounts, where they go to a mount namespace that others
/// use: opened here, since the child may be in another one when it needs them, and recorded before
/// the child can attach any of it.
fn open_for_child(
    plan: &Plan,
    container: &mut Container,
    joined: &[(Kind, OwnedFd)],
) -> Result<Option<Opened>> {
    if !plan.rootfs.mounted_in.is_shared() {
        return Ok(None);
    }
    let opened = rootfs::open(&plan.rootfs, false)?;
    if plan.namespaces.has(Kind::User) {
        opened.enslave()?;
    }
    let namespace = joined.iter().find(|(kind, _)| *kind == Kind::Mount).map(|(_, fd)| fd);
    let joined = plan.namespaces.path(Kind::Mount).zip(namespace);
    let mount = RootMount::new(&plan.rootfs.path, opened.tree()?, joined)?;
    container.record.root_mount = Some(mount);
    container.save()?;
    Ok(Some(opened))
}

/// Both FIFOs, open for reading and writing: so nobody blocks in opening one, and the first
/// process's end stays open until execve(2). The name of the start FIFO is given to it last.
fn fifos(container: &Container) -> Result<Gate> {
    let open = |name: &str| {
        let name = Path::new(name);
        fs::mkfifoat(&container.directory, name, 0o600)?;
        fs::openat(&container.directory, name, libc::O_RDWR, 0)
    };
    Ok(Gate::Fifos { start: open(crate::container::PENDING)?, result: open(RESULT)? })
}

/// The parent's side of the conversation.
struct Talk<'a> {
    request: &'a Request<'a>,
    plan: &'a Plan,
    sync: Parent,
    console: Option<OwnedFd>,
    /// Where id maps and scores are written.
    proc: Option<Proc>,
}

impl Talk<'_> {
    fn until_ready(&mut self, half: &mut Half) -> Result<()> {
        loop {
            let (message, fd) = self.sync.hear()?;
            match (message, fd) {
                (FromChild::NeedsMaps, _) => {
                    let proc = procfs::given(self.proc.as_ref())?;
                    idmap::write(half.pid()?, &self.plan.namespaces, proc)?;
                    self.sync.say(ToChild::Mapped)?;
                }
                (FromChild::NeedsMount(number), _) => {
                    let lent = sources::lend(self.plan, number, half.pid()?, self.proc.as_ref())?;
                    self.sync.lend(lent.as_fd())?;
                }
                (FromChild::NeedsLimits, _) => {
                    rlimits::apply(half.pid()?, &self.plan.process.rlimits)?;
                    self.sync.say(ToChild::Limited)?;
                }
                (FromChild::Mounted, _) => {
                    half.remember()?;
                    half.run_host_hooks(self.plan)?;
                    self.sync.say(ToChild::HooksDone)?;
                }
                (FromChild::Console, Some(master)) => match &self.request.console_socket {
                    Some(path) => {
                        send_fd(path, &master, b"/dev/ptmx").wrap(|| "--console-socket")?
                    }
                    None => self.console = Some(master),
                },
                (FromChild::Listener(number), _) => {
                    self.deliver_listener(half, number)?;
                    self.sync.say(ToChild::Listening)?;
                }
                (FromChild::Ready, _) => return Ok(()),
                (other, _) => return Err(Error::new(format!("unexpected message {other:?}"))),
            }
        }
    }

    fn deliver_listener(&self, half: &Half, number: i32) -> Result<()> {
        let agent = self.plan.seccomp.as_ref().and_then(|seccomp| seccomp.listener.as_ref());
        let (Some(agent), Some((pid, pidfd))) = (agent, &half.child) else {
            return Err(Error::new("a listener was made that nobody asked for"));
        };
        let state = half.state(self.plan, Status::Creating, *pid);
        listener::deliver(agent, (*pid, pidfd), number, &state)
    }
}

/// /proc/PID/oom_score_adj, which only the parent can lower. It is not touched if nothing is asked.
pub fn set_oom_score(pid: i32, plan: &Process, proc: Option<&Proc>) -> Result<()> {
    let Some(score) = plan.oom_score_adj else { return Ok(()) };
    let path = format!("{pid}/oom_score_adj");
    procfs::given(proc)?.write(&path, score.to_string().as_bytes()).map_err(|e| {
        let denied = e.errno() == Some(libc::EACCES);
        let hint = if denied { ": lowering it needs CAP_SYS_RESOURCE" } else { "" };
        e.wrap(format!("process.oomScoreAdj: write {score}{hint}"))
    })
}

/// Connects to the socket at `path` and sends a descriptor.
pub fn send_fd(path: &Path, fd: &OwnedFd, data: &[u8]) -> Result<()> {
    let socket = socket::connect(path)?;
    socket::send(&socket, data, Some(fd.as_fd()))
}

/// Makes the container known: state, pid file, pidfd.
fn finish(
    request: &Request<'_>,
    plan: &Plan,
    half: &mut Half,
    sync: &Parent,
    log: &Log,
) -> Result<()> {
    if !half.remember()? {
        return Err(sync.last_words());
    }
    let (pid, container) = (half.pid()?, &half.container);
    if !request.starts {
        let pending = Path::new(crate::container::PENDING);
        fs::rename(&container.directory, pending, Path::new(START))?;
    }
    let receivers = [
        ("--pidfd-socket", &request.pidfd_socket),
        ("annotations[\"run.oci.pidfd_receiver\"]", &plan.heeded.pidfd_receiver),
    ];
    for (name, receiver) in receivers {
        if let (Some(path), Some((_, pidfd))) = (receiver, &half.child) {
            send_fd(path, pidfd, b"pidfd").wrap(|| name)?;
        }
    }
    if let Some(path) = &request.pid_file {
        pid_file::write(path, pid)?;
    }
    log.debug(&format!("container {} has pid {pid}", request.id));
    Ok(())
}
