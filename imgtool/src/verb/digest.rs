//! `imgtool digest`: what a name stands for in a registry.

use crate::cli::Globals;
use crate::digest::Digest;
use crate::progress::Progress;
use crate::registry::{Options, Remote};
use crate::verb::tags::remote_name;
use crate::{Context, Result, output};

/// Arguments of `digest`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    registry: Options,
    /// The image: [docker://][HOST[:PORT]/]NAME[:TAG]
    image: String,
}

/// Says the digest of the manifest or index, without fetching it if the registry tells.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let name = remote_name(&args.image)?;
    let progress = Progress::new(globals.quiet);
    let digest = || -> Result<Digest> {
        let remote = Remote::reading(&name, &args.registry, &progress)?;
        match remote.head(&name)? {
            Some(digest) => Ok(digest),
            None => Ok(remote.named(&name)?.0.digest),
        }
    };
    let digest = digest().wrap(|| format!("digest of {}", name.familiar()))?;
    output::print(&format!("{digest}\n"))
}
