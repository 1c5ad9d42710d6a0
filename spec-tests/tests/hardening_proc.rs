//! Attacks on what a runtime writes to /proc: labels, kernel parameters, id maps, scores
//! (CVE-2019-16884, CVE-2025-52881), and how it fares where a procfs of its own is forbidden.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use spec_tests::nested::{inner, nested, outer};
use spec_tests::{Bundle, Case, find, skip};

const FORWARD: &str = "proc/sys/net/ipv4/ip_forward";

/// A container whose /proc is a directory of the image, with files of the names that are written to.
fn forger(case: &Case) -> Bundle {
    let mut bundle = case
        .bundle()
        .writable()
        .file(FORWARD, "forged")
        .file("proc/self/attr/exec", "forged")
        .file("proc/thread-self/attr/exec", "forged")
        .file("proc/thread-self/attr/apparmor/exec", "forged")
        .args(["sleep", "100"]);
    let mounts = bundle.config["mounts"].as_array_mut().expect("an array");
    mounts.retain(|mount| mount["destination"] != "/proc");
    bundle.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]))
}

#[test]
fn cve_2025_52881_a_kernel_parameter_goes_into_no_forged_proc() {
    let case = Case::new();
    if case.runtime_is("runc") {
        skip!("runc 1.1 makes no container without a procfs: there is no forger");
    }
    let forger = forger(&case);
    case.start(&forger);
    let mounts = format!("/proc/{}/ns/mnt", case.pid(&forger));
    let victim = case
        .bundle()
        .namespace("mount", Some(Path::new(&mounts)))
        .set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }))
        .args(["sleep", "100"]);
    // Whether it is made or refused: what is written must not be the attacker's.
    let created = case.create(&victim);
    let forged = fs::read_to_string(forger.rootfs().join(FORWARD)).expect("read");
    assert_eq!(forged, "forged", "the parameter went into the image's own file");
    if created.code() != 0 {
        return;
    }
    let Some(nsenter) = find("nsenter") else { skip!("nsenter is not installed") };
    let mut look = Command::new(nsenter);
    look.arg(format!("--net=/proc/{}/ns/net", case.pid(&victim))).args(["cat", "/"]);
    look.args([&format!("/{FORWARD}")]);
    let outcome = case.outcome(look);
    assert_eq!(outcome.stdout.trim(), "1", "and it was not set: {outcome}");
}

#[test]
fn cve_2019_16884_a_label_goes_into_no_forged_proc() {
    let case = Case::new();
    let enabled = fs::read("/sys/module/apparmor/parameters/enabled");
    if !enabled.is_ok_and(|text| text.starts_with(b"Y")) {
        skip!("AppArmor is not enabled on this host");
    }
    let forger = forger(&case);
    case.start(&forger);
    let mounts = format!("/proc/{}/ns/mnt", case.pid(&forger));
    let victim = case
        .bundle()
        .namespace("mount", Some(Path::new(&mounts)))
        .set("/process/apparmorProfile", "unconfined")
        .args(["sleep", "100"]);
    case.create(&victim);
    for name in ["self/attr/exec", "thread-self/attr/exec", "thread-self/attr/apparmor/exec"] {
        let path = forger.rootfs().join("proc").join(name);
        assert_eq!(fs::read_to_string(path).expect("read"), "forged", "{name}");
    }
}

#[test]
fn where_a_procfs_of_its_own_is_forbidden_the_one_that_is_there_is_verified() {
    let case = Case::new();
    if case.runtime_is("runc") || case.runtime_is("crun") {
        skip!("what they do instead is not told");
    }
    let inner =
        inner(&case).set("/process/oomScoreAdj", 500).args(["cat", "/proc/self/oom_score_adj"]);
    let outcome = nested(&case, outer(&case), &inner, "", "run");
    outcome.success().prints("500");
    assert!(outcome.stderr.contains("the procfs at /proc, verified"), "{outcome}");
    let outcome = nested(&case, outer(&case), &inner, "", "plan");
    outcome.success();
    let line = outcome.stdout.lines().find(|line| line.starts_with("fallback"));
    assert!(line.is_some_and(|line| line.contains("procfs")), "{outcome}");
}

#[test]
fn what_is_mounted_over_a_verified_proc_is_not_written_to() {
    let case = Case::new();
    if case.runtime_is("runc") || case.runtime_is("crun") {
        skip!("they cannot run like this");
    }
    let outer = outer(&case)
        .set("/linux/readonlyPaths", json!([]))
        .file("/tmp/sys/net/ipv4/ip_forward", "forged");
    let forged = outer.rootfs().join("tmp/sys/net/ipv4/ip_forward");
    let inner = inner(&case).set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    let prepare = "mount -o bind /tmp/sys /proc/sys && ";
    let outcome = nested(&case, outer, &inner.args(["true"]), prepare, "run");
    assert_eq!(fs::read_to_string(forged).expect("read"), "forged", "{outcome}");
    outcome.fails_with("something is mounted over a part of /proc");
}
