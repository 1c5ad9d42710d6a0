//! Annotations that change what the runtime does: those that crun reads (`run.oci.*`).
//!
//! An annotation that nobody knows is carried along (config.md, Annotations). One that is known and
//! cannot be honoured is refused by name, because who sets it counts on its effect.

use super::unsupported;
use crate::error::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The options by which a file system takes an SELinux context (mount(8)).
const CONTEXT_TYPES: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// Names of all annotations that are honoured, for `features`: they reach files of the host.
pub const NAMES: &[&str] = &[
    "org.criu.config",
    "org.systemd.property.",
    "run.oci.delegate-cgroup",
    "run.oci.hooks.stderr",
    "run.oci.hooks.stdout",
    "run.oci.keep_original_groups",
    "run.oci.mount_context_type",
    "run.oci.pidfd_receiver",
    "run.oci.seccomp.receiver",
    "run.oci.seccomp_bpf_data",
    "run.oci.seccomp_fail_unknown_syscall",
    "run.oci.systemd.subgroup",
];

/// What the annotations ask for.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Annotations {
    /// A file that the hooks' stdout is appended to.
    pub hooks_stdout: Option<PathBuf>,
    /// A file that the hooks' stderr is appended to.
    pub hooks_stderr: Option<PathBuf>,
    /// The caller's supplementary groups stay, whatever `additionalGids` says.
    pub keep_groups: bool,
    /// The mount option that carries `linux.mountLabel`.
    pub mount_context: Option<&'static str>,
    /// A socket that receives a pidfd of the first process.
    pub pidfd_receiver: Option<PathBuf>,
}

impl Annotations {
    /// Reads those annotations that are known.
    pub fn new(all: &BTreeMap<String, String>) -> Result<Self> {
        if let Some(handler) = value(all, "run.oci.handler") {
            return Err(unsupported(
                "annotations[\"run.oci.handler\"]",
                &format!(
                    "{handler:?}: this runtime starts Linux programs, no WebAssembly and no machines"
                ),
            ));
        }
        Ok(Self {
            hooks_stdout: path(all, "run.oci.hooks.stdout")?,
            hooks_stderr: path(all, "run.oci.hooks.stderr")?,
            keep_groups: flag(all, "run.oci.keep_original_groups")?,
            mount_context: context_type(all)?,
            pidfd_receiver: path(all, "run.oci.pidfd_receiver")?,
        })
    }

    /// The mount option that carries `linux.mountLabel`.
    pub fn mount_context(&self) -> &'static str {
        self.mount_context.unwrap_or("context")
    }
}

fn value<'a>(all: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    all.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

fn wrong(name: &str, why: String) -> Error {
    Error::new(format!("config.json: annotations[{name:?}]: {why}"))
}

fn path(all: &BTreeMap<String, String>, name: &str) -> Result<Option<PathBuf>> {
    match value(all, name) {
        None => Ok(None),
        Some(text) if Path::new(text).is_absolute() => Ok(Some(text.into())),
        Some(text) => Err(wrong(name, format!("{text:?} is not an absolute path"))),
    }
}

fn flag(all: &BTreeMap<String, String>, name: &str) -> Result<bool> {
    match value(all, name) {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(text) => Err(wrong(name, format!("{text:?} is neither \"1\" nor \"0\""))),
    }
}

fn context_type(all: &BTreeMap<String, String>) -> Result<Option<&'static str>> {
    let name = "run.oci.mount_context_type";
    let Some(given) = value(all, name) else { return Ok(None) };
    match CONTEXT_TYPES.iter().find(|known| **known == given) {
        Some(known) => Ok(Some(known)),
        None => Err(wrong(name, format!("{given:?} is not one of {}", CONTEXT_TYPES.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str) -> Result<Annotations> {
        Annotations::new(&BTreeMap::from([(name.to_string(), value.to_string())]))
    }

    #[test]
    fn known_ones_are_read_and_others_carried_along() {
        assert!(read("run.oci.keep_original_groups", "1").unwrap().keep_groups);
        let read_path = read("run.oci.hooks.stdout", "/log").unwrap().hooks_stdout;
        assert_eq!(read_path, Some("/log".into()));
        assert_eq!(read("com.example.any", "x").unwrap().mount_context(), "context");
        let kind = read("run.oci.mount_context_type", "rootcontext").unwrap();
        assert_eq!(kind.mount_context(), "rootcontext");
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        for (name, value) in [
            ("run.oci.handler", "krun"),
            ("run.oci.hooks.stdout", "relative"),
            ("run.oci.keep_original_groups", "perhaps"),
            ("run.oci.mount_context_type", "nonsense"),
        ] {
            let e = read(name, value).unwrap_err().to_string();
            assert!(e.contains(name) && e.contains(value), "{e}");
        }
    }
}
