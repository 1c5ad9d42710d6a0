//! `.dockerignore`: which paths of the context do not exist for the build.
//!
//! Patterns are matched against paths relative to the context's root; a pattern which matches a
//! directory matches what is below it. `!` takes a path back in, and the last pattern that
//! matches decides, so a directory which is excluded may still hold files that are not.

use crate::error::{Context, Error, Result};
use crate::pattern::Pattern;

/// One line of the file.
#[derive(Debug)]
struct Rule {
    pattern: Pattern,
    exception: bool,
}

/// A parsed `.dockerignore`.
#[derive(Debug, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

/// Which rules matched a directory: what is below it inherits them.
#[derive(Debug, Clone, Default)]
pub struct Inherited(Vec<bool>);

impl Ignore {
    /// Parses the text of the file `name`.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let rule = Self::rule(line.trim());
            rules.extend(rule.map_err(Error::new).wrap(|| format!("{name}:{}", number + 1))?);
        }
        Ok(Self { rules })
    }

    /// The matcher of `--exclude` patterns.
    pub fn of_patterns(patterns: &[String]) -> Result<Self> {
        let rules: std::result::Result<Vec<_>, _> =
            patterns.iter().map(|p| Self::rule(p.trim())).collect();
        Ok(Self { rules: rules.map_err(Error::new)?.into_iter().flatten().collect() })
    }

    fn rule(line: &str) -> std::result::Result<Option<Rule>, String> {
        let (exception, pattern) = match line.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        if pattern.is_empty() {
            return match exception {
                true => Err("illegal exclusion pattern \"!\": it takes nothing back in".into()),
                false => Ok(None),
            };
        }
        let clean = clean(pattern);
        let compiled =
            Pattern::ignore(&clean).map_err(|why| format!("bad pattern {pattern:?}: {why}"))?;
        Ok(Some(Rule { pattern: compiled, exception }))
    }

    /// Is any rule an exception? If not, an ignored directory need not be entered.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.exception)
    }

    /// Is `path` ignored? `parent` is what its directory returned; the second value is for
    /// what is below `path`.
    pub fn check(&self, path: &str, parent: &Inherited) -> (bool, Inherited) {
        let mut ignored = false;
        let mut matched = Vec::with_capacity(self.rules.len());
        for (index, rule) in self.rules.iter().enumerate() {
            let inherited = parent.0.get(index).copied().unwrap_or(false);
            let matches = inherited || rule.exception == ignored && rule.pattern.matches(path);
            if matches {
                ignored = !rule.exception;
            }
            matched.push(matches);
        }
        (ignored, Inherited(matched))
    }
}

/// Go's `filepath.Clean`, and no leading slash: `/foo` and `foo` are the same.
fn clean(pattern: &str) -> String {
    let rooted = pattern.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match parts.is_empty() {
        true => ".".to_owned(),
        false => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(rules: &str, path: &str) -> bool {
        let ignore = Ignore::parse(".dockerignore", rules).unwrap();
        let mut inherited = Inherited::default();
        let mut result = false;
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            (result, inherited) = ignore.check(&path[..end], &inherited);
        }
        result
    }

    /// The examples of the documentation ("Build context", ".dockerignore files").
    #[test]
    fn the_documented_examples() {
        for (rules, path, expected) in [
            ("*/temp*", "somedir/temporary.txt", true),
            ("*/temp*", "somedir/temp/x", true),
            ("*/temp*", "temp", false),
            ("*/*/temp*", "somedir/subdir/temporary.txt", true),
            ("*/*/temp*", "somedir/temp", false),
            ("temp?", "tempa", true),
            ("temp?", "temp", false),
            ("**/*.go", "a.go", true),
            ("**/*.go", "x/y/a.go", true),
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n!README.md", "other.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README.md", false),
            ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", false),
            ("# comment\n\n/foo/bar", "foo/bar", true),
            ("foo/bar", "foo/bar/deep/er", true),
            ("foo\n!foo/keep", "foo/keep", false),
            ("foo\n!foo/keep", "foo/lose", true),
            ("**", "anything/at/all", true),
            ("**\n!a/b", "a/b", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**", "a/x", true),
            ("a/**", "a", false),
            ("**/foo", "barfoo", false),
            ("**foo", "x/barfoo", true),
            ("./x/../y", "y", true),
            ("  spaced  ", "spaced", true),
            ("#literal", "#literal", false),
        ] {
            assert_eq!(ignored(rules, path), expected, "{rules:?} {path}");
        }
    }

    #[test]
    fn bad_patterns_name_their_line() {
        let error = Ignore::parse(".dockerignore", "a\n[").unwrap_err().to_string();
        assert!(error.starts_with(".dockerignore:2: bad pattern \"[\""), "{error}");
        assert!(Ignore::parse(".dockerignore", "!").is_err());
    }
}
