//! `imgtool man`: manual pages from the same definitions as the command line.

use std::path::PathBuf;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::verb::completions::program_name;
use crate::{Context, Result};

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to write the pages, which must exist
    dir: PathBuf,
}

/// Writes one page for the program and one for each verb.
pub fn run(args: Args) -> Result<()> {
    // clap wants names that live as long as the program does.
    let name: &'static str = program_name().leak();
    clap_mangen::generate_to(Cli::command().name(name), &args.dir)
        .wrap(|| format!("write manual pages into {}", args.dir.display()))
}
