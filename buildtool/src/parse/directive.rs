//! Parser directives: `# key=value` comments at the very top of a Dockerfile.
//!
//! They are read until the first line that is anything else: an instruction, an empty line,
//! another comment, or a key which is not known. After that they are comments.

/// The directives of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// `# escape=`: the line continuation and escape character.
    pub escape: char,
    /// `# syntax=`: the front end asked for. It is shown in the log and never fetched: the
    /// language of this program is fixed.
    pub syntax: Option<String>,
    /// `# check=`: linting options, which no build result depends on.
    pub check: Option<String>,
}

impl Default for Directives {
    fn default() -> Self {
        Self { escape: '\\', syntax: None, check: None }
    }
}

/// Splits `# key = value`; `None` when `line` is not of that form.
fn key_value(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.strip_prefix('#')?.trim_start().split_once('=')?;
    let (key, value) = (key.trim_end(), value.trim());
    let named = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric());
    (named && !value.is_empty()).then(|| (key.to_ascii_lowercase(), value))
}

impl Directives {
    /// Takes `line` (left white space removed) as a directive. `Ok(false)` ends the directives.
    pub fn take(&mut self, line: &str, seen: &mut Vec<String>) -> Result<bool, String> {
        let Some((key, value)) = key_value(line) else {
            return Ok(false);
        };
        if !matches!(key.as_str(), "escape" | "syntax" | "check") {
            return Ok(false);
        }
        if seen.contains(&key) {
            return Err(format!("only one {key} parser directive can be used"));
        }
        match key.as_str() {
            "escape" => self.escape = escape(value)?,
            "syntax" => self.syntax = Some(value.to_owned()),
            _ => self.check = Some(value.to_owned()),
        }
        seen.push(key);
        Ok(true)
    }
}

fn escape(value: &str) -> Result<char, String> {
    match value {
        "\\" => Ok('\\'),
        "`" => Ok('`'),
        other => Err(format!("invalid escape directive {other:?}: use \\ or `")),
    }
}
