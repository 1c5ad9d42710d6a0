//! Annotations that the runtime itself heeds: those of crun that engines set.

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;

use serde_json::{Value, json};
use spec_tests::{Case, Outcome, differs};

#[test]
fn the_output_of_hooks_goes_to_files() {
    let case = Case::new();
    differs!(case, ["runc"], "an annotation of crun's");
    let (out, err) = (case.dir().join("hooks.out"), case.dir().join("hooks.err"));
    let hook = |kind: &str| {
        json!({
            "path": "/bin/sh", "env": ["PATH=/bin:/usr/bin"],
            "args": ["sh", "-c", format!("cat >/dev/null; echo {kind}; echo {kind} complains >&2")],
        })
    };
    let kinds = ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let mut bundle = case
        .bundle()
        .set("/annotations", json!({ "run.oci.hooks.stdout": out, "run.oci.hooks.stderr": err }));
    for kind in kinds {
        bundle = bundle.push(&format!("/hooks/{kind}"), hook(kind));
    }
    case.full_life(&bundle);
    let lines = |path| fs::read_to_string(path).expect("the hooks' output");
    let mut said: Vec<_> = lines(&out).lines().map(str::to_owned).collect();
    said.sort();
    let mut expected = kinds.map(str::to_owned);
    expected.sort();
    assert_eq!(said, expected);
    assert_eq!(lines(&err).lines().count(), kinds.len(), "{}", lines(&err));
}

#[test]
fn a_file_for_hooks_that_cannot_be_opened_is_named() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "an annotation of crun's, in other words");
    let bundle = case
        .bundle()
        .set("/annotations", json!({ "run.oci.hooks.stdout": "/no/such/directory/file" }));
    case.run(&bundle).fails_with("run.oci.hooks.stdout").fails_with("/no/such/directory");
    case.assert_gone(&bundle);
}

/// Runs the bundle's container by a caller that is in group 4242.
fn run_with_group(case: &Case, bundle: &spec_tests::Bundle) -> Outcome {
    bundle.write();
    let mut command = case.command();
    command.arg("run").arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    let mut with_group = std::process::Command::new("setpriv");
    with_group.args(["--groups", "4242"]).arg(command.get_program()).args(command.get_args());
    with_group.process_group(0);
    case.outcome(with_group)
}

#[test]
fn the_callers_groups_are_kept_on_demand() {
    let case = Case::new();
    differs!(case, ["runc"], "an annotation of crun's");
    let groups = |annotations: Value| {
        let bundle = case
            .bundle()
            .set("/annotations", annotations)
            .set("/process/user", json!({ "uid": 1000, "gid": 1000, "additionalGids": [30] }))
            .args(["cat", "/proc/self/status"]);
        run_with_group(&case, &bundle).quiet_success().field("Groups").to_owned()
    };
    assert_eq!(groups(json!({ "run.oci.keep_original_groups": "1" })), "4242");
    assert_eq!(groups(json!({})), "30");
}

#[test]
fn a_pidfd_is_sent_to_its_receiver() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "an annotation of crun 1.20's");
    let path = case.dir().join("receiver");
    let listener = UnixListener::bind(&path).expect("bind the socket");
    let bundle = case
        .bundle()
        .set("/annotations", json!({ "run.oci.pidfd_receiver": path }))
        .args(["sleep", "100"]);
    case.create(&bundle).quiet_success();
    // It has connected by now, or never will.
    listener.set_nonblocking(true).expect("do not wait");
    let (mut stream, _) = listener.accept().expect("the runtime has connected");
    let mut data = Vec::new();
    stream.read_to_end(&mut data).expect("read the message");
    assert!(!data.is_empty());
    let bundle =
        case.bundle().set("/annotations", json!({ "run.oci.pidfd_receiver": "/no/such/socket" }));
    case.run(&bundle).fails_with("run.oci.pidfd_receiver").fails_with("/no/such/socket");
    case.assert_gone(&bundle);
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "crun's own, and runc knows none of them");
    for (name, value) in [
        ("run.oci.handler", "krun"),
        ("run.oci.handler", "wasm"),
        ("run.oci.mount_context_type", "nonsense"),
        ("run.oci.hooks.stderr", "not/absolute"),
        ("run.oci.keep_original_groups", "perhaps"),
    ] {
        let bundle = case.bundle().set("/annotations", json!({ name: value }));
        case.run(&bundle).fails_with(name).fails_with(value);
        case.assert_gone(&bundle);
    }
}

#[test]
fn features_lists_those_that_reach_the_host() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "theirs are others");
    let features = case.runtime(["features"]).quiet_success().json();
    let list = features["potentiallyUnsafeConfigAnnotations"].as_array().expect("a list").clone();
    for name in ["run.oci.hooks.stdout", "run.oci.hooks.stderr", "run.oci.pidfd_receiver"] {
        assert!(list.contains(&json!(name)), "{name}: {list:?}");
    }
}

#[test]
fn the_mount_label_goes_by_the_option_that_is_asked_for() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "others have no plan");
    let bundle = case
        .bundle()
        .set("/linux/mountLabel", "system_u:object_r:container_file_t:s0")
        .set("/annotations", json!({ "run.oci.mount_context_type": "rootcontext" }));
    bundle.write();
    let dir = bundle.dir.to_str().expect("UTF-8");
    case.runtime(["plan", "--format", "json", dir]).quiet_success().prints_part("\"rootcontext\"");
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        case.run(&bundle).fails_with("linux.mountLabel").fails_with("SELinux is not enabled");
        case.assert_gone(&bundle);
    }
}
