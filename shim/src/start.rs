//! `shim start`: run containers again that have ended.

use std::io::Write;
use std::time::Duration;

use crate::cli::{Global, Start};
use crate::client::{Session, catch_signals};
use crate::container::{Container, Status};
use crate::detach::DetachKeys;
use crate::error::{Context, Error, Result, code};
use crate::launch::{FOREGROUND, launch};
use crate::{image, places};

/// How long the tidying up of the last run may still take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the containers and prints their names; with `-a`, returns the container's code.
///
/// # Errors
/// For the first container that does not start.
pub fn start(global: &Global, args: &Start) -> Result<u8> {
    let keys = DetachKeys::parse(&args.detach_keys)?;
    let root = places::state_dir(global.state.as_deref())?;
    if args.attach && args.names.names.len() > 1 {
        return Err(Error::new("--attach: takes one container").with_code(code::USAGE));
    }
    for name in &args.names.names {
        let container = Container::find(&root, name)?;
        let code = start_one(&container, args.attach, &keys)
            .wrap_with(|| format!("start {}", container.config.name))?;
        match code {
            Some(code) => return Ok(code),
            None => drop(writeln!(std::io::stdout(), "{name}")),
        }
    }
    Ok(0)
}

fn start_one(container: &Container, attach: bool, keys: &DetachKeys) -> Result<Option<u8>> {
    if matches!(container.status(), Status::Running | Status::Created | Status::Orphaned) {
        return Err(Error::new("it is running"));
    }
    let lock = container.lock(PATIENCE)?;
    let lock = lock.ok_or_else(|| Error::new("it is being started or removed"))?;
    // What a reboot or a killed reaper left with the runtime stands in the way of `create`;
    // most often there is nothing, and that is no failure.
    let _ = container.runtime().delete(&container.config.id);
    if let Some(imgtool) = &container.config.imgtool {
        image::mount(imgtool, &container.config.bundle)?;
    }
    if !attach {
        launch(container, lock, false, false)?;
        return Ok(None);
    }
    let signals = catch_signals(true)?;
    let mut session = Session::new(container, FOREGROUND, keys.clone(), signals);
    let launched = launch(container, lock, true, false)?;
    Ok(Some(launched.stay(container, &mut session)?.unwrap_or(0)))
}
