//! Values in GVariant's text format (GLib, "GVariant Text Format"), as annotations
//! `org.systemd.property.NAME` hold them: `true`, `'text'`, `uint64 5`, `['a', 'b']`, `@as []`.
//!
//! `nothing` and `just` are refused, since D-Bus has no "maybe" types, and so are dictionaries, since
//! no unit has a property of such a type.

use super::bus::Value;
use crate::error::{Error, Result};
use rustbus::params::{Array, Base, Container, Param, Variant};
use rustbus::signature::{self, Type};

/// Parses the whole of `text`.
pub fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    let value = parser.value(None)?;
    parser.skip_blanks();
    match parser.rest() {
        "" => Ok(value),
        rest => Err(parser.wrong(&format!("{rest:?} follows the value"))),
    }
}

/// Types that a keyword names.
const KEYWORDS: [(&str, &str); 13] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("handle", "h"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn wrong(&self, why: &str) -> Error {
        Error::new(format!("{:?} is no value in GVariant's text format: {why}", self.text))
    }

    fn skip_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Takes `word` if it comes next.
    fn take(&mut self, word: &str) -> bool {
        self.skip_blanks();
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        match self.take(word) {
            true => Ok(()),
            false => Err(self.wrong(&format!("{word:?} is missing before {:?}", self.rest()))),
        }
    }

    /// The longest word of letters, digits and `allowed`.
    fn word(&mut self, allowed: &str) -> &'a str {
        self.skip_blanks();
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !allowed.contains(c));
        let word = &rest[..end.unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn value(&mut self, wanted: Option<&Type>) -> Result<Value> {
        self.depth += 1;
        if self.depth > 16 {
            return Err(self.wrong("it is nested too deep"));
        }
        self.skip_blanks();
        let value = match self.rest().chars().next() {
            None => Err(self.wrong("it ends too early")),
            Some('[') => self.array(wanted),
            Some('(') => self.tuple(wanted),
            Some('{') => Err(self.wrong("no property of a unit is a dictionary")),
            Some('<') => self.variant(),
            Some('\'' | '"') => {
                let text = self.string()?;
                self.typed_text(text, wanted)
            }
            Some('@') => {
                self.at += 1;
                let kind = self.signature()?;
                self.value(Some(&kind))
            }
            Some(_) => self.plain(wanted),
        }?;
        self.depth -= 1;
        match wanted {
            Some(kind) if *kind != value.sig() => Err(self.wrong("an element is of another type")),
            _ => Ok(value),
        }
    }

    fn signature(&mut self) -> Result<Type> {
        let text = self.word("(){}");
        // The text's own brackets may follow the type at once: `@as[]` has none, `@(s)('x')` has.
        for end in (1..=text.len()).rev().filter(|end| text.is_char_boundary(*end)) {
            if let Ok(types) = Type::parse_description(&text[..end])
                && let [only] = types.as_slice()
            {
                self.at -= text.len() - end;
                return Ok(only.clone());
            }
        }
        Err(self.wrong(&format!("{text:?} is no type")))
    }

    /// A number, a boolean, or a type's keyword and a value.
    fn plain(&mut self, wanted: Option<&Type>) -> Result<Value> {
        let word = self.word("+-._");
        if let Some((_, kind)) = KEYWORDS.iter().find(|(name, _)| *name == word) {
            let kind = base_type(kind);
            return self.value(Some(&kind));
        }
        match word {
            "true" | "false" => Ok(Param::Base(Base::Boolean(word == "true"))),
            "nothing" | "just" => Err(self.wrong("D-Bus has no maybe types")),
            _ => self.number(word, wanted),
        }
    }

    fn number(&self, word: &str, wanted: Option<&Type>) -> Result<Value> {
        let unlike = || self.wrong(&format!("{word:?} is no number of the type"));
        let kind = match wanted {
            Some(Type::Base(kind)) => *kind,
            Some(_) => return Err(unlike()),
            None if word.contains('.') => signature::Base::Double,
            None => signature::Base::Int32,
        };
        if kind == signature::Base::Double {
            let number: f64 = word.parse().map_err(|_| unlike())?;
            return Ok(Param::Base(Base::Double(number.to_bits())));
        }
        let number = integer(word).ok_or_else(unlike)?;
        let fits = "the number does not fit its type";
        let small = |_| self.wrong(fits);
        let base = match kind {
            signature::Base::Byte => Base::Byte(number.try_into().map_err(small)?),
            signature::Base::Int16 => Base::Int16(number.try_into().map_err(small)?),
            signature::Base::Uint16 => Base::Uint16(number.try_into().map_err(small)?),
            signature::Base::Int32 => Base::Int32(number.try_into().map_err(small)?),
            signature::Base::Uint32 => Base::Uint32(number.try_into().map_err(small)?),
            signature::Base::Int64 => Base::Int64(number.try_into().map_err(small)?),
            signature::Base::Uint64 => Base::Uint64(number.try_into().map_err(small)?),
            _ => return Err(unlike()),
        };
        Ok(Param::Base(base))
    }

    fn typed_text(&self, text: String, wanted: Option<&Type>) -> Result<Value> {
        Ok(Param::Base(match wanted {
            Some(Type::Base(signature::Base::ObjectPath)) => Base::ObjectPath(text),
            Some(Type::Base(signature::Base::Signature)) => Base::Signature(text),
            _ => Base::String(text),
        }))
    }

    /// A quoted text, with C's escapes.
    fn string(&mut self) -> Result<String> {
        let mut chars = self.rest().char_indices();
        let (_, quote) = chars.next().ok_or_else(|| self.wrong("a quote is missing"))?;
        let mut out = String::new();
        while let Some((i, c)) = chars.next() {
            if c == quote {
                self.at += i + 1;
                return Ok(out);
            }
            if c != '\\' {
                out.push(c);
                continue;
            }
            match chars.next().map(|(_, c)| c) {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('a') => out.push('\u{7}'),
                Some('b') => out.push('\u{8}'),
                Some('f') => out.push('\u{c}'),
                Some('v') => out.push('\u{b}'),
                Some(kind @ ('u' | 'U')) => {
                    let count = if kind == 'u' { 4 } else { 8 };
                    let digits: String = chars.by_ref().take(count).map(|(_, c)| c).collect();
                    let found = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                    out.push(found.ok_or_else(|| self.wrong("an escape is no character"))?);
                }
                Some(other) => out.push(other),
                None => break,
            }
        }
        Err(self.wrong("a quote is not closed"))
    }

    fn array(&mut self, wanted: Option<&Type>) -> Result<Value> {
        let mut element = match wanted {
            Some(Type::Container(signature::Container::Array(element))) => {
                Some((**element).clone())
            }
            Some(_) => return Err(self.wrong("an array stands where another type is wanted")),
            None => None,
        };
        let values = self.list("[", "]", |parser, _| {
            let value = parser.value(element.as_ref())?;
            element.get_or_insert_with(|| value.sig());
            Ok(value)
        })?;
        let element_sig =
            element.ok_or_else(|| self.wrong("an empty array needs a type, such as @as []"))?;
        Ok(Param::Container(Container::Array(Array { element_sig, values })))
    }

    fn tuple(&mut self, wanted: Option<&Type>) -> Result<Value> {
        let kinds: Option<Vec<Type>> = match wanted {
            Some(Type::Container(signature::Container::Struct(kinds))) => {
                Some(kinds.as_ref().to_vec())
            }
            Some(_) => return Err(self.wrong("a tuple stands where another type is wanted")),
            None => None,
        };
        let values = self.list("(", ")", |parser, i| {
            parser.value(kinds.as_ref().and_then(|kinds| kinds.get(i)))
        })?;
        if values.is_empty() {
            return Err(self.wrong("D-Bus has no empty tuples"));
        }
        Ok(Param::Container(Container::Struct(values)))
    }

    fn variant(&mut self) -> Result<Value> {
        self.expect("<")?;
        let value = self.value(None)?;
        self.expect(">")?;
        let sig = value.sig();
        Ok(Param::Container(Container::Variant(Box::new(Variant { sig, value }))))
    }

    /// Elements between brackets; a comma may follow the last.
    fn list<T>(
        &mut self,
        open: &str,
        close: &str,
        mut one: impl FnMut(&mut Self, usize) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.expect(open)?;
        let mut all = Vec::new();
        while !self.take(close) {
            all.push(one(self, all.len())?);
            if !self.take(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(all)
    }
}

fn base_type(kind: &str) -> Type {
    let types = Type::parse_description(kind).expect("the keywords' types are types");
    types.into_iter().next().expect("each is one type")
}

/// Decimal, hexadecimal (`0x`) or octal (`0`), with a sign.
fn integer(word: &str) -> Option<i128> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, word.strip_prefix('+').unwrap_or(word)),
    };
    // from_str_radix would take a second sign.
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let number = match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
        (Some(hex), _) => i128::from_str_radix(hex, 16).ok()?,
        (None, Some(octal)) if !octal.is_empty() => i128::from_str_radix(octal, 8).ok()?,
        _ => digits.parse().ok()?,
    };
    Some(sign * number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature_of(text: &str) -> String {
        let mut out = String::new();
        parse(text).unwrap().make_signature(&mut out);
        out
    }

    #[test]
    fn values_have_the_types_that_glib_gives_them() {
        for (text, kind) in [
            ("37", "i"),
            ("-1", "i"),
            ("0x1F", "i"),
            ("1.5", "d"),
            ("true", "b"),
            ("'a b'", "s"),
            ("\"x\"", "s"),
            ("uint64 10000000", "t"),
            ("byte 7", "y"),
            ("@t 5", "t"),
            ("objectpath '/a'", "o"),
            ("['a', 'b']", "as"),
            ("@as []", "as"),
            ("@au [1, 2]", "au"),
            ("[uint32 1, 2]", "au"),
            ("('a', uint64 1)", "(st)"),
            ("[('/dev/null', 'rwm')]", "a(ss)"),
            ("@a(st) [('/', 1)]", "a(st)"),
            ("<'x'>", "v"),
            ("  5 ", "i"),
        ] {
            assert_eq!(signature_of(text), kind, "{text}");
        }
    }

    #[test]
    fn values_are_what_is_written() {
        assert_eq!(
            parse("uint64 18446744073709551615").unwrap(),
            Param::Base(Base::Uint64(u64::MAX))
        );
        assert_eq!(
            parse(r"'a\'\n\u00e9'").unwrap(),
            Param::Base(Base::String("a'\n\u{e9}".into()))
        );
        assert_eq!(parse("-0x10").unwrap(), Param::Base(Base::Int32(-16)));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for bad in [
            "",
            "x",
            "'x",
            "[1, 'a']",
            "[]",
            "byte 256",
            "uint64 -1",
            "1 2",
            "()",
            "nothing",
            "@zz 1",
            "[1",
            "{'a'}",
            "int32 2147483648",
            "--1",
            "@s 1",
            "string 1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&"[".repeat(100)).is_err());
    }
}
