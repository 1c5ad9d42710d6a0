//! `run`: create and start in one, and, unless detached, the wait for the end.

use crate::create::{Launched, Request, launch};
use crate::delete;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::notify::Proxy;
use crate::start::run_poststart;
use crate::supervise;
use crate::sync::ToChild;
use crate::sys::process::Ended;

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
        supervise::begin(mode.no_subreaper)?;
    }
    let launched = launch(request, log)?;
    let ended = match follow(&launched, mode, log) {
        Ok(ended) => ended,
        Err(error) => {
            let Launched { container, plan, .. } = launched;
            return Err(supervise::abandon(container, &plan.hooks, log, error));
        }
    };
    match ended {
        _ if mode.detach => return Ok(0),
        _ if mode.keep => {}
        _ => delete::destroy(launched.container, &launched.plan.hooks, log)?,
    }
    supervise::exit_code(ended)
}

/// Starts the program, and, unless detached, stays until it ends.
fn follow(launched: &Launched, mode: Mode, log: &Log) -> Result<Option<Ended>> {
    let Launched { container, plan, pid, pidfd, sync, console } = launched;
    let proxy = Proxy::listen(container)?;
    sync.say(ToChild::Start)?;
    sync.hear_exec()?;
    run_poststart(container, &plan.hooks, log);
    let wait = || supervise::wait(*pid, console.as_ref());
    match proxy {
        None if mode.detach => Ok(None),
        None => wait(),
        Some(proxy) if mode.detach => proxy.until_ready(pidfd, *pid).map(|()| None),
        Some(proxy) => std::thread::scope(|scope| {
            // Our own pid: it is we who wait here for the container's end.
            let own = std::process::id() as i32;
            let passing_on = scope.spawn(move || proxy.until_end(pidfd, own));
            let ended = wait()?;
            match passing_on.join() {
                Ok(done) => done.map(|()| ended),
                Err(_) => Err(Error::new("the proxy of NOTIFY_SOCKET failed")),
            }
        }),
    }
}
