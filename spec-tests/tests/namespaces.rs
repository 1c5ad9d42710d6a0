//! Namespaces (config-linux.md#namespaces), new, shared or joined by path.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use spec_tests::{Bundle, Case, differs, skip, user_namespace};

/// The configuration's word for a namespace, and the file under /proc/PID/ns.
const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
];

fn ours(file: &str) -> PathBuf {
    fs::read_link(format!("/proc/self/ns/{file}")).expect("read a namespace of the host")
}

fn of(pid: u32, file: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{file}")).expect("read a namespace of the container")
}

fn sleeper(case: &Case) -> Bundle {
    case.bundle().args(["sleep", "100"])
}

#[test]
fn each_namespace_asked_for_is_new() {
    let case = Case::new();
    let bundle = sleeper(&case).namespace("cgroup", None);
    case.start(&bundle);
    let pid = case.pid(&bundle);
    for (_, file) in KINDS {
        assert_ne!(of(pid, file), ours(file), "{file}");
    }
}

#[test]
fn a_namespace_not_asked_for_is_the_hosts() {
    let case = Case::new();
    for (kind, file) in KINDS {
        if kind == "mount" {
            continue; // nor is its root then: shared_mounts.rs
        }
        let mut bundle = sleeper(&case).without_namespace(kind);
        if kind == "network" {
            // sysfs belongs to a network namespace; the host's may be mounted by its owner only.
            bundle = bundle.without_namespace("network");
        }
        if kind == "uts" {
            bundle = bundle.set("/hostname", json!(null));
        }
        case.start(&bundle);
        assert_eq!(of(case.pid(&bundle), file), ours(file), "{kind}");
        case.runtime(["delete", "--force", &bundle.id]).success();
    }
}

#[test]
fn init_is_process_1_of_its_pid_namespace() {
    let case = Case::new();
    let bundle = case.bundle().sh("echo $$");
    case.run(&bundle).quiet_success().prints("1");
}

#[test]
fn namespaces_are_joined_by_path() {
    let case = Case::new();
    let first = sleeper(&case).namespace("cgroup", None);
    case.start(&first);
    let pid = case.pid(&first);
    for (kind, file) in KINDS {
        if kind == "mount" {
            continue; // where no place is for its root: shared_mounts.rs, and all eight below
        }
        let path = format!("/proc/{pid}/ns/{file}");
        let mut bundle = sleeper(&case).namespace(kind, Some(Path::new(&path)));
        if kind == "uts" {
            bundle = bundle.set("/hostname", json!(null));
        }
        case.start(&bundle);
        assert_eq!(of(case.pid(&bundle), file), of(pid, file), "{kind}");
        case.runtime(["delete", "--force", &bundle.id]).success();
    }
}

#[test]
fn a_joined_pid_namespace_shows_the_others() {
    let case = Case::new();
    let first = sleeper(&case);
    case.start(&first);
    let path = format!("/proc/{}/ns/pid", case.pid(&first));
    let bundle = case.bundle().namespace("pid", Some(Path::new(&path))).args(["ps", "-o", "args"]);
    case.run(&bundle).quiet_success().prints_part("sleep 100");
}

#[test]
fn a_joined_namespace_of_the_wrong_kind_is_refused() {
    let case = Case::new();
    let bundle = sleeper(&case).namespace("network", Some(Path::new("/proc/self/ns/uts")));
    let outcome = case.create(&bundle);
    assert_ne!(outcome.code(), 0, "{outcome}");
    case.assert_gone(&bundle);
}

#[test]
fn a_new_network_namespace_has_loopback_up() {
    let case = Case::new();
    let bundle = case.bundle().sh("ip -o link; ip -o addr show lo");
    let outcome = case.run(&bundle);
    let links = outcome.quiet_success().stdout.lines().filter(|line| line.contains("link/"));
    assert_eq!(links.count(), 1, "{outcome}");
    outcome.prints_part("127.0.0.1/8");
}

#[test]
fn a_cgroup_namespace_hides_the_path() {
    let case = Case::new();
    let bundle = case.bundle().namespace("cgroup", None).args(["cat", "/proc/self/cgroup"]);
    let outcome = case.run(&bundle);
    for line in outcome.quiet_success().stdout.lines() {
        assert!(line.ends_with(":/"), "the cgroup namespace is rooted elsewhere: {outcome}");
    }
}

#[test]
fn a_time_namespace_has_its_offsets() {
    let case = Case::new();
    if (case.runtime_is("runc") || case.runtime_is("crun"))
        && !case.runtime(["features"]).stdout.contains("\"time\"")
    {
        skip!("this runtime has no time namespace");
    }
    let features = case.runtime(["features"]);
    if !features.stdout.contains("\"time\"") {
        skip!("features lists no time namespace");
    }
    let bundle = sleeper(&case)
        .namespace("time", None)
        .set("/linux/timeOffsets", json!({ "boottime": { "secs": 100_000_000 } }));
    case.start(&bundle);
    let uptime = case.exec(&bundle, [], ["cut", "-d.", "-f1", "/proc/uptime"]);
    let seconds: u64 = uptime.quiet_success().stdout.trim().parse().expect("seconds");
    assert!(seconds > 100_000_000, "uptime is {seconds}");
}

#[test]
fn a_namespace_listed_twice_is_refused() {
    let case = Case::new();
    if case.runtime_is("runc") || case.runtime_is("crun") {
        skip!("these take the last, against \"MUST generate an error\"");
    }
    let bundle = case.bundle().push("/linux/namespaces", json!({ "type": "uts" }));
    let outcome = case.run(&bundle);
    outcome.fails_with("uts");
    case.assert_gone(&bundle);
}

#[test]
fn both_clocks_of_a_time_namespace_have_their_offsets() {
    let case = Case::new();
    if !case.runtime(["features"]).stdout.contains("\"time\"") {
        skip!("this runtime has no time namespace");
    }
    let bundle = case
        .bundle()
        .namespace("time", None)
        .set(
            "/linux/timeOffsets",
            json!({
                "monotonic": { "secs": 5, "nanosecs": 6 },
                "boottime": { "secs": -7, "nanosecs": 999_999_999 },
            }),
        )
        .args(["cat", "/proc/self/timens_offsets"]);
    let outcome = case.run(&bundle);
    let words: Vec<_> = outcome.quiet_success().stdout.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "5", "6", "boottime", "-7", "999999999"]);
}

#[test]
fn offsets_that_cannot_be_are_refused_by_name() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "other words");
    let with = |offsets: serde_json::Value| {
        sleeper(&case).namespace("time", None).set("/linux/timeOffsets", offsets)
    };
    for (bundle, word) in [
        (with(json!({ "realtime": { "secs": 1 } })), "realtime"),
        (with(json!({ "monotonic": { "nanosecs": 1_000_000_000 } })), "nanosecs"),
        (with(json!({ "monotonic": { "secs": i64::MAX } })), "timeOffsets"),
        (
            sleeper(&case).set("/linux/timeOffsets", json!({ "boottime": { "secs": 1 } })),
            "linux.namespaces",
        ),
    ] {
        case.run(&bundle).fails_with("timeOffsets").fails_with(word);
        case.assert_gone(&bundle);
    }
}

#[test]
fn all_eight_are_joined_together() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc 1.1 and crun 1.8 join no time namespace");
    // The root file system of the second is mounted over its own path in the first's namespace.
    let second = user_namespace::mapped(&case);
    let first = user_namespace::mapped(&case)
        .mount(second.rootfs().to_str().expect("UTF-8"), "tmpfs", "tmpfs", &[])
        .namespace("cgroup", None)
        .namespace("time", None)
        .args(["sleep", "100"]);
    case.start(&first);
    let pid = case.pid(&first);
    let kinds = || KINDS.into_iter().chain([("user", "user"), ("time", "time")]);
    let mut second = second
        .set("/linux/uidMappings", json!(null))
        .set("/linux/gidMappings", json!(null))
        .set("/hostname", json!(null))
        .args(["sleep", "100"]);
    for (kind, file) in kinds() {
        second = second.namespace(kind, Some(Path::new(&format!("/proc/{pid}/ns/{file}"))));
    }
    let second = second.file("/own", "the second's");
    case.start(&second);
    case.exec(&second, [], ["cat", "/own"]).quiet_success().prints("the second's");
    for (kind, file) in kinds() {
        assert_eq!(of(case.pid(&second), file), of(pid, file), "{kind}");
    }
}
