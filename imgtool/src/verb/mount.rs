//! `imgtool mount`: mounts a bundle's root file system again.

use std::path::PathBuf;

use crate::{Result, bundle};

/// Arguments of `mount`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle
    bundle: PathBuf,
}

/// Mounts it, unless it is mounted or is a copy.
pub fn run(args: Args) -> Result<()> {
    bundle::mount(&args.bundle)
}
