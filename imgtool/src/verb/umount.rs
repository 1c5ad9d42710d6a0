//! `imgtool umount`: unmounts a bundle's root file system.

use std::path::PathBuf;

use crate::{Result, bundle};

/// Arguments of `umount`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle
    bundle: PathBuf,
}

/// Unmounts it, if it is mounted.
pub fn run(args: Args) -> Result<()> {
    bundle::umount(&args.bundle)
}
