//! Runtime and Lifecycle (runtime.md): the operations, their effects and their order.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use spec_tests::{Case, differs, runtime, skip, wait_until};

#[test]
fn run_returns_the_exit_code_and_leaves_nothing() {
    let case = Case::new();
    for code in [0, 1, 7, 255] {
        let bundle = case.bundle().sh(&format!("exit {code}"));
        case.run(&bundle).exits(code);
        case.assert_gone(&bundle);
    }
}

#[test]
fn run_returns_128_plus_n_for_a_signal() {
    let case = Case::new();
    // Init of a pid namespace ignores its own signals: a child dies, and a shell says so.
    let bundle = case.bundle().without_namespace("pid").sh("kill -KILL $$");
    case.run(&bundle).exits(137);
    case.assert_gone(&bundle);
}

#[test]
fn run_passes_output_through_and_says_nothing_itself() {
    let case = Case::new();
    let bundle = case.bundle().sh("echo to-stdout");
    case.run(&bundle).quiet_success().prints("to-stdout");
    let bundle = case.bundle().sh("echo to-stderr >&2");
    let outcome = case.run(&bundle);
    outcome.success().prints("");
    assert_eq!(outcome.stderr, "to-stderr\n");
}

#[test]
fn create_does_not_start_the_program() {
    let case = Case::new();
    let bundle = case.bundle().sh("echo started");
    let created = case.create(&bundle);
    created.quiet_success();
    assert_eq!(case.status(&bundle), "created");
    assert_eq!(created.stdout_now(), "");
    case.runtime(["start", &bundle.id]).quiet_success();
    case.wait_stopped(&bundle);
    assert_eq!(created.stdout_now(), "started\n");
    case.runtime(["delete", &bundle.id]).quiet_success();
    case.assert_gone(&bundle);
}

#[test]
fn config_changes_after_create_have_no_effect() {
    let case = Case::new();
    let bundle = case.bundle().args(["echo", "first"]);
    let created = case.create(&bundle);
    created.quiet_success();
    let bundle = bundle.args(["echo", "second"]);
    bundle.write();
    case.runtime(["start", &bundle.id]).quiet_success();
    case.wait_stopped(&bundle);
    assert_eq!(created.stdout_now(), "first\n");
    case.runtime(["delete", &bundle.id]).quiet_success();
}

#[test]
fn state_has_the_fields_of_the_spec() {
    let case = Case::new();
    differs!(case, ["crun"], "crun prints a relative rootfs");
    let bundle = case
        .bundle()
        .args(["sleep", "100"])
        .set("/annotations", json!({ "org.example.key": "a value" }));
    case.start(&bundle);
    let state = case.state(&bundle);
    assert!(state["ociVersion"].as_str().is_some_and(|text| text.starts_with("1.")), "{state}");
    assert_eq!(state["id"], bundle.id.as_str());
    assert_eq!(state["status"], "running");
    assert_eq!(state["bundle"], bundle.dir.to_str().expect("UTF-8"));
    assert_eq!(state["annotations"], json!({ "org.example.key": "a value" }));
    let pid = state["pid"].as_u64().expect("a pid");
    let words = fs::read(format!("/proc/{pid}/cmdline")).expect("the init runs");
    assert_eq!(words, b"sleep\x00100\x00");
    // Not of the spec, but what runc and crun print and their callers parse.
    assert_eq!(state["rootfs"], bundle.rootfs().to_str().expect("UTF-8"));
    let created = state["created"].as_str().expect("a time");
    assert!(created.len() >= 20 && created.as_bytes()[10] == b'T', "RFC 3339: {created}");
    case.runtime(["delete", "--force", &bundle.id]).quiet_success();
    case.assert_gone(&bundle);
}

#[test]
fn state_of_a_stopped_container_has_no_live_pid() {
    let case = Case::new();
    let bundle = case.bundle();
    case.start(&bundle);
    case.wait_stopped(&bundle);
    assert_eq!(case.state(&bundle)["pid"].as_u64().unwrap_or(0), 0);
}

#[test]
fn a_missing_container_is_named_as_missing() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 deletes and kills with other words");
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle); // so that the state root exists
    for verb in ["state", "start", "kill", "delete", "ps"] {
        case.assert_missing(verb, "absent");
    }
    case.runtime(["exec", "absent", "true"]).fails_with("exist");
}

#[test]
fn a_missing_state_root_means_missing_containers() {
    let case = Case::new();
    case.assert_missing("state", "absent");
    case.runtime(["delete", "--force", "absent"]).quiet_success().prints("");
}

#[test]
fn another_root_has_containers_of_its_own() {
    let case = Case::new();
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    assert!(case.root().join(&bundle.id).is_dir(), "its state is not below --root");
    let other = case.dir().join("other-root");
    fs::create_dir(&other).expect("make another root");
    let there = |words: &[&str]| {
        let mut command = Command::new(runtime());
        command.arg("--root").arg(&other).args(words).stdin(std::process::Stdio::null());
        case.outcome(command)
    };
    there(&["list", "-q"]).quiet_success().prints("");
    assert_ne!(there(&["state", &bundle.id]).code(), 0);
    there(&["delete", "--force", &bundle.id]);
    assert_eq!(case.status(&bundle), "running");
}

#[test]
fn delete_force_of_a_missing_container_is_silent() {
    let case = Case::new();
    case.runtime(["delete", "--force", "absent"]).quiet_success().prints("");
}

#[test]
fn start_wants_a_created_container() {
    let case = Case::new();
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    let again = case.runtime(["start", &bundle.id]);
    assert_ne!(again.code(), 0, "a running container was started: {again}");
    assert_eq!(case.status(&bundle), "running");
    let ended = case.bundle();
    case.start(&ended);
    case.wait_stopped(&ended);
    let again = case.runtime(["start", &ended.id]);
    assert_ne!(again.code(), 0, "a stopped container was started: {again}");
}

#[test]
fn delete_refuses_a_container_that_runs() {
    let case = Case::new();
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    let outcome = case.runtime(["delete", &bundle.id]);
    assert_ne!(outcome.code(), 0, "a running container was deleted: {outcome}");
    assert_eq!(case.status(&bundle), "running");
    case.runtime(["delete", "--force", &bundle.id]).quiet_success();
    case.assert_gone(&bundle);
}

#[test]
fn delete_force_removes_a_created_container() {
    let case = Case::new();
    let bundle = case.bundle();
    case.create(&bundle).quiet_success();
    case.runtime(["delete", "--force", &bundle.id]).quiet_success();
    case.assert_gone(&bundle);
}

#[test]
fn delete_force_ends_every_process_of_a_shared_pid_namespace() {
    let case = Case::new();
    let bundle = case.bundle().without_namespace("pid").sh("sleep 100 & sleep 101 & wait");
    case.start(&bundle);
    assert!(wait_until(|| case.runtime(["ps", "-f", "json", &bundle.id]).stdout.contains(',')));
    case.runtime(["delete", "--force", &bundle.id]).success();
    case.assert_gone(&bundle);
}

#[test]
fn kill_sends_term_by_default() {
    let case = Case::new();
    let script = "trap 'echo got TERM; exit 3' TERM; echo ready; while :; do sleep 0.02; done";
    let bundle = case.bundle().sh(script);
    let started = case.start(&bundle);
    assert!(wait_until(|| started.stdout_now().contains("ready")));
    case.runtime(["kill", &bundle.id]).quiet_success();
    case.wait_stopped(&bundle);
    assert_eq!(started.stdout_now(), "ready\ngot TERM\n");
}

#[test]
fn kill_takes_names_and_numbers() {
    let case = Case::new();
    for signal in ["HUP", "SIGHUP", "1"] {
        let script = "trap 'echo got HUP; exit' HUP; echo ready; while :; do sleep 0.02; done";
        let bundle = case.bundle().sh(script);
        let started = case.start(&bundle);
        assert!(wait_until(|| started.stdout_now().contains("ready")));
        case.runtime(["kill", &bundle.id, signal]).quiet_success();
        case.wait_stopped(&bundle);
        assert_eq!(started.stdout_now(), "ready\ngot HUP\n", "kill {signal}");
    }
}

#[test]
fn kill_names_a_signal_it_does_not_know() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 takes any word for a signal");
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    case.runtime(["kill", &bundle.id, "NOSUCH"]).fails_with("NOSUCH");
    assert_eq!(case.status(&bundle), "running");
}

#[test]
fn kill_of_a_created_container_ends_it() {
    let case = Case::new();
    let bundle = case.bundle();
    case.create(&bundle).quiet_success();
    case.runtime(["kill", &bundle.id, "KILL"]).quiet_success();
    case.wait_stopped(&bundle);
    case.runtime(["delete", &bundle.id]).quiet_success();
    case.assert_gone(&bundle);
}

#[test]
fn kill_of_a_stopped_container_says_not_running() {
    let case = Case::new();
    let bundle = case.bundle();
    case.start(&bundle);
    case.wait_stopped(&bundle);
    let outcome = case.runtime(["kill", &bundle.id, "KILL"]);
    let said = outcome.stderr.to_lowercase();
    // Any of these means "finished" to containerd and CRI-O.
    let texts = ["container not running", "process already finished", "no such process"];
    assert!(outcome.code() != 0 && texts.iter().any(|text| said.contains(text)), "{outcome}");
}

#[test]
fn kill_all_reaches_every_process() {
    let case = Case::new();
    // Each tells that the signal has reached it: what is left alive would be ended by `delete`.
    let wait = "echo up $n; while :; do sleep 0.02; done";
    let script = format!(
        "for n in 1 2 3; do (trap \"echo got $n; exit\" TERM; {wait}) & done; \
         n=0; trap 'echo got 0; exit' TERM; {wait}"
    );
    let bundle = case.bundle().without_namespace("pid").sh(&script);
    let started = case.start(&bundle);
    let all = |word: &str| (0..4).all(|n| started.stdout_now().contains(&format!("{word} {n}\n")));
    assert!(wait_until(|| all("up")), "{started}");
    case.runtime(["kill", "--all", &bundle.id, "TERM"]).quiet_success();
    assert!(wait_until(|| all("got")), "{}", started.stdout_now());
    case.wait_stopped(&bundle);
    case.runtime(["delete", &bundle.id]).quiet_success();
    case.assert_gone(&bundle);
}

#[test]
fn list_shows_containers_and_quiet_only_ids() {
    let case = Case::new();
    differs!(case, ["crun"], "crun lists in the order of the directory");
    let first = case.bundle().args(["sleep", "100"]);
    let second = case.bundle();
    case.start(&first);
    case.create(&second).quiet_success();
    let mut ids = [first.id.as_str(), second.id.as_str()];
    ids.sort_unstable();
    let quiet = case.runtime(["list", "-q"]);
    assert_eq!(quiet.quiet_success().stdout.lines().collect::<Vec<_>>(), ids);
    let json = case.runtime(["list", "--format", "json"]).quiet_success().json();
    let rows = json.as_array().expect("an array");
    assert_eq!(rows.len(), 2);
    let row = rows.iter().find(|row| row["id"] == first.id.as_str()).expect("the first container");
    assert_eq!(row["status"], "running");
    assert_eq!(row["bundle"], first.dir.to_str().expect("UTF-8"));
    assert_eq!(row["pid"], case.state(&first)["pid"]);
    let table = case.runtime(["list"]);
    let header = table.quiet_success().stdout.lines().next().expect("a header");
    let names: Vec<_> = header.split_whitespace().collect();
    assert_eq!(names, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!(table.stdout.lines().count(), 3);
}

#[test]
fn list_of_an_empty_root_is_empty() {
    let case = Case::new();
    case.runtime(["list", "-q"]).quiet_success().prints("");
    let json = case.runtime(["list", "-f", "json"]).quiet_success().json();
    assert!(json.is_null() || json.as_array().is_some_and(Vec::is_empty), "{json}");
}

#[test]
fn ps_lists_the_processes() {
    let case = Case::new();
    differs!(case, ["crun"], "crun prints pids alone");
    let bundle = case.bundle().sh("sleep 100 & sleep 101 & wait");
    case.start(&bundle);
    let ps = || case.runtime(["ps", "--format", "json", &bundle.id]);
    assert!(wait_until(|| ps().json().as_array().is_some_and(|pids| pids.len() == 3)));
    let pids = ps().quiet_success().json();
    let init = case.state(&bundle)["pid"].clone();
    assert!(pids.as_array().expect("an array").contains(&init), "{pids} lacks {init}");
    let table = case.runtime(["ps", &bundle.id]);
    table.quiet_success().prints_part("sleep 101");
    assert!(table.stdout.lines().next().expect("a header").contains("PID"), "{table}");
}

#[test]
fn the_pid_file_holds_the_pid_and_no_newline() {
    let case = Case::new();
    let bundle = case.bundle().args(["sleep", "100"]);
    let file = case.dir().join("init.pid");
    let path = file.to_str().expect("UTF-8");
    case.on_bundle("create", &bundle, ["--pid-file", path]).quiet_success();
    let text = fs::read_to_string(&file).expect("the pid file exists");
    assert_eq!(text, case.pid(&bundle).to_string());
}

#[test]
fn run_detached_returns_at_once() {
    let case = Case::new();
    let bundle = case.bundle().args(["sleep", "100"]);
    case.on_bundle("run", &bundle, ["--detach"]).quiet_success();
    assert_eq!(case.status(&bundle), "running");
}

#[test]
fn run_keep_keeps_the_stopped_container() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 has no run --keep");
    if case.runtime_is("runc") {
        let help = case.runtime(["run", "--help"]);
        if !help.stdout.contains("--keep") {
            skip!("this runc has no run --keep");
        }
    }
    let bundle = case.bundle().sh("exit 5");
    case.on_bundle("run", &bundle, ["--keep"]).exits(5);
    assert_eq!(case.status(&bundle), "stopped");
    case.runtime(["delete", &bundle.id]).quiet_success();
    case.assert_gone(&bundle);
}

#[test]
fn the_bundle_defaults_to_the_working_directory() {
    let case = Case::new();
    let bundle = case.bundle().args(["echo", "here"]);
    bundle.write();
    let mut command = case.command();
    command.args(["run", &bundle.id]).current_dir(&bundle.dir);
    case.outcome(command).quiet_success().prints("here");
}

#[test]
fn a_name_in_use_is_refused_and_the_container_kept() {
    let case = Case::new();
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    let pid = case.pid(&bundle);
    case.create(&bundle).fails_with("exist");
    assert_eq!(case.pid(&bundle), pid);
    assert!(Path::new(&format!("/proc/{pid}/root")).exists(), "the first container is gone");
}

#[test]
fn the_init_is_a_child_of_the_caller_or_its_subreaper() {
    let case = Case::new();
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    let status = fs::read_to_string(format!("/proc/{}/status", case.pid(&bundle)));
    let status = status.expect("the init runs");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).expect("a parent");
    // No runtime process stays behind: whoever the parent is, it is no runtime.
    let comm = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
    assert!(!["runtime", "runc", "crun"].contains(&comm.trim()), "parent {parent} is {comm}");
}
