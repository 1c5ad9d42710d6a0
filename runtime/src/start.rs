//! `start`: lets the first process of a created container become its program.

use crate::container::{Container, ContainerId, RESULT, START, Status};
use crate::error::{Context, Error, Result};
use crate::hooks::{self, Output};
use crate::log::Log;
use crate::notify::Proxy;
use crate::plan::annotations::Annotations;
use crate::plan::hooks::Hooks;
use crate::sys::{fs, signal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The verb. Returns when the program runs, or with the reason why it does not.
pub fn start(root: &Path, id: &ContainerId, log: &Log) -> Result<()> {
    let mut container = Container::open_locked(root, id)?;
    match container.status()? {
        Status::Created => {}
        Status::Stopped => return Err(Error::new("cannot start a container that has stopped")),
        status => {
            return Err(Error::new(format!("cannot start a container that is already {status}")));
        }
    }
    let proxy = Proxy::listen(&container)?;
    release(&container)?;
    let hooks = Hooks::new(container.config()?.hooks().as_ref())?;
    run_poststart(&container, &hooks, log);
    let Some(proxy) = proxy else { return Ok(()) };
    // It may take long, and meanwhile the container may be deleted.
    container.unlock()?;
    match container.pidfd()? {
        Some(init) => proxy.until_ready(&init, container.record.pid),
        None => Ok(()),
    }
}

/// Sends the word, and waits until execve(2) closes the other end of the result FIFO.
fn release(container: &Container) -> Result<()> {
    let open = |name: &str, flags| -> Result<OwnedFd> {
        fs::openat(&container.directory, Path::new(name), flags | libc::O_NONBLOCK, 0)
    };
    // Without a reader this fails with ENXIO: the first process is gone.
    let start = open(START, libc::O_WRONLY).wrap(|| "the container's first process is gone")?;
    let result = open(RESULT, libc::O_RDONLY)?;
    fs::write_once(&start, b"1")?;
    fs::unlinkat(&container.directory, Path::new(START), 0)?;
    let mut text = [0u8; 4096];
    signal::poll(&[(result.as_fd(), libc::POLLIN)], None)?;
    let said = fs::read(&result, &mut text)?;
    fs::unlinkat(&container.directory, Path::new(RESULT), 0)?;
    match said {
        0 => Ok(()),
        n => Err(Error::new(String::from_utf8_lossy(&text[..n]).into_owned())),
    }
}

/// Runs the poststart hooks. One that fails is logged and changes nothing (runtime.md, step 9).
pub fn run_poststart(container: &Container, hooks: &Hooks, log: &Log) {
    if hooks.poststart.is_empty() {
        return;
    }
    let record = &container.record;
    let state = hooks::State {
        oci_version: crate::SPEC_VERSION,
        id: &record.id,
        status: Status::Running,
        pid: record.pid,
        bundle: &record.bundle,
        annotations: &record.annotations,
    };
    match Annotations::new(&record.annotations).and_then(|heeded| Output::open(&heeded)) {
        Err(error) => log.warn(&error.to_string()),
        Ok(output) => {
            for error in hooks::run_all("poststart", &hooks.poststart, &state, &output) {
                log.warn(&error.to_string());
            }
        }
    }
}
