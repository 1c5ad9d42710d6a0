//! Parses the arguments, dispatches, reports one error chain, maps the exit code.

fn main() {}
