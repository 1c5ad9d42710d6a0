//! dockerd 20.10 and later, with the runtime under test beside its own.

use std::process::Command;

use serde_json::json;
use spec_tests::daemon::Daemon;
use spec_tests::image::Image;
use spec_tests::{Case, Outcome, differs, find_program, runtime, skip};

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
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
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
        let parent = format!("/{}", self.case.engine_cgroup());
        let fixed = ["run", "--runtime=ours", "--network=none", "--cgroup-parent", &parent];
        self.call(&[fixed.as_slice(), flags, &["busybox"], args].concat())
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
