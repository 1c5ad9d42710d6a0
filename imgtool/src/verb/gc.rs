//! `imgtool gc`: frees what no image uses.

use indicatif::DecimalBytes;

use crate::Result;
use crate::cli::Globals;

/// Arguments of `gc`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Collects, waiting for others to finish with the store, and says what was freed.
pub fn run(_: Args, globals: &Globals) -> Result<()> {
    let collected = globals.open_store()?.collect(true)?.unwrap_or_default();
    let size = DecimalBytes(collected.bytes);
    crate::output::print(&format!("{} files removed, {size} freed\n", collected.files))
}
