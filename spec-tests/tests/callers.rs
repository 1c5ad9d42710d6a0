//! What engines pass to a runtime, parse of its output and match in its words: containerd and
//! go-runc, dockerd, podman and conmon, CRI-O, buildah, BuildKit. One test per line of theirs.

use std::fs;
use std::process::Command;

use serde_json::Value;
use spec_tests::{Bundle, Case, Outcome, cgroup, differs, runtime, wait_until};

/// The runtime as containerd and conmon call it: with a log file, in JSON.
fn logged(case: &Case) -> Command {
    let mut command = case.command();
    command.arg("--log").arg(case.dir().join("log.json")).args(["--log-format", "json"]);
    command
}

/// The one object of the log, which podman parses whole.
#[track_caller]
fn log_entry(case: &Case) -> Value {
    let text = fs::read_to_string(case.dir().join("log.json")).expect("read the log");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("not one JSON object ({e}): {text}"))
}

fn sleeping(case: &Case) -> Bundle {
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    bundle
}

fn says_it_has_ended(outcome: &Outcome) -> bool {
    let said = outcome.stderr.to_lowercase();
    let texts = ["container not running", "process already finished", "no such process"];
    outcome.code() != 0 && texts.iter().any(|text| said.contains(text))
}

#[test]
fn containerd_creates_with_its_words_and_reads_the_pid_untrimmed() {
    let case = Case::new();
    let bundle = case.bundle().args(["sleep", "100"]);
    bundle.write();
    let pid_file = bundle.dir.join("init.pid");
    let mut command = logged(&case);
    command.args(["create", "--bundle"]).arg(&bundle.dir).arg("--pid-file").arg(&pid_file);
    command.arg("--no-pivot").arg("--no-new-keyring").arg(&bundle.id);
    case.outcome(command).quiet_success();
    // strconv.Atoi takes no blank and no newline.
    let text = fs::read_to_string(&pid_file).expect("the pid file");
    assert_eq!(text.parse::<u32>().ok(), Some(case.pid(&bundle)), "{text:?}");
    let log = fs::read_to_string(case.dir().join("log.json")).unwrap_or_default();
    assert_eq!(log, "", "success says nothing");
}

#[test]
fn the_init_is_in_its_cgroup_when_create_returns() {
    let case = Case::new();
    let bundle = case.bundle();
    case.create(&bundle).quiet_success();
    let pid = case.pid(&bundle);
    assert!(cgroup::dir_of(pid, "pids").ends_with(&bundle.id), "create left it elsewhere");
}

#[test]
fn containerd_execs_from_a_file_detached() {
    let case = Case::new();
    let bundle = sleeping(&case);
    let mut process = bundle.config["process"].clone();
    process["args"] = serde_json::json!(["sh", "-c", "echo out; exec sleep 100"]);
    let file = case.dir().join("process.json");
    fs::write(&file, process.to_string()).expect("write process.json");
    let pid_file = case.dir().join("exec.pid");
    let mut command = logged(&case);
    command.args(["exec", "--process"]).arg(&file).args(["--detach", "--pid-file"]);
    command.arg(&pid_file).arg(&bundle.id);
    case.outcome(command).quiet_success();
    let pid = fs::read_to_string(&pid_file).expect("the pid file");
    assert!(pid.parse::<u32>().is_ok(), "{pid:?}");
    let pids = case.runtime(["ps", "--format", "json", &bundle.id]).quiet_success().json();
    let pids: Vec<String> =
        pids.as_array().expect("an array").iter().map(Value::to_string).collect();
    assert!(pids.contains(&pid), "{pids:?} lacks {pid}");
}

#[test]
fn a_flag_may_have_a_single_dash_as_in_go() {
    let case = Case::new();
    differs!(case, ["crun"], "crun takes single-letter flags only after one dash");
    let bundle = case.bundle().args(["echo", "ran"]);
    // containerd restores with "-no-subreaper".
    case.on_bundle("run", &bundle, ["-no-subreaper"]).quiet_success().prints("ran");
    case.assert_gone(&bundle);
}

#[test]
fn a_switch_may_be_given_a_value_as_in_go() {
    let case = Case::new();
    differs!(case, ["crun"], "crun's switches take no value");
    let bundle = case.bundle().args(["sleep", "100"]);
    case.on_bundle("run", &bundle, ["--detach=true"]).quiet_success();
    case.exec(&bundle, ["--tty=false"], ["echo", "--tty=false"])
        .quiet_success()
        .prints("--tty=false");
    case.runtime(["delete", "--force=false", &bundle.id]).fails_with("not stopped");
}

/// The parent of an orphan of the container, and the runtime's pid.
fn parent_of_an_orphan(case: &Case, flags: &[&str]) -> (String, String) {
    let script = "(sleep 100 & echo $! > /tmp/orphan); read orphan < /tmp/orphan; sleep 0.1;
        while read name value; do test $name = PPid: && echo $value; done < /proc/$orphan/status;
        kill -9 $orphan; true";
    let bundle = case.bundle().writable().without_namespace("pid").sh(script);
    bundle.write();
    let said = case.dir().join("said");
    let mut command = case.command();
    command.arg("run").args(flags).arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    command.stdout(fs::File::create(&said).expect("create a file"));
    let mut child = command.spawn().expect("start the runtime");
    assert!(child.wait().expect("wait for the runtime").success());
    let parent = fs::read_to_string(said).expect("read").trim().to_owned();
    (parent, child.id().to_string())
}

#[test]
fn no_subreaper_leaves_orphans_to_the_caller() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 becomes no subreaper");
    let (parent, runtime) = parent_of_an_orphan(&case, &[]);
    assert_eq!(parent, runtime);
    let (parent, runtime) = parent_of_an_orphan(&case, &["--no-subreaper"]);
    assert_ne!(parent, runtime);
    assert!(!parent.is_empty());
}

#[test]
fn kill_and_delete_of_what_is_missing_say_so() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 words it otherwise");
    for verb in
        [&["kill", "absent", "9"][..], &["delete", "absent"], &["kill", "--all", "absent", "9"]]
    {
        let mut command = logged(&case);
        command.args(verb);
        // go-runc and containerd look for the words in either place.
        case.outcome(command).exits(1).fails_with("does not exist");
        assert!(log_entry(&case)["msg"].as_str().is_some_and(|m| m.contains("does not exist")));
        fs::remove_file(case.dir().join("log.json")).expect("remove the log");
    }
}

#[test]
fn kill_of_what_has_ended_says_so() {
    let case = Case::new();
    let bundle = case.bundle();
    case.start(&bundle);
    case.wait_stopped(&bundle);
    for signal in ["15", "KILL"] {
        let outcome = case.runtime(["kill", &bundle.id, signal]);
        assert!(says_it_has_ended(&outcome), "{outcome}");
    }
}

#[test]
fn buildah_kills_without_a_signal() {
    let case = Case::new();
    let script = "trap 'echo got TERM; exit 7' TERM; echo up; while :; do sleep 0.02; done";
    let bundle = case.bundle().sh(script);
    let started = case.start(&bundle);
    assert!(wait_until(|| started.stdout_now().contains("up")));
    // It polls the state, and takes any other word for an error.
    let known = ["creating", "created", "running", "stopped"];
    assert!(known.contains(&case.status(&bundle).as_str()));
    case.runtime(["kill", &bundle.id]).quiet_success();
    assert!(wait_until(|| {
        let status = case.status(&bundle);
        assert!(known.contains(&status.as_str()), "{status}");
        status == "stopped"
    }));
    assert_eq!(started.stdout_now(), "up\ngot TERM\n");
}

#[test]
fn delete_force_of_a_missing_one_is_silent_success() {
    let case = Case::new();
    let mut command = logged(&case);
    command.args(["delete", "--force", "absent"]);
    case.outcome(command).quiet_success().prints("");
    assert!(
        !case.dir().join("log.json").exists() || {
            fs::read_to_string(case.dir().join("log.json")).is_ok_and(|text| text.is_empty())
        }
    );
}

#[test]
fn an_unknown_verb_is_exit_code_3() {
    let case = Case::new();
    differs!(case, ["crun", "runc"], "crun says 1; runc 1.1 prints its help and says 0");
    case.runtime(["nosuchverb", "x"]).exits(3).fails_with("nosuchverb");
}

#[test]
fn a_failing_exec_is_exit_code_255() {
    let case = Case::new();
    differs!(case, ["crun"], "crun says 1");
    let bundle = sleeping(&case);
    case.exec(&bundle, [], ["no-such-program"]).exits(255);
    case.exec(&bundle, ["--cwd", "/no/such"], ["true"]).exits(255);
    case.runtime(["exec", "absent", "true"]).exits(255);
}

#[test]
fn a_signal_is_128_and_its_number_from_run_and_exec() {
    let case = Case::new();
    let bundle = sleeping(&case);
    case.exec(&bundle, [], ["sh", "-c", "kill -9 $$"]).exits(137);
    case.exec(&bundle, [], ["sh", "-c", "kill -15 $$"]).exits(143);
    let run = case.bundle().without_namespace("pid").sh("kill -15 $$");
    case.run(&run).exits(143);
}

#[test]
fn dockerd_finds_126_and_127_in_the_words() {
    let case = Case::new();
    differs!(case, ["crun"], "crun writes the words with a capital letter");
    // 127: these words; 126: permission denied, is a directory.
    for (args, words) in [
        ("no-such-program", "executable file not found"),
        ("/no/such/program", "no such file or directory"),
        ("/plain", "permission denied"),
        ("/plain/below", "not a directory"),
    ] {
        let bundle = case.bundle().file("/plain", "text").args([args]);
        bundle.write();
        let mut command = logged(&case);
        command.args(["create", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
        let outcome = case.outcome(command);
        assert_ne!(outcome.code(), 0, "{outcome}");
        let text = fs::read_to_string(case.dir().join("log.json")).expect("the log");
        let last = text.lines().last().expect("an entry");
        let entry: Value = serde_json::from_str(last).expect("JSON");
        assert!(entry["msg"].as_str().is_some_and(|m| m.contains(words)), "{args}: {entry}");
        fs::remove_file(case.dir().join("log.json")).expect("remove the log");
    }
}

#[test]
fn the_error_log_is_one_object_for_every_verb() {
    let case = Case::new();
    differs!(case, ["crun", "runc"], "they add warnings");
    for verb in ["state", "start", "kill", "delete", "ps", "pause", "resume", "exec"] {
        let mut command = logged(&case);
        command.args([verb, "absent"]);
        if verb == "exec" {
            command.arg("true");
        }
        let outcome = case.outcome(command);
        assert_ne!(outcome.code(), 0, "{outcome}");
        let entry = log_entry(&case);
        assert_eq!(entry["level"], "error");
        let time = entry["time"].as_str().expect("a time");
        assert!(time.len() > 19 && &time[10..11] == "T", "RFC 3339: {time}");
        assert!(outcome.stderr.contains(entry["msg"].as_str().expect("a message")), "{outcome}");
        fs::remove_file(case.dir().join("log.json")).expect("remove the log");
    }
}

#[test]
fn go_runc_reads_state_and_list() {
    let case = Case::new();
    differs!(case, ["crun"], "crun's list has fewer properties");
    let bundle = case.bundle().args(["sleep", "100"]).set("/annotations/a.b", "c");
    case.start(&bundle);
    let list = case.runtime(["list", "-f", "json"]).quiet_success().json();
    for entry in [&case.state(&bundle), &list[0]] {
        assert_eq!(entry["id"], bundle.id.as_str());
        assert_eq!(entry["status"], "running");
        assert_eq!(entry["bundle"], bundle.dir.to_str().expect("UTF-8"));
        assert_eq!(entry["rootfs"], bundle.rootfs().to_str().expect("UTF-8"));
        assert_eq!(entry["annotations"]["a.b"], "c");
        assert!(entry["pid"].as_u64().is_some_and(|pid| pid > 1));
        let created = entry["created"].as_str().expect("a time");
        assert!(created.ends_with('Z') && &created[10..11] == "T", "RFC 3339: {created}");
    }
    assert!(case.state(&bundle)["ociVersion"].is_string());
}

#[test]
fn crio_asks_in_its_own_words() {
    let case = Case::new();
    differs!(case, ["crun", "runc"], "crun words it otherwise, runc 1.1 has an older features");
    // It reads stdout and stderr together.
    let features = case.runtime(["features"]).quiet_success().json();
    for (pointer, kind) in [("/ociVersionMin", "string"), ("/ociVersionMax", "string")] {
        assert!(features.pointer(pointer).is_some_and(Value::is_string), "{pointer}: {kind}");
    }
    let options = features["mountOptions"].as_array().expect("an array");
    assert!(options.contains(&"rro".into()));
    let bundle = sleeping(&case);
    case.runtime(["kill", &bundle.id, "KILL"]).quiet_success();
    case.wait_stopped(&bundle);
    let again = case.runtime(["kill", &bundle.id, "15"]);
    assert!(says_it_has_ended(&again), "{again}");
}

#[test]
fn buildkit_runs_with_keep_and_deletes() {
    let case = Case::new();
    differs!(case, ["crun", "runc"], "crun 1.8 and runc 1.1.5 have no run --keep");
    let bundle = case.bundle().sh("exit 42");
    case.on_bundle("run", &bundle, ["--no-pivot", "--keep"]).exits(42);
    assert_eq!(case.status(&bundle), "stopped");
    case.runtime(["delete", &bundle.id]).quiet_success();
    case.assert_gone(&bundle);
}

#[test]
fn podman_learns_of_a_flag_by_leaving_out_its_value() {
    let case = Case::new();
    let outcome = case.runtime(["create", "--console-socket"]);
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    let found = ["flag needs an argument", "requires an argument"];
    assert!(outcome.code() != 0 && found.iter().any(|text| said.contains(text)), "{outcome}");
}

#[test]
fn podman_turns_control_groups_off() {
    let case = Case::new();
    differs!(case, ["runc"], "runc has no --cgroup-manager");
    let bundle = case.bundle().args(["sleep", "100"]);
    bundle.write();
    let own = fs::read_to_string("/proc/self/cgroup").expect("read our cgroups");
    let mut command = case.command();
    command.args(["--cgroup-manager", "disabled", "create", "--bundle"]).arg(&bundle.dir);
    command.arg(&bundle.id);
    case.outcome(command).quiet_success();
    let theirs = fs::read_to_string(format!("/proc/{}/cgroup", case.pid(&bundle)));
    assert_eq!(theirs.expect("read its cgroups"), own);
}

#[test]
fn conmon_rs_execs_with_words_on_the_command_line() {
    let case = Case::new();
    let bundle = sleeping(&case);
    let socket = spec_tests::console::ConsoleSocket::bind(case.dir());
    let pid_file = case.dir().join("exec.pid");
    let mut command = case.command();
    command.args(["exec", "-d"]).arg(format!("--console-socket={}", socket.path()));
    command.arg("--tty").arg(format!("--pid-file={}", pid_file.display()));
    command.args([&bundle.id, "echo", "on a terminal"]);
    case.outcome(command).quiet_success();
    let said = spec_tests::console::read_all(socket.accept());
    assert_eq!(said.trim(), "on a terminal");
    assert!(fs::read_to_string(pid_file).is_ok_and(|pid| pid.parse::<u32>().is_ok()));
}

#[test]
fn the_version_begins_as_go_runc_wants_it() {
    let case = Case::new();
    let link = case.dir().join("runc");
    std::os::unix::fs::symlink(runtime(), &link).expect("make a link");
    let mut command = Command::new(&link);
    command.arg("--version");
    let outcome = case.outcome(command);
    let lines: Vec<&str> = outcome.quiet_success().stdout.lines().collect();
    if !case.runtime_is("crun") {
        assert!(lines[0].starts_with("runc version "), "{outcome}");
    }
    assert!(lines.iter().any(|line| line.starts_with("commit: ")), "{outcome}");
    assert!(lines.iter().any(|line| line.starts_with("spec: ")), "{outcome}");
}
