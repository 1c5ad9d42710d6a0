//! `create`: the parent's half of making a container; `init.rs` is the other half.
//!
//! State first, then the cgroup, then the child: whatever is interrupted in between can be found
//! and removed by `delete --force`. Every failure on the way undoes what was done.

use crate::cgroup::Cgroup;
use crate::cgroup::driver::Driver;
use crate::container::{Container, ContainerId, RESULT, Record, START, Status, start_time};
use crate::error::{Context, Error, Result};
use crate::hooks::{self, Output, State};
use crate::init::{Gate, Init};
use crate::log::Log;
use crate::plan::namespaces::{Kind, Namespaces};
use crate::plan::process::Process;
use crate::plan::{Options, Plan};
use crate::procfs::{self, Proc};
use crate::rdt::{self, Groups};
use crate::root_mount::RootMount;
use crate::rootfs::{self, Opened, sources};
use crate::sync::{self, Child, FromChild, Parent, ToChild};
use crate::sys::process::{self, Fork};
use crate::sys::{fs, socket};
use crate::{delete, idmap, listener, lsm, namespaces, net_devices, notify, pid_file, rlimits};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
    let output = Output::open(&plan.heeded)?;
    let container = delete::claim(request.root, &request.id, record(&plan, &request.id), log)?;
    let mut half = Half { container, cgroup: None, child: None, output };
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
        Err(error) => {
            if let (Some(path), Some(_)) = (&request.pid_file, &half.child) {
                pid_file::withdraw(path);
            }
            Err(half.undo(&plan, error))
        }
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

/// The state file of a container that is about to be made.
pub fn record(plan: &Plan, id: &ContainerId) -> Record {
    let cgroups = match plan.cgroup.driver(id.as_str()) {
        Driver::Cgroupfs => Cgroup::planned(&plan.cgroup, id.as_str()),
        // See [`adopt`].
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
    }
}

/// What has been made so far.
struct Half {
    container: Container,
    cgroup: Option<Cgroup>,
    child: Option<(i32, OwnedFd)>,
    output: Output,
}

impl Half {
    /// Takes everything away again; what cannot be taken away is added to the error.
    fn undo(self, plan: &Plan, error: Error) -> Error {
        let mut left = Vec::new();
        if let Some((pid, pidfd)) = &self.child {
            drop(process::pidfd_kill(pidfd, libc::SIGKILL));
            left.extend(process::waitpid(*pid, 0).err());
            let state = state_of(&self.container, plan, Status::Stopped, 0);
            left.extend(hooks::run_all("poststop", &plan.hooks.poststop, &state, &self.output));
        }
        if let Some(cgroup) = &self.cgroup {
            let deadline = Instant::now() + Duration::from_secs(5);
            left.extend(cgroup.kill_all(deadline).err());
            left.extend(cgroup.remove().err());
        }
        left.extend(self.container.unmount().err());
        left.extend(rdt::remove(&self.container.record.resctrl).err());
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
    half.cgroup = Some(Cgroup::create(&plan.cgroup, id)?);
    let cgroup = half.cgroup.as_ref().ok_or_else(|| Error::new("no cgroup"))?;
    if *cgroup.driver() == Driver::Cgroupfs {
        half.container.record.cgroups = cgroup.places();
    }
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
    let born = Birth { plan, cgroup, gate, id, output: &half.output, proc: &mut proc, opened };
    let made = bear(born, &joined, child_end, log)?;
    drop(joined);
    let mut talk = Talk { request, plan, sync, console: None, proc };
    half.child = match made {
        Born::Child(pid, pidfd) => Some((pid, pidfd)),
        Born::Helper(helper) => Some(talk.sync.hear_made(helper)?),
    };
    adopt(half, plan, id, &talk.sync)?;
    let pid = pid_of(half)?;
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

/// Has systemd make the groups around the child, where it is the driver.
///
/// The state names the scope once it is ours, not before: the name may be another container's,
/// which whoever cleans up after us would then end. If we die in between, so does the waiting child,
/// and systemd takes the empty scope away.
fn adopt(half: &mut Half, plan: &Plan, id: &str, sync: &Parent) -> Result<()> {
    let pid = pid_of(half)?;
    let Some(cgroup) = half.cgroup.as_mut().filter(|c| *c.driver() != Driver::Cgroupfs) else {
        return Ok(());
    };
    cgroup.adopt(&plan.cgroup, id, pid)?;
    half.container.record.cgroups = cgroup.places();
    half.container.record.cgroup_driver = cgroup.driver().clone();
    half.container.save()?;
    sync.say(ToChild::Placed)
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

/// What [`bear`] made.
enum Born {
    /// The container's first process.
    Child(i32, OwnedFd),
    /// A helper, which makes it and tells.
    Helper(i32),
}

/// What the first process is given on its way.
struct Birth<'a> {
    plan: &'a Plan,
    cgroup: &'a Cgroup,
    gate: Gate,
    id: &'a str,
    output: &'a Output,
    /// The child takes it out of its own copy of our memory.
    proc: &'a mut Option<Proc>,
    /// See [`open_for_child`].
    opened: Option<Opened>,
}

impl<'a> Birth<'a> {
    fn init(self, doors: Vec<OwnedFd>, sync: Child) -> Init<'a> {
        let Self { plan, cgroup, gate, id, output, proc, opened } = self;
        Init { id, plan, cgroup, doors, sync, gate, output, proc: proc.take(), opened }
    }

    /// In the parent, which opens nothing more.
    fn give_room_back(&self) -> Result<()> {
        self.opened.as_ref().map_or(Ok(()), Opened::give_room_back)
    }
}

/// Makes the first process, or a helper that does where namespaces are to be joined first.
fn bear(birth: Birth<'_>, joined: &[(Kind, OwnedFd)], sync: Child, log: &Log) -> Result<Born> {
    assert_single_thread()?;
    let (plan, cgroup) = (birth.plan, birth.cgroup);
    let doors = cgroup.doors()?;
    let flags = namespaces::clone_flags(&plan.namespaces);
    let helper = namespaces::need_helper(&plan.namespaces);
    if !helper {
        return match clone_into(flags, cgroup, doors, Some(log))? {
            (Fork::Parent(pid, pidfd), _) => {
                birth.give_room_back()?;
                Ok(Born::Child(pid, pidfd))
            }
            (Fork::Child, doors) => birth.init(doors, sync).main(),
        };
    }
    match process::clone(0, None)? {
        Fork::Parent(helper, _) => {
            birth.give_room_back()?;
            Ok(Born::Helper(helper))
        }
        Fork::Child => {
            let flags = flags | libc::CLONE_PARENT as u64;
            let born = early_door(&plan.namespaces, cgroup).and_then(|door| {
                enter(&plan.namespaces, joined, birth.proc.as_ref())?;
                match door {
                    None => clone_into(flags, cgroup, doors, None),
                    Some(door) => {
                        let doors = doors.into_iter().chain([door]).collect();
                        Ok((process::clone(flags, None)?, doors))
                    }
                }
            });
            match born {
                Ok((Fork::Child, doors)) => birth.init(doors, sync).main(),
                Ok((Fork::Parent(pid, pidfd), _)) => {
                    let told = sync.say(&FromChild::Made(pid), Some(pidfd.as_fd()));
                    process::exit(i32::from(told.is_err()))
                }
                Err(error) => {
                    drop(sync.say(&FromChild::Failed(error), None));
                    process::exit(1)
                }
            }
        }
    }
}

/// From inside another container's cgroup namespace nobody gets into a group outside of it
/// (cgroups(7), nsdelegate), except by a door that was opened before.
fn early_door(namespaces: &Namespaces, cgroup: &Cgroup) -> Result<Option<OwnedFd>> {
    match namespaces.joins(Kind::Cgroup) {
        true => cgroup.unified_door(),
        false => Ok(None),
    }
}

fn enter(namespaces: &Namespaces, opened: &[(Kind, OwnedFd)], proc: Option<&Proc>) -> Result<()> {
    namespaces::join(opened)?;
    namespaces::make_time(namespaces, proc)
}

/// clone3(2) into the v2 group, or beside it with a door more where the kernel does not allow it.
fn clone_into(
    flags: u64,
    cgroup: &Cgroup,
    mut doors: Vec<OwnedFd>,
    log: Option<&Log>,
) -> Result<(Fork, Vec<OwnedFd>)> {
    let Some(place) = cgroup.birthplace() else { return Ok((process::clone(flags, None)?, doors)) };
    match process::clone(flags, Some(place)) {
        Ok(fork) => Ok((fork, doors)),
        Err(refused) => {
            if let Some(log) = log {
                log.debug(&format!("the child enters its cgroup after its birth: {refused}"));
            }
            doors.extend(cgroup.unified_door()?);
            Ok((process::clone(flags, None)?, doors))
        }
    }
}

/// fork(2) copies only the calling thread; another one might hold a lock that the child needs.
pub fn assert_single_thread() -> Result<()> {
    let links = std::fs::metadata("/proc/self/task").wrap(|| "count our threads")?.nlink();
    match links {
        3 => Ok(()),
        n => Err(Error::new(format!("the runtime has {} threads, where it must have one", n - 2))),
    }
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
                    idmap::write(pid_of(half)?, &self.plan.namespaces, proc)?;
                    self.sync.say(ToChild::Mapped)?;
                }
                (FromChild::NeedsMount(number), _) => {
                    let lent = sources::lend(self.plan, number, pid_of(half)?, self.proc.as_ref())?;
                    self.sync.lend(lent.as_fd())?;
                }
                (FromChild::NeedsLimits, _) => {
                    rlimits::apply(pid_of(half)?, &self.plan.process.rlimits)?;
                    self.sync.say(ToChild::Limited)?;
                }
                (FromChild::Mounted, _) => {
                    self.run_host_hooks(half)?;
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
        let state = state_of(&half.container, self.plan, Status::Creating, *pid);
        listener::deliver(agent, (*pid, pidfd), number, &state)
    }

    fn run_host_hooks(&self, half: &mut Half) -> Result<()> {
        let pid = pid_of(half)?;
        half.container.record.pid = pid;
        half.container.record.start_time = start_time(pid)?.unwrap_or(0);
        half.container.save()?;
        // "Created" is what comes after step 2 of the specification's lifecycle, and hooks do.
        let state = state_of(&half.container, self.plan, Status::Created, pid);
        hooks::run("prestart", &self.plan.hooks.prestart, &state, &half.output)?;
        hooks::run("createRuntime", &self.plan.hooks.create_runtime, &state, &half.output)
    }
}

/// The state of a container as its hooks see it.
pub fn state_of<'a>(
    container: &'a Container,
    plan: &'a Plan,
    status: Status,
    pid: i32,
) -> State<'a> {
    State {
        oci_version: crate::SPEC_VERSION,
        id: &container.record.id,
        status,
        pid,
        bundle: &plan.bundle,
        annotations: &plan.annotations,
    }
}

fn pid_of(half: &Half) -> Result<i32> {
    half.child.as_ref().map(|(pid, _)| *pid).ok_or_else(|| Error::new("the child has no pid yet"))
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
    let pid = pid_of(half)?;
    let container = &mut half.container;
    container.record.pid = pid;
    container.record.start_time = match start_time(pid)? {
        Some(time) => time,
        None => return Err(sync.last_words()),
    };
    container.save()?;
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
