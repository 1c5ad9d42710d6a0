//! The crate's one error type: what failed, on what, and why, outermost intent first.

use std::fmt;

/// What a caller may need to tell apart; everything else is [`Kind::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No special handling anywhere.
    Other,
    /// No container of that id exists (`delete --force` succeeds on it).
    NotFound,
    /// A container of that id exists (`create` then looks whether it is one that was made whole).
    Exists,
    /// The state of a container is there, but makes no sense (`delete --force` removes it).
    Corrupt,
    /// The caller's arguments are wrong (exit code 2 is not used: runc answers 1).
    Usage,
    /// A system call failed with this errno.
    Errno(i32),
}

/// A chain of messages, innermost first; rendered outermost first, joined by `: `.
#[derive(Debug, Clone)]
pub struct Error {
    chain: Vec<String>,
    kind: Kind,
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that no caller tells apart.
    pub fn new(message: impl Into<String>) -> Self {
        Self::of(Kind::Other, message)
    }

    /// An error of a kind that some caller matches on.
    pub fn of(kind: Kind, message: impl Into<String>) -> Self {
        Self { chain: vec![message.into()], kind }
    }

    /// What a caller may match on.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The errno of the system call at the root of the chain, if one is.
    pub fn errno(&self) -> Option<i32> {
        match self.kind {
            Kind::Errno(errno) => Some(errno),
            _ => None,
        }
    }

    /// Adds the intent of the caller in front.
    #[must_use]
    pub fn wrap(mut self, intent: impl Into<String>) -> Self {
        self.chain.push(intent.into());
        self
    }

    /// The same, after an attempt to undo what was done until then: if that failed, too, it is told.
    #[must_use]
    pub fn undone(self, undoing: Result<()>) -> Self {
        match undoing {
            Ok(()) => self,
            Err(left) => self.leaving(&[left]),
        }
    }

    /// Adds in front what this failure leaves behind, since it could not be taken away.
    #[must_use]
    pub fn leaving(self, left: &[Self]) -> Self {
        if left.is_empty() {
            return self;
        }
        let all: Vec<String> = left.iter().map(Self::to_string).collect();
        self.wrap(format!("(and left behind: {})", all.join("; ")))
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

/// Control characters come from hostile names and configurations; they must not reach a terminal
/// or split the line.
fn write_one_line(f: &mut fmt::Formatter<'_>, message: &str) -> fmt::Result {
    use fmt::Write as _;
    message.chars().try_for_each(|c| match c.is_control() {
        true => write!(f, "{}", c.escape_default()),
        false => f.write_char(c),
    })
}

impl std::error::Error for Error {}

/// Adds intent to a failing result.
pub trait Context<T> {
    /// Adds `intent` in front of the error; the closure runs only on failure.
    fn wrap<S: Into<String>>(self, intent: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn wrap<S: Into<String>>(self, intent: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.wrap(intent()))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn wrap<S: Into<String>>(self, intent: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| {
            let kind = e.raw_os_error().map_or(Kind::Other, Kind::Errno);
            let cause = match e.raw_os_error() {
                Some(errno) => crate::errno::describe(errno),
                None => e.to_string(),
            };
            Error::of(kind, cause).wrap(intent())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_outermost_first() {
        let e = Error::new("mkdir(\"x\"): permission denied (EACCES)").wrap("create state");
        assert_eq!(e.to_string(), "create state: mkdir(\"x\"): permission denied (EACCES)");
    }

    #[test]
    fn what_is_left_behind_is_told() {
        let e = Error::new("it broke").leaving(&[]);
        assert_eq!(e.to_string(), "it broke");
        let e = e.leaving(&[Error::new("a"), Error::new("b")]);
        assert_eq!(e.to_string(), "(and left behind: a; b): it broke");
    }

    #[test]
    fn hostile_names_stay_on_the_line() {
        assert_eq!(Error::new("open a\x1b[2J\nb").to_string(), "open a\\u{1b}[2J\\nb");
    }

    #[test]
    fn io_errors_keep_their_errno() {
        let r: std::io::Result<()> = Err(std::io::Error::from_raw_os_error(libc::ENOENT));
        let e = r.wrap(|| "open /nowhere").unwrap_err();
        assert_eq!(e.errno(), Some(libc::ENOENT));
        assert_eq!(e.to_string(), "open /nowhere: no such file or directory (ENOENT)");
    }
}
