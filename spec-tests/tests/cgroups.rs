//! Control groups (config-linux.md#control-groups): limits read back from the host's files.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use spec_tests::{Bundle, Case, cgroup, differs, skip};

fn sleeper(case: &Case) -> Bundle {
    case.bundle().args(["sleep", "100"])
}

/// Ends the test when the host cannot limit the resource.
macro_rules! needs {
    ($controller:literal) => {
        if !cgroup::has_controller($controller) {
            skip!("no {} controller on this host", $controller);
        }
    };
}

#[test]
fn the_cgroup_path_is_the_configured_one() {
    let case = Case::new();
    let bundle = sleeper(&case);
    case.start(&bundle);
    let path = case.cgroups_path(&bundle.id);
    let table = fs::read_to_string(format!("/proc/{}/cgroup", case.pid(&bundle)));
    let table = table.expect("the init runs");
    let mut seen = 0;
    for line in table.lines() {
        let (_, name, have) = split(line);
        if cgroup::layout() == cgroup::Layout::V1 && name.is_empty() && !cgroup::is_hybrid() {
            continue; // the v2 tree is not mounted: no runtime can place anything there
        }
        if cgroup::layout() == cgroup::Layout::V2 && !name.is_empty() {
            continue; // a v1 hierarchy that is not mounted here
        }
        assert!(have.starts_with(&path), "{line}");
        seen += 1;
    }
    assert!(seen > 0, "{table}");
}

fn split(line: &str) -> (&str, &str, &str) {
    let mut parts = line.splitn(3, ':');
    let mut next = || parts.next().expect("three fields");
    (next(), next(), next())
}

#[test]
fn init_is_in_its_cgroup_when_create_returns() {
    let case = Case::new();
    let bundle = sleeper(&case);
    case.create(&bundle).quiet_success();
    let pid = case.pid(&bundle);
    for controller in ["pids", "memory", "freezer"] {
        if cgroup::layout() == cgroup::Layout::V1 && !cgroup::has_controller(controller) {
            continue; // a hierarchy that this host does not have
        }
        let procs = fs::read_to_string(cgroup::dir_of(pid, controller).join("cgroup.procs"));
        let procs = procs.expect("read cgroup.procs");
        assert!(procs.lines().any(|line| line == pid.to_string()), "{controller}: {procs}");
    }
}

#[test]
fn without_a_path_the_cgroup_is_named_after_the_container() {
    let case = Case::new();
    let bundle = sleeper(&case).set("/linux/cgroupsPath", json!(null));
    case.start(&bundle);
    let dir = cgroup::dir_of(case.pid(&bundle), "pids");
    assert!(dir.to_str().expect("UTF-8").contains(&bundle.id), "{dir:?}");
    case.runtime(["delete", "--force", &bundle.id]).success();
    assert!(!dir.exists(), "{dir:?} is left");
}

#[test]
fn cgroups_are_removed_with_the_container() {
    let case = Case::new();
    let bundle = sleeper(&case);
    case.start(&bundle);
    let dirs: Vec<PathBuf> = cgroup::roots()
        .into_iter()
        .map(|root| root.join(case.cgroups_path(&bundle.id).trim_start_matches('/')))
        .filter(|dir| dir.exists())
        .collect();
    assert!(!dirs.is_empty());
    case.runtime(["kill", &bundle.id, "KILL"]).quiet_success();
    case.wait_stopped(&bundle);
    case.runtime(["delete", &bundle.id]).quiet_success();
    for dir in dirs {
        assert!(!dir.exists(), "{dir:?} is left");
    }
}

#[test]
fn the_memory_limit_is_set() {
    let case = Case::new();
    needs!("memory");
    let memory = json!({ "limit": 67108864, "reservation": 33554432 });
    let bundle = sleeper(&case).set("/linux/resources/memory", memory);
    case.start(&bundle);
    let pid = case.pid(&bundle);
    let read = |v1: &str, v2: &str| cgroup::read(pid, "memory", v1, v2);
    assert_eq!(read("memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(read("memory.soft_limit_in_bytes", "memory.low"), "33554432");
}

#[test]
fn a_container_beyond_its_memory_is_killed() {
    let case = Case::new();
    needs!("memory");
    let bundle = case
        .bundle()
        .set("/linux/resources/memory", json!({ "limit": 16777216, "swap": 16777216 }))
        .sh("dd if=/dev/zero of=/dev/shm/x bs=1M count=40; echo survived");
    let bundle = bundle.set("/mounts/3/options/4", "size=100m");
    let outcome = case.run(&bundle);
    // The shell or its child is killed: in either case dd did not write all.
    assert!(!outcome.stderr.contains("40+0 records out"), "{outcome}");
    case.assert_gone(&bundle);
}

#[test]
fn the_cpu_limits_are_set() {
    let case = Case::new();
    needs!("cpu");
    let cpu = json!({ "shares": 512, "quota": 50000, "period": 100000 });
    let bundle = sleeper(&case).set("/linux/resources/cpu", cpu);
    case.start(&bundle);
    let pid = case.pid(&bundle);
    if cgroup::layout() == cgroup::Layout::V2 {
        assert_eq!(cgroup::read(pid, "cpu", "", "cpu.max"), "50000 100000");
        let weight: u64 = cgroup::read(pid, "cpu", "", "cpu.weight").parse().expect("a number");
        // Two conversions are in use: 1 + (512 - 2) * 9999 / 262142 = 20, and the newer one's 59.
        assert!([20, 59].contains(&weight), "weight {weight}");
        return;
    }
    assert_eq!(cgroup::read(pid, "cpu", "cpu.shares", ""), "512");
    assert_eq!(cgroup::read(pid, "cpu", "cpu.cfs_quota_us", ""), "50000");
    assert_eq!(cgroup::read(pid, "cpu", "cpu.cfs_period_us", ""), "100000");
}

#[test]
fn the_cpuset_is_set() {
    let case = Case::new();
    needs!("cpuset");
    let cpu = json!({ "cpus": "0", "mems": "0" });
    let bundle = case.bundle().set("/linux/resources/cpu", cpu).args(["nproc"]);
    case.run(&bundle).quiet_success().prints("1");
}

#[test]
fn the_pids_limit_is_set() {
    let case = Case::new();
    needs!("pids");
    let bundle = sleeper(&case).set("/linux/resources/pids", json!({ "limit": 20 }));
    case.start(&bundle);
    assert_eq!(cgroup::read(case.pid(&bundle), "pids", "pids.max", "pids.max"), "20");
}

#[test]
fn a_container_beyond_its_pids_cannot_fork() {
    let case = Case::new();
    needs!("pids");
    let bundle = case
        .bundle()
        .set("/linux/resources/pids", json!({ "limit": 8 }))
        .sh("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; echo all-forked");
    let outcome = case.run(&bundle);
    assert!(outcome.stderr.contains("can't fork"), "{outcome}");
}

#[test]
fn a_pids_limit_of_minus_one_is_unlimited() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 writes -1 into pids.max of v1");
    needs!("pids");
    let bundle = sleeper(&case).set("/linux/resources/pids", json!({ "limit": -1 }));
    case.start(&bundle);
    assert_eq!(cgroup::read(case.pid(&bundle), "pids", "pids.max", "pids.max"), "max");
}

#[test]
fn a_limit_that_the_kernel_refuses_is_an_error() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 leaves the cgroups of a failed create");
    needs!("cpu");
    let bundle = sleeper(&case).set("/linux/resources/cpu", json!({ "quota": 10, "period": 10 }));
    let outcome = case.create(&bundle);
    assert_ne!(outcome.code(), 0, "{outcome}");
    assert!(outcome.stderr.contains("cpu"), "{outcome}");
    case.assert_gone(&bundle);
}

#[test]
fn unified_values_are_written_on_v2() {
    let case = Case::new();
    if cgroup::layout() != cgroup::Layout::V2 {
        skip!("the host has v1 controllers");
    }
    needs!("pids");
    let bundle = sleeper(&case).set("/linux/resources/unified", json!({ "pids.max": "33" }));
    case.start(&bundle);
    assert_eq!(cgroup::read(case.pid(&bundle), "pids", "", "pids.max"), "33");
}
