//! Bytes to logical lines: continuation lines joined, comments dropped, here-documents attached.
//!
//! Every character of a logical line knows the line and column it came from, so that an error
//! in the middle of a continued instruction still names its place.

use super::Place;
use super::directive::Directives;
use super::heredoc::{self, Heredoc};
use super::words;

/// One instruction's text.
#[derive(Debug, Clone)]
pub struct Line {
    /// The text without line continuations.
    pub text: String,
    /// Offsets in `text` at which a physical line begins, with that place.
    origins: Vec<(usize, Place)>,
    /// Number of the last physical line, here-documents included.
    pub last: u32,
    /// The here-documents opened on the line.
    pub heredocs: Vec<Heredoc>,
}

impl Line {
    /// Where the character at byte `offset` stands in the file.
    pub fn place(&self, offset: usize) -> Place {
        let (start, place) = self
            .origins
            .iter()
            .rev()
            .find(|(start, _)| *start <= offset)
            .copied()
            .unwrap_or_default();
        let end = offset.min(self.text.len());
        let column = self.text[start.min(end)..end].chars().count() as u32;
        Place { line: place.line, column: place.column + column }
    }
}

/// An error and its place.
pub type Located = (Place, String);

/// A Dockerfile as logical lines.
#[derive(Debug)]
pub struct Lines {
    /// The file's parser directives.
    pub directives: Directives,
    /// The instructions, in order.
    pub lines: Vec<Line>,
    /// Lines of which the continuation was empty (allowed, and deprecated).
    pub empty_continuations: Vec<u32>,
}

/// Splits a Dockerfile's text.
pub fn split(text: &str) -> Result<Lines, Located> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        physical: text.split_inclusive('\n'),
        number: 0,
        out: Lines {
            directives: Directives::default(),
            lines: Vec::new(),
            empty_continuations: Vec::new(),
        },
    };
    reader.run()?;
    if reader.out.lines.is_empty() {
        return Err((
            Place { line: reader.number.max(1), column: 1 },
            "file with no instructions".into(),
        ));
    }
    Ok(reader.out)
}

struct Reader<'a> {
    physical: std::str::SplitInclusive<'a, char>,
    number: u32,
    out: Lines,
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn column_of(line: &str, rest: &str) -> u32 {
    (line.chars().count() - rest.chars().count()) as u32 + 1
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let line = self.physical.next()?;
        self.number += 1;
        Some(line)
    }

    fn run(&mut self) -> Result<(), Located> {
        let (mut in_directives, mut seen) = (true, Vec::new());
        while let Some(physical) = self.next() {
            let line = physical.trim_end_matches(['\r', '\n']);
            let content = line.trim_start();
            let place = Place { line: self.number, column: column_of(line, content) };
            if in_directives {
                let taken = self.out.directives.take(content, &mut seen);
                in_directives = taken.map_err(|message| (place, message))?;
            }
            if content.is_empty() || is_comment(content) {
                continue;
            }
            self.instruction(content, place)?;
        }
        Ok(())
    }

    /// Reads one instruction which begins with `first`.
    fn instruction(&mut self, first: &str, place: Place) -> Result<(), Located> {
        let escape = self.out.directives.escape;
        let mut line =
            Line { text: String::new(), origins: vec![(0, place)], last: 0, heredocs: Vec::new() };
        let mut continued = append(&mut line.text, first, escape);
        while continued {
            let Some(physical) = self.next() else { break };
            let next = physical.trim_end_matches(['\r', '\n']);
            if is_comment(next) {
                continue;
            }
            if next.trim().is_empty() {
                self.out.empty_continuations.push(self.number);
                continue;
            }
            line.origins.push((line.text.len(), Place { line: self.number, column: 1 }));
            continued = append(&mut line.text, next, escape);
        }
        if line.text.trim().is_empty() {
            return Ok(());
        }
        if words::takes_heredocs(&line.text, escape) {
            line.heredocs = heredoc::on_line(&line.text);
        }
        for document in &mut line.heredocs {
            self.body(document, place)?;
        }
        line.last = self.number;
        self.out.lines.push(line);
        Ok(())
    }

    fn body(&mut self, document: &mut Heredoc, place: Place) -> Result<(), Located> {
        while let Some(physical) = self.next() {
            if document.ends_at(physical) {
                return Ok(());
            }
            document.body += physical;
        }
        Err((place, format!("unterminated heredoc: no line holds only {:?}", document.name)))
    }
}

/// Appends a physical line without its continuation character; `true` if it had one.
///
/// An escape character ends a line as a continuation unless another one precedes it.
fn append(text: &mut String, line: &str, escape: char) -> bool {
    let trimmed = line.trim_end_matches([' ', '\t']);
    let continued = trimmed.strip_suffix(escape).filter(|before| !before.ends_with(escape));
    text.push_str(continued.unwrap_or(line));
    continued.is_some()
}
