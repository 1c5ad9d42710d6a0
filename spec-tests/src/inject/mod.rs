//! Fault injection: a verb of the runtime is run again and again, each time with another of its
//! system calls spoilt, by SIGKILL or by an error, and each time what follows is judged.
//!
//! * The run ends within half a minute.
//! * A failure is told, and names the error that the call had. A success is one.
//! * `delete --force` afterwards leaves no process, mount, cgroup, state or temporary file.
//! * A `create` that fails has undone what it did; `exec` and the verbs that look harm nobody.
//!
//! `make soak` runs every other call, the tests a sample that a seed draws.

mod calls;
mod judge;
mod scenario;
mod tracer;

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use scenario::{Scenario, World};
use tracer::{Fault, Site};

/// How much of it is done.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Every how-many-th call is spoilt.
    pub every: usize,
    /// At most so long; what is left out then shows in the report.
    pub time: Duration,
    /// Draws the calls.
    pub seed: u64,
    /// Only verbs whose name contains this.
    pub only: String,
    /// How many verbs are disturbed at a time.
    pub workers: usize,
}

/// What was done to one verb, and what came of it.
#[derive(Debug, Default)]
struct Tally {
    name: &'static str,
    seen: usize,
    spoilt: usize,
    runs: usize,
    missed: usize,
    findings: Vec<String>,
    wrong: usize,
    leaks: usize,
    absent: Option<String>,
}

/// The result: a table, and how many findings there are.
#[derive(Debug)]
pub struct Report {
    /// Wrong behaviour and leaks together.
    pub findings: usize,
    /// For people.
    pub text: String,
}

/// Disturbs every verb to the given extent.
pub fn soak(extent: &Extent) -> Report {
    let scenarios: Vec<Scenario> =
        scenario::all().into_iter().filter(|s| s.name.contains(&extent.only)).collect();
    let tallies = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let end = Instant::now() + extent.time;
    // Each verb has a share of the time that is left when its turn comes.
    std::thread::scope(|scope| {
        for _ in 0..extent.workers {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let Some(scenario) = scenarios.get(turn) else { return };
                    let left = end.saturating_duration_since(Instant::now());
                    let rounds = (scenarios.len() - turn).div_ceil(extent.workers);
                    let tally = disturb(scenario, extent, left / rounds as u32);
                    tallies.lock().expect("no worker panics here").push((turn, tally));
                }
            });
        }
    });
    let mut tallies = tallies.into_inner().expect("no worker panics");
    tallies.sort_by_key(|(turn, _)| *turn);
    report(tallies.into_iter().map(|(_, tally)| tally).collect(), extent)
}

/// One fault at one call.
type Run = (Site, Fault);

/// The runs that the seed draws, in the order that it draws.
fn drawn(sites: &[Site], extent: &Extent) -> Vec<Run> {
    let mut state = extent.seed;
    // xorshift64*: any spread will do.
    let mut random = move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    };
    let offset = random() as usize % extent.every;
    let chosen =
        sites.iter().enumerate().filter(|(i, _)| (i + offset).is_multiple_of(extent.every));
    let mut runs: Vec<(u64, Run)> = Vec::new();
    for (_, site) in chosen {
        let errors = calls::errors(site.call).iter().map(|errno| Fault::Fail(*errno));
        let faults = std::iter::once(Fault::Kill).chain(errors);
        runs.extend(faults.map(|fault| (random(), (*site, fault))));
    }
    runs.sort_by_key(|(order, _)| *order);
    runs.into_iter().map(|(_, run)| run).collect()
}

fn disturb(scenario: &Scenario, extent: &Extent, time: Duration) -> Tally {
    let mut tally = Tally { name: scenario.name, ..Tally::default() };
    let sites = match judge::record(scenario) {
        Ok(sites) => sites,
        Err(why) => {
            tally.absent = Some(why);
            return tally;
        }
    };
    tally.seen = sites.len();
    let end = Instant::now() + time;
    let world = World::new(scenario);
    let mut ready = false;
    let mut spoilt = std::collections::HashSet::new();
    for (site, fault) in drawn(&sites, extent) {
        if Instant::now() > end {
            break;
        }
        let verdict = judge::disturb(&world, scenario, site, fault, &mut ready);
        tally.runs += 1;
        if verdict.injected {
            spoilt.insert((site.process, site.call, site.index));
        } else {
            tally.missed += 1;
        }
        let place = format!(
            "{}: process {}, {} {}: {}",
            scenario.name,
            site.process,
            calls::name(site.call),
            site.index,
            match fault {
                Fault::Kill => "SIGKILL".to_owned(),
                Fault::Fail(errno) => format!("{errno:?}"),
            }
        );
        if let Some(why) = verdict.wrong {
            tally.wrong += 1;
            tally.findings.push(format!("{place}: {why}"));
        }
        if let Some(left) = verdict.leak {
            tally.leaks += 1;
            tally.findings.push(format!("{place}: LEAK {left}"));
        }
    }
    tally.spoilt = spoilt.len();
    judge::finish(&world);
    tally
}

fn report(tallies: Vec<Tally>, extent: &Extent) -> Report {
    let mut text = format!("seed {}, every call of {}\n", extent.seed, extent.every);
    let mut line = |name: &str, columns: [String; 6]| {
        let cells: Vec<String> = columns.iter().map(|cell| format!("{cell:>9}")).collect();
        let _ = writeln!(text, "{name:<16}{}", cells.concat());
    };
    line("verb", ["calls", "spoilt", "runs", "missed", "wrong", "leaks"].map(String::from));
    let mut sum = [0usize; 6];
    for tally in &tallies {
        if let Some(why) = &tally.absent {
            line(
                tally.name,
                [why.lines().next().unwrap_or_default(), "", "", "", "", ""].map(String::from),
            );
            continue;
        }
        let row = [tally.seen, tally.spoilt, tally.runs, tally.missed, tally.wrong, tally.leaks];
        for (total, value) in sum.iter_mut().zip(row) {
            *total += value;
        }
        line(tally.name, row.map(|n| n.to_string()));
    }
    line("all", sum.map(|n| n.to_string()));
    for finding in tallies.iter().flat_map(|tally| &tally.findings) {
        let _ = writeln!(text, "{finding}");
    }
    Report { findings: sum[4] + sum[5], text }
}
