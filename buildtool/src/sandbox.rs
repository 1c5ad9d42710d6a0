//! The process that builds, and the one that watches over it.
//!
//! `buildtool build` executes itself once more as the first process of a new pid namespace, in
//! a mount namespace of its own, and waits. So whatever ends the build ends all of it:
//!
//! * its mounts exist in its own mount namespace and vanish with it;
//! * when the watcher dies, the builder is killed (`PR_SET_PDEATHSIG`), and when the builder
//!   dies the kernel kills every process in its namespace, the container of a RUN included;
//! * on a signal the builder kills what it started, cleans up, and exits with 128 + n.
//!
//! What can stay behind after a kill -9 is a directory and an empty cgroup; the next build
//! removes them (`workspace`).

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Sender, channel};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use crate::error::{Context, Error, Result};

/// argv[0] of the building process.
const BUILDER: &str = "buildtool-builder";
/// argv[0] of a process that is about to become another program.
const LAUNCHER: &str = "buildtool-launcher";

/// The signal that asked this build to stop, or 0.
static STOPPED_BY: AtomicU8 = AtomicU8::new(0);

/// What this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// What the user started.
    Watcher,
    /// The first process of the build's pid namespace.
    Builder,
    /// About to execute the program that its arguments name.
    Launcher,
}

/// Which role this process was started in.
pub fn role() -> Role {
    let name = std::env::args_os().next().unwrap_or_default();
    match (name.to_str(), std::process::id()) {
        (Some(BUILDER), 1) => Role::Builder,
        (Some(LAUNCHER), _) => Role::Launcher,
        _ => Role::Watcher,
    }
}

fn stop_signals() -> SigSet {
    SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT])
}

/// Starts the builder with this process's own arguments and returns what it exits with.
pub fn watch() -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::new(
            "a build mounts overlays and starts containers, which needs root: run it with sudo",
        ));
    }
    stop_signals().thread_block().wrap(|| "block signals")?;
    // Before unshare: a thread whose children enter another pid namespace can start no threads.
    let tell = forward_signals();
    unshare(CloneFlags::CLONE_NEWPID).wrap(|| "unshare(CLONE_NEWPID)")?;
    let mut builder = Command::new("/proc/self/exe")
        .arg0(BUILDER)
        .args(std::env::args_os().skip(1))
        .spawn()
        .wrap(|| "start the builder")?;
    // The receiver is a thread that never ends.
    let _ = tell.send(Pid::from_raw(builder.id() as i32));
    let status = builder.wait().wrap(|| "wait for the builder")?;
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(ExitCode::from(code as u8)),
        (None, signal) => Err(Error::new(format!(
            "the builder was killed by signal {}: nothing was written, and the next build tidies up",
            signal.unwrap_or_default()
        ))),
    }
}

/// A terminal signals both processes; whoever signals the watcher alone means the build.
fn forward_signals() -> Sender<Pid> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let Ok(pid) = told.recv() else { return };
        while let Ok(signal) = stop_signals().wait() {
            // The builder may just have ended, which is what was asked for.
            let _ = kill(pid, signal);
        }
    });
    tell
}

/// Makes this process the builder: dies with the watcher, mounts privately, stops on signals.
pub fn enter() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .wrap(|| "prctl(PR_SET_PDEATHSIG)")?;
    stop_signals().thread_block().wrap(|| "block signals")?;
    unshare(CloneFlags::CLONE_NEWNS).wrap(|| "unshare(CLONE_NEWNS)")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).wrap(|| "make all mounts private")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None).wrap(|| "mount(\"proc\", \"/proc\")")?;
    std::thread::spawn(|| {
        while let Ok(signal) = stop_signals().wait() {
            STOPPED_BY.store(signal as u8, Ordering::SeqCst);
            kill_all();
        }
    });
    Ok(())
}

/// Kills every process of the build but this one.
pub fn kill_all() {
    // Nothing to kill is fine.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
}

/// An error once a signal has asked the build to stop.
pub fn check_stopped() -> Result<()> {
    match STOPPED_BY.load(Ordering::SeqCst) {
        0 => Ok(()),
        signal => Err(Error::interrupted(signal)),
    }
}

/// A command that starts `program` with no signal blocked, whatever this process blocks.
pub fn command(program: &std::path::Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(LAUNCHER).arg(program);
    command
}

/// Becomes the program that the arguments name.
pub fn launch() -> Error {
    let mut arguments = std::env::args_os().skip(1);
    let program: OsString = arguments.next().unwrap_or_default();
    if let Err(errno) = SigSet::empty().thread_set_mask() {
        return Error::from(std::io::Error::from(errno)).wrap("unblock signals");
    }
    let error = Command::new(&program).args(arguments).exec();
    Error::from(error).wrap(format!("execute {}", program.display()))
}
