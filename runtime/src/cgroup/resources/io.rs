//! `linux.resources.blockIO`.

use super::{Writes, refuse};
use crate::error::Result;
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

/// Adds the writes for one side.
pub(super) fn writes(io: &LinuxBlockIo, unified: bool, all: &mut Writes) -> Result<()> {
    if unified {
        v2(io, all)
    } else {
        v1(io, all);
        Ok(())
    }
}

fn v1(io: &LinuxBlockIo, all: &mut Writes) {
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
fn v2(io: &LinuxBlockIo, all: &mut Writes) -> Result<()> {
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
            // v1 takes 0 for "no limit", v2 refuses it.
            let rate = if device.rate() == 0 { "max".into() } else { device.rate().to_string() };
            let line = format!("{}:{} {key}={rate}", device.major(), device.minor());
            all.put("io", "io.max", line, property);
        }
    }
    Ok(())
}
