//! The README's shell session, executed line by line and compared with what it shows.

use std::fs;
use std::path::Path;

use serde_json::json;
use spec_tests::image::Image;
use spec_tests::{Case, Program, Tools, skip};

/// One command of the session and the output that the README shows for it.
#[derive(Debug)]
struct Step {
    command: String,
    output: String,
}

/// The steps of the README's `console` block.
fn session() -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(path).expect("read the README");
    let block = text.split("```console\n").nth(1).expect("a console block");
    let block = block.split("```").next().expect("the block's end");
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => {
                steps.push(Step { command: command.to_owned(), output: String::new() });
            }
            None => {
                let step = steps.last_mut().expect("output follows a command");
                step.output.push_str(line);
                step.output.push('\n');
            }
        }
    }
    steps
}

/// Whether `text` is `pattern`, in which each `…` stands for any text within a line.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let first = parts.next().expect("split yields one part at least");
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    for part in parts {
        // The shortest match is enough: no part of the README's patterns repeats in what it skips.
        let Some(at) = rest.find(part) else { return false };
        if rest[..at].contains('\n') {
            return false;
        }
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

#[test]
fn patterns_match_within_a_line() {
    assert!(matches("a…c\n", "abbc\n"));
    assert!(matches("…\n", "anything\n"));
    assert!(!matches("a…c\n", "ab\nc\n"));
    assert!(!matches("a\n", "a\nb\n"));
    assert!(!matches("…b", "ac"));
}

#[test]
fn the_session_prints_what_the_readme_shows() {
    let case = Case::new();
    let built = Program::Runtime.built();
    let tools = match built.and_then(|()| Tools::new(&case)) {
        Ok(tools) => tools,
        Err(reason) => skip!("{reason}"),
    };
    let steps = session();
    assert!(steps.len() > 5, "the README's session is too short: {steps:?}");
    let work = case.dir().join("session");
    fs::create_dir(&work).expect("make the session's directory");
    let listing = steps.iter().find(|step| step.command == "cat Dockerfile").expect("a Dockerfile");
    fs::write(work.join("Dockerfile"), &listing.output).expect("write the Dockerfile");
    Image::busybox(case.dir(), json!({})).write_layer(&work.join("base.tar"));
    for step in steps {
        let outcome = tools.session_line(&work, &step.command);
        assert!(
            matches(&step.output, &outcome.stdout) && outcome.stderr.is_empty(),
            "the README shows\n$ {}\n{}but it is: {outcome}",
            step.command,
            step.output,
        );
    }
}
