//! The report.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::{Extent, Report, Tally};
use crate::cgroup::{self, Layout};

const COLUMNS: &str = "\
| verb | call sites | spoilt | killed | faults injected, of all | runs | not met | wrong | leaks |
|---|--:|--:|--:|--:|--:|--:|--:|--:|
";

/// The table of all verbs, as docs/testing.md has it, and the findings.
pub fn report(tallies: &[Tally], extent: &Extent, took: Duration) -> Report {
    let layout = match (cgroup::layout(), cgroup::is_hybrid()) {
        (Layout::V2, _) => "cgroup v2",
        (_, true) => "cgroup v1 with a v2 tree",
        _ => "cgroup v1",
    };
    let mut text = format!("Seed {}, {layout}, {} s:\n\n{COLUMNS}", extent.seed, took.as_secs());
    let mut sum = [0usize; 9];
    let mut calls = BTreeMap::new();
    for tally in tallies {
        if let Some(why) = &tally.absent {
            let why = why.lines().next().unwrap_or_default();
            let _ = writeln!(text, "| {} | not here: {why} | | | | | | | |", tally.name);
            continue;
        }
        let missed: usize = tally.missed.values().sum();
        for (call, times) in &tally.missed {
            *calls.entry(call.as_str()).or_insert(0) += times;
        }
        let numbers = [
            tally.seen,
            tally.spoilt.len(),
            tally.killed.len(),
            tally.runs - missed,
            tally.possible,
            tally.runs,
            missed,
            tally.wrong,
            tally.leaks,
        ];
        sum.iter_mut().zip(numbers).for_each(|(total, number)| *total += number);
        row(&mut text, tally.name, numbers);
    }
    row(&mut text, "all", sum);
    let calls: Vec<String> = calls.iter().map(|(call, times)| format!("{call} {times}")).collect();
    let _ = writeln!(text, "\nNot met: {}.", calls.join(", "));
    for finding in tallies.iter().flat_map(|tally| &tally.findings) {
        let _ = writeln!(text, "{finding}");
    }
    Report { findings: sum[7] + sum[8], text }
}

fn row(text: &mut String, name: &str, numbers: [usize; 9]) {
    let [seen, spoilt, killed, injected, possible, runs, missed, wrong, leaks] = numbers;
    let share = |part: usize, whole: usize| format!("{part} ({} %)", 100 * part / whole.max(1));
    let _ = writeln!(
        text,
        "| {name} | {seen} | {} | {} | {injected} of {possible} ({} %) | {runs} | {missed} | {wrong} | {leaks} |",
        share(spoilt, seen),
        share(killed, seen),
        100 * injected / possible.max(1),
    );
}
