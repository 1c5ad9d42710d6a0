//! Image references: `[domain/]path[:tag][@digest]`, by the grammar of distribution/reference,
//! completed as Docker completes them: `busybox` is `docker.io/library/busybox:latest`.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::{Error, Result};

const DEFAULT_DOMAIN: &str = "docker.io";
const MAX_PATH: usize = 255;
const MAX_TAG: usize = 128;

/// A complete reference: it has a domain, and a tag, a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses and completes a reference; the tag becomes `latest` if there is neither tag nor
    /// digest.
    pub fn parse(text: &str) -> Result<Reference> {
        Reference::parse_inner(text)
            .map_err(|why| Error::new(format!("invalid reference \"{text}\": {why}")))
    }

    fn parse_inner(text: &str) -> Result<Reference, String> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, d)) => (rest, Some(Digest::parse(d).map_err(|e| e.to_string())?)),
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        if name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("64 hexadecimal digits are an image id, not a name".into());
        }
        let (domain, path) = split_domain(name);
        check_domain(domain)?;
        check_path(&path)?;
        tag.map_or(Ok(()), check_tag)?;
        let tag = match (tag, &digest) {
            (None, None) => Some("latest"),
            (tag, _) => tag,
        };
        Ok(Reference { domain: domain.into(), path, tag: tag.map(Into::into), digest })
    }

    /// Host and optional port of the registry: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if it was given or completed.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if it was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Domain and path, without tag and digest.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// What a registry is asked for: the digest if there is one, else the tag.
    pub fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| "latest".into()),
        }
    }

    /// The same repository by another digest and no tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The short form that people write: `busybox:latest`. It always stands for the same name:
    /// `docker.io/quay.io/a` stays as it is.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let rest = full.strip_prefix("docker.io/");
        let shorter = rest.and_then(|rest| rest.strip_prefix("library/"));
        let same = |short: &&str| Reference::parse(short).is_ok_and(|name| name == *self);
        let short = [shorter, rest].into_iter().flatten().find(same);
        short.unwrap_or(&full).to_owned()
    }
}

/// A colon after the last slash starts the tag; one before it belongs to a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// The first component is a domain if it has a dot, a colon or an upper-case letter, or is
/// `localhost`; everything else is on docker.io, in `library/` when it is a single word.
fn split_domain(name: &str) -> (&str, String) {
    let is_domain = |s: &str| {
        s.contains(['.', ':']) || s == "localhost" || s.bytes().any(|b| b.is_ascii_uppercase())
    };
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if is_domain(first) => (first, rest),
        _ => (DEFAULT_DOMAIN, name),
    };
    match domain {
        "docker.io" | "index.docker.io" if !path.contains('/') => {
            (DEFAULT_DOMAIN, format!("library/{path}"))
        }
        "index.docker.io" => (DEFAULT_DOMAIN, path.to_owned()),
        _ => (domain, path.to_owned()),
    }
}

fn check_domain(domain: &str) -> Result<(), String> {
    let bad = || format!("\"{domain}\" is not a host with an optional port");
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let (v6, rest) = rest.split_once(']').ok_or_else(bad)?;
            v6.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
            (
                "v6",
                if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(bad)?) },
            )
        }
        None => domain.split_once(':').map_or((domain, None), |(h, p)| (h, Some(p))),
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let port_ok = |p: &str| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok();
    if host.split('.').all(label) && port.is_none_or(port_ok) { Ok(()) } else { Err(bad()) }
}

fn check_path(path: &str) -> Result<(), String> {
    if path == "library/" || path.is_empty() {
        return Err("the name is empty".into());
    }
    if path.len() > MAX_PATH {
        return Err(format!("the name is longer than {MAX_PATH} characters"));
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the name must be lower-case".into());
    }
    match path.split('/').find(|c| !is_component(c)) {
        None => Ok(()),
        Some("") => Err("the name has an empty component".into()),
        Some(bad) => Err(format!("\"{bad}\" is not a name component")),
    }
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = text;
    loop {
        let word = rest.len() - rest.trim_start_matches(alphanumeric).len();
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest.len() - rest.trim_start_matches(|c: char| !alphanumeric(c)).len();
        match &rest[..separator] {
            "." | "_" | "__" => {}
            dashes if dashes.bytes().all(|b| b == b'-') => {}
            _ => return false,
        }
        rest = &rest[separator..];
    }
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
fn check_tag(tag: &str) -> Result<(), String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let ok = tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if ok { Ok(()) } else { Err(format!("\"{tag}\" is not a tag")) }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        self.tag.as_ref().map_or(Ok(()), |t| write!(f, ":{t}"))?;
        self.digest.as_ref().map_or(Ok(()), |d| write!(f, "@{d}"))
    }
}

impl FromStr for Reference {
    type Err = Error;
    fn from_str(text: &str) -> Result<Reference> {
        Reference::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn full(text: &str) -> String {
        Reference::parse(text).unwrap().to_string()
    }

    #[test]
    fn completes_as_docker_does() {
        for (given, complete) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/busybox:1", "docker.io/library/busybox:1"),
            ("library/busybox", "docker.io/library/busybox:latest"),
            ("me/app", "docker.io/me/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("127.0.0.1:5000/a/b:x", "127.0.0.1:5000/a/b:x"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("[2001:db8::1]/app", "[2001:db8::1]/app:latest"),
            ("quay.io/a/b__c.d---e", "quay.io/a/b__c.d---e:latest"),
            ("UPPER/app", "UPPER/app:latest"),
            ("busybox:5000", "docker.io/library/busybox:5000"),
        ] {
            assert_eq!(full(given), complete);
        }
    }

    #[test]
    fn keeps_tag_and_digest() {
        assert_eq!(full(&format!("a:1@{D}")), format!("docker.io/library/a:1@{D}"));
        assert_eq!(full(&format!("a@{D}")), format!("docker.io/library/a@{D}"));
        assert_eq!(Reference::parse(&format!("a:1@{D}")).unwrap().target(), D);
    }

    #[test]
    fn familiar_is_short() {
        assert_eq!(Reference::parse("busybox").unwrap().familiar(), "busybox:latest");
        assert_eq!(Reference::parse("me/a:1").unwrap().familiar(), "me/a:1");
        assert_eq!(Reference::parse("q.io/a:1").unwrap().familiar(), "q.io/a:1");
        // Shorter they would be others.
        for full in ["docker.io/q.io/a:1", "docker.io/localhost/a:1"] {
            assert_eq!(Reference::parse(full).unwrap().familiar(), full);
        }
        let nested = Reference::parse("docker.io/library/me/a:1").unwrap();
        assert_eq!(nested.familiar(), "library/me/a:1");
    }

    #[test]
    fn refuses_what_the_grammar_refuses() {
        let long = "a".repeat(256);
        let hex64 = "a".repeat(64);
        let long_tag = format!("a:{}", "t".repeat(129));
        for bad in [
            "",
            ":",
            "a:",
            "@",
            "a@",
            "/a",
            "a/",
            "a//b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a.-b",
            "Busybox",
            "a b",
            "a:b c",
            "a:-x",
            "a:.x",
            "a@sha256:00",
            "host.:5000/a",
            "a:b:c",
            "a.b:70000/x",
            "a.b:x/y",
            "[::1/a",
            "[zz]/a",
            "https://a.b/c",
            "a\n",
            "ä",
            "../a",
            &long,
            &hex64,
            &long_tag,
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let e = Reference::parse("Foo").unwrap_err().to_string();
        assert_eq!(e, "invalid reference \"Foo\": the name must be lower-case");
    }
}
