//! Memory. v1 counts swap together with memory; v2's numbers are added up to mean the same.

use super::{Group, Pressure, pressure, zero};
use crate::cgroup::Cgroup;
use crate::error::Result;
use serde::Serialize;
use std::collections::BTreeMap;

/// Bytes of memory.
#[derive(Debug, Default, Serialize)]
pub struct Memory {
    #[serde(skip_serializing_if = "zero")]
    cache: u64,
    usage: Entry,
    swap: Entry,
    kernel: Entry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: Entry,
    /// `memory.stat` as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

/// What is used, was used at most, may be used, and how often that was not enough.
#[derive(Debug, Default, Serialize)]
struct Entry {
    limit: u64,
    #[serde(skip_serializing_if = "zero")]
    usage: u64,
    #[serde(skip_serializing_if = "zero")]
    max: u64,
    failcnt: u64,
}

impl Memory {
    pub(super) fn read(cgroup: &Cgroup) -> Result<Self> {
        let mut all = match Group::of(cgroup, "memory") {
            Some(group) if group.place.unified => v2(&group)?,
            Some(group) => v1(&group)?,
            None => Self::default(),
        };
        all.psi = pressure(cgroup, "memory.pressure")?;
        Ok(all)
    }
}

fn v1(group: &Group<'_>) -> Result<Memory> {
    let raw = group.pairs("memory.stat")?;
    let entry = |part: &str| -> Result<Entry> {
        let number = |file: &str| group.number(&format!("memory{part}.{file}"));
        Ok(Entry {
            limit: number("limit_in_bytes")?.unwrap_or(0),
            usage: number("usage_in_bytes")?.unwrap_or(0),
            max: number("max_usage_in_bytes")?.unwrap_or(0),
            failcnt: number("failcnt")?.unwrap_or(0),
        })
    };
    Ok(Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: entry("")?,
        swap: entry(".memsw")?,
        kernel: entry(".kmem")?,
        kernel_tcp: entry(".kmem.tcp")?,
        raw,
        psi: None,
    })
}

fn v2(group: &Group<'_>) -> Result<Memory> {
    let raw = group.pairs("memory.stat")?;
    if raw.is_empty() {
        // The controller is not here.
        return Ok(Memory::default());
    }
    let entry = |part: &str| -> Result<Entry> {
        let number = |file: &str| group.number(&format!("memory{part}.{file}"));
        Ok(Entry {
            // No limit is the greatest number, as it nearly is in v1.
            limit: number("max")?.unwrap_or(u64::MAX),
            usage: number("current")?.unwrap_or(0),
            max: number("peak")?.unwrap_or(0),
            failcnt: group.pairs(&format!("memory{part}.events"))?.remove("max").unwrap_or(0),
        })
    };
    let (usage, alone) = (entry("")?, entry(".swap")?);
    let swap = Entry {
        limit: usage.limit.saturating_add(alone.limit),
        usage: usage.usage + alone.usage,
        max: alone.max,
        failcnt: alone.failcnt,
    };
    let kernel = Entry { usage: raw.get("kernel").copied().unwrap_or(0), ..Entry::default() };
    Ok(Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        // Without swap in the kernel there is nothing to add up.
        swap: if group.text("memory.swap.max")?.is_empty() { Entry::default() } else { swap },
        kernel,
        kernel_tcp: Entry { usage: raw.get("sock").copied().unwrap_or(0), ..Entry::default() },
        raw,
        psi: None,
    })
}
