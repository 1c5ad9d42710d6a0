//! `pause` and `resume`: the freezer.

use crate::container::{Container, ContainerId, Status};
use crate::error::{Error, Result};
use std::path::Path;

/// Stops all processes of a container where they are.
pub fn pause(root: &Path, id: &ContainerId) -> Result<()> {
    let container = Container::open_locked(root, id)?;
    match container.status()? {
        Status::Running | Status::Created => container.cgroup().freeze(),
        status => Err(Error::new(format!("container not running: {id} is {status}"))),
    }
}

/// Lets them go on.
pub fn resume(root: &Path, id: &ContainerId) -> Result<()> {
    let container = Container::open_locked(root, id)?;
    match container.status()? {
        Status::Paused => container.cgroup().thaw(),
        // A container that waits for its start may be frozen, too.
        Status::Created if container.cgroup().frozen()? => container.cgroup().thaw(),
        status => Err(Error::new(format!("container not paused: {id} is {status}"))),
    }
}
