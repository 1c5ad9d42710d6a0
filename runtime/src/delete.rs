//! `delete`: removes what is left of a container.

use crate::container::{self, Container, ContainerId, Status};
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
            return erase_remains(root, id).map_err(|again| again.wrap(e.to_string()));
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
    let hooks = Hooks::new(container.config().ok().and_then(|c| c.hooks().clone()).as_ref())?;
    destroy(container, &hooks, log)
}

fn erase_remains(root: &Path, id: &ContainerId) -> Result<()> {
    container::erase(root, &root.join(id.as_str()))
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
pub fn destroy(container: Container, hooks: &Hooks, log: &Log) -> Result<()> {
    // With a runtime that holds the lock for long, a second delete waits here, and then finds
    // nothing.
    fs::flock(&container.directory, libc::LOCK_EX)?;
    let cgroup = container.cgroup();
    if !container.ends_with_init() || container.record.pid == 0 {
        cgroup.kill_all(Instant::now() + PATIENCE).wrap(|| "end the container's processes")?;
    }
    cgroup.remove()?;
    container.unmount()?;
    rdt::remove(&container.record.resctrl)?;
    container.erase()?;
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
