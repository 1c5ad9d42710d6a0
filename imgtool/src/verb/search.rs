//! `imgtool search`: images by words, where a registry offers it.

use serde_json::json;

use crate::cli::Globals;
use crate::progress::Progress;
use crate::registry::{self, Found, Options};
use crate::{Context, Error, Result, output};

/// Arguments of `search`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write a JSON list
    #[arg(long)]
    json: bool,
    /// How many to show at most
    #[arg(long, value_name = "N", default_value = "25", value_parser = clap::value_parser!(u16).range(1..=100))]
    limit: u16,
    #[command(flatten)]
    registry: Options,
    /// What to look for: [HOST[:PORT]/]WORDS, in docker.io if no host is named
    words: String,
}

/// Shows what the registry finds, best first.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let (host, words) = match args.words.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (registry::host(first)?, rest)
        }
        _ => ("docker.io".to_owned(), &*args.words),
    };
    if words.is_empty() {
        return Err(Error::usage("nothing to look for"));
    }
    let progress = Progress::new(globals.quiet);
    let found = registry::search(&host, words, args.limit, &args.registry, &progress)
        .wrap(|| format!("search {host}"))?;
    if args.json {
        let list: Vec<_> = found
            .iter()
            .map(|f| {
                json!({"name": f.name, "description": f.description, "stars": f.stars,
                    "official": f.official})
            })
            .collect();
        return output::print(&(serde_json::to_string_pretty(&list)? + "\n"));
    }
    let width = found.iter().map(|f| f.name.chars().count()).max().unwrap_or(0);
    let line = |f: &Found| {
        let official = if f.official { "official" } else { "" };
        let start: String = f.description.chars().take(60).collect();
        format!("{:width$}  {:>6}  {official:8}  {start}", f.name, f.stars).trim_end().to_owned()
    };
    output::print(&output::lines(&found.iter().map(line).collect::<Vec<_>>()))
}
