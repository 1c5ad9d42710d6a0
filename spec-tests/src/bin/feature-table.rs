//! The table of features, from the command line: `check`, `write`, and what spec-tests/mutate needs.

use spec_tests::features::{complaints, document, draw, read, repository, rows};
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str =
    "usage: feature-table check | write | draw SEED COUNT | row N | test N | break N DIR";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("features: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<(), String> {
    let top = repository();
    let features = read(&top)?;
    let number = |word: &str| word.parse::<usize>().map_err(|e| format!("{word:?}: {e}"));
    let nth = |word: &str| features.get(number(word)?).ok_or(format!("there is no entry {word}"));
    match words {
        ["check"] => {
            let found = complaints(&top, &features, &rows(&top)?);
            if found.is_empty() { Ok(()) } else { Err(found.join("\nfeatures: ")) }
        }
        ["write"] => {
            let path = top.join("docs/conformance.md");
            std::fs::write(&path, document(&top)?.1).map_err(|e| format!("{}: {e}", path.display()))
        }
        ["draw", seed, count] => {
            let seed = seed.parse().map_err(|e| format!("{seed:?}: {e}"))?;
            draw(&features, seed, number(count)?).iter().for_each(|n| println!("{n}"));
            Ok(())
        }
        ["row", n] => nth(n).map(|feature| println!("{}", feature.row)),
        ["test", n] => nth(n).map(|feature| println!("{}", feature.tests[0])),
        ["break", n, dir] => {
            let edit = nth(n)?.breakage.as_ref().ok_or("the entry has no break")?;
            let path = Path::new(dir).join(&edit.file);
            std::fs::write(&path, edit.edited(Path::new(dir))?)
                .map_err(|e| format!("{}: {e}", path.display()))
        }
        _ => Err(USAGE.into()),
    }
}
