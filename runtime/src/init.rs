//! The script of a new container's first process, from its birth to its program.
//!
//! It runs in a copy of the runtime made by clone3(2), with the plan at hand, and talks to the
//! parent (`create.rs`) by the messages of `sync.rs`. Read it from the top: each step takes what
//! the one before returned, so none can be left out or moved.
//!
//! ```text
//! Joined -> Mounted -> Rooted -> Confined -> execve
//! ```

use crate::cgroup::Cgroup;
use crate::cgroup::driver::Driver;
use crate::confine::{self, Confined};
use crate::container::Status;
use crate::error::{Context, Error, Result};
use crate::hooks::{self, Output, State};
use crate::lsm;
use crate::plan::Plan;
use crate::plan::namespaces::Kind;
use crate::procfs::{self, Proc};
use crate::rootfs::{self, Opened, Root, console};
use crate::sync::{Child, FromChild, ToChild};
use crate::sys::{self, fs, process, socket};
use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

/// How the program is told to start.
pub enum Gate {
    /// By the runtime that made it (`run`).
    Parent,
    /// By another process later (`start`), through two FIFOs of the state directory.
    Fifos {
        /// One byte in it is the start.
        start: OwnedFd,
        /// Why execve(2) failed is written to it.
        result: OwnedFd,
    },
}

/// What the first process is born with.
pub struct Init<'a> {
    /// The container's name.
    pub id: &'a str,
    /// What to do.
    pub plan: &'a Plan,
    /// Its control groups.
    pub cgroup: &'a Cgroup,
    /// Files by which it enters groups that it was not born in.
    pub doors: Vec<OwnedFd>,
    /// The line to the parent.
    pub sync: Child,
    /// How it is told to start.
    pub gate: Gate,
    /// Where labels and kernel parameters are written.
    pub proc: Option<Proc>,
    /// Where the output of its hooks goes.
    pub output: &'a Output,
    /// What the parent has opened for it, where the mounts go to a namespace that others use.
    pub opened: Option<Opened>,
}

impl Init<'_> {
    /// Runs the script. Whatever fails is told to who waits for it: the parent, then `start`.
    pub fn main(mut self) -> ! {
        let Err(error) = self.script();
        // If nobody listens any more, nobody is interested.
        drop(self.sync.say(&FromChild::Failed(error.clone()), None));
        if let Gate::Fifos { result, .. } = &self.gate {
            drop(fs::write_once(result, error.to_string().as_bytes()));
        }
        process::exit(1)
    }

    fn script(&mut self) -> Result<Infallible> {
        self.close_the_rest()?;
        let joined = self.join()?;
        let mounted = self.mount(joined)?;
        let rooted = self.enter_root(mounted)?;
        let confined = self.confine(rooted)?;
        self.wait_for_start()?;
        self.run_hooks("startContainer", &self.plan.hooks.start_container)?;
        confined.execute()
    }

    /// Closes the parent's descriptors that came along: the state directory, which nobody in the
    /// container may get hold of, and the parent's end of the line, which would keep us from hearing
    /// that the parent is gone.
    fn close_the_rest(&self) -> Result<()> {
        let mut keep: Vec<_> = self.doors.iter().map(AsFd::as_fd).collect();
        keep.push(self.sync.as_fd());
        keep.extend(self.proc.as_ref().map(AsFd::as_fd));
        keep.extend(self.output.descriptors());
        keep.extend(self.opened.iter().flat_map(Opened::descriptors));
        if let Gate::Fifos { start, result } = &self.gate {
            keep.extend([start.as_fd(), result.as_fd()]);
        }
        fs::close_all_but(&keep, 3 + self.plan.preserve_fds)
    }

    /// Control groups, ids, and all namespaces but the mounts.
    fn join(&mut self) -> Result<Joined> {
        let namespaces = &self.plan.namespaces;
        if self.plan.cgroup.driver(self.id) != Driver::Cgroupfs {
            self.sync.await_message(ToChild::Placed)?;
        }
        for door in &self.doors {
            fs::write_once(door, b"0").wrap(|| "enter the container's cgroup")?;
        }
        // Before the ids change: afterwards the host's directories may be closed to us.
        let mut opened = match self.opened.take() {
            None => rootfs::open(&self.plan.rootfs, namespaces.has(Kind::User))?,
            Some(opened) => opened,
        };
        if namespaces.makes(Kind::User) {
            self.sync.say(&FromChild::NeedsMaps, None)?;
            self.sync.await_message(ToChild::Mapped)?;
        }
        opened.complete(&self.plan.rootfs, &self.sync)?;
        if namespaces.has(Kind::User) {
            become_root(self.plan.process.keep_groups)?;
        }
        process::setsid()?;
        if namespaces.makes(Kind::Cgroup) {
            // In its final group, which becomes the root of the namespace.
            let delegated = self.plan.cgroup.delegated_door()?;
            process::unshare(Kind::Cgroup.flag())?;
            if let Some(door) = delegated {
                fs::write_once(&door, b"0").wrap(|| "run.oci.delegate-cgroup")?;
            }
        }
        if self.plan.new_keyring {
            new_keyring(self.id)?;
        }
        if namespaces.makes(Kind::Network) {
            socket::set_interface_up("lo").wrap(|| "set the loopback interface up")?;
        }
        if let Some(name) = &self.plan.hostname {
            process::sethostname(name).wrap(|| "hostname")?;
        }
        if let Some(name) = &self.plan.domainname {
            process::setdomainname(name).wrap(|| "domainname")?;
        }
        self.set_sysctls()?;
        Ok(Joined { opened })
    }

    /// Kernel parameters: a procfs shows those of the namespaces that its reader is in.
    fn set_sysctls(&self) -> Result<()> {
        for (name, value) in &self.plan.sysctl {
            procfs::given(self.proc.as_ref())?
                .write(&format!("sys/{}", name.replace('.', "/")), value.as_bytes())
                .wrap(|| format!("linux.sysctl[{name:?}]"))?;
        }
        Ok(())
    }

    /// The container's tree, built beside the host's.
    fn mount(&mut self, joined: Joined) -> Result<Mounted> {
        let process = &self.plan.process;
        let root = rootfs::build(self.plan, joined.opened, self.cgroup, self.proc.as_ref())?;
        let slave = match process.terminal {
            false => None,
            true => {
                let console = console::open(&root)?;
                console::mount_at_dev_console(&root, &console.slave)?;
                self.sync.say(&FromChild::Console, Some(console.master.as_fd()))?;
                Some(console.slave)
            }
        };
        let hooks = &self.plan.hooks;
        if !(hooks.prestart.is_empty() && hooks.create_runtime.is_empty()) {
            self.sync.say(&FromChild::Mounted, None)?;
            self.sync.await_message(ToChild::HooksDone)?;
        }
        self.run_hooks("createContainer", &hooks.create_container)?;
        lsm::apply(process, self.proc.as_ref())?;
        // The last that was to be written; nobody in the container may get hold of it.
        self.proc = None;
        hide_from_ptrace()?;
        Ok(Mounted { root, slave })
    }

    /// From here on no path leads to the host any more.
    fn enter_root(&self, mounted: Mounted) -> Result<Rooted> {
        rootfs::enter(&mounted.root, &self.plan.rootfs)?;
        let process = &self.plan.process;
        match &mounted.slave {
            Some(slave) => console::take(slave, process.console_size, process.uid)?,
            None => give_stdio(process.uid)?,
        }
        Ok(Rooted)
    }

    fn confine(&self, Rooted: Rooted) -> Result<Confined> {
        let plan = self.plan;
        confine::confine(&plan.process, plan.seccomp.as_ref(), plan.preserve_fds, &self.sync)
    }

    /// Tells that all is done, and waits for the word.
    fn wait_for_start(&self) -> Result<()> {
        self.sync.say(&FromChild::Ready, None)?;
        match &self.gate {
            Gate::Parent => self.sync.await_message(ToChild::Start),
            Gate::Fifos { start, .. } => {
                self.sync.await_message(ToChild::Saved)?;
                match fs::read(start, &mut [0u8; 1])? {
                    1 => Ok(()),
                    _ => Err(Error::new("the start FIFO was closed")),
                }
            }
        }
    }

    /// Runs hooks here, in the container's namespaces.
    fn run_hooks(&self, kind: &str, list: &[crate::plan::hooks::Hook]) -> Result<()> {
        let state = State {
            oci_version: crate::SPEC_VERSION,
            id: self.id,
            status: Status::Created,
            pid: std::process::id() as i32,
            bundle: &self.plan.bundle,
            annotations: &self.plan.annotations,
        };
        hooks::run(kind, list, &state, self.output)
    }
}

/// In all its namespaces; what the host holds for it is open.
struct Joined {
    opened: Opened,
}

/// The tree stands.
struct Mounted {
    root: Root,
    slave: Option<OwnedFd>,
}

/// In the tree, with the stdio that it will have.
struct Rooted;

/// Until the program runs, what we have open is the host's: nobody in the container may look at it
/// through /proc or ptrace(2). execve(2) ends this.
pub fn hide_from_ptrace() -> Result<()> {
    process::prctl(libc::PR_SET_DUMPABLE, 0, 0).map(drop)
}

/// Takes on the ids 0 of the new user namespace, with the capabilities that go with them.
pub fn become_root(keep_groups: bool) -> Result<()> {
    if !keep_groups {
        match process::setgroups(&[]) {
            // Maps made without privilege go with "deny" (user_namespaces(7)).
            Err(e) if e.errno() != Some(libc::EPERM) => return Err(e),
            _ => {}
        }
    }
    process::setgid(0).wrap(|| "linux.gidMappings: group 0 must be mapped")?;
    process::setuid(0).wrap(|| "linux.uidMappings: user 0 must be mapped")
}

/// A session keyring of its own, so that the container does not inherit the caller's keys.
fn new_keyring(id: &str) -> Result<()> {
    let name = sys::cstring(format!("_ses.{id}"))?;
    match process::join_session_keyring(&name) {
        // A kernel without keys has none to inherit; an outer seccomp filter answers the same.
        Err(e) if matches!(e.errno(), Some(libc::ENOSYS)) => Ok(()),
        // The user's quota of keys is used up: keep the caller's keyring, as runc does.
        Err(e) if e.errno() == Some(libc::EDQUOT) => Ok(()),
        other => other.map(drop).wrap(|| "make a session keyring (or pass --no-new-keyring)"),
    }
}

/// Gives inherited pipes and files to the container's user, who could otherwise not open
/// /dev/stdout again. What refuses (a terminal of the host, /dev/null, a read-only mount) stays.
pub fn give_stdio(uid: u32) -> Result<()> {
    if uid == 0 {
        return Ok(());
    }
    for number in 0..3 {
        let Ok(fd) = sys::standard(number) else { continue };
        let st = fs::fstat(fd)?;
        if st.st_uid == uid || st.st_rdev == libc::makedev(1, 3) {
            continue;
        }
        match fs::fchown(fd, uid, st.st_gid) {
            Err(e) if !matches!(e.errno(), Some(libc::EINVAL | libc::EPERM | libc::EROFS)) => {
                return Err(e.wrap("give stdio to process.user"));
            }
            _ => {}
        }
    }
    Ok(())
}
