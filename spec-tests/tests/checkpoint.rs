//! `checkpoint` and `restore`: what is refused, and that a container goes on where it was.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::Stdio;

use serde_json::json;
use spec_tests::console::ConsoleSocket;
use spec_tests::criu::{Images, assert_counts_on, count, counter, counting, twin};
use spec_tests::{Case, cgroup, differs, find_program, needs_criu, skip, wait_until};

/// Ends the test where the runtime under test is built without checkpoints.
macro_rules! knows_the_verbs {
    ($case:expr) => {
        if $case.runtime_is("crun") && !$case.runtime(["--version"]).stdout.contains("+CRIU") {
            skip!("this crun is built without CRIU");
        }
    };
}

#[test]
fn help_tells_that_there_are_checkpoints() {
    let case = Case::new();
    knows_the_verbs!(case);
    for verb in ["checkpoint", "restore"] {
        case.runtime([verb, "--help"]).success().prints_part("--image-path");
    }
}

#[test]
fn an_option_without_its_value_says_so_in_the_words_that_podman_looks_for() {
    let case = Case::new();
    knows_the_verbs!(case);
    let outcome = case.runtime(["restore", "--lsm-mount-context"]);
    assert!(outcome.code() != 0, "{outcome}");
    let text = outcome.stderr.clone() + &outcome.stdout;
    let known = ["requires an argument", "flag needs an argument"];
    assert!(known.iter().any(|words| text.contains(words)), "{outcome}");
}

#[test]
fn an_option_may_come_twice_as_podman_passes_it() {
    let case = Case::new();
    knows_the_verbs!(case);
    let bundle = case.bundle().args(["sleep", "100"]);
    let mut command = case.command();
    command.args(["checkpoint", "--leave-running", "--leave-running", "--work-path", "/nowhere"]);
    command.arg("--work-path").arg(case.dir()).arg(&bundle.id);
    let text = if case.runtime_is("crun") { &*bundle.id } else { "does not exist" };
    case.outcome(command).exits(1).fails_with(text);
    case.start(&bundle);
    let env = case.exec(
        &bundle,
        ["--env", "A=1", "--env", "B=2", "--cwd", "/x", "--cwd", "/"],
        ["sh", "-c", "echo $A$B; pwd"],
    );
    env.quiet_success().prints("12\n/");
}

#[test]
fn a_container_that_is_not_there_cannot_be_checkpointed() {
    let case = Case::new();
    knows_the_verbs!(case);
    let mut command = case.command();
    command.arg("checkpoint").arg("--image-path").arg(case.dir().join("images")).arg("nobody");
    let text = if case.runtime_is("crun") { "nobody" } else { "does not exist" };
    case.outcome(command).exits(1).fails_with(text);
}

#[test]
fn a_container_that_does_not_run_cannot_be_checkpointed() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "its words are others");
    let bundle = case.bundle();
    let images = Images::new(&case, "images");
    case.create(&bundle).quiet_success();
    images.checkpoint(&bundle, &[]).exits(1).fails_with("is created, and cannot be checkpointed");
    case.runtime(["start", &bundle.id]).quiet_success();
    case.wait_stopped(&bundle);
    images.checkpoint(&bundle, &[]).exits(1).fails_with("is stopped, and cannot be checkpointed");
    assert!(!images.dir.exists(), "a refused checkpoint makes no directory");
}

#[test]
fn words_that_mean_nothing_are_refused_by_name() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "it refuses fewer");
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    let images = Images::new(&case, "images");
    for (flags, text) in [
        (&["--page-server", "nowhere"][..], "--page-server"),
        (&["--page-server", "127.0.0.1:0"], "--page-server"),
        (&["--empty-ns", "pid"], "--empty-ns"),
        (&["--manage-cgroups-mode", "half"], "--manage-cgroups-mode"),
        (&["--lazy-pages"], "--page-server"),
        (&["--pre-dump", "--lazy-pages"], "--pre-dump"),
        (&["--status-fd", "0"], "--lazy-pages"),
        (&["--lazy-pages", "--page-server", "127.0.0.1:9", "--status-fd", "0"], "--status-fd"),
        (&["--lazy-pages", "--page-server", "127.0.0.1:9", "--status-fd", "99"], "--status-fd"),
    ] {
        images.checkpoint(&bundle, flags).exits(1).fails_with(text);
    }
    assert_eq!(case.status(&bundle), "running");
    assert!(!images.dir.exists(), "a refused checkpoint makes no directory");
}

#[test]
fn a_restore_that_cannot_be_is_refused_by_name_and_leaves_nothing() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "it refuses fewer");
    let bundle = case.bundle();
    let images = Images::new(&case, "images");
    images.restore(&bundle, &[]).exits(1).fails_with("--image-path");
    case.assert_gone(&bundle);
    images.restore(&bundle, &["--no-pivot"]).exits(1).fails_with("--no-pivot");
    images.restore(&bundle, &["--manage-cgroups-mode", "x"]).exits(1).fails_with("x");
    case.assert_gone(&bundle);
    fs::create_dir(&images.dir).expect("make a directory without images");
    let outcome = images.restore(&bundle, &["--detach"]);
    outcome.exits(1).fails_with("criu");
    case.assert_gone(&bundle);
    images.restore(&bundle, &["--preserve-fds", "1"]).exits(1).fails_with("--preserve-fds");
    case.assert_gone(&bundle);
}

#[test]
fn namespaces_that_criu_cannot_join_again_are_refused() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "it leaves that to criu");
    let bundle = case.bundle().namespace("mount", Some("/proc/self/ns/mnt".as_ref()));
    let images = Images::new(&case, "images");
    images.restore(&bundle, &[]).exits(1).fails_with("the mount namespace is joined");
    case.assert_gone(&bundle);
}

#[test]
fn a_failed_checkpoint_names_the_log_and_leaves_the_container_running() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "its words are others");
    let bundle = counter(&case);
    case.start(&bundle);
    let before = count(&bundle);
    // An option of criu's own file that it does not know, or, on a kernel that it does not
    // know, whatever comes first.
    let file = case.dir().join("criu.conf");
    fs::write(&file, "no-such-option\n").expect("write a file of options");
    let wrong = case.bundle().args(["sleep", "100"]);
    let wrong = wrong.set("/annotations/org.criu.config", file.to_str().expect("UTF-8"));
    case.start(&wrong);
    let images = Images::new(&case, "images");
    let outcome = images.checkpoint(&wrong, &[]);
    outcome.exits(1).fails_with("criu").fails_with(images.dir.to_str().expect("UTF-8"));
    assert_eq!(case.status(&wrong), "running");
    assert_counts_on(&bundle, before);
}

#[test]
fn a_container_goes_on_where_it_was() {
    let case = Case::new();
    needs_criu!(case);
    let (bundle, images) = counting(&case);
    assert!(wait_until(|| count(&bundle) > 5));
    images.checkpoint(&bundle, &[]).quiet_success();
    case.assert_gone(&bundle);
    let before = count(&bundle);
    let pid_file = case.dir().join("pid");
    let flags = ["--detach", "--pid-file", pid_file.to_str().expect("UTF-8")];
    images.restore(&bundle, &flags).quiet_success();
    assert_eq!(case.status(&bundle), "running");
    assert_eq!(fs::read_to_string(&pid_file).expect("a pid"), case.pid(&bundle).to_string());
    assert_counts_on(&bundle, before);
    // Everything that is done to a container can be done to it.
    case.exec(&bundle, [], ["cat", "/proc/1/comm"]).quiet_success().prints("sh");
    case.runtime(["pause", &bundle.id]).quiet_success();
    assert_eq!(case.status(&bundle), "paused");
    case.runtime(["resume", &bundle.id]).quiet_success();
    case.runtime(["kill", &bundle.id, "KILL"]).quiet_success();
    case.wait_stopped(&bundle);
    case.runtime(["delete", &bundle.id]).quiet_success();
    case.assert_gone(&bundle);
}

#[test]
fn a_restored_container_writes_to_the_file_that_it_wrote_to() {
    let case = Case::new();
    needs_criu!(case);
    let script = "echo before; while test ! -e /root/go; do sleep 0.05; done; echo after; exit 7";
    let bundle = case.bundle().writable().sh(script);
    let created = case.start(&bundle);
    assert!(wait_until(|| created.stdout_now() == "before\n"));
    let images = Images::new(&case, "images");
    images.checkpoint(&bundle, &[]).quiet_success();
    fs::write(bundle.rootfs().join("root/go"), "").expect("let it go on");
    // In the foreground: its exit code is the verb's.
    images.restore(&bundle, &[]).exits(7).prints("");
    assert_eq!(created.stdout_now(), "before\nafter\n");
    case.assert_gone(&bundle);
}

#[test]
fn a_checkpoint_may_come_at_any_moment_of_an_echo() {
    let case = Case::new();
    needs_criu!(case);
    // The shell's stdout is put aside for half of the time.
    let script = "i=0; while :; do i=$((i+1)); { echo $i; sleep 0.03; } > /count; sleep 0.03; done";
    let bundle = case.bundle().writable().sh(script);
    case.start(&bundle);
    let mut aside = 0;
    for round in 0..10 {
        let before = count(&bundle);
        let images = Images::new(&case, &format!("images-{round}"));
        images.round_trip(&bundle, &[]);
        assert_counts_on(&bundle, before);
        let list = fs::read(images.dir.join("descriptors.json")).expect("the descriptors");
        let list: Vec<String> = serde_json::from_slice(&list).expect("an array");
        aside += usize::from(list[1].ends_with("/count"));
    }
    assert!(aside > 0, "none of ten checkpoints was taken within an echo");
}

#[test]
fn a_pipe_that_is_put_aside_is_replaced_too() {
    let case = Case::new();
    needs_criu!(case);
    let script = "while test ! -e /root/go; do echo 1 > /count; sleep 0.05; done > /other; \
                  echo through the pipe";
    let bundle = case.bundle().writable().sh(script);
    bundle.write();
    let mut command = case.command();
    command.args(["run", "--detach", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
    let mut first = command.stdout(Stdio::piped()).spawn().expect("start the runtime");
    assert!(first.wait().expect("wait for the runtime").success());
    assert_eq!(count(&bundle), 1);
    let images = Images::new(&case, "images");
    images.checkpoint(&bundle, &[]).quiet_success();
    fs::write(bundle.rootfs().join("root/go"), "").expect("let it go on");
    images.restore(&bundle, &[]).exits(0).prints("through the pipe");
}

#[test]
fn a_file_outside_that_nobody_could_open_again_is_refused() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "it leaves that to the restore");
    let bundle = case.bundle().args(["sleep", "1000"]);
    bundle.write();
    let log = case.dir().join("log");
    let mut command = case.command();
    command.args(["run", "--detach", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
    command.stdout(fs::File::create(&log).expect("make a file"));
    assert!(command.status().expect("run the runtime").success());
    fs::remove_file(&log).expect("delete the file");
    let outcome = Images::new(&case, "images").checkpoint(&bundle, &[]);
    outcome.exits(1).fails_with("descriptor 1 is a file outside of the container");
    assert_eq!(case.status(&bundle), "running");
}

#[test]
fn pipes_are_replaced_by_those_of_who_restores() {
    let case = Case::new();
    needs_criu!(case);
    let bundle = case
        .bundle()
        .writable()
        .sh("while test ! -e /root/go; do sleep 0.05; done; echo through the pipe");
    bundle.write();
    let mut command = case.command();
    command.args(["run", "--detach", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
    let (stdin, output) = (Stdio::null(), Stdio::piped());
    let mut first = command.stdin(stdin).stdout(output).spawn().expect("start the runtime");
    assert!(first.wait().expect("wait for the runtime").success());
    let images = Images::new(&case, "images");
    images.checkpoint(&bundle, &[]).quiet_success();
    fs::write(bundle.rootfs().join("root/go"), "").expect("let it go on");
    images.restore(&bundle, &[]).exits(0).prints("through the pipe");
}

#[test]
fn a_container_that_is_left_running_runs() {
    let case = Case::new();
    needs_criu!(case);
    let (bundle, images) = counting(&case);
    let pid = case.pid(&bundle);
    images.checkpoint(&bundle, &["--leave-running"]).quiet_success();
    assert_eq!((case.status(&bundle), case.pid(&bundle)), ("running".into(), pid));
    assert_counts_on(&bundle, count(&bundle));
    assert!(images.dir.join("inventory.img").exists());
}

#[test]
fn a_paused_container_can_be_checkpointed() {
    let case = Case::new();
    needs_criu!(case);
    let (bundle, images) = counting(&case);
    let before = count(&bundle);
    case.runtime(["pause", &bundle.id]).quiet_success();
    images.round_trip(&bundle, &[]);
    assert_counts_on(&bundle, before);
}

#[test]
fn a_container_can_come_back_under_another_name_and_in_another_cgroup() {
    let case = Case::new();
    needs_criu!(case);
    let (bundle, images) = counting(&case);
    images.checkpoint(&bundle, &[]).quiet_success();
    let before = count(&bundle);
    let other = twin(&case, &bundle);
    images.restore(&other, &["--detach"]).quiet_success();
    assert_counts_on(&bundle, before);
    let dir = cgroup::dir_of(case.pid(&other), "pids");
    assert!(dir.ends_with(&other.id), "{} is not of {}", dir.display(), other.id);
    case.assert_missing("state", &bundle.id);
}

#[test]
fn limits_hold_after_a_restore() {
    let case = Case::new();
    needs_criu!(case);
    let bundle = counter(&case).set("/linux/resources/pids", json!({ "limit": 7 }));
    case.start(&bundle);
    let images = Images::new(&case, "images");
    images.round_trip(&bundle, &[]);
    let pid = case.pid(&bundle);
    assert_eq!(cgroup::read(pid, "pids", "pids.max", "pids.max"), "7");
}

#[test]
fn mounts_from_outside_come_from_outside_again() {
    let case = Case::new();
    needs_criu!(case);
    let data = case.dir().join("data with blank");
    fs::create_dir(&data).expect("make a directory");
    fs::write(data.join("file"), "first").expect("write a file");
    let source = data.to_str().expect("UTF-8").to_owned();
    let bundle = counter(&case)
        .mount("/data", "bind", &source, &["rbind", "ro"])
        .mount("/one-file", "bind", &format!("{source}/file"), &["bind"])
        .mount("/scratch", "tmpfs", "tmpfs", &["size=1m"])
        .file("secret", "shown")
        .file("secrets/one", "shown")
        .push("/linux/maskedPaths", "/secret")
        .push("/linux/maskedPaths", "/secrets");
    case.start(&bundle);
    case.exec(&bundle, [], ["sh", "-c", "echo kept > /scratch/file"]).quiet_success();
    let images = Images::new(&case, "images");
    images.checkpoint(&bundle, &[]).quiet_success();
    fs::write(data.join("file"), "second").expect("write a file");
    images.restore(&bundle, &["--detach"]).quiet_success();
    let script = "cat /data/file /one-file /scratch/file; touch /data/x 2>/dev/null || echo ro; \
                  cat /secret; stat -c %t:%T /secret; ls /secrets";
    let outcome = case.exec(&bundle, [], ["sh", "-c", script]);
    outcome.quiet_success().prints("secondsecondkept\nro\n1:3");
}

#[test]
fn a_joined_network_namespace_is_joined_again() {
    let case = Case::new();
    needs_criu!(case);
    let holder = case.bundle().args(["sleep", "1000"]);
    case.start(&holder);
    let path = format!("/proc/{}/ns/net", case.pid(&holder));
    let bundle = counter(&case).namespace("network", Some(path.as_ref()));
    case.start(&bundle);
    let images = Images::new(&case, "images");
    images.round_trip(&bundle, &[]);
    let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).expect("a namespace");
    assert_eq!(of(case.pid(&bundle)), of(case.pid(&holder)));
}

#[test]
fn a_user_namespace_comes_back() {
    let case = Case::new();
    needs_criu!(case);
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let bundle = case
        .bundle()
        .args(["sleep", "1000"])
        .namespace("user", None)
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    // Nobody but root may write to the files that the case has for its output.
    bundle.write();
    let mut command = case.command();
    command.args(["run", "--detach", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("run the runtime").success());
    let images = Images::new(&case, "images");
    images.round_trip(&bundle, &[]);
    let read = |pid: u32| fs::read_to_string(format!("/proc/{pid}/uid_map")).expect("a map");
    assert!(read(case.pid(&bundle)).contains("100000"));
    case.exec(&bundle, [], ["sh", "-c", "echo x > /dev/null && id -u"]).quiet_success().prints("0");
}

#[test]
fn a_terminal_comes_back_over_the_console_socket() {
    let case = Case::new();
    needs_criu!(case);
    let script = "stty -echo; while read line; do echo \"got <$line>\"; done";
    let bundle = case.bundle().set("/process/terminal", true).sh(script);
    let socket = ConsoleSocket::bind(&bundle.dir);
    let flags = ["--console-socket", socket.path()];
    case.on_bundle("create", &bundle, flags).quiet_success();
    let mut first = socket.accept();
    case.runtime(["start", &bundle.id]).quiet_success();
    let talk = |console: &mut fs::File, word: &str| {
        writeln!(console, "{word}").expect("type a line");
        let (mut text, mut chunk) = (String::new(), [0u8; 256]);
        while !text.contains(&format!("got <{word}>")) {
            let n = console.read(&mut chunk).expect("read what it prints");
            text.push_str(&String::from_utf8_lossy(&chunk[..n]));
        }
    };
    talk(&mut first, "one");
    let images = Images::new(&case, "images");
    images.checkpoint(&bundle, &[]).quiet_success();
    drop(first);
    images.restore(&bundle, &["--detach", flags[0], flags[1]]).quiet_success();
    let mut second = socket.accept();
    talk(&mut second, "two");
}

#[test]
fn hooks_run_on_the_way_out_and_back() {
    let case = Case::new();
    needs_criu!(case);
    let log = case.dir().join("hooks");
    let hook = |name: &str| {
        let line = format!("cat > /dev/null; echo {name} >> {}", log.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", line] }])
    };
    let bundle = counter(&case)
        .set("/hooks/createRuntime", hook("createRuntime"))
        .set("/hooks/poststop", hook("poststop"));
    case.start(&bundle);
    let images = Images::new(&case, "images");
    images.round_trip(&bundle, &[]);
    let said = fs::read_to_string(&log).expect("the hooks ran");
    assert_eq!(said.lines().collect::<Vec<_>>(), ["createRuntime", "poststop", "createRuntime"]);
}

#[test]
fn a_failed_restore_leaves_nothing_and_names_its_log() {
    let case = Case::new();
    needs_criu!(case);
    let (bundle, images) = counting(&case);
    images.checkpoint(&bundle, &[]).quiet_success();
    let before = count(&bundle);
    let core = images.dir.join("core-1.img");
    let saved = fs::read(&core).expect("the image of the first process");
    fs::write(&core, &saved[..saved.len() / 2]).expect("cut an image short");
    let outcome = images.restore(&bundle, &["--detach"]);
    outcome.exits(1).fails_with("criu restore failed").fails_with("restore.log");
    case.assert_gone(&bundle);
    // What a hook refuses is undone as well.
    fs::write(&core, saved).expect("mend the image");
    let refusing = json!([{ "path": "/bin/false" }]);
    let refused = twin(&case, &bundle).set("/hooks/createRuntime", refusing);
    images.restore(&refused, &["--detach"]).exits(1).fails_with("hooks.createRuntime[0]");
    case.assert_gone(&refused);
    assert_eq!(count(&bundle), before, "something runs on");
    images.restore(&bundle, &["--detach"]).quiet_success();
    assert_counts_on(&bundle, before);
}

#[test]
fn a_restore_by_systemd_has_a_scope() {
    let case = Case::new();
    needs_criu!(case);
    if !std::path::Path::new("/run/systemd/system").exists() {
        skip!("systemd is not this system's init");
    }
    let bundle = counter(&case).set("/linux/resources/pids", json!({ "limit": 31 }));
    let path = format!("davit-test.slice:davit:{}", bundle.id);
    let bundle = bundle.set("/linux/cgroupsPath", path);
    bundle.write();
    let scope = format!("davit-{}.scope", bundle.id);
    let property = |name: &str| {
        let mut command = std::process::Command::new("systemctl");
        command.args(["show", "--property", name, "--value", &scope]);
        case.outcome(command).success().stdout.trim().to_owned()
    };
    let driven = |args: &[&str]| {
        let mut command = case.command();
        command.arg("--systemd-cgroup").args(args).arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
        case.outcome(command)
    };
    driven(&["run", "--detach"]).success();
    let before = count(&bundle);
    let images = Images::new(&case, "images");
    images.checkpoint(&bundle, &[]).quiet_success();
    assert_eq!(property("LoadState"), "not-found");
    let dir = images.dir.to_str().expect("UTF-8");
    driven(&["restore", "--detach", "--image-path", dir]).quiet_success();
    assert_counts_on(&bundle, before);
    let own = cgroup::dir_of(case.pid(&bundle), "pids");
    assert!(own.ends_with(&scope), "it is in {}", own.display());
    assert_eq!((&*property("ActiveState"), &*property("TasksMax")), ("active", "31"));
    assert_eq!(cgroup::read(case.pid(&bundle), "pids", "pids.max", "pids.max"), "31");
    case.runtime(["delete", "--force", &bundle.id]).quiet_success();
    assert_eq!(property("LoadState"), "not-found");
    // What fails leaves no scope either.
    fs::remove_file(images.dir.join("core-1.img")).expect("spoil the images");
    driven(&["restore", "--detach", "--image-path", dir]).exits(1).fails_with("criu restore");
    assert_eq!(property("LoadState"), "not-found");
    case.assert_gone(&bundle);
}

#[test]
fn network_devices_are_moved_at_a_restore() {
    let case = Case::new();
    needs_criu!(case);
    let (bundle, images) = counting(&case);
    // CRIU saves no device that leads out of the container: the namespace comes back empty.
    images.checkpoint(&bundle, &["--empty-ns", "network"]).quiet_success();
    let before = count(&bundle);
    let bundle = bundle.set("/linux/netDevices", json!({ "dev0": { "name": "lan" } }));
    bundle.write();
    let mut runtime = case.command();
    runtime.args(["restore", "--detach", "--empty-ns", "network", "--image-path"]);
    runtime.arg(&images.dir).arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    let mut shell = std::process::Command::new("unshare");
    let setup = "ip link add dev0 type veth peer name other0 && ip addr add 192.0.2.7/24 dev dev0";
    let peer = "ip link show other0 > /dev/null && ! ip link show dev0 2> /dev/null";
    shell.args(["--net", "sh", "-c", &format!("{setup} && \"$0\" \"$@\" && {peer} && sleep 1000")]);
    shell.arg(runtime.get_program()).args(runtime.get_args());
    // The shell is the host, and holds the other end.
    let mut host = shell.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("unshare");
    let restored = wait_until(|| case.runtime(["state", &bundle.id]).code() == 0);
    assert!(restored, "no restore");
    assert_counts_on(&bundle, before);
    let shown = case.exec(&bundle, [], ["ip", "-o", "addr", "show", "lan"]);
    host.kill().expect("end the host");
    host.wait().expect("wait for the host");
    shown.quiet_success().prints_part("192.0.2.7/24");
}

#[test]
fn a_wait_that_fails_ends_what_was_restored() {
    let case = Case::new();
    needs_criu!(case);
    if let Err(why) = find_program("strace") {
        skip!("{why}");
    }
    let (bundle, images) = counting(&case);
    images.checkpoint(&bundle, &[]).quiet_success();
    let mut runtime = case.command();
    runtime.args(["restore", "--image-path"]).arg(&images.dir);
    runtime.arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    let mut strace = std::process::Command::new("strace");
    strace.arg("-o").arg(case.dir().join("trace"));
    strace.args(["-e", "inject=rt_sigtimedwait:error=EIO", "-e", "trace=rt_sigtimedwait"]);
    strace.arg(runtime.get_program()).args(runtime.get_args());
    case.outcome(strace).exits(1).fails_with("EIO");
    case.assert_gone(&bundle);
    let last = count(&bundle);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(count(&bundle), last, "it runs on");
}
