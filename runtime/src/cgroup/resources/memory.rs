//! `linux.resources.memory`.
//!
//! The specification's `swap` is memory and swap together, as v1's file has it; v2's file is swap
//! alone.

use super::{Writes, or_max, refuse};
use crate::error::Result;
use oci_spec::runtime::LinuxMemory;

/// Adds the writes for one side.
pub(super) fn writes(memory: &LinuxMemory, unified: bool, all: &mut Writes) -> Result<()> {
    check(memory, unified)?;
    if unified {
        v2(memory, all)
    } else {
        v1(memory, all);
        Ok(())
    }
}

fn check(memory: &LinuxMemory, unified: bool) -> Result<()> {
    if memory.kernel().is_some_and(|k| k > 0) {
        return Err(refuse("memory.kernel", "Linux 5.16 removed the separate kernel memory limit"));
    }
    if memory.use_hierarchy() == Some(false) {
        return Err(refuse(
            "memory.useHierarchy",
            "Linux 5.11 made hierarchical accounting the only one",
        ));
    }
    if memory.swappiness().is_some_and(|s| s > 100) {
        return Err(refuse("memory.swappiness", "it is above 100"));
    }
    let missing = [
        ("memory.swappiness", memory.swappiness().is_some()),
        ("memory.disableOOMKiller", memory.disable_oom_killer() == Some(true)),
        ("memory.kernelTCP", memory.kernel_tcp().is_some_and(|k| k > 0)),
    ];
    match missing.iter().find(|(_, asked)| *asked && unified) {
        Some((property, _)) => Err(refuse(property, "cgroup v2 has no such file")),
        None => Ok(()),
    }
}

/// What is asked for; zero asks for nothing.
fn set(value: Option<i64>) -> Option<i64> {
    value.filter(|v| *v != 0)
}

fn v1(memory: &LinuxMemory, all: &mut Writes) {
    let mut put = |file: &str, value, property| {
        if let Some(value) = set(value) {
            all.put("memory", file, value, property);
        }
    };
    put("memory.limit_in_bytes", memory.limit(), "memory.limit");
    put("memory.memsw.limit_in_bytes", memory.swap(), "memory.swap");
    put("memory.soft_limit_in_bytes", memory.reservation(), "memory.reservation");
    put("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp(), "memory.kernelTCP");
    if endless_with_swap(memory) {
        all.put("memory", "memory.memsw.limit_in_bytes", -1, "memory.limit");
        all.optional();
    }
    if let Some(swappiness) = memory.swappiness() {
        all.put("memory", "memory.swappiness", swappiness, "memory.swappiness");
    }
    if memory.disable_oom_killer() == Some(true) {
        all.put("memory", "memory.oom_control", 1, "memory.disableOOMKiller");
    }
}

/// Memory without a limit cannot be part of a limited sum (v1), and so has swap without one.
fn endless_with_swap(memory: &LinuxMemory) -> bool {
    set(memory.limit()).is_some_and(|limit| limit < 0) && set(memory.swap()).is_none()
}

fn v2(memory: &LinuxMemory, all: &mut Writes) -> Result<()> {
    let limit = set(memory.limit());
    let alone = match (set(memory.swap()), limit) {
        (None, _) if endless_with_swap(memory) => Some(-1),
        (None, _) => None,
        (Some(swap), _) if swap < 0 => Some(-1),
        (Some(swap), Some(limit)) if limit < 0 => Some(swap),
        (Some(swap), Some(limit)) if swap >= limit => Some(swap - limit),
        (Some(_), Some(_)) => {
            return Err(refuse("memory.swap", "it is below memory.limit, which it includes"));
        }
        (Some(_), None) => {
            return Err(refuse("memory.swap", "it needs memory.limit, which it includes"));
        }
    };
    if let Some(alone) = alone {
        all.put("memory", "memory.swap.max", or_max(alone), "memory.swap");
        if alone <= 0 {
            // A kernel without swap has no file, and neither more nor less swap than asked for.
            all.optional();
        }
    }
    if let Some(limit) = limit {
        all.put("memory", "memory.max", or_max(limit), "memory.limit");
    }
    if let Some(low) = set(memory.reservation()) {
        all.put("memory", "memory.low", or_max(low), "memory.reservation");
    }
    Ok(())
}
