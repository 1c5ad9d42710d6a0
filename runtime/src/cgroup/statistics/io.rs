//! Block I/O.

use super::{Group, Pressure, pressure, zero};
use crate::cgroup::Cgroup;
use crate::error::Result;
use serde::Serialize;

/// Bytes and requests of each device. v1's I/O scheduler CFQ had more; Linux 5.0 removed it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<Entry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

/// One number of one device.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Entry {
    #[serde(skip_serializing_if = "zero")]
    major: u64,
    #[serde(skip_serializing_if = "zero")]
    minor: u64,
    op: String,
    #[serde(skip_serializing_if = "zero")]
    value: u64,
}

impl Blkio {
    pub(super) fn read(cgroup: &Cgroup) -> Result<Self> {
        let psi = pressure(cgroup, "io.pressure")?;
        // v2 calls the controller io.
        let (bytes, serviced) = match Group::of(cgroup, "blkio") {
            Some(group) if group.place.unified => {
                let text = group.text("io.stat")?;
                (v2(&text, ["rbytes", "wbytes"]), v2(&text, ["rios", "wios"]))
            }
            Some(group) => (v1(&group, "io_service_bytes")?, v1(&group, "io_serviced")?),
            None => Default::default(),
        };
        Ok(Self { io_service_bytes_recursive: bytes, io_serviced_recursive: serviced, psi })
    }
}

/// The scheduler BFQ counts by itself what goes through it; throttling counts everything.
fn v1(group: &Group<'_>, what: &str) -> Result<Vec<Entry>> {
    for part in ["bfq", "throttle"] {
        let found = parse_v1(&group.text(&format!("blkio.{part}.{what}_recursive"))?);
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// Lines of `MAJOR:MINOR OPERATION NUMBER`, and one that adds them up.
fn parse_v1(text: &str) -> Vec<Entry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (device, op, value) = (words.next()?, words.next()?, words.next()?);
        entry(device, op, value.parse().ok()?)
    };
    text.lines().filter_map(entry).collect()
}

/// Lines of `MAJOR:MINOR KEY=NUMBER …`.
fn v2(text: &str, [read, write]: [&str; 2]) -> Vec<Entry> {
    let mut all = Vec::new();
    for line in text.lines() {
        let Some((device, rest)) = line.split_once(' ') else { continue };
        for (key, value) in rest.split_whitespace().filter_map(|word| word.split_once('=')) {
            let op = match key {
                _ if key == read => "Read",
                _ if key == write => "Write",
                _ => continue,
            };
            all.extend(value.parse().ok().and_then(|value| entry(device, op, value)));
        }
    }
    all
}

fn entry(device: &str, op: &str, value: u64) -> Option<Entry> {
    let (major, minor) = device.split_once(':')?;
    Some(Entry { major: major.parse().ok()?, minor: minor.parse().ok()?, op: op.into(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_say_the_same() {
        let old = parse_v1("8:0 Read 7\n8:0 Write 9\nTotal 16\n");
        let new = v2("8:0 rbytes=7 wbytes=9 rios=1 wios=2 dbytes=0 dios=0\n", ["rbytes", "wbytes"]);
        assert_eq!(old, new);
        assert_eq!(old[1], Entry { major: 8, minor: 0, op: "Write".into(), value: 9 });
    }
}
