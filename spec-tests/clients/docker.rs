//! dockerd 20.10 and later, with the runtime under test beside its own.

use std::process::Command;

use serde_json::json;
use spec_tests::criu::{self, COUNTER, count_by};
use spec_tests::daemon::Daemon;
use spec_tests::image::Image;
use spec_tests::limits::{self, EATS, FORKS, SPINS};
use spec_tests::terminal::{self, Terminal};
use spec_tests::{Case, Outcome, cgroup, differs, find_program, runtime, skip, wait_until};

/// A dockerd of the case's own, with one image, `busybox`.
struct Docker<'a> {
    case: &'a Case,
    _daemon: Daemon,
}

impl Docker<'_> {
    fn start(case: &Case) -> Result<Docker<'_>, String> {
        let dockerd = find_program("dockerd")?;
        find_program("docker")?;
        find_program("containerd")?;
        let dir = case.dir().join("docker");
        std::fs::create_dir(&dir).expect("make docker's directory");
        let mut command = Command::new(dockerd);
        command.arg("--data-root").arg(dir.join("data")).arg("--exec-root").arg(dir.join("exec"));
        command.arg("--pidfile").arg(dir.join("pid"));
        command.arg("-H").arg(format!("unix://{}", dir.join("sock").display()));
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--experimental"]);
        // Where systemd runs and cgroups are v2, dockerd would choose systemd's groups.
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
        command.arg(format!("--add-runtime=ours={}", runtime().display()));
        let daemon = Daemon::start(command, &dir, || {
            let version = docker(case).arg("version").output();
            version.is_ok_and(|output| output.status.success())
        });
        let docker = Docker { case, _daemon: daemon };
        let settings = json!({ "Env": ["PATH=/bin", "FROM=image"], "Cmd": ["echo", "default"] });
        let archive =
            Image::busybox(case.dir(), settings).write_docker_archive(case.dir(), "busybox:latest");
        docker.call(&["load", "-q", "-i", archive.to_str().expect("UTF-8")]).success();
        Ok(docker)
    }

    /// `docker ARGS…`
    #[track_caller]
    fn call(&self, args: &[&str]) -> Outcome {
        let mut command = docker(self.case);
        command.args(args);
        self.case.outcome(command)
    }

    /// `docker run --runtime ours FLAGS… busybox ARGS…`
    #[track_caller]
    fn run(&self, flags: &[&str], args: &[&str]) -> Outcome {
        self.case.outcome(self.run_command(flags, args))
    }

    fn run_command(&self, flags: &[&str], args: &[&str]) -> Command {
        let parent = format!("/{}", self.case.engine_cgroup());
        let mut command = docker(self.case);
        command.args(["run", "--runtime=ours", "--network=none", "--cgroup-parent", &parent]);
        command.args(flags).arg("busybox").args(args);
        command
    }

    /// `docker inspect --format FORMAT NAME`, as one line.
    #[track_caller]
    fn inspect(&self, format: &str, name: &str) -> String {
        self.call(&["inspect", "--format", format, name]).success().stdout.trim().to_owned()
    }

    /// The host's pid of a container's first process.
    #[track_caller]
    fn pid(&self, name: &str) -> u32 {
        self.inspect("{{.State.Pid}}", name).parse().expect("a pid")
    }

    /// `docker start --checkpoint CHECKPOINT NAME`
    ///
    /// dockerd packs the images anew and hands them to its containerd, which may still hold the same
    /// bytes since the checkpoint was made (moby#42900): until its next collection of garbage it
    /// refuses what it has. Here it is told to drop them.
    #[track_caller]
    fn start_from(&self, checkpoint: &str, name: &str) -> Outcome {
        let start = || self.call(&["start", "--checkpoint", checkpoint, name]);
        let started = start();
        let has = |word: &&str| word.starts_with("sha256:");
        let kept = started.stderr.split_whitespace().find(has);
        let Some(digest) = kept.filter(|_| started.stderr.contains("already exists")) else {
            return started;
        };
        let mut command = Command::new("ctr");
        let socket = self.case.dir().join("docker/exec/containerd/containerd.sock");
        command.arg("--address").arg(socket).args(["--namespace", "moby", "content", "rm"]);
        command.arg(digest.trim_end_matches(':'));
        self.case.outcome(command).success();
        start()
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        for id in self.call(&["ps", "--all", "--quiet"]).stdout.lines() {
            let _ = self.call(&["rm", "--force", id]);
        }
        spec_tests::cgroup::remove_tree(&self.case.engine_cgroup());
    }
}

fn docker(case: &Case) -> Command {
    let mut command = Command::new("docker");
    let socket = case.dir().join("docker/sock");
    command.arg("-H").arg(format!("unix://{}", socket.display()));
    command.env("DOCKER_CONFIG", case.dir());
    command
}

/// The text of a container that a test starts: `Ok`, or the reason to skip.
macro_rules! docker {
    ($case:expr) => {
        match Docker::start(&$case) {
            Ok(docker) => docker,
            Err(reason) => skip!("{reason}"),
        }
    };
}

#[test]
fn docker_run_prints_and_returns() {
    let case = Case::new();
    let docker = docker!(case);
    docker.run(&["--rm"], &[]).success().prints("default");
    for code in [0, 7] {
        let script = format!("echo $FROM; exit {code}");
        docker.run(&["--rm"], &["sh", "-c", &script]).exits(code).prints("image");
    }
    docker.run(&["--rm", "--pid=host"], &["sh", "-c", "kill -KILL $$"]).exits(137);
    docker
        .run(
            &["--rm", "-e", "A=b", "-u", "12:34", "-w", "/tmp"],
            &["sh", "-c", "echo $A $PWD; id -u"],
        )
        .success()
        .prints("b /tmp\n12");
}

#[test]
fn docker_tells_a_missing_program_from_one_that_may_not_run() {
    let case = Case::new();
    differs!(case, ["crun"], "crun words a missing program otherwise, and docker says 125");
    let docker = docker!(case);
    // dockerd chooses these codes by the runtime's words.
    docker.run(&["--rm"], &["no-such-program"]).exits(127);
    docker.run(&["--rm"], &["/etc"]).exits(126);
}

#[test]
fn docker_manages_a_running_container() {
    let case = Case::new();
    let docker = docker!(case);
    docker.run(&["-d", "--name", "one"], &["sleep", "1000"]).success();
    docker.call(&["exec", "one", "hostname"]).success();
    docker
        .call(&["exec", "-u", "5", "-e", "A=x", "one", "sh", "-c", "id -u; echo $A; exit 7"])
        .exits(7)
        .prints("5\nx");
    docker.call(&["top", "one"]).success().prints_part("sleep 1000");
    docker.call(&["exec", "one", "no-such-program"]).exits(126);
    docker.call(&["kill", "one"]).success();
    docker.call(&["wait", "one"]).success().prints("137");
    docker.call(&["rm", "one"]).success();
}

#[test]
fn docker_limits_and_protects() {
    let case = Case::new();
    differs!(case, ["crun"], "the cgroup files differ in name");
    let docker = docker!(case);
    let flags = ["--rm", "-m", "64m", "--pids-limit", "50", "--cpus", "0.5", "--read-only"];
    let script = "grep Seccomp: /proc/self/status; touch /x; \
                  cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max \
                  /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max";
    let outcome = docker.run(&flags, &["sh", "-c", script]);
    outcome.prints_part("2\n67108864\n50");
    assert!(outcome.stderr.contains("touch: /x: Read-only"), "{outcome}");
    // A terminal, as an engine makes it; stdin is none, so -i is not asked for.
    docker
        .run(&["--rm", "-t"], &["sh", "-c", "test -t 1 && echo on a terminal"])
        .success()
        .prints("on a terminal");
}

/// A file of a container's cgroup, by its v1 and its v2 name.
fn limit(docker: &Docker<'_>, name: &str, controller: &str, v1: &str, v2: &str) -> String {
    cgroup::read(docker.pid(name), controller, v1, v2)
}

#[test]
fn docker_updates_and_pauses() {
    let case = Case::new();
    let docker = docker!(case);
    docker.run(&["-d", "--name", "one", "-m", "64m"], &["sleep", "1000"]).success();
    let update = ["update", "-m", "96m", "--memory-swap", "128m", "--cpus", "0.5", "--pids-limit"];
    docker.call(&[update.as_slice(), &["40", "one"]].concat()).success();
    let read = |controller, v1, v2| limit(&docker, "one", controller, v1, v2);
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), "100663296");
    assert_eq!(read("pids", "pids.max", "pids.max"), "40");
    if cgroup::layout() == cgroup::Layout::V1 {
        assert_eq!(read("memory", "memory.memsw.limit_in_bytes", ""), "134217728");
        assert_eq!(read("cpu", "cpu.cfs_quota_us", ""), "50000");
    }
    docker.call(&["update", "-m", "32m", "--memory-swap", "32m", "one"]).success();
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), "33554432");
    let state = || docker.call(&["inspect", "--format", "{{.State.Status}}", "one"]).stdout;
    docker.call(&["pause", "one"]).success();
    assert_eq!(state().trim(), "paused");
    docker.call(&["exec", "one", "true"]).fails_with("paused");
    docker.call(&["unpause", "one"]).success();
    assert_eq!(state().trim(), "running");
    docker.call(&["exec", "one", "true"]).success();
}

#[test]
fn docker_stats_are_right() {
    let case = Case::new();
    let docker = docker!(case);
    let script = "head -c 16777216 /dev/zero > /dev/shm/x; sleep 100 & exec sleep 100";
    docker.run(&["-d", "--name", "one", "-m", "64m"], &["sh", "-c", script]).success();
    let used = || limit(&docker, "one", "memory", "memory.usage_in_bytes", "memory.current");
    let grown = || used().parse::<u64>().expect("a number") > 16 << 20;
    assert!(wait_until(grown), "{}", used());
    let format = "{{.PIDs}} {{.MemUsage}}";
    let stats = docker.call(&["stats", "--no-stream", "--format", format, "one"]);
    let words: Vec<&str> = stats.success().stdout.split_whitespace().collect();
    assert_eq!((words[0], words[3]), ("2", "64MiB"), "{stats}");
    let used: f64 = words[1].strip_suffix("MiB").expect("MiB").parse().expect("a number");
    assert!((16.0..24.0).contains(&used), "{stats}");
}

#[test]
fn docker_sees_an_oom_kill() {
    let case = Case::new();
    let docker = docker!(case);
    let flags = ["--name", "one", "-m", "8m", "--memory-swap", "8m"];
    // Neither at the first moment nor by its end: docker listens in between.
    docker.run(&flags, &["sh", "-c", EATS]).exits(137);
    let killed = docker.call(&["inspect", "--format", "{{.State.OOMKilled}}", "one"]);
    killed.success().prints("true");
}

#[test]
fn docker_runs_and_executes_on_a_terminal() {
    let case = Case::new();
    let docker = docker!(case);
    let run = docker.run_command(&["--rm", "-it"], &["sh", "-c", terminal::PROGRAM]);
    Terminal::start(&run).take_through();
    docker.run(&["-d", "--name", "one"], &["sleep", "1000"]).success();
    let mut exec = crate::docker(&case);
    exec.args(["exec", "-it", "-u", "5", "one", "sh", "-c", terminal::PROGRAM]);
    Terminal::start(&exec).take_through();
}

#[test]
fn docker_detaches_from_a_terminal_and_attaches_again() {
    let case = Case::new();
    let docker = docker!(case);
    let script = "echo begun; read line; echo \"<$line>\"; exit 6";
    let run = docker.run_command(&["-it", "--name", "one"], &["sh", "-c", script]);
    let mut run = Terminal::start(&run);
    run.sees("begun").types("\x10\x11");
    run.ends_with(0);
    assert_eq!(docker.inspect("{{.State.Status}}", "one"), "running");
    let mut attach = crate::docker(&case);
    attach.args(["attach", "one"]);
    let mut attach = Terminal::start(&attach);
    attach.types("back\r").sees("<back>");
    attach.ends_with(6);
    docker.call(&["logs", "one"]).success().prints_part("begun");
}

#[test]
fn docker_limits_bite() {
    let case = Case::new();
    let docker = docker!(case);
    let forks = docker.run(&["--rm", "--pids-limit", "20"], &["sh", "-c", FORKS]);
    forks.fails_with("can't fork");
    docker.run(&["--rm", "--pids-limit", "60"], &["sh", "-c", FORKS]).success().prints("all");
    docker.run(&["-d", "--name", "spin", "--cpus", "0.05"], &["sh", "-c", SPINS]).success();
    limits::assert_throttled(docker.pid("spin"), 0.05);
    docker.call(&["update", "--cpus", "0.03", "spin"]).success();
    limits::assert_throttled(docker.pid("spin"), 0.03);
}

#[test]
fn docker_settings_are_in_force() {
    let case = Case::new();
    let docker = docker!(case);
    let volume = case.dir().join("volume");
    std::fs::create_dir(&volume).expect("make a volume");
    std::fs::write(volume.join("file"), "kept\n").expect("write");
    let volume = format!("{}:/volume:ro", volume.display());
    let flags = ["--rm", "--read-only", "-v", &volume, "--tmpfs", "/scratch:size=1m,mode=1770"];
    let more = ["--hostname", "me", "--cap-drop", "all", "--cap-add", "chown"];
    let yet = ["--ulimit", "nofile=77:88", "--security-opt", "no-new-privileges", "--init"];
    let script = "hostname; ulimit -n; ulimit -Hn; cat /volume/file; touch /volume/x; touch /x; \
                  touch /scratch/x && stat -c %a /scratch; cat /proc/1/comm; \
                  grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; unshare -U true";
    let flags = [flags.as_slice(), &more, &yet].concat();
    let outcome = docker.run(&flags, &["sh", "-c", script]);
    outcome.prints_part("me\n77\n88\nkept\n1770\ndocker-init\n");
    assert_eq!(outcome.field("CapEff"), "0000000000000001", "{outcome}");
    assert_eq!((outcome.field("NoNewPrivs"), outcome.field("Seccomp")), ("1", "2"), "{outcome}");
    outcome.exits(1);
    for refused in ["/volume/x: Read-only", "touch: /x: Read-only", "Operation not permitted"] {
        assert!(outcome.stderr.contains(refused), "{refused}: {outcome}");
    }
    // A tmpfs without further options, and a user other than root.
    let flags = ["--rm", "-u", "1001", "--mount", "type=tmpfs,dst=/new"];
    docker.run(&flags, &["touch", "/new/file"]).success();
}

#[test]
fn docker_stops_logs_and_copies() {
    let case = Case::new();
    let docker = docker!(case);
    let script = "trap 'echo told to stop; exit 4' TERM; echo begun; \
                  while :; do sleep 0.1; done";
    let health = ["--health-cmd", "test -e /tmp/well", "--health-interval", "1s"];
    let flags = ["-d", "--name", "one", "--health-retries", "1"];
    docker.run(&[flags.as_slice(), &health].concat(), &["sh", "-c", script]).success();
    assert!(wait_until(|| docker.call(&["logs", "one"]).stdout.contains("begun")));
    let health = || docker.inspect("{{.State.Health.Status}}", "one");
    assert!(wait_until(|| health() == "unhealthy"), "{}", health());
    let file = case.dir().join("well");
    std::fs::write(&file, "copied").expect("write");
    docker.call(&["cp", file.to_str().expect("UTF-8"), "one:/tmp/well"]).success();
    docker.call(&["exec", "one", "cat", "/tmp/well"]).success().prints("copied");
    assert!(wait_until(|| health() == "healthy"), "{}", health());
    docker.call(&["stop", "-t", "20", "one"]).success();
    assert_eq!(docker.inspect("{{.State.ExitCode}}", "one"), "4");
    docker.call(&["logs", "one"]).success().prints("begun\ntold to stop");
    docker.call(&["start", "one"]).success();
    docker.call(&["restart", "-t", "20", "one"]).success();
    assert_eq!(docker.inspect("{{.State.Status}}", "one"), "running");
}

#[test]
fn docker_checkpoints_and_restores() {
    let case = Case::new();
    if let Err(reason) = criu::works() {
        skip!("{reason}");
    }
    let docker = docker!(case);
    docker.run(&["-d", "--name", "counter"], &["sh", "-c", COUNTER]).success();
    let count = || count_by(|| docker.call(&["exec", "counter", "cat", "/count"]));
    let status = || docker.call(&["inspect", "--format", "{{.State.Status}}", "counter"]);
    let first = count();
    docker.call(&["checkpoint", "create", "--leave-running", "counter", "alive"]).success();
    status().success().prints("running");
    assert!(wait_until(|| count() > first), "it stays at {first}");
    let second = count();
    docker.call(&["checkpoint", "create", "counter", "one"]).success();
    status().success().prints("exited");
    docker.call(&["checkpoint", "ls", "counter"]).success().prints_part("one");
    docker.start_from("one", "counter").success();
    status().success().prints("running");
    let third = count();
    assert!(third > second, "{third} after {second}");
}
