//! Processes that are not our children, named so that a reused pid is never mistaken.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

use crate::error::Result;

/// A process as a file in a container's directory records it: pid, start time in clock
/// ticks since boot (proc_pid_stat(5), field 22) and the boot's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The pid in our pid namespace.
    pub pid: i32,
    start: u64,
    boot: String,
}

impl Recorded {
    /// The identity of a process that runs now; `None` when it does not.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start: start_time(pid)?, boot: boot_id() })
    }

    /// Reads what `write` wrote; `None` when it is missing or damaged.
    pub fn read(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        let mut words = text.split_whitespace();
        Some(Self {
            pid: words.next()?.parse().ok()?,
            start: words.next()?.parse().ok()?,
            boot: words.next()?.to_owned(),
        })
    }

    /// Records the process atomically.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = format!("{} {} {}\n", self.pid, self.start, self.boot);
        crate::container::write_atomically(path, text.as_bytes())
    }

    /// A pidfd for exactly this process; `None` when it is gone (a zombie is gone).
    pub fn open(&self) -> Option<OwnedFd> {
        if self.boot != boot_id() {
            return None;
        }
        let fd = rustix::process::pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // The descriptor pins one process; only now is its start time worth comparing.
        let same = start_time(self.pid) == Some(self.start);
        (same && !ended(&fd)).then_some(fd)
    }
}

/// Whether the process behind a pidfd has ended.
pub fn ended(pidfd: &OwnedFd) -> bool {
    await_end(pidfd, Some(Duration::ZERO))
}

/// Waits until the process behind a pidfd ends; false when `patience` is over first.
pub fn await_end(pidfd: &OwnedFd, patience: Option<Duration>) -> bool {
    let end = patience.map(|patience| Instant::now() + patience);
    loop {
        let left = end.map(|end| timespec(end.saturating_duration_since(Instant::now())));
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Ok(0) => return false,
            Err(rustix::io::Errno::INTR) => {}
            _ => return true,
        }
    }
}

/// A duration in poll(2)'s shape.
pub fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().min(i32::MAX as u64) as i64,
        tv_nsec: duration.subsec_nanos().into(),
    }
}

fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold anything, parentheses too: fields begin after the last.
    let fields = &stat[stat.rfind(')')? + 1..];
    fields.split_whitespace().nth(19)?.parse().ok()
}

fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    match id.as_deref().map(str::trim) {
        Ok(id) if !id.is_empty() => id.to_owned(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_with_the_same_pid_is_not_mistaken() {
        let me = Recorded::of(std::process::id() as i32).unwrap();
        assert!(me.open().is_some());
        let mut reused = me.clone();
        reused.start += 1;
        assert!(reused.open().is_none());
        let mut rebooted = me.clone();
        rebooted.boot = "another".into();
        assert!(rebooted.open().is_none());

        let path = std::env::temp_dir().join(format!("shim-recorded-{}", std::process::id()));
        me.write(&path).unwrap();
        assert_eq!(Recorded::read(&path).unwrap(), me);
        std::fs::remove_file(path).unwrap();
    }
}
