//! `imgtool diff`: a bundle's changes as a layer.

use std::path::PathBuf;

use crate::Result;
use crate::bundle::{self, Metadata};
use crate::output::Stdout;

/// Arguments of `diff`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle
    bundle: PathBuf,
}

/// Writes the layer, uncompressed, to standard output, unless that is a terminal.
pub fn run(args: Args) -> Result<()> {
    let metadata = Metadata::read(&args.bundle)?;
    bundle::diff(&args.bundle, &metadata, Stdout::for_archive()?)?.finish()
}
