//! `linux.resources.cpu`: time in cpu, places in cpuset.

use super::{Sides, Writes, or_max, refuse};
use crate::error::Result;
use oci_spec::runtime::LinuxCpu;

/// The kernel's period where none is given, in µs.
const PERIOD: u64 = 100_000;

/// Adds the writes.
pub(super) fn writes(cpu: &LinuxCpu, sides: &Sides, all: &mut Writes) -> Result<()> {
    if sides.unified("cpu") {
        v2(cpu, all)?
    } else {
        v1(cpu, all)?
    }
    cpuset(cpu, all);
    Ok(())
}

fn v1(cpu: &LinuxCpu, all: &mut Writes) -> Result<()> {
    if let Some(idle) = cpu.idle() {
        all.put("cpu", "cpu.idle", idle, "cpu.idle");
    }
    // The kernel refuses shares for a group that is idle.
    if let Some(shares) = cpu.shares().filter(|s| *s != 0 && cpu.idle() != Some(1)) {
        if !(2..=262_144).contains(&shares) {
            // The kernel would take the nearest one.
            return Err(refuse("cpu.shares", &format!("{shares} is not between 2 and 262144")));
        }
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
    Ok(())
}

fn v2(cpu: &LinuxCpu, all: &mut Writes) -> Result<()> {
    let set = [
        ("cpu.realtimePeriod", cpu.realtime_period().is_some_and(|p| p != 0)),
        ("cpu.realtimeRuntime", cpu.realtime_runtime().is_some_and(|r| r != 0)),
    ];
    if let Some((property, _)) = set.iter().find(|(_, set)| *set) {
        return Err(refuse(property, "cgroup v2 has no such file"));
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
        all.put("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(PERIOD)), "cpu.quota");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_and_the_defaults_of_shares_and_weights_meet() {
        for (shares, weight) in [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)]
        {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
    }
}
