//! Completions and manual pages, from the definitions that parse the command line.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::error::{Context, Error, Result};

/// Prints version and commit, one per line.
///
/// # Errors
/// None: a closed pipe is the reader's own choice.
pub fn version() -> Result<u8> {
    let commit = option_env!("DAVIT_COMMIT").unwrap_or("unknown");
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(std::io::stdout(), "shim version {version}\ncommit: {commit}");
    Ok(0)
}

/// Writes a shell's completion script to stdout.
///
/// # Errors
/// When the shell is unknown.
pub fn completions(shell: &str) -> Result<u8> {
    let shell = match shell {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        other => return Err(Error::new(format!("shell {other:?}: not known"))),
    };
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = own_name();
    clap_complete::generate(shell, &mut command, name, &mut script);
    // A closed pipe is the reader's own choice.
    let _ = std::io::stdout().write_all(&script);
    Ok(0)
}

/// Writes shim.1 and one page for each verb into `dir`.
///
/// # Errors
/// Those of the file system.
pub fn man(dir: &Path) -> Result<u8> {
    clap_mangen::generate_to(Cli::command(), dir)
        .wrap_with(|| format!("write manual pages into {}", dir.display()))?;
    Ok(0)
}

/// The name that we were installed under: completions of davit-shim are for davit-shim.
fn own_name() -> String {
    let us = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&us).file_name().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "shim".to_owned())
}
