//! podman 4.3 and later, by way of its monitor conmon.

use std::process::Command;

use serde_json::json;
use spec_tests::daemon::unmount_below;
use spec_tests::image::Image;
use spec_tests::{Case, Outcome, find_program, runtime, skip};

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
