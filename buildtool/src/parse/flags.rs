//! The `--name=value` flags of an instruction: every one is known, or an error.

use super::suggest;
use super::words::Word;

/// An error and the byte offset in the logical line where it is.
pub type At = (usize, String);

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// One string, required.
    Value,
    /// `true` or `false`, `true` when left out.
    Bool,
    /// A string; the flag may be repeated.
    Values,
    /// The language has this flag and this program does not have it yet.
    Unsupported,
}

/// The flags given to one instruction, all of them checked against its table.
#[derive(Debug, Default)]
pub struct Flags {
    given: Vec<(&'static str, String, usize)>,
}

impl Flags {
    /// Checks `words` against `table`.
    pub fn parse(
        instruction: &str,
        words: &[Word],
        table: &[(&'static str, Takes)],
    ) -> Result<Self, At> {
        let mut flags = Self::default();
        for word in words {
            flags.add(instruction, word, table).map_err(|message| (word.at, message))?;
        }
        Ok(flags)
    }

    fn add(
        &mut self,
        instruction: &str,
        word: &Word,
        table: &[(&'static str, Takes)],
    ) -> Result<(), String> {
        let (name, value) = match word.text[2..].split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (&word.text[2..], None),
        };
        let Some((known, takes)) = table.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
            let dashed: Vec<String> = names.iter().map(|name| format!("--{name}")).collect();
            let dashed: Vec<&str> = dashed.iter().map(String::as_str).collect();
            let message = format!("unknown flag for {instruction}: --{name}");
            return Err(suggest::append(message, &format!("--{name}"), &dashed));
        };
        if *takes != Takes::Values && self.given.iter().any(|(given, ..)| given == known) {
            return Err(format!("duplicate flag specified: --{name}"));
        }
        let value = match (takes, value) {
            (Takes::Unsupported, _) => {
                return Err(format!("{instruction} --{name} is not supported by this version"));
            }
            (Takes::Bool, value) => boolean(name, value)?,
            (_, Some(value)) => value.to_owned(),
            (_, None) => return Err(format!("missing a value on flag: --{name}")),
        };
        self.given.push((known, value, word.at));
        Ok(())
    }

    /// The value of `name`, if given.
    pub fn value(&self, name: &str) -> Option<String> {
        self.values(name).next().map(|(value, _)| value.to_owned())
    }

    /// Was the boolean `name` given and true?
    pub fn is_true(&self, name: &str) -> bool {
        self.value(name).as_deref() == Some("true")
    }

    /// Every value of the repeatable `name`, with its offset.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, usize)> {
        self.given
            .iter()
            .filter(move |(given, ..)| *given == name)
            .map(|(_, value, at)| (value.as_str(), *at))
    }
}

fn boolean(name: &str, value: Option<&str>) -> Result<String, String> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("true") => Ok("true".into()),
        Some("false") => Ok("false".into()),
        Some("") => Err(format!("missing a value on flag: --{name}")),
        Some(other) => Err(format!("expecting boolean value for flag --{name}, not: {other}")),
    }
}
