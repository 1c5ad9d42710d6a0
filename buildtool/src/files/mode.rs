//! `--chmod`: an octal mode, or symbolic changes as chmod(1) takes them.

/// A parsed mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The bits themselves.
    Bits(u32),
    /// Changes, applied in order.
    Changes(Vec<Change>),
}

/// `u+rwx`: one clause of a symbolic mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    who: u32,
    operator: char,
    bits: u32,
    /// `X`: execution only for directories and what can be executed already.
    conditional: bool,
}

const INVALID: &str = "expected an octal mode up to 7777, or symbols such as u=rwX,go=rX";

impl Mode {
    /// Parses the value of `--chmod`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid chmod parameter {text:?}: {INVALID}");
        if text.bytes().all(|b| b.is_ascii_digit()) {
            let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o7777);
            return bits.map(Self::Bits).ok_or_else(invalid);
        }
        let changes: Option<Vec<Change>> = text.split(',').map(change).collect();
        changes.map(Self::Changes).ok_or_else(invalid)
    }

    /// The new permission bits of something with `bits`.
    pub fn apply(&self, bits: u32, directory: bool) -> u32 {
        match self {
            Self::Bits(new) => *new,
            Self::Changes(changes) => {
                changes.iter().fold(bits, |bits, change| change.apply(bits, directory))
            }
        }
    }
}

fn change(text: &str) -> Option<Change> {
    let at = text.find(['+', '-', '='])?;
    let operator = text[at..].chars().next()?;
    let mut who = 0;
    for c in text[..at].chars() {
        who |= match c {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    let who = if at == 0 { 0o7777 } else { who };
    let (mut bits, mut conditional) = (0, false);
    for c in text[at + 1..].chars() {
        bits |= match c {
            'r' => 0o444,
            'w' => 0o222,
            'x' => 0o111,
            's' => 0o6000,
            't' => 0o1000,
            'X' => {
                conditional = true;
                0
            }
            _ => return None,
        };
    }
    Some(Change { who, operator, bits, conditional })
}

impl Change {
    fn apply(&self, bits: u32, directory: bool) -> u32 {
        let executable = self.conditional && (directory || bits & 0o111 != 0);
        let change = (self.bits | if executable { 0o111 } else { 0 }) & self.who;
        match self.operator {
            '+' => bits | change,
            '-' => bits & !change,
            _ => bits & !(self.who & 0o777) & !(self.bits & 0o7000 & self.who) | change,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Mode;

    #[test]
    fn modes() {
        for (text, bits, directory, expected) in [
            ("755", 0o644, false, 0o755),
            ("4755", 0, false, 0o4755),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("go-rwx", 0o755, true, 0o700),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("a=r", 0o777, false, 0o444),
            ("+t", 0o777, true, 0o1777),
            ("u+s", 0o755, false, 0o4755),
        ] {
            assert_eq!(Mode::parse(text).unwrap().apply(bits, directory), expected, "{text}");
        }
        for bad in ["", "888", "17777", "u", "z+x", "u+q", "u+x,"] {
            assert!(Mode::parse(bad).is_err(), "{bad}");
        }
    }
}
