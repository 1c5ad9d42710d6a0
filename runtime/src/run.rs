//! `run`: create and start in one, and, unless detached, the wait for the end.

use crate::create::{Launched, Request, launch};
use crate::delete;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::start::run_poststart;
use crate::supervise;
use crate::sync::ToChild;
use crate::sys::{process, signal};

/// What `run` is asked for besides what `create` is.
#[derive(Debug, Clone, Copy)]
pub struct Mode {
    /// Return when the program runs.
    pub detach: bool,
    /// Leave the state and the cgroup when it has ended.
    pub keep: bool,
    /// Do not take in orphans of the container.
    pub no_subreaper: bool,
}

/// The verb; returns the exit code of the program, or 0 when detached.
pub fn run(request: &Request<'_>, mode: Mode, log: &Log) -> Result<i32> {
    if !mode.detach {
        if !mode.no_subreaper {
            process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0)?;
        }
        // Before the child exists, so that no signal is lost.
        signal::block_all()?;
    }
    let Launched { mut container, plan, pid, sync, console, .. } = launch(request, log)?;
    let started = sync.say(ToChild::Start).and_then(|()| sync.hear_exec());
    if let Err(error) = started {
        return Err(match delete::destroy(container, &plan.hooks, log) {
            Ok(()) => error,
            Err(left) => error.wrap(format!("(and left behind: {left})")),
        });
    }
    run_poststart(&container, &plan.hooks, log);
    if mode.detach {
        return Ok(0);
    }
    container.unlock()?;
    let ended = supervise::wait(pid, console)?;
    if !mode.keep {
        delete::destroy(container, &plan.hooks, log)?;
    }
    match ended {
        Some(ended) => Ok(ended.code()),
        None => Err(Error::new("somebody else has taken the container's exit status")),
    }
}
