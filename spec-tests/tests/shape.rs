//! The sources have the shape that they are meant to have: modules form a graph without cycles.
//!
//! `cargo test -p spec-tests --test shape -- --nocapture` prints the figures.

use spec_tests::features::repository;
use spec_tests::shape::{Source, cycles, graph, read, spread};
use spec_tests::skip;

fn sources(of: &str) -> Option<Vec<Source>> {
    let src = repository().join(of).join("src");
    src.exists().then(|| read(&src).expect("read the sources"))
}

#[test]
fn the_modules_of_the_runtime_form_no_cycle() {
    let Some(sources) = sources("runtime") else { skip!("the sources are not here") };
    let graph = graph(&sources);
    assert!(graph.len() > 30 && graph["create"].contains("sync"), "the graph is not read");
    let edges: usize = graph.values().map(|uses| uses.len()).sum();
    println!("runtime: {} modules, {edges} uses", graph.len());
    let found = cycles(&graph);
    let uses = |m: &String| {
        let on_it: Vec<_> = graph[m].iter().filter(|n| found.contains(n)).cloned().collect();
        format!("{m} -> {}", on_it.join(", "))
    };
    let lines: Vec<String> = found.iter().map(uses).collect();
    assert!(found.is_empty(), "modules on cycles:\n{}", lines.join("\n"));
}

#[test]
fn functions_and_files_are_short() {
    let Some(sources) = sources("runtime") else { skip!("the sources are not here") };
    let functions: Vec<(String, usize)> = sources
        .iter()
        .flat_map(|s| {
            s.functions().into_iter().map(|(f, n)| (format!("{}: {f}", s.file.display()), n))
        })
        .collect();
    assert!(functions.len() > 500, "the functions are not found");
    let (median, p90, max) = spread(functions.iter().map(|(_, n)| *n).collect());
    println!("runtime: {} functions, lines {median} / {p90} / {max}", functions.len());
    let files = spread(sources.iter().map(|s| s.length).collect());
    println!("runtime: {} files, lines {} / {} / {}", sources.len(), files.0, files.1, files.2);
    let long: Vec<_> = functions.iter().filter(|(_, n)| *n > 100).collect();
    assert!(long.is_empty(), "functions of more than 100 lines: {long:?}");
    // Tables that are data, not code, may be longer.
    let large = sources.iter().filter(|s| s.length > 500 && s.functions().len() > 5);
    for source in large {
        println!("runtime: {} has {} lines", source.file.display(), source.length);
    }
    assert!(median <= 10 && p90 <= 40, "functions have grown: {median} / {p90}");
}

#[test]
fn a_cycle_is_found() {
    let edge =
        |from: &str, to: &[&str]| (from.to_owned(), to.iter().map(|t| (*t).to_owned()).collect());
    let graph = [edge("a", &["b"]), edge("b", &["c"]), edge("c", &["b"]), edge("d", &["a"])];
    assert_eq!(cycles(&graph.into()), ["b", "c"]);
}
