//! Names and ids of containers, and the way from what a user types to one container.

use crate::error::{Context, Error, Result};

/// A new id: 64 random hex digits.
///
/// # Errors
/// When /dev/urandom cannot be read.
pub fn random() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0u8; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .wrap("make an id: read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether `text` is a whole id.
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

/// Whether `text` could be the beginning of an id.
pub fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The first twelve digits, enough for people.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Accepts `[A-Za-z0-9][A-Za-z0-9_.-]*` of at most 128 bytes, docker's and podman's names.
///
/// # Errors
/// For anything else, and for what would read as somebody's id.
pub fn check_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if !first || !rest || name.len() > 128 {
        return Err(Error::new(format!(
            "container name {name:?}: must match [A-Za-z0-9][A-Za-z0-9_.-]* and be at most 128 long"
        )));
    }
    if is_id(name) {
        return Err(Error::new(format!(
            "container name {name:?}: would be taken for an id; choose a shorter one"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_random_and_names_are_checked() {
        let id = random().unwrap();
        assert!(is_id(&id) && id != random().unwrap());
        for good in ["a", "web-1", "A.b_c", "0"] {
            check_name(good).unwrap();
        }
        for bad in ["", "-a", ".a", "a/b", "a b", "ä", &"x".repeat(129), &id] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
