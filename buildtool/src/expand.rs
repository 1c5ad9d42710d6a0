//! Words of a Dockerfile: quotes, escapes, and `$variables` with their modifiers.
//!
//! The language is that of BuildKit's shell lexer, which is close to a POSIX shell's word
//! expansion and differs from it in places that real Dockerfiles rely on:
//!
//! * `${x:-w} ${x-w} ${x:+w} ${x+w} ${x:?w} ${x?w}`: a default, an alternative, an error;
//! * `${x#p} ${x##p} ${x%p} ${x%%p}`: the shortest or longest prefix or suffix removed;
//! * `${x/p/r} ${x//p/r}`: the first match, or all of them, replaced;
//! * in double quotes the escape character only escapes `"`, `$` and itself;
//! * positional and special parameters are never set.
//!
//! One pass over the characters yields both the expanded text and its division into words.

use std::collections::BTreeSet;

use crate::pattern::Pattern;

/// Where the values of variables come from.
pub trait Env {
    /// The value of `name`, `None` when unset.
    fn get(&self, name: &str) -> Option<&str>;
}

/// No variable is set.
pub struct NoEnv;

impl Env for NoEnv {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

/// How to read a word.
#[derive(Debug, Clone, Copy)]
pub struct Lexer {
    /// The escape character: `\` or `` ` ``.
    pub escape: char,
    /// Keep quotes in the result.
    pub raw_quotes: bool,
    /// Keep escape characters in the result.
    pub raw_escapes: bool,
    /// Quotes are ordinary characters (heredoc bodies).
    pub ignore_quotes: bool,
    /// Leave references to unset variables as they stand.
    pub keep_unset: bool,
}

/// The result of expansion.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text with variables expanded and quotes removed.
    pub text: String,
    /// The text split at unquoted white space.
    pub words: Vec<String>,
    /// Names that were referred to and not set.
    pub unset: BTreeSet<String>,
}

/// What is wrong with a word, without its place.
pub type Problem = String;

impl Lexer {
    /// The lexer of instruction arguments under this escape character.
    pub fn new(escape: char) -> Self {
        Self {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            ignore_quotes: false,
            keep_unset: false,
        }
    }

    /// Expands `word`.
    pub fn expand(&self, word: &str, env: &dyn Env) -> Result<Expanded, Problem> {
        let mut scan =
            Scan { lexer: self, env, chars: word.chars().collect(), at: 0, unset: BTreeSet::new() };
        let (text, words) = scan
            .until(None, self.raw_escapes)
            .map_err(|problem| format!("{problem} in {word:?}"))?;
        Ok(Expanded { text, words, unset: scan.unset })
    }

    /// Expands `word` and returns the text alone.
    pub fn text(&self, word: &str, env: &dyn Env) -> Result<String, Problem> {
        Ok(self.expand(word, env)?.text)
    }
}

struct Scan<'a> {
    lexer: &'a Lexer,
    env: &'a dyn Env,
    chars: Vec<char>,
    at: usize,
    unset: BTreeSet<String>,
}

/// The words gathered so far and the one being read.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    fn split_on_space(&mut self, text: &str) {
        for c in text.chars() {
            if c.is_whitespace() {
                self.end();
            } else {
                self.current.push(c);
            }
        }
    }

    fn end(&mut self) {
        if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }
}

impl Scan<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Reads to `stop`, which is consumed, or to the end of the text when there is none.
    fn until(
        &mut self,
        stop: Option<char>,
        raw_escapes: bool,
    ) -> Result<(String, Vec<String>), Problem> {
        let (mut text, mut words) = (String::new(), Words::default());
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.at += 1;
                words.end();
                return Ok((text, words.done));
            }
            let quotes = !self.lexer.ignore_quotes;
            match c {
                '$' => {
                    let value = self.dollar()?;
                    words.split_on_space(&value);
                    text += &value;
                }
                '\'' if quotes => {
                    let quoted = self.single_quoted()?;
                    words.current += &quoted;
                    text += &quoted;
                }
                '"' if quotes => {
                    let quoted = self.double_quoted(raw_escapes)?;
                    words.current += &quoted;
                    text += &quoted;
                }
                '<' => {
                    let operator = self.heredoc_operator();
                    words.current += &operator;
                    text += &operator;
                }
                c if c == self.lexer.escape => self.escaped(raw_escapes, &mut text, &mut words),
                c => {
                    self.at += 1;
                    words.split_on_space(c.encode_utf8(&mut [0; 4]));
                    text.push(c);
                }
            }
        }
        if let Some(stop) = stop {
            return Err(format!("syntax error: missing '{stop}'"));
        }
        words.end();
        Ok((text, words.done))
    }

    /// An escape character outside quotes: the next character is literal; at the end it vanishes.
    fn escaped(&mut self, raw: bool, text: &mut String, words: &mut Words) {
        let escape = self.next();
        let kept = if raw { escape } else { None };
        for c in kept.into_iter().chain(self.next()) {
            text.push(c);
            words.current.push(c);
        }
    }

    fn single_quoted(&mut self) -> Result<String, Problem> {
        let mut out = String::new();
        self.push_quote(&mut out);
        loop {
            match self.peek() {
                None => return Err("a single quote is never closed".into()),
                Some('\'') => break,
                Some(c) => out.push(c),
            }
            self.at += 1;
        }
        self.push_quote(&mut out);
        Ok(out)
    }

    fn double_quoted(&mut self, raw_escapes: bool) -> Result<String, Problem> {
        let mut out = String::new();
        self.push_quote(&mut out);
        loop {
            match self.peek() {
                None => return Err("a double quote is never closed".into()),
                Some('"') => break,
                Some('$') => out += &self.dollar()?,
                Some(c) if c == self.lexer.escape => self.escaped_in_quotes(raw_escapes, &mut out),
                Some(c) => {
                    self.at += 1;
                    out.push(c);
                }
            }
        }
        self.push_quote(&mut out);
        Ok(out)
    }

    fn escaped_in_quotes(&mut self, raw: bool, out: &mut String) {
        self.at += 1;
        let escape = self.lexer.escape;
        match self.peek() {
            None => out.extend(raw.then_some(escape)),
            Some(c) if c == '"' || c == '$' || c == escape => {
                out.extend(raw.then_some(escape));
                out.push(c);
                self.at += 1;
            }
            Some(_) => out.extend(std::iter::repeat_n(escape, 1 + usize::from(raw))),
        }
    }

    /// Consumes a quote, keeping it when quotes are kept.
    fn push_quote(&mut self, out: &mut String) {
        let quote = self.next();
        if self.lexer.raw_quotes {
            out.extend(quote);
        }
    }

    /// `<<` keeps the white space behind it, so that `<< EOF` stays one word.
    fn heredoc_operator(&mut self) -> String {
        self.at += 1;
        if self.peek() != Some('<') {
            return "<".into();
        }
        self.at += 1;
        let mut out = String::from("<<");
        while let Some(c @ (' ' | '\t' | '\r')) = self.peek() {
            out.push(c);
            self.at += 1;
        }
        out
    }

    fn lookup(&mut self, name: &str) -> Option<String> {
        let value = self.env.get(name).map(str::to_owned);
        if value.is_none() && !name.is_empty() {
            self.unset.insert(name.to_owned());
        }
        value
    }

    fn dollar(&mut self) -> Result<String, Problem> {
        self.at += 1;
        if self.peek() == Some('{') {
            self.at += 1;
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".into());
        }
        Ok(match self.lookup(&name) {
            None if self.lexer.keep_unset => format!("${name}"),
            value => value.unwrap_or_default(),
        })
    }

    /// A variable name, a run of digits, or one special parameter.
    fn name(&mut self) -> String {
        let start = self.at;
        match self.peek() {
            Some(c) if c.is_ascii_digit() => {
                while self.peek().is_some_and(|c| c.is_ascii_digit()) {
                    self.at += 1;
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => self.at += 1,
            _ => {
                while self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    self.at += 1;
                }
            }
        }
        self.chars[start..self.at].iter().collect()
    }

    /// What follows `${`.
    fn braced(&mut self) -> Result<String, Problem> {
        match self.peek() {
            None => return Err("syntax error: missing '}'".into()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".into()),
            Some(_) => {}
        }
        let name = self.name();
        let Some(operator) = self.next() else {
            return Err("syntax error: missing '}'".into());
        };
        match operator {
            '}' => Ok(match self.lookup(&name) {
                None if self.lexer.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            '/' => self.replace(&name),
            '#' | '%' => self.trim(&name, operator),
            '-' | '+' | '?' => self.conditional(&name, operator, false),
            ':' => match self.next() {
                Some(operator @ ('-' | '+' | '?')) => self.conditional(&name, operator, true),
                Some(other) => Err(unsupported(&format!(":{other}"))),
                None => Err("syntax error: missing '}'".into()),
            },
            other => Err(unsupported(&other.to_string())),
        }
    }

    /// `- + ?`, and their `:` forms, for which an empty variable counts as unset.
    fn conditional(
        &mut self,
        name: &str,
        operator: char,
        empty_is_unset: bool,
    ) -> Result<String, Problem> {
        let (word, _) = self.until(Some('}'), false)?;
        let value = self.lookup(name);
        if self.lexer.keep_unset && value.is_none() {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let present = value.clone().filter(|v| !(empty_is_unset && v.is_empty()));
        match (operator, present) {
            ('-', present) => Ok(present.unwrap_or(word)),
            ('+', present) => Ok(present.map(|_| word).unwrap_or_default()),
            (_, Some(present)) => Ok(present),
            (_, None) if !word.is_empty() => Err(format!("{name}: {word}")),
            (_, None) if value.is_some() => Err(format!("{name}: is not allowed to be empty")),
            (_, None) => Err(format!("{name}: is not allowed to be unset")),
        }
    }

    /// `${x#p}` and its three kin.
    fn trim(&mut self, name: &str, operator: char) -> Result<String, Problem> {
        let (word, _) = self.until(Some('}'), true)?;
        let Some(value) = self.lookup(name) else {
            let kept = format!("${{{name}{operator}{word}}}");
            return Ok(if self.lexer.keep_unset { kept } else { String::new() });
        };
        let (pattern, longest) = match word.strip_prefix(operator) {
            Some(pattern) => (pattern, true),
            None => (word.as_str(), false),
        };
        let pattern = compile(pattern)?;
        let chars: Vec<char> = value.chars().collect();
        Ok(match operator {
            '#' => trim_prefix(&chars, &pattern, longest),
            _ => trim_suffix(&chars, &pattern, longest),
        })
    }

    /// `${x/p/r}` and `${x//p/r}`.
    fn replace(&mut self, name: &str) -> Result<String, Problem> {
        let all = self.peek() == Some('/');
        self.at += usize::from(all);
        let (word, _) = self.until(Some('/'), true)?;
        let (replacement, _) = self.until(Some('}'), true)?;
        let Some(value) = self.lookup(name) else {
            let slash = if all { "//" } else { "/" };
            let kept = format!("${{{name}{slash}{word}/{replacement}}}");
            return Ok(if self.lexer.keep_unset { kept } else { String::new() });
        };
        let chars: Vec<char> = value.chars().collect();
        Ok(substitute(&chars, &compile(&word)?, &replacement, all))
    }
}

fn unsupported(modifier: &str) -> Problem {
    format!("unsupported modifier ({modifier}) in substitution")
}

fn compile(pattern: &str) -> Result<Pattern, Problem> {
    Pattern::shell(pattern).map_err(|why| format!("bad pattern {pattern:?} in substitution: {why}"))
}

fn trim_prefix(value: &[char], pattern: &Pattern, longest: bool) -> String {
    let ends = pattern.ends(value);
    let end = match longest {
        true => ends.iter().rposition(|reached| *reached),
        false => ends.iter().position(|reached| *reached),
    };
    value[end.unwrap_or(0)..].iter().collect()
}

fn trim_suffix(value: &[char], pattern: &Pattern, longest: bool) -> String {
    let matches = |start: &usize| pattern.ends(&value[*start..])[value.len() - start];
    let start = match longest {
        true => (0..=value.len()).find(matches),
        false => (0..=value.len()).rev().find(matches),
    };
    value[..start.unwrap_or(value.len())].iter().collect()
}

fn substitute(value: &[char], pattern: &Pattern, replacement: &str, all: bool) -> String {
    let (mut out, mut at, mut replaced, mut after_match) = (String::new(), 0, false, false);
    while at <= value.len() {
        let end = pattern.ends(&value[at..]).iter().rposition(|reached| *reached);
        match end.filter(|end| (all || !replaced) && !(*end == 0 && after_match)) {
            Some(end) => {
                out += replacement;
                (replaced, after_match) = (true, end > 0);
                at += end;
                if end > 0 {
                    continue;
                }
            }
            None => after_match = false,
        }
        out.extend(value.get(at));
        at += 1;
    }
    out
}
