//! The keys that leave a terminal session: docker's `--detach-keys`, ctrl-p ctrl-q by
//! default.

use crate::error::{Error, Result};

/// The default sequence.
pub const DEFAULT: &str = "ctrl-p,ctrl-q";

/// Watches typed bytes for the sequence; a beginning of it is held back until it is clear
/// that it is none.
#[derive(Debug, Clone)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// Reads a comma-separated list of single characters and `ctrl-X`, X being a letter or
    /// one of `@ [ \ ] ^ _`. The empty text means: never.
    ///
    /// # Errors
    /// For any other key.
    pub fn parse(text: &str) -> Result<Self> {
        let keys = match text {
            "" => Vec::new(),
            keys => keys.split(',').map(key).collect::<Result<_>>()?,
        };
        Ok(Self { keys, matched: 0 })
    }

    /// Splits input into what goes to the container; `true` when the sequence was typed
    /// (what follows it is dropped).
    pub fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len());
        if self.keys.is_empty() {
            passed.extend_from_slice(input);
            return (passed, false);
        }
        for byte in input {
            // The longest beginning of the sequence that the held keys and this one end in.
            while self.matched > 0 && self.keys[self.matched] != *byte {
                self.release(&mut passed);
            }
            if self.keys[self.matched] != *byte {
                passed.push(*byte);
                continue;
            }
            self.matched += 1;
            if self.matched == self.keys.len() {
                self.matched = 0;
                return (passed, true);
            }
        }
        (passed, false)
    }

    /// Lets go of as many held keys as cannot begin the sequence any more.
    fn release(&mut self, passed: &mut Vec<u8>) {
        let held = &self.keys[..self.matched];
        let keep = (0..self.matched)
            .rev()
            .find(|length| held.ends_with(&self.keys[..*length]))
            .unwrap_or(0);
        passed.extend_from_slice(&held[..self.matched - keep]);
        self.matched = keep;
    }
}

fn key(text: &str) -> Result<u8> {
    let wrong = || {
        Error::new(format!(
            "detach key {text:?}: must be one ASCII character or ctrl-X with X one of a-z @ [ \\ ] ^ _"
        ))
    };
    match (text.strip_prefix("ctrl-"), text.as_bytes()) {
        (None, [one]) if one.is_ascii() => Ok(*one),
        (Some(key), _) => match key.to_ascii_uppercase().as_bytes() {
            [one @ b'@'..=b'_'] => Ok(one & 0x1f),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_seen_and_everything_else_passes() {
        let mut keys = DetachKeys::parse(DEFAULT).unwrap();
        assert_eq!(keys.filter(b"abc"), (b"abc".to_vec(), false));
        assert_eq!(keys.filter(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.filter(b"b"), (b"\x10b".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10\x11rest"), (b"\x10".to_vec(), true));
        assert_eq!(keys.filter(b"\x11"), (b"\x11".to_vec(), false));

        let mut keys = DetachKeys::parse("a,a,b").unwrap();
        assert_eq!(keys.filter(b"aaab"), (b"a".to_vec(), true));
        assert_eq!(keys.filter(b"aac"), (b"aac".to_vec(), false));

        let mut never = DetachKeys::parse("").unwrap();
        assert_eq!(never.filter(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }

    #[test]
    fn keys_are_checked() {
        assert_eq!(DetachKeys::parse("ctrl-@,ctrl-[,x").unwrap().keys, [0, 0x1b, b'x']);
        for bad in ["ctrl-", "ctrl-1", "xy", "ctrl-pp", ",", "é"] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }
}
