//! `features`, `spec` and `--version`: what a caller asks before there is a container.

use std::fs;

use serde_json::{Value, json};
use spec_tests::{Case, Outcome, find, skip};

fn features(case: &Case) -> Option<Value> {
    let outcome = case.runtime(["features"]);
    if case.runtime_is("crun") && outcome.code() != 0 {
        return None; // crun knows the verb since 1.8.6
    }
    Some(outcome.quiet_success().json())
}

fn has(list: &Value, word: &str) -> bool {
    list.as_array().is_some_and(|list| list.contains(&json!(word)))
}

#[test]
fn features_names_what_engines_look_for() {
    let case = Case::new();
    let Some(features) = features(&case) else { skip!("this crun has no features") };
    for key in ["ociVersionMin", "ociVersionMax"] {
        assert!(features[key].as_str().is_some_and(|text| text.starts_with("1.")), "{features}");
    }
    for hook in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        assert!(has(&features["hooks"], hook), "hook {hook}: {features}");
    }
    for option in ["bind", "rbind", "ro", "nosuid", "nodev", "noexec", "rprivate", "rshared"] {
        assert!(has(&features["mountOptions"], option), "mount option {option}: {features}");
    }
    let linux = &features["linux"];
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"] {
        assert!(has(&linux["namespaces"], kind), "namespace {kind}: {linux}");
    }
    for cap in ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_BPF"] {
        assert!(has(&linux["capabilities"], cap), "{cap}: {linux}");
    }
    for key in ["v1", "v2"] {
        assert_eq!(linux["cgroup"][key], true, "cgroup {key}: {linux}");
    }
    assert_eq!(linux["seccomp"]["enabled"], true, "{linux}");
    assert!(has(&linux["seccomp"]["actions"], "SCMP_ACT_ERRNO"), "{linux}");
}

#[test]
fn version_has_the_lines_that_engines_parse() {
    let case = Case::new();
    let outcome = case.runtime(["--version"]);
    let lines: Vec<_> = outcome.quiet_success().stdout.lines().collect();
    assert!(lines[0].contains(" version "), "{outcome}");
    assert!(lines.iter().any(|line| line.starts_with("commit: ")), "{outcome}");
    assert!(lines.iter().any(|line| line.starts_with("spec: 1.")), "{outcome}");
}

#[test]
fn called_as_runc_it_says_runc() {
    let case = Case::new();
    if !case.runtime_is("runtime") {
        skip!("for our runtime alone");
    }
    let link = case.dir().join("runc");
    std::os::unix::fs::symlink(case.command().get_program(), &link).expect("make the link");
    let mut command = std::process::Command::new(&link);
    command.arg("--version");
    let outcome = case.outcome(command);
    assert!(outcome.quiet_success().stdout.starts_with("runc version "), "{outcome}");
}

/// What `spec FLAGS` writes, and what it prints.
fn written_spec(case: &Case, program: &std::path::Path, flags: &[&str]) -> (Value, Outcome) {
    let dir = case.dir().join("spec");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).expect("make a directory");
    let mut command = std::process::Command::new(program);
    command.arg("spec").args(flags).current_dir(&dir);
    let outcome = case.outcome(command);
    let text = fs::read_to_string(dir.join("config.json"))
        .unwrap_or_else(|e| panic!("config.json: {e}: {outcome}"));
    (serde_json::from_str(&text).expect("JSON"), outcome)
}

#[test]
fn spec_writes_a_config_that_runs() {
    let case = Case::new();
    let program = case.command().get_program().to_owned();
    let (mut config, outcome) = written_spec(&case, program.as_ref(), &[]);
    outcome.quiet_success().prints("");
    let mut bundle = case.bundle();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["echo", "from spec"]);
    config["linux"]["cgroupsPath"] = bundle.config["linux"]["cgroupsPath"].clone();
    bundle.config = config;
    case.run(&bundle).quiet_success().prints("from spec");
}

#[test]
fn spec_equals_runcs_but_for_what_newer_ones_changed() {
    let case = Case::new();
    if !case.runtime_is("runtime") {
        skip!("for our runtime alone");
    }
    let Some(runc) = find("runc") else { skip!("runc is not installed") };
    let program = case.command().get_program().to_owned();
    for flags in [[].as_slice(), ["--rootless"].as_slice()] {
        let (mut ours, _) = written_spec(&case, program.as_ref(), flags);
        let (mut theirs, _) = written_spec(&case, &runc, flags);
        let list = |config: &Value| config["linux"]["maskedPaths"].as_array().cloned();
        let (masked, base) = (list(&ours).expect("masks"), list(&theirs).expect("masks"));
        for path in &base {
            assert!(masked.contains(path), "{path} is not masked");
        }
        for config in [&mut ours, &mut theirs] {
            // The version of the specification, and our own name for the host.
            config["ociVersion"] = json!(null);
            config["hostname"] = json!(null);
            // runc 1.2 dropped the ambient set, and later masks more paths.
            config["process"]["capabilities"]["ambient"] = json!(null);
            config["linux"]["maskedPaths"] = json!(null);
        }
        // As values: the order of keys means nothing.
        assert!(ours == theirs, "spec {flags:?} differs from runc's:\n{ours:#}\n{theirs:#}");
    }
}

#[test]
fn spec_does_not_overwrite() {
    let case = Case::new();
    let program = case.command().get_program().to_owned();
    let dir = case.dir().join("kept");
    fs::create_dir(&dir).expect("make a directory");
    fs::write(dir.join("config.json"), "mine").expect("write");
    let mut command = std::process::Command::new(program);
    command.args(["spec", "--bundle"]).arg(&dir);
    case.outcome(command).fails_with("exists");
    assert_eq!(fs::read_to_string(dir.join("config.json")).expect("read"), "mine");
}

#[test]
fn help_of_every_verb_succeeds() {
    let case = Case::new();
    let verbs = ["create", "start", "run", "exec", "kill", "delete", "state", "list", "ps", "spec"];
    for verb in verbs {
        let outcome = case.runtime([verb, "--help"]);
        outcome.success();
        assert!(outcome.stdout.contains(verb), "{outcome}");
    }
}
