//! COPY and ADD, resolved.

use super::{Action, Effect, Resolver, absolute, body_lexer};
use crate::parse;
use crate::plan::Source;

/// A file whose content stands in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inline {
    /// Its name.
    pub name: String,
    /// Its content.
    pub content: String,
}

/// A COPY or ADD with everything expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// `COPY` or `ADD`, for messages.
    pub verb: &'static str,
    /// Where the sources are; `None` is the build context.
    pub from: Option<Source>,
    /// Source patterns.
    pub sources: Vec<String>,
    /// Here-documents.
    pub files: Vec<Inline>,
    /// Absolute; a directory when it ends in `/`.
    pub destination: String,
    /// `--chown=`.
    pub chown: Option<String>,
    /// `--chmod=`.
    pub chmod: Option<String>,
    /// `--exclude=`, each.
    pub exclude: Vec<String>,
    /// `--link`.
    pub link: bool,
    /// Are archives unpacked?
    pub unpack: bool,
}

impl Resolver<'_> {
    pub(super) fn transfer(&mut self, transfer: &parse::Transfer, add: bool) -> Effect {
        let optional =
            |text: &Option<String>| text.as_deref().map(|text| self.expand(text)).transpose();
        let all = |texts: &[String]| {
            texts.iter().map(|text| self.expand(text)).collect::<Result<Vec<_>, _>>()
        };
        let resolved = Transfer {
            verb: if add { "ADD" } else { "COPY" },
            from: self.from(transfer.from.as_deref())?,
            sources: all(&transfer.sources)?,
            files: transfer.files.iter().map(|file| self.inline(file)).collect::<Result<_, _>>()?,
            destination: destination(&self.cwd(), &self.expand(&transfer.destination)?),
            chown: optional(&transfer.chown)?.filter(|text| !text.is_empty()),
            chmod: optional(&transfer.chmod)?.filter(|text| !text.is_empty()),
            exclude: all(&transfer.exclude)?,
            link: transfer.link,
            unpack: transfer.unpack.unwrap_or(add),
        };
        if let Some(empty) = resolved.sources.iter().position(String::is_empty) {
            return Err(format!("source {:?} is empty after expansion", transfer.sources[empty]));
        }
        Ok((resolved.created_by(&self.expand(&transfer.destination)?), Action::Transfer(resolved)))
    }

    fn inline(&self, file: &parse::Heredoc) -> Result<Inline, String> {
        if file.name.contains('/') || file.name == ".." || file.name == "." {
            return Err(format!(
                "a here-document's delimiter names the file and can not be a path: {:?}",
                file.name
            ));
        }
        let content = file.content();
        Ok(Inline {
            name: file.name.clone(),
            content: match file.expand {
                true => body_lexer().text(&content, &self.scope)?,
                false => content,
            },
        })
    }
}

impl Transfer {
    fn created_by(&self, destination: &str) -> String {
        let mut text = self.verb.to_owned();
        for (flag, value) in [("chown", &self.chown), ("chmod", &self.chmod)] {
            if let Some(value) = value {
                text += &format!(" --{flag}={value}");
            }
        }
        for source in &self.sources {
            text += &format!(" {source}");
        }
        for file in &self.files {
            text += &format!(" <<{}", file.name);
        }
        format!("{text} {destination}")
    }
}

/// Absolute, with a trailing slash if `path` says that it is a directory.
fn destination(cwd: &str, path: &str) -> String {
    let clean = absolute(cwd, path);
    let directory = path.is_empty()
        || [".", ".."].contains(&path)
        || path.ends_with('/')
        || path.ends_with("/.");
    match directory && clean != "/" {
        true => clean + "/",
        false => clean,
    }
}
