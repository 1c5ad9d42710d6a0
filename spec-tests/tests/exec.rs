//! `exec`: another process in a running container.

use std::fs;

use serde_json::{Value, json};
use spec_tests::{Bundle, Case, differs, wait_until};

/// A running container.
fn running(case: &Case) -> Bundle {
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    bundle
}

#[test]
fn exec_runs_inside_and_passes_output_through() {
    let case = Case::new();
    let bundle = running(&case);
    case.exec(&bundle, [], ["hostname"]).quiet_success().prints("davit");
    let outcome = case.exec(&bundle, [], ["sh", "-c", "echo out; echo err >&2"]);
    outcome.success().prints("out");
    assert_eq!(outcome.stderr, "err\n");
}

#[test]
fn exec_returns_the_exit_code() {
    let case = Case::new();
    let bundle = running(&case);
    for code in [0, 7, 200] {
        case.exec(&bundle, [], ["sh", "-c", &format!("exit {code}")]).exits(code);
    }
    case.exec(&bundle, [], ["sh", "-c", "kill -KILL $$"]).exits(137);
    case.exec(&bundle, [], ["sh", "-c", "kill -TERM $$"]).exits(143);
}

#[test]
fn exec_is_in_every_namespace_of_the_container() {
    let case = Case::new();
    let bundle = case.bundle().namespace("cgroup", None).args(["sleep", "100"]);
    case.start(&bundle);
    let pid = case.pid(&bundle);
    for file in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        let link = fs::read_link(format!("/proc/{pid}/ns/{file}")).expect("a namespace");
        let path = format!("/proc/self/ns/{file}");
        let outcome = case.exec(&bundle, [], ["readlink", &path]);
        outcome.quiet_success().prints(link.to_str().expect("UTF-8"));
    }
}

#[test]
fn exec_is_in_the_containers_cgroup() {
    let case = Case::new();
    let bundle = running(&case);
    let init = case.exec(&bundle, [], ["cat", "/proc/1/cgroup"]);
    let own = case.exec(&bundle, [], ["cat", "/proc/self/cgroup"]);
    assert_eq!(init.quiet_success().stdout, own.quiet_success().stdout);
}

#[test]
fn exec_inherits_the_containers_settings() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 executes in / whatever the configuration says");
    let bundle = case
        .bundle()
        .set("/process/env", json!(["PATH=/bin", "FROM=config"]))
        .set("/process/cwd", "/etc")
        .args(["sleep", "100"]);
    case.start(&bundle);
    case.exec(&bundle, [], ["sh", "-c", "echo $FROM $PWD"]).quiet_success().prints("config /etc");
    let status = case.exec(&bundle, [], ["cat", "/proc/self/status"]);
    assert_eq!(status.field("NoNewPrivs"), "1");
    assert_eq!(status.field("CapEff"), "0000000020000420");
    assert_eq!(status.field("CapInh"), "0000000000000000");
}

#[test]
fn exec_sets_user_cwd_and_environment() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 drops PATH from the environment with --env");
    let bundle = running(&case);
    let ids = ["sh", "-c", "echo $(id -u):$(id -g)"];
    case.exec(&bundle, ["--user", "1000:2000"], ids).quiet_success().prints("1000:2000");
    case.exec(&bundle, ["-u", "5"], ids).quiet_success().prints("5:0");
    case.exec(&bundle, ["--cwd", "/tmp"], ["pwd"]).quiet_success().prints("/tmp");
    let echo = ["sh", "-c", "echo $A $B"];
    case.exec(&bundle, ["--env", "A=1", "--env", "B=2"], echo).quiet_success().prints("1 2");
}

#[test]
fn exec_refuses_a_user_that_is_no_number() {
    let case = Case::new();
    let bundle = running(&case);
    for user in ["nosuchuser", "1000:", "10x", "-1"] {
        let outcome = case.exec(&bundle, [&format!("--user={user}")], ["id", "-u"]);
        if user == "nosuchuser" || user == "10x" || !case.runtime_is("crun") {
            // crun 1.8 reads what it can of the others (CVE-2026-30892 is a later form of it).
            assert_ne!(outcome.code(), 0, "user {user:?}: {outcome}");
            assert_eq!(outcome.stdout, "", "user {user:?}: {outcome}");
        }
    }
}

#[test]
fn exec_adds_groups() {
    let case = Case::new();
    let bundle = running(&case);
    differs!(case, ["crun"], "crun 1.8 has no --additional-gids");
    let flags = ["--additional-gids", "11", "--additional-gids", "12"];
    let status = case.exec(&bundle, flags, ["cat", "/proc/self/status"]);
    let groups: Vec<_> = status.quiet_success().field("Groups").split_whitespace().collect();
    assert!(groups.contains(&"11") && groups.contains(&"12"), "{groups:?}");
}

#[test]
fn exec_adds_capabilities() {
    let case = Case::new();
    let bundle =
        case.bundle().push("/process/capabilities/bounding", "CAP_CHOWN").args(["sleep", "100"]);
    case.start(&bundle);
    let status = case.exec(&bundle, ["--cap", "CAP_CHOWN"], ["cat", "/proc/self/status"]);
    let bits = u64::from_str_radix(status.quiet_success().field("CapEff"), 16).expect("a mask");
    assert_eq!(bits & 1, 1, "CAP_CHOWN is missing: {status}");
}

#[test]
fn exec_takes_a_process_file() {
    let case = Case::new();
    let bundle = running(&case);
    let mut process: Value = bundle.config["process"].clone();
    process["args"] = json!(["sh", "-c", "echo $V $(id -u) $PWD"]);
    process["env"] = json!(["PATH=/bin", "V=from-file"]);
    process["cwd"] = json!("/tmp");
    process["user"] = json!({ "uid": 33, "gid": 44 });
    let file = case.dir().join("process.json");
    fs::write(&file, process.to_string()).expect("write the process file");
    let file = file.to_str().expect("UTF-8");
    case.exec(&bundle, ["--process", file], []).quiet_success().prints("from-file 33 /tmp");
}

#[test]
fn a_process_file_that_is_broken_is_named() {
    let case = Case::new();
    let bundle = running(&case);
    let file = case.dir().join("process.json");
    fs::write(&file, "{ not json").expect("write");
    let outcome = case.exec(&bundle, ["--process", file.to_str().expect("UTF-8")], []);
    assert_ne!(outcome.code(), 0, "{outcome}");
    case.exec(&bundle, ["--process", "/no/such/file"], []).fails_with("/no/such/file");
}

#[test]
fn exec_detached_leaves_a_pid_file_and_returns() {
    let case = Case::new();
    let bundle = running(&case);
    let file = case.dir().join("exec.pid");
    let path = file.to_str().expect("UTF-8");
    let start = std::time::Instant::now();
    let script = ["sh", "-c", "echo begun; sleep 50"];
    let outcome = case.exec(&bundle, ["--detach", "--pid-file", path], script);
    outcome.quiet_success();
    assert!(start.elapsed().as_secs() < 20, "exec --detach has waited");
    let text = fs::read_to_string(&file).expect("the pid file exists");
    let pid: u32 = text.parse().expect("a number and no newline");
    assert!(wait_until(|| outcome.stdout_now() == "begun\n"));
    let pids = case.runtime(["ps", "-f", "json", &bundle.id]).json();
    assert!(pids.as_array().expect("an array").contains(&json!(pid)), "{pids} lacks {pid}");
}

#[test]
fn exec_names_a_program_that_is_missing() {
    let case = Case::new();
    let bundle = running(&case);
    let outcome = case.exec(&bundle, [], ["no-such-program"]);
    outcome.fails_with("no-such-program");
    if case.runtime_is("runc") || case.runtime_is("runtime") {
        outcome.exits(255);
    }
    assert_eq!(case.status(&bundle), "running");
}

#[test]
fn exec_in_a_stopped_container_is_refused() {
    let case = Case::new();
    let bundle = case.bundle();
    case.start(&bundle);
    case.wait_stopped(&bundle);
    let outcome = case.exec(&bundle, [], ["true"]);
    assert_ne!(outcome.code(), 0, "{outcome}");
}

#[test]
fn exec_works_in_a_created_container() {
    let case = Case::new();
    let bundle = case.bundle();
    case.create(&bundle).quiet_success();
    case.exec(&bundle, [], ["echo", "early"]).quiet_success().prints("early");
    assert_eq!(case.status(&bundle), "created");
}

#[test]
fn exec_leaks_no_descriptor() {
    let case = Case::new();
    let bundle = running(&case);
    let outcome = case.exec(&bundle, [], ["sh", "-c", "ls /proc/self/fd | tr '\\n' ' '"]);
    outcome.quiet_success().prints("0 1 2 3");
}

#[test]
fn exec_into_a_user_namespace() {
    let case = Case::new();
    let mapping = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    let bundle = case
        .bundle()
        .namespace("user", None)
        .set("/linux/uidMappings", mapping.clone())
        .set("/linux/gidMappings", mapping)
        // Only group 0 is mapped here.
        .set("/mounts/2/options", json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666"]))
        .args(["sleep", "100"]);
    case.start(&bundle);
    let outcome = case.exec(&bundle, [], ["cat", "/proc/self/uid_map"]);
    let words: Vec<_> = outcome.quiet_success().stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "1"]);
}

#[test]
fn many_at_once_all_succeed() {
    let case = Case::new();
    let bundle = running(&case);
    std::thread::scope(|scope| {
        for n in 0..16 {
            let (case, bundle) = (&case, &bundle);
            scope.spawn(move || {
                let word = format!("number-{n}");
                case.exec(bundle, [], ["echo", &word]).quiet_success().prints(&word);
            });
        }
    });
}
