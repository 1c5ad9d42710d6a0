//! `update`: new limits for a container that exists.
//!
//! What is not mentioned stays as it is. Device rules, which runc's `update` leaves alone, are
//! replaced if the file has any.

use crate::cgroup::devices::Rule;
use crate::container::{Container, ContainerId, Status};
use crate::error::{Context, Error, Result};
use crate::plan::document;
use crate::plan::rdt::{self, Rdt};
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// What `update` is asked for.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File with a linux.resources object, `-` for stdin, in place of the other options
    #[arg(long, short, value_name = "FILE", conflicts_with = "limits")]
    pub resources: Option<PathBuf>,
    /// The limits
    #[command(flatten)]
    pub limits: Limits,
    /// Schema of the L3 cache (resctrl)
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Schema of the memory bandwidth (resctrl)
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// The limits that have a flag; sizes take a unit, and -1 stands for no limit.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(id = "limits", multiple = true)]
pub struct Limits {
    /// Share of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// CPU period in microseconds
    #[arg(long, value_name = "TIME")]
    pub cpu_period: Option<u64>,
    /// CPU time in each period, in microseconds
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// CPU time that may be saved up, in microseconds
    #[arg(long, value_name = "TIME")]
    pub cpu_burst: Option<u64>,
    /// Share of CPU time, 2 to 262144
    #[arg(long, value_name = "SHARES")]
    pub cpu_share: Option<u64>,
    /// Real-time CPU period in microseconds
    #[arg(long, value_name = "TIME")]
    pub cpu_rt_period: Option<u64>,
    /// Real-time CPU time in each period, in microseconds
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// 1: run only when nothing else would; 0: like others
    #[arg(long, value_name = "0|1")]
    pub cpu_idle: Option<i64>,
    /// CPUs to run on, as a list
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to take memory from, as a list
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Memory
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = bytes)]
    pub memory: Option<i64>,
    /// Memory that is left alone while there is enough
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = bytes)]
    pub memory_reservation: Option<i64>,
    /// Memory and swap together
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = bytes)]
    pub memory_swap: Option<i64>,
    /// Kernel memory, which Linux no longer limits by itself
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = bytes)]
    pub kernel_memory: Option<i64>,
    /// Memory of TCP buffers (cgroup v1)
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = bytes)]
    pub kernel_memory_tcp: Option<i64>,
    /// Number of processes and threads
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
}

impl Limits {
    /// As the `linux.resources` that says the same.
    fn resources(&self) -> Result<LinuxResources> {
        let mut all = Map::new();
        let mut put = |object: &str, key: &str, value: Option<Value>| {
            if let Some(value) = value {
                all.entry(object).or_insert_with(|| Value::Object(Map::new()))[key] = value;
            }
        };
        put("blockIO", "weight", self.blkio_weight.map(Value::from));
        put("cpu", "period", self.cpu_period.map(Value::from));
        put("cpu", "quota", self.cpu_quota.map(Value::from));
        put("cpu", "burst", self.cpu_burst.map(Value::from));
        put("cpu", "shares", self.cpu_share.map(Value::from));
        put("cpu", "realtimePeriod", self.cpu_rt_period.map(Value::from));
        put("cpu", "realtimeRuntime", self.cpu_rt_runtime.map(Value::from));
        put("cpu", "idle", self.cpu_idle.map(Value::from));
        put("cpu", "cpus", self.cpuset_cpus.clone().map(Value::from));
        put("cpu", "mems", self.cpuset_mems.clone().map(Value::from));
        put("memory", "limit", self.memory.map(Value::from));
        put("memory", "reservation", self.memory_reservation.map(Value::from));
        put("memory", "swap", self.memory_swap.map(Value::from));
        put("memory", "kernel", self.kernel_memory.map(Value::from));
        put("memory", "kernelTCP", self.kernel_memory_tcp.map(Value::from));
        put("pids", "limit", self.pids_limit.map(Value::from));
        serde_json::from_value(Value::Object(all)).map_err(|e| Error::new(e.to_string()))
    }
}

/// The verb.
pub fn run(root: &Path, args: &Args) -> Result<()> {
    let id = &ContainerId::new(&args.id)?;
    let schemata =
        rdt::update_lines(args.l3_cache_schema.as_deref(), args.mem_bw_schema.as_deref())?;
    let container = Container::open_locked(root, id)?;
    match container.status()? {
        Status::Created | Status::Running | Status::Paused => {}
        status => return Err(Error::new(format!("container not running: {id} is {status}"))),
    }
    if container.record.cgroups.is_empty() {
        return Err(Error::new(format!("container {id} has no cgroup, which limits would be for")));
    }
    if !schemata.is_empty() {
        change_schemata(&container, &schemata)
            .wrap(|| format!("update container {id}: --l3-cache-schema, --mem-bw-schema"))?;
    }
    let resources = match &args.resources {
        None => args.limits.resources()?,
        Some(path) => read(path).wrap(|| "--resources")?,
    };
    let rules = match resources.devices() {
        Some(list) if !list.is_empty() => Some(Rule::all(Some(list))?),
        _ => None,
    };
    container
        .cgroup()
        .change(&resources, rules.as_deref())
        .wrap(|| format!("update container {id}"))
}

/// A container without a class of its own would need all of its processes moved into a new one.
fn change_schemata(container: &Container, lines: &[String]) -> Result<()> {
    let plan = Rdt::of_config(&container.config()?)?.ok_or_else(|| {
        Error::new(
            "the container has no resctrl class, which linux.intelRdt in its config.json asks for",
        )
    })?;
    crate::rdt::change(&plan, &container.record.id, lines)
}

fn read(path: &Path) -> Result<LinuxResources> {
    let mut text = Vec::new();
    match path.to_str() {
        Some("-") => std::io::stdin().read_to_end(&mut text).wrap(|| "read stdin")?,
        _ => std::fs::File::open(path)
            .and_then(|mut file| file.read_to_end(&mut text))
            .wrap(|| format!("read {}", path.display()))?,
    };
    document::parse(&text, path)
}

/// A number of bytes, with a unit of 1024s if it has one: `64m`, `1.5GiB`, `1048576`; or -1.
pub fn bytes(text: &str) -> std::result::Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let odd = || format!("{text:?} is not a number of bytes, such as 64m, 1.5g or -1");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let unit = unit.strip_suffix('i').filter(|rest| !rest.is_empty()).unwrap_or(unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(odd()),
    };
    let factor = 1i64 << (10 * power);
    match number.parse::<i64>() {
        Ok(whole) => whole.checked_mul(factor).ok_or_else(odd),
        Err(_) => {
            let value = number.parse::<f64>().map_err(|_| odd())? * factor as f64;
            if value < i64::MAX as f64 { Ok(value as i64) } else { Err(odd()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, value) in [
            ("-1", -1),
            ("0", 0),
            ("1048576", 1 << 20),
            ("64m", 64 << 20),
            ("64MB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("1.5g", 3 << 29),
            ("7b", 7),
        ] {
            assert_eq!(bytes(text), Ok(value), "{text}");
        }
        for bad in ["", "m", "-2", "1x", "ib", "1..5g", "9999999p", "1mm"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_was_given_is_set() {
        let limits = Limits { pids_limit: Some(7), cpu_share: Some(9), ..Limits::default() };
        let resources = limits.resources().unwrap();
        assert_eq!(resources.pids().unwrap().limit(), 7);
        let cpu = resources.cpu().clone().unwrap();
        assert_eq!((cpu.shares(), cpu.quota()), (Some(9), None));
        assert!(resources.memory().is_none() && resources.block_io().is_none());
    }
}
