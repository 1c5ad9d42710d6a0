//! The log that callers parse: nothing on success, one entry on failure.
//!
//! With `--log FILE` an error is also printed on stderr in plain text, as runc does; engines show
//! either. Debug entries appear under `--debug` alone.

use crate::error::{Context, Error, Result};
use std::io::Write as _;
use std::path::PathBuf;

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `time="…" level=… msg="…"`.
    Text,
    /// One JSON object a line: `level`, `msg`, `time`.
    Json,
}

/// Where entries go.
#[derive(Debug)]
pub struct Log {
    file: Option<PathBuf>,
    format: Format,
    debug: bool,
}

impl Log {
    /// A log into `file`, or on stderr.
    pub fn new(file: Option<PathBuf>, format: Format, debug: bool) -> Self {
        Self { file, format, debug }
    }

    /// Reports the error that ends the program.
    pub fn error(&self, error: &Error) {
        let text = error.to_string();
        let Some(_) = &self.file else {
            match self.format {
                Format::Json => eprintln!("{}", self.render("error", &text)),
                Format::Text => eprintln!("runtime: {text}"),
            }
            return;
        };
        if let Err(why) = self.append("error", &text) {
            eprintln!("runtime: {why}");
        }
        eprintln!("runtime: {text}");
    }

    /// Says something that does not end the program, and that the specification wants said
    /// (a poststart or poststop hook that failed).
    pub fn warn(&self, text: &str) {
        self.entry("warning", text);
    }

    /// Tells a developer or a curious user what happens.
    pub fn debug(&self, text: &str) {
        if self.debug {
            self.entry("debug", text);
        }
    }

    fn entry(&self, level: &str, text: &str) {
        if self.file.is_none() {
            eprintln!("{}", self.render(level, text));
        } else if let Err(why) = self.append(level, text) {
            eprintln!("runtime: {why}");
        }
    }

    fn append(&self, level: &str, text: &str) -> Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        let line = format!("{}\n", self.render(level, text));
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .wrap(|| format!("--log: write {}", path.display()))
    }

    fn render(&self, level: &str, text: &str) -> String {
        let time = now();
        match self.format {
            Format::Json => {
                serde_json::json!({ "level": level, "msg": text, "time": time }).to_string()
            }
            Format::Text => format!("time={time:?} level={level} msg={text:?}"),
        }
    }
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
    fn json_entries_are_one_object() {
        let log = Log::new(None, Format::Json, false);
        let line = log.render("error", "a \"b\"\n");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["msg"], "a \"b\"\n");
        assert_eq!(value["level"], "error");
    }
}
