//! What a container uses, in the words of `runc events` (go-runc's `events.go` parses them): times
//! in ns, sizes in bytes. A file that this kernel lacks leaves its numbers out, or zero where the
//! format has no way to leave them out.

mod cpu;
mod io;
mod memory;

use super::{Cgroup, Place};
use crate::error::{Context, Result};
use crate::sys::fs;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// The `data` of a `stats` event.
#[derive(Debug, Default, Serialize)]
pub struct Statistics {
    /// Time on the CPUs.
    pub cpu: cpu::Cpu,
    /// Places on the CPUs and memory nodes.
    pub cpuset: cpu::Cpuset,
    /// Memory.
    pub memory: memory::Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block I/O.
    pub blkio: io::Blkio,
    /// Huge pages, by their size (`2MB`).
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// Devices for remote access to memory; none where the kernel or the host has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdma_stats: Option<Rdma>,
    /// Resource control, of which nothing is known without a group.
    pub intel_rdt: serde_json::Map<String, serde_json::Value>,
    /// Devices of the container's own network namespace; none if it has none.
    pub network_interfaces: Option<Vec<Interface>>,
}

/// Processes and threads.
#[derive(Debug, Default, Serialize)]
pub struct Pids {
    #[serde(skip_serializing_if = "zero")]
    current: u64,
    /// None if there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Default, Serialize)]
pub struct Hugetlb {
    #[serde(skip_serializing_if = "zero")]
    usage: u64,
    #[serde(skip_serializing_if = "zero")]
    max: u64,
    failcnt: u64,
}

/// Use and limits of RDMA devices (kernel's cgroup-v1/rdma.rst).
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Rdma {
    rdma_limit: Vec<RdmaDevice>,
    rdma_current: Vec<RdmaDevice>,
}

/// One of them; a limit of none is the largest number, as runc writes it.
#[derive(Debug, Default, PartialEq, Serialize)]
struct RdmaDevice {
    device: String,
    hca_handles: u32,
    hca_objects: u32,
}

/// A network device.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Interface {
    name: String,
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

/// Pressure: how long processes waited for a resource (Linux 4.20, kernel's accounting/psi.rst).
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    some: Waiting,
    full: Waiting,
}

/// Shares of time in percent over 10, 60 and 300 s, and µs in all.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Waiting {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

impl Statistics {
    /// Reads the files of a group whose directories are open.
    pub fn read(cgroup: &Cgroup) -> Result<Self> {
        Ok(Self {
            cpu: cpu::Cpu::read(cgroup)?,
            cpuset: cpu::Cpuset::read(cgroup)?,
            memory: memory::Memory::read(cgroup)?,
            pids: pids(cgroup)?,
            blkio: io::Blkio::read(cgroup)?,
            hugetlb: hugetlb(cgroup)?,
            rdma_stats: rdma(cgroup)?,
            ..Self::default()
        })
    }
}

/// The group that holds a controller.
struct Group<'a> {
    directory: BorrowedFd<'a>,
    place: &'a Place,
}

impl<'a> Group<'a> {
    fn of(cgroup: &'a Cgroup, controller: &str) -> Option<Self> {
        cgroup.holder(controller).map(|(place, directory)| Self { directory, place })
    }

    /// The v2 group, which alone has pressure files.
    fn unified(cgroup: &'a Cgroup) -> Option<Self> {
        let mut places = cgroup.open_places();
        places.find(|(p, _)| p.unified).map(|(place, directory)| Self { directory, place })
    }

    /// A whole file; empty where it is missing, or its feature is turned off.
    fn text(&self, file: &str) -> Result<String> {
        let at = || format!("read {}", self.place.path.join(file).display());
        let mut text = String::new();
        let read = fs::openat(self.directory, Path::new(file), libc::O_RDONLY, 0)
            .and_then(|fd| std::fs::File::from(fd).read_to_string(&mut text).wrap(at));
        match read {
            Ok(_) => Ok(text),
            Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::EOPNOTSUPP)) => {
                Ok(String::new())
            }
            Err(e) => Err(e),
        }
    }

    /// A file of one number; none where it is missing, or says `max`.
    fn number(&self, file: &str) -> Result<Option<u64>> {
        Ok(self.text(file)?.trim().parse().ok())
    }

    /// A file of lines `name number`.
    fn pairs(&self, file: &str) -> Result<BTreeMap<String, u64>> {
        let text = self.text(file)?;
        let pair = |line: &str| {
            let (name, number) = line.split_once(' ')?;
            Some((name.to_owned(), number.trim().parse().ok()?))
        };
        Ok(text.lines().filter_map(pair).collect())
    }

    fn pressure(&self, file: &str) -> Result<Option<Pressure>> {
        Ok(parse_pressure(&self.text(file)?))
    }
}

/// Pressure of the resource that `file` tells of, where there is a v2 group and the kernel counts.
fn pressure(cgroup: &Cgroup, file: &str) -> Result<Option<Pressure>> {
    Group::unified(cgroup).map_or(Ok(None), |group| group.pressure(file))
}

fn parse_pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let waiting = match words.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => waiting.avg10 = value.parse().ok()?,
                "avg60" => waiting.avg60 = value.parse().ok()?,
                "avg300" => waiting.avg300 = value.parse().ok()?,
                "total" => waiting.total = value.parse().ok()?,
                _ => {}
            }
        }
    }
    (!text.is_empty()).then_some(pressure)
}

fn rdma(cgroup: &Cgroup) -> Result<Option<Rdma>> {
    let Some(group) = Group::of(cgroup, "rdma") else { return Ok(None) };
    let read = |file| group.text(file).map(|text| parse_rdma(&text));
    let found = Rdma { rdma_limit: read("rdma.max")?, rdma_current: read("rdma.current")? };
    Ok((found != Rdma::default()).then_some(found))
}

/// Lines such as `mlx4_0 hca_handle=2 hca_object=max`.
fn parse_rdma(text: &str) -> Vec<RdmaDevice> {
    let line = |line: &str| {
        let (device, values) = line.split_once(' ')?;
        let value = |name| {
            let found = values.split(' ').find_map(|v| v.strip_prefix(name)?.strip_prefix('='))?;
            if found == "max" { Some(u32::MAX) } else { found.parse().ok() }
        };
        let (hca_handles, hca_objects) = (value("hca_handle")?, value("hca_object")?);
        Some(RdmaDevice { device: device.into(), hca_handles, hca_objects })
    };
    text.lines().filter_map(line).collect()
}

fn zero(number: &u64) -> bool {
    *number == 0
}

fn pids(cgroup: &Cgroup) -> Result<Pids> {
    let Some(group) = Group::of(cgroup, "pids") else { return Ok(Pids::default()) };
    let current = group.number("pids.current")?.unwrap_or(0);
    Ok(Pids { current, limit: group.number("pids.max")? })
}

/// Reserved huge pages, which include those in use, where the kernel counts them (Linux 5.7).
fn hugetlb(cgroup: &Cgroup) -> Result<BTreeMap<String, Hugetlb>> {
    let mut all = BTreeMap::new();
    let Some(group) = Group::of(cgroup, "hugetlb") else { return Ok(all) };
    for name in super::directory::names(&group.place.path) {
        let Some(size) = name.strip_prefix("hugetlb.").and_then(|n| {
            n.strip_suffix(if group.place.unified { ".current" } else { ".usage_in_bytes" })
        }) else {
            continue;
        };
        let size = size.strip_suffix(".rsvd").unwrap_or(size);
        let either = |file: &str| -> Result<Option<u64>> {
            match group.number(&format!("hugetlb.{size}.rsvd.{file}"))? {
                None => group.number(&format!("hugetlb.{size}.{file}")),
                reserved => Ok(reserved),
            }
        };
        let one = if group.place.unified {
            let events = group.pairs(&format!("hugetlb.{size}.events"))?;
            let failcnt = events.get("max").copied().unwrap_or(0);
            Hugetlb { usage: either("current")?.unwrap_or(0), max: 0, failcnt }
        } else {
            Hugetlb {
                usage: either("usage_in_bytes")?.unwrap_or(0),
                max: either("max_usage_in_bytes")?.unwrap_or(0),
                failcnt: either("failcnt")?.unwrap_or(0),
            }
        };
        all.insert(size.to_owned(), one);
    }
    Ok(all)
}

/// The devices that /proc/PID/net/dev lists, but for the loopback.
pub fn interfaces(table: &str) -> Vec<Interface> {
    let parse = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let n: Vec<u64> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let name = name.trim();
        (name != "lo" && n.len() >= 12).then(|| Interface {
            name: name.into(),
            rx_bytes: n[0],
            rx_packets: n[1],
            rx_errors: n[2],
            rx_dropped: n[3],
            tx_bytes: n[8],
            tx_packets: n[9],
            tx_errors: n[10],
            tx_dropped: n[11],
        })
    };
    table.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rdma_devices_are_read() {
        let read = parse_rdma("mlx4_0 hca_handle=2 hca_object=max\nocrdma1 hca_handle=3\n");
        let (device, hca_handles) = ("mlx4_0".to_string(), 2);
        assert_eq!(read, [RdmaDevice { device, hca_handles, hca_objects: u32::MAX }]);
    }

    #[test]
    fn pressure_is_parsed() {
        let text = "some avg10=1.50 avg60=0.00 avg300=0.25 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let pressure = parse_pressure(text).unwrap();
        assert_eq!((pressure.some.avg10, pressure.some.avg300), (1.5, 0.25));
        assert_eq!((pressure.some.total, pressure.full.total), (77, 5));
        assert_eq!(parse_pressure(""), None);
    }

    #[test]
    fn devices_are_found_and_the_loopback_left_out() {
        let table = "Inter-|   Receive\n face |bytes packets\n    lo: 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n";
        let found = interfaces(table);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].rx_dropped), ("eth0", 4));
        assert_eq!((found[0].tx_bytes, found[0].tx_dropped), (5, 8));
        let json = serde_json::to_string(&found).unwrap();
        assert!(json.starts_with(r#"[{"Name":"eth0","RxBytes":1,"RxPackets":2,"#), "{json}");
    }

    #[test]
    fn nothing_is_left_out_that_a_reader_expects() {
        let json = serde_json::to_value(Statistics::default()).unwrap();
        for key in ["cpu", "memory", "pids", "blkio", "hugetlb", "intel_rdt"] {
            assert!(json[key].is_object(), "{key}: {json}");
        }
        assert!(json["network_interfaces"].is_null(), "{json}");
        assert_eq!(json["cpu"]["usage"]["kernel"], 0);
        assert_eq!(json["memory"]["usage"], serde_json::json!({ "limit": 0, "failcnt": 0 }));
    }
}
