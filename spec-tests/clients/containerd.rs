//! containerd 1.6 and later: its own shim, `io.containerd.runc.v2`, calls the runtime.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;
use spec_tests::criu::{self, COUNTER, count_by};
use spec_tests::daemon::Daemon;
use spec_tests::image::Image;
use spec_tests::{Case, Outcome, cgroup, find_program, runtime, skip, wait_until};

const IMAGE: &str = "docker.io/library/busybox:latest";

/// A containerd of the case's own, with one image.
struct Containerd<'a> {
    case: &'a Case,
    _daemon: Daemon,
}

impl Containerd<'_> {
    fn start(case: &Case) -> Result<Containerd<'_>, String> {
        let containerd = find_program("containerd")?;
        find_program("ctr")?;
        find_program("containerd-shim-runc-v2")?;
        let dir = case.dir().join("containerd");
        fs::create_dir(&dir).expect("make containerd's directory");
        let path = |name: &str| dir.join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \
             \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            path("root"),
            path("state"),
            path("sock"),
            path("sock.ttrpc"),
        );
        fs::write(dir.join("config.toml"), config).expect("write containerd's configuration");
        let mut command = Command::new(containerd);
        command.arg("--config").arg(dir.join("config.toml"));
        let daemon = Daemon::start(command, &dir, || {
            let version = ctr(case).arg("version").output();
            version.is_ok_and(|output| output.status.success())
        });
        let containerd = Containerd { case, _daemon: daemon };
        let settings = json!({ "Env": ["PATH=/bin", "FROM=image"], "Cmd": ["echo", "default"] });
        let archive = Image::busybox(case.dir(), settings).write_docker_archive(case.dir(), IMAGE);
        containerd.call(&["image", "import", archive.to_str().expect("UTF-8")]).success();
        Ok(containerd)
    }

    /// `ctr ARGS…`
    #[track_caller]
    fn call(&self, args: &[&str]) -> Outcome {
        let mut command = ctr(self.case);
        command.args(args);
        self.case.outcome(command)
    }

    /// `ctr run FLAGS… IMAGE ID ARGS…`
    #[track_caller]
    fn run(&self, flags: &[&str], id: &str, args: &[&str]) -> Outcome {
        let cgroup = format!("/{}/{id}", self.case.engine_cgroup());
        let runtime = runtime().to_str().expect("UTF-8");
        let fixed = ["run", "--runtime=io.containerd.runc.v2", "--runc-binary", runtime];
        let cgroup = ["--cgroup", &cgroup];
        self.call(&[fixed.as_slice(), &cgroup, flags, &[IMAGE, id], args].concat())
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        let names = self.call(&["task", "ls", "-q"]).stdout;
        for id in names.lines() {
            let _ = self.call(&["task", "rm", "--force", id]);
        }
        spec_tests::cgroup::remove_tree(&self.case.engine_cgroup());
    }
}

fn ctr(case: &Case) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(case.dir().join("containerd/sock")).stdin(Stdio::null());
    command
}

macro_rules! containerd {
    ($case:expr) => {
        match Containerd::start(&$case) {
            Ok(containerd) => containerd,
            Err(reason) => skip!("{reason}"),
        }
    };
}

#[test]
fn ctr_run_prints_and_returns() {
    let case = Case::new();
    let containerd = containerd!(case);
    containerd.run(&["--rm"], "plain", &[]).success().prints("default");
    for code in [0, 7] {
        let script = format!("echo $FROM; exit {code}");
        let id = format!("code-{code}");
        containerd.run(&["--rm"], &id, &["sh", "-c", &script]).exits(code).prints("image");
    }
}

#[test]
fn ctr_manages_a_running_task() {
    let case = Case::new();
    let containerd = containerd!(case);
    containerd.run(&["--detach"], "t", &["sleep", "1000"]).success();
    containerd.call(&["task", "ls"]).success().prints_part("RUNNING");
    let script = ["sh", "-c", "echo inside; exit 7"];
    let exec = ["task", "exec", "--exec-id", "e", "t"];
    containerd.call(&[exec.as_slice(), &script].concat()).exits(7).prints("inside");
    containerd.call(&["task", "ps", "t"]).success();
    containerd.call(&["task", "pause", "t"]).success();
    containerd.call(&["task", "ls"]).success().prints_part("PAUSED");
    containerd.call(&["task", "resume", "t"]).success();
    containerd.call(&["task", "kill", "-s", "SIGKILL", "t"]).success();
    assert!(spec_tests::wait_until(|| containerd.call(&["task", "ls"]).stdout.contains("STOPPED")));
    let removed = containerd.call(&["task", "rm", "t"]);
    assert!(removed.stderr.contains("exit code 137"), "{removed}");
    containerd.call(&["container", "rm", "t"]).success();
}

#[test]
fn ctr_metrics_are_right_and_pauses_hold() {
    let case = Case::new();
    let containerd = containerd!(case);
    let script = "head -c 16777216 /dev/zero > /dev/shm/x; i=0; \
                  while :; do i=$((i+1)); echo $i > /dev/shm/count; done";
    let flags = ["--detach", "--memory-limit", "67108864"];
    containerd.run(&flags, "m", &["sh", "-c", script]).success();
    let metric = |name: &str| {
        let metrics = containerd.call(&["task", "metrics", "m"]);
        let line = metrics.success().stdout.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name}: {metrics}"));
        let number = line.split_whitespace().last().expect("a number");
        number.parse::<u64>().unwrap_or_else(|_| panic!("{line}"))
    };
    if cgroup::layout() == cgroup::Layout::V1 {
        assert_eq!(metric("memory.limit_in_bytes"), 64 << 20);
        assert!(spec_tests::wait_until(|| metric("memory.usage_in_bytes") > 16 << 20));
        let before = metric("cpuacct.usage ");
        assert!(spec_tests::wait_until(|| metric("cpuacct.usage ") > before));
    }
    containerd.call(&["task", "pause", "m"]).success();
    let pid = containerd.call(&["task", "ls"]);
    let line = pid.success().stdout.lines().find(|line| line.starts_with("m ")).expect("the task");
    let pid = line.split_whitespace().nth(1).expect("a pid").to_owned();
    let count = || fs::read_to_string(format!("/proc/{pid}/root/dev/shm/count"));
    let held = count().expect("read the count");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(count().expect("read the count"), held, "it runs on");
    containerd.call(&["task", "resume", "m"]).success();
    assert!(spec_tests::wait_until(|| count().is_ok_and(|now| now != held)), "it stays");
    containerd.call(&["task", "kill", "-s", "SIGKILL", "m"]).success();
}

#[test]
fn ctr_checkpoints_and_restores() {
    let case = Case::new();
    if let Err(reason) = criu::works() {
        skip!("{reason}");
    }
    let containerd = containerd!(case);
    containerd.run(&["--detach"], "c", &["sh", "-c", COUNTER]).success();
    let count = |exec: &str| {
        count_by(|| containerd.call(&["task", "exec", "--exec-id", exec, "c", "cat", "/count"]))
    };
    let before = count("one");
    containerd.call(&["container", "checkpoint", "--rw", "--task", "c", "saved"]).success();
    containerd.call(&["task", "kill", "--signal", "KILL", "c"]).success();
    assert!(wait_until(|| containerd.call(&["task", "rm", "c"]).code() == 0));
    containerd.call(&["container", "rm", "c"]).success();
    containerd.call(&["container", "restore", "--rw", "--live", "c", "saved"]).success();
    let after = count("two");
    assert!(after > before, "{after} after {before}");
}
