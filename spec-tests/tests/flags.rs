//! The flags of runc's and crun's command lines, each with its effect.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Command;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;
use spec_tests::{Bundle, Case, cgroup, differs, skip};

fn sleeping(case: &Case) -> Bundle {
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    bundle
}

/// The descriptor that was sent to a listening socket.
fn received(listener: &UnixListener) -> OwnedFd {
    listener.set_nonblocking(true).expect("make the socket non-blocking");
    let (stream, _) = listener.accept().expect("the runtime has connected");
    stream.set_nonblocking(false).expect("make the stream blocking");
    let mut text = [0u8; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&stream, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .expect("receive");
    let fds = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.expect("a descriptor was sent")
}

/// The pid that a pidfd stands for.
fn pid_behind(fd: &OwnedFd) -> String {
    use std::os::fd::AsRawFd as _;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()));
    let info = info.expect("read fdinfo");
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:\t"));
    pid.expect("it is a pidfd").to_owned()
}

#[test]
fn create_run_and_exec_send_a_pidfd() {
    let case = Case::new();
    differs!(case, ["crun", "runc"], "runc 1.1.5 and crun 1.8 have no --pidfd-socket");
    let path = case.dir().join("pidfd.sock");
    let listener = UnixListener::bind(&path).expect("bind a socket");
    let path = path.to_str().expect("UTF-8");
    let created = case.bundle().args(["sleep", "100"]);
    case.on_bundle("create", &created, ["--pidfd-socket", path]).quiet_success();
    assert_eq!(pid_behind(&received(&listener)), case.pid(&created).to_string());
    let run = case.bundle().args(["sleep", "100"]);
    case.on_bundle("run", &run, ["--detach", "--pidfd-socket", path]).quiet_success();
    assert_eq!(pid_behind(&received(&listener)), case.pid(&run).to_string());
    let file = case.dir().join("pid");
    let file = file.to_str().expect("UTF-8");
    case.exec(&run, ["-d", "--pidfd-socket", path, "--pid-file", file], ["sleep", "100"])
        .quiet_success();
    let pid = fs::read_to_string(file).expect("the pid file");
    assert_eq!(pid_behind(&received(&listener)), pid);
}

#[test]
fn exec_enters_a_group_below_the_containers() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 follows .. out of the group");
    let bundle = sleeping(&case);
    let own = cgroup::dir_of(case.pid(&bundle), "pids");
    // The group below must exist in every hierarchy that the container is in.
    let roots = cgroup::roots();
    let below: Vec<_> = roots
        .iter()
        .filter_map(|root| {
            let rest = bundle.config["linux"]["cgroupsPath"].as_str()?.trim_start_matches('/');
            let dir = root.join(rest);
            dir.is_dir().then(|| dir.join("below"))
        })
        .collect();
    for dir in &below {
        fs::create_dir(dir).expect("make a group");
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let (Ok(value), true) = (fs::read(dir.with_file_name(file)), dir.join(file).exists())
            {
                fs::write(dir.join(file), value).expect("hand down the cpuset");
            }
        }
    }
    let file = case.dir().join("pid");
    let file = file.to_str().expect("UTF-8");
    case.exec(&bundle, ["-d", "--cgroup", "below", "--pid-file", file], ["sleep", "100"]).success();
    let pid = fs::read_to_string(file).expect("the pid file").parse().expect("a pid");
    assert_eq!(cgroup::dir_of(pid, "pids"), own.join("below"));
    case.exec(&bundle, ["--cgroup", "../.."], ["true"]).fails_with("cgroup");
    case.exec(&bundle, ["--cgroup", "missing"], ["true"]).fails_with("missing");
    case.runtime(["delete", "--force", &bundle.id]).success();
    assert!(!below.iter().any(|dir| dir.exists()), "of {below:?} some are left");
}

#[test]
fn exec_in_a_paused_container_wants_ignore_paused() {
    let case = Case::new();
    differs!(case, ["crun"], "crun has no --ignore-paused");
    let bundle = sleeping(&case);
    case.runtime(["pause", &bundle.id]).quiet_success();
    case.exec(&bundle, [], ["true"]).fails_with("paused");
    if case.runtime_is("runc") {
        case.runtime(["resume", &bundle.id]).success();
        skip!("runc 1.1 waits for a start that the freezer holds back");
    }
    bundle.write();
    let mut command = case.command();
    command.args(["exec", "--ignore-paused", &bundle.id, "echo", "thawed"]);
    let out = case.dir().join("said");
    command.stdout(fs::File::create(&out).expect("create a file"));
    let mut child = command.spawn().expect("start the runtime");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(child.try_wait().expect("look at the runtime").is_none(), "it ran while frozen");
    case.runtime(["resume", &bundle.id]).quiet_success();
    assert!(child.wait().expect("wait").success());
    assert_eq!(fs::read_to_string(out).expect("read"), "thawed\n");
}

/// A shell that opens /dev/null on descriptors 3 to `last` and becomes the runtime.
fn with_descriptors(case: &Case, last: u32, prefix: &str) -> Command {
    let opens: String = (3..=last).map(|fd| format!(" {fd}</dev/null")).collect();
    let mut command = Command::new("/bin/bash");
    command.arg("-c").arg(format!("exec {opens}; {prefix} exec \"$@\"")).arg("bash");
    let inner = case.command();
    command.arg(inner.get_program()).args(inner.get_args());
    command.stdin(std::process::Stdio::null());
    command
}

const LIST: &str = "for fd in 3 4 5 6; do test -e /proc/self/fd/$fd && echo $fd; done; true";

#[test]
fn preserve_fds_keeps_so_many() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 leaves a v2 group where v1 is looked at alone");
    let bundle = case.bundle().sh(LIST);
    bundle.write();
    let mut command = with_descriptors(&case, 6, "");
    command.args(["run", "--preserve-fds", "2", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
    case.outcome(command).quiet_success().prints("3\n4");
    let running = sleeping(&case);
    let mut command = with_descriptors(&case, 6, "");
    command.args(["exec", "--preserve-fds", "1", &running.id, "sh", "-c", LIST]);
    case.outcome(command).quiet_success().prints("3");
}

#[test]
fn listen_fds_are_passed_and_told() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 sets no LISTEN_FDS for run");
    let bundle = case.bundle().sh(&format!("echo $LISTEN_FDS $LISTEN_PID; {LIST}"));
    bundle.write();
    let mut command = with_descriptors(&case, 6, "LISTEN_FDS=2 LISTEN_PID=$$");
    command.args(["run", "--preserve-fds", "1", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
    case.outcome(command).quiet_success().prints("2 1\n3\n4\n5");
}

#[test]
fn another_configuration_may_be_named() {
    let case = Case::new();
    differs!(case, ["runc"], "runc has no --config");
    differs!(case, ["crun"], "crun 1.8 leaves a v2 group where v1 is looked at alone");
    let bundle = case.bundle().args(["echo", "from elsewhere"]);
    bundle.write();
    let elsewhere = case.dir().join("other.json");
    fs::rename(bundle.dir.join("config.json"), &elsewhere).expect("move the configuration");
    for flag in ["-f", "--config"] {
        let mut command = case.command();
        command.args(["run", flag, "other.json", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
        command.current_dir(case.dir());
        case.outcome(command).quiet_success().prints("from elsewhere");
    }
    let mut command = case.command();
    command.args(["create", "--no-subreaper", "--config"]).arg(&elsewhere);
    command.arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    case.outcome(command).quiet_success();
}

#[test]
fn kill_and_delete_take_a_regular_expression() {
    let case = Case::new();
    differs!(case, ["runc"], "runc has no --regex");
    differs!(case, ["crun"], "crun 1.8's kill --regex signals other containers, too");
    let (first, second, third) = (sleeping(&case), sleeping(&case), sleeping(&case));
    let pattern = format!("^({}|{})$", first.id, second.id);
    case.runtime(["kill", "--regex", &pattern, "KILL"]).quiet_success();
    case.wait_stopped(&first);
    case.wait_stopped(&second);
    assert_eq!(case.status(&third), "running");
    case.runtime(["delete", "-r", &pattern]).quiet_success();
    case.assert_gone(&first);
    case.assert_gone(&second);
    case.runtime(["delete", "--regex", "^no-such"]).quiet_success();
    case.runtime(["delete", "--regex", "(a"]).fails_with("--regex");
    case.runtime(["delete", "--regex", "."]).fails_with(&third.id);
    case.runtime(["delete", "--force", "--regex", &format!("^{}$", third.id)]).quiet_success();
    case.assert_gone(&third);
}

#[test]
fn spec_writes_to_the_file_that_is_named() {
    let case = Case::new();
    differs!(case, ["runc"], "runc has no spec --file");
    let file = case.dir().join("template.json");
    case.runtime(["spec", "--file", file.to_str().expect("UTF-8")]).quiet_success();
    let text = fs::read(&file).expect("it was written");
    assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok());
}

#[test]
fn changing_the_mounts_of_a_container_is_refused_by_name() {
    let case = Case::new();
    differs!(case, ["crun", "runc"], "runc has no such verb, crun 1.8 neither");
    let bundle = sleeping(&case);
    case.runtime(["mounts", "add", &bundle.id, "/x.json"])
        .exits(1)
        .fails_with("mounts is not supported");
}

#[test]
fn the_log_level_selects() {
    let case = Case::new();
    differs!(case, ["crun", "runc"], "runc and crun 1.8 have no --log-level");
    let bundle = case.bundle().set("/hooks/poststop", json!([{ "path": "/bin/false" }]));
    let said = |level: &str| {
        bundle.write();
        let mut command = case.command();
        command.args(["--log-level", level, "run", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
        case.outcome(command).success().stderr.clone()
    };
    assert_eq!(said("error"), "");
    assert!(said("warning").contains("poststop"));
    assert!(said("debug").contains("level=debug"));
}

/// Runs the failing `state absent` with `--log TARGET` where `place` is ours; what arrives there.
fn sent_to(case: &Case, target: &str, place: &str) -> String {
    let dir = case.dir().join("sockets");
    fs::create_dir_all(&dir).expect("make a directory");
    let name = place.rsplit('/').next().expect("a name");
    let socket = UnixDatagram::bind(dir.join(name)).expect("bind a socket");
    socket.set_nonblocking(true).expect("make the socket non-blocking");
    // In a mount namespace of its own, the place is the socket just made.
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && touch {place} 2>/dev/null;
         mount --bind {}/{name} {place} && exec \"$@\"",
        dir.display()
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", &script, "sh"]);
    let inner = case.command();
    command.arg(inner.get_program()).args(inner.get_args());
    command.args(["--log", target, "state", "absent"]).stdin(std::process::Stdio::null());
    case.outcome(command).exits(1).fails_with("does not exist");
    let mut text = vec![0u8; 4096];
    let n = socket.recv(&mut text).expect("an entry has arrived");
    String::from_utf8_lossy(&text[..n]).into_owned()
}

#[test]
fn the_log_may_go_to_the_journal() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc logs to files alone, Debian's crun is built without");
    let entry = sent_to(&case, "journald:web", "/run/systemd/journal/socket");
    assert!(entry.starts_with("SYSLOG_IDENTIFIER=web\nPRIORITY=3\nMESSAGE\n"), "{entry:?}");
    assert!(entry.contains("does not exist"), "{entry:?}");
}

#[test]
fn the_log_may_go_to_syslog() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc logs to files alone");
    // /dev/log would be made on the host: only where it exists already.
    if !std::path::Path::new("/dev/log").exists() {
        skip!("this host has no /dev/log");
    }
    let entry = sent_to(&case, "syslog:web", "/dev/log");
    assert!(entry.starts_with("<27>web: ") && entry.contains("does not exist"), "{entry:?}");
}

#[test]
fn exec_flags_change_the_process() {
    let case = Case::new();
    differs!(
        case,
        ["crun"],
        "with --env, crun 1.8 looks for the program without the container's PATH"
    );
    let bundle = sleeping(&case);
    let shown = case.exec(
        &bundle,
        ["--cwd", "/tmp", "--env", "A=1", "--env", "B=2", "-u", "1000:1000", "--no-new-privs"],
        ["sh", "-c", "pwd; echo $A $B; id -u; id -g; grep NoNewPrivs /proc/self/status"],
    );
    shown.quiet_success().prints("/tmp\n1 2\n1000\n1000\nNoNewPrivs:\t1");
    for flag in ["--apparmor", "--process-label"] {
        let outcome = case.exec(&bundle, [flag, "no-such-label"], ["true"]);
        // Whether the host lacks the module or the label: it is never dropped.
        if !case.runtime_is("crun") && !case.runtime_is("runc") {
            outcome.fails_with("no-such-label");
        }
    }
}
