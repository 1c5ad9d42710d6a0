//! Reading JSON that people write: an error names the file, the place and the JSON path.

use crate::error::{Context, Error, Result};
use oci_spec::runtime::Spec;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Reads and parses a `config.json`; also returns its bytes, which the state directory keeps.
pub fn read(path: &Path) -> Result<(Spec, Vec<u8>)> {
    let text = std::fs::read(path).wrap(|| format!("read {}", path.display()))?;
    let spec = parse(&text, path)?;
    refuse_unmodelled(&text)?;
    Ok((spec, text))
}

/// Parses JSON, and on failure parses again more slowly to tell the JSON path.
pub fn parse<T: DeserializeOwned>(text: &[u8], origin: &Path) -> Result<T> {
    match serde_json::from_slice(text) {
        Ok(value) => Ok(value),
        Err(plain) => {
            let mut reader = serde_json::Deserializer::from_slice(text);
            let located = serde_path_to_error::deserialize::<_, T>(&mut reader).err();
            let name = origin.display();
            Err(match located.map(|e| (e.path().to_string(), e.into_inner())) {
                Some((path, cause)) if path != "." => {
                    Error::new(format!("{name}: {path}: {cause}"))
                }
                _ => Error::new(format!("{name}: {plain}")),
            })
        }
    }
}

/// Refuses by name those properties of the specification that the parser's types do not have and
/// would therefore drop.
fn refuse_unmodelled(text: &[u8]) -> Result<()> {
    const NAME: &[u8] = b"\"freebsd\"";
    if !text.windows(NAME.len()).any(|w| w == NAME) {
        return Ok(());
    }
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|e| Error::new(e.to_string()))?;
    match value.get("freebsd") {
        Some(_) => Err(super::unsupported("freebsd", "this runtime makes Linux containers")),
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
    fn a_truncated_file_is_an_error() {
        let e = parse::<Spec>(br#"{"ociVersion":"#, Path::new("c.json")).unwrap_err().to_string();
        assert!(e.contains("EOF"), "{e}");
    }

    #[test]
    fn freebsd_is_refused_by_name() {
        assert!(
            refuse_unmodelled(br#"{"freebsd":{}}"#).unwrap_err().to_string().contains("freebsd")
        );
        assert!(refuse_unmodelled(br#"{"hostname":"\"freebsd\""}"#).is_ok());
    }
}
