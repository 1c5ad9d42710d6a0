//! `linux.resources` as writes to files, for cgroup v1 and v2.
//!
//! Zero means "not set" where runc takes it so, because engines send zeroes; -1 means no limit.
//! On a hybrid host each controller is on one of the two sides, so each property is decided alone.

mod cpu;
mod io;
mod memory;

use crate::error::{Error, Result};
use crate::sys::fs;
use oci_spec::runtime::{LinuxHugepageLimit, LinuxNetwork, LinuxResources};
use serde::Serialize;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// Which version of cgroups holds a controller here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sides {
    legacy: Vec<String>,
    unified: bool,
}

impl Sides {
    /// From the controllers of each hierarchy, and whether it is cgroup v2.
    pub fn new<'a>(hierarchies: impl Iterator<Item = (&'a [String], bool)>) -> Self {
        let mut sides = Self { legacy: Vec::new(), unified: false };
        for (controllers, unified) in hierarchies {
            sides.unified |= unified;
            sides.legacy.extend_from_slice(controllers);
        }
        sides
    }

    /// Is the controller on cgroup v2? It is where v2 is mounted and no v1 hierarchy has it.
    pub fn unified(&self, controller: &str) -> bool {
        self.unified && !self.legacy.iter().any(|name| name == controller)
    }
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Write {
    /// The controller that it needs.
    pub controller: &'static str,
    /// File name.
    pub file: String,
    /// What is written.
    pub value: String,
    /// The property that asks for it, below `linux.resources`.
    pub property: &'static str,
    /// A file that serves where `file` is missing (another I/O scheduler's), with its value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<(String, String)>,
    /// Where the file is missing, what it asks for is so already.
    #[serde(skip)]
    pub optional: bool,
}

impl Write {
    /// An error that names the property.
    pub fn refused(&self, why: &str) -> Error {
        Error::new(format!(
            "linux.resources.{}: cannot be honoured: {} controller: {why}",
            self.property, self.controller
        ))
    }

    /// Opens the file that the group has: its name, it, and what is to be written into it; none
    /// where nothing needs to be.
    pub fn target(&self, directory: BorrowedFd<'_>) -> Result<Option<(&str, OwnedFd, &str)>> {
        let both = std::iter::once((self.file.as_str(), self.value.as_str()))
            .chain(self.instead.iter().map(|(file, value)| (file.as_str(), value.as_str())));
        for (file, value) in both {
            match fs::openat(directory, Path::new(file), libc::O_WRONLY, 0) {
                Ok(fd) => return Ok(Some((file, fd, value))),
                Err(e) if e.errno() == Some(libc::ENOENT) => {}
                Err(e) => return Err(e.wrap(format!("linux.resources.{}", self.property))),
            }
        }
        match self.optional {
            true => Ok(None),
            false => Err(self
                .refused("it is not enabled in this cgroup, or the kernel lacks the file")
                .wrap(self.file.clone())),
        }
    }

    /// Writes into the group whose directory is given.
    pub fn carry_out(&self, directory: BorrowedFd<'_>) -> Result<()> {
        let Some((file, fd, value)) = self.target(directory)? else { return Ok(()) };
        fs::write_once(&fd, value.as_bytes()).map_err(|e| self.failed(e, file, value))
    }

    /// Adds to the kernel's refusal what was asked for.
    pub fn failed(&self, error: Error, file: &str, value: &str) -> Error {
        error.wrap(format!("linux.resources.{}: write {value:?} to {file}", self.property))
    }
}

/// Collects writes.
struct Writes(Vec<Write>);

impl Writes {
    fn put(
        &mut self,
        controller: &'static str,
        file: impl Into<String>,
        value: impl ToString,
        property: &'static str,
    ) {
        let (file, value) = (file.into(), value.to_string());
        self.0.push(Write { controller, file, value, property, instead: None, optional: false });
    }

    /// Another file for the last one.
    fn or(&mut self, file: &str, value: impl ToString) {
        if let Some(last) = self.0.last_mut() {
            last.instead = Some((file.into(), value.to_string()));
        }
    }

    /// The last one may be left out where its file is missing.
    fn optional(&mut self) {
        if let Some(last) = self.0.last_mut() {
            last.optional = true;
        }
    }
}

/// The writes that `resources` asks for in a new group, in the order in which the kernel takes
/// them.
///
/// # Errors
/// A property that the controller's side has no file for is refused by name.
pub fn writes(resources: &LinuxResources, sides: &Sides) -> Result<Vec<Write>> {
    let mut all = Writes(Vec::new());
    if let Some(memory) = resources.memory() {
        memory::writes(memory, sides.unified("memory"), &mut all)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu::writes(cpu, sides, &mut all)?;
    }
    if let Some(pids) = resources.pids().as_ref().filter(|p| p.limit() != 0) {
        all.put("pids", "pids.max", or_max(pids.limit()), "pids.limit");
    }
    if let Some(block) = resources.block_io() {
        io::writes(block, sides.unified("blkio"), &mut all)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        hugetlb(limit, sides.unified("hugetlb"), &mut all)?;
    }
    if let Some(network) = resources.network() {
        network_v1(network, sides, &mut all)?;
    }
    rdma(resources, &mut all)?;
    raw(resources, sides, &mut all)?;
    Ok(all.0)
}

/// The same for a group in use, where a default may have to be brought back.
pub fn changes(resources: &LinuxResources, sides: &Sides) -> Result<Vec<Write>> {
    let mut all = Writes(writes(resources, sides)?);
    let killer = resources.memory().as_ref().and_then(|m| m.disable_oom_killer());
    if killer == Some(false) && !sides.unified("memory") {
        all.put("memory", "memory.oom_control", 0, "memory.disableOOMKiller");
    }
    Ok(all.0)
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

fn refuse(property: &str, why: &str) -> Error {
    Error::new(format!("linux.resources.{property}: cannot be honoured: {why}"))
}

/// Limits of huge pages in use and, since Linux 5.7, of those reserved: both, so that a container
/// fails at mmap(2) with an error instead of at its first touch with SIGBUS.
fn hugetlb(limit: &LinuxHugepageLimit, unified: bool, all: &mut Writes) -> Result<()> {
    let size = limit.page_size();
    if size.is_empty() || size.contains('/') {
        return Err(Error::new(format!("linux.resources.hugepageLimits: page size {size:?}")));
    }
    let file = if unified { "max" } else { "limit_in_bytes" };
    all.put("hugetlb", format!("hugetlb.{size}.{file}"), limit.limit(), "hugepageLimits");
    all.put("hugetlb", format!("hugetlb.{size}.rsvd.{file}"), limit.limit(), "hugepageLimits");
    all.optional();
    Ok(())
}

fn network_v1(network: &LinuxNetwork, sides: &Sides, all: &mut Writes) -> Result<()> {
    let lacking = "cgroup v2 has no such controller, and no cgroup v1 hierarchy has it";
    if let Some(class) = network.class_id().filter(|c| *c != 0) {
        if sides.unified("net_cls") {
            return Err(refuse("network.classID", lacking));
        }
        all.put("net_cls", "net_cls.classid", class, "network.classID");
    }
    for priority in network.priorities().iter().flatten() {
        if sides.unified("net_prio") {
            return Err(refuse("network.priorities", lacking));
        }
        let line = format!("{} {}", priority.name(), priority.priority());
        all.put("net_prio", "net_prio.ifpriomap", line, "network.priorities");
    }
    Ok(())
}

fn rdma(resources: &LinuxResources, all: &mut Writes) -> Result<()> {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| *name);
    for (device, limit) in devices {
        let limits = [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())];
        let limits: Vec<String> =
            limits.iter().filter_map(|(key, n)| n.map(|n| format!("{key}={n}"))).collect();
        if limits.is_empty() {
            return Err(Error::new(format!(
                "linux.resources.rdma[{device:?}]: give hcaHandles, hcaObjects or both"
            )));
        }
        all.put("rdma", "rdma.max", format!("{device} {}", limits.join(" ")), "rdma");
    }
    Ok(())
}

fn raw(resources: &LinuxResources, sides: &Sides, all: &mut Writes) -> Result<()> {
    let mut entries: Vec<_> = resources.unified().iter().flatten().collect();
    entries.sort();
    for (file, value) in entries {
        let Some((controller, _)) = file.split_once('.').filter(|_| !file.contains('/')) else {
            return Err(refuse("unified", &format!("{file:?} is not the name of a cgroup file")));
        };
        // v2's io has another name in v1.
        let legacy = if controller == "io" { "blkio" } else { controller };
        if !sides.unified(legacy) {
            return Err(refuse("unified", &format!("{file:?}: {legacy} is on cgroup v1 here")));
        }
        all.put("unified", file.clone(), value, "unified");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The controllers that v1 has, and whether there is v2.
    type Host = (&'static [&'static str], bool);
    const V1: &[&str] = &["memory", "cpu", "cpuset", "pids", "blkio", "net_cls", "hugetlb"];
    const LEGACY: Host = (V1, false);
    const HYBRID: Host = (&["memory", "cpu", "cpuset", "pids", "blkio"], true);
    const UNIFIED: Host = (&[], true);

    fn plan(json: &str, (legacy, unified): Host) -> Result<Vec<(String, String)>> {
        let legacy: Vec<String> = legacy.iter().map(|c| c.to_string()).collect();
        let hierarchies = [(legacy.as_slice(), false), (&[], unified)];
        let sides = Sides::new(hierarchies.into_iter());
        let all = writes(&serde_json::from_str(json).unwrap(), &sides)?;
        Ok(all.into_iter().map(|w| (w.file, w.value)).collect())
    }

    fn pair(file: &str, value: &str) -> (String, String) {
        (file.into(), value.into())
    }

    #[test]
    fn memory_and_swap() {
        let json = r#"{"memory":{"limit":1000,"swap":3000,"reservation":0}}"#;
        assert_eq!(
            plan(json, LEGACY).unwrap(),
            [pair("memory.limit_in_bytes", "1000"), pair("memory.memsw.limit_in_bytes", "3000")]
        );
        assert_eq!(
            plan(json, UNIFIED).unwrap(),
            [pair("memory.swap.max", "2000"), pair("memory.max", "1000")]
        );
        let e = plan(r#"{"memory":{"limit":3000,"swap":1000}}"#, UNIFIED).unwrap_err();
        assert!(e.to_string().contains("memory.swap"), "{e}");
    }

    #[test]
    fn memory_without_a_limit_takes_swap_along() {
        let json = r#"{"memory":{"limit":-1}}"#;
        assert_eq!(
            plan(json, LEGACY).unwrap(),
            [pair("memory.limit_in_bytes", "-1"), pair("memory.memsw.limit_in_bytes", "-1")]
        );
        assert_eq!(
            plan(json, UNIFIED).unwrap(),
            [pair("memory.swap.max", "max"), pair("memory.max", "max")]
        );
        let json = r#"{"memory":{"limit":-1,"swap":5}}"#;
        assert_eq!(plan(json, UNIFIED).unwrap()[0], pair("memory.swap.max", "5"));
    }

    #[test]
    fn cpu_in_both_versions() {
        let json = r#"{"cpu":{"shares":1024,"quota":50000,"cpus":"0-1"}}"#;
        assert_eq!(
            plan(json, UNIFIED).unwrap(),
            [
                pair("cpu.weight", "100"),
                pair("cpu.max", "50000 100000"),
                pair("cpuset.cpus", "0-1")
            ]
        );
    }

    #[test]
    fn no_limit_is_max() {
        assert_eq!(plan(r#"{"pids":{"limit":-1}}"#, LEGACY).unwrap(), [pair("pids.max", "max")]);
        assert!(plan(r#"{"pids":{"limit":0}}"#, LEGACY).unwrap().is_empty());
    }

    #[test]
    fn what_a_layout_lacks_is_refused_by_name() {
        for (json, host, name) in [
            (r#"{"unified":{"memory.high":"1"}}"#, HYBRID, "unified"),
            (r#"{"unified":{"hugetlb.2MB.max":"1"}}"#, LEGACY, "unified"),
            (r#"{"memory":{"swappiness":10}}"#, UNIFIED, "memory.swappiness"),
            (r#"{"memory":{"disableOOMKiller":true}}"#, UNIFIED, "memory.disableOOMKiller"),
            (r#"{"network":{"classID":1}}"#, UNIFIED, "network.classID"),
            (r#"{"network":{"classID":1}}"#, HYBRID, "network.classID"),
            (r#"{"memory":{"kernel":1}}"#, LEGACY, "memory.kernel"),
            (r#"{"memory":{"useHierarchy":false}}"#, LEGACY, "memory.useHierarchy"),
            (r#"{"cpu":{"shares":1}}"#, LEGACY, "cpu.shares"),
            (r#"{"cpu":{"realtimeRuntime":1}}"#, UNIFIED, "cpu.realtimeRuntime"),
            (r#"{"blockIO":{"leafWeight":10}}"#, UNIFIED, "blockIO.leafWeight"),
            (r#"{"unified":{"../x":"1"}}"#, UNIFIED, "unified"),
            (r#"{"rdma":{"mlx":{}}}"#, UNIFIED, "rdma"),
        ] {
            let e = plan(json, host).unwrap_err().to_string();
            assert!(e.contains(name), "{json}: {e}");
        }
    }

    #[test]
    fn block_io() {
        let json = r#"{"blockIO":{"weight":500,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":7}],
            "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]}}"#;
        assert_eq!(
            plan(json, UNIFIED).unwrap(),
            [
                pair("io.bfq.weight", "500"),
                pair("io.max", "8:0 rbps=7"),
                pair("io.max", "8:0 wiops=max")
            ]
        );
        assert_eq!(plan(json, LEGACY).unwrap()[1].0, "blkio.throttle.read_bps_device");
        let fallback =
            writes(&serde_json::from_str(json).unwrap(), &Sides { legacy: vec![], unified: true });
        assert_eq!(fallback.unwrap()[0].instead, Some(pair("io.weight", "4950")));
    }

    #[test]
    fn each_side_of_a_hybrid_host_gets_its_files() {
        let json = r#"{"pids":{"limit":3},"hugepageLimits":[{"pageSize":"2MB","limit":0}],
            "rdma":{"mlx":{"hcaHandles":3,"hcaObjects":4}},"unified":{"rdma.max":"x"}}"#;
        assert_eq!(
            plan(json, HYBRID).unwrap(),
            [
                pair("pids.max", "3"),
                pair("hugetlb.2MB.max", "0"),
                pair("hugetlb.2MB.rsvd.max", "0"),
                pair("rdma.max", "mlx hca_handle=3 hca_object=4"),
                pair("rdma.max", "x"),
            ]
        );
        let json = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#;
        assert_eq!(plan(json, LEGACY).unwrap()[0].0, "hugetlb.2MB.limit_in_bytes");
    }
}
