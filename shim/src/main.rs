//! Parses the arguments, dispatches, reports one error chain, maps the exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use shim::cli::Cli;
use shim::error::{Result, code};
use shim::{dispatch, personality};

fn main() -> ExitCode {
    let (code, result) = match personality::of(std::env::args_os()) {
        personality::Of::Keeper(result) => (code::FAILURE, result.map(|()| 0)),
        personality::Of::Foreign(error) => (code::FAILURE, Err(error)),
        personality::Of::Cli => command_line(),
    };
    let error = match result {
        Ok(code) => return ExitCode::from(code),
        Err(error) => error,
    };
    if !error.is_reported() {
        let _ = writeln!(std::io::stderr(), "shim: {error}");
    }
    ExitCode::from(error.code().unwrap_or(code))
}

/// The exit code of failures of this verb, and what the verb returned.
fn command_line() -> (u8, Result<u8>) {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let wrong = error.use_stderr();
            let _ = error.print();
            return (code::USAGE, Ok(if wrong { usage_code() } else { 0 }));
        }
    };
    if cli.version {
        return (code::FAILURE, shim::generate::version());
    }
    match cli.verb {
        Some(verb) => (verb.failure_code(), dispatch(&cli.global, verb)),
        None => {
            let _ = Cli::command().print_help();
            (code::USAGE, Ok(code::USAGE))
        }
    }
}

/// A container run by `run` may itself exit with 2, so wrong arguments of `run` are 125.
fn usage_code() -> u8 {
    let verb = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    if verb.as_deref() == Some("run") { code::OURS } else { code::USAGE }
}
