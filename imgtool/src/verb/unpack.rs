//! `imgtool unpack`: an image as a bundle.

use std::path::PathBuf;

use crate::bundle::settings::Settings;
use crate::bundle::{self, Request};
use crate::cli::Globals;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::{Context, Result};

/// Arguments of `unpack`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Make a full copy of the root file system instead of an overlay of shared layers
    #[arg(long)]
    copy: bool,
    /// Which image of a multi-platform index [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Settings of the container.
    #[command(flatten, next_help_heading = "Settings, as of docker run")]
    settings: Settings,
    /// The image, by name or digest
    image: String,
    /// The directory to make; it may exist if it is empty
    bundle: PathBuf,
    /// Command and arguments, instead of the image's own
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Makes the bundle. If it fails, nothing is left.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let store = globals.open_store()?;
    let (_, descriptor) = store.find(&args.image)?;
    let platform = args.platform.unwrap_or_else(Platform::host);
    let image = store.image(&descriptor, &platform)?;
    // `--` before the command is for those who are used to it.
    let command = match args.command.first().map(String::as_str) {
        Some("--") => &args.command[1..],
        _ => &args.command[..],
    };
    bundle::unpack(&Request {
        store: &store,
        image: &image,
        name: &args.image,
        bundle: &args.bundle,
        settings: &args.settings,
        command,
        copy: args.copy,
        progress: &Progress::on_terminal(globals.quiet),
        notices: &Progress::new(globals.quiet),
    })
    .wrap(|| format!("unpack {}", args.image))
}
