//! How the program is scheduled (config.md#linux-process: scheduler, ioPriority, execCPUAffinity;
//! config-linux.md: personality, memoryPolicy).

use std::fs;

use serde_json::{Value, json};
use spec_tests::{Bundle, Case, Outcome, differs, find_program, skip};

fn sleeper(case: &Case) -> Bundle {
    case.bundle().args(["sleep", "100"])
}

/// The field of /proc/PID/stat with this number, counted from 1 as in proc_pid_stat(5).
fn stat_field(pid: u32, number: usize) -> i64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read the stat file");
    let rest = &text[text.rfind(')').expect("a command") + 2..];
    rest.split(' ').nth(number - 3).expect("the field").parse().expect("a number")
}

/// Starts a container with this `process.scheduler`; its policy, nice value and real-time priority.
fn scheduled(case: &Case, scheduler: Value) -> Result<(i64, i64, i64), Outcome> {
    let bundle = sleeper(case).set("/process/scheduler", scheduler);
    let created = case.create(&bundle);
    if created.code() != 0 {
        return Err(created);
    }
    let pid = case.pid(&bundle);
    case.runtime(["start", &bundle.id]).quiet_success();
    Ok((stat_field(pid, 41), stat_field(pid, 19), stat_field(pid, 40)))
}

#[test]
fn each_policy_is_set_with_what_belongs_to_it() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc since 1.2, crun since 1.9");
    for (scheduler, expected) in [
        (json!({ "policy": "SCHED_OTHER", "nice": 7 }), (0, 7, 0)),
        (json!({ "policy": "SCHED_BATCH", "nice": 3 }), (3, 3, 0)),
        (json!({ "policy": "SCHED_IDLE" }), (5, 0, 0)),
        (json!({ "policy": "SCHED_FIFO", "priority": 10 }), (1, 0, 10)),
        (json!({ "policy": "SCHED_RR", "priority": 20 }), (2, 0, 20)),
    ] {
        match scheduled(&case, scheduler.clone()) {
            Ok(seen) => assert_eq!(seen, expected, "{scheduler}"),
            // A v1 group without a real-time share of its own takes no such process.
            Err(outcome) if scheduler.get("priority").is_some() => {
                outcome.fails_with("process.scheduler").fails_with("not permitted");
            }
            Err(outcome) => panic!("{scheduler}: {outcome}"),
        }
    }
}

#[test]
fn a_deadline_is_set_or_refused_by_name() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc since 1.2, crun since 1.9");
    let deadline = json!({
        "policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RECLAIM"],
        "runtime": 1_000_000, "deadline": 5_000_000, "period": 10_000_000,
    });
    match scheduled(&case, deadline) {
        Ok((policy, ..)) => assert_eq!(policy, 6),
        Err(outcome) => drop(outcome.fails_with("process.scheduler")),
    }
}

#[test]
fn children_are_reset_where_that_is_asked_for() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc since 1.2, crun since 1.9");
    let bundle = case
        .bundle()
        .set(
            "/process/scheduler",
            json!({
                "policy": "SCHED_OTHER", "nice": -5, "flags": ["SCHED_FLAG_RESET_ON_FORK"],
            }),
        )
        .sh("cut -d' ' -f19 /proc/$$/stat; (cut -d' ' -f19 /proc/self/stat; true)");
    case.run(&bundle).quiet_success().prints("-5\n0");
}

#[test]
fn what_the_kernel_does_not_take_is_refused_by_name() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc since 1.2, crun since 1.9");
    for (scheduler, word) in [
        (json!({ "policy": "SCHED_ISO" }), "SCHED_ISO"),
        (json!({ "policy": "SCHED_FIFO", "priority": 1000 }), "process.scheduler"),
        (json!({ "policy": "SCHED_FIFO", "priority": -1 }), "scheduler.priority"),
        (json!({ "policy": "SCHED_SOMETHING" }), "process.scheduler.policy"),
    ] {
        let bundle = case.bundle().set("/process/scheduler", scheduler);
        case.run(&bundle).fails_with(word);
        case.assert_gone(&bundle);
    }
}

#[test]
fn the_io_priority_is_set() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc since 1.2, crun since 1.9");
    let Ok(ionice) = find_program("ionice") else { skip!("ionice is not installed") };
    for (class, priority, expected) in [
        ("IOPRIO_CLASS_BE", 3, "best-effort: prio 3"),
        ("IOPRIO_CLASS_RT", 1, "realtime: prio 1"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
    ] {
        let io = json!({ "class": class, "priority": priority });
        let bundle = sleeper(&case).set("/process/ioPriority", io);
        case.start(&bundle);
        let mut command = std::process::Command::new(&ionice);
        command.args(["-p", &case.pid(&bundle).to_string()]);
        case.outcome(command).quiet_success().prints(expected);
    }
}

/// The CPUs that `exec` runs on by this `process.execCPUAffinity`.
fn affinity(case: &Case, affinity: Value) -> Outcome {
    let bundle = sleeper(case).set("/process/execCPUAffinity", affinity);
    case.start(&bundle);
    case.exec(&bundle, [], ["cat", "/proc/self/status"])
}

#[test]
fn exec_runs_on_the_cpus_that_are_asked_for() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc since 1.3, crun since 1.15");
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        skip!("one CPU leaves no choice");
    }
    let list =
        |value: Value| affinity(&case, value).quiet_success().field("Cpus_allowed_list").to_owned();
    let all = list(json!({}));
    // Where a cpuset is entered after it, the kernel has the last word.
    let initial = list(json!({ "initial": "0" }));
    assert!(initial == "0" || initial == all, "{initial}");
    assert_eq!(list(json!({ "initial": "0", "final": "1" })), "1");
    assert_ne!(all, "1");
    let bad = affinity(&case, json!({ "initial": "8000" }));
    bad.fails_with("process.execCPUAffinity.initial");
    let bundle = case.bundle().set("/process/execCPUAffinity", json!({ "final": "x" }));
    case.run(&bundle).fails_with("process.execCPUAffinity.final");
}

#[test]
fn the_personality_is_set_and_its_flags_are_refused() {
    let case = Case::new();
    differs!(case, ["runc"], "runc knows linux.personality since 1.2");
    let bundle = || case.bundle().args(["uname", "-m"]);
    let other = bundle().set("/linux/personality", json!({ "domain": "LINUX32" }));
    let outcome = case.run(&other);
    if cfg!(target_arch = "x86_64") {
        outcome.quiet_success().prints("i686");
    }
    differs!(case, ["crun"], "other words");
    let flagged = json!({ "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] });
    let bundle = bundle().set("/linux/personality", flagged);
    case.run(&bundle).fails_with("linux.personality.flags");
    case.assert_gone(&bundle);
}

#[test]
fn the_memory_policy_is_set() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "new in runtime-spec 1.3");
    let policy = |policy: Value| {
        let bundle = case.bundle().set("/linux/memoryPolicy", policy);
        case.run(&bundle.sh("cut -d' ' -f2 /proc/self/numa_maps | sort -u"))
    };
    let interleaved = policy(json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" }));
    if interleaved.stderr.contains("numa_maps") {
        skip!("this kernel has no NUMA");
    }
    interleaved.quiet_success().prints_part("interleave:0");
    let bound = json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    policy(bound).quiet_success().prints_part("bind=static:0");
    policy(json!({ "mode": "MPOL_BIND" })).fails_with("linux.memoryPolicy");
    policy(json!({ "mode": "MPOL_BIND", "nodes": "0-" })).fails_with("linux.memoryPolicy.nodes");
}
