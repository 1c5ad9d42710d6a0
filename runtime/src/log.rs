//! The log that callers parse: nothing on success, one entry on failure.
//!
//! With `--log` an error is also printed on stderr in plain text, as runc does; engines show
//! either. Debug entries appear under `--debug` alone.

use crate::error::{Context, Error, Result};
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `time="…" level=… msg="…"`.
    Text,
    /// One JSON object a line: `level`, `msg`, `time`.
    Json,
}

/// How bad an entry is; in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It ends the program.
    Error,
    /// It does not, but the specification wants it said.
    Warning,
    /// For developers and curious users.
    Debug,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Debug => "debug",
        }
    }

    /// The priority by which syslog(3) and the journal know it.
    fn priority(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warning => 4,
            Self::Debug => 7,
        }
    }
}

/// Where entries go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Stderr,
    File(PathBuf),
    /// The journal, under this identifier.
    Journal(String),
    /// syslog, under this identifier.
    Syslog(String),
}

impl Target {
    fn of(log: Option<PathBuf>) -> Self {
        let Some(path) = log else { return Self::Stderr };
        let words = path.to_string_lossy().into_owned();
        match words.split_once(':') {
            Some(("journald", identifier)) => Self::Journal(identifier.into()),
            Some(("syslog", identifier)) => Self::Syslog(identifier.into()),
            Some(("file", path)) => Self::File(path.into()),
            _ => Self::File(path),
        }
    }
}

/// The log: where it goes, and what of it.
#[derive(Debug)]
pub struct Log {
    target: Target,
    format: Format,
    level: Level,
}

impl Log {
    /// A log as `--log` names it (`FILE`, `journald:IDENTIFIER`, `syslog:IDENTIFIER`), or on stderr.
    pub fn new(log: Option<PathBuf>, format: Format, level: Level) -> Self {
        Self { target: Target::of(log), format, level }
    }

    /// Reports the error that ends the program.
    pub fn error(&self, error: &Error) {
        let text = error.to_string();
        match (&self.target, self.format) {
            (Target::Stderr, Format::Json) => {
                eprintln!("{}", self.render(Level::Error, &text));
                return;
            }
            (Target::Stderr, Format::Text) => {}
            _ => self.entry(Level::Error, &text),
        }
        eprintln!("runtime: {text}");
    }

    /// Says something that does not end the program, and that the specification wants said
    /// (a poststart or poststop hook that failed).
    pub fn warn(&self, text: &str) {
        self.entry(Level::Warning, text);
    }

    /// Tells a developer or a curious user what happens.
    pub fn debug(&self, text: &str) {
        self.entry(Level::Debug, text);
    }

    fn entry(&self, level: Level, text: &str) {
        if level > self.level {
            return;
        }
        let done = match &self.target {
            Target::Stderr => {
                eprintln!("{}", self.render(level, text));
                Ok(())
            }
            Target::File(path) => self.append(path, level, text),
            Target::Journal(identifier) => {
                send("/run/systemd/journal/socket", &journal_entry(identifier, level, text))
            }
            Target::Syslog(identifier) => {
                // The facility is LOG_DAEMON (3).
                let line = format!("<{}>{identifier}: {text}", 3 << 3 | level.priority());
                send("/dev/log", line.as_bytes())
            }
        };
        if let Err(why) = done {
            eprintln!("runtime: {why}");
        }
    }

    fn append(&self, path: &Path, level: Level, text: &str) -> Result<()> {
        let line = format!("{}\n", self.render(level, text));
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .wrap(|| format!("--log: write {}", path.display()))
    }

    fn render(&self, level: Level, text: &str) -> String {
        let (time, level) = (now(), level.name());
        match self.format {
            Format::Json => {
                serde_json::json!({ "level": level, "msg": text, "time": time }).to_string()
            }
            Format::Text => format!("time={time:?} level={level} msg={text:?}"),
        }
    }
}

fn send(socket: &str, datagram: &[u8]) -> Result<()> {
    UnixDatagram::unbound()
        .and_then(|from| from.send_to(datagram, socket))
        .map(drop)
        .wrap(|| format!("--log: send to {socket}"))
}

/// An entry in the journal's own protocol; a text may have several lines, so its length goes first.
fn journal_entry(identifier: &str, level: Level, text: &str) -> Vec<u8> {
    let mut entry =
        format!("SYSLOG_IDENTIFIER={identifier}\nPRIORITY={}\nMESSAGE\n", level.priority())
            .into_bytes();
    entry.extend((text.len() as u64).to_le_bytes());
    entry.extend(text.as_bytes());
    entry.push(b'\n');
    entry
}

/// The time in UTC as RFC 3339 with nanoseconds, as `created` in the state has it.
pub fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_one_length() {
        let now = now();
        assert_eq!(now.len(), "2026-01-01T00:00:00.000000000Z".len(), "{now}");
    }

    #[test]
    fn targets_are_told_by_their_prefix() {
        let of = |text: &str| Target::of(Some(text.into()));
        assert_eq!(of("journald:web"), Target::Journal("web".into()));
        assert_eq!(of("syslog:web"), Target::Syslog("web".into()));
        assert_eq!(of("/a:b"), Target::File("/a:b".into()));
    }

    #[test]
    fn json_entries_are_one_object() {
        let log = Log::new(None, Format::Json, Level::Warning);
        let line = log.render(Level::Error, "a \"b\"\n");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["msg"], "a \"b\"\n");
        assert_eq!(value["level"], "error");
    }
}
