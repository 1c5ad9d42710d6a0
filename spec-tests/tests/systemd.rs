//! Control groups that systemd makes (`--systemd-cgroup`): scopes on the system's bus.
//!
//! Those tests that need a systemd are skipped where none runs, and run in the virtual machine.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::json;
use spec_tests::{Bundle, Case, Outcome, cgroup, differs, skip, wait_until};

/// Ends the test where no systemd runs as the system's.
macro_rules! systemd {
    () => {
        if !Path::new("/run/systemd/system").exists()
            || !Path::new("/run/dbus/system_bus_socket").exists()
        {
            skip!("systemd is not this system's init, or has no bus");
        }
    };
}

/// A container whose scope is `davit-ID.scope` in `davit-test.slice`.
fn scoped(case: &Case) -> Bundle {
    let bundle = case.bundle().args(["sleep", "100"]);
    let path = format!("davit-test.slice:davit:{}", bundle.id);
    bundle.set("/linux/cgroupsPath", path)
}

fn scope(bundle: &Bundle) -> String {
    format!("davit-{}.scope", bundle.id)
}

/// `VERB FLAGS…` with systemd as the driver.
#[track_caller]
fn driven(case: &Case, bundle: &Bundle, verb: &str) -> Outcome {
    bundle.write();
    let mut command = case.command();
    command.arg("--systemd-cgroup").arg(verb).arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    case.outcome(command)
}

#[track_caller]
fn start(case: &Case, bundle: &Bundle) {
    driven(case, bundle, "create").quiet_success();
    case.runtime(["start", &bundle.id]).quiet_success();
}

/// A property of the container's scope, as systemd has it.
fn property(case: &Case, bundle: &Bundle, name: &str) -> String {
    let mut command = Command::new("systemctl");
    command.args(["show", "--property", name, "--value", &scope(bundle)]);
    case.outcome(command).success().stdout.trim().to_owned()
}

#[test]
fn the_container_lives_in_a_scope_of_its_slice() {
    systemd!();
    let case = Case::new();
    let bundle = scoped(&case);
    driven(&case, &bundle, "create").quiet_success();
    // Already when create returns.
    let table = fs::read_to_string(format!("/proc/{}/cgroup", case.pid(&bundle))).expect("read");
    let inside = format!("/davit.slice/davit-test.slice/{}", scope(&bundle));
    assert!(table.lines().any(|line| line.ends_with(&inside)), "{table}");
    assert_eq!(property(&case, &bundle, "ActiveState"), "active");
    assert_eq!(property(&case, &bundle, "Slice"), "davit-test.slice");
    assert_eq!(property(&case, &bundle, "Delegate"), "yes");
}

#[test]
fn later_verbs_find_the_driver_in_the_state() {
    systemd!();
    let case = Case::new();
    let bundle = scoped(&case);
    start(&case, &bundle);
    // None of these says --systemd-cgroup.
    case.exec(&bundle, [], ["sh", "-c", "exit 3"]).exits(3);
    case.runtime(["pause", &bundle.id]).quiet_success();
    assert_eq!(case.status(&bundle), "paused");
    case.runtime(["resume", &bundle.id]).quiet_success();
    case.runtime(["ps", "--format", "json", &bundle.id]).quiet_success();
    case.runtime(["kill", &bundle.id, "KILL"]).quiet_success();
    case.wait_stopped(&bundle);
    case.runtime(["delete", &bundle.id]).quiet_success();
    assert_eq!(property(&case, &bundle, "LoadState"), "not-found");
    case.assert_gone(&bundle);
}

#[test]
fn delete_by_force_ends_the_scope_and_what_runs_in_it() {
    systemd!();
    let case = Case::new();
    // Without a pid namespace the second process outlives the first.
    let bundle = scoped(&case).without_namespace("pid").sh("sleep 1000 & exec sleep 1000");
    start(&case, &bundle);
    case.runtime(["delete", "--force", &bundle.id]).quiet_success();
    assert_eq!(property(&case, &bundle, "LoadState"), "not-found");
    case.assert_gone(&bundle);
}

#[test]
fn run_returns_the_code_and_leaves_no_scope() {
    systemd!();
    let case = Case::new();
    let bundle = scoped(&case).sh("exit 7");
    driven(&case, &bundle, "run").exits(7);
    assert_eq!(property(&case, &bundle, "LoadState"), "not-found");
    case.assert_gone(&bundle);
}

#[test]
fn limits_are_properties_and_files() {
    systemd!();
    if !cgroup::has_controller("memory") || cgroup::layout() == cgroup::Layout::V1 {
        skip!("no memory controller on cgroup v2");
    }
    let case = Case::new();
    let bundle = scoped(&case)
        .set("/linux/resources/memory", json!({ "limit": 67_108_864, "swap": 100_663_296 }))
        .set("/linux/resources/pids", json!({ "limit": 50 }))
        .set("/linux/resources/cpu", json!({ "shares": 1024, "quota": 50000, "period": 100000 }));
    start(&case, &bundle);
    for (name, value) in [
        ("MemoryMax", "67108864"),
        ("MemorySwapMax", "33554432"),
        ("TasksMax", "50"),
        ("CPUWeight", "100"),
        ("CPUQuotaPerSecUSec", "500ms"),
    ] {
        assert_eq!(property(&case, &bundle, name), value, "{name}");
    }
    let pid = case.pid(&bundle);
    for (file, value) in
        [("memory.max", "67108864"), ("pids.max", "50"), ("cpu.max", "50000 100000")]
    {
        assert_eq!(cgroup::read(pid, "", file, file), value, "{file}");
    }
    // A reload writes the files anew, from what systemd knows.
    let mut reload = Command::new("systemctl");
    reload.arg("daemon-reload");
    case.outcome(reload).success();
    assert_eq!(cgroup::read(pid, "", "memory.max", "memory.max"), "67108864");
    assert_eq!(cgroup::read(pid, "", "pids.max", "pids.max"), "50");
}

#[test]
fn an_update_reaches_systemd_and_the_files() {
    systemd!();
    if !cgroup::has_controller("pids") || cgroup::layout() == cgroup::Layout::V1 {
        skip!("no pids controller on cgroup v2");
    }
    let case = Case::new();
    let bundle = scoped(&case).set("/linux/resources/pids", json!({ "limit": 50 }));
    start(&case, &bundle);
    // As CRI-O calls it: the driver is not named again.
    let limits = ["--pids-limit", "60", "--cpu-period", "100000", "--cpu-quota", "33333"];
    let mut command = case.command();
    command.arg("update").args(limits).arg(&bundle.id);
    case.outcome(command).quiet_success();
    assert_eq!(property(&case, &bundle, "TasksMax"), "60");
    assert_eq!(property(&case, &bundle, "CPUQuotaPerSecUSec"), "340ms");
    let pid = case.pid(&bundle);
    assert_eq!(cgroup::read(pid, "", "pids.max", "pids.max"), "60");
    // Exactly what was asked for, where systemd rounds.
    assert_eq!(cgroup::read(pid, "", "cpu.max", "cpu.max"), "33333 100000");
}

#[test]
fn device_rules_are_systemds_and_ours() {
    systemd!();
    let case = Case::new();
    let script = "mknod /tmp/sda b 8 0; cat /tmp/sda; echo x > /dev/null && echo null";
    let bundle = scoped(&case)
        .mount("/tmp", "tmpfs", "tmpfs", &["dev"])
        .capabilities(&["CAP_MKNOD"])
        .set("/linux/resources/devices", json!([{ "allow": false, "access": "rwm" }]))
        .sh(&format!("{script}; sleep 100"));
    driven(&case, &bundle, "create").quiet_success();
    assert_eq!(property(&case, &bundle, "DevicePolicy"), "strict");
    let allowed = property(&case, &bundle, "DeviceAllow");
    assert!(allowed.contains("/dev/char/1:3 rwm") && allowed.contains("char-136 rwm"), "{allowed}");
    assert!(!allowed.contains("8:0"), "{allowed}");
    let second = scoped(&case)
        .mount("/tmp", "tmpfs", "tmpfs", &["dev"])
        .capabilities(&["CAP_MKNOD"])
        .set("/linux/resources/devices", json!([{ "allow": false, "access": "rwm" }]))
        .sh(script);
    let outcome = driven(&case, &second, "run");
    outcome.prints("null");
    assert!(outcome.stderr.contains("Operation not permitted"), "{outcome}");
}

#[test]
fn annotations_are_typed_properties() {
    systemd!();
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 wants seconds where GVariant has text");
    let bundle = scoped(&case).set(
        "/annotations",
        json!({
            "org.systemd.property.TimeoutStopUSec": "uint64 7000000",
            "org.systemd.property.CollectMode": "'inactive'",
            "org.systemd.property.Description": "'a container of the tests'",
        }),
    );
    start(&case, &bundle);
    assert_eq!(property(&case, &bundle, "TimeoutStopUSec"), "7s");
    assert_eq!(property(&case, &bundle, "CollectMode"), "inactive");
    assert_eq!(property(&case, &bundle, "Description"), "a container of the tests");
}

#[test]
fn a_property_that_no_unit_has_is_named() {
    systemd!();
    let case = Case::new();
    let bundle =
        scoped(&case).set("/annotations", json!({ "org.systemd.property.NoSuchThing": "true" }));
    driven(&case, &bundle, "create").fails_with("NoSuchThing");
    case.assert_gone(&bundle);
}

#[test]
fn a_name_that_is_taken_is_an_error() {
    systemd!();
    let case = Case::new();
    let first = scoped(&case);
    start(&case, &first);
    let second = case.bundle().args(["sleep", "100"]);
    let path = format!("davit-test.slice:davit:{}", first.id);
    let second = second.set("/linux/cgroupsPath", path);
    let outcome = driven(&case, &second, "create");
    outcome.fails_with(&scope(&first));
    case.assert_gone(&second);
    assert_eq!(case.status(&first), "running", "{outcome}");
    assert_eq!(property(&case, &first, "ActiveState"), "active");
}

#[test]
fn subgroups_are_made_below_the_scope() {
    systemd!();
    if cgroup::layout() == cgroup::Layout::V1 {
        skip!("delegation is safe on cgroup v2 only");
    }
    let case = Case::new();
    differs!(case, ["runc"], "runc does not know the annotations");
    let bundle = scoped(&case).namespace("cgroup", None).set(
        "/annotations",
        json!({ "run.oci.systemd.subgroup": "limits", "run.oci.delegate-cgroup": "own" }),
    );
    let counted = cgroup::has_controller("pids");
    let limits = if counted { json!({ "limit": 40 }) } else { json!({ "limit": 0 }) };
    let bundle = bundle.set("/linux/resources/pids", limits);
    start(&case, &bundle);
    let group = cgroup::dir_of(case.pid(&bundle), "");
    assert!(group.ends_with(format!("{}/limits/own", scope(&bundle))), "{}", group.display());
    let above = group.parent().expect("a directory above");
    let limit = |dir: &Path| fs::read_to_string(dir.join("pids.max")).unwrap_or_default();
    if counted {
        assert_eq!(limit(above).trim(), "40");
    }
    let namespace = case.exec(&bundle, [], ["cat", "/proc/1/cgroup"]);
    namespace.quiet_success().prints_part("/own");
    case.runtime(["delete", "--force", &bundle.id]).quiet_success();
    case.assert_gone(&bundle);
}

#[test]
fn a_dead_creator_leaves_what_delete_can_end() {
    systemd!();
    let case = Case::new();
    differs!(case, ["runc", "crun"], "it is our own state that is looked at");
    let bundle = scoped(&case).push(
        "/hooks/createRuntime",
        json!({ "path": "/bin/sh", "args": ["sh", "-c", "kill -KILL $PPID; sleep 1"] }),
    );
    driven(&case, &bundle, "create").exits(137);
    case.runtime(["delete", "--force", &bundle.id]).quiet_success();
    assert!(wait_until(|| property(&case, &bundle, "LoadState") == "not-found"));
    case.assert_gone(&bundle);
}

/// Answers that need no systemd.
#[test]
fn a_path_of_another_form_is_refused() {
    let case = Case::new();
    differs!(case, ["crun"], "crun takes any path");
    for (path, word) in [("/a/b", "slice:prefix:name"), ("a.slice:b", "slice:prefix:name")] {
        let bundle = case.bundle().set("/linux/cgroupsPath", path);
        driven(&case, &bundle, "create").fails_with(word);
        case.assert_gone(&bundle);
    }
    differs!(case, ["runc"], "runc says so once a scope is asked for");
    let bundle = case.bundle().set("/linux/cgroupsPath", "a--b.slice:c:d");
    driven(&case, &bundle, "create").fails_with("a--b.slice");
    let bundle = scoped(&case)
        .set("/annotations", json!({ "run.oci.systemd.force_cgroup_v1": "/sys/fs/cgroup" }));
    driven(&case, &bundle, "create").fails_with("run.oci.systemd.force_cgroup_v1");
    case.assert_gone(&bundle);
}

#[test]
fn a_bus_that_is_not_there_is_named() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "they look for the bus elsewhere");
    let bundle = scoped(&case);
    bundle.write();
    let mut command = case.command();
    let nowhere = format!("unix:path={}/no-bus", case.dir().display());
    command.env("DBUS_SYSTEM_BUS_ADDRESS", &nowhere).args(["--systemd-cgroup", "create"]);
    command.arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    case.outcome(command).exits(1).fails_with(&nowhere);
    case.assert_gone(&bundle);
}

#[test]
fn a_bus_that_does_not_answer_is_waited_for_no_longer_than_said() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "they wait without end (runc#3904)");
    let bundle = scoped(&case);
    bundle.write();
    let path = case.dir().join("silent-bus");
    // It takes connections (the kernel does that for it), and never says a word.
    let listener = UnixListener::bind(&path).expect("listen");
    let mut command = case.command();
    command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", path.display()));
    command.args(["--systemd-cgroup", "create", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
    let begin = Instant::now();
    let outcome = case.outcome(command);
    outcome.exits(1).fails_with("Hello: no answer from the system bus").fails_with("within 25s");
    assert!(begin.elapsed().as_secs() < 40, "{outcome}");
    drop(listener);
    case.assert_gone(&bundle);
}
