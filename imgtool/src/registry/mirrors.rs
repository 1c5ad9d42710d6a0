//! Where the images of a name really are (containers-registries.conf(5), version 2).
//!
//! Of all `[[registry]]` tables the one with the longest matching prefix counts: it may send the
//! name elsewhere (`location`), offer mirrors to read from first, block it, or allow doing without
//! verified TLS. Short names are not looked up: they are Docker's here.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Options, toml};
use crate::order;
use crate::reference::Reference;
use crate::{Context, Error, Result};

/// A repository as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `HOST[:PORT]`.
    pub(super) domain: String,
    /// The repository there.
    pub(super) path: String,
    /// Whether any certificate, or none, will do.
    pub(super) insecure: bool,
}

#[derive(Clone, Debug)]
struct Table {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug)]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

/// Where to look for an image, in order; the last is its own registry.
pub(super) fn endpoints(name: &Reference, options: &Options) -> Result<Vec<Endpoint>> {
    let tables = read(options)?;
    choose(&tables, name)
}

fn choose(tables: &[Table], name: &Reference) -> Result<Vec<Endpoint>> {
    let own = Endpoint {
        domain: name.domain().to_owned(),
        path: name.path().to_owned(),
        insecure: false,
    };
    let found = tables.iter().filter_map(|t| Some((matched(&t.prefix, name)?, t)));
    let Some((matched, table)) = found.max_by_key(|(len, _)| *len) else { return Ok(vec![own]) };
    if table.blocked {
        return Err(Error::new(format!(
            "registries.conf blocks \"{}\", to which {} belongs",
            table.prefix,
            name.repository()
        )));
    }
    let by_digest = name.digest().is_some();
    let wanted = |m: &&Mirror| match &*m.pull_from_mirror {
        "digest-only" => by_digest,
        "tag-only" => !by_digest,
        _ => by_digest || !table.mirror_by_digest_only,
    };
    let rest = &name.repository()[matched..];
    let mut all = Vec::new();
    for mirror in table.mirror.iter().filter(wanted) {
        all.push(located(&mirror.location, rest, mirror.insecure)?);
    }
    all.push(match table.location.is_empty() || table.prefix.starts_with("*.") {
        true => Endpoint { insecure: table.insecure, ..own },
        false => located(&table.location, rest, table.insecure)?,
    });
    Ok(all)
}

/// How much of a repository's name a prefix covers: whole components only. `*.x.org` covers every
/// host below x.org.
fn matched(prefix: &str, name: &Reference) -> Option<usize> {
    let repository = name.repository();
    if let Some(parent) = prefix.strip_prefix('*').filter(|p| p.starts_with('.')) {
        return name.domain().ends_with(parent).then(|| name.domain().len());
    }
    let rest = repository.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

fn located(location: &str, rest: &str, insecure: bool) -> Result<Endpoint> {
    let text = format!("{location}{rest}");
    let known = Reference::parse(&text).wrap(|| format!("location \"{location}\""))?;
    if !text.starts_with(known.domain()) {
        return Err(Error::new(format!("location \"{location}\" does not begin with a host")));
    }
    Ok(Endpoint { domain: known.domain().to_owned(), path: known.path().to_owned(), insecure })
}

/// All tables of the file that counts and of its drop-ins, which come later and replace those of
/// the same prefix.
fn read(options: &Options) -> Result<Vec<Table>> {
    let mut tables: Vec<Table> = Vec::new();
    for path in files(options)? {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e)
                if e.kind() == std::io::ErrorKind::NotFound
                    && options.registries_conf.is_none() =>
            {
                continue;
            }
            Err(e) => return Err(Error::from(e).wrap(format!("read {}", path.display()))),
        };
        for table in parse(&text).wrap(|| path.display().to_string())? {
            tables.retain(|t| t.prefix != table.prefix);
            tables.push(table);
        }
    }
    Ok(tables)
}

fn parse(text: &str) -> Result<Vec<Table>> {
    // A file of short names alone, as distributions have it, need not be parsed.
    if !text.lines().any(|line| line.trim_start().starts_with("[[registry")) {
        return Ok(Vec::new());
    }
    let complete = |fields: &Map<String, Value>| {
        let mut t = Table::new(fields)?;
        if t.prefix.is_empty() {
            t.prefix.clone_from(&t.location);
        }
        match t.prefix.is_empty() || t.mirror.iter().any(|m| m.location.is_empty()) {
            true => Err(Error::new("a [[registry]] or mirror without a location")),
            false => Ok(t),
        }
    };
    tables(&toml::parse(text)?, "registry")?.into_iter().map(complete).collect()
}

impl Table {
    fn new(fields: &Map<String, Value>) -> Result<Table> {
        Ok(Table {
            prefix: string(fields, "prefix")?,
            location: string(fields, "location")?,
            insecure: boolean(fields, "insecure")?,
            blocked: boolean(fields, "blocked")?,
            mirror_by_digest_only: boolean(fields, "mirror-by-digest-only")?,
            mirror: tables(fields, "mirror")?
                .into_iter()
                .map(Mirror::new)
                .collect::<Result<_>>()?,
        })
    }
}

impl Mirror {
    fn new(fields: &Map<String, Value>) -> Result<Mirror> {
        Ok(Mirror {
            location: string(fields, "location")?,
            insecure: boolean(fields, "insecure")?,
            pull_from_mirror: string(fields, "pull-from-mirror")?,
        })
    }
}

fn string(fields: &Map<String, Value>, key: &str) -> Result<String> {
    let text = fields.get(key).map_or(Some(""), Value::as_str);
    Ok(text.ok_or_else(|| Error::new(format!("{key}: expected a string")))?.to_owned())
}

fn boolean(fields: &Map<String, Value>, key: &str) -> Result<bool> {
    let value = fields.get(key).map_or(Some(false), Value::as_bool);
    value.ok_or_else(|| Error::new(format!("{key}: expected true or false")))
}

fn tables<'a>(fields: &'a Map<String, Value>, key: &str) -> Result<Vec<&'a Map<String, Value>>> {
    let list = fields.get(key).map_or(Some(&[][..]), |v| v.as_array().map(Vec::as_slice));
    let tables = list.and_then(|list| list.iter().map(Value::as_object).collect());
    tables.ok_or_else(|| Error::new(format!("{key}: expected tables, [[{key}]]")))
}

/// `--registries-conf`, else `$CONTAINERS_REGISTRIES_CONF`, else the user's or else the system's
/// file, and the `*.conf` of both directories beside them.
fn files(options: &Options) -> Result<Vec<PathBuf>> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(path) = &options.registries_conf {
        return Ok(vec![path.clone()]);
    }
    if let Some(path) = var("CONTAINERS_REGISTRIES_CONF") {
        return Ok(vec![path]);
    }
    let config = var("XDG_CONFIG_HOME").or_else(|| Some(var("HOME")?.join(".config")));
    let dirs = [Some(PathBuf::from("/etc/containers")), config.map(|c| c.join("containers"))];
    let dirs: Vec<PathBuf> = dirs.into_iter().flatten().collect();
    let main = dirs.iter().rev().map(|d| d.join("registries.conf")).find(|p| p.exists());
    let mut all: Vec<PathBuf> = main.into_iter().collect();
    for dir in &dirs {
        all.extend(drop_ins(&dir.join("registries.conf.d"))?);
    }
    Ok(all)
}

fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::from(e).wrap(format!("read {}", dir.display()))),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.wrap(|| format!("read {}", dir.display()))?.path());
    }
    paths.retain(|p| p.extension().is_some_and(|e| e == "conf"));
    order::sort(&mut paths);
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = r#"
unqualified-search-registries = ["example.com"]
[[registry]]
prefix = "r.io"
location = "s.io:5000/copy"
[[registry.mirror]]
location = "m.io/r"
insecure = true
[[registry.mirror]]
location = "d.io"
pull-from-mirror = "digest-only"
[[registry]]
location = "r.io/team"
blocked = true
[[registry]]
prefix = "*.lab.example"
insecure = true
"#;

    fn chosen(name: &str) -> Result<Vec<(String, bool)>> {
        let found = choose(&parse(CONF).unwrap(), &Reference::parse(name).unwrap())?;
        Ok(found.into_iter().map(|e| (format!("{}/{}", e.domain, e.path), e.insecure)).collect())
    }

    fn plain(names: &[&str]) -> Vec<(String, bool)> {
        names.iter().map(|n| (n.trim_end_matches('!').to_owned(), n.ends_with('!'))).collect()
    }

    #[test]
    fn the_longest_prefix_decides() {
        assert_eq!(chosen("r.io/a:1").unwrap(), plain(&["m.io/r/a!", "s.io:5000/copy/a"]));
        let e = chosen("r.io/team/x").unwrap_err().to_string();
        assert!(e.contains("blocks \"r.io/team\""), "{e}");
        assert_eq!(chosen("r.io/teams").unwrap().len(), 2);
        assert_eq!(chosen("r.io.evil/x").unwrap(), plain(&["r.io.evil/x"]));
        assert_eq!(chosen("a.lab.example/x").unwrap(), plain(&["a.lab.example/x!"]));
        assert_eq!(chosen("lab.example/x").unwrap(), plain(&["lab.example/x"]));
        let digest = crate::digest::Digest::sha256(b"x");
        assert_eq!(chosen(&format!("r.io/a@{digest}")).unwrap()[1].0, "d.io/a");
    }

    #[test]
    fn refuses_what_it_cannot_follow() {
        assert!(parse("[[registry]]\nblocked = true\n").is_err());
        assert!(parse("[[registry]]\nlocation = \"x\"\n[[registry.mirror]]\n").is_err());
        let refusal = |text: &str| parse(text).unwrap_err().to_string();
        let known = "expected a string, true, false, an array or a table";
        assert_eq!(refusal("[[registry]]\nlocation = x\n"), format!("line 2: {known}"));
        assert_eq!(refusal("[[registry]]\nlocation = true\n"), "location: expected a string");
        assert_eq!(refusal("[[registry]]\nblocked = \"\"\n"), "blocked: expected true or false");
        let mirror = "[[registry]]\nmirror = [\"x\"]\n";
        assert_eq!(refusal(mirror), "mirror: expected tables, [[mirror]]");
        assert_eq!(parse("[aliases]\n\"x\" = \"r.io/x\"\n").unwrap().len(), 0);
    }
}
