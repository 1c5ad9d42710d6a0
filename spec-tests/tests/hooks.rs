//! POSIX-platform hooks (config.md#posix-platform-hooks).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use spec_tests::{Bundle, Case, differs};

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// The file to which the hooks of a case write.
fn journal(case: &Case) -> PathBuf {
    case.dir().join("journal")
}

fn journal_text(case: &Case) -> String {
    fs::read_to_string(journal(case)).unwrap_or_default()
}

/// A hook that runs a shell on `script`; `$J` is the journal.
fn hook(case: &Case, script: &str) -> Value {
    json!({
        "path": "/bin/sh",
        "args": ["sh", "-c", script],
        "env": ["PATH=/usr/bin:/bin", format!("J={}", journal(case).display())],
    })
}

/// The bundle with the journal also inside, where startContainer hooks run.
fn with_journal(case: &Case) -> Bundle {
    let path = journal(case);
    fs::write(&path, "").expect("make the journal");
    let path = path.to_str().expect("UTF-8");
    case.bundle().writable().mount(path, "bind", path, &["bind"])
}

#[test]
fn every_hook_runs_in_its_turn() {
    let case = Case::new();
    differs!(case, ["runc"], "runc runs poststart hooks in create (runc#5186)");
    differs!(case, ["crun"], "crun runs startContainer and poststart hooks side by side");
    let mut bundle =
        with_journal(&case).sh(&format!("echo program >> {}", journal(&case).display()));
    for kind in KINDS {
        let hook = hook(&case, &format!("echo {kind} >> $J"));
        bundle = bundle.push(&format!("/hooks/{kind}"), hook);
    }
    case.create(&bundle).quiet_success();
    assert_eq!(journal_text(&case), "prestart\ncreateRuntime\ncreateContainer\n");
    case.runtime(["start", &bundle.id]).quiet_success();
    case.wait_stopped(&bundle);
    let mut lines: Vec<_> = journal_text(&case).lines().map(str::to_owned).collect();
    assert_eq!(lines[3], "startContainer");
    // The program and the poststart hooks run side by side.
    lines[4..].sort();
    assert_eq!(lines[4..], ["poststart", "program"]);
    case.runtime(["delete", &bundle.id]).quiet_success();
    assert!(journal_text(&case).ends_with("poststop\n"));
}

#[test]
fn hooks_of_one_kind_run_in_the_listed_order() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 runs hooks of one kind side by side");
    let mut bundle = with_journal(&case);
    for word in ["one", "two", "three"] {
        bundle = bundle.push("/hooks/createRuntime", hook(&case, &format!("echo {word} >> $J")));
    }
    case.run(&bundle).quiet_success();
    assert_eq!(journal_text(&case), "one\ntwo\nthree\n");
}

#[test]
fn hooks_get_the_state_on_stdin() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 runs prestart and createRuntime hooks side by side");
    let mut bundle = with_journal(&case).set("/annotations", json!({ "org.example.k": "v" }));
    for kind in KINDS {
        bundle = bundle.push(&format!("/hooks/{kind}"), hook(&case, "cat >> $J; echo >> $J"));
    }
    case.full_life(&bundle);
    let text = journal_text(&case);
    let states: Vec<Value> = text
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    assert_eq!(states.len(), KINDS.len(), "{text}");
    for state in &states {
        assert_eq!(state["id"], bundle.id.as_str());
        assert_eq!(state["bundle"], bundle.dir.to_str().expect("UTF-8"));
        assert!(state["ociVersion"].is_string());
        assert_eq!(state["annotations"]["org.example.k"], "v");
    }
    assert_eq!(states[5]["status"], "stopped", "{text}");
}

#[test]
fn hooks_of_create_are_told_that_the_environment_is_created() {
    let case = Case::new();
    differs!(case, ["runc"], "runc says \"creating\", which is step 2; the hooks are steps 3 to 5");
    let mut bundle = with_journal(&case);
    for kind in ["prestart", "createRuntime", "createContainer"] {
        bundle = bundle.push(&format!("/hooks/{kind}"), hook(&case, "cat >> $J; echo >> $J"));
    }
    case.full_life(&bundle);
    let text = journal_text(&case);
    assert_eq!(text.matches(r#""status""#).count(), 3, "{text}");
    for line in text.lines().filter(|line| !line.is_empty()) {
        let state: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(state["status"], "created", "{text}");
    }
}

#[test]
fn create_runtime_hooks_see_the_pid_of_the_init() {
    let case = Case::new();
    let bundle = with_journal(&case).args(["sleep", "100"]);
    let bundle = bundle.push("/hooks/createRuntime", hook(&case, "cat >> $J"));
    case.start(&bundle);
    let state: Value = serde_json::from_str(&journal_text(&case)).expect("a state");
    assert_eq!(state["pid"], case.state(&bundle)["pid"]);
}

#[test]
fn create_runtime_hooks_run_in_the_runtimes_namespaces() {
    let case = Case::new();
    let bundle = with_journal(&case);
    let script = "readlink /proc/self/ns/net /proc/self/ns/mnt >> $J";
    let bundle = bundle.push("/hooks/createRuntime", hook(&case, script));
    case.run(&bundle).quiet_success();
    let link = |file: &str| fs::read_link(format!("/proc/self/ns/{file}")).expect("a namespace");
    let expected = format!("{}\n{}\n", link("net").display(), link("mnt").display());
    assert_eq!(journal_text(&case), expected);
}

#[test]
fn create_container_hooks_run_in_the_containers_namespaces() {
    let case = Case::new();
    let bundle = with_journal(&case);
    // Before the pivot: the host's paths, but the container's mounts below the bundle.
    let script = "readlink /proc/self/ns/uts >> $J";
    let bundle = bundle.push("/hooks/createContainer", hook(&case, script));
    case.run(&bundle).quiet_success();
    let ours = fs::read_link("/proc/self/ns/uts").expect("a namespace");
    assert!(journal_text(&case).starts_with("uts:["));
    assert_ne!(journal_text(&case).trim(), ours.to_str().expect("UTF-8"));
}

#[test]
fn start_container_hooks_run_inside_the_root() {
    let case = Case::new();
    let bundle = with_journal(&case).file("/only-inside", "text from the root");
    let bundle = bundle.push("/hooks/startContainer", hook(&case, "cat /only-inside >> $J"));
    case.run(&bundle).quiet_success();
    assert_eq!(journal_text(&case), "text from the root");
}

#[test]
fn a_hook_has_exactly_its_args_and_environment() {
    let case = Case::new();
    let script = case.dir().join("hook.sh");
    let text = format!("#!/bin/sh\necho \"$0 $*\" >> {0}\nenv >> {0}\n", journal(&case).display());
    fs::write(&script, text).expect("write the hook");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod");
    let hook = json!({
        "path": script, "args": ["name", "one", "two"], "env": ["ONLY=this", "PATH=/usr/bin:/bin"],
    });
    let bundle = with_journal(&case).push("/hooks/createRuntime", hook);
    case.run(&bundle).quiet_success();
    let text = journal_text(&case);
    let mut lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.remove(0), format!("{} one two", script.display()));
    // The shell adds PWD, SHLVL and _ by itself.
    lines.retain(|line| !["PWD=", "SHLVL=", "_=", "OLDPWD="].iter().any(|p| line.starts_with(p)));
    lines.sort_unstable();
    assert_eq!(lines, ["ONLY=this", "PATH=/usr/bin:/bin"]);
}

#[test]
fn a_failing_hook_before_the_program_stops_everything() {
    let case = Case::new();
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let bundle = with_journal(&case).args(["echo", "must not run"]);
        let bundle =
            bundle.push(&format!("/hooks/{kind}"), hook(&case, "echo why-it-failed >&2; exit 3"));
        let outcome = case.run(&bundle);
        assert_ne!(outcome.code(), 0, "{kind}: {outcome}");
        assert_eq!(outcome.stdout, "", "{kind}: {outcome}");
        assert!(outcome.stderr.contains("hook"), "{kind}: {outcome}");
        case.assert_gone(&bundle);
    }
}

#[test]
fn a_failing_hook_after_the_program_stops_nothing() {
    let case = Case::new();
    differs!(
        case,
        ["runc", "crun"],
        "runc ends the container for a poststart hook; crun 1.8 fails start"
    );
    for kind in ["poststart", "poststop"] {
        let bundle = with_journal(&case).args(["echo", "ran"]);
        let bundle = bundle.push(&format!("/hooks/{kind}"), hook(&case, "exit 3"));
        let created = case.create(&bundle);
        created.quiet_success();
        case.runtime(["start", &bundle.id]).success();
        case.wait_stopped(&bundle);
        assert_eq!(created.stdout_now(), "ran\n", "{kind}");
        case.runtime(["delete", &bundle.id]).success();
        case.assert_gone(&bundle);
    }
}

#[test]
fn a_hook_that_outlasts_its_timeout_is_ended() {
    let case = Case::new();
    let mut slow = hook(&case, "echo $$ >> $J; exec sleep 60");
    slow["timeout"] = json!(1);
    let bundle = with_journal(&case).args(["echo", "must not run"]);
    let bundle = bundle.push("/hooks/createRuntime", slow);
    let start = std::time::Instant::now();
    let outcome = case.run(&bundle);
    assert_ne!(outcome.code(), 0, "{outcome}");
    assert!(start.elapsed().as_secs() < 20, "the timeout had no effect");
    let pid = journal_text(&case).trim().to_owned();
    assert!(!std::path::Path::new("/proc").join(pid).join("exe").exists(), "the hook still runs");
    case.assert_gone(&bundle);
}

#[test]
fn a_missing_hook_is_named() {
    let case = Case::new();
    let bundle = case.bundle().push("/hooks/createRuntime", json!({ "path": "/no/such/hook" }));
    case.run(&bundle).fails_with("/no/such/hook");
    case.assert_gone(&bundle);
}

#[test]
fn poststop_hooks_run_for_a_forced_delete() {
    let case = Case::new();
    let bundle = with_journal(&case).args(["sleep", "100"]);
    let bundle = bundle.push("/hooks/poststop", hook(&case, "echo poststop >> $J"));
    case.start(&bundle);
    case.runtime(["delete", "--force", &bundle.id]).quiet_success();
    assert_eq!(journal_text(&case), "poststop\n");
}
