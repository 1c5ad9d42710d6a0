//! Extended regular expressions (regex(7)), as the C library has them and crun takes them.

use crate::error::{Error, Result};
use std::ffi::CStr;

/// A compiled pattern.
pub struct Regex(libc::regex_t);

impl Regex {
    /// Compiles a pattern (regcomp(3), REG_EXTENDED).
    pub fn new(pattern: &str) -> Result<Self> {
        let text = super::cstring(pattern)?;
        let mut compiled = std::mem::MaybeUninit::uninit();
        let flags = libc::REG_EXTENDED | libc::REG_NOSUB;
        // SAFETY: the pattern is terminated; `compiled` is initialised on success alone.
        let compiled = unsafe {
            match libc::regcomp(compiled.as_mut_ptr(), text.as_ptr(), flags) {
                0 => compiled.assume_init(),
                code => return Err(Error::new(explain(code))),
            }
        };
        Ok(Self(compiled))
    }

    /// Does it match a part of `text`? No text with a NUL byte matches.
    pub fn matches(&self, text: &str) -> bool {
        let Ok(text) = super::cstring(text) else { return false };
        // SAFETY: the pattern is compiled, the text terminated, and no groups are asked for.
        unsafe { libc::regexec(&self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: it was compiled, and is not used any more.
        unsafe { libc::regfree(&mut self.0) }
    }
}

fn explain(code: i32) -> String {
    let mut buffer = [0 as libc::c_char; 256];
    // SAFETY: the buffer has the length that is passed, and regerror terminates it; without a
    // pattern it explains the code alone.
    unsafe {
        libc::regerror(code, std::ptr::null(), buffer.as_mut_ptr(), buffer.len());
        CStr::from_ptr(buffer.as_ptr()).to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_extended_and_unanchored() {
        let pattern = Regex::new("^(web|db)-[0-9]+$").unwrap();
        assert!(pattern.matches("web-12") && !pattern.matches("my-web-12"));
        assert!(Regex::new("b").unwrap().matches("abc"));
    }

    #[test]
    fn a_broken_pattern_is_explained() {
        assert!(Regex::new("(a").is_err_and(|e| !e.to_string().is_empty()));
    }
}
