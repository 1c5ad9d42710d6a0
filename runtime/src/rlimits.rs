//! Resource limits of the process (getrlimit(2)).

use crate::error::{Error, Result};
use crate::plan::process::Rlimit;
use crate::sys::process as sys;

/// Sets the limits of the process `pid` (0: our own).
pub fn apply(pid: i32, limits: &[Rlimit]) -> Result<()> {
    limits.iter().try_for_each(|limit| {
        sys::set_rlimit(pid, limit.resource, limit.soft, limit.hard).map_err(|e| explain(limit, e))
    })
}

fn explain(limit: &Rlimit, error: Error) -> Error {
    let now = sys::rlimit(limit.resource);
    let advice = match (error.errno(), now) {
        (Some(libc::EPERM), Ok((_, hard))) if limit.hard > hard => format!(
            "process.rlimits: {}: raising the hard limit from {hard} needs CAP_SYS_RESOURCE; ask for at most {hard}",
            limit.name
        ),
        _ => format!("process.rlimits: {}", limit.name),
    };
    error.wrap(advice)
}

/// Can a process without privilege set these limits? Lowering needs none.
pub fn need_privilege(limits: &[Rlimit]) -> bool {
    limits.iter().any(|l| sys::rlimit(l.resource).is_ok_and(|(_, hard)| l.hard > hard))
}
