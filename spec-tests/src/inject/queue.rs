//! Which faults are injected, and in which order.

use super::scenario::Scenario;
use super::tracer::{Fault, Site};
use super::{Run, calls};

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// SIGKILL at each call of the verbs that change most, plain, then in their variants, then of the
    /// other verbs; then one error at each call, then the other errors.
    KillsFirst,
    /// Everything in the order that the seed draws.
    Mixed,
}

/// Faults of one verb that share a world.
#[derive(Debug)]
pub struct Chunk {
    /// The verb's place in the list.
    pub scenario: usize,
    /// Its faults.
    pub runs: Vec<Run>,
    /// When its turn is.
    turn: (usize, usize),
}

/// A world costs as much as a few runs.
const CHUNK: usize = 24;
/// A sample is to have some of every verb.
const SAMPLE: usize = 6;

/// Every fault that the verb's calls can have.
pub fn possible(scenario: &Scenario, sites: &[Site]) -> Vec<Run> {
    let faults = |site: &Site| {
        let site = *site;
        let errors = calls::errors(site.call).iter().map(|errno| Fault::Fail(*errno));
        let all: Vec<Fault> = match (&scenario.meanwhile, scenario.again) {
            (Some(_), _) => vec![Fault::Meet],
            (None, true) => vec![Fault::Kill],
            (None, false) => std::iter::once(Fault::Kill).chain(errors).collect(),
        };
        all.into_iter().map(move |fault| (site, fault))
    };
    sites.iter().flat_map(faults).collect()
}

/// The runs of each verb, in chunks that take turns.
pub fn chunks(scenarios: &[Scenario], runs: Vec<Vec<Run>>, order: Order, seed: u64) -> Vec<Chunk> {
    let mut random = Random(seed.max(1));
    let mut chunks = Vec::new();
    let size = if order == Order::Mixed { SAMPLE } else { CHUNK };
    for (number, (scenario, runs)) in scenarios.iter().zip(runs).enumerate() {
        let mut drawn: Vec<(usize, u64, Run)> =
            runs.into_iter().map(|run| (0, random.next(), run)).collect();
        drawn.sort_by_key(|(_, draw, _)| *draw);
        if order == Order::KillsFirst {
            set_phases(scenario, &mut drawn);
        }
        drawn.sort_by_key(|(phase, ..)| *phase);
        for group in drawn.chunk_by(|a, b| a.0 == b.0) {
            for (rank, part) in group.chunks(size).enumerate() {
                let runs = part.iter().map(|(.., run)| *run).collect();
                chunks.push(Chunk { scenario: number, runs, turn: (group[0].0, rank) });
            }
        }
    }
    chunks.sort_by_key(|chunk| chunk.turn);
    chunks
}

fn set_phases(scenario: &Scenario, drawn: &mut [(usize, u64, Run)]) {
    let changes_most = ["create", "start", "exec", "delete"].contains(&scenario.words[0]);
    let plain = scenario.is_plain();
    let mut failed = std::collections::HashSet::new();
    for (phase, _, (site, fault)) in drawn {
        *phase = match fault {
            Fault::Kill | Fault::Meet if !changes_most => 2,
            Fault::Kill | Fault::Meet => usize::from(!plain),
            Fault::Fail(_) if failed.insert((site.process, site.call, site.index)) => 3,
            Fault::Fail(_) => 4,
        };
    }
}

/// xorshift64*: any spread will do.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }
}
