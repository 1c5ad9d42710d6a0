//! podman 4.3 and later, by way of its monitor conmon.

use std::process::Command;

use serde_json::json;
use spec_tests::criu::{self, COUNTER, count_by};
use spec_tests::daemon::{alone, unmount_below};
use spec_tests::image::Image;
use spec_tests::limits::{self, EATS, FORKS, SPINS};
use spec_tests::terminal::{self, Terminal};
use spec_tests::{Case, Outcome, cgroup, differs, find_program, runtime, skip, wait_until};

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
        let alone = alone();
        podman.call(&["load", "-q", "-i", archive.to_str().expect("UTF-8")]).success();
        drop(alone);
        Ok(podman)
    }

    /// `podman ARGS…`
    #[track_caller]
    fn call(&self, args: &[&str]) -> Outcome {
        self.case.outcome(self.command(args))
    }

    fn command(&self, args: &[&str]) -> Command {
        let dir = self.case.dir().join("podman");
        let mut command = Command::new("podman");
        command.stdin(std::process::Stdio::null());
        for (flag, value) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(flag).arg(dir.join(value));
        }
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command.arg("--runtime").arg(runtime()).args(args);
        command
    }

    /// The host's pid of a container's first process.
    #[track_caller]
    fn pid(&self, name: &str) -> u32 {
        let pid = self.call(&["inspect", "--format", "{{.State.Pid}}", name]);
        pid.success().stdout.trim().parse().expect("a pid")
    }

    /// `podman run FLAGS… busybox ARGS…`
    #[track_caller]
    fn run(&self, flags: &[&str], args: &[&str]) -> Outcome {
        self.case.outcome(self.run_command(flags, args))
    }

    fn run_command(&self, flags: &[&str], args: &[&str]) -> Command {
        let parent = format!("--cgroup-parent=/{}", self.case.engine_cgroup());
        // podman raises these limits by itself, which needs CAP_SYS_RESOURCE.
        let fixed = [
            "run",
            "--network=none",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
            &parent,
        ];
        self.command(&[fixed.as_slice(), flags, &["busybox"], args].concat())
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
    let pid = podman.pid("u");
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
    assert!(wait_until(ready));
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
    // Whether podman calls it an OOM kill depends on who is first, the end or its monitor's look.
    podman.run(&flags, &["tail", "-c", "100000000", "/dev/zero"]).exits(137);
    // Of a container that survives it the kernel counts.
    let flags = ["-d", "--name", "p", "-m", "8m", "--memory-swap", "8m"];
    let survivor = EATS.replace("exit $code", "sleep 100");
    podman.run(&flags, &["sh", "-c", &survivor]).success();
    let pid = podman.pid("p");
    assert!(wait_until(|| limits::oom_kills(pid) == 1), "{}", limits::oom_kills(pid));
}

#[test]
fn podman_runs_and_executes_on_a_terminal() {
    let case = Case::new();
    let podman = podman!(case);
    let run = podman.run_command(&["--rm", "-it"], &["sh", "-c", terminal::PROGRAM]);
    Terminal::start(&run).take_through();
    podman.run(&["-d", "--name", "one"], &["sleep", "1000"]).success();
    let exec = ["exec", "-it", "-u", "5", "one", "sh", "-c", terminal::PROGRAM];
    Terminal::start(&podman.command(&exec)).take_through();
}

#[test]
fn podman_limits_bite() {
    let case = Case::new();
    let podman = podman!(case);
    let forks = podman.run(&["--rm", "--pids-limit", "20"], &["sh", "-c", FORKS]);
    forks.fails_with("can't fork");
    podman.run(&["--rm", "--pids-limit", "60"], &["sh", "-c", FORKS]).success().prints("all");
    podman.run(&["-d", "--name", "spin", "--cpus", "0.05"], &["sh", "-c", SPINS]).success();
    limits::assert_throttled(podman.pid("spin"), 0.05);
    podman.call(&["update", "--cpus", "0.03", "spin"]).success();
    limits::assert_throttled(podman.pid("spin"), 0.03);
}

#[test]
fn podman_settings_are_in_force() {
    let case = Case::new();
    let podman = podman!(case);
    let volume = case.dir().join("volume");
    std::fs::create_dir(&volume).expect("make a volume");
    std::fs::write(volume.join("file"), "kept\n").expect("write");
    let volume = format!("{}:/volume:ro", volume.display());
    let flags = ["--rm", "--read-only", "--read-only-tmpfs=false", "-v", &volume];
    let more = ["--tmpfs", "/scratch:size=1m,mode=1770", "--hostname", "me", "--umask", "0027"];
    let yet = ["--cap-drop", "all", "--cap-add", "chown", "--security-opt", "no-new-privileges"];
    let script = "hostname; ulimit -n; cat /volume/file; touch /volume/x; touch /x; \
                  touch /scratch/x && stat -c %a /scratch /scratch/x; \
                  grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status";
    let flags = [flags.as_slice(), &more, &yet].concat();
    let outcome = podman.run(&flags, &["sh", "-c", script]);
    outcome.prints_part("me\n1024\nkept\n1770\n640\n");
    assert_eq!(outcome.field("CapEff"), "0000000000000001", "{outcome}");
    assert_eq!((outcome.field("NoNewPrivs"), outcome.field("Seccomp")), ("1", "2"), "{outcome}");
    for refused in ["/volume/x: Read-only", "touch: /x: Read-only"] {
        assert!(outcome.stderr.contains(refused), "{refused}: {outcome}");
    }
}

#[test]
fn podman_maps_users() {
    let case = Case::new();
    let podman = podman!(case);
    // podman gives the directories of its storage to the mapped root alone.
    let flags = ["--rm", "--uidmap", "0:100000:1000", "--gidmap", "0:200000:1000", "-u", "7:8"];
    let script = "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; id -u; touch /dev/shm/x && stat -c %g /dev/shm/x";
    podman
        .run(&flags, &["sh", "-c", script])
        .success()
        .prints("0 100000 1000\n 0 200000 1000\n7\n8");
}

#[test]
fn podman_stops_logs_and_copies() {
    let case = Case::new();
    let podman = podman!(case);
    let script = "trap 'echo told to stop; exit 4' TERM; echo begun; \
                  while :; do sleep 0.1; done";
    podman.run(&["-d", "--name", "one"], &["sh", "-c", script]).success();
    assert!(wait_until(|| podman.call(&["logs", "one"]).stdout.contains("begun")));
    let file = case.dir().join("well");
    std::fs::write(&file, "copied").expect("write");
    podman.call(&["cp", file.to_str().expect("UTF-8"), "one:/tmp/well"]).success();
    podman.call(&["exec", "one", "cat", "/tmp/well"]).success().prints("copied");
    podman.call(&["top", "one", "args"]).success().prints_part("sleep 0.1");
    podman.call(&["stop", "-t", "20", "one"]).success();
    let code = podman.call(&["inspect", "--format", "{{.State.ExitCode}}", "one"]);
    code.success().prints("4");
    podman.call(&["logs", "one"]).success().prints("begun\ntold to stop");
    podman.call(&["start", "one"]).success();
    podman.call(&["restart", "-t", "20", "one"]).success();
    let state = podman.call(&["inspect", "--format", "{{.State.Status}}", "one"]);
    state.success().prints("running");
}

#[test]
fn podman_pods_share_namespaces() {
    let case = Case::new();
    let podman = podman!(case);
    let infra = ["--infra-image", "localhost/busybox", "--infra-command", "sleep 1000"];
    let parent = format!("--cgroup-parent=/{}", case.engine_cgroup());
    let create =
        ["pod", "create", "--name", "pod", "--network=none", "--share=net,uts,ipc", &parent];
    podman.call(&[create.as_slice(), &infra].concat()).success();
    let started = podman.call(&["pod", "start", "pod"]);
    if started.stderr.contains("RLIMIT_NOFILE") {
        skip!("podman gives a pod's first container limits that need CAP_SYS_RESOURCE");
    }
    started.success();
    let member =
        ["run", "--rm", "--pod", "pod", "busybox", "sh", "-c", "readlink /proc/self/ns/uts"];
    let first = podman.call(&member).success().stdout.clone();
    podman.call(&member).success().prints(first.trim());
    let flags = ["--detach", "--name", "member", "--pod", "pod"];
    podman.call(&[["run"].as_slice(), &flags, &["busybox", "sleep", "1000"]].concat()).success();
    podman.call(&["pod", "pause", "pod"]).success();
    podman.call(&["pod", "unpause", "pod"]).success();
    let kube = podman.call(&["generate", "kube", "pod"]);
    kube.success().prints_part("kind: Pod");
    podman.call(&["pod", "rm", "--force", "--time=0", "pod"]).success();
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
    podman.call(&["container", "checkpoint", "--keep", "c"]).success();
    status("c").prints("exited");
    podman.call(&["container", "restore", "--keep", "c"]).success();
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
