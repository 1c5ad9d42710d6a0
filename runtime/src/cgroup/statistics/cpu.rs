//! CPU time, how often it was held back, and places.

use super::{Group, Pressure, pressure, zero};
use crate::cgroup::Cgroup;
use crate::error::Result;
use serde::Serialize;
use std::collections::BTreeMap;

/// ns of one tick in `cpuacct.stat`: USER_HZ is 100 on every architecture of ours.
const TICK: u64 = 10_000_000;

/// Time on the CPUs.
#[derive(Debug, Default, Serialize)]
pub struct Cpu {
    usage: Usage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

/// ns since the container was made.
#[derive(Debug, Default, Serialize)]
struct Usage {
    #[serde(skip_serializing_if = "zero")]
    total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_user: Vec<u64>,
    kernel: u64,
    user: u64,
}

/// Periods with a quota, those in which it was used up, and for how many ns.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "zero")]
    periods: u64,
    #[serde(skip_serializing_if = "zero")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "zero")]
    throttled_time: u64,
}

impl Cpu {
    pub(super) fn read(cgroup: &Cgroup) -> Result<Self> {
        let mut all = Self { psi: pressure(cgroup, "cpu.pressure")?, ..Self::default() };
        if let Some(group) = Group::of(cgroup, "cpu") {
            let stat = group.pairs("cpu.stat")?;
            let value = |name: &str| stat.get(name).copied().unwrap_or(0);
            all.throttling = Throttling {
                periods: value("nr_periods"),
                throttled_periods: value("nr_throttled"),
                // v1 counts in ns, v2 in µs.
                throttled_time: value("throttled_time") + value("throttled_usec") * 1000,
            };
            if group.place.unified {
                all.usage = Usage {
                    total: value("usage_usec") * 1000,
                    user: value("user_usec") * 1000,
                    kernel: value("system_usec") * 1000,
                    ..Usage::default()
                };
            }
        }
        if let Some(group) = Group::of(cgroup, "cpuacct").filter(|group| !group.place.unified) {
            all.usage = v1(&group)?;
        }
        Ok(all)
    }
}

fn v1(group: &Group<'_>) -> Result<Usage> {
    let stat = group.pairs("cpuacct.stat")?;
    let time = |name: &str| stat.get(name).copied().unwrap_or(0) * TICK;
    // Lines of `cpu user system`, after a heading.
    let each: Vec<[u64; 3]> = group
        .text("cpuacct.usage_all")?
        .lines()
        .filter_map(|line| {
            let numbers: Vec<u64> = line.split_whitespace().map_while(|n| n.parse().ok()).collect();
            numbers.try_into().ok()
        })
        .collect();
    let percpu = group.text("cpuacct.usage_percpu")?;
    Ok(Usage {
        total: group.number("cpuacct.usage")?.unwrap_or(0),
        percpu: percpu.split_whitespace().filter_map(|n| n.parse().ok()).collect(),
        percpu_kernel: each.iter().map(|[_, _, system]| *system).collect(),
        percpu_user: each.iter().map(|[_, user, _]| *user).collect(),
        kernel: time("system"),
        user: time("user"),
    })
}

/// Where the container may run, and take memory from.
#[derive(Debug, Default, Serialize)]
pub struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u16>,
    /// v1's flags, by their file's name.
    #[serde(flatten)]
    flags: BTreeMap<&'static str, i64>,
}

const FLAGS: [&str; 9] = [
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
];

impl Cpuset {
    pub(super) fn read(cgroup: &Cgroup) -> Result<Self> {
        let Some(group) = Group::of(cgroup, "cpuset") else { return Ok(Self::default()) };
        if group.place.unified {
            return Ok(Self {
                cpus: list(&group.text("cpuset.cpus.effective")?),
                mems: list(&group.text("cpuset.mems.effective")?),
                flags: BTreeMap::new(),
            });
        }
        let mut flags = BTreeMap::new();
        for name in FLAGS {
            let text = group.text(&format!("cpuset.{name}"))?;
            flags.extend(text.trim().parse().ok().map(|number: i64| (name, number)));
        }
        let (cpus, mems) = (group.text("cpuset.cpus")?, group.text("cpuset.mems")?);
        Ok(Self { cpus: list(&cpus), mems: list(&mems), flags })
    }
}

/// `0-2,5` as 0, 1, 2, 5 (cpuset(7), List format).
fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_spelt_out() {
        assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(list("\n"), [0u16; 0]);
    }
}
