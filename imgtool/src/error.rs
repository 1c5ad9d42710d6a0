//! The one error of this crate: a chain of messages, from intent to cause.
//!
//! Each caller adds what it was about to do with [`Context::wrap`]; `main` prints the chain once,
//! on one line. A [`Kind`] exists only where a caller decides by it.

use std::fmt;
use std::io;

/// What a caller may want to decide by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anything that nobody decides by.
    Other,
    /// The named image, blob or file does not exist.
    NotFound,
    /// The command line asks for something that cannot be: exit code 2.
    Usage,
    /// The far end of our standard output went away; the program ends quietly.
    StdoutClosed,
}

/// An error with its context, innermost message first.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    chain: Vec<String>,
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that nobody decides by.
    pub fn new(message: impl Into<String>) -> Error {
        Error::with_kind(Kind::Other, message)
    }

    /// Something named does not exist.
    pub fn not_found(message: impl Into<String>) -> Error {
        Error::with_kind(Kind::NotFound, message)
    }

    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Error {
        Error::with_kind(Kind::Usage, message)
    }

    /// An error of the given kind.
    pub fn with_kind(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, chain: vec![message.into()] }
    }

    /// Adds what was intended when this happened.
    #[must_use]
    pub fn wrap(mut self, intent: impl Into<String>) -> Error {
        self.chain.push(intent.into());
        self
    }

    /// What a caller may decide by.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, message) in self.chain.iter().rev().enumerate() {
            if i > 0 {
                f.write_str(": ")?;
            }
            write_one_line(f, message)?;
        }
        Ok(())
    }
}

/// Writes `message` without its control characters, which come from hostile names: they must not
/// reach a terminal or split the line.
pub fn write_one_line(f: &mut fmt::Formatter<'_>, message: &str) -> fmt::Result {
    use fmt::Write as _;
    message.chars().try_for_each(|c| {
        if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) }
    })
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Error {
        match e.get_ref().is_some_and(|inner| inner.is::<Error>()) {
            true => *e.into_inner().expect("checked").downcast::<Error>().expect("checked"),
            false => {
                let text = e.to_string();
                let text = text.split(" (os error").next().unwrap_or(&text);
                match e.kind() {
                    io::ErrorKind::NotFound => Error::not_found(text),
                    _ => Error::new(text),
                }
            }
        }
    }
}

impl From<Error> for io::Error {
    /// Carries the error through `Read` and `Write`; converting back yields the same error.
    fn from(e: Error) -> io::Error {
        io::Error::other(e)
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(e: rustix::io::Errno) -> Error {
        io::Error::from(e).into()
    }
}

impl From<serde_json::Error> for Error {
    fn from(e: serde_json::Error) -> Error {
        Error::new(e.to_string())
    }
}

/// Adds intent to the error of a result.
pub trait Context<T> {
    /// Adds what was intended; the closure runs only on failure.
    fn wrap<S: Into<String>>(self, intent: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn wrap<S: Into<String>>(self, intent: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.into().wrap(intent()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_reads_from_intent_to_cause() {
        let e = Error::not_found("ENOENT").wrap("open x").wrap("load");
        assert_eq!(e.to_string(), "load: open x: ENOENT");
        assert_eq!(e.kind(), Kind::NotFound);
    }

    #[test]
    fn survives_a_trip_through_io() {
        let e: Error = io::Error::from(Error::usage("a").wrap("b")).into();
        assert_eq!((e.kind(), e.to_string()), (Kind::Usage, "b: a".into()));
    }

    #[test]
    fn stays_on_one_line() {
        assert_eq!(Error::new("a\nb\x1b[1m").to_string(), "a\\nb\\u{1b}[1m");
    }
}
