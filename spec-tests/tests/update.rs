//! `update`: the limits of a container that exists, read back from the host's files.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};
use spec_tests::{Bundle, Case, Outcome, cgroup, differs, skip};

/// A container that runs, with a limit on its processes.
fn sleeper(case: &Case) -> Bundle {
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    bundle
}

macro_rules! needs {
    ($($controller:literal),+) => {
        $(if !cgroup::has_controller($controller) {
            skip!("no {} controller on this host", $controller);
        })+
    };
}

/// `update FLAGS… ID`
#[track_caller]
fn update<const N: usize>(case: &Case, bundle: &Bundle, flags: [&str; N]) -> Outcome {
    let mut command = case.command();
    command.arg("update").args(flags).arg(&bundle.id);
    case.outcome(command)
}

/// `update --resources FILE ID`
#[track_caller]
fn update_file(case: &Case, bundle: &Bundle, resources: Value) -> Outcome {
    let file = case.dir().join("resources.json");
    fs::write(&file, resources.to_string()).expect("write the resources");
    update(case, bundle, ["--resources", file.to_str().expect("UTF-8")])
}

/// A file of the container's cgroup by its v1 and its v2 name.
#[track_caller]
fn file(case: &Case, bundle: &Bundle, controller: &str, v1: &str, v2: &str) -> String {
    cgroup::read(case.pid(bundle), controller, v1, v2)
}

fn v2() -> bool {
    cgroup::layout() == cgroup::Layout::V2
}

#[test]
fn memory_flags_take_units() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 takes bytes alone");
    needs!("memory");
    let bundle = sleeper(&case);
    let memory = || file(&case, &bundle, "memory", "memory.limit_in_bytes", "memory.max");
    update(&case, &bundle, ["--memory", "64m"]).quiet_success();
    assert_eq!(memory(), "67108864");
    update(&case, &bundle, ["--memory=33554432", "--memory-reservation", "16MB"]).quiet_success();
    assert_eq!(memory(), "33554432");
    let low = file(&case, &bundle, "memory", "memory.soft_limit_in_bytes", "memory.low");
    assert_eq!(low, "16777216");
    update(&case, &bundle, ["--memory", "-1"]).quiet_success();
    assert!(["max", "9223372036854771712"].contains(&memory().as_str()), "{}", memory());
    update(&case, &bundle, ["--memory", "lots"]).fails_with("lots");
}

#[test]
fn memory_and_swap_go_up_and_down_together() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 takes bytes alone");
    needs!("memory");
    let bundle = sleeper(&case);
    let both = || {
        let read = |v1, v2| file(&case, &bundle, "memory", v1, v2);
        (read("memory.limit_in_bytes", "memory.max"), {
            read("memory.memsw.limit_in_bytes", "memory.swap.max")
        })
    };
    // v1 has memory and swap in one file, v2 swap alone.
    let sum = |memory: u64, sum: u64| {
        (memory.to_string(), (if v2() { sum - memory } else { sum }).to_string())
    };
    for (memory, swap) in [(64 << 20, 96 << 20), (256 << 20, 300 << 20), (32 << 20, 40 << 20)] {
        let flags = [format!("--memory={memory}"), format!("--memory-swap={swap}")];
        update(&case, &bundle, flags.each_ref().map(String::as_str)).quiet_success();
        assert_eq!(both(), sum(memory, swap));
    }
    let refused = update(&case, &bundle, ["--memory-swap", "1m"]);
    refused.fails_with(if v2() { "swap" } else { "memory.memsw.limit_in_bytes" });
    assert_eq!(both(), sum(32 << 20, 40 << 20));
    update(&case, &bundle, ["--memory", "-1", "--memory-swap", "-1"]).quiet_success();
    assert_ne!(both(), sum(32 << 20, 40 << 20));
}

#[test]
fn swap_alone_counts_on_the_memory_that_there_is() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 takes bytes alone");
    needs!("memory");
    let bundle = sleeper(&case);
    update(&case, &bundle, ["--memory", "64m", "--memory-swap", "64m"]).quiet_success();
    update(&case, &bundle, ["--memory-swap", "80m"]).quiet_success();
    let swap = file(&case, &bundle, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
    assert_eq!(swap, if v2() { 16 << 20 } else { 80 << 20 }.to_string());
}

#[test]
fn a_limit_below_what_is_used_is_rejected_when_asked_to_check() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "checkBeforeUpdate came with runc 1.1.6, and is v2's alone");
    needs!("memory");
    let bundle = case.bundle().sh("head -c 33554432 /dev/zero > /dev/shm/x; exec sleep 100");
    case.start(&bundle);
    let used = || file(&case, &bundle, "memory", "memory.usage_in_bytes", "memory.current");
    let grown = || used().parse::<u64>().expect("a number") > 32 << 20;
    assert!(spec_tests::wait_until(grown), "{}", used());
    let memory = json!({ "limit": 16 << 20, "checkBeforeUpdate": true });
    update_file(&case, &bundle, json!({ "memory": memory }))
        .fails_with("checkBeforeUpdate: rejecting memory.limit 16777216");
    assert_eq!(case.status(&bundle), "running");
}

#[test]
fn quota_and_period_go_up_and_down_together() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 writes -1 as an unsigned number");
    needs!("cpu");
    let bundle = sleeper(&case);
    let now = || {
        if v2() {
            return file(&case, &bundle, "cpu", "", "cpu.max");
        }
        let read = |name| file(&case, &bundle, "cpu", name, "");
        format!("{} {}", read("cpu.cfs_quota_us"), read("cpu.cfs_period_us"))
    };
    for (quota, period) in [("50000", "100000"), ("5000", "10000"), ("500000", "1000000")] {
        update(&case, &bundle, ["--cpu-quota", quota, "--cpu-period", period]).quiet_success();
        assert_eq!(now(), format!("{quota} {period}"));
    }
    // One of them leaves the other one as it is.
    update(&case, &bundle, ["--cpu-quota", "300000"]).quiet_success();
    assert_eq!(now(), "300000 1000000");
    update(&case, &bundle, ["--cpu-period", "900000"]).quiet_success();
    assert_eq!(now(), "300000 900000");
    update(&case, &bundle, ["--cpu-quota", "-1"]).quiet_success();
    assert_eq!(now(), if v2() { "max 900000" } else { "-1 900000" });
}

#[test]
fn burst_follows_a_quota_that_grows() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "--cpu-burst is newer");
    needs!("cpu");
    let bundle = sleeper(&case);
    let burst = || file(&case, &bundle, "cpu", "cpu.cfs_burst_us", "cpu.max.burst");
    update(&case, &bundle, ["--cpu-quota", "20000", "--cpu-period", "100000"]).quiet_success();
    update(&case, &bundle, ["--cpu-quota", "60000", "--cpu-burst", "50000"]).quiet_success();
    assert_eq!(burst(), "50000");
    // The old burst is above the new quota, and the new quota below the old burst.
    update(&case, &bundle, ["--cpu-quota", "10000", "--cpu-burst", "5000"]).quiet_success();
    assert_eq!(burst(), "5000");
}

#[test]
fn shares_and_idle_are_written() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 makes a directory where cgroup v2 is not mounted");
    needs!("cpu");
    let bundle = sleeper(&case);
    update(&case, &bundle, ["--cpu-share", "2048"]).quiet_success();
    let share = file(&case, &bundle, "cpu", "cpu.shares", "cpu.weight");
    // v2: the older conversion of 2048 gives 79, the newer one 174.
    let known: &[&str] = if v2() { &["79", "174"] } else { &["2048"] };
    assert!(known.contains(&share.as_str()), "{share}");
    if case.runtime_is("runc") || case.runtime_is("crun") {
        return; // --cpu-idle is newer
    }
    for idle in ["1", "0"] {
        update(&case, &bundle, ["--cpu-idle", idle]).quiet_success();
        assert_eq!(file(&case, &bundle, "cpu", "cpu.idle", "cpu.idle"), idle);
    }
}

#[test]
fn the_cpuset_is_written() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 makes a directory where cgroup v2 is not mounted");
    needs!("cpuset");
    let bundle = sleeper(&case);
    update(&case, &bundle, ["--cpuset-cpus", "0", "--cpuset-mems", "0"]).quiet_success();
    assert_eq!(file(&case, &bundle, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(file(&case, &bundle, "cpuset", "cpuset.mems", "cpuset.mems"), "0");
}

#[test]
fn the_pids_limit_is_written_and_taken_away() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 writes -1 into pids.max");
    needs!("pids");
    let bundle = sleeper(&case);
    let limit = || file(&case, &bundle, "pids", "pids.max", "pids.max");
    update(&case, &bundle, ["--pids-limit", "77"]).quiet_success();
    assert_eq!(limit(), "77");
    update(&case, &bundle, ["--pids-limit", "-1"]).quiet_success();
    assert_eq!(limit(), "max");
}

#[test]
fn the_block_io_weight_is_written() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 knows blkio.weight alone");
    let bundle = sleeper(&case);
    let pid = case.pid(&bundle);
    let Some((name, files)) = [
        ("blkio", ["blkio.bfq.weight", "blkio.weight"].as_slice()),
        ("io", ["io.bfq.weight", "io.weight"].as_slice()),
    ]
    .into_iter()
    .find(|(name, _)| cgroup::has_controller(name)) else {
        skip!("no block I/O controller on this host");
    };
    let dir = cgroup::dir_of(pid, name);
    let Some(path) = files.iter().map(|f| dir.join(f)).find(|path| path.exists()) else {
        skip!("this kernel has no weights for block I/O");
    };
    update(&case, &bundle, ["--blkio-weight", "300"]).quiet_success();
    let text = fs::read_to_string(&path).expect("read the weight");
    let wanted = if path.ends_with("io.weight") { "default 2930" } else { "300" };
    assert!(text.trim().ends_with(wanted), "{path:?}: {text}");
}

#[test]
fn resources_come_from_a_file_or_from_stdin() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 takes a limit that is no number");
    needs!("pids");
    let bundle = sleeper(&case);
    let limit = || file(&case, &bundle, "pids", "pids.max", "pids.max");
    update_file(&case, &bundle, json!({ "pids": { "limit": 41 } })).quiet_success();
    assert_eq!(limit(), "41");
    // CRI-O: `--resources -`; containerd: `--resources=-`.
    for (number, words) in [("42", vec!["--resources", "-"]), ("43", vec!["--resources=-"])] {
        let mut command = case.command();
        command.arg("update").args(words).arg(&bundle.id).stdin(Stdio::piped());
        let mut child = command.spawn().expect("start update");
        let text = format!(r#"{{"pids":{{"limit":{number}}}}}"#);
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(text.as_bytes()).expect("write to update");
        drop(stdin);
        assert!(child.wait().expect("wait for update").success());
        assert_eq!(limit(), number);
    }
    let missing = update(&case, &bundle, ["-r", "/no/such/file"]);
    missing.fails_with("no such file");
    update_file(&case, &bundle, json!({ "pids": "many" })).fails_with("pids");
    assert_eq!(limit(), "43");
}

#[test]
fn a_refused_limit_takes_the_others_back() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "they leave what was written before");
    needs!("pids", "memory", "cpu");
    let bundle = sleeper(&case);
    update(&case, &bundle, ["--pids-limit", "50", "--memory", "64m", "--cpu-share", "512"])
        .quiet_success();
    let read = || {
        [
            file(&case, &bundle, "pids", "pids.max", "pids.max"),
            file(&case, &bundle, "memory", "memory.limit_in_bytes", "memory.max"),
            file(&case, &bundle, "cpu", "cpu.shares", "cpu.weight"),
            file(&case, &bundle, "cpu", "cpu.cfs_period_us", "cpu.max"),
        ]
    };
    let before = read();
    // 1 µs is below what the kernel accepts as a period.
    let limits = json!({
        "pids": { "limit": 60 },
        "memory": { "limit": 32 << 20 },
        "cpu": { "shares": 256, "quota": 1, "period": 1 },
    });
    update_file(&case, &bundle, limits).fails_with("linux.resources.cpu");
    assert_eq!(read(), before);
    // What is refused before anything is written.
    update(&case, &bundle, ["--pids-limit", "61", "--kernel-memory", "1g"])
        .fails_with("memory.kernel");
    assert_eq!(read(), before);
}

#[test]
fn a_device_can_be_allowed_and_forbidden_again() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "their update leaves devices alone");
    let node = json!({ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11 });
    let bundle = case
        .bundle()
        .push("/linux/devices", node)
        .capabilities(&["CAP_SYSLOG", "CAP_SYS_ADMIN"])
        .args(["sleep", "100"]);
    case.start(&bundle);
    let opens = || case.exec(&bundle, [], ["sh", "-c", "exec 3</dev/kmsg"]).code() == 0;
    let none = json!({ "allow": false, "access": "rwm" });
    let kmsg = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" });
    assert!(!opens());
    update_file(&case, &bundle, json!({ "devices": [none, kmsg] })).quiet_success();
    assert!(opens());
    update_file(&case, &bundle, json!({ "devices": [] })).quiet_success();
    assert!(opens(), "no rules means no change");
    update_file(&case, &bundle, json!({ "devices": [none] })).quiet_success();
    assert!(!opens());
    case.exec(&bundle, [], ["sh", "-c", "echo x > /dev/null"]).quiet_success();
    update_file(&case, &bundle, json!({ "devices": [{ "allow": true, "access": "rwm" }] }))
        .quiet_success();
    assert!(opens());
    update_file(&case, &bundle, json!({ "devices": [none] })).quiet_success();
    assert!(!opens());
    assert_eq!(case.status(&bundle), "running");
}

#[test]
fn what_has_no_limits_is_not_updated() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 updates what has ended");
    needs!("pids");
    let bundle = sleeper(&case);
    case.runtime(["kill", &bundle.id, "KILL"]).quiet_success();
    case.wait_stopped(&bundle);
    let outcome = update(&case, &bundle, ["--pids-limit", "7"]);
    assert_ne!(outcome.code(), 0, "{outcome}");
    let mut command = case.command();
    command.args(["update", "--pids-limit", "7", "no-such-container"]);
    case.outcome(command).fails_with("does not exist");
}

#[test]
fn a_container_that_waits_or_is_paused_can_be_updated() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 makes a directory where cgroup v2 is not mounted");
    needs!("pids");
    let bundle = case.bundle().args(["sleep", "100"]);
    case.create(&bundle).quiet_success();
    update(&case, &bundle, ["--pids-limit", "31"]).quiet_success();
    case.runtime(["start", &bundle.id]).quiet_success();
    case.runtime(["pause", &bundle.id]).quiet_success();
    update(&case, &bundle, ["--pids-limit", "32"]).quiet_success();
    assert_eq!(file(&case, &bundle, "pids", "pids.max", "pids.max"), "32");
    assert_eq!(case.status(&bundle), "paused");
    case.runtime(["resume", &bundle.id]).quiet_success();
}

#[test]
fn a_cache_schema_wants_a_class() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "crun has no such flag, and runc makes a class");
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    for (flag, line) in [("--l3-cache-schema", "L3:0=f"), ("--mem-bw-schema", "MB:0=20")] {
        let outcome = case.runtime(["update", flag, line, &bundle.id]);
        outcome.exits(1).fails_with(flag).fails_with("linux.intelRdt");
    }
    let outcome = case.runtime(["update", "--mem-bw-schema", "L3:0=f", &bundle.id]);
    outcome.exits(1).fails_with("MB:");
}
