//! The shape of a crate's sources: which modules use which, and how long functions and files are.
//!
//! It reads the text as rustfmt leaves it, which is enough: a function ends at the brace that
//! stands as far left as its first line, and a module is used where a path leads into it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One source file, without its tests.
#[derive(Debug)]
pub struct Source {
    /// The path below the crate's `src`.
    pub file: PathBuf,
    /// The module, as `a::b`; empty for lib.rs.
    pub module: String,
    /// The lines, without comments.
    lines: Vec<String>,
    /// How many lines the file has, comments included.
    pub length: usize,
}

/// Reads all sources of a crate but `main.rs` and test modules in files of their own.
///
/// # Errors
/// The path that cannot be read.
pub fn read(src: &Path) -> Result<Vec<Source>, String> {
    let mut sources = Vec::new();
    let mut directories = vec![src.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries =
            fs::read_dir(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match () {
                () if path.is_dir() => directories.push(path),
                () if name == "main.rs" || name == "tests.rs" || !name.ends_with(".rs") => {}
                () => sources.push(source(src, &path)?),
            }
        }
    }
    sources.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(sources)
}

fn source(src: &Path, path: &Path) -> Result<Source, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let whole: Vec<&str> = text.lines().take_while(|line| *line != "#[cfg(test)]").collect();
    let file = path.strip_prefix(src).unwrap_or(path).to_owned();
    let module = file.with_extension("").to_string_lossy().replace('/', "::");
    let module = match module.as_str() {
        "lib" => String::new(),
        other => other.strip_suffix("::mod").unwrap_or(other).to_owned(),
    };
    let code = |line: &&&str| !line.trim_start().starts_with("//");
    let lines = whole.iter().filter(code).map(|line| (*line).to_owned()).collect();
    Ok(Source { file, module, lines, length: whole.len() })
}

impl Source {
    /// The name and length of each function.
    pub fn functions(&self) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        for (at, line) in self.lines.iter().enumerate() {
            let Some(name) = function_name(line) else { continue };
            let indent = line.len() - line.trim_start().len();
            let end = format!("{}}}", " ".repeat(indent));
            let body = &self.lines[at..];
            // A declaration without a body, in a trait or an extern block, has no length.
            let bodiless = body.iter().position(|l| l.ends_with(';') || l.ends_with('{'));
            if bodiless.is_some_and(|n| body[n].ends_with(';') && !body[n].contains('{')) {
                continue;
            }
            let one_line = line.ends_with('}');
            let length =
                if one_line { 0 } else { body.iter().position(|l| *l == end).unwrap_or(0) };
            found.push((name.to_owned(), length + 1));
        }
        found
    }

    /// The modules among `known` that the code has paths into.
    pub fn uses(&self, known: &BTreeSet<String>) -> BTreeSet<String> {
        let text = self.lines.join("\n");
        let mut paths = Vec::new();
        for (at, _) in text.match_indices("crate::") {
            if !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                expand(&text[at + "crate::".len()..], "", &mut paths);
            }
        }
        let mut up = self.module.clone();
        let mut word = String::from("super::");
        while let Some((parent, _)) = up.clone().rsplit_once("::") {
            for (at, _) in text.match_indices(&word) {
                if !text[..at].ends_with("super::") && !text[at + word.len()..].starts_with("super")
                {
                    expand(&text[at + word.len()..], &format!("{parent}::"), &mut paths);
                }
            }
            up = parent.to_owned();
            word += "super::";
        }
        paths.iter().filter_map(|path| longest(path, known)).filter(|m| *m != self.module).collect()
    }
}

fn function_name(line: &str) -> Option<&str> {
    let mut words = line.trim_start();
    for prefix in ["pub ", "pub(crate) ", "pub(super) ", "const ", "unsafe ", "extern \"C\" "] {
        words = words.strip_prefix(prefix).unwrap_or(words);
    }
    let rest = words.strip_prefix("fn ")?;
    rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// The paths that a `use` tree, or a path in an expression, stands for.
fn expand(text: &str, prefix: &str, paths: &mut Vec<String>) {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if let Some(rest) = rest.strip_prefix("::") {
        return expand(rest, &format!("{prefix}{word}::"), paths);
    }
    if word.is_empty()
        && let Some(list) = text.strip_prefix('{')
    {
        for part in split_group(list) {
            expand(part, prefix, paths);
        }
        return;
    }
    let word = if word == "self" { "" } else { word };
    paths.push(format!("{prefix}{word}").trim_end_matches("::").to_owned());
}

/// The parts of a brace group, whose opening brace is gone already.
fn split_group(list: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&list[from..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn longest(path: &str, known: &BTreeSet<String>) -> Option<String> {
    let mut path = path;
    loop {
        if known.contains(path) {
            return Some(path.to_owned());
        }
        path = path.rsplit_once("::")?.0;
    }
}

/// Which top-level module uses which, a directory with all that is in it being one.
pub fn graph(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let top = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
    let known: BTreeSet<String> =
        sources.iter().map(|s| s.module.clone()).filter(|m| !m.is_empty()).collect();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.module.is_empty()) {
        let from = top(&source.module);
        let used =
            source.uses(&known).iter().map(|m| top(m)).filter(|to| *to != from).collect::<Vec<_>>();
        graph.entry(from).or_default().extend(used);
    }
    graph
}

/// The modules that lie on cycles: those that can be reached from themselves.
pub fn cycles(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let on_cycle = |start: &&String| {
        let mut todo: Vec<&String> = graph[*start].iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(module) = todo.pop() {
            if module == *start {
                return true;
            }
            if seen.insert(module) {
                todo.extend(graph.get(module).into_iter().flatten());
            }
        }
        false
    };
    graph.keys().filter(on_cycle).cloned().collect()
}

/// Median, 90th percentile and maximum.
pub fn spread(mut lengths: Vec<usize>) -> (usize, usize, usize) {
    lengths.sort_unstable();
    let at = |percent: usize| lengths.get(lengths.len().saturating_sub(1) * percent / 100).copied();
    (at(50).unwrap_or(0), at(90).unwrap_or(0), at(100).unwrap_or(0))
}
