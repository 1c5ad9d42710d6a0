//! `imgtool flatten`: an image of one layer.

use crate::cli::Globals;
use crate::compression::Compression;
use crate::verb::target::Target;
use crate::{Result, edit};

/// Arguments of `flatten`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to make of which image.
    #[command(flatten)]
    target: Target,
    /// How to compress the layer
    #[arg(long, value_enum, value_name = "HOW", default_value = "none")]
    compress: Compression,
}

/// Makes the image and prints its digest.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    args.target.make(globals, "flatten", |store, image| edit::flatten(store, image, args.compress))
}
