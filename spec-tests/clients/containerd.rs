//! containerd 1.6 and later: its own shim, `io.containerd.runc.v2`, calls the runtime.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;
use spec_tests::criu::{self, COUNTER, count_by};
use spec_tests::daemon::Daemon;
use spec_tests::image::Image;
use spec_tests::limits::{self, EATS, FORKS, SPINS};
use spec_tests::terminal::{self, Terminal};
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
        self.case.outcome(self.run_command(flags, id, args))
    }

    /// The host's pid of a task's first process.
    #[track_caller]
    fn pid(&self, id: &str) -> u32 {
        let list = self.call(&["task", "ls"]);
        let line = list.success().stdout.lines().find(|l| l.starts_with(&format!("{id} ")));
        let pid = line.expect("the task").split_whitespace().nth(1).expect("a pid");
        pid.parse().expect("a number")
    }

    fn run_command(&self, flags: &[&str], id: &str, args: &[&str]) -> Command {
        let cgroup = format!("/{}/{id}", self.case.engine_cgroup());
        let runtime = runtime().to_str().expect("UTF-8");
        let fixed = ["run", "--runtime=io.containerd.runc.v2", "--runc-binary", runtime];
        let cgroup = ["--cgroup", &cgroup];
        let mut command = ctr(self.case);
        command.args([fixed.as_slice(), &cgroup, flags, &[IMAGE, id], args].concat());
        command
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
    assert!(wait_until(|| containerd.call(&["task", "ls"]).stdout.contains("STOPPED")));
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
        assert!(wait_until(|| metric("memory.usage_in_bytes") > 16 << 20));
        let before = metric("cpuacct.usage ");
        assert!(wait_until(|| metric("cpuacct.usage ") > before));
    }
    containerd.call(&["task", "pause", "m"]).success();
    let pid = containerd.pid("m");
    let count = || fs::read_to_string(format!("/proc/{pid}/root/dev/shm/count"));
    let held = count().expect("read the count");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(count().expect("read the count"), held, "it runs on");
    containerd.call(&["task", "resume", "m"]).success();
    assert!(wait_until(|| count().is_ok_and(|now| now != held)), "it stays");
    containerd.call(&["task", "kill", "-s", "SIGKILL", "m"]).success();
}

#[test]
fn ctr_runs_and_executes_on_a_terminal() {
    let case = Case::new();
    let containerd = containerd!(case);
    let run = containerd.run_command(&["--rm", "-t"], "t", &["sh", "-c", terminal::PROGRAM]);
    Terminal::start(&run).take_through();
    containerd.run(&["--detach"], "e", &["sleep", "1000"]).success();
    let mut exec = ctr(&case);
    exec.args(["task", "exec", "-t", "--exec-id", "x", "e", "sh", "-c", terminal::PROGRAM]);
    Terminal::start(&exec).take_through();
}

#[test]
fn ctr_limits_bite() {
    let case = Case::new();
    let containerd = containerd!(case);
    let flags = ["--detach", "--cpu-quota", "5000", "--cpu-period", "100000"];
    containerd.run(&flags, "spin", &["sh", "-c", SPINS]).success();
    limits::assert_throttled(containerd.pid("spin"), 0.05);
    let eats = EATS.replace("exit $code", "sleep 100");
    let flags = ["--detach", "--memory-limit", "8388608"];
    containerd.run(&flags, "eats", &["sh", "-c", &eats]).success();
    let pid = containerd.pid("eats");
    assert!(wait_until(|| limits::oom_kills(pid) > 0), "it is not killed");
    // ctr has no flag for processes, but takes a whole configuration.
    let bundle = case
        .bundle()
        .set("/linux/resources/pids", json!({ "limit": 20 }))
        .set("/root/path", case.dir().join("root-of-forks").display().to_string())
        .sh(FORKS);
    fs::rename(bundle.rootfs(), case.dir().join("root-of-forks")).expect("move the root");
    bundle.write();
    let config = bundle.dir.join("config.json");
    let runtime = runtime().to_str().expect("UTF-8");
    let run = ["run", "--rm", "--runtime=io.containerd.runc.v2", "--runc-binary", runtime];
    let flags = ["--config", config.to_str().expect("UTF-8"), "forks"];
    containerd.call(&[run.as_slice(), &flags].concat()).fails_with("can't fork");
}

#[test]
fn ctr_settings_are_in_force() {
    let case = Case::new();
    let containerd = containerd!(case);
    let volume = case.dir().join("volume");
    fs::create_dir(&volume).expect("make a volume");
    fs::write(volume.join("file"), "kept\n").expect("write");
    let mount = format!("type=bind,src={},dst=/volume,options=rbind:ro", volume.display());
    let flags = ["--rm", "--read-only", "--mount", &mount, "--seccomp"];
    let more = ["--env", "A=b", "--cwd", "/etc", "--cap-drop", "CAP_SYS_CHROOT", "--no-pivot"];
    let script = "echo $A; pwd; cat /volume/file; touch /volume/x; touch /x; \
                  grep -E 'CapEff|Seccomp:' /proc/self/status; unshare -U true";
    let outcome = containerd.run(&[flags.as_slice(), &more].concat(), "s", &["sh", "-c", script]);
    outcome.prints_part("b\n/etc\nkept\n");
    assert_eq!(outcome.field("CapEff"), "00000000a80025fb", "{outcome}");
    assert_eq!(outcome.field("Seccomp"), "2", "{outcome}");
    outcome.exits(1);
    for refused in ["/volume/x: Read-only", "touch: /x: Read-only", "Operation not permitted"] {
        assert!(outcome.stderr.contains(refused), "{refused}: {outcome}");
    }
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
