//! `imgtool catalog`: the repositories of a registry.

use serde_json::json;

use crate::cli::Globals;
use crate::progress::Progress;
use crate::registry::{self, Options};
use crate::{Context, Result, output};

/// Arguments of `catalog`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: Options,
    /// The registry: HOST[:PORT]
    host: String,
}

/// Lists the repositories that the registry lets us see, in its order.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let host = registry::host(&args.host)?;
    let progress = Progress::new(globals.quiet);
    let names = registry::catalog(&host, &args.registry, &progress)
        .wrap(|| format!("catalog of {host}"))?;
    output::print(&match args.json {
        true => {
            serde_json::to_string_pretty(&json!({"Registry": host, "Repositories": names}))? + "\n"
        }
        false => output::lines(&names),
    })
}
