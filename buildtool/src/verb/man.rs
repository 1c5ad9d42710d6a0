//! `buildtool man`: manual pages from the same definitions as the command line.

use std::path::Path;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::error::{Context, Result};
use crate::verb::completions::program_name;

/// Writes one page for the program and one for each verb into `directory`.
pub fn run(directory: &Path) -> Result<()> {
    // clap wants names that live as long as the program does.
    let name: &'static str = program_name().leak();
    let written = clap_mangen::generate_to(Cli::command().name(name), directory);
    written.wrap(|| format!("write manual pages into {}", directory.display()))
}
