//! How the process is scheduled: policy, I/O priority, CPUs, memory nodes, personality.

use crate::error::{Context, Result};
use crate::plan::process::Process;
use crate::sys::{process as sys, sched};

/// Applies everything that the plan asks for. Raising a priority needs CAP_SYS_NICE, so this comes
/// before capabilities are given up.
pub fn apply(process: &Process) -> Result<()> {
    if let Some(scheduler) = process.scheduler {
        sched::set_scheduler(scheduler).wrap(|| "process.scheduler")?;
    }
    if let Some((class, priority)) = process.io_priority {
        sched::set_io_priority(class, priority).wrap(|| "process.ioPriority")?;
    }
    if let Some((mode, nodes)) = &process.memory_policy {
        sys::set_mempolicy(*mode, nodes).wrap(|| "linux.memoryPolicy")?;
    }
    if let Some(persona) = process.personality {
        sys::personality(persona).wrap(|| "linux.personality")?;
    }
    Ok(())
}
