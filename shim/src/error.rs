//! The crate's one error type: a chain of intents around one cause, and the exit code
//! with which `shim run` must end because of it.

use std::fmt::{self, Write as _};

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Exit codes of failures, as docker and podman use them (docs/exit-codes.md).
pub mod code {
    /// A verb other than run, start -a and attach failed.
    pub const FAILURE: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// `run`, `start -a` and `attach`: the failure is ours (or the runtime's), not the container's.
    pub const OURS: u8 = 125;
    /// `run`: the command exists but cannot be executed.
    pub const NOT_EXECUTABLE: u8 = 126;
    /// `run`: the command does not exist.
    pub const NOT_FOUND: u8 = 127;
}

/// What failed, from the outermost intent to the cause.
#[derive(Debug)]
pub struct Error {
    chain: Vec<String>,
    code: Option<u8>,
    reported: bool,
}

impl Error {
    /// An error whose cause is `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self { chain: vec![message.into()], code: None, reported: false }
    }

    /// An error that the program which failed has already told the user on our stderr.
    pub fn reported(message: impl Into<String>) -> Self {
        Self { reported: true, ..Self::new(message) }
    }

    /// Whether the user has been told.
    pub fn is_reported(&self) -> bool {
        self.reported
    }

    /// The same error, with what was being attempted in front.
    #[must_use]
    pub fn wrap(mut self, intent: impl Into<String>) -> Self {
        self.chain.push(intent.into());
        self
    }

    /// The same error, which ends `shim run` with `code` instead of 125.
    #[must_use]
    pub fn with_code(mut self, code: u8) -> Self {
        self.code = Some(code);
        self
    }

    /// The exit code that the error asks for, if it asks for one.
    pub fn code(&self) -> Option<u8> {
        self.code
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, part) in self.chain.iter().rev().enumerate() {
            if n > 0 {
                f.write_str(": ")?;
            }
            // One line, whatever a runtime or a file system put into its text.
            let part = part.trim_end().replace('\n', "; ");
            part.chars().try_for_each(|c| match c.is_control() {
                true => write!(f, "{}", c.escape_default()),
                false => f.write_char(c),
            })?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Adds intent to the failures of system calls and of this crate.
pub trait Context<T> {
    /// Puts `intent` in front of the error.
    fn wrap(self, intent: impl Into<String>) -> Result<T>;
    /// The same, for intents that cost something to write.
    fn wrap_with<S: Into<String>>(self, intent: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn wrap(self, intent: impl Into<String>) -> Result<T> {
        self.map_err(|error| error.into().wrap(intent))
    }

    fn wrap_with<S: Into<String>>(self, intent: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.into().wrap(intent()))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(describe(&error))
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        std::io::Error::from(errno).into()
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// `No such file or directory (os error 2)` without the number, which says nothing more.
fn describe(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_reads_from_intent_to_cause_on_one_line() {
        let failed: Result<(), rustix::io::Errno> = Err(rustix::io::Errno::NOENT);
        let error = failed.wrap("open(\"/x\")").wrap("read the\nbundle");
        assert_eq!(
            error.unwrap_err().to_string(),
            "read the; bundle: open(\"/x\"): No such file or directory"
        );
    }
}
