//! The table of features in docs/conformance.md is whole, true and fresh.

use spec_tests::features::{complaints, document, draw, read, repository, rows};
use spec_tests::skip;

/// Elsewhere than where they were built, the tests have no sources to look at.
fn no_sources() -> bool {
    !repository().join("spec-tests/features").exists()
}

#[test]
fn every_row_has_a_test_that_exists_and_every_break_its_place() {
    if no_sources() {
        skip!("the sources are not here");
    }
    let top = repository();
    let features = read(&top).expect("read the table");
    let found = complaints(&top, &features, &rows(&top).expect("read the rows"));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_document_is_what_make_features_writes() {
    if no_sources() {
        skip!("the sources are not here");
    }
    let (old, new) = document(&repository()).expect("render the table");
    assert!(old == new, "docs/conformance.md is stale: run `make features`");
}

#[test]
fn a_seed_always_draws_the_same_rows_and_none_twice() {
    if no_sources() {
        skip!("the sources are not here");
    }
    let features = read(&repository()).expect("read the table");
    let drawn = draw(&features, 7, 40);
    assert_eq!(drawn, draw(&features, 7, 40));
    assert_ne!(drawn, draw(&features, 8, 40));
    let mut once = drawn.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!((once.len(), drawn.len()), (40, 40));
}
