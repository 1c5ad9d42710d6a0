//! `imgtool completions`: a script by which a shell completes our command line.

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::Result;
use crate::cli::Cli;

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: KnownShell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KnownShell {
    Bash,
    Zsh,
    Fish,
}

/// Writes the script, for the name by which we were called.
pub fn run(args: Args) -> Result<()> {
    let shell = match args.shell {
        KnownShell::Bash => Shell::Bash,
        KnownShell::Zsh => Shell::Zsh,
        KnownShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), program_name(), &mut script);
    crate::output::print(&String::from_utf8_lossy(&script))
}

/// The name by which we were called, so that an installation under a prefix completes too.
pub(super) fn program_name() -> String {
    let called = std::env::args_os().next().map(std::path::PathBuf::from);
    let name =
        called.as_deref().and_then(|p| p.file_name()).map(|n| n.to_string_lossy().into_owned());
    name.filter(|n| n.ends_with("imgtool")).unwrap_or_else(|| "imgtool".into())
}
