//! `events`: a container's statistics and OOM kills, one JSON object a line, as go-runc reads them.

use crate::cgroup::oom::OomWatch;
use crate::cgroup::statistics::{Statistics, interfaces};
use crate::container::{Container, ContainerId, Status};
use crate::error::{Context, Error, Result};
use crate::plan::namespaces::Kind;
use crate::plan::rdt::Rdt;
use crate::sys::signal;
use serde::Serialize;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// What `events` is asked for.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Time between two statistics, as 5s or 1m30s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub interval: Duration,
    /// Print the statistics once
    #[arg(long)]
    pub stats: bool,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// One line.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Statistics>,
}

/// The verb; without `--stats` it ends with the container.
pub fn run(root: &Path, args: &Args) -> Result<()> {
    let container = Container::open(root, &ContainerId::new(&args.id)?)?;
    let ended = |status| Error::new(format!("container not running: {} is {status}", args.id));
    match container.status()? {
        Status::Created | Status::Running | Status::Paused => {}
        status => return Err(ended(status)),
    }
    let mut cgroup = container.cgroup();
    if cgroup.places().is_empty() {
        return Err(Error::new(format!("container {} has no cgroup, which counts", args.id)));
    }
    cgroup.open()?;
    // Where resctrl is mounted no more, nothing is known of it.
    let rdt = Rdt::of_config(&container.config()?).unwrap_or(None);
    let measure = || -> Result<Statistics> {
        let network_interfaces = network(&container)?;
        let intel_rdt = rdt.as_ref().map(|plan| crate::rdt::statistics(plan, &args.id));
        let intel_rdt = intel_rdt.unwrap_or_default();
        Ok(Statistics { network_interfaces, intel_rdt, ..Statistics::read(&cgroup)? })
    };
    let stats = |data: &Statistics| print("stats", &args.id, Some(data));
    if args.stats {
        return stats(&measure()?).map(drop);
    }
    let pidfd = container.pidfd()?.ok_or_else(|| ended(Status::Stopped))?;
    let mut oom = OomWatch::new(&cgroup)?;
    let mut due = Instant::now() + args.interval;
    loop {
        let awaited = [(pidfd.as_fd(), libc::POLLIN), (oom.descriptor(), libc::POLLIN)];
        let left = due.saturating_duration_since(Instant::now());
        // poll(2) counts in ms: a rest below one must not make it spin.
        let ready = signal::poll(&awaited, Some(left + Duration::from_millis(1)))?;
        if oom.happened() && !print("oom", &args.id, None)? {
            return Ok(());
        }
        if ready[0] != 0 {
            return Ok(());
        }
        if Instant::now() >= due {
            due += args.interval;
            match measure() {
                Ok(data) if stats(&data)? => {}
                Ok(_) => return Ok(()),
                // Its group may have been removed under us.
                Err(_) if !container.alive()? => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }
}

/// The network devices of a container that has its own.
fn network(container: &Container) -> Result<Option<Vec<crate::cgroup::statistics::Interface>>> {
    if !container.record.namespaces.contains(&Kind::Network) {
        return Ok(None);
    }
    let path = format!("/proc/{}/net/dev", container.record.pid);
    let table = match std::fs::read_to_string(&path) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EINVAL)) => {
            return Ok(None);
        }
        other => other.wrap(|| format!("read {path}"))?,
    };
    let found = interfaces(&table);
    Ok((!found.is_empty()).then_some(found))
}

/// Prints one line; says whether anybody still reads.
fn print(kind: &'static str, id: &str, data: Option<&Statistics>) -> Result<bool> {
    let line =
        serde_json::to_string(&Event { kind, id, data }).map_err(|e| Error::new(e.to_string()))?;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        other => other.wrap(|| "write to stdout").map(|()| true),
    }
}

/// Go's durations: numbers, each with a unit, as in `1h15m30.5s`.
fn duration(text: &str) -> std::result::Result<Duration, String> {
    let odd = || format!("{text:?} is not a duration above zero, such as 5s, 500ms or 1m30s");
    let mut rest = text;
    let mut seconds = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(odd)?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(odd()),
        };
        seconds += number.parse::<f64>().map_err(|_| odd())? * unit;
        rest = tail;
    }
    let found = Duration::try_from_secs_f64(seconds).map_err(|_| odd())?;
    if found.is_zero() { Err(odd()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, ms) in
            [("5s", 5000), ("1m30s", 90_000), ("500ms", 500), ("1.5s", 1500), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "5", "s", "0s", "-1s", "5x", "1s5"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
