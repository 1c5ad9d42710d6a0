//! Reading JSON that people write: an error names the file, the place and the JSON path.

use crate::error::{Context, Error, Result};
use oci_spec::runtime::Spec;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::path::Path;

/// Reads and parses a `config.json`; also returns its bytes, which the state directory keeps.
pub fn read(path: &Path) -> Result<(Spec, Vec<u8>)> {
    let text = std::fs::read(path).wrap(|| format!("read {}", path.display()))?;
    let spec = parse(&text, path)?;
    refuse_unmodelled(&text)?;
    Ok((spec, text))
}

/// Parses JSON; an error is given the JSON path of the place that the parser names by line and column.
pub fn parse<T: DeserializeOwned>(text: &[u8], origin: &Path) -> Result<T> {
    let text = &*respell(text);
    serde_json::from_slice(text).map_err(|e| {
        let (name, path) = (origin.display(), path_at(text, offset(text, e.line(), e.column())));
        match path.as_str() {
            "" => Error::new(format!("{name}: {e}")),
            path => Error::new(format!("{name}: {path}: {e}")),
        }
    })
}

/// Bytes before the place that serde_json calls `line` (from 1) and `column` (in bytes).
fn offset(text: &[u8], line: usize, column: usize) -> usize {
    let mut starts = std::iter::once(0)
        .chain(text.iter().enumerate().filter_map(|(i, b)| (*b == b'\n').then_some(i + 1)));
    (starts.nth(line.saturating_sub(1)).unwrap_or(0) + column).min(text.len())
}

/// One level of nesting on the way to a place in a JSON text.
enum Level {
    /// In an object: the key read last, and whether a key comes next.
    Object(String, bool),
    /// In an array: the index.
    Array(usize),
}

/// The JSON path (`process.user.uid`, `mounts[3].options[0]`) of the value that `end` is in.
fn path_at(text: &[u8], end: usize) -> String {
    let mut levels: Vec<Level> = Vec::new();
    let mut at = 0;
    while at < end {
        match text[at] {
            b'{' => levels.push(Level::Object(String::new(), true)),
            b'[' => levels.push(Level::Array(0)),
            // The parser has read the bracket that ends what it complains about.
            b'}' | b']' if at + 1 < end => drop(levels.pop()),
            b':' => {
                if let Some(Level::Object(_, key_next)) = levels.last_mut() {
                    *key_next = false;
                }
            }
            b',' => match levels.last_mut() {
                Some(Level::Object(_, key_next)) => *key_next = true,
                Some(Level::Array(index)) => *index += 1,
                None => {}
            },
            b'"' => {
                let begin = at + 1;
                at = begin;
                while at < text.len() && text[at] != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                if let Some(Level::Object(key, true)) = levels.last_mut() {
                    *key = String::from_utf8_lossy(&text[begin..at.min(text.len())]).into_owned();
                }
            }
            _ => {}
        }
        at += 1;
    }
    let mut path = String::new();
    for level in levels {
        match level {
            Level::Object(key, false) if path.is_empty() => path = key,
            Level::Object(key, false) => path = format!("{path}.{key}"),
            // Between members: the object itself is meant.
            Level::Object(_, true) => {}
            Level::Array(index) => path = format!("{path}[{index}]"),
        }
    }
    path
}

/// Properties of the specification, now or in an older version, that the parser's types do not
/// have and would therefore drop: the name, where it is, and why it is refused.
const UNMODELLED: [(&str, &str, &str); 3] = [
    ("freebsd", "/freebsd", "this runtime makes Linux containers"),
    ("enableCMT", "/linux/intelRdt/enableCMT", "version 1.3 has enableMonitoring instead"),
    ("enableMBM", "/linux/intelRdt/enableMBM", "version 1.3 has enableMonitoring instead"),
];

/// Flags of `process.scheduler` whose names the parser's types have wrong: as the specification
/// spells them, and as the parser does.
const MISSPELT: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// Spells what the parser has wrong as the parser wants it.
fn respell(text: &[u8]) -> Cow<'_, [u8]> {
    let names = MISSPELT.map(|(right, _)| right);
    let mut places: Vec<(usize, usize)> = quoted(text, &names)
        .filter(|(at, _)| path_at(text, at + 1).contains("scheduler.flags["))
        .collect();
    if places.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut respelt = text.to_vec();
    // From behind, since the places before stay where they are.
    while let Some((at, name)) = places.pop() {
        let (right, wrong) = MISSPELT[name];
        respelt.splice(at + 1..at + 1 + right.len(), wrong.bytes());
    }
    Cow::Owned(respelt)
}

/// Where one of `names` stands between quotes: the place of the first quote, and which it is.
fn quoted<'a>(text: &'a [u8], names: &'a [&str]) -> impl Iterator<Item = (usize, usize)> + 'a {
    let named = |at: usize| {
        let rest = &text[at + 1..];
        let is =
            |name: &&str| rest.starts_with(name.as_bytes()) && rest.get(name.len()) == Some(&b'"');
        names.iter().position(is).map(|name| (at, name))
    };
    text.iter().enumerate().filter(|(_, byte)| **byte == b'"').filter_map(move |(at, _)| named(at))
}

/// Refuses them by name. The text is searched first, and parsed again only where a name occurs.
fn refuse_unmodelled(text: &[u8]) -> Result<()> {
    if quoted(text, &UNMODELLED.map(|(name, ..)| name)).next().is_none() {
        return Ok(());
    }
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|e| Error::new(e.to_string()))?;
    let set = |pointer: &str| {
        value.pointer(pointer).is_some_and(|v| !v.is_null() && *v != serde_json::Value::Bool(false))
    };
    match UNMODELLED.iter().find(|(_, pointer, _)| set(pointer)) {
        Some((_, pointer, why)) => {
            Err(super::unsupported(&pointer.trim_start_matches('/').replace('/', "."), why))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_json_path() {
        let text = br#"{"ociVersion":"1.0.0","process":{"cwd":"/","user":{"uid":"root","gid":0}}}"#;
        let e = parse::<Spec>(text, Path::new("config.json")).unwrap_err().to_string();
        assert!(e.starts_with("config.json: process.user.uid: invalid type"), "{e}");
        assert!(e.contains("line 1 column"), "{e}");
    }

    #[test]
    fn paths_lead_through_arrays_and_escapes() {
        let text = br#"{"a":{"k\"}":[1,{"x":"]","y":[true,7]}]}}"#;
        let seven = text.iter().position(|b| *b == b'7').unwrap();
        assert_eq!(path_at(text, seven + 1), r#"a.k\"}[1].y[1]"#);
        let missing = br#"{"process":{"user":{}},"root":1}"#;
        assert_eq!(
            path_at(missing, missing.iter().position(|b| *b == b'}').unwrap()),
            "process.user"
        );
    }

    #[test]
    fn a_truncated_file_is_an_error() {
        let e = parse::<Spec>(br#"{"ociVersion":"#, Path::new("c.json")).unwrap_err().to_string();
        assert!(e.contains("EOF"), "{e}");
    }

    #[test]
    fn flags_are_spelt_as_the_specification_does() {
        let text = br#"{"process":{"args":["SCHED_FLAG_DL_OVERRUN"],"scheduler":{"flags":["SCHED_FLAG_DL_OVERRUN","SCHED_FLAG_RECLAIM","SCHED_FLAG_RESET_ON_FORK"]}}}"#;
        let respelt = String::from_utf8(respell(text).into_owned()).unwrap();
        assert!(respelt.contains(r#""args":["SCHED_FLAG_DL_OVERRUN"]"#), "{respelt}");
        let flags = r#"["SCHED_FLAG_D_L_OVERRUN","SCHED_FLAG_RECLAIM","SCHED_RESET_ON_FORK"]"#;
        assert!(respelt.contains(flags), "{respelt}");
        assert!(matches!(respell(b"{}"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_the_parser_would_drop_is_refused_by_name() {
        let e = refuse_unmodelled(br#"{"linux":{"intelRdt":{"enableCMT":true}}}"#).unwrap_err();
        assert!(e.to_string().contains("linux.intelRdt.enableCMT"), "{e}");
        assert!(
            refuse_unmodelled(br#"{"freebsd":{}}"#).unwrap_err().to_string().contains("freebsd")
        );
        assert!(refuse_unmodelled(br#"{"hostname":"\"freebsd\""}"#).is_ok());
    }
}
