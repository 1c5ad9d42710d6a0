//! A sample of the fault injection that `make soak` does at length.

#![cfg(target_arch = "x86_64")]

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spec_tests::inject::{Extent, soak};
use spec_tests::{Case, differs};

/// `SEED=` repeats a run; another one is drawn each time.
fn seed() -> u64 {
    let given = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs());
    given.unwrap_or(now).max(1)
}

#[test]
fn a_sample_of_faults_is_survived() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "neither is made for it");
    let extent = Extent {
        every: 1,
        time: Duration::from_secs(75),
        seed: seed(),
        only: String::new(),
        workers: 2,
    };
    let report = soak(&extent);
    // Also when it passes: what was drawn, and how many.
    let _ = std::io::stderr().write_all(report.text.as_bytes());
    assert_eq!(report.findings, 0, "SEED={} repeats it:\n{}", extent.seed, report.text);
}
