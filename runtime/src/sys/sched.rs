//! Scheduling: policy, I/O priority, CPU affinity.

use super::check;
use crate::error::Result;

/// sched_setattr(2)'s argument, first version (48 bytes).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct SchedAttr {
    /// Size of this structure in bytes.
    #[serde(skip)]
    pub size: u32,
    /// SCHED_* number.
    pub policy: u32,
    /// SCHED_FLAG_* bits.
    pub flags: u64,
    /// Nice value for SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// Static priority for SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// SCHED_DEADLINE runtime in nanoseconds.
    pub runtime: u64,
    /// SCHED_DEADLINE deadline in nanoseconds.
    pub deadline: u64,
    /// SCHED_DEADLINE period in nanoseconds.
    pub period: u64,
}

/// sched_setattr(2) of this thread.
pub fn set_scheduler(attributes: SchedAttr) -> Result<()> {
    let attributes = SchedAttr { size: size_of::<SchedAttr>() as u32, ..attributes };
    // SAFETY: the structure says its own size.
    let r = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attributes, 0) };
    check(r, || format!("sched_setattr(0, {attributes:?})")).map(drop)
}

/// ioprio_set(2) of this process.
pub fn set_io_priority(class: i32, priority: i32) -> Result<()> {
    // SAFETY: no memory is passed; 1 is IOPRIO_WHO_PROCESS, the class is in the top bits.
    let r = unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, class << 13 | priority) };
    check(r, || format!("ioprio_set(class={class}, priority={priority})")).map(drop)
}

/// sched_setaffinity(2) of this thread; `mask` has one bit per CPU.
pub fn set_affinity(mask: &[u64]) -> Result<()> {
    // SAFETY: the mask is readable for the size that is passed.
    let r =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) };
    check(r, || format!("sched_setaffinity(0, {mask:x?})")).map(drop)
}
