//! Programs that the configuration wants run around the container's life (config.md, POSIX hooks).

use crate::error::{Error, Result};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// One program.
#[derive(Debug, Clone, Serialize)]
pub struct Hook {
    /// Absolute path in the runtime's mount namespace.
    pub path: PathBuf,
    /// Its argv, `argv[0]` included; empty means the path alone.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<String>,
    /// It is killed when it takes longer.
    pub timeout: Option<Duration>,
}

/// All hooks, in the order in which they run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Hooks {
    /// Deprecated; runs before `create_runtime`, in the same place.
    pub prestart: Vec<Hook>,
    /// In the runtime's namespaces, after the container's exist and before pivot_root.
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before pivot_root.
    pub create_container: Vec<Hook>,
    /// In the container's namespaces, after `start` was asked and before the program runs.
    pub start_container: Vec<Hook>,
    /// In the runtime's namespaces, after the program runs; a failure is only logged.
    pub poststart: Vec<Hook>,
    /// In the runtime's namespaces, after the container is deleted; a failure is only logged.
    pub poststop: Vec<Hook>,
}

impl Hooks {
    /// Checks the `hooks` object.
    pub fn new(hooks: Option<&oci_spec::runtime::Hooks>) -> Result<Self> {
        let Some(hooks) = hooks else { return Ok(Self::default()) };
        #[allow(deprecated)] // prestart is, and the specification still demands it
        Ok(Self {
            prestart: list("prestart", hooks.prestart())?,
            create_runtime: list("createRuntime", hooks.create_runtime())?,
            create_container: list("createContainer", hooks.create_container())?,
            start_container: list("startContainer", hooks.start_container())?,
            poststart: list("poststart", hooks.poststart())?,
            poststop: list("poststop", hooks.poststop())?,
        })
    }
}

fn list(name: &str, hooks: &Option<Vec<oci_spec::runtime::Hook>>) -> Result<Vec<Hook>> {
    let check = |(i, hook): (usize, &oci_spec::runtime::Hook)| {
        let wrong =
            |what: String| Err(Error::new(format!("config.json: hooks.{name}[{i}].{what}")));
        if !hook.path().is_absolute() {
            return wrong(format!("path: {:?} is not absolute", hook.path()));
        }
        let timeout = match hook.timeout() {
            None => None,
            Some(seconds) if seconds > 0 => Some(Duration::from_secs(seconds as u64)),
            Some(seconds) => return wrong(format!("timeout: {seconds} is not greater than zero")),
        };
        let env = hook.env().iter().flatten();
        if let Some((j, entry)) = env.enumerate().find(|(_, e)| !named(e)) {
            return wrong(format!("env[{j}]: {entry:?} is not NAME=value"));
        }
        Ok(Hook {
            path: hook.path().clone(),
            args: hook.args().clone().unwrap_or_default(),
            env: hook.env().clone().unwrap_or_default(),
            timeout,
        })
    };
    hooks.iter().flatten().enumerate().map(check).collect()
}

fn named(entry: &str) -> bool {
    entry.split_once('=').is_some_and(|(name, _)| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Hooks> {
        Hooks::new(Some(&serde_json::from_str(json).unwrap()))
    }

    #[test]
    fn a_relative_path_or_a_timeout_of_zero_is_refused() {
        let e = parse(r#"{"poststop":[{"path":"bin/x"}]}"#).unwrap_err().to_string();
        assert!(e.contains("hooks.poststop[0].path"), "{e}");
        let e = parse(r#"{"createRuntime":[{"path":"/x","timeout":0}]}"#).unwrap_err().to_string();
        assert!(e.contains("hooks.createRuntime[0].timeout"), "{e}");
        let e = parse(r#"{"poststart":[{"path":"/x","env":["A"]}]}"#).unwrap_err().to_string();
        assert!(e.contains("hooks.poststart[0].env[0]"), "{e}");
    }

    #[test]
    fn a_timeout_is_in_seconds() {
        let hooks = parse(r#"{"prestart":[{"path":"/x","timeout":3}]}"#).unwrap();
        assert_eq!(hooks.prestart[0].timeout, Some(Duration::from_secs(3)));
    }
}
