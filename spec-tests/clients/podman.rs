//! podman 4.3 and later, by way of its monitor conmon.

use std::process::Command;

use serde_json::json;
use spec_tests::criu::{self, COUNTER, count_by};
use spec_tests::daemon::unmount_below;
use spec_tests::image::Image;
use spec_tests::{Case, Outcome, cgroup, differs, find_program, runtime, skip};

/// A podman that stores everything in the case's directory, with one image, `busybox`.
struct Podman<'a> {
    case: &'a Case,
}

impl Podman<'_> {
    fn open(case: &Case) -> Result<Podman<'_>, String> {
        find_program("podman")?;
        find_program("conmon")?;
        let podman = Podman { case };
        let settings = json!({ "Env": ["PATH=/bin", "FROM=image"], "Cmd": ["echo", "default"] });
        let archive = Image::busybox(case.dir(), settings)
            .write_docker_archive(case.dir(), "localhost/busybox:latest");
        podman.call(&["load", "-q", "-i", archive.to_str().expect("UTF-8")]).success();
        Ok(podman)
    }

    /// `podman ARGS…`
    #[track_caller]
    fn call(&self, args: &[&str]) -> Outcome {
        let dir = self.case.dir().join("podman");
        let mut command = Command::new("podman");
        command.stdin(std::process::Stdio::null());
        for (flag, value) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(flag).arg(dir.join(value));
        }
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command.arg("--runtime").arg(runtime()).args(args);
        self.case.outcome(command)
    }

    /// `podman run FLAGS… busybox ARGS…`
    #[track_caller]
    fn run(&self, flags: &[&str], args: &[&str]) -> Outcome {
        let parent = format!("--cgroup-parent=/{}", self.case.engine_cgroup());
        // podman raises these limits by itself, which needs CAP_SYS_RESOURCE.
        let fixed = [
            "run",
            "--network=none",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
            &parent,
        ];
        self.call(&[fixed.as_slice(), flags, &["busybox"], args].concat())
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        let _ = self.call(&["rm", "--all", "--force", "--time=0"]);
        unmount_below(self.case.dir());
        spec_tests::cgroup::remove_tree(&self.case.engine_cgroup());
    }
}

macro_rules! podman {
    ($case:expr) => {
        match Podman::open(&$case) {
            Ok(podman) => podman,
            Err(reason) => skip!("{reason}"),
        }
    };
}

#[test]
fn podman_run_prints_and_returns() {
    let case = Case::new();
    let podman = podman!(case);
    podman.run(&["--rm"], &[]).success().prints("default");
    for code in [0, 7] {
        let script = format!("echo $FROM; exit {code}");
        podman.run(&["--rm"], &["sh", "-c", &script]).exits(code).prints("image");
    }
    podman.run(&["--rm", "--pid=host"], &["sh", "-c", "kill -KILL $$"]).exits(137);
    // podman chooses these codes by the runtime's words.
    podman.run(&["--rm"], &["no-such-program"]).exits(127);
    podman.run(&["--rm"], &["/etc/passwd"]).exits(126);
}

#[test]
fn podman_manages_a_running_container() {
    let case = Case::new();
    let podman = podman!(case);
    podman.run(&["-d", "--name", "c"], &["sleep", "1000"]).success();
    podman.call(&["exec", "c", "sh", "-c", "echo inside; exit 7"]).exits(7).prints("inside");
    podman.call(&["exec", "-u", "5", "c", "id", "-u"]).success().prints("5");
    let inspect = podman.call(&["inspect", "--format", "{{.State.Status}}", "c"]);
    inspect.success().prints("running");
    podman.call(&["kill", "c"]).success();
    podman.call(&["wait", "c"]).success().prints("137");
    podman.call(&["rm", "c"]).success();
}

#[test]
fn podman_limits() {
    let case = Case::new();
    let podman = podman!(case);
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max";
    let flags = ["--rm", "-m", "64m", "--read-only", "--cgroupns=host"];
    podman.run(&flags, &["sh", "-c", script]).prints_part("67108864");
}

#[test]
fn podman_updates_and_pauses() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 makes a directory where cgroup v2 is not mounted");
    let podman = podman!(case);
    podman.run(&["-d", "--name", "u", "-m", "64m"], &["sleep", "1000"]).success();
    let pid = podman.call(&["inspect", "--format", "{{.State.Pid}}", "u"]);
    let pid = pid.success().stdout.trim().parse().expect("a pid");
    // podman takes an update of v2 alone seriously; on v1 it has no flag for processes.
    podman.call(&["update", "-m", "96m", "--cpus", "0.5", "u"]).success();
    let read = |controller, v1, v2| cgroup::read(pid, controller, v1, v2);
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), "100663296");
    if cgroup::layout() == cgroup::Layout::V1 {
        assert_eq!(read("cpu", "cpu.cfs_quota_us", ""), "50000");
    }
    let state = || podman.call(&["inspect", "--format", "{{.State.Status}}", "u"]).stdout;
    podman.call(&["pause", "u"]).success();
    assert_eq!(state().trim(), "paused");
    podman.call(&["unpause", "u"]).success();
    assert_eq!(state().trim(), "running");
    podman.call(&["exec", "u", "true"]).success();
}

#[test]
fn podman_stats_are_right() {
    let case = Case::new();
    let podman = podman!(case);
    let script = "head -c 16777216 /dev/zero > /dev/shm/x; sleep 100 & echo ready; exec sleep 100";
    podman.run(&["-d", "--name", "s", "-m", "64m"], &["sh", "-c", script]).success();
    let ready = || podman.call(&["logs", "s"]).stdout.contains("ready");
    assert!(spec_tests::wait_until(ready));
    let stats = podman.call(&["stats", "--no-stream", "--format", "json", "s"]);
    let stats = stats.success().json();
    assert_eq!(stats[0]["pids"], "2", "{stats}");
    let usage = stats[0]["mem_usage"].as_str().expect("text");
    let (used, limit) = usage.split_once(" / ").expect("use and limit");
    assert_eq!(limit, "67.11MB", "{stats}");
    let used: f64 = used.strip_suffix("MB").expect("MB").parse().expect("a number");
    assert!((16.7..25.0).contains(&used), "{stats}");
}

#[test]
fn podman_sees_an_oom_kill() {
    let case = Case::new();
    let podman = podman!(case);
    let flags = ["--name", "o", "-m", "8m", "--memory-swap", "8m"];
    podman.run(&flags, &["tail", "-c", "100000000", "/dev/zero"]).exits(137);
}

#[test]
fn podman_checkpoints_and_restores() {
    let case = Case::new();
    if let Err(reason) = criu::works() {
        skip!("{reason}");
    }
    let podman = podman!(case);
    podman.run(&["-d", "--name", "c"], &["sh", "-c", COUNTER]).success();
    let count = |name: &str| count_by(|| podman.call(&["exec", name, "cat", "/count"]));
    let status = |name: &str| podman.call(&["inspect", "--format", "{{.State.Status}}", name]);
    let first = count("c");
    podman.call(&["container", "checkpoint", "--leave-running", "c"]).success();
    status("c").prints("running");
    podman.call(&["container", "checkpoint", "c"]).success();
    status("c").prints("exited");
    podman.call(&["container", "restore", "c"]).success();
    status("c").prints("running");
    let second = count("c");
    assert!(second > first, "{second} after {first}");
    // By a file, under another name, and back from nothing but that file.
    let file = case.dir().join("c.tar.gz");
    let file = file.to_str().expect("UTF-8");
    podman.call(&["container", "checkpoint", "--export", file, "c"]).success();
    podman.call(&["rm", "c"]).success();
    podman.call(&["container", "restore", "--import", file, "--name", "d"]).success();
    let third = count("d");
    assert!(third > second, "{third} after {second}");
}
