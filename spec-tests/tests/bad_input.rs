//! Bad input: hostile configurations, files that are no files, a state directory that lies.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spec_tests::{Bundle, Case, differs, find, skip, under_emulation, wait_until};

/// A process that has nothing to do with any container.
struct Bystander(Child);

impl Bystander {
    fn start() -> Bystander {
        Bystander(Command::new("sleep").arg("300").stdin(Stdio::null()).spawn().expect("sleep"))
    }

    #[track_caller]
    fn assert_alive(&mut self) {
        assert_eq!(self.0.try_wait().expect("look"), None, "a bystander was killed");
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The record of a container, whichever runtime keeps it.
fn record(case: &Case, bundle: &Bundle) -> PathBuf {
    let dir = case.root().join(&bundle.id);
    let name = if case.runtime_is("crun") { "status" } else { "state.json" };
    dir.join(name)
}

fn edit(path: &PathBuf, change: impl FnOnce(&mut Value)) {
    let text = fs::read(path).expect("read the record");
    let mut value: Value = serde_json::from_slice(&text).expect("JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("write the record");
}

#[test]
fn a_pid_that_is_another_processes_by_now_is_left_alone() {
    let case = Case::new();
    let mut bystander = Bystander::start();
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    let pid = case.pid(&bundle);
    case.runtime(["kill", &bundle.id, "KILL"]).success();
    case.wait_stopped(&bundle);
    // What a reused pid looks like: the number is another process's, the start time is not.
    edit(&record(&case, &bundle), |record| {
        let key = if record["init_process_pid"].is_null() { "pid" } else { "init_process_pid" };
        assert_eq!(record[key], pid);
        record[key] = json!(bystander.0.id());
    });
    assert_eq!(case.status(&bundle), "stopped");
    let killed = case.runtime(["kill", &bundle.id, "KILL"]);
    if !case.runtime_is("crun") {
        assert_ne!(killed.code(), 0, "{killed}");
    }
    bystander.assert_alive();
    let outcome = case.exec(&bundle, [], ["true"]);
    assert_ne!(outcome.code(), 0, "{outcome}");
    case.runtime(["delete", "--force", &bundle.id]).success();
    bystander.assert_alive();
}

#[test]
fn a_corrupt_record_is_told_and_can_be_deleted() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "their records have another form");
    for text in ["", "{", "garbage\0", "[]", "{\"version\":99}", "{\"pid\":\"x\"}", "null"] {
        let mut bystander = Bystander::start();
        let bundle = case.bundle().args(["true"]);
        case.run(&bundle).success();
        let path = record(&case, &bundle);
        fs::create_dir_all(path.parent().expect("a directory")).expect("make a directory");
        fs::write(&path, text).expect("write");
        for verb in ["state", "start", "kill", "pause", "delete"] {
            let outcome = case.runtime([verb, &bundle.id]);
            assert!(outcome.code() != 0 && outcome.stderr.contains("state.json"), "{outcome}");
        }
        // The others are still listed.
        case.runtime(["list", "-q"]).success();
        case.runtime(["delete", "--force", &bundle.id]).success();
        case.assert_missing("state", &bundle.id);
        bystander.assert_alive();
    }
}

#[test]
fn a_state_directory_that_is_something_else_is_no_container() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "their messages are others");
    fs::create_dir_all(case.root()).expect("make the root");
    fs::write(case.root().join("file"), "").expect("write");
    let elsewhere = case.dir().join("elsewhere");
    fs::create_dir(&elsewhere).expect("make a directory");
    fs::write(elsewhere.join("precious"), "").expect("write");
    std::os::unix::fs::symlink(&elsewhere, case.root().join("link")).expect("make a link");
    for id in ["file", "link"] {
        case.runtime(["state", id]).exits(1);
        case.runtime(["delete", "--force", id]);
        assert!(elsewhere.join("precious").exists(), "{id}: deleted what a link led to");
    }
    for name in ["file", "link"] {
        let _ = fs::remove_file(case.root().join(name));
    }
}

#[test]
fn an_environment_of_two_mebibytes_runs_or_is_refused_in_words() {
    let case = Case::new();
    let with = |count: usize| {
        let mut bundle = case.bundle().sh("echo ran");
        for n in 0..count {
            let value = format!("V{n}={}", "x".repeat(65_536 - 16));
            bundle = bundle.push("/process/env", value);
        }
        case.run(&bundle)
    };
    with(16).success().prints("ran");
    let outcome = with(33);
    assert!(outcome.code() == 0 || outcome.stderr.to_lowercase().contains("too long"), "{outcome}");
}

#[test]
fn a_variable_that_is_too_long_is_refused_in_words() {
    let case = Case::new();
    let bundle = case.bundle().push("/process/env", format!("V={}", "x".repeat(2 << 20)));
    case.run(&bundle).fails_with("too long");
    case.assert_gone(&bundle);
}

#[test]
fn ten_thousand_mounts_are_made_in_bounded_time() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "one reads the mount table each time, the other is slow");
    let mut bundle = case.bundle().writable().sh("wc -l < /proc/self/mountinfo");
    let list = bundle.config["mounts"].as_array_mut().expect("an array");
    for n in 0..10_000 {
        list.push(json!({ "destination": format!("/m/{}/{n}", n % 100), "type": "bind",
                          "source": "/etc/hostname", "options": ["bind", "ro"] }));
    }
    let begun = Instant::now();
    let outcome = case.run(&bundle);
    outcome.success();
    let mounts: usize = outcome.stdout.trim().parse().expect("a number");
    assert!(mounts > 10_000, "{mounts}");
    let limit = under_emulation(Duration::from_secs(30));
    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
}

#[test]
fn a_mount_that_is_there_twice_lies_over_the_first() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .mount("/tmp", "tmpfs", "first", &["size=1m"])
        .mount("/tmp", "tmpfs", "second", &["size=1m"])
        .sh("grep ' /tmp ' /proc/mounts | cut -d' ' -f1 | tail -n 1");
    case.run(&bundle).quiet_success().prints("second");
}

#[test]
fn fifos_in_the_image_hold_nobody_up() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "both open /etc/passwd and wait");
    let bundle = case.bundle().writable().set("/process/env", json!(["PATH=/bin"])).args(["true"]);
    for name in ["etc/passwd", "etc/group"] {
        let path = bundle.rootfs().join(name);
        let _ = fs::remove_file(&path);
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
            .expect("make a FIFO");
    }
    case.run(&bundle).success();
}

#[test]
fn a_directory_over_a_fifo_is_refused_in_words() {
    let case = Case::new();
    let bundle = case.bundle().writable().mount("/pipe", "tmpfs", "tmpfs", &[]);
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    let path = bundle.rootfs().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
        .expect("make a FIFO");
    case.run(&bundle).fails_with("not a directory");
    case.assert_gone(&bundle);
}

#[test]
fn only_verbs_that_enter_a_container_pay_for_a_sealed_program() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "crun seals for each verb");
    let Some(strace) = find("strace") else { skip!("strace is not installed") };
    let executions = |args: &[&str]| {
        let log = case.dir().join("trace");
        let mut command = Command::new(&strace);
        command.args(["-qq", "-e", "trace=execve,execveat,memfd_create,fsopen", "-o"]).arg(&log);
        command.arg(spec_tests::runtime()).arg("--root").arg(case.root()).args(args);
        command.stdin(Stdio::null());
        case.outcome(command);
        let text = fs::read_to_string(log).expect("read the trace");
        text.lines().filter(|line| line.contains("= ")).count()
    };
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    let id = bundle.id.as_str();
    let own: &[&[&str]] = &[
        &["state", id],
        &["list"],
        &["pause", id],
        &["resume", id],
        &["features"],
        &["kill", id, "KILL"],
        &["delete", "--force", id],
        &["--version"],
    ];
    for args in own {
        assert_eq!(executions(args), 1, "{args:?}: executed itself again");
    }
    let entering = executions(&["exec", id, "true"]);
    assert!(entering > 1, "exec is not sealed: {entering}");
}

#[test]
fn create_takes_the_place_of_what_a_killed_one_left() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "they leave it to delete --force");
    // Killed at its very start.
    let bundle = case.bundle().args(["sleep", "1000"]);
    let place = case.root().join(&bundle.id);
    fs::create_dir_all(&place).expect("make a directory");
    fs::write(place.join(".state.json.new"), "{").expect("write");
    case.create(&bundle).quiet_success();
    // One that was made whole keeps its name.
    case.create(&bundle).exits(1).fails_with("already exists");
    case.runtime(["delete", "--force", &bundle.id]).quiet_success();
    // Killed in the middle.
    let hook = json!([{ "path": "/bin/sleep", "args": ["sleep", "2"] }]);
    let slow = case.bundle().args(["sleep", "1000"]).set("/hooks/createRuntime", hook);
    slow.write();
    let mut command = case.command();
    command.arg("create").arg("--bundle").arg(&slow.dir).arg(&slow.id);
    let mut child = command.spawn().expect("start the runtime");
    let state = case.root().join(&slow.id).join("state.json");
    let pid_is_known = || {
        let text = fs::read_to_string(&state).unwrap_or_default();
        let record: Value = serde_json::from_str(&text).unwrap_or_default();
        record["pid"].as_i64().is_some_and(|pid| pid > 0)
    };
    assert!(wait_until(pid_is_known), "create does not come to its hooks");
    child.kill().expect("kill it");
    child.wait().expect("wait for it");
    case.create(&slow.set("/hooks", json!({}))).quiet_success();
}

#[test]
fn create_does_not_take_the_place_of_something_else() {
    let case = Case::new();
    let bundle = case.bundle().args(["true"]);
    let precious = case.root().join(&bundle.id).join("precious");
    fs::create_dir_all(&precious).expect("make a directory");
    case.create(&bundle).exits(1).fails_with("exist");
    assert!(precious.exists(), "create has removed what is none of its own");
    fs::remove_dir_all(case.root().join(&bundle.id)).expect("remove it");
}
