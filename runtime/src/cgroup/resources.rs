//! `linux.resources` as writes to files, for cgroup v1 and v2.
//!
//! Zero means "not set" where runc takes it so, because engines send zeroes; -1 means no limit.

use super::host::Layout;
use crate::error::{Context, Error, Result};
use crate::sys::fs;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources, LinuxThrottleDevice,
};
use serde::Serialize;
use std::os::fd::BorrowedFd;
use std::path::Path;

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
}

impl Write {
    /// An error that names the property.
    pub fn refused(&self, why: &str) -> Error {
        Error::new(format!(
            "linux.resources.{}: cannot be honoured: {} controller: {why}",
            self.property, self.controller
        ))
    }

    /// Writes into the group whose directory is given.
    pub fn carry_out(&self, directory: BorrowedFd<'_>) -> Result<()> {
        match self.write(directory, &self.file, &self.value) {
            Err(e) if e.errno() == Some(libc::ENOENT) => match &self.instead {
                Some((file, value)) => self.write(directory, file, value),
                None => Err(e),
            },
            other => other,
        }
        .map_err(|e| match e.errno() {
            Some(libc::ENOENT) => {
                self.refused("it is not enabled in this cgroup, or the kernel lacks the file")
            }
            _ => e.wrap(format!(
                "linux.resources.{}: write {:?} to {}",
                self.property, self.value, self.file
            )),
        })
    }

    fn write(&self, directory: BorrowedFd<'_>, file: &str, value: &str) -> Result<()> {
        let fd = fs::openat(directory, Path::new(file), libc::O_WRONLY, 0)?;
        fs::write_once(&fd, value.as_bytes())
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
        self.0.push(Write { controller, file, value, property, instead: None });
    }

    fn or(&mut self, file: &str, value: impl ToString) {
        if let Some(last) = self.0.last_mut() {
            last.instead = Some((file.into(), value.to_string()));
        }
    }
}

/// The writes that `resources` asks for, in the order in which the kernel takes them.
///
/// # Errors
/// A property that the layout has no file for is refused by name.
pub fn writes(resources: &LinuxResources, layout: Layout) -> Result<Vec<Write>> {
    let unified = layout == Layout::Unified;
    let mut all = Writes(Vec::new());
    if let Some(memory) = resources.memory() {
        check_memory(memory, unified)?;
        if unified { memory_v2(memory, &mut all)? } else { memory_v1(memory, &mut all) }
    }
    if let Some(cpu) = resources.cpu() {
        if unified {
            cpu_v2(cpu, &mut all)?
        } else {
            cpu_v1(cpu, &mut all)
        }
        cpuset(cpu, &mut all);
    }
    if let Some(pids) = resources.pids().as_ref().filter(|p| p.limit() != 0) {
        all.put("pids", "pids.max", or_max(pids.limit()), "pids.limit");
    }
    if let Some(io) = resources.block_io() {
        if unified { io_v2(io, &mut all)? } else { blkio_v1(io, &mut all) }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = limit.page_size();
        let file = if unified { "max" } else { "limit_in_bytes" };
        if size.is_empty() || size.contains('/') {
            return Err(Error::new(format!("linux.resources.hugepageLimits: page size {size:?}")));
        }
        all.put("hugetlb", format!("hugetlb.{size}.{file}"), limit.limit(), "hugepageLimits");
        // A hybrid host may have the controller on either side.
        all.or(&format!("hugetlb.{size}.max"), limit.limit());
    }
    if let Some(network) = resources.network() {
        net_v1(network, unified, &mut all)?;
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        let mut line = device.clone();
        for (key, value) in
            [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())]
        {
            if let Some(value) = value {
                line.push_str(&format!(" {key}={value}"));
            }
        }
        all.put("rdma", "rdma.max", line, "rdma");
    }
    raw(resources, unified, &mut all)?;
    Ok(all.0)
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

fn refuse(property: &str, why: &str) -> Error {
    Error::new(format!("linux.resources.{property}: cannot be honoured: {why}"))
}

fn check_memory(memory: &LinuxMemory, unified: bool) -> Result<()> {
    if memory.kernel().is_some_and(|k| k > 0) {
        return Err(refuse("memory.kernel", "Linux 5.16 removed the separate kernel memory limit"));
    }
    if memory.use_hierarchy() == Some(false) {
        return Err(refuse(
            "memory.useHierarchy",
            "Linux 5.11 made hierarchical accounting the only one",
        ));
    }
    if unified {
        if memory.swappiness().is_some() {
            return Err(refuse("memory.swappiness", "cgroup v2 has no such file"));
        }
        if memory.disable_oom_killer() == Some(true) {
            return Err(refuse("memory.disableOOMKiller", "cgroup v2 has no such file"));
        }
        if memory.kernel_tcp().is_some_and(|k| k > 0) {
            return Err(refuse("memory.kernelTCP", "cgroup v2 has no such file"));
        }
    }
    if memory.swappiness().is_some_and(|s| s > 100) {
        return Err(refuse("memory.swappiness", "it is above 100"));
    }
    Ok(())
}

fn memory_v1(memory: &LinuxMemory, all: &mut Writes) {
    let set = |value: Option<i64>| value.filter(|v| *v != 0);
    let mut put = |file: &str, value, property| {
        if let Some(value) = set(value) {
            all.put("memory", file, value, property);
        }
    };
    put("memory.limit_in_bytes", memory.limit(), "memory.limit");
    put("memory.memsw.limit_in_bytes", memory.swap(), "memory.swap");
    put("memory.soft_limit_in_bytes", memory.reservation(), "memory.reservation");
    put("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp(), "memory.kernelTCP");
    if let Some(swappiness) = memory.swappiness() {
        all.put("memory", "memory.swappiness", swappiness, "memory.swappiness");
    }
    if memory.disable_oom_killer() == Some(true) {
        all.put("memory", "memory.oom_control", 1, "memory.disableOOMKiller");
    }
}

/// The specification's `swap` is memory and swap together; v2's file is swap alone.
fn memory_v2(memory: &LinuxMemory, all: &mut Writes) -> Result<()> {
    let limit = memory.limit().filter(|l| *l != 0);
    if let Some(swap) = memory.swap().filter(|s| *s != 0) {
        let alone = match limit {
            _ if swap < 0 => -1,
            Some(limit) if limit > 0 && swap >= limit => swap - limit,
            Some(limit) if limit > 0 => {
                return Err(refuse("memory.swap", "it is below memory.limit, which it includes"));
            }
            _ => return Err(refuse("memory.swap", "it needs memory.limit, which it includes")),
        };
        all.put("memory", "memory.swap.max", or_max(alone), "memory.swap");
    }
    if let Some(limit) = limit {
        all.put("memory", "memory.max", or_max(limit), "memory.limit");
    }
    if let Some(low) = memory.reservation().filter(|r| *r != 0) {
        all.put("memory", "memory.low", or_max(low), "memory.reservation");
    }
    Ok(())
}

fn cpu_v1(cpu: &LinuxCpu, all: &mut Writes) {
    if let Some(shares) = cpu.shares().filter(|s| *s != 0) {
        all.put("cpu", "cpu.shares", shares, "cpu.shares");
    }
    if let Some(period) = cpu.period().filter(|p| *p != 0) {
        all.put("cpu", "cpu.cfs_period_us", period, "cpu.period");
    }
    if let Some(quota) = cpu.quota().filter(|q| *q != 0) {
        all.put("cpu", "cpu.cfs_quota_us", quota, "cpu.quota");
    }
    if let Some(burst) = cpu.burst() {
        all.put("cpu", "cpu.cfs_burst_us", burst, "cpu.burst");
    }
    if let Some(period) = cpu.realtime_period().filter(|p| *p != 0) {
        all.put("cpu", "cpu.rt_period_us", period, "cpu.realtimePeriod");
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|r| *r != 0) {
        all.put("cpu", "cpu.rt_runtime_us", runtime, "cpu.realtimeRuntime");
    }
    if let Some(idle) = cpu.idle() {
        all.put("cpu", "cpu.idle", idle, "cpu.idle");
    }
}

fn cpu_v2(cpu: &LinuxCpu, all: &mut Writes) -> Result<()> {
    if cpu.realtime_period().is_some_and(|p| p != 0)
        || cpu.realtime_runtime().is_some_and(|r| r != 0)
    {
        return Err(refuse("cpu.realtimeRuntime", "cgroup v2 has no such file"));
    }
    if let Some(idle) = cpu.idle() {
        all.put("cpu", "cpu.idle", idle, "cpu.idle");
    }
    if let Some(shares) = cpu.shares().filter(|s| *s != 0 && cpu.idle() != Some(1)) {
        all.put("cpu", "cpu.weight", weight_of_shares(shares), "cpu.shares");
    }
    let quota = cpu.quota().filter(|q| *q != 0);
    let period = cpu.period().filter(|p| *p != 0);
    if quota.is_some() || period.is_some() {
        let quota = or_max(quota.unwrap_or(-1));
        let value = format!("{quota} {}", period.unwrap_or(100_000));
        all.put("cpu", "cpu.max", value, "cpu.quota");
    }
    if let Some(burst) = cpu.burst() {
        all.put("cpu", "cpu.max.burst", burst, "cpu.burst");
    }
    Ok(())
}

/// v1's 2 to 262144, default 1024, as v2's 1 to 10000, default 100: quadratic in the logarithm, so
/// that both ends and both defaults meet (as runc 1.4 and crun 1.24 convert).
fn weight_of_shares(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10f64.powf(exponent).ceil() as u64
}

fn cpuset(cpu: &LinuxCpu, all: &mut Writes) {
    for (file, value, property) in
        [("cpuset.cpus", cpu.cpus(), "cpu.cpus"), ("cpuset.mems", cpu.mems(), "cpu.mems")]
    {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            all.put("cpuset", file, value, property);
        }
    }
}

fn blkio_v1(io: &LinuxBlockIo, all: &mut Writes) {
    if let Some(weight) = io.weight().filter(|w| *w != 0) {
        all.put("blkio", "blkio.weight", weight, "blockIO.weight");
        all.or("blkio.bfq.weight", weight);
    }
    if let Some(weight) = io.leaf_weight().filter(|w| *w != 0) {
        all.put("blkio", "blkio.leaf_weight", weight, "blockIO.leafWeight");
    }
    for device in io.weight_device().iter().flatten() {
        let at = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight() {
            let line = format!("{at} {weight}");
            all.put("blkio", "blkio.weight_device", &line, "blockIO.weightDevice");
            all.or("blkio.bfq.weight_device", line);
        }
        if let Some(weight) = device.leaf_weight() {
            let line = format!("{at} {weight}");
            all.put("blkio", "blkio.leaf_weight_device", line, "blockIO.weightDevice");
        }
    }
    for (file, _, devices, property) in throttles(io) {
        for device in devices.iter().flatten() {
            let line = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            all.put("blkio", file, line, property);
        }
    }
}

type Throttle<'a> =
    (&'static str, &'static str, &'a Option<Vec<LinuxThrottleDevice>>, &'static str);

/// File in v1, key in v2's `io.max`, devices, property.
fn throttles(io: &LinuxBlockIo) -> [Throttle<'_>; 4] {
    [
        (
            "blkio.throttle.read_bps_device",
            "rbps",
            io.throttle_read_bps_device(),
            "blockIO.throttleReadBpsDevice",
        ),
        (
            "blkio.throttle.write_bps_device",
            "wbps",
            io.throttle_write_bps_device(),
            "blockIO.throttleWriteBpsDevice",
        ),
        (
            "blkio.throttle.read_iops_device",
            "riops",
            io.throttle_read_iops_device(),
            "blockIO.throttleReadIOPSDevice",
        ),
        (
            "blkio.throttle.write_iops_device",
            "wiops",
            io.throttle_write_iops_device(),
            "blockIO.throttleWriteIOPSDevice",
        ),
    ]
}

/// v1's weights of 10 to 1000 are BFQ's own; io.weight runs from 1 to 10000.
fn io_v2(io: &LinuxBlockIo, all: &mut Writes) -> Result<()> {
    if io.leaf_weight().is_some_and(|w| w != 0) {
        return Err(refuse("blockIO.leafWeight", "cgroup v2 has no such file"));
    }
    let wide = |weight: u16| 1 + (u64::from(weight.max(10)) - 10) * 9999 / 990;
    if let Some(weight) = io.weight().filter(|w| *w != 0) {
        all.put("io", "io.bfq.weight", weight, "blockIO.weight");
        all.or("io.weight", wide(weight));
    }
    for device in io.weight_device().iter().flatten() {
        if device.leaf_weight().is_some() {
            return Err(refuse("blockIO.weightDevice.leafWeight", "cgroup v2 has no such file"));
        }
        if let Some(weight) = device.weight() {
            let at = format!("{}:{}", device.major(), device.minor());
            all.put("io", "io.bfq.weight", format!("{at} {weight}"), "blockIO.weightDevice");
            all.or("io.weight", format!("{at} {}", wide(weight)));
        }
    }
    for (_, key, devices, property) in throttles(io) {
        for device in devices.iter().flatten() {
            let line = format!("{}:{} {key}={}", device.major(), device.minor(), device.rate());
            all.put("io", "io.max", line, property);
        }
    }
    Ok(())
}

fn net_v1(network: &LinuxNetwork, unified: bool, all: &mut Writes) -> Result<()> {
    let class = network.class_id().filter(|c| *c != 0);
    let priorities = network.priorities().iter().flatten();
    if unified && (class.is_some() || priorities.clone().next().is_some()) {
        return Err(refuse("network", "cgroup v2 has no net_cls and no net_prio controller"));
    }
    if let Some(class) = class {
        all.put("net_cls", "net_cls.classid", class, "network.classID");
    }
    for priority in priorities {
        let line = format!("{} {}", priority.name(), priority.priority());
        all.put("net_prio", "net_prio.ifpriomap", line, "network.priorities");
    }
    Ok(())
}

fn raw(resources: &LinuxResources, unified: bool, all: &mut Writes) -> Result<()> {
    let mut entries: Vec<_> = resources.unified().iter().flatten().collect();
    entries.sort();
    for (file, value) in entries {
        if !unified {
            return Err(refuse("unified", "this host's controllers are on cgroup v1"));
        }
        if file.contains('/') || !file.contains('.') {
            return Err(refuse("unified", &format!("{file:?} is not the name of a cgroup file")));
        }
        all.put("unified", file.clone(), value, "unified");
    }
    Ok(())
}

/// Reads the directory's file `name`, trimmed, for errors and tests.
pub fn read(directory: &Path, name: &str) -> Result<String> {
    let path = directory.join(name);
    let text = std::fs::read_to_string(&path).wrap(|| format!("read {}", path.display()))?;
    Ok(text.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str, layout: Layout) -> Result<Vec<(String, String)>> {
        let all = writes(&serde_json::from_str(json).unwrap(), layout)?;
        Ok(all.into_iter().map(|w| (w.file, w.value)).collect())
    }

    fn pair(file: &str, value: &str) -> (String, String) {
        (file.into(), value.into())
    }

    #[test]
    fn memory_and_swap() {
        let json = r#"{"memory":{"limit":1000,"swap":3000,"reservation":0}}"#;
        assert_eq!(
            plan(json, Layout::Legacy).unwrap(),
            [pair("memory.limit_in_bytes", "1000"), pair("memory.memsw.limit_in_bytes", "3000")]
        );
        assert_eq!(
            plan(json, Layout::Unified).unwrap(),
            [pair("memory.swap.max", "2000"), pair("memory.max", "1000")]
        );
        let e = plan(r#"{"memory":{"limit":3000,"swap":1000}}"#, Layout::Unified).unwrap_err();
        assert!(e.to_string().contains("memory.swap"), "{e}");
    }

    #[test]
    fn cpu_in_both_versions() {
        let json = r#"{"cpu":{"shares":1024,"quota":50000,"cpus":"0-1"}}"#;
        assert_eq!(
            plan(json, Layout::Unified).unwrap(),
            [
                pair("cpu.weight", "100"),
                pair("cpu.max", "50000 100000"),
                pair("cpuset.cpus", "0-1")
            ]
        );
        assert_eq!(weight_of_shares(2), 1);
        assert_eq!(weight_of_shares(262_144), 10_000);
    }

    #[test]
    fn no_limit_is_max() {
        assert_eq!(
            plan(r#"{"pids":{"limit":-1}}"#, Layout::Legacy).unwrap(),
            [pair("pids.max", "max")]
        );
        assert!(plan(r#"{"pids":{"limit":0}}"#, Layout::Legacy).unwrap().is_empty());
    }

    #[test]
    fn what_a_layout_lacks_is_refused_by_name() {
        for (json, layout, name) in [
            (r#"{"unified":{"memory.high":"1"}}"#, Layout::Hybrid, "unified"),
            (r#"{"memory":{"swappiness":10}}"#, Layout::Unified, "memory.swappiness"),
            (r#"{"network":{"classID":1}}"#, Layout::Unified, "network"),
            (r#"{"memory":{"kernel":1}}"#, Layout::Legacy, "memory.kernel"),
            (r#"{"unified":{"../x":"1"}}"#, Layout::Unified, "unified"),
        ] {
            let e = plan(json, layout).unwrap_err().to_string();
            assert!(e.contains(name), "{json}: {e}");
        }
    }

    #[test]
    fn block_io() {
        let json = r#"{"blockIO":{"weight":500,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":7}]}}"#;
        assert_eq!(
            plan(json, Layout::Unified).unwrap(),
            [pair("io.bfq.weight", "500"), pair("io.max", "8:0 rbps=7")]
        );
        assert_eq!(plan(json, Layout::Legacy).unwrap()[1].0, "blkio.throttle.read_bps_device");
    }
}
