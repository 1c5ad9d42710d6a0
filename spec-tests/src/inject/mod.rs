//! Fault injection: a verb of the runtime is run again and again, each time with another of its
//! system calls spoilt, and each time what follows is judged.
//!
//! * SIGKILL: `delete --force` afterwards leaves no process, mount, cgroup, state or temporary file. A
//!   `create` of the same name takes the place of what a killed `create` or `delete` left.
//! * An error: the run ends within half a minute. A failure is told, and names the call and the error
//!   that it had. A success is one. A `create` that fails has undone what it did; `exec` and the
//!   verbs that look harm nobody.
//! * Another verb of the same container, run whole while the first one stands at the call: both end,
//!   and what they answer fits what is there then.
//!
//! `make soak` kills at every call before it lets calls fail, as many as its time allows; the tests
//! take a sample that a seed draws.

mod bundles;
mod calls;
mod judge;
mod pair;
mod queue;
mod scenario;
mod table;
mod tracer;
mod world;

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use queue::{Chunk, Order};
use scenario::Scenario;
use tracer::{Fault, Site};
use world::World;

/// How much of it is done.
#[derive(Clone, Debug)]
pub struct Extent {
    /// At most so long; what is left out then shows in the report.
    pub time: Duration,
    /// Draws the order.
    pub seed: u64,
    /// Only verbs whose name contains this.
    pub only: String,
    /// How many verbs are disturbed at a time.
    pub workers: usize,
    /// A sample of everything, of about so many runs, rather than one kind of fault after the other.
    /// It is the same on a fast machine and on a slow one, as long as the time lasts.
    pub sample: Option<usize>,
}

/// One fault at one call.
type Run = (Site, Fault);

/// What was done to one verb, and what came of it.
#[derive(Debug, Default)]
struct Tally {
    name: &'static str,
    /// Call sites seen in an undisturbed run.
    seen: usize,
    /// Those at which a fault was injected.
    spoilt: HashSet<Place>,
    /// Those at which the verb was killed.
    killed: HashSet<Place>,
    /// The faults that there are to inject.
    possible: usize,
    runs: usize,
    /// Runs whose call was not met, by the call's name.
    missed: BTreeMap<String, usize>,
    findings: Vec<String>,
    wrong: usize,
    leaks: usize,
    absent: Option<String>,
}

/// The process, the call and its index.
type Place = (usize, i64, usize);

/// The result: a table, and how many findings there are.
#[derive(Debug)]
pub struct Report {
    /// Wrong behaviour and leaks together.
    pub findings: usize,
    /// A table in Markdown, then a line for each finding.
    pub text: String,
}

/// Disturbs every verb to the given extent.
pub fn soak(extent: &Extent) -> Report {
    let start = Instant::now();
    let end = start + extent.time;
    let wanted = |(number, scenario): &(usize, Scenario)| {
        // The undisturbed run of each takes time, too: a sample has the verbs and some variants.
        let drawn = (*number as u64 + extent.seed).is_multiple_of(6) || scenario.is_plain();
        scenario.name.contains(&extent.only) && (extent.sample.is_none() || drawn)
    };
    let scenarios: Vec<Scenario> =
        scenario::all().into_iter().enumerate().filter(wanted).map(|(_, s)| s).collect();
    let recorded =
        in_parallel(extent.workers, scenarios.len(), |turn| judge::record(&scenarios[turn]));
    let mut tallies: Vec<Tally> = Vec::new();
    let mut runs: Vec<Vec<Run>> = Vec::new();
    for (scenario, sites) in scenarios.iter().zip(recorded) {
        let mut tally = Tally { name: scenario.name, ..Tally::default() };
        let sites = sites.unwrap_or_else(|why| {
            tally.absent = Some(why);
            Vec::new()
        });
        let possible = queue::possible(scenario, &sites);
        (tally.seen, tally.possible) = (sites.len(), possible.len());
        tallies.push(tally);
        runs.push(possible);
    }
    let order = if extent.sample.is_some() { Order::Mixed } else { Order::KillsFirst };
    let mut chunks = queue::chunks(&scenarios, runs, order, extent.seed);
    if let Some(wanted) = extent.sample {
        let mut before = 0;
        chunks.retain(|chunk| {
            let taken = before < wanted;
            before += chunk.runs.len();
            taken
        });
    }
    let tallies: Vec<Mutex<Tally>> = tallies.into_iter().map(Mutex::new).collect();
    in_parallel(extent.workers, chunks.len(), |turn| {
        let chunk = &chunks[turn];
        if Instant::now() < end {
            work_off(&scenarios[chunk.scenario], chunk, end, &tallies[chunk.scenario]);
        }
    });
    let tallies = tallies.into_iter().map(|tally| tally.into_inner().expect("no worker panics"));
    table::report(&tallies.collect::<Vec<_>>(), extent, start.elapsed())
}

/// Calls `work` with 0 to `count` from several threads; the results are in order.
fn in_parallel<T: Send>(workers: usize, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= count {
                        return;
                    }
                    let result = work(turn);
                    done.lock().expect("no worker panics here").push((turn, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no worker panics");
    done.sort_by_key(|(turn, _)| *turn);
    done.into_iter().map(|(_, result)| result).collect()
}

fn work_off(scenario: &Scenario, chunk: &Chunk, end: Instant, tally: &Mutex<Tally>) {
    let world = World::new(scenario);
    let mut ready = false;
    for (site, fault) in &chunk.runs {
        if Instant::now() > end {
            break;
        }
        let verdict = judge::disturb(&world, scenario, *site, *fault, &mut ready);
        tally.lock().expect("no worker panics here").count(*site, *fault, verdict);
    }
    world.finish();
}

impl Tally {
    fn count(&mut self, site: Site, fault: Fault, verdict: judge::Verdict) {
        self.runs += 1;
        let place = (site.process, site.call, site.index);
        match verdict.injected {
            false => *self.missed.entry(calls::name(site.call)).or_default() += 1,
            true => drop(self.spoilt.insert(place)),
        }
        if verdict.injected && fault == Fault::Kill {
            self.killed.insert(place);
        }
        let place = format!(
            "{}: process {}, {} {}: {fault}",
            self.name,
            site.process,
            calls::name(site.call),
            site.index,
        );
        if let Some(why) = verdict.wrong {
            self.wrong += 1;
            self.findings.push(format!("{place}: {why}"));
        }
        if let Some(left) = verdict.leak {
            self.leaks += 1;
            self.findings.push(format!("{place}: LEAK {left}"));
        }
    }
}
