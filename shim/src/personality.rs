//! What this program is asked to be: by its own first argument a container's keeper, by
//! its name somebody else's monitor, or else the command line tool.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::monitor::MonitorOrders;
use crate::orders::{MONITOR, Orders, REAPER};
use crate::{container, monitor, reaper};

/// What we are.
#[derive(Debug)]
pub enum Of {
    /// A reaper or a monitor, which has done its work.
    Keeper(Result<()>),
    /// A name whose contract is not implemented.
    Foreign(Error),
    /// The command line tool.
    Cli,
}

/// Decides, and in a keeper's case returns only when its container is done with. Keepers
/// never get as far as the command line parser: they stay small.
pub fn of(mut args: impl Iterator<Item = OsString>) -> Of {
    let name = args.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy();
    if name == "conmon" || name.starts_with("containerd-shim-") {
        return Of::Foreign(Error::new(format!(
            "called as {name}, but this version does not implement that contract; use the real {name}"
        )));
    }
    match args.next() {
        Some(role) if role == REAPER => Of::Keeper(reap(args)),
        Some(role) if role == MONITOR => Of::Keeper(watch(args)),
        _ => Of::Cli,
    }
}

fn reap(args: impl Iterator<Item = OsString>) -> Result<()> {
    reaper::run(&Orders::from_args(args)?)
}

fn watch(args: impl Iterator<Item = OsString>) -> Result<()> {
    let orders = MonitorOrders::from_args(args)?;
    let path: PathBuf = orders.dir.join("error");
    monitor::run(&orders).inspect_err(|error| {
        let text = format!("monitor: {error}\n");
        // Without this file nobody would learn why the log stands still.
        let _ = container::write_atomically(&path, text.as_bytes());
    })
}
