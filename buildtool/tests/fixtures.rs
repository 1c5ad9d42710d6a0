//! Every folder of `testdata/` is a Dockerfile and what it must come to.
//!
//! `expected` holds one line per stage and step, the changed fields of each stage's
//! configuration, or `error: ` and the message. A folder may hold `args` (one `NAME=value` per
//! line, as `--build-arg`), `target`, and `base` (the configuration of its base image, as JSON).
//! `DAVIT_BLESS=1` rewrites `expected`; the result is then to be read, not believed.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use buildtool::error::Result;
use buildtool::plan::{self, Options, Plan, Source};
use buildtool::scope::Scope;
use buildtool::steps::{self, Action, Base, Resolved};
use buildtool::{build, parse};
use imgtool::image::ImageConfig;
use imgtool::platform::Platform;
use serde_json::json;

fn options(case: &Path) -> Options {
    let read = |name: &str| fs::read_to_string(case.join(name)).ok();
    let pair =
        |line: &str| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap();
    Options {
        build_args: read("args").map(|text| text.lines().map(pair).collect()).unwrap_or_default(),
        target: read("target").map(|text| text.trim().to_owned()),
        platform: Some(Platform::parse("linux/amd64").unwrap()),
    }
}

fn base(case: &Path, plan: &Plan, source: &Source, done: &[Resolved]) -> Base {
    let platform = Platform::parse("linux/amd64").unwrap();
    let image = || match fs::read(case.join("base")) {
        Ok(bytes) => ImageConfig::parse(&bytes).unwrap(),
        Err(_) => ImageConfig::new(&platform),
    };
    match source {
        Source::Scratch => {
            Base { config: build::scratch(&plan.stages[0].platform), scope: Scope::default() }
        }
        Source::Image(_) => Base { config: image(), scope: Scope::default() },
        Source::Stage(index) => {
            Base { config: done[*index].config.clone(), scope: done[*index].scope.clone() }
        }
    }
}

fn source(source: &Source) -> String {
    match source {
        Source::Scratch => "scratch".into(),
        Source::Image(reference) => reference.to_string(),
        Source::Stage(index) => format!("stage {index}"),
    }
}

fn describe(action: &Action, out: &mut String) {
    match action {
        Action::Configure => {}
        Action::Workdir { path, user } => {
            writeln!(out, "  mkdir {path} user={}", json!(user)).unwrap()
        }
        Action::Run(run) => {
            writeln!(out, "  run {} cwd={} user={}", json!(run.argv), run.cwd, json!(run.user))
                .unwrap();
            let env: Vec<_> =
                run.env.iter().filter(|e| !e.starts_with("PATH=")).chain(&run.proxies).collect();
            writeln!(out, "    env {}", json!(env)).unwrap();
            if let Some(script) = &run.script {
                writeln!(out, "    script {} {}", script.name, json!(script.content)).unwrap();
            }
            for mount in &run.mounts {
                let from = mount.from.as_ref().map_or("context".into(), source);
                let spec = &mount.spec;
                let ro = if spec.read_only { "ro" } else { "rw" };
                writeln!(
                    out,
                    "    mount {:?} {from} {:?} on {:?} {ro}",
                    spec.kind, spec.source, spec.target
                )
                .unwrap();
            }
            if let Some(network) = run.network {
                writeln!(out, "    network {network:?}").unwrap();
            }
        }
        Action::Transfer(t) => {
            let from = t.from.as_ref().map_or("context".into(), source);
            writeln!(out, "  copy {from} {} to {}", json!(t.sources), t.destination).unwrap();
            for (name, value) in [("chown", &t.chown), ("chmod", &t.chmod)] {
                if let Some(value) = value {
                    writeln!(out, "    {name} {value}").unwrap();
                }
            }
            for file in &t.files {
                writeln!(out, "    file {} {}", file.name, json!(file.content)).unwrap();
            }
            if t.unpack {
                writeln!(out, "    unpack").unwrap();
            }
        }
    }
}

fn dump(case: &Path) -> Result<String> {
    let bytes = fs::read(case.join("Dockerfile")).unwrap();
    let plan = plan::plan(parse::parse("Dockerfile", &bytes)?, &options(case))?;
    let (mut out, mut done) = (String::new(), Vec::new());
    for warning in &plan.warnings {
        writeln!(out, "warning: {warning}").unwrap();
    }
    for index in 0..plan.stages.len() {
        let stage = &plan.stages[index];
        let needed = if plan.needed()[index] { "" } else { " (not needed)" };
        let name = stage.name.as_deref().unwrap_or("-");
        writeln!(out, "stage {index} {name} from {}{needed}", source(&stage.base)).unwrap();
        let resolved = steps::resolve(&plan, index, base(case, &plan, &stage.base, &done))?;
        for step in &resolved.steps {
            writeln!(out, "{} {}", step.place, step.created_by.replace('\n', "\\n")).unwrap();
            describe(&step.action, &mut out);
        }
        for (key, value) in resolved.config.as_json()["config"].as_object().unwrap() {
            if *value != json!([steps::DEFAULT_PATH]) {
                writeln!(out, "  {key}: {value}").unwrap();
            }
        }
        done.push(resolved);
    }
    let unconsumed = plan.globals.unconsumed();
    if !unconsumed.is_empty() {
        writeln!(out, "unconsumed {}", unconsumed.join(" ")).unwrap();
    }
    Ok(out)
}

#[test]
fn fixtures() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut cases: Vec<_> = fs::read_dir(&root).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let actual = dump(&case).unwrap_or_else(|error| format!("error: {error}\n"));
        let file = case.join("expected");
        if std::env::var_os("DAVIT_BLESS").is_some() {
            fs::write(&file, &actual).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if actual != expected {
            wrong.push(format!("--- {}\n{expected}+++ actual\n{actual}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
