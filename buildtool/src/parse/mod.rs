//! Dockerfile text to typed instructions: bytes -> logical lines -> words -> instructions.
//!
//! Nothing is skipped: an instruction, flag or directive which is not understood is an error
//! that names its file, line and column.

pub mod directive;
pub mod flags;
pub mod heredoc;
pub mod instruction;
mod lines;
pub mod mount;
pub mod suggest;
mod typed;
mod words;

pub use directive::Directives;
pub use heredoc::Heredoc;
pub use instruction::{CommandLine, From, Healthcheck, Instruction, Kind, Network, Run, Transfer};

use crate::error::{Error, Result};

/// A line and column, both counted from 1 (columns in characters).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Place {
    /// Line number.
    pub line: u32,
    /// Column number.
    pub column: u32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A parsed Dockerfile.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// The file's name, as messages show it.
    pub name: String,
    /// Its parser directives.
    pub directives: Directives,
    /// Its instructions, in order.
    pub instructions: Vec<Instruction>,
    /// What is allowed and deprecated, one message each.
    pub warnings: Vec<String>,
}

/// The largest Dockerfile that is read, in bytes.
pub const MAX_SIZE: u64 = 4 << 20;

/// Parses the bytes of the Dockerfile `name`.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Dockerfile> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        Error::new(format!("{name}:{line}:1: the file is not UTF-8 text"))
    })?;
    let at = |(place, message): lines::Located| Error::new(format!("{name}:{place}: {message}"));
    let lines = lines::split(text).map_err(at)?;
    let escape = lines.directives.escape;
    let instructions: Result<Vec<_>> = lines
        .lines
        .iter()
        .map(|line| {
            typed::instruction(line, escape)
                .map_err(|(offset, message)| at((line.place(offset), message)))
        })
        .collect();
    Ok(Dockerfile {
        name: name.to_owned(),
        instructions: instructions?,
        warnings: lines
            .empty_continuations
            .iter()
            .map(|line| {
                format!("{name}:{line}: empty continuation line: remove it, or make it a comment")
            })
            .collect(),
        directives: lines.directives,
    })
}

/// Parses one ONBUILD trigger, at `place` of the file `name`.
pub fn trigger(name: &str, place: Place, text: &str) -> Result<Instruction> {
    let located = |message: String| {
        Error::new(format!("{name}:{place}: ONBUILD trigger {text:?}: {message}"))
    };
    let lines = lines::split(text).map_err(|(_, message)| located(message))?;
    let [line] = lines.lines.as_slice() else {
        return Err(located("a trigger is exactly one instruction".into()));
    };
    let mut instruction =
        typed::instruction(line, '\\').map_err(|(_, message)| located(message))?;
    if matches!(instruction.kind, Kind::From(_) | Kind::Onbuild(_) | Kind::Maintainer(_)) {
        return Err(located("FROM, ONBUILD and MAINTAINER can not be triggers".into()));
    }
    instruction.place = place;
    Ok(instruction)
}
