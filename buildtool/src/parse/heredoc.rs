//! Here-documents: `<<EOF`, `<<-EOF`, `<<"EOF"`, several on one line, with descriptor numbers.

use crate::expand::{Lexer, NoEnv};

/// One here-document of an instruction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heredoc {
    /// The delimiter without quotes; COPY uses it as the file's name.
    pub name: String,
    /// `false` when the delimiter was quoted: COPY then takes the body literally.
    pub expand: bool,
    /// `<<-`: leading tabs are removed.
    pub chomp: bool,
    /// The body, line ends included.
    pub body: String,
}

impl Heredoc {
    /// The body as its reader sees it: without leading tabs after `<<-`.
    pub fn content(&self) -> String {
        if !self.chomp {
            return self.body.clone();
        }
        self.body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }

    /// Does this physical line end the document?
    pub fn ends_at(&self, line: &str) -> bool {
        let line = line.trim_end_matches(['\r', '\n']);
        let line = if self.chomp { line.trim_start_matches('\t') } else { line };
        line == self.name
    }
}

/// Reads a word such as `<<EOF` or `3<<-"EOF"`; `None` when it is not a here-document.
pub fn parse(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start();
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let plain = Lexer { keep_unset: true, ..Lexer::new('\\') };
    let name = single(&plain, rest)?;
    let raw = single(&Lexer { raw_quotes: true, ..plain }, rest)?;
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    Some(Heredoc { expand: quotes(&name) == quotes(&raw), name, chomp, body: String::new() })
}

fn single(lexer: &Lexer, text: &str) -> Option<String> {
    let mut words = lexer.expand(text, &NoEnv).ok()?.words;
    (words.len() == 1).then(|| words.remove(0))
}

/// The here-documents which a logical line opens, in order.
pub fn on_line(line: &str) -> Vec<Heredoc> {
    let lexer = Lexer { raw_quotes: true, raw_escapes: true, keep_unset: true, ..Lexer::new('\\') };
    let words = lexer.expand(line, &NoEnv).map(|e| e.words).unwrap_or_default();
    words.iter().filter_map(|word| parse(word)).collect()
}
