//! The crate's one error: a chain of messages, outermost first.
//!
//! Whoever notices a failure says what failed; each caller that knows more about the intent
//! wraps it. `main` prints the chain once, on one line. Nobody logs an error and returns it.

use std::fmt;

/// What ends the process, and how (docs/exit-codes.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Failure,
    Usage,
    Interrupted(u8),
    /// Whoever read our stdout went away, which is no failure (`| head`).
    StdoutClosed,
}

/// A failed build or a refused command line.
#[derive(Debug)]
pub struct Error {
    chain: Vec<String>,
    kind: Kind,
}

/// The crate's result type.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure at its origin: what failed, on what, and why.
    pub fn new(message: impl Into<String>) -> Self {
        Self { chain: vec![message.into()], kind: Kind::Failure }
    }

    /// A command line that asks for something that does not exist (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::new(message) }
    }

    /// The build was stopped by signal number `signal` (exit code 128 + `signal`).
    pub fn interrupted(signal: u8) -> Self {
        Self { kind: Kind::Interrupted(signal), ..Self::new("interrupted: nothing was written") }
    }

    /// Adds the caller's intent in front of the chain.
    #[must_use]
    pub fn wrap(mut self, intent: impl Into<String>) -> Self {
        self.chain.push(intent.into());
        self
    }

    /// Is there nothing to say about it?
    pub fn is_silent(&self) -> bool {
        self.kind == Kind::StdoutClosed
    }

    /// The process exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Failure => 1,
            Kind::Usage => 2,
            Kind::Interrupted(signal) => 128 + signal,
            Kind::StdoutClosed => 0,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, message) in self.chain.iter().rev().enumerate() {
            if i > 0 {
                f.write_str(": ")?;
            }
            imgtool::error::write_one_line(f, message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        imgtool::Error::from(error).into()
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        std::io::Error::from(errno).into()
    }
}

impl From<nix::errno::Errno> for Error {
    fn from(errno: nix::errno::Errno) -> Self {
        std::io::Error::from(errno).into()
    }
}

impl From<imgtool::Error> for Error {
    fn from(error: imgtool::Error) -> Self {
        let kind = match error.kind() {
            imgtool::error::Kind::StdoutClosed => Kind::StdoutClosed,
            _ => Kind::Failure,
        };
        Self { kind, ..Self::new(error.to_string()) }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// Adds intent to the error of a result.
pub trait Context<T> {
    /// Wraps an error in the message that `intent` makes.
    fn wrap<M: Into<String>>(self, intent: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn wrap<M: Into<String>>(self, intent: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|error| error.into().wrap(intent()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_on_the_line() {
        let error = Error::new("no such file").wrap("COPY a\x1b[2J\nb");
        assert_eq!(error.to_string(), "COPY a\\u{1b}[2J\\nb: no such file");
    }
}
