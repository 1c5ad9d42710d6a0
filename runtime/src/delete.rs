//! `delete`: removes what is left of a container.

use crate::container::{self, Container, ContainerId, Record, Remnant, Status};
use crate::error::{self, Context, Error, Result};
use crate::hooks::{self, Output};
use crate::log::Log;
use crate::plan::annotations::Annotations;
use crate::plan::hooks::Hooks;
use crate::rdt;
use crate::sys::{fs, process, signal};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long processes may take to end after SIGKILL.
const PATIENCE: Duration = Duration::from_secs(10);

/// The verb. With `force`, a container that runs is killed, and one that does not exist is no
/// error.
pub fn delete(root: &Path, id: &ContainerId, force: bool, log: &Log) -> Result<()> {
    let container = match Container::open_locked(root, id) {
        Err(e) if force && e.kind() == error::Kind::NotFound => return Ok(()),
        // The state makes no sense: what can be found is removed. A state that merely could not be
        // read may be that of a container that runs.
        Err(e) if force && e.kind() == error::Kind::Corrupt => {
            return match container::erase_corrupt(root, id) {
                Ok(true) => Ok(()),
                // Another runtime was just writing it.
                Ok(false) => delete(root, id, force, log),
                Err(gone) if gone.kind() == error::Kind::NotFound => Ok(()),
                Err(again) => Err(again.wrap(e.to_string())),
            };
        }
        other => other?,
    };
    match container.status()? {
        Status::Stopped => {}
        status if !force => {
            return Err(Error::new(format!(
                "cannot delete container {id} that is not stopped: {status}; kill it first, or use --force"
            )));
        }
        _ => kill(&container)?,
    }
    let hooks = hooks_of(&container)?;
    destroy(container, &hooks, log)
}

/// The hooks that the container came with; none where its configuration was never written.
fn hooks_of(container: &Container) -> Result<Hooks> {
    Hooks::new(container.config().ok().and_then(|c| c.hooks().clone()).as_ref())
}

/// Takes the name `id` for a new container: makes its locked state directory.
///
/// What a runtime left of that name that was killed while it made or deleted the container is removed
/// first, as `delete --force` does. A container that was made whole stays, and is an error.
pub fn claim(root: &Path, id: &ContainerId, record: Record, log: &Log) -> Result<Container> {
    let taken = match Container::create(root, id, record.clone()) {
        Err(e) if e.kind() == error::Kind::Exists => e,
        other => return other,
    };
    match Container::open_remnant(root, id).wrap(|| taken.to_string())? {
        Remnant::Whole => return Err(taken),
        Remnant::Gone => {}
        Remnant::Left(container) => {
            log.debug(&format!("container {id} is what a killed runtime left: it is removed"));
            kill(&container)?;
            let hooks = hooks_of(&container)?;
            destroy(*container, &hooks, log).wrap(|| "remove what a killed runtime left")?;
        }
    }
    Container::create(root, id, record)
}

/// Kills the first process and waits for its end.
fn kill(container: &Container) -> Result<()> {
    let Some(pidfd) = container.pidfd()? else { return Ok(()) };
    match process::pidfd_kill(&pidfd, libc::SIGKILL) {
        Err(e) if e.errno() != Some(libc::ESRCH) => return Err(e),
        _ => {}
    }
    // A frozen process dies when it thaws.
    container.cgroup().thaw()?;
    let ended = signal::poll(&[(pidfd.as_fd(), libc::POLLIN)], Some(PATIENCE))?;
    match ended[..] {
        [0] => Err(Error::new(format!(
            "process {} does not end {}s after SIGKILL",
            container.record.pid,
            PATIENCE.as_secs()
        ))),
        _ => Ok(()),
    }
}

/// Removes everything of a container whose first process has ended, then runs its poststop hooks.
pub fn destroy(mut container: Container, hooks: &Hooks, log: &Log) -> Result<()> {
    fs::flock(&container.directory, libc::LOCK_EX)?;
    // `run` waits without the lock: a `delete --force` may have been here, and the name, the group's
    // too, may be another container's by now.
    if container.is_removed()? {
        return Ok(());
    }
    container.mark_for_deletion();
    let cgroup = container.cgroup();
    if !container.ends_with_init() || container.record.pid == 0 {
        cgroup.kill_all(Instant::now() + PATIENCE).wrap(|| "end the container's processes")?;
    }
    cgroup.remove()?;
    container.unmount()?;
    rdt::remove(&container.record.resctrl)?;
    container.erase()?;
    // The name is free, however long the hooks take.
    container.unlock()?;
    let record = &container.record;
    let state = hooks::State {
        oci_version: crate::SPEC_VERSION,
        id: &record.id,
        status: Status::Stopped,
        pid: 0,
        bundle: &record.bundle,
        annotations: &record.annotations,
    };
    if hooks.poststop.is_empty() {
        return Ok(());
    }
    match Annotations::new(&record.annotations).and_then(|heeded| Output::open(&heeded)) {
        Err(error) => log.warn(&error.to_string()),
        Ok(output) => {
            for error in hooks::run_all("poststop", &hooks.poststop, &state, &output) {
                log.warn(&error.to_string());
            }
        }
    }
    Ok(())
}
