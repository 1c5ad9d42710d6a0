//! Attacks on what a runtime writes to /proc: labels, kernel parameters, id maps, scores
//! (CVE-2019-16884, CVE-2025-52881), and how it fares where a procfs of its own is forbidden.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use spec_tests::{Bundle, Case, Outcome, find, runtime, skip};

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

/// A container in which the runtime itself can run: every capability, and the test's directory at
/// its own place.
fn outer(case: &Case) -> Bundle {
    let dir = case.dir().to_str().expect("UTF-8");
    let names = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_ADMIN",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_ADMIN",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_RESOURCE",
    ];
    let names = names.map(|name| format!("CAP_{name}"));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let program = runtime().to_str().expect("UTF-8");
    case.bundle()
        .writable()
        .set("/process/noNewPrivileges", false)
        .capabilities(&names)
        .mount(dir, "bind", dir, &["rbind", "rw"])
        .mount("/bin/inner-runtime", "bind", program, &["bind", "ro"])
}

/// A container as an engine asks for it that knows that it is in one: the /proc that is there.
fn inner(case: &Case) -> Bundle {
    let mut bundle = case.bundle().without_namespace("pid").without_namespace("ipc");
    bundle.config["mounts"] = json!([
        { "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind", "rw"] },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] },
    ]);
    let linux = bundle.config["linux"].as_object_mut().expect("an object");
    for key in ["maskedPaths", "readonlyPaths", "resources", "cgroupsPath"] {
        linux.remove(key);
    }
    let process = bundle.config["process"].as_object_mut().expect("an object");
    process.remove("rlimits");
    bundle
}

/// `VERB` of the runtime inside, after `prepare`, in a user namespace of the outer container: what
/// hides parts of /proc cannot be taken away there, and a fresh procfs would show them.
fn nested(case: &Case, outer: Bundle, inner: &Bundle, prepare: &str, verb: &str) -> Outcome {
    inner.write();
    let (root, dir) = (case.dir().join("inner-root"), inner.dir.display().to_string());
    let id =
        if verb == "plan" { format!("{dir} ") } else { format!("--bundle {dir} {}", inner.id) };
    let script = format!(
        "exec busybox unshare -U -r -m sh -c '{prepare} exec inner-runtime --root {} --cgroup-manager=disabled --debug {verb} {id}'",
        root.display()
    );
    case.run(&outer.sh(&script))
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
