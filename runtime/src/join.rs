//! The script of a process that joins a running container (`exec`), from its birth to its program.
//!
//! It shares its last steps with `init.rs`, and nothing else: there is no tree to build and nobody
//! to wait for. Two processes run it. The helper enters the container's namespaces; its child is
//! born in the container's pid namespace and becomes the program.

use crate::confine;
use crate::error::{Context, Result};
use crate::init::give_stdio;
use crate::lsm;
use crate::plan::namespaces::Kind;
use crate::plan::process::Process;
use crate::plan::seccomp::Seccomp;
use crate::procfs::Proc;
use crate::rootfs::console;
use crate::sync::{Child, FromChild, ToChild};
use crate::sys::process::Fork;
use crate::sys::{fs, process, sched};
use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What the joining process is born with.
pub struct Join<'a> {
    /// The program and what it may do.
    pub process: &'a Process,
    /// The container's filter.
    pub filter: Option<&'a Seccomp>,
    /// A v2 group to be born in.
    pub birthplace: Option<BorrowedFd<'a>>,
    /// Files by which it enters the groups that it is not born in.
    pub doors: Vec<OwnedFd>,
    /// The same, with one for `birthplace`, where the kernel does not let it be born there.
    pub all_doors: Vec<OwnedFd>,
    /// The container's first process.
    pub target: OwnedFd,
    /// Its namespaces, but for that of mounts, as CLONE_NEW* flags.
    pub namespaces: i32,
    /// Its mount namespace.
    pub mounts: OwnedFd,
    /// Its root directory, where that is not its mount namespace's.
    pub root: Option<OwnedFd>,
    /// Is its user namespace another one than ours?
    pub own_user_namespace: bool,
    /// Descriptors from 3 on that the program keeps.
    pub preserve_fds: u32,
    /// Where labels are written.
    pub proc: Option<&'a Proc>,
    /// The line to the parent.
    pub sync: Child,
}

impl Join<'_> {
    /// The helper's script: enters all namespaces but that of mounts, makes the real child, ends.
    pub fn helper(self) -> ! {
        match self.enter() {
            Ok(()) => process::exit(0),
            Err(error) => self.fail(error),
        }
    }

    fn fail(&self, error: crate::error::Error) -> ! {
        // If nobody listens any more, nobody is interested.
        drop(self.sync.say(&FromChild::Failed(error), None));
        process::exit(1)
    }

    fn enter(&self) -> Result<()> {
        crate::init::hide_from_ptrace()?;
        let mut keep: Vec<_> = self.doors.iter().chain(&self.all_doors).map(AsFd::as_fd).collect();
        keep.extend([self.target.as_fd(), self.mounts.as_fd(), self.sync.as_fd()]);
        keep.extend(self.root.as_ref().map(AsFd::as_fd));
        keep.extend(self.birthplace);
        keep.extend(self.proc.map(AsFd::as_fd));
        fs::close_all_but(&keep, 3 + self.preserve_fds)?;
        if let Some(cpus) = &self.process.affinity.0 {
            // Before the container's cgroup is entered: the child inherits it.
            sched::set_affinity(cpus).wrap(|| "process.execCPUAffinity.initial")?;
        }
        // The child inherits labels for the next execve(2), and nobody in the container ever sees
        // the procfs that they are written to.
        lsm::apply(self.process, self.proc)?;
        process::setns(&self.target, self.namespaces)
            .wrap(|| "enter the container's namespaces")?;
        // A sibling of ours: the runtime, and after it the caller, is to be its parent.
        let flags = libc::CLONE_PARENT as u64;
        let (fork, doors) = match self.birthplace {
            None => (process::clone(flags, None)?, &self.doors),
            Some(place) => match process::clone(flags, Some(place)) {
                Ok(fork) => (fork, &self.doors),
                Err(_) => (process::clone(flags, None)?, &self.all_doors),
            },
        };
        match fork {
            Fork::Parent(pid, pidfd) => {
                self.sync.say(&FromChild::Made(pid), Some(pidfd.as_fd()))?;
                Ok(())
            }
            Fork::Child => {
                let Err(error) = self.script(doors);
                self.fail(error)
            }
        }
    }

    fn script(&self, doors: &[OwnedFd]) -> Result<Infallible> {
        // From our birth on we can be seen in the container.
        let mut keep: Vec<_> = doors.iter().map(AsFd::as_fd).collect();
        keep.extend([self.mounts.as_fd(), self.sync.as_fd()]);
        keep.extend(self.root.as_ref().map(AsFd::as_fd));
        fs::close_all_but(&keep, 3 + self.preserve_fds)?;
        for door in doors {
            fs::write_once(door, b"0").wrap(|| "enter the container's cgroup")?;
        }
        if let Some(cpus) = &self.process.affinity.1 {
            sched::set_affinity(cpus).wrap(|| "process.execCPUAffinity.final")?;
        }
        process::setns(&self.mounts, Kind::Mount.flag()).wrap(|| "enter the container's mounts")?;
        if let Some(root) = &self.root {
            fs::fchdir(root).wrap(|| "enter the container's root")?;
            fs::chroot(Path::new(".")).wrap(|| "enter the container's root")?;
            fs::chdir(Path::new("/"))?;
        }
        if self.own_user_namespace {
            crate::init::become_root(self.process.keep_groups)?;
        }
        process::setsid()?;
        if self.process.terminal {
            let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let pts = fs::openat(fs::CWD, Path::new("/dev/pts"), flags, 0)
                .wrap(|| "process.terminal needs a devpts mount at /dev/pts")?;
            let console = console::from_devpts(&pts)?;
            self.sync.say(&FromChild::Console, Some(console.master.as_fd()))?;
            console::take(&console.slave, self.process.console_size, self.process.uid)?;
        } else {
            give_stdio(self.process.uid)?;
        }
        let confined = confine::confine(self.process, self.filter, self.preserve_fds, &self.sync)?;
        self.sync.say(&FromChild::Ready, None)?;
        self.sync.await_message(ToChild::Start)?;
        confined.execute()
    }
}
