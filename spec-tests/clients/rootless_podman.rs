//! podman 4.3 and later of a user without privilege.
//!
//! Started by root, a test plays a user of its own: its name and subordinate ids stand in files that
//! a private mount namespace puts over /etc, and it has no control groups. In the virtual machine
//! the user `rootless` runs these tests, too, with groups that its systemd has delegated to it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use spec_tests::daemon::alone;
use spec_tests::image::Image;
use spec_tests::limits::{self, FORKS, SPINS};
use spec_tests::terminal::{self, Terminal};
use spec_tests::{Case, Outcome, find_program, runtime, skip, wait_until};

/// The user that root plays, and the first of its subordinate ids.
const USER: u32 = 61_234;
const FIRST: u32 = 700_000;

/// Becomes that user: over /etc/passwd, group, subuid and subgid come the files of the directory $1.
const PLAY: &str = r#"
    dir=$1 id=$2; shift 2
    for name in passwd group subuid subgid; do
        [ -e /etc/$name ] || exit 98
        mount --bind "$dir/$name" /etc/$name || exit 99
    done
    cd "$dir/home" || exit 99
    exec setpriv --reuid "$id" --regid "$id" --clear-groups -- "$@"
"#;

/// A rootless podman that stores everything in the case's directory, with one image, `busybox`.
struct Podman<'a> {
    case: &'a Case,
    played: bool,
}

impl Podman<'_> {
    fn open(case: &Case) -> Result<Podman<'_>, String> {
        for tool in ["podman", "conmon", "newuidmap", "newgidmap", "setpriv", "unshare"] {
            find_program(tool)?;
        }
        let podman = Podman { case, played: rustix::process::geteuid().is_root() };
        for path in [podman.dir("home"), podman.dir("run")] {
            fs::create_dir(&path).expect("make a directory");
        }
        if podman.played {
            podman.make_user();
        }
        let settings = json!({ "Env": ["PATH=/bin", "FROM=image"], "Cmd": ["echo", "default"] });
        let archive = Image::busybox(case.dir(), settings)
            .write_docker_archive(case.dir(), "localhost/busybox:latest");
        fs::set_permissions(&archive, fs::Permissions::from_mode(0o644)).expect("chmod");
        let alone = alone();
        podman.call(&["load", "-q", "-i", archive.to_str().expect("UTF-8")]).success();
        drop(alone);
        Ok(podman)
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.case.dir().join(name)
    }

    fn make_user(&self) {
        let add = |name: &str, line: String| {
            let text = fs::read_to_string(Path::new("/etc").join(name)).expect("read a file");
            fs::write(self.dir(name), text + &line).expect("write a file for /etc");
        };
        add("passwd", format!("tester:x:{USER}:{USER}::{}:/bin/sh\n", self.dir("home").display()));
        add("group", format!("tester:x:{USER}:\n"));
        for name in ["subuid", "subgid"] {
            fs::write(self.dir(name), format!("tester:{FIRST}:65536\n")).expect("write");
        }
        // podman asks for no control groups from a runtime alone that its configuration trusts.
        let conf = format!(
            "[engine]\nruntime_supports_nocgroup = [\"ours\"]\n[engine.runtimes]\nours = [{:?}]\n",
            runtime().to_str().expect("UTF-8"),
        );
        fs::write(self.dir("containers.conf"), conf).expect("write podman's configuration");
        for path in [self.dir("home"), self.dir("run")] {
            chown(&path, Some(USER), Some(USER)).expect("give it to the user");
        }
        fs::set_permissions(self.case.dir(), fs::Permissions::from_mode(0o755)).expect("chmod");
    }

    /// `podman ARGS…`
    #[track_caller]
    fn call(&self, args: &[&str]) -> Outcome {
        self.case.outcome(self.command(args))
    }

    fn command(&self, args: &[&str]) -> Command {
        let (run, home) = (self.dir("run"), self.dir("home"));
        let mut command;
        if self.played {
            command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "sh", "-c", PLAY, "sh"]);
            command.arg(self.case.dir()).arg(USER.to_string()).arg("podman");
            command.env("HOME", &home).env("XDG_RUNTIME_DIR", &run);
            command.env("CONTAINERS_CONF", self.dir("containers.conf"));
            command.args(["--cgroup-manager", "cgroupfs", "--runtime", "ours"]);
        } else {
            command = Command::new("podman");
            command.args(["--cgroup-manager", "systemd", "--runtime"]).arg(runtime());
        }
        command.stdin(Stdio::null()).arg("--root").arg(home.join("root"));
        command.arg("--runroot").arg(run.join("storage")).arg("--tmpdir").arg(run.join("tmp"));
        command.args(["--storage-driver", "vfs", "--events-backend", "file"]).args(args);
        command
    }

    /// `podman run FLAGS… busybox ARGS…`
    #[track_caller]
    fn run(&self, flags: &[&str], args: &[&str]) -> Outcome {
        self.case.outcome(self.run_command(flags, args))
    }

    fn run_command(&self, flags: &[&str], args: &[&str]) -> Command {
        let fixed = ["run", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];
        let groups: &[&str] = if self.played { &["--cgroups=disabled"] } else { &[] };
        let network = ["--network=none"];
        self.command(&[fixed.as_slice(), groups, &network, flags, &["busybox"], args].concat())
    }

    #[track_caller]
    fn inspect(&self, format: &str, name: &str) -> String {
        self.call(&["inspect", "--format", format, name]).success().stdout.trim().to_owned()
    }

    /// The pid of a container's first process: podman's user has no pid namespace of its own.
    #[track_caller]
    fn pid(&self, name: &str) -> u32 {
        self.inspect("{{.State.Pid}}", name).parse().expect("a pid")
    }

    /// The user's own id.
    fn uid(&self) -> u32 {
        if self.played { USER } else { rustix::process::geteuid().as_raw() }
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        let _ = self.call(&["rm", "--all", "--force", "--time=0"]);
        // The files belong to subordinate ids.
        let home = self.dir("home").join("root");
        let _ = self.call(&["unshare", "rm", "-rf", home.to_str().expect("UTF-8")]);
        // The process that keeps podman's namespaces; it notes its pid.
        for path in [self.dir("run/tmp/pause.pid"), self.dir("run/libpod/tmp/pause.pid")] {
            let pid = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
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
fn rootless_podman_runs_and_returns() {
    let case = Case::new();
    let podman = podman!(case);
    for code in [0, 7] {
        let script = format!("echo $FROM; exit {code}");
        podman.run(&["--rm"], &["sh", "-c", &script]).exits(code).prints("image");
    }
    podman.run(&["--rm"], &["no-such-program"]).exits(127);
    podman.run(&["--rm"], &["/etc/passwd"]).exits(126);
    let script = "id -u; head -n 1 /proc/self/uid_map | tr -s ' '";
    let expected = format!("0\n 0 {} 1", podman.uid());
    podman.run(&["--rm"], &["sh", "-c", script]).success().prints(&expected);
}

#[test]
fn rootless_podman_manages_a_running_container() {
    let case = Case::new();
    let podman = podman!(case);
    podman.run(&["-d", "--name", "c"], &["sleep", "1000"]).success();
    podman.call(&["exec", "c", "sh", "-c", "echo inside; exit 7"]).exits(7).prints("inside");
    podman.call(&["exec", "-u", "5", "c", "id", "-u"]).success().prints("5");
    podman.call(&["stop", "--time=0", "c"]).success();
    assert_eq!(podman.inspect("{{.State.ExitCode}}", "c"), "137");
    podman.call(&["rm", "c"]).success();
}

#[test]
fn rootless_podman_keeps_the_users_id() {
    let case = Case::new();
    let podman = podman!(case);
    let volume = case.dir().join("volume");
    fs::create_dir(&volume).expect("make a volume");
    chown(&volume, Some(podman.uid()), None).expect("give it to the user");
    let bind = format!("{}:/volume", volume.display());
    let flags = ["--rm", "--userns=keep-id", "-v", &bind];
    let script = "touch /volume/file && id -u && stat -c %u /volume/file";
    let uid = podman.uid();
    podman.run(&flags, &["sh", "-c", script]).success().prints(&format!("{uid}\n{uid}"));
}

#[test]
fn rootless_podman_runs_and_executes_on_a_terminal() {
    let case = Case::new();
    let podman = podman!(case);
    let run = podman.run_command(&["--rm", "-it"], &["sh", "-c", terminal::PROGRAM]);
    Terminal::start(&run).take_through();
    podman.run(&["-d", "--name", "one"], &["sleep", "1000"]).success();
    let exec = ["exec", "-it", "-u", "5", "one", "sh", "-c", terminal::PROGRAM];
    Terminal::start(&podman.command(&exec)).take_through();
}

#[test]
fn rootless_podman_limits_bite_in_delegated_groups() {
    let case = Case::new();
    let podman = podman!(case);
    if podman.played {
        skip!("the user that root plays has no control groups; the VM's has");
    }
    let forks = podman.run(&["--rm", "--pids-limit", "20"], &["sh", "-c", FORKS]);
    forks.fails_with("can't fork");
    podman.run(&["--rm", "--pids-limit", "60"], &["sh", "-c", FORKS]).success().prints("all");
    let flags = ["--name", "o", "-m", "8m", "--memory-swap", "8m"];
    podman.run(&flags, &["tail", "-c", "100000000", "/dev/zero"]).exits(137);
    podman.run(&["-d", "--name", "spin", "--cpus", "0.05"], &["sh", "-c", SPINS]).success();
    limits::assert_throttled(podman.pid("spin"), 0.05);
    podman.call(&["update", "--cpus", "0.03", "spin"]).success();
    limits::assert_throttled(podman.pid("spin"), 0.03);
}

#[test]
fn rootless_podman_pauses_and_counts_in_delegated_groups() {
    let case = Case::new();
    let podman = podman!(case);
    if podman.played {
        skip!("the user that root plays has no control groups; the VM's has");
    }
    // In the shell's own memory: podman 4.3 leaves shared memory out of what it shows of a v2 group.
    let script = "x=$(head -c 16777216 /dev/zero | tr '\\0' x); sleep 100 & echo ready; wait";
    podman.run(&["-d", "--name", "s", "-m", "64m"], &["sh", "-c", script]).success();
    assert!(wait_until(|| podman.call(&["logs", "s"]).stdout.contains("ready")));
    let stats = podman.call(&["stats", "--no-stream", "--format", "json", "s"]);
    let stats = stats.success().json();
    assert_eq!(stats[0]["pids"], "2", "{stats}");
    let usage = stats[0]["mem_usage"].as_str().expect("text");
    let (used, limit) = usage.split_once(" / ").expect("use and limit");
    assert_eq!(limit, "67.11MB", "{stats}");
    let used = used.strip_suffix("MB").unwrap_or_else(|| panic!("{stats}"));
    let used: f64 = used.parse().expect("a number");
    assert!((16.7..60.0).contains(&used), "{stats}");
    podman.call(&["pause", "s"]).success();
    assert_eq!(podman.inspect("{{.State.Status}}", "s"), "paused");
    podman.call(&["unpause", "s"]).success();
    podman.call(&["exec", "s", "true"]).success();
}
