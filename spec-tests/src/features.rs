//! The table of features: what a complete runtime does, the tests that prove it, and for each a
//! place in the sources where it can be broken to see its test red.
//!
//! `features/rows.txt` lists the rows; `features/*.json` hold arrays of entries:
//!
//! ```text
//! { "row": "config: domainname", "tests": ["kernel::the_domainname_is_set"],
//!   "break": { "file": "runtime/src/init.rs", "find": "text that occurs once", "replace": "" } }
//! ```
//!
//! An entry whose row is not in rows.txt is a row of its own, after the others of its kind.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One entry of the table.
#[derive(Debug, Clone)]
pub struct Feature {
    /// `kind: words`, where the kind is one of [`KINDS`].
    pub row: String,
    /// Tests as `target::function`; the first is the one that [`Feature::breakage`] turns red.
    pub tests: Vec<String>,
    /// How to disable the feature.
    pub breakage: Option<Breakage>,
    /// The file that holds the entry.
    pub origin: String,
}

/// A one-place edit that disables a feature.
#[derive(Debug, Clone)]
pub struct Breakage {
    /// The source file, from the top of the repository.
    pub file: PathBuf,
    /// What stands there, once.
    pub find: String,
    /// What stands there when the feature is disabled.
    pub replace: String,
}

/// The kinds of rows, in the table's order, with their headings.
pub const KINDS: [(&str, &str); 4] = [
    ("CLI", "The command line"),
    ("config", "config.json"),
    ("caller", "What callers pass, parse and match"),
    ("hardening", "Attacks"),
];

/// Where the generated part of the document begins and ends.
const BEGIN: &str = "<!-- begin: written by `make features` -->\n";
const END: &str = "<!-- end: written by `make features` -->\n";

/// The top of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("spec-tests lies in it").to_owned()
}

/// Reads all entries, in the order of their files.
///
/// # Errors
/// A sentence that names the file which cannot be read or understood.
pub fn read(top: &Path) -> Result<Vec<Feature>, String> {
    let dir = top.join("spec-tests/features");
    let entries = fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|ext| ext == "json"));
    files.sort();
    let mut features = Vec::new();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).map_err(|e| format!("{name}: {e}"))?;
        let list: Vec<Value> = serde_json::from_str(&text).map_err(|e| format!("{name}: {e}"))?;
        for entry in &list {
            features
                .push(parse(entry, &name).ok_or_else(|| format!("{name}: malformed: {entry}"))?);
        }
    }
    Ok(features)
}

fn parse(entry: &Value, origin: &str) -> Option<Feature> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let breakage = match &entry["break"] {
        Value::Null => None,
        edit => Some(Breakage {
            file: text(&edit["file"])?.into(),
            find: text(&edit["find"])?,
            replace: text(&edit["replace"])?,
        }),
    };
    Some(Feature {
        row: text(&entry["row"])?,
        tests: entry["tests"].as_array()?.iter().map(text).collect::<Option<_>>()?,
        breakage,
        origin: origin.into(),
    })
}

/// The rows that must be covered.
///
/// # Errors
/// When rows.txt cannot be read.
pub fn rows(top: &Path) -> Result<Vec<String>, String> {
    let path = top.join("spec-tests/features/rows.txt");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let lines = text.lines().map(str::trim);
    Ok(lines.filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect())
}

/// Everything that is wrong with the table, one sentence each.
pub fn complaints(top: &Path, features: &[Feature], rows: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for feature in features {
        let place = format!("{}: {:?}", feature.origin, feature.row);
        let kind = feature.row.split(':').next().unwrap_or_default();
        if !KINDS.iter().any(|(known, _)| *known == kind) {
            found.push(format!("{place}: {kind:?} is no kind of row"));
        }
        if feature.tests.is_empty() {
            found.push(format!("{place}: no test"));
        }
        let missing = feature.tests.iter().filter(|test| !exists(top, test));
        found.extend(missing.map(|test| format!("{place}: there is no test {test}")));
        if let Some(edit) = &feature.breakage
            && let Err(e) = edit.edited(top)
        {
            found.push(format!("{place}: {e}"));
        }
    }
    let covered = |row: &&String| !features.iter().any(|feature| feature.row == **row);
    found.extend(rows.iter().filter(covered).map(|row| format!("rows.txt: {row:?}: blank")));
    found
}

/// Is there a function of this name under `#[test]` in the sources of the test program?
fn exists(top: &Path, test: &str) -> bool {
    let Some((target, function)) = test.rsplit_once("::") else { return false };
    let target = target.split("::").next().unwrap_or_default();
    let files = [
        format!("spec-tests/tests/{target}.rs"),
        format!("spec-tests/clients/{target}.rs"),
        format!("spec-tests/tests/{target}/main.rs"),
    ];
    let text = files.iter().find_map(|file| fs::read_to_string(top.join(file)).ok());
    let Some(text) = text else { return false };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declared = format!("fn {function}(");
    let at = lines.iter().position(|line| line.starts_with(&declared));
    at.is_some_and(|at| lines[..at].iter().rev().take(3).any(|line| *line == "#[test]"))
}

impl Breakage {
    /// The source file's text with the feature disabled.
    ///
    /// # Errors
    /// When the file cannot be read, or the place is not there exactly once.
    pub fn edited(&self, top: &Path) -> Result<String, String> {
        let path = top.join(&self.file);
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        match text.matches(&self.find).count() {
            1 if self.find != self.replace => Ok(text.replace(&self.find, &self.replace)),
            1 => Err("the edit changes nothing".into()),
            n => Err(format!("{}: {:?} occurs {n} times", self.file.display(), self.find)),
        }
    }
}

/// The document with its generated part made anew.
///
/// # Errors
/// When docs/conformance.md cannot be read or lacks the two marks.
pub fn document(top: &Path) -> Result<(String, String), String> {
    let path = top.join("docs/conformance.md");
    let old = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let marks =
        old.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let (head, tail) = marks.ok_or("docs/conformance.md: the marks are missing")?;
    let new = format!("{head}{BEGIN}{}{END}{tail}", table(&read(top)?, &rows(top)?));
    Ok((old, new))
}

/// The table in Markdown: a section for each kind, a line for each row.
pub fn table(features: &[Feature], rows: &[String]) -> String {
    let mut by_row: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for feature in features {
        let tests = by_row.entry(&feature.row).or_default();
        for test in &feature.tests {
            if !tests.contains(&test.as_str()) {
                tests.push(test);
            }
        }
    }
    let own = by_row.keys().copied().filter(|row| !rows.iter().any(|known| known == row));
    let order: Vec<&str> = rows.iter().map(String::as_str).chain(own).collect();
    let mut out = String::new();
    for (kind, heading) in KINDS {
        out += &format!("\n### {heading}\n\n| row | tests | command |\n|---|---|---|\n");
        for row in &order {
            let words = row.strip_prefix(kind).and_then(|rest| rest.strip_prefix(':'));
            if let (Some(words), Some(tests)) = (words, by_row.get(row)) {
                out += &line(words.trim(), tests);
            }
        }
    }
    out
}

fn line(words: &str, tests: &[&str]) -> String {
    let mut commands: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for test in tests {
        let (target, function) = test.split_once("::").unwrap_or((test, ""));
        commands.entry(target).or_default().push(function);
    }
    let names = tests.iter().map(|test| format!("`{test}`")).collect::<Vec<_>>().join(", ");
    let commands = commands
        .iter()
        .map(|(target, list)| {
            format!("`cargo test -p spec-tests --test {target} -- {}`", list.join(" "))
        })
        .collect::<Vec<_>>()
        .join("; ");
    format!("| {} | {names} | {commands} |\n", words.replace('|', "\\|"))
}

/// The positions of up to `count` entries that can be broken, drawn without repetition.
///
/// The same seed draws the same ones from the same table (a linear congruential generator).
pub fn draw(features: &[Feature], seed: u64, count: usize) -> Vec<usize> {
    let mut left: Vec<usize> =
        (0..features.len()).filter(|i| features[*i].breakage.is_some()).collect();
    let mut state = seed;
    let mut drawn = Vec::new();
    while drawn.len() < count && !left.is_empty() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (state >> 33) as usize % left.len();
        drawn.push(left.swap_remove(at));
    }
    drawn
}
