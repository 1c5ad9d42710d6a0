//! `buildtool completions`: a script by which a shell completes our command line.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::error::Result;

/// Writes the script, for the name by which we were called.
pub fn run(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), program_name(), &mut script);
    Ok(imgtool::output::print(&String::from_utf8_lossy(&script))?)
}

/// The name by which we were called, so that an installation under a prefix completes too.
pub(super) fn program_name() -> String {
    let called = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = called.as_deref().and_then(|path| path.file_name()?.to_str().map(str::to_owned));
    name.filter(|name| name.ends_with("buildtool")).unwrap_or_else(|| "buildtool".into())
}
