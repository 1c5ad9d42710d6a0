//! Wildcard patterns in their three dialects, matched by one small automaton.
//!
//! * `Pattern::file`: Go's `filepath.Match`, for the sources of COPY and ADD;
//! * `Pattern::ignore`: the same with `**`, for `.dockerignore`;
//! * `Pattern::shell`: `*` and `?` over any character, for `${x#pattern}`.
//!
//! A pattern is a list of atoms. Matching carries the set of positions which the atoms so far
//! can reach, so its cost is atoms × characters whatever the pattern: no pattern in a hostile
//! Dockerfile makes it explode.

/// One element of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Atom {
    Literal(char),
    /// Any one character; `false` excludes `/`.
    One(bool),
    /// Any run of characters, also an empty one; `false` excludes `/`.
    Run(bool),
    /// Nothing, or anything that ends in `/`.
    Directories,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    atoms: Vec<Atom>,
}

/// Why a pattern is malformed, in words that follow "bad pattern".
pub type Malformed = &'static str;

impl Pattern {
    /// Compiles a pattern of Go's `filepath.Match`: `*`, `?`, `[class]`, `\x`.
    pub fn file(pattern: &str) -> Result<Self, Malformed> {
        let chars: Vec<char> = pattern.chars().collect();
        let (mut atoms, mut at) = (Vec::new(), 0);
        while at < chars.len() {
            at = file_atom(&chars, at, &mut atoms)?;
        }
        Ok(Self { atoms })
    }

    /// Compiles one `.dockerignore` pattern: `file`'s language and `**`.
    pub fn ignore(pattern: &str) -> Result<Self, Malformed> {
        if let Some(suffix) = pattern.strip_prefix("**")
            && !suffix.contains(['*', '?', '[', ']', '\\'])
        {
            return Ok(Self::ending_in(suffix));
        }
        let chars: Vec<char> = pattern.chars().collect();
        let (mut atoms, mut at) = (Vec::new(), 0);
        while at < chars.len() {
            if chars[at..].starts_with(&['*', '*']) {
                at += 2;
                at += usize::from(chars.get(at) == Some(&'/'));
                let last = at == chars.len();
                atoms.push(if last { Atom::Run(true) } else { Atom::Directories });
            } else {
                at = file_atom(&chars, at, &mut atoms)?;
            }
        }
        Ok(Self { atoms })
    }

    /// `**suffix` without another wildcard: whatever ends in it, at any depth.
    fn ending_in(suffix: &str) -> Self {
        let first = match suffix.starts_with('/') {
            true => Atom::Directories,
            false => Atom::Run(true),
        };
        let literals = suffix.trim_start_matches('/').chars().map(Atom::Literal);
        Self { atoms: std::iter::once(first).chain(literals).collect() }
    }

    /// Compiles the pattern of a `${x#pattern}` modifier: `*`, `?`, and `\` before these,
    /// before itself, `}` or `/`.
    pub fn shell(pattern: &str) -> Result<Self, Malformed> {
        let mut atoms = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            atoms.push(match c {
                '*' => Atom::Run(true),
                '?' => Atom::One(true),
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Atom::Literal(c),
                    _ => return Err("a backslash may only precede * ? \\ } or /"),
                },
                c => Atom::Literal(c),
            });
        }
        Ok(Self { atoms })
    }

    /// Does the pattern match the whole of `text`?
    pub fn matches(&self, text: &str) -> bool {
        let chars: Vec<char> = text.chars().collect();
        self.ends(&chars)[chars.len()]
    }

    /// Which prefixes of `text` the pattern matches: entry n stands for the first n characters.
    pub fn ends(&self, text: &[char]) -> Vec<bool> {
        let mut reached = vec![false; text.len() + 1];
        reached[0] = true;
        for atom in &self.atoms {
            reached = atom.step(text, &reached);
        }
        reached
    }
}

/// Does `text` hold a wildcard of `filepath.Match` that is not escaped?
pub fn has_wildcard(text: &str) -> bool {
    let mut escaped = false;
    text.chars().any(|c| {
        let special = !escaped && matches!(c, '*' | '?' | '[');
        escaped = !escaped && c == '\\';
        special
    })
}

/// Removes the escapes of a pattern that holds no wildcard.
pub fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

fn file_atom(chars: &[char], at: usize, atoms: &mut Vec<Atom>) -> Result<usize, Malformed> {
    match chars[at] {
        '*' => atoms.push(Atom::Run(false)),
        '?' => atoms.push(Atom::One(false)),
        '[' => {
            let (class, next) = class(chars, at + 1)?;
            atoms.push(class);
            return Ok(next);
        }
        '\\' => {
            let escaped = chars.get(at + 1).ok_or("it ends in a backslash")?;
            atoms.push(Atom::Literal(*escaped));
            return Ok(at + 2);
        }
        c => atoms.push(Atom::Literal(c)),
    }
    Ok(at + 1)
}

fn class(chars: &[char], mut at: usize) -> Result<(Atom, usize), Malformed> {
    let negated = chars.get(at) == Some(&'^');
    at += usize::from(negated);
    let mut ranges = Vec::new();
    loop {
        if chars.get(at) == Some(&']') && !ranges.is_empty() {
            return Ok((Atom::Class { negated, ranges }, at + 1));
        }
        let (low, next) = class_char(chars, at)?;
        let (high, next) = match chars.get(next) {
            Some('-') => class_char(chars, next + 1)?,
            _ => (low, next),
        };
        ranges.push((low, high));
        at = next;
    }
}

fn class_char(chars: &[char], at: usize) -> Result<(char, usize), Malformed> {
    const OPEN: Malformed = "a [ is never closed";
    match chars.get(at).ok_or(OPEN)? {
        '\\' => Ok((*chars.get(at + 1).ok_or(OPEN)?, at + 2)),
        '-' | ']' => Err("a class needs a character or a range between [ and ]"),
        c => Ok((*c, at + 1)),
    }
}

impl Atom {
    /// The positions after this atom, from those before it.
    fn step(&self, text: &[char], from: &[bool]) -> Vec<bool> {
        let mut to = vec![false; from.len()];
        match self {
            Atom::Run(slash) => {
                for i in 0..from.len() {
                    to[i] = from[i] || i > 0 && to[i - 1] && (*slash || text[i - 1] != '/');
                }
            }
            Atom::Directories => {
                let mut begun = false;
                for i in 0..from.len() {
                    to[i] = from[i] || begun && text[i - 1] == '/';
                    begun |= from[i];
                }
            }
            single => {
                for i in 0..text.len() {
                    to[i + 1] = from[i] && single.accepts(text[i]);
                }
            }
        }
        to
    }

    fn accepts(&self, c: char) -> bool {
        match self {
            Atom::Literal(literal) => *literal == c,
            Atom::One(slash) => *slash || c != '/',
            Atom::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
            Atom::Run(_) | Atom::Directories => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_patterns_follow_filepath_match() {
        for (pattern, text, expected) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "d/a.txt", false),
            ("h?me", "home", true),
            ("d/?", "d/x", true),
            ("a[b-d]e", "ace", true),
            ("a[^b-d]e", "ace", false),
            ("arr[[]0].txt", "arr[0].txt", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("*", "", true),
        ] {
            let matched = Pattern::file(pattern).unwrap().matches(text);
            assert_eq!(matched, expected, "{pattern} {text}");
        }
        for bad in ["[", "[]a]", "[-]", "a\\", "[a-"] {
            assert!(Pattern::file(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_stays_cheap() {
        let pattern = "*a".repeat(200);
        assert!(!Pattern::file(&pattern).unwrap().matches(&"a".repeat(199)));
    }

    #[test]
    fn wildcards_and_escapes() {
        assert!(has_wildcard("a*"));
        assert!(!has_wildcard("a\\*"));
        assert_eq!(unescape("a\\*b"), "a*b");
    }
}
