//! A command line that cannot be parsed: what is said of it, and with which exit code.

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// runc's exit code for a verb that it does not know.
const UNKNOWN_VERB: u8 = 3;

/// Prints help to stdout, which is no failure, and anything else to stderr; returns the exit code.
pub fn report(error: &Error) -> u8 {
    // A closed stderr changes nothing about the exit code, which is all that is left to say.
    drop(error.print());
    if let Some(flag) = lacks_value(error) {
        // podman looks for these words to learn whether the flag exists.
        eprintln!("flag needs an argument: {flag}");
    }
    match error.kind() {
        _ if !error.use_stderr() => 0,
        ErrorKind::InvalidSubcommand => UNKNOWN_VERB,
        _ => 1,
    }
}

/// The flag that was given last and without its value.
fn lacks_value(error: &Error) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let missing = error.kind() == ErrorKind::InvalidValue
        && text(ContextKind::InvalidValue).is_none_or(|value| value.is_empty());
    let flag = text(ContextKind::InvalidArg).filter(|_| missing)?;
    flag.split(' ').next().map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser as _;

    fn refusal(line: &str) -> Error {
        Cli::try_parse_from(line.split(' ')).unwrap_err()
    }

    #[test]
    fn a_flag_without_its_value_is_told_from_a_wrong_value() {
        assert_eq!(lacks_value(&refusal("runtime create --bundle")), Some("--bundle".into()));
        assert_eq!(lacks_value(&refusal("runtime --log-format none list")), None);
    }
}
