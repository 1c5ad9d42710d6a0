//! New limits for groups in use (`update`): all of them, or none.
//!
//! The kernel checks a file against the present values of its siblings (quota against burst and
//! period, memory against memory with swap, and usage against each), so no order fits every
//! change. What is refused for such a reason is therefore tried again after the others. What was
//! written before a failure is written back.

use super::devices::{self, Rule};
use super::resources::{self, Write};
use super::{Cgroup, Place};
use crate::error::{Context, Error, Result};
use crate::sys::fs;
use oci_spec::runtime::LinuxResources;
use std::io::Read as _;
use std::os::fd::BorrowedFd;
use std::path::Path;

impl Cgroup {
    /// Writes the limits that `resources` has, and the device rules if there are any.
    ///
    /// # Errors
    /// Names the file that could not be written; all others are as they were before.
    pub fn change(&mut self, resources: &LinuxResources, rules: Option<&[Rule]>) -> Result<()> {
        self.open()?;
        let mut resources = resources.clone();
        self.complete(&mut resources)?;
        self.check_usage(&resources)?;
        let mut done = Vec::new();
        let changed = resources::changes(&resources, &self.sides())
            .and_then(|writes| self.carry_out_and_announce(&writes, &mut done))
            // The rules of v2 are replaced at once, so they need no writing back, and go last.
            .and_then(|()| rules.map_or(Ok(()), |rules| self.change_devices(rules)));
        changed.map_err(|error| match undo(done) {
            Ok(()) => error,
            Err(left) => error.wrap(format!("(and not restored: {left})")),
        })
    }

    /// The files first: what the kernel refuses is not told to who keeps the groups.
    fn carry_out_and_announce<'a>(
        &'a self,
        writes: &[Write],
        done: &mut Vec<Undo<'a>>,
    ) -> Result<()> {
        self.carry_out(writes, done)?;
        match self.driver().announce(writes)? {
            true => self.carry_out(writes, &mut Vec::new()),
            false => Ok(()),
        }
    }

    /// Fills in the half that v2 has in the same file as the one that is to change.
    fn complete(&self, resources: &mut LinuxResources) -> Result<()> {
        let sides = self.sides();
        if let Some(cpu) = resources.cpu_mut().as_mut().filter(|_| sides.unified("cpu")) {
            let (quota, period) =
                (cpu.quota().filter(|q| *q != 0), cpu.period().filter(|p| *p != 0));
            if quota.is_some() != period.is_some() {
                let now = self.read("cpu", "cpu.max")?;
                let mut words = now.split_whitespace();
                let now = words.next().map(|q| q.parse().unwrap_or(-1));
                cpu.set_quota(quota.or(now));
                cpu.set_period(period.or(words.next().and_then(|p| p.parse().ok())));
            }
        }
        if let Some(memory) = resources.memory_mut().as_mut().filter(|_| sides.unified("memory")) {
            let limit = memory.limit().filter(|l| *l != 0);
            if memory.swap().is_some_and(|s| s > 0) && limit.is_none() {
                let now = self.read("memory", "memory.max")?;
                memory.set_limit(Some(now.parse().unwrap_or(-1)));
            }
        }
        Ok(())
    }

    /// `memory.checkBeforeUpdate`: a limit below what is in use would kill (v2) or fail (v1).
    fn check_usage(&self, resources: &LinuxResources) -> Result<()> {
        let Some(memory) = resources.memory() else { return Ok(()) };
        if memory.check_before_update() != Some(true) {
            return Ok(());
        }
        let file = match self.sides().unified("memory") {
            true => "memory.current",
            false => "memory.usage_in_bytes",
        };
        let usage: i64 = self.read("memory", file)?.parse().unwrap_or(0);
        for (name, limit) in [("swap", memory.swap()), ("limit", memory.limit())] {
            if let Some(limit) = limit.filter(|l| *l > 0 && *l <= usage) {
                return Err(Error::new(format!(
                    "memory.checkBeforeUpdate: rejecting memory.{name} {limit}: {usage} bytes are in use"
                )));
            }
        }
        Ok(())
    }

    /// A file of the group that holds the controller, trimmed.
    fn read(&self, controller: &str, file: &str) -> Result<String> {
        let (_, directory) = self
            .holder(controller)
            .ok_or_else(|| Error::new(format!("this host has no {controller} controller")))?;
        read(directory, file)
    }

    /// Carries out the writes until none is left; notes how to take each back.
    fn carry_out<'a>(&'a self, writes: &[Write], done: &mut Vec<Undo<'a>>) -> Result<()> {
        let mut left: Vec<&Write> = writes.iter().collect();
        loop {
            let (before, mut refused) = (left.len(), None);
            let mut again = Vec::new();
            for write in left {
                match one(write, self.directory_for(write)?) {
                    Ok(undo) => done.extend(undo),
                    Err(e) if matches!(e.errno(), Some(libc::EINVAL | libc::EBUSY)) => {
                        again.push(write);
                        refused.get_or_insert(e);
                    }
                    Err(e) => return Err(e),
                }
            }
            match refused {
                None => return Ok(()),
                Some(error) if again.len() == before => return Err(error),
                Some(_) => left = again,
            }
        }
    }

    fn change_devices(&self, rules: &[Rule]) -> Result<()> {
        match self.holder("devices") {
            Some((Place { unified: true, .. }, directory)) => devices::replace(directory, rules),
            Some((_, directory)) => {
                // The rules go in one by one, the first of them "deny everything": nobody should
                // meet what is in between.
                let was_frozen = self.frozen()?;
                if !was_frozen && self.freezer().is_some() {
                    self.freeze()?;
                }
                let written = rewrite(directory, rules);
                if !was_frozen {
                    self.thaw()?;
                }
                written
            }
            None => Err(Error::new("linux.resources.devices: this host has no devices controller")),
        }
    }
}

/// Device rules of v1, with those from before restored on failure.
fn rewrite(directory: BorrowedFd<'_>, rules: &[Rule]) -> Result<()> {
    let before = read(directory, "devices.list")?;
    devices::write(directory, rules).map_err(|error| match devices::restore(directory, &before) {
        Ok(()) => error,
        Err(left) => error.wrap(format!("(and not restored: {left})")),
    })
}

/// How to take one write back.
struct Undo<'a> {
    directory: BorrowedFd<'a>,
    file: String,
    value: String,
}

/// One write; nothing to take back where the group has no such file and needs none.
fn one<'a>(write: &Write, directory: BorrowedFd<'a>) -> Result<Option<Undo<'a>>> {
    let Some((file, fd, value)) = write.target(directory)? else { return Ok(None) };
    let before = read(directory, file)?;
    fs::write_once(&fd, value.as_bytes()).map_err(|e| write.failed(e, file, value))?;
    let value = earlier(file, value, &before);
    Ok(Some(Undo { directory, file: file.into(), value }))
}

/// Writes back, the last write first, and again where the order is wrong.
fn undo(done: Vec<Undo<'_>>) -> Result<()> {
    let mut left: Vec<Undo<'_>> = done.into_iter().rev().collect();
    loop {
        let before = left.len();
        let mut last = None;
        left.retain(|undo| match undo.write() {
            Ok(()) => false,
            Err(e) => {
                last = Some(e);
                true
            }
        });
        match last {
            None => return Ok(()),
            Some(error) if left.len() == before => return Err(error),
            Some(_) => {}
        }
    }
}

impl Undo<'_> {
    fn write(&self) -> Result<()> {
        let fd = fs::openat(self.directory, Path::new(&self.file), libc::O_WRONLY, 0)?;
        fs::write_once(&fd, self.value.as_bytes())
            .wrap(|| format!("write {:?} to {}", self.value, self.file))
    }
}

/// What has to be written so that `file`, which read `before`, has lost what `written` did to it.
fn earlier(file: &str, written: &str, before: &str) -> String {
    let first = |text: &str| text.lines().next().unwrap_or_default().trim().to_owned();
    if file == "memory.oom_control" {
        let killer = before.lines().find_map(|l| l.strip_prefix("oom_kill_disable "));
        return killer.unwrap_or("0").into();
    }
    // Files of one line for each device (or interface) begin it with the device's name.
    let Some((key, _)) = written.split_once(' ').filter(|_| file != "cpu.max") else {
        // An empty write would not reach the kernel.
        return Some(first(before)).filter(|v| !v.is_empty()).unwrap_or("\n".into());
    };
    if let Some(line) = before.lines().find(|l| l.split_whitespace().next() == Some(key)) {
        return line.trim().into();
    }
    let none = match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "rdma.max" => "hca_handle=max hca_object=max",
        _ if file.contains("weight") => "default",
        _ => "0",
    };
    format!("{key} {none}")
}

fn read(directory: BorrowedFd<'_>, file: &str) -> Result<String> {
    let fd = fs::openat(directory, Path::new(file), libc::O_RDONLY, 0)?;
    let mut text = String::new();
    std::fs::File::from(fd).read_to_string(&mut text).wrap(|| format!("read {file}"))?;
    Ok(text.trim_end().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_values_are_found_again() {
        for (file, written, before, back) in [
            ("pids.max", "5", "max\n", "max"),
            ("cpu.max", "50000 100000", "max 100000\n", "max 100000"),
            ("cpuset.cpus", "0", "\n", "\n"),
            ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\n", "0"),
            ("io.weight", "200", "default 100\n8:0 50\n", "default 100"),
            ("io.weight", "8:0 70", "default 100\n8:0 50\n", "8:0 50"),
            ("io.bfq.weight", "8:16 70", "default 100\n8:0 50\n", "8:16 default"),
            ("io.max", "8:0 rbps=1", "8:0 rbps=9 wbps=max\n", "8:0 rbps=9 wbps=max"),
            ("blkio.throttle.read_bps_device", "8:0 1", "8:16 4\n", "8:0 0"),
            ("net_prio.ifpriomap", "lo 3", "lo 1\neth0 0\n", "lo 1"),
        ] {
            assert_eq!(earlier(file, written, before), back, "{file} {written}");
        }
    }
}
