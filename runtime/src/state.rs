//! `state`: what the container is doing, as JSON.

use crate::container::{Container, ContainerId, Status};
use crate::error::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The object that `state` prints and of which `list` prints an array: the specification's
/// properties, and those that runc adds and go-runc reads.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(rename = "ociVersion")]
    oci_version: String,
    /// The container.
    pub id: String,
    /// Its first process; 0 when it is stopped.
    pub pid: i32,
    /// What it is doing.
    pub status: Status,
    /// The bundle.
    pub bundle: String,
    rootfs: String,
    /// When it was made, RFC 3339.
    pub created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    /// Who made it: user id as a number, or its name when the host's /etc/passwd has one.
    pub owner: String,
}

impl Report {
    /// Looks at a container.
    pub fn of(container: &Container) -> Result<Self> {
        let record = &container.record;
        let status = container.status()?;
        let pid = if status == Status::Stopped { 0 } else { record.pid };
        Ok(Self {
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            pid,
            status,
            bundle: record.bundle.display().to_string(),
            rootfs: record.rootfs.display().to_string(),
            created: record.created.clone(),
            annotations: record.annotations.clone(),
            owner: owner(record.owner),
        })
    }
}

fn owner(uid: u32) -> String {
    if uid == 0 {
        return "root".into();
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut lines = passwd.lines();
    let line = lines.find(|l| l.split(':').nth(2) == Some(uid.to_string().as_str()));
    let name = line.and_then(|l| l.split(':').next()).map(String::from);
    name.unwrap_or_else(|| format!("#{uid}"))
}

/// The verb: returns what is to be printed.
pub fn state(root: &Path, id: &ContainerId) -> Result<String> {
    let report = Report::of(&Container::open(root, id)?)?;
    let text = serde_json::to_string_pretty(&report).map_err(|e| Error::new(e.to_string()))?;
    Ok(format!("{text}\n"))
}
