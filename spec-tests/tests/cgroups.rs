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
        let dir = cgroup::dir_of(pid, controller);
        assert!(dir.ends_with(case.cgroups_path(&bundle.id).trim_start_matches('/')), "{dir:?}");
        let procs = fs::read_to_string(dir.join("cgroup.procs")).expect("read cgroup.procs");
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

#[test]
fn exec_follows_the_first_process_below_a_group_that_takes_none() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 fails with EBUSY");
    let Some(top) = cgroup::unified_root() else { skip!("no cgroup v2 tree on this host") };
    let bundle = sleeper(&case);
    case.start(&bundle);
    let group = top.join(case.cgroups_path(&bundle.id).trim_start_matches('/'));
    let Ok(controllers) = fs::read_to_string(group.join("cgroup.controllers")) else {
        skip!("the runtime makes no group on the v2 side");
    };
    let Some(controller) = controllers.split_whitespace().next() else {
        skip!("no controller on the v2 side of this host");
    };
    // As a systemd in the container does it.
    let below = group.join("init.scope");
    fs::create_dir(&below).expect("make a group");
    fs::write(below.join("cgroup.procs"), case.pid(&bundle).to_string()).expect("move the init");
    fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"))
        .expect("hand a controller down");
    let outcome = case.exec(&bundle, [], ["cat", "/proc/self/cgroup"]);
    let line = outcome.quiet_success().stdout.lines().find(|line| line.starts_with("0::"));
    assert!(line.is_some_and(|line| line.ends_with("/init.scope")), "{outcome}");
    case.exec(&bundle, [], ["sh", "-c", "exit 7"]).exits(7);
}

#[test]
fn huge_pages_are_limited_in_use_and_in_reserve() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "they look on one side of a hybrid host alone");
    let limit = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
    let bundle = sleeper(&case).set("/linux/resources/hugepageLimits", limit);
    let created = case.create(&bundle);
    if created.stderr.contains("controller") {
        skip!("no hugetlb controller on this host");
    }
    created.quiet_success();
    let (v1, v2) = ("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max");
    let own = case.cgroups_path(&bundle.id);
    let own = own.trim_start_matches('/');
    let found = cgroup::roots().into_iter().find_map(|root| {
        let dir = root.join(own);
        [(v1, "hugetlb.2MB.rsvd.limit_in_bytes"), (v2, "hugetlb.2MB.rsvd.max")]
            .into_iter()
            .find(|(file, _)| dir.join(file).exists())
            .map(|(used, reserved)| [dir.join(used), dir.join(reserved)])
    });
    for path in found.expect("a group with the limit") {
        let text = fs::read_to_string(&path).expect("read the limit");
        assert_eq!(text.trim(), "4194304", "{path:?}");
    }
}

#[test]
fn what_only_v1_has_is_set_there_and_refused_by_name_elsewhere() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "they ignore on v2 what it lacks");
    needs!("memory");
    let memory = json!({ "swappiness": 13, "disableOOMKiller": true, "limit": 64 << 20 });
    let bundle = sleeper(&case).set("/linux/resources/memory", memory);
    let created = case.create(&bundle);
    if cgroup::layout() == cgroup::Layout::V2 {
        created.fails_with("linux.resources.memory.swappiness");
        case.assert_gone(&bundle);
        let network = json!({ "classID": 7 });
        let bundle = sleeper(&case).set("/linux/resources/network", network);
        case.create(&bundle).fails_with("linux.resources.network.classID");
        return;
    }
    created.quiet_success();
    let pid = case.pid(&bundle);
    assert_eq!(cgroup::read(pid, "memory", "memory.swappiness", ""), "13");
    let control = cgroup::read(pid, "memory", "memory.oom_control", "");
    assert!(control.starts_with("oom_kill_disable 1"), "{control}");
}

#[test]
fn burst_and_idle_are_set() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "both properties are newer");
    needs!("cpu");
    let cpu = json!({ "quota": 50000, "period": 100000, "burst": 30000, "shares": 700, "idle": 1 });
    let bundle = sleeper(&case).set("/linux/resources/cpu", cpu);
    case.start(&bundle);
    let pid = case.pid(&bundle);
    assert_eq!(cgroup::read(pid, "cpu", "cpu.cfs_burst_us", "cpu.max.burst"), "30000");
    assert_eq!(cgroup::read(pid, "cpu", "cpu.idle", "cpu.idle"), "1");
}

#[test]
fn swap_counts_together_with_memory() {
    let case = Case::new();
    needs!("memory");
    let memory = json!({ "limit": 32 << 20, "swap": 48 << 20 });
    let bundle = sleeper(&case).set("/linux/resources/memory", memory);
    case.start(&bundle);
    let swap =
        cgroup::read(case.pid(&bundle), "memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
    let wanted = if cgroup::layout() == cgroup::Layout::V2 { 16 << 20 } else { 48 << 20 };
    assert_eq!(swap, wanted.to_string());
}

#[test]
fn block_io_is_throttled_and_weighed() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 knows blkio.weight alone");
    let v2 = cgroup::layout() == cgroup::Layout::V2;
    if !cgroup::has_controller(if v2 { "io" } else { "blkio" }) {
        skip!("no block I/O controller on this host");
    }
    let Some((major, minor)) = disk() else { skip!("no disk on this host") };
    let throttle = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let io = json!({
        "weight": 300,
        "throttleReadBpsDevice": throttle(1_048_576),
        "throttleWriteIOPSDevice": throttle(120),
    });
    let bundle = sleeper(&case).set("/linux/resources/blockIO", io);
    let created = case.create(&bundle);
    if created.stderr.contains("blockIO.weight") {
        skip!("this kernel has no weights for block I/O");
    }
    created.quiet_success();
    let pid = case.pid(&bundle);
    let device = format!("{major}:{minor}");
    if v2 {
        let max = cgroup::read(pid, "io", "", "io.max");
        assert_eq!(max, format!("{device} rbps=1048576 wbps=max riops=max wiops=120"));
        return;
    }
    let read = |file| cgroup::read(pid, "blkio", file, "");
    assert_eq!(read("blkio.throttle.read_bps_device"), format!("{device} 1048576"));
    assert_eq!(read("blkio.throttle.write_iops_device"), format!("{device} 120"));
    let weights = ["blkio.bfq.weight", "blkio.weight"];
    let dir = cgroup::dir_of(pid, "blkio");
    let weight = weights.into_iter().find(|file| dir.join(file).exists()).expect("a weight");
    assert_eq!(read(weight), "300");
}

/// A disk's number.
fn disk() -> Option<(u64, u64)> {
    let mut disks = fs::read_dir("/sys/block").ok()?.flatten();
    disks.find_map(|disk| {
        let name = disk.file_name().to_string_lossy().into_owned();
        let plain = ["vd", "sd", "nvme"].iter().any(|kind| name.starts_with(kind));
        let text = fs::read_to_string(disk.path().join("dev")).ok().filter(|_| plain)?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

/// `create` of a container that asks for what many hosts lack: made there is nothing then.
#[track_caller]
fn refused_by_name(case: &Case, bundle: &Bundle, property: &str) {
    case.create(bundle).fails_with(&format!("linux.resources.{property}"));
    case.assert_gone(bundle);
}

#[test]
fn the_network_class_and_priorities_are_set_or_refused() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "they ignore what the host lacks, or tell of a file");
    let network = json!({ "classID": 7 });
    let bundle = sleeper(&case).set("/linux/resources/network", network);
    if cgroup::layout() == cgroup::Layout::V1 && cgroup::has_controller("net_cls") {
        case.start(&bundle);
        assert_eq!(cgroup::read(case.pid(&bundle), "net_cls", "net_cls.classid", ""), "7");
    } else {
        refused_by_name(&case, &bundle, "network.classID");
    }
    let network = json!({ "priorities": [{ "name": "lo", "priority": 3 }] });
    let bundle = sleeper(&case).set("/linux/resources/network", network);
    if cgroup::layout() == cgroup::Layout::V1 && cgroup::has_controller("net_prio") {
        case.start(&bundle);
        let map = cgroup::read(case.pid(&bundle), "net_prio", "net_prio.ifpriomap", "");
        assert!(map.lines().any(|line| line == "lo 3"), "{map}");
    } else {
        refused_by_name(&case, &bundle, "network.priorities");
    }
}

#[test]
fn rdma_limits_for_a_device_that_is_not_there_are_refused() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc does not tell the property, crun ignores it");
    // A host with such a device is rare; the kernel refuses the others by name, or has no file.
    let limits = json!({ "davit_none": { "hcaHandles": 3, "hcaObjects": 10000 } });
    let bundle = sleeper(&case).set("/linux/resources/rdma", limits);
    refused_by_name(&case, &bundle, "rdma");
}

#[test]
fn a_half_made_cpuset_is_completed() {
    if cgroup::layout() != cgroup::Layout::V1 || !cgroup::has_controller("cpuset") {
        skip!("no v1 hierarchy of cpuset");
    }
    let case = Case::new();
    differs!(case, ["runc", "crun"], "not tried");
    let first = case.bundle().args(["sleep", "1000"]);
    case.start(&first);
    // What a runtime leaves that is killed after mkdir(2): a group without CPUs and memory nodes.
    let above = cgroup::dir_of(case.pid(&first), "cpuset").with_file_name("half");
    fs::create_dir(&above).expect("make a group");
    let second = case.bundle().args(["true"]);
    let path = case.cgroups_path("half") + "/" + &second.id;
    case.run(&second.set("/linux/cgroupsPath", path)).quiet_success();
    fs::remove_dir(&above).expect("remove the group");
    for root in cgroup::roots() {
        let _ = fs::remove_dir(root.join(case.cgroups_path("half").trim_start_matches('/')));
    }
}
