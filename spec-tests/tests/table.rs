//! The table of features in docs/conformance.md is whole, true and fresh.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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
fn the_table_of_clients_names_their_tests_and_all_of_them() {
    if no_sources() {
        skip!("the sources are not here");
    }
    let read = |path: &Path| fs::read_to_string(path).expect("read a file");
    let mut tests = BTreeSet::new();
    for entry in fs::read_dir(repository().join("spec-tests/clients")).expect("list the clients") {
        let source = read(&entry.expect("an entry").path());
        for after in source.split("#[test]\nfn ").skip(1) {
            tests.insert(after.split('(').next().expect("a name").to_owned());
        }
    }
    let document = read(&repository().join("docs/testing.md"));
    let (_, table) = document.split_once("## The clients").expect("the section");
    let rows = table.lines().filter(|line| line.starts_with('|'));
    let words = rows.flat_map(|row| row.split('`').skip(1).step_by(2).map(str::to_owned));
    let named: BTreeSet<String> = words.filter(|word| word.contains('_')).collect();
    assert_eq!(named, tests);
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
