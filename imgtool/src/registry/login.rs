//! Logging in and out: the credentials file as podman and Docker keep it
//! (containers-auth.json(5)), mode 0600, replaced as a whole.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustix::fs::FlockOperation;
use serde_json::{Map, Value, json};
use ureq::http::{Method, StatusCode};

use super::auth::Scope;
use super::credentials::{self, Credentials, Helper};
use super::retry::retry;
use super::{Options, Registry};
use crate::reference::Reference;
use crate::{Context, Error, Result};

/// The host of a registry, as references have it.
pub fn host(text: &str) -> Result<String> {
    let text = text.strip_prefix("docker://").unwrap_or(text).trim_end_matches('/');
    let text =
        text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let bad = || Error::usage(format!("\"{text}\" is not a HOST[:PORT]"));
    let known = Reference::parse(&format!("{text}/x")).map_err(|_| bad())?;
    match known.domain() == text || matches!(text, "docker.io" | "index.docker.io") {
        true => Ok(known.domain().to_owned()),
        // A single word is only a host where nothing else can stand.
        false if !text.contains('/') && Reference::parse(&format!("{text}.x/x")).is_ok() => {
            Ok(text.to_owned())
        }
        false => Err(bad()),
    }
}

/// The key of credentials: a host, or a host and the beginning of repositories' names.
pub fn credential_key(text: &str) -> Result<String> {
    let text = text.trim_end_matches('/');
    match text.split_once('/') {
        Some((domain, path)) if !domain.ends_with(':') => {
            let known = Reference::parse(&format!("{domain}/{path}/x"))
                .map_err(|e| Error::usage(e.to_string()))?;
            match known.domain() == domain {
                true => Ok(format!("{domain}/{path}")),
                false => Err(Error::usage(format!("\"{domain}\" is not a HOST[:PORT]"))),
            }
        }
        _ => host(text),
    }
}

/// As whom we are logged in to a registry, or to a part of one.
pub fn logged_in(key: &str, authfile: Option<&Path>) -> Result<Option<String>> {
    let (domain, path) = key.split_once('/').unwrap_or((key, ""));
    Ok(credentials::find(domain, path, authfile)?.map(|c| match c {
        Credentials::Password { user, .. } => user,
        Credentials::Identity(_) => "<token>".to_owned(),
    }))
}

/// Asks the registry whether it takes the credentials, then keeps them. Returns where: a file, or
/// the name of a helper program.
pub fn log_in(key: &str, user: &str, password: &str, options: &Options) -> Result<String> {
    let domain = key.split('/').next().unwrap_or(key);
    let mut registry = Registry::connect(domain, options)?;
    let given = Credentials::Password { user: user.to_owned(), password: password.to_owned() };
    registry.auth.use_only(given);
    check(&registry)?;

    let path = file_to_write(options.authfile.as_deref())?;
    let mut outcome = path.display().to_string();
    change(&path, |json| {
        let stored = match helper(json, key)? {
            Some(helper) => {
                helper.store(user, password)?;
                outcome = helper.to_string();
                // As Docker does: an empty entry says that the helper knows.
                json!({})
            }
            None => json!({"auth": BASE64_STANDARD.encode(format!("{user}:{password}"))}),
        };
        let auths = json.entry("auths").or_insert_with(|| json!({}));
        let auths =
            auths.as_object_mut().ok_or_else(|| Error::new("\"auths\" is not an object"))?;
        auths.insert(key.to_owned(), stored);
        Ok(())
    })?;
    Ok(outcome)
}

/// `GET /v2/` is where a registry asks for credentials (distribution-spec, "API version check").
fn check(registry: &Registry) -> Result<()> {
    retry(
        |_| {},
        || {
            let request = registry.request(Method::GET, "")?;
            let response = registry.get(request, &Scope::nothing())?;
            match response.status() {
                StatusCode::OK => Ok(()),
                _ => Err(response.into_error("").into()),
            }
        },
    )
}

/// Forgets the credentials of a key, or all. Returns the keys that were there.
pub fn log_out(key: Option<&str>, authfile: Option<&Path>) -> Result<Vec<String>> {
    let path = file_to_write(authfile)?;
    let mut gone = Vec::new();
    change(&path, |json| {
        let all: Vec<String> = json
            .get("auths")
            .and_then(Value::as_object)
            .map(|auths| auths.keys().cloned().collect())
            .unwrap_or_default();
        for known in all.iter().filter(|k| key.is_none_or(|key| credentials::same_key(k, key))) {
            if let Some(helper) = helper(json, known)? {
                helper.erase()?;
            }
            json.get_mut("auths")
                .and_then(Value::as_object_mut)
                .and_then(|a| a.shift_remove(known));
            gone.push(known.clone());
        }
        Ok(())
    })?;
    match (gone.is_empty(), key) {
        (true, Some(key)) => {
            Err(Error::not_found(format!("{}: not logged in to {key}", path.display())))
        }
        _ => Ok(gone),
    }
}

/// The helper that keeps this key's credentials, if the file says so.
fn helper(json: &Map<String, Value>, key: &str) -> Result<Option<Helper>> {
    let own = json.get("credHelpers").and_then(|h| h.get(key)).and_then(Value::as_str);
    let name = own.or_else(|| json.get("credsStore").and_then(Value::as_str));
    name.filter(|n| !n.is_empty()).map(|n| Helper::new(n, key)).transpose()
}

/// Where podman writes: `--authfile`, `$REGISTRY_AUTH_FILE`, else `auth.json` below
/// `$XDG_RUNTIME_DIR`, which ends with the session.
fn file_to_write(authfile: Option<&Path>) -> Result<PathBuf> {
    let first = credentials::files(authfile).into_iter().next();
    first.ok_or_else(|| Error::usage("no file for credentials: set HOME or --authfile"))
}

/// Changes the file as a whole, alone; what we do not know of it stays.
fn change(path: &Path, change: impl FnOnce(&mut Map<String, Value>) -> Result<()>) -> Result<()> {
    let context = || format!("change {}", path.display());
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).wrap(|| format!("create {}", dir.display()))?;
    let lock = File::open(dir).wrap(context)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).wrap(context)?;
    // A link is followed: the file may be kept elsewhere on purpose.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut json = match File::open(path) {
        Ok(mut file) => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).wrap(context)?;
            match bytes.iter().all(u8::is_ascii_whitespace) {
                true => Map::new(),
                false => serde_json::from_slice(&bytes).wrap(context)?,
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Map::new(),
        Err(e) => return Err(Error::from(e).wrap(context())),
    };
    change(&mut json).wrap(context)?;
    replace(path, &(serde_json::to_vec_pretty(&json)?)).wrap(context)
}

/// Writes a file that only its owner may read, whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temp = path.as_os_str().to_owned();
    temp.push(format!(".{}.tmp", std::process::id()));
    let temp = PathBuf::from(temp);
    let write = || -> Result<()> {
        drop(std::fs::remove_file(&temp));
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temp)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(std::fs::rename(&temp, path)?)
    };
    write().inspect_err(|_| drop(std::fs::remove_file(&temp)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_keys() {
        for (text, key) in [
            ("r.io", Some("r.io")),
            ("https://r.io:5000/", Some("r.io:5000")),
            ("localhost", Some("localhost")),
            ("registry", Some("registry")),
            ("docker.io", Some("docker.io")),
            ("r.io/a/b", Some("r.io/a/b")),
            ("r.io/A", None),
            ("r io", None),
            ("", None),
        ] {
            assert_eq!(credential_key(text).ok().as_deref(), key, "{text}");
        }
    }
}
