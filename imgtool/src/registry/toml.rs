//! What registries.conf(5) uses of TOML 1.0: tables and arrays of tables, and as values strings of
//! one line, booleans, arrays and inline tables. Anything else (numbers, times, strings of several
//! lines) is an error that names its line.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// How deep values may lie in each other.
const DEPTH: usize = 16;

/// Reads a whole file into its top table.
pub(super) fn parse(text: &str) -> Result<Map<String, Value>> {
    let mut reader = Reader { text, at: 0 };
    let mut top = Map::new();
    reader.file(&mut top).map_err(|what| {
        let line = text[..reader.at].matches('\n').count() + 1;
        Error::new(format!("line {line}: {what}"))
    })?;
    Ok(top)
}

struct Reader<'a> {
    text: &'a str,
    /// How much of the text is read, in bytes.
    at: usize,
}

/// What is wrong where the reader stands.
type Read<T> = std::result::Result<T, &'static str>;

impl Reader<'_> {
    fn file(&mut self, top: &mut Map<String, Value>) -> Read<()> {
        let mut table: Vec<String> = Vec::new();
        loop {
            self.skip(true);
            if self.rest().is_empty() {
                return Ok(());
            }
            if self.eat("[[") {
                table = self.keys()?;
                self.expect("]]", "expected \"]]\"")?;
                let (last, path) = table.split_last().expect("a key is never empty");
                let list = inside(top, path)?
                    .entry(last.as_str())
                    .or_insert_with(|| Value::from([(); 0].as_slice()));
                list.as_array_mut().ok_or("this is no array of tables")?.push(Map::new().into());
            } else if self.eat("[") {
                table = self.keys()?;
                self.expect("]", "expected \"]\"")?;
                inside(top, &table)?;
            } else {
                let pair = self.pair(0)?;
                insert(inside(top, &table)?, pair)?;
            }
            self.skip(false);
            if !self.rest().is_empty() {
                self.expect("\n", "expected the end of the line")?;
            }
        }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str, otherwise: &'static str) -> Read<()> {
        self.skip(false);
        self.eat(token).then_some(()).ok_or(otherwise)
    }

    /// Skips space and comments; ends of lines, too, if asked to.
    fn skip(&mut self, lines: bool) {
        loop {
            let rest = self.rest();
            let comment = match rest.starts_with('#') {
                true => rest.find('\n').unwrap_or(rest.len()),
                false => 0,
            };
            let rest = &rest[comment..];
            let space = |c: char| matches!(c, ' ' | '\t') || (lines && c == '\n');
            let mut left = rest.trim_start_matches(space);
            // A carriage return belongs to the end of its line.
            if left.starts_with("\r\n") {
                left = &left[1..];
            }
            let skipped = comment + rest.len() - left.len();
            self.at += skipped;
            if skipped == 0 {
                return;
            }
        }
    }

    fn pair(&mut self, depth: usize) -> Read<(Vec<String>, Value)> {
        let keys = self.keys()?;
        self.expect("=", "expected \"=\"")?;
        self.skip(false);
        Ok((keys, self.value(depth)?))
    }

    /// A key and what dots add to it.
    fn keys(&mut self) -> Read<Vec<String>> {
        let mut keys = Vec::new();
        loop {
            self.skip(false);
            keys.push(match self.string()? {
                Some(key) => key,
                None => self.bare_key()?,
            });
            self.skip(false);
            if !self.eat(".") {
                return Ok(keys);
            }
            if keys.len() == DEPTH {
                return Err("values lie too deep in each other");
            }
        }
    }

    fn bare_key(&mut self) -> Read<String> {
        let rest = self.rest();
        let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let key = rest[..rest.find(|c| !is_bare(c)).unwrap_or(rest.len())].to_owned();
        self.at += key.len();
        if key.is_empty() { Err("expected a key") } else { Ok(key) }
    }

    fn value(&mut self, depth: usize) -> Read<Value> {
        if depth == DEPTH {
            return Err("values lie too deep in each other");
        }
        if let Some(text) = self.string()? {
            return Ok(text.into());
        }
        for (word, value) in [("true", true), ("false", false)] {
            if self.eat(word) {
                return Ok(value.into());
            }
        }
        match () {
            () if self.eat("[") => self.array(depth + 1),
            () if self.eat("{") => self.table(depth + 1),
            () => Err("expected a string, true, false, an array or a table"),
        }
    }

    fn array(&mut self, depth: usize) -> Read<Value> {
        let mut all = Vec::new();
        loop {
            self.skip(true);
            if self.eat("]") {
                return Ok(all.into());
            }
            all.push(self.value(depth)?);
            self.skip(true);
            if !self.eat(",") && !self.rest().starts_with(']') {
                return Err("expected \",\" or \"]\"");
            }
        }
    }

    fn table(&mut self, depth: usize) -> Read<Value> {
        let mut all = Map::new();
        self.skip(false);
        if self.eat("}") {
            return Ok(all.into());
        }
        loop {
            insert(&mut all, self.pair(depth)?)?;
            self.skip(false);
            if self.eat("}") {
                return Ok(all.into());
            }
            self.expect(",", "expected \",\" or \"}\"")?;
        }
    }

    /// A string in either quotes, if one begins here.
    fn string(&mut self) -> Read<Option<String>> {
        let quote = match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => quote,
            _ => return Ok(None),
        };
        self.at += 1;
        let mut text = String::new();
        loop {
            let c = self.rest().chars().next().ok_or("a string without end")?;
            match c {
                '\n' => return Err("a string without end"),
                _ if c.is_ascii_control() && c != '\t' => {
                    return Err("a control character in a string");
                }
                _ => self.at += c.len_utf8(),
            }
            match c {
                _ if c == quote => return Ok(Some(text)),
                '\\' if quote == '"' => text.push(self.escaped()?),
                _ => text.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Read<char> {
        let bad = "an escape that TOML does not have";
        let c = self.rest().bytes().next().ok_or(bad)?;
        let digits = match c {
            b'u' => 4,
            b'U' => 8,
            _ => 0,
        };
        let plain =
            [b'b', b't', b'n', b'f', b'r', b'"', b'\\'].iter().position(|known| *known == c);
        if digits == 0 {
            let found = ['\x08', '\t', '\n', '\x0c', '\r', '"', '\\'][plain.ok_or(bad)?];
            self.at += 1;
            return Ok(found);
        }
        let code = self.rest().get(1..=digits).ok_or(bad)?;
        let is_hex = code.bytes().all(|b| b.is_ascii_hexdigit());
        let code = u32::from_str_radix(code, 16).ok().filter(|_| is_hex).and_then(char::from_u32);
        self.at += 1 + digits;
        code.ok_or(bad)
    }
}

/// The table at a path, made if it is missing; of an array of tables, the last.
fn inside<'a>(
    top: &'a mut Map<String, Value>,
    path: &[String],
) -> Read<&'a mut Map<String, Value>> {
    let mut table = top;
    for key in path {
        let mut next = table.entry(key.as_str()).or_insert_with(|| Map::new().into());
        if let Value::Array(all) = next {
            next = all.last_mut().ok_or("this is no table")?;
        }
        table = next.as_object_mut().ok_or("this is no table")?;
    }
    Ok(table)
}

fn insert(table: &mut Map<String, Value>, (keys, value): (Vec<String>, Value)) -> Read<()> {
    let (last, path) = keys.split_last().expect("a key is never empty");
    match inside(table, path)?.insert(last.clone(), value) {
        None => Ok(()),
        Some(_) => Err("this key was there before"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_the_manual_shows() {
        let text = "# a comment\nlist = [\"a\", # one\n 'b\\', ]\r\n\n[[registry]]\nprefix=\"\\u0061\\\"\\t\"\t# x\n\
                    blocked = true\n[[registry.mirror]]\nlocation = \"m\"\n[[registry]]\n\
                    mirror = [{ location = 'x', insecure = false }, {}]\n[registry.\"a.b\"]\nc.d = \"\"\n\
                    [aliases]\n\"x/y\" = \"r.io/x\"";
        let read = json!({
            "list": ["a", "b\\"],
            "registry": [
                {"prefix": "a\"\t", "blocked": true, "mirror": [{"location": "m"}]},
                {"mirror": [{"location": "x", "insecure": false}, {}], "a.b": {"c": {"d": ""}}},
            ],
            "aliases": {"x/y": "r.io/x"},
        });
        assert_eq!(Value::from(parse(text).unwrap()), read);
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn what_it_does_not_know_is_an_error_with_its_line() {
        let dotted = format!("{}x = true", "x.".repeat(100_000));
        let deep = format!("x = {}", "[".repeat(100_000));
        for (text, error) in [
            ("\n\nx = 7\n", "line 3: expected a string, true, false, an array or a table"),
            ("x = \"a\" \"b\"", "line 1: expected the end of the line"),
            ("x = \"\"\"a\"\"\"", "line 1: expected the end of the line"),
            ("x = \"a\n\"", "line 1: a string without end"),
            ("x = \"\\x\"", "line 1: an escape that TOML does not have"),
            ("x = \"\\ud800\"", "line 1: an escape that TOML does not have"),
            ("x = \"\\u+041\"", "line 1: an escape that TOML does not have"),
            ("x = \"\\ué00\"", "line 1: an escape that TOML does not have"),
            ("x = \"\u{1}\"", "line 1: a control character in a string"),
            ("x = true\nx = true", "line 2: this key was there before"),
            ("x = true\n[x]\n", "line 2: this is no table"),
            ("[x]\n[[x]]", "line 2: this is no array of tables"),
            ("x = [true true]", "line 1: expected \",\" or \"]\""),
            ("x = {a = true b", "line 1: expected \",\" or \"}\""),
            ("[x", "line 1: expected \"]\""),
            ("[[x]", "line 1: expected \"]]\""),
            ("= true", "line 1: expected a key"),
            ("x true", "line 1: expected \"=\""),
            ("é = true", "line 1: expected a key"),
            (&deep, "line 1: values lie too deep in each other"),
            (&dotted, "line 1: values lie too deep in each other"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), error, "{text:.40}");
        }
    }
}
