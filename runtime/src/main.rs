//! Parses the arguments, dispatches, reports one error chain, maps the exit code.

use clap::{CommandFactory as _, FromArgMatches as _};
use runtime::cli::{Cli, Verb, normalise};
use runtime::dispatch;
use std::path::Path;
use std::process::ExitCode;

/// runc's exit code for an `exec` that fails; every other failure is 1.
const EXEC_FAILED: u8 = 255;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let program = args.first().and_then(|a| Path::new(a).file_name()?.to_str().map(String::from));
    if args[1..].iter().take(2).any(|a| a == "--version" || a == "-v") {
        return match dispatch::print_version(&program.unwrap_or_default()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let mut command = Cli::command();
    command.build();
    let args = normalise(&command, args);
    let cli = match command.try_get_matches_from(args).and_then(|m| Cli::from_arg_matches(&m)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout and is no failure; the rest goes to stderr.
            let code = if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            drop(error.print());
            return code;
        }
    };
    let log = dispatch::log(&cli);
    let failure = if matches!(cli.verb, Verb::Exec(_)) { EXEC_FAILED } else { 1 };
    match dispatch::run(cli, &log) {
        Ok(code) => ExitCode::from(code as u8),
        Err(error) => {
            log.error(&error);
            ExitCode::from(failure)
        }
    }
}
