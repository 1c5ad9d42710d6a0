//! A sample of the fault injection that `make soak` does at length.

#![cfg(target_arch = "x86_64")]

use std::io::Write as _;
use std::time::Duration;

use spec_tests::inject::{Extent, soak};
use spec_tests::{Case, differs};

/// Without `SEED=` always the same sample, so that a change is judged by what it changes; `make soak`
/// draws others.
fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1_795_275_197)
}

#[test]
fn a_sample_of_faults_is_survived() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "neither is made for it");
    let extent = Extent {
        // More than it needs: a busy machine takes the same sample as an idle one.
        time: Duration::from_secs(240),
        seed: seed(),
        only: String::new(),
        workers: 2,
        sample: Some(600),
    };
    let report = soak(&extent);
    // Also when it passes: what was drawn, and how many.
    let _ = std::io::stderr().write_all(report.text.as_bytes());
    assert_eq!(report.findings, 0, "SEED={} repeats it:\n{}", extent.seed, report.text);
}
