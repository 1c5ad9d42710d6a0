//! One logical line to its command, flags and arguments.

use serde_json::Value;

/// A piece of a line and the byte offset at which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The text.
    pub text: String,
    /// Offset in the logical line.
    pub at: usize,
}

/// A line split at its first level.
#[derive(Debug, Clone)]
pub struct Command<'a> {
    /// The instruction's name as written.
    pub name: Word,
    /// `--name=value` words, quotes and escapes resolved.
    pub flags: Vec<Word>,
    /// What is left, trimmed.
    pub rest: &'a str,
    /// Where `rest` begins.
    pub rest_at: usize,
}

/// Splits `NAME --flag=… rest`, beginning at byte `from` of `line`.
pub fn command(line: &str, from: usize, escape: char) -> Command<'_> {
    let start = from + (line[from..].len() - line[from..].trim_start().len());
    let end = line[start..].find(char::is_whitespace).map_or(line.len(), |n| start + n);
    let name = Word { text: line[start..end].to_owned(), at: start };
    let (flags, at) = flags(line, end, escape);
    let rest = line[at..].trim_start();
    Command { name, flags, rest_at: line.len() - rest.len(), rest: rest.trim_end() }
}

/// Reads leading `--` words; returns them and where they end. A bare `--` ends them.
fn flags(line: &str, from: usize, escape: char) -> (Vec<Word>, usize) {
    let (mut flags, mut at) = (Vec::new(), from);
    loop {
        at += line[at..].len() - line[at..].trim_start().len();
        if !line[at..].starts_with("--") {
            return (flags, at);
        }
        let (text, end) = unquoted(line, at, escape);
        if text == "--" {
            return (flags, end);
        }
        flags.push(Word { text, at });
        at = end;
    }
}

/// One word from `at`, its quotes and escapes resolved, and where it ends.
fn unquoted(line: &str, at: usize, escape: char) -> (String, usize) {
    let (mut text, mut quote) = (String::new(), None);
    let mut chars = line[at..].char_indices();
    while let Some((i, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (text, at + i),
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ if c == escape => text.extend(chars.next().map(|(_, c)| c)),
            _ => text.push(c),
        }
    }
    (text, line.len())
}

/// May this line open here-documents? (RUN, COPY, ADD, also after ONBUILD; not in JSON form.)
pub fn takes_heredocs(line: &str, escape: char) -> bool {
    let mut command = self::command(line, 0, escape);
    if command.name.text.eq_ignore_ascii_case("onbuild") {
        command = self::command(line, command.rest_at, escape);
    }
    let takes =
        ["run", "copy", "add"].iter().any(|name| command.name.text.eq_ignore_ascii_case(name));
    takes && line.contains("<<") && !matches!(json(command.rest), Ok(Some(_)))
}

/// A JSON array of strings: `Ok(None)` when `rest` is not a JSON array at all.
pub fn json(rest: &str) -> Result<Option<Vec<String>>, String> {
    if !rest.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<Value>>(rest) else {
        return Ok(None);
    };
    let strings = values.into_iter().map(|value| match value {
        Value::String(text) => Ok(text),
        other => Err(format!("when using JSON array syntax, arrays must be comprised of strings only: {other} is none")),
    });
    strings.collect::<Result<_, _>>().map(Some)
}

/// Splits at white space, nothing else being special.
pub fn plain(rest: &str, rest_at: usize) -> Vec<Word> {
    rest.split([' ', '\t', '\u{b}', '\u{c}', '\r'])
        .filter(|word| !word.is_empty())
        .map(|word| Word {
            text: word.to_owned(),
            at: rest_at + (word.as_ptr() as usize - rest.as_ptr() as usize),
        })
        .collect()
}

/// Splits at white space outside quotes; quotes and escapes stay in the words.
pub fn quoted(rest: &str, rest_at: usize, escape: char) -> Vec<Word> {
    let (mut words, mut quote) = (Vec::new(), None);
    let mut current: Option<Word> = None;
    let mut chars = rest.char_indices();
    while let Some((i, c)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            words.extend(current.take());
            continue;
        }
        let word = current.get_or_insert_with(|| Word { text: String::new(), at: rest_at + i });
        if c == escape && quote != Some('\'') {
            if let Some((_, escaped)) = chars.next() {
                word.text.extend([c, escaped]);
            }
            continue;
        }
        match quote {
            Some(q) if c == q => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            _ => {}
        }
        word.text.push(c);
    }
    words.extend(current.filter(|word| !word.text.is_empty()));
    words
}
