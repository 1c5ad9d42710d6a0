//! Limits that bite: programs that run into them, and what the kernel counts of it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::cgroup::{self, Layout};
use crate::wait_until;

/// Starts 40 processes, or fails with "can't fork".
pub const FORKS: &str = "i=0; while [ $i -lt 40 ]; do sleep 3 & i=$((i+1)); done; echo all";

/// Takes up to 100 MB of memory; of the shell, which says how it ended, only that is killed.
pub const EATS: &str = "sleep 1; tail -c 100000000 /dev/zero; code=$?; sleep 1; exit $code";

/// Uses one processor for ever.
pub const SPINS: &str = "while :; do :; done";

/// Asserts that the group of process `pid`, which spins, is held to this share of one processor: it
/// is throttled again and again, and gets about what it may have.
///
/// # Panics
/// When it is not throttled in ten of the periods of ten seconds, or uses a third more than its
/// share, or, on a machine that may be busy, not even half of it.
#[track_caller]
pub fn assert_throttled(pid: u32, share: f64) {
    let begun = Instant::now();
    let before = Cpu::of(pid);
    let mut after = Cpu::of(pid);
    let throttled = wait_until(|| {
        std::thread::sleep(Duration::from_millis(500));
        after = Cpu::of(pid);
        after.throttled >= before.throttled + 10
    });
    let wall = begun.elapsed().as_secs_f64();
    let used = (after.used - before.used) / wall;
    let times = after.throttled - before.throttled;
    assert!(throttled, "throttled {times} times in {wall:.1} s, and used {used:.2} of a processor");
    let near = (share / 2.0..share * 4.0 / 3.0).contains(&used);
    assert!(near, "it used {used:.2} of a processor, where {share} is the limit");
}

struct Cpu {
    /// Periods in which the quota was used up.
    throttled: u64,
    /// Seconds of CPU time.
    used: f64,
}

impl Cpu {
    fn of(pid: u32) -> Cpu {
        let stat = numbers(&cgroup::read(pid, "cpu", "cpu.stat", "cpu.stat"));
        let used = match cgroup::layout() {
            Layout::V2 => stat["usage_usec"] as f64 / 1e6,
            Layout::V1 => {
                let text = cgroup::read(pid, "cpuacct", "cpuacct.usage", "");
                text.parse::<f64>().expect("nanoseconds") / 1e9
            }
        };
        Cpu { throttled: stat["nr_throttled"], used }
    }
}

/// How many processes the kernel has killed for want of memory in the group of process `pid`.
pub fn oom_kills(pid: u32) -> u64 {
    numbers(&cgroup::read(pid, "memory", "memory.oom_control", "memory.events"))["oom_kill"]
}

fn numbers(text: &str) -> HashMap<String, u64> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}
