//! `shim rm`: everything that is left of containers.

use std::time::Duration;

use crate::cli::{Global, Rm};
use crate::container::Container;
use crate::error::{Context, Error, Result};
use crate::{container, id, image, places, stop};

/// How long the tidying up after a container's end may still take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Removes each container and prints its name.
///
/// # Errors
/// For containers that do not exist, that run (without --force), or that resist.
pub fn rm(global: &Global, args: &Rm) -> Result<u8> {
    let root = places::state_dir(global.state.as_deref())?;
    stop::for_each(&args.names.names, |name| {
        let container = match Container::find(&root, name) {
            Ok(container) => container,
            Err(_) if id::is_id(name) && root.join(name).is_dir() => {
                return container::remove_dir(&root, name).wrap("remove a damaged container");
            }
            Err(error) => return Err(error),
        };
        remove(&container, args.force).wrap_with(|| format!("remove {name}"))
    })
}

fn remove(container: &Container, force: bool) -> Result<()> {
    if stop::is_running(container) {
        if !force {
            return Err(Error::new("it is running (stop it first, or use --force)"));
        }
        stop::end(container, libc::SIGKILL, Duration::from_secs(5))?;
    }
    let dir = container.dir();
    let lock = match container.lock(PATIENCE) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Err(Error::new("somebody else is starting or removing it")),
        // With --rm it removes itself at its end.
        Err(_) if !dir.exists() => return Ok(()),
        Err(error) => return Err(error),
    };
    // Nothing is left with the runtime after an orderly end; after any other, this ends it.
    // A runtime that knows nothing of it complains, and that is as good.
    let _ = container.runtime().delete(&container.config.id);
    container.discard()?;
    drop(lock);
    Ok(())
}

impl Container {
    /// Unmounts the bundle, if it was made from an image, and removes the directory and the
    /// name. The caller holds the lock.
    ///
    /// # Errors
    /// Those of imgtool and of the file system; then it can be tried again.
    pub fn discard(&self) -> Result<()> {
        if let Some(imgtool) = &self.config.imgtool {
            image::umount(imgtool, &self.config.bundle)?;
        }
        container::remove_dir(&self.root, &self.config.id)
            .wrap_with(|| format!("remove {}", self.dir().display()))
    }
}
