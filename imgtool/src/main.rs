//! Parses the arguments, dispatches, reports one error chain, maps the exit code.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use imgtool::cli::Cli;
use imgtool::error::Kind;

fn main() -> ExitCode {
    let error = match imgtool::cli::run(Cli::parse()) {
        Ok(code) => return code,
        Err(error) => error,
    };
    match error.kind() {
        Kind::StdoutClosed => ExitCode::SUCCESS,
        kind => {
            // Nothing is left to be done about a standard error that is gone.
            drop(writeln!(std::io::stderr(), "imgtool: {error}"));
            ExitCode::from(if kind == Kind::Usage { 2 } else { 1 })
        }
    }
}
