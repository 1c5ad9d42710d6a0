//! Parses the arguments, dispatches, reports one error chain, maps the exit code.

use clap::{CommandFactory as _, FromArgMatches as _};
use runtime::cli::{Cli, Verb, normalise};
use runtime::{dispatch, seal, usage};
use std::path::Path;
use std::process::ExitCode;

/// runc's exit code for an `exec` that fails; every other failure is 1.
const EXEC_FAILED: u8 = 255;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let program = args.first().and_then(|a| Path::new(a).file_name()?.to_str().map(String::from));
    let sealed = if seal::needed(&args) { Some(seal::ensure()) } else { None };
    let args = normalise(args);
    let cli =
        match Cli::command().try_get_matches_from(args).and_then(|m| Cli::from_arg_matches(&m)) {
            Ok(cli) => cli,
            Err(error) => return ExitCode::from(usage::report(&error)),
        };
    let log = dispatch::log(&cli);
    let failure = if matches!(cli.verb, Some(Verb::Exec(_))) { EXEC_FAILED } else { 1 };
    let done = match sealed {
        Some(Err(error)) => Err(error),
        Some(Ok(how)) => {
            log.debug(&format!("running from a sealed copy ({how})"));
            dispatch::run(cli, &program.unwrap_or_default(), &log)
        }
        None => dispatch::run(cli, &program.unwrap_or_default(), &log),
    };
    match done {
        Ok(code) => ExitCode::from(code as u8),
        Err(error) => {
            log.error(&error);
            ExitCode::from(failure)
        }
    }
}
