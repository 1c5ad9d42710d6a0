//! Credentials from the files that `podman login` and `docker login` write, and from the helpers
//! that they name (containers-auth.json(5); docker-credential-helpers).
//!
//! The files are searched in order; in each, a helper for the registry, then the longest matching
//! key of `auths` (`host/namespace/repository` down to `host`), then the general helper.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Context, Error, Result};

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// An OAuth2 refresh token.
    Identity(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(secret)")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AuthFile {
    auths: Map<String, Value>,
    cred_helpers: Map<String, Value>,
    creds_store: Option<String>,
}

/// Docker's name of its own registry in credential files.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// The credentials for a repository, if there are any.
pub(super) fn find(
    domain: &str,
    repository: &str,
    only: Option<&Path>,
) -> Result<Option<Credentials>> {
    for path in files(only) {
        let file = match std::fs::read(&path) {
            Ok(bytes) => parse(&path, &bytes).wrap(|| format!("read {}", path.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && only.is_none() => continue,
            Err(e) => return Err(Error::from(e).wrap(format!("read {}", path.display()))),
        };
        let found = look_up(&file, domain, repository)
            .wrap(|| format!("credentials for {domain} in {}", path.display()))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The files that are searched, first the one that is written.
pub(super) fn files(only: Option<&Path>) -> Vec<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(path) = only {
        return vec![path.to_owned()];
    }
    if let Some(path) = var("REGISTRY_AUTH_FILE") {
        return vec![path];
    }
    let home = var("HOME");
    let in_home = |rest: &str| home.as_ref().map(|h| h.join(rest));
    let runtime = var("XDG_RUNTIME_DIR").unwrap_or_else(|| {
        format!("/run/containers/{}", rustix::process::getuid().as_raw()).into()
    });
    let runtime = match runtime.starts_with("/run/containers") {
        true => runtime.join("auth.json"),
        false => runtime.join("containers/auth.json"),
    };
    [
        Some(runtime),
        var("XDG_CONFIG_HOME")
            .or_else(|| in_home(".config"))
            .map(|d| d.join("containers/auth.json")),
        var("DOCKER_CONFIG").or_else(|| in_home(".docker")).map(|d| d.join("config.json")),
        in_home(".dockercfg"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `.dockercfg` is the `auths` object alone.
fn parse(path: &Path, bytes: &[u8]) -> Result<AuthFile> {
    match path.file_name().is_some_and(|n| n == ".dockercfg") {
        true => Ok(AuthFile { auths: serde_json::from_slice(bytes)?, ..AuthFile::default() }),
        false => Ok(serde_json::from_slice(bytes)?),
    }
}

/// Whether two keys of credential files mean the same.
pub(super) fn same_key(a: &str, b: &str) -> bool {
    let hub = |key: &str| candidates("docker.io", "").iter().skip(1).any(|c| c == key);
    let (a, b) = (normalise(a), normalise(b));
    a == b || (hub(a) && hub(b))
}

/// The name by which helper programs know a key.
fn server(key: &str) -> &str {
    if key == "docker.io" { DOCKER_KEY } else { key }
}

fn look_up(file: &AuthFile, domain: &str, repository: &str) -> Result<Option<Credentials>> {
    let general = file.creds_store.as_deref().filter(|s| !s.is_empty());
    for key in candidates(domain, repository) {
        if let Some(helper) = file.cred_helpers.get(&key).and_then(Value::as_str) {
            return Helper::new(helper, &key)?.get();
        }
        let entry = file.auths.iter().find(|(k, _)| normalise(k) == key).map(|(_, v)| v);
        let found = match (entry, general) {
            (None, _) => None,
            (Some(entry), None) => decode(entry)?,
            // An entry without anything says that the helper knows.
            (Some(entry), Some(helper)) => match decode(entry)? {
                None => Helper::new(helper, &key)?.get()?,
                found => found,
            },
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    match general {
        Some(helper) => Helper::new(helper, domain)?.get(),
        None => Ok(None),
    }
}

/// `host/a/b`, `host/a`, `host`; Docker's registry under each of its names.
fn candidates(domain: &str, repository: &str) -> Vec<String> {
    let mut keys = vec![format!("{domain}/{repository}")];
    while let Some((shorter, _)) = keys.last().and_then(|k| k.rsplit_once('/')) {
        keys.push(shorter.to_owned());
    }
    if domain == "docker.io" {
        keys.extend(["index.docker.io", "registry-1.docker.io"].map(str::to_owned));
    }
    keys
}

/// A key with a scheme is an old one, whose path (`/v1/`) says nothing.
fn normalise(key: &str) -> &str {
    match key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")) {
        Some(rest) => rest.split('/').next().unwrap_or(rest),
        None => key.trim_end_matches('/'),
    }
}

/// An entry without anything stands for "ask the helper".
fn decode(entry: &Value) -> Result<Option<Credentials>> {
    let text = |key: &str| entry[key].as_str().filter(|s| !s.is_empty());
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credentials::Identity(token.to_owned())));
    }
    if let (Some(user), Some(password)) = (text("username"), text("password")) {
        return Ok(Some(Credentials::Password { user: user.into(), password: password.into() }));
    }
    let Some(auth) = text("auth") else { return Ok(None) };
    let bad = || Error::new("\"auth\" is not the base64 of USER:PASSWORD");
    let plain = BASE64_STANDARD.decode(auth.trim()).map_err(|_| bad())?;
    let plain = String::from_utf8(plain).map_err(|_| bad())?;
    let (user, password) = plain.split_once(':').ok_or_else(bad)?;
    let password = password.trim_end_matches('\0');
    Ok(Some(Credentials::Password { user: user.into(), password: password.into() }))
}

/// A program that keeps credentials for a server: `docker-credential-NAME get|store|erase`.
#[derive(Debug)]
pub(super) struct Helper {
    program: String,
    server: String,
}

impl std::fmt::Display for Helper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.program)
    }
}

impl Helper {
    /// `name` comes from a file and must not lead anywhere else than into `$PATH`.
    pub(super) fn new(name: &str, key: &str) -> Result<Helper> {
        let program = format!("docker-credential-{name}");
        match name.contains('/') {
            true => Err(Error::new(format!("\"{program}\" is not a program name"))),
            false => Ok(Helper { program, server: server(key).to_owned() }),
        }
    }

    /// What it knows; that it knows nothing is no error.
    fn get(&self) -> Result<Option<Credentials>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer {
            username: String,
            secret: String,
        }
        let output = self.run("get", self.server.as_bytes())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout);
            return match said.contains("credentials not found") {
                true => Ok(None),
                false => Err(self.failed(&output)),
            };
        }
        let answer: Answer =
            serde_json::from_slice(&output.stdout).wrap(|| format!("{self}'s answer"))?;
        Ok(Some(match &*answer.username {
            "<token>" => Credentials::Identity(answer.secret),
            _ => Credentials::Password { user: answer.username, password: answer.secret },
        }))
    }

    /// Makes it keep a password, in place of the one that it has.
    pub(super) fn store(&self, user: &str, password: &str) -> Result<()> {
        let json = serde_json::json!({
            "ServerURL": self.server, "Username": user, "Secret": password,
        });
        self.tell("store", json.to_string().as_bytes())
    }

    /// Makes it forget what it has.
    pub(super) fn erase(&self) -> Result<()> {
        self.tell("erase", self.server.as_bytes())
    }

    fn tell(&self, verb: &str, input: &[u8]) -> Result<()> {
        let output = self.run(verb, input)?;
        if output.status.success() { Ok(()) } else { Err(self.failed(&output)) }
    }

    fn run(&self, verb: &str, input: &[u8]) -> Result<std::process::Output> {
        let mut child = Command::new(&self.program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .wrap(|| format!("run {self}"))?;
        // A helper that does not read is about to tell us why.
        drop(child.stdin.take().map(|mut stdin| stdin.write_all(input)));
        child.wait_with_output().wrap(|| format!("run {self}"))
    }

    fn failed(&self, output: &std::process::Output) -> Error {
        let said = String::from_utf8_lossy(&output.stdout);
        Error::new(format!("{self}: {}: {}", output.status, said.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: Value) -> AuthFile {
        serde_json::from_value(json).unwrap()
    }

    fn auth(user: &str) -> Value {
        serde_json::json!({"auth": BASE64_STANDARD.encode(format!("{user}:p:w"))})
    }

    fn user(file: &AuthFile, domain: &str, repository: &str) -> Option<String> {
        look_up(file, domain, repository).unwrap().map(|c| match c {
            Credentials::Password { user, password } => {
                assert_eq!(password, "p:w");
                user
            }
            Credentials::Identity(token) => token,
        })
    }

    #[test]
    fn the_longest_key_wins() {
        let f = file(serde_json::json!({"auths": {
            "r.io": auth("host"), "r.io/a": auth("namespace"), "r.io/a/b": auth("repository"),
            "https://s.io:5000/v1/": auth("old"),
        }}));
        assert_eq!(user(&f, "r.io", "a/b").as_deref(), Some("repository"));
        assert_eq!(user(&f, "r.io", "a/bc").as_deref(), Some("namespace"));
        assert_eq!(user(&f, "r.io", "ab").as_deref(), Some("host"));
        assert_eq!(user(&f, "s.io:5000", "x").as_deref(), Some("old"));
        assert_eq!(user(&f, "s.io", "x"), None);
        assert_eq!(user(&f, "r.io.evil.org", "a/b"), None);
    }

    #[test]
    fn dockers_registry_has_old_names() {
        for key in [DOCKER_KEY, "index.docker.io", "docker.io", "registry-1.docker.io"] {
            let f = file(serde_json::json!({"auths": {key: auth("me")}}));
            assert_eq!(user(&f, "docker.io", "library/busybox").as_deref(), Some("me"), "{key}");
        }
    }

    #[test]
    fn tokens_and_rubbish() {
        let f = file(
            serde_json::json!({"auths": {"r.io": {"identitytoken": "t"}, "s.io": {"auth": "%"}, "t.io": {}}}),
        );
        assert_eq!(user(&f, "r.io", "x").as_deref(), Some("t"));
        assert!(look_up(&f, "s.io", "x").is_err());
        assert_eq!(user(&f, "t.io", "x"), None);
    }

    #[test]
    fn a_helper_is_a_program_name() {
        assert!(Helper::new("../../bin/sh", "r.io").is_err());
        let helper = Helper::new("that-does-not-exist", "r.io").unwrap();
        let e = helper.get().unwrap_err().to_string();
        assert!(e.starts_with("run docker-credential-that-does-not-exist: "), "{e}");
    }
}
