//! `imgtool pull`: an image from a registry.

use crate::cli::Globals;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::{self, Jobs, Options, PullOptions};
use crate::{Context, Result};

/// Arguments of `pull`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which image of a multi-platform index [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// All images of a multi-platform index
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    #[command(flatten)]
    registry: Options,
    #[command(flatten)]
    jobs: Jobs,
    /// The image: [HOST[:PORT]/]NAME[:TAG][@DIGEST]
    image: String,
}

/// Pulls the image and says its name with its digest.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let reference = Reference::parse(&args.image)?;
    let store = globals.open_store()?;
    let what = PullOptions {
        platform: args.platform,
        all_platforms: args.all_platforms,
        jobs: args.jobs.count(),
    };
    let progress = Progress::new(globals.quiet);
    let descriptor = registry::pull(&store, &reference, &what, &args.registry, &progress)
        .wrap(|| format!("pull {}", reference.familiar()))?;
    crate::output::print(&format!("{}\n", super::push::at_digest(&reference, &descriptor.digest)))
}
