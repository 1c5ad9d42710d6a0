//! `imgtool tags`: the tags of a repository in a registry.

use serde_json::json;

use crate::cli::Globals;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::{Options, Remote};
use crate::{Context, Error, Result, output};

/// Arguments of `tags`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write a JSON object, as skopeo list-tags does
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: Options,
    /// The repository: [docker://][HOST[:PORT]/]NAME
    repository: String,
}

/// Lists the tags in the registry's order.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let name = remote_name(&args.repository)?;
    let progress = Progress::new(globals.quiet);
    let tags = Remote::reading(&name, &args.registry, &progress)
        .and_then(|remote| remote.tags())
        .wrap(|| format!("tags of {}", name.repository()))?;
    output::print(&match args.json {
        true => {
            let json = json!({"Repository": name.repository(), "Tags": tags});
            serde_json::to_string_pretty(&json)? + "\n"
        }
        false => output::lines(&tags),
    })
}

/// A name in a registry, with or without the transport that skopeo wants.
pub(super) fn remote_name(text: &str) -> Result<Reference> {
    let name = text.strip_prefix("docker://").unwrap_or(text);
    Reference::parse(name).map_err(|e| Error::usage(e.to_string()))
}
