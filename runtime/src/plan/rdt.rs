//! `linux.intelRdt`: cache and memory bandwidth classes (config-linux.md, IntelRdt).

use crate::error::{Context, Error, Result};
use oci_spec::runtime::LinuxIntelRdt;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What is done in the resctrl file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rdt {
    /// Where resctrl is mounted.
    pub root: PathBuf,
    /// The class's directory below it; none is the container's id, empty the default class.
    pub class: Option<PathBuf>,
    /// Lines that its `schemata` file must have if it exists, and is given: L3 cache, bandwidth.
    pub caches: Vec<String>,
    /// Further lines that are written to it, after them.
    pub schemata: Vec<String>,
    /// The container gets a monitoring group.
    pub monitoring: bool,
}

impl Rdt {
    /// Checks the property. `mounts` is the text of /proc/self/mountinfo.
    pub fn new(spec: &LinuxIntelRdt, mounts: &str) -> Result<Self> {
        let lines =
            [("l3CacheSchema", spec.l3_cache_schema()), ("memBwSchema", spec.mem_bw_schema())];
        let (mut caches, mut schemata) = (Vec::new(), Vec::new());
        for (name, line) in lines {
            if let Some(line) = line.as_deref().filter(|l| !l.is_empty()) {
                caches.push(one_line(line, name)?);
            }
        }
        if spec.mem_bw_schema().as_ref().is_some_and(|l| !l.is_empty() && !l.starts_with("MB:")) {
            return Err(wrong("memBwSchema", "does not begin with \"MB:\""));
        }
        for (i, line) in spec.schemata().iter().flatten().enumerate() {
            schemata.push(one_line(line, &format!("schemata[{i}]"))?);
        }
        let class = spec.clos_id().as_deref().filter(|id| !id.is_empty()).map(class).transpose()?;
        let root = mount_point(mounts).ok_or_else(|| {
            Error::new(
                "config.json: linux.intelRdt: no resctrl file system is mounted; mount one at /sys/fs/resctrl, where the processor has Intel RDT or AMD QoS",
            )
        })?;
        let monitoring = spec.enable_monitoring().unwrap_or(false);
        Ok(Self { root, class, caches, schemata, monitoring })
    }
}

impl Rdt {
    /// What a container's configuration says of it, with resctrl mounted as it is now.
    pub fn of_config(spec: &oci_spec::runtime::Spec) -> Result<Option<Self>> {
        let Some(rdt) = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref()) else {
            return Ok(None);
        };
        let mounts =
            std::fs::read_to_string("/proc/self/mountinfo").wrap(|| "read /proc/self/mountinfo")?;
        Self::new(rdt, &mounts).map(Some)
    }
}

/// The lines that `update` is given: the cache's, and the memory bandwidth's, which begins so.
pub fn update_lines(cache: Option<&str>, bandwidth: Option<&str>) -> Result<Vec<String>> {
    if bandwidth.is_some_and(|line| !line.starts_with("MB:")) {
        return Err(Error::new("--mem-bw-schema: does not begin with \"MB:\""));
    }
    let given = [("--l3-cache-schema", cache), ("--mem-bw-schema", bandwidth)];
    let lines = given.into_iter().filter_map(|(flag, line)| line.map(|line| (flag, line)));
    lines
        .map(|(flag, line)| match line.contains('\n') {
            true => Err(Error::new(format!("{flag}: contains a newline"))),
            false => Ok(line.to_string()),
        })
        .collect()
}

fn wrong(property: &str, why: &str) -> Error {
    Error::new(format!("config.json: linux.intelRdt.{property}: {why}"))
}

fn one_line(line: &str, property: &str) -> Result<String> {
    match line.contains('\n') {
        true => Err(wrong(property, "contains a newline")),
        false => Ok(line.into()),
    }
}

/// A class is a directory directly below the root; `/` is the root itself.
fn class(id: &str) -> Result<PathBuf> {
    match id {
        "/" => Ok(PathBuf::new()),
        "." | ".." | "info" | "mon_groups" | "mon_data" => {
            Err(wrong("closID", &format!("{id:?} is no name for a class")))
        }
        id if id.contains('/') => Err(wrong("closID", &format!("{id:?} contains a slash"))),
        id => Ok(id.into()),
    }
}

/// Where the first resctrl file system is mounted (proc_pid_mountinfo(5)).
fn mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let is_resctrl = right.split(' ').next() == Some("resctrl");
        is_resctrl.then(|| Path::new(left.split(' ').nth(4).unwrap_or("/sys/fs/resctrl")).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "24 1 0:22 / /sys rw - sysfs sysfs rw\n\
        30 24 0:26 / /sys/fs/resctrl rw,relatime shared:5 - resctrl resctrl rw\n";

    fn read(json: &str, mounts: &str) -> Result<Rdt> {
        Rdt::new(&serde_json::from_str(json).unwrap(), mounts)
    }

    #[test]
    fn properties_are_read() {
        let json = r#"{"closID":"gold","schemata":["L2:0=f"],"memBwSchema":"MB:0=20","l3CacheSchema":"L3:0=f","enableMonitoring":true}"#;
        let rdt = read(json, MOUNTS).unwrap();
        assert_eq!(rdt.root, Path::new("/sys/fs/resctrl"));
        assert_eq!(rdt.class, Some("gold".into()));
        assert_eq!(rdt.caches, ["L3:0=f", "MB:0=20"]);
        assert_eq!(rdt.schemata, ["L2:0=f"]);
        assert!(rdt.monitoring);
        assert_eq!(read(r#"{"closID":"/"}"#, MOUNTS).unwrap().class, Some(PathBuf::new()));
    }

    #[test]
    fn lines_of_an_update_are_one_line_each() {
        let lines = update_lines(Some("L3:0=f"), Some("MB:0=20")).unwrap();
        assert_eq!(lines, ["L3:0=f", "MB:0=20"]);
        for (cache, bandwidth, flag) in
            [(Some("L3:0=f\nMB:0=1"), None, "--l3-cache"), (None, Some("L3:0=f"), "--mem-bw")]
        {
            let e = update_lines(cache, bandwidth).unwrap_err().to_string();
            assert!(e.starts_with(flag), "{e}");
        }
    }

    #[test]
    fn errors_name_the_property() {
        for (json, mounts, part) in [
            ("{}", "", "linux.intelRdt: no resctrl"),
            (r#"{"closID":"../x"}"#, MOUNTS, "closID"),
            (r#"{"memBwSchema":"L3:0=f"}"#, MOUNTS, "memBwSchema"),
            (r#"{"schemata":["L3:0=f\n"]}"#, MOUNTS, "schemata[0]"),
        ] {
            let e = read(json, mounts).unwrap_err().to_string();
            assert!(e.contains(part), "{json}: {e}");
        }
    }
}
