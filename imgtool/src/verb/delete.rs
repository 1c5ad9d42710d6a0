//! `imgtool delete`: an image or a tag from a registry.

use crate::cli::Globals;
use crate::progress::Progress;
use crate::registry::{Options, Remote};
use crate::verb::tags::remote_name;
use crate::{Context, Error, Result};

/// Arguments of `delete`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    registry: Options,
    /// The image by its digest, which takes all of its tags away, or a tag alone:
    /// [docker://][HOST[:PORT]/]NAME[:TAG|@DIGEST]
    #[arg(required = true)]
    images: Vec<String>,
}

/// Deletes each; the first failure ends it.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let progress = Progress::new(globals.quiet);
    for image in &args.images {
        let name = remote_name(image)?;
        if name.digest().is_none() && !image.ends_with(&format!(":{}", name.target())) {
            return Err(Error::usage(format!("\"{image}\": say which tag or digest to delete")));
        }
        Remote::deleting(&name, &args.registry, &progress)
            .and_then(|remote| remote.delete(&name))
            .wrap(|| format!("delete {}", name.familiar()))?;
    }
    Ok(())
}
