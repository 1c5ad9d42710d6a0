//! Errors (runtime.md) and bad input: one clear line, a failing exit code, nothing left behind.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use spec_tests::{Case, differs};

/// Runs the bundle and asserts a failure that names `text` and leaves nothing.
#[track_caller]
fn refused(case: &Case, bundle: &spec_tests::Bundle, text: &str) {
    case.run(bundle).fails_with(text);
    case.assert_gone(bundle);
}

#[test]
fn a_missing_bundle_is_named() {
    let case = Case::new();
    case.runtime(["run", "--bundle", "/no/such/bundle", "lost"]).fails_with("/no/such/bundle");
    case.assert_missing("state", "lost");
}

#[test]
fn a_missing_config_is_named() {
    let case = Case::new();
    let dir = case.dir().to_str().expect("UTF-8").to_owned();
    case.runtime(["run", "--bundle", &dir, "lost"]).fails_with("config.json");
}

#[test]
fn a_missing_rootfs_is_named() {
    let case = Case::new();
    let bundle = case.bundle().set("/root/path", "no-such-root");
    refused(&case, &bundle, "no-such-root");
}

#[test]
fn json_that_is_cut_short_is_refused() {
    let case = Case::new();
    let bundle = case.bundle();
    fs::write(bundle.dir.join("config.json"), r#"{"ociVersion": "1.0.2", "process": {"#)
        .expect("write");
    let mut command = case.command();
    command.args(["run", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
    let outcome = case.outcome(command);
    assert_ne!(outcome.code(), 0, "{outcome}");
    assert!(!outcome.stderr.is_empty(), "{outcome}");
    case.assert_gone(&bundle);
}

#[test]
fn a_value_of_the_wrong_type_is_named_by_its_json_path() {
    let case = Case::new();
    differs!(
        case,
        ["runc", "crun"],
        "runc and crun name the Go field or nothing, not the JSON path"
    );
    let bundle = case.bundle().set("/process/user/uid", "root");
    refused(&case, &bundle, "process.user.uid");
    let bundle = case.bundle().set("/linux/namespaces/0/type", json!(7));
    refused(&case, &bundle, "linux.namespaces[0]");
    let bundle = case.bundle().set("/mounts/2/options", json!({}));
    refused(&case, &bundle, "mounts[2].options");
}

#[test]
fn unknown_values_are_refused_by_name() {
    let case = Case::new();
    differs!(case, ["crun"], "crun takes an unknown device type for a character device");
    let wrong: [(&str, Value, &str); 4] = [
        ("/linux/namespaces/0/type", json!("nosuch"), "nosuch"),
        ("/process/rlimits/0/type", json!("RLIMIT_NOSUCH"), "NOSUCH"),
        (
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_NOSUCH", "architectures": [] }),
            "NOSUCH",
        ),
        ("/linux/devices", json!([{ "path": "/dev/x", "type": "q", "major": 1 }]), "q"),
    ];
    for (pointer, value, text) in wrong {
        let bundle = case.bundle().set(pointer, value);
        refused(&case, &bundle, text);
    }
}

#[test]
fn an_unknown_propagation_is_refused() {
    let case = Case::new();
    differs!(case, ["crun"], "crun takes it for the default");
    let bundle = case.bundle().set("/linux/rootfsPropagation", "nosuch");
    refused(&case, &bundle, "nosuch");
}

#[test]
fn unknown_properties_are_ignored() {
    // "Extensibility": a runtime that does not know a property must not fail for it.
    let case = Case::new();
    let bundle = case.bundle().set("/linux/noSuchProperty", json!({ "a": 1 })).args(["echo", "ok"]);
    case.run(&bundle).quiet_success().prints("ok");
}

#[test]
fn an_unsupported_version_is_refused() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc and crun do not check ociVersion");
    let bundle = case.bundle().set("/ociVersion", "2.0.0");
    refused(&case, &bundle, "2.0.0");
}

#[test]
fn a_missing_process_is_refused() {
    let case = Case::new();
    differs!(case, ["crun"], "crun does not name it");
    let bundle = case.bundle().set("/process/args", json!([]));
    refused(&case, &bundle, "args");
}

#[test]
fn a_relative_cwd_is_refused() {
    let case = Case::new();
    differs!(case, ["crun"], "crun does not check it");
    let bundle = case.bundle().set("/process/cwd", "tmp");
    refused(&case, &bundle, "ute path");
}

#[test]
fn a_program_that_is_missing_is_named() {
    let case = Case::new();
    differs!(case, ["crun"], "crun puts the name between the words that runc keeps together");
    let bundle = case.bundle().args(["no-such-program"]);
    // The texts are those by which dockerd and podman choose exit code 127.
    let outcome = case.run(&bundle);
    outcome.fails_with("no-such-program");
    assert!(
        outcome.stderr.contains("executable file not found in $PATH")
            || outcome.stderr.contains("no such file or directory"),
        "{outcome}"
    );
    case.assert_gone(&bundle);
    let bundle = case.bundle().args(["/no/such/program"]);
    refused(&case, &bundle, "no such file or directory");
}

#[test]
fn a_program_that_may_not_run_is_named() {
    let case = Case::new();
    differs!(case, ["crun"], "crun says \"Operation not permitted\" of a directory");
    let bundle = case.bundle().file("/plain", "data").args(["/plain"]);
    refused(&case, &bundle, "permission denied");
    if case.runtime_is("runtime") {
        // As execvp(3) has it; Go's look-up says "not found".
        let bundle = case.bundle().file("/bin/plain", "data").args(["plain"]);
        refused(&case, &bundle, "permission denied");
    }
    let bundle = case.bundle().args(["/etc"]);
    let outcome = case.run(&bundle);
    let said = outcome.stderr.to_lowercase();
    assert!(said.contains("permission denied") || said.contains("is a directory"), "{outcome}");
}

#[test]
fn create_reports_a_missing_program_already() {
    let case = Case::new();
    let bundle = case.bundle().args(["/no/such/program"]);
    case.create(&bundle).fails_with("no such file or directory");
    case.assert_gone(&bundle);
}

#[test]
fn an_id_with_a_slash_is_refused() {
    let case = Case::new();
    differs!(case, ["crun"], "crun takes an id with a blank");
    let mut bundle = case.bundle();
    for id in ["../escape", "a/b", "", "with space"] {
        bundle.id = id.to_owned();
        let outcome = case.create(&bundle);
        assert_ne!(outcome.code(), 0, "id {id:?} was taken: {outcome}");
    }
    assert!(!case.dir().join("escape").exists());
}

#[test]
fn a_mount_source_that_is_missing_is_named() {
    let case = Case::new();
    let bundle = case.bundle().writable().mount("/mnt", "bind", "/no/such/source", &["rbind"]);
    refused(&case, &bundle, "/no/such/source");
}

#[test]
fn a_namespace_path_that_is_missing_is_named() {
    let case = Case::new();
    let bundle = case.bundle().namespace("network", Some("/no/such/ns".as_ref()));
    refused(&case, &bundle, "/no/such/ns");
}

#[test]
fn an_unknown_verb_or_flag_is_refused() {
    let case = Case::new();
    let outcome = case.runtime(["nosuchverb"]);
    if !case.runtime_is("runc") {
        // runc 1.1 prints its help and reports success.
        assert_ne!(outcome.code(), 0, "{outcome}");
    }
    let outcome = case.runtime(["state", "--nosuchflag", "x"]);
    assert_ne!(outcome.code(), 0, "{outcome}");
    assert!(format!("{}{}", outcome.stdout, outcome.stderr).contains("nosuchflag"), "{outcome}");
}

/// The runtime with `--log FILE --log-format json`, failing; the log's text.
fn failing_log(case: &Case, verb: &[&str]) -> String {
    let log = case.dir().join("log.json");
    let mut command: Command = case.command();
    command.arg("--log").arg(&log).args(["--log-format", "json"]).args(verb);
    let outcome = case.outcome(command);
    assert_ne!(outcome.code(), 0, "{outcome}");
    assert!(!outcome.stderr.is_empty(), "with --log, stderr has the text too: {outcome}");
    fs::read_to_string(log).expect("read the log")
}

#[test]
fn the_json_log_is_exactly_one_object() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 words a missing container otherwise");
    let text = failing_log(&case, &["state", "absent"]);
    // podman parses the file whole: one object, not a stream of them.
    let entry: Value = serde_json::from_str(&text).expect("one JSON object");
    assert_eq!(entry["level"], "error");
    assert!(entry["msg"].as_str().is_some_and(|msg| msg.contains("does not exist")), "{entry}");
    let time = entry["time"].as_str().expect("a time");
    assert!(time.len() >= 20 && time.as_bytes()[10] == b'T', "RFC 3339: {time}");
}

#[test]
fn the_json_log_of_a_failing_create_is_one_object() {
    let case = Case::new();
    differs!(case, ["crun"], "crun writes the message with a capital letter");
    differs!(case, ["runc"], "runc 1.1 logs warnings of its cgroup driver beside the error");
    let bundle = case.bundle().args(["/no/such/program"]);
    bundle.write();
    let dir = bundle.dir.to_str().expect("UTF-8");
    let text = failing_log(&case, &["create", "--bundle", dir, &bundle.id]);
    let entry: Value = serde_json::from_str(&text).expect("one JSON object");
    let msg = entry["msg"].as_str().expect("a message");
    assert!(msg.contains("no such file or directory"), "{msg}");
    case.assert_gone(&bundle);
}

#[test]
fn success_leaves_the_log_empty() {
    let case = Case::new();
    let bundle = case.bundle();
    bundle.write();
    let log = case.dir().join("log");
    let mut command = case.command();
    command.arg("--log").arg(&log).args(["--log-format", "json", "run", "--bundle"]);
    command.arg(&bundle.dir).arg(&bundle.id);
    case.outcome(command).quiet_success();
    assert_eq!(fs::read_to_string(&log).unwrap_or_default(), "");
}

#[test]
fn debug_tells_what_is_done() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 has nothing to tell of a run that succeeds");
    let bundle = case.bundle().args(["echo", "ran"]);
    bundle.write();
    let mut command = case.command();
    command.args(["--debug", "run", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
    let outcome = case.outcome(command);
    outcome.success().prints("ran");
    assert!(outcome.stderr.contains("level=debug"), "{outcome}");
}
