//! `imgtool push`: an image to a registry.

use crate::cli::Globals;
use crate::digest::Digest;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::{self, Jobs, Options, Pieces, PushOptions, UploadOptions};
use crate::verb::tag::parse_name;
use crate::{Context, Error, Result};

/// Arguments of `push`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which image, if the store has not all of a multi-platform index [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Push uncompressed layers as they are, which keeps the digest of the manifest
    #[arg(long)]
    uncompressed: bool,
    #[command(flatten)]
    registry: Options,
    #[command(flatten)]
    jobs: Jobs,
    #[command(flatten)]
    pieces: Pieces,
    /// The image, by name or digest
    image: String,
    /// Where to push it: HOST[:PORT]/NAME[:TAG] [default: the image's own name]
    destination: Option<String>,
}

/// Pushes the image and says the name with the digest that it has in the registry.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let given = args.destination.as_deref().map(parse_name).transpose()?;
    let store = globals.open_store()?;
    let (name, descriptor) = store.find(&args.image)?;
    let to = given.or(name).ok_or_else(|| {
        Error::usage(format!("\"{}\" has no name; say where to push it", args.image))
    })?;
    let how = PushOptions {
        platform: args.platform.unwrap_or_else(Platform::host),
        compress: !args.uncompressed,
        uploads: UploadOptions::new(args.jobs, args.pieces),
    };
    let progress = Progress::new(globals.quiet);
    let pushed = registry::push(&store, &descriptor, &to, &how, &args.registry, &progress)
        .wrap(|| format!("push {}", to.familiar()))?;
    crate::output::print(&format!("{}\n", at_digest(&to, &pushed.digest)))
}

/// `NAME:TAG@DIGEST`.
pub(super) fn at_digest(name: &Reference, digest: &Digest) -> String {
    match name.digest() {
        Some(_) => name.to_string(),
        None => format!("{name}@{digest}"),
    }
}
