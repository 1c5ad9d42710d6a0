//! Parses the arguments, dispatches, reports one error chain, maps the exit code.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use buildtool::cli::{Cli, Verb};
use buildtool::error::{Error, Result};
use buildtool::sandbox::{self, Role};
use buildtool::verb;
use clap::Parser;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => report(&error),
    }
}

fn run() -> Result<ExitCode> {
    let role = sandbox::role();
    if role == Role::Launcher {
        return Err(sandbox::launch());
    }
    let cli = Cli::parse();
    match cli.verb {
        Verb::Build(_) if role == Role::Watcher => return sandbox::watch(),
        Verb::Build(args) => verb::build::run(&args, cli.store.as_deref())?,
        Verb::Completions { shell } => verb::completions::run(shell)?,
        Verb::Man { dir } => verb::man::run(&dir)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn report(error: &Error) -> ExitCode {
    if !error.is_silent() {
        // Nothing is left to be done about a standard error that is gone.
        drop(writeln!(std::io::stderr(), "buildtool: {error}"));
    }
    ExitCode::from(error.exit_code())
}
