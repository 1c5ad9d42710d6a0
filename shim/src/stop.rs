//! `shim stop`: SIGTERM, then SIGKILL; and the certain end that `rm -f` shares with it.

use std::io::Write;
use std::time::Duration;

use rustix::process::Signal;

use crate::cli::{Global, Stop};
use crate::container::{Container, Status};
use crate::error::{Error, Result};
use crate::wait::await_code;
use crate::{places, process};

/// How long a killed process may take to be gone, before we act ourselves, and after.
const AFTER_KILL: Duration = Duration::from_secs(10);

/// Stops each container and prints its name. One that does not run is stopped already.
///
/// # Errors
/// For the containers that do not exist or do not die; the others are stopped.
pub fn stop(global: &Global, args: &Stop) -> Result<u8> {
    let root = places::state_dir(global.state.as_deref())?;
    let patience = Duration::from_secs(args.time);
    for_each(&args.names.names, |name| {
        let container = Container::find(&root, name)?;
        end(&container, libc::SIGTERM, patience)
    })
}

/// Applies `act` to every name and prints those for which it succeeded.
///
/// # Errors
/// The last; earlier ones are printed.
pub fn for_each(names: &[String], mut act: impl FnMut(&str) -> Result<()>) -> Result<u8> {
    let mut failed: Option<Error> = None;
    for name in names {
        match act(name) {
            Ok(()) => drop(writeln!(std::io::stdout(), "{name}")),
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    let _ = writeln!(std::io::stderr(), "shim: {earlier}");
                }
            }
        }
    }
    failed.map_or(Ok(0), Err)
}

/// Ends a container: `first`, then SIGKILL through the runtime, then SIGKILL directly.
///
/// # Errors
/// When its process is still there after all that.
pub fn end(container: &Container, first: i32, patience: Duration) -> Result<()> {
    if !is_running(container) {
        return Ok(());
    }
    let runtime = container.runtime();
    // A signal that cannot be delivered leads to the next, stronger step.
    let _ = runtime.kill(&container.config.id, first);
    if is_over(container, patience) {
        return Ok(());
    }
    let by_runtime = runtime.kill(&container.config.id, libc::SIGKILL);
    if by_runtime.is_ok() && is_over(container, AFTER_KILL) {
        return Ok(());
    }
    kill_directly(container);
    match is_over(container, AFTER_KILL) {
        true => Ok(()),
        false => Err(Error::new(format!(
            "container {}: its process does not end, even after SIGKILL",
            container.config.name
        ))),
    }
}

/// Whether there is a process to end.
pub fn is_running(container: &Container) -> bool {
    matches!(container.status(), Status::Running | Status::Created | Status::Orphaned)
}

/// An unknown exit code is an end, too.
fn is_over(container: &Container, patience: Duration) -> bool {
    !matches!(await_code(container, Some(patience)), Ok(None))
}

/// By pidfd and start time: never another process that got the same pid.
fn kill_directly(container: &Container) {
    let init = process::Recorded::read(&container.dir().join("init"));
    if let Some(init) = init.and_then(|init| init.open()) {
        // ESRCH is what we want.
        let _ = rustix::process::pidfd_send_signal(&init, Signal::KILL);
    }
}
