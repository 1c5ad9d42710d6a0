//! buildah 1.28 and later: `run` in a working container.

use std::process::{Command, Stdio};

use serde_json::json;
use spec_tests::daemon::unmount_below;
use spec_tests::image::Image;
use spec_tests::terminal::{self, Terminal};
use spec_tests::{Case, Outcome, find_program, runtime, skip};

/// A buildah that stores everything in the case's directory, with a working container.
struct Buildah<'a> {
    case: &'a Case,
    container: String,
}

impl Buildah<'_> {
    fn open(case: &Case) -> Result<Buildah<'_>, String> {
        find_program("buildah")?;
        let mut buildah = Buildah { case, container: String::new() };
        let settings = json!({ "Env": ["PATH=/bin", "FROM=image"] });
        let archive = Image::busybox(case.dir(), settings)
            .write_docker_archive(case.dir(), "localhost/busybox:latest");
        let source = format!("docker-archive:{}", archive.display());
        buildah.container = buildah.call(&["from", "-q", &source]).success().stdout.trim().into();
        Ok(buildah)
    }

    /// `buildah ARGS…`
    #[track_caller]
    fn call(&self, args: &[&str]) -> Outcome {
        self.case.outcome(self.command(args))
    }

    fn command(&self, args: &[&str]) -> Command {
        let dir = self.case.dir().join("buildah");
        let mut command = Command::new("buildah");
        command.stdin(Stdio::null()).arg("--root").arg(dir.join("root"));
        command.arg("--runroot").arg(dir.join("run")).args(["--storage-driver", "vfs"]).args(args);
        command
    }

    /// `buildah run FLAGS… CONTAINER -- ARGS…`
    #[track_caller]
    fn run(&self, flags: &[&str], args: &[&str]) -> Outcome {
        self.case.outcome(self.run_command(flags, args))
    }

    fn run_command(&self, flags: &[&str], args: &[&str]) -> Command {
        let runtime = runtime().to_str().expect("UTF-8");
        let fixed = ["run", "--runtime", runtime, "--isolation=oci", "--network=none"];
        self.command(&[fixed.as_slice(), flags, &[&self.container, "--"], args].concat())
    }
}

impl Drop for Buildah<'_> {
    fn drop(&mut self) {
        let _ = self.call(&["rm", "--all"]);
        unmount_below(self.case.dir());
    }
}

macro_rules! buildah {
    ($case:expr) => {
        match Buildah::open(&$case) {
            Ok(buildah) => buildah,
            Err(reason) => skip!("{reason}"),
        }
    };
}

#[test]
fn buildah_run_prints_and_returns() {
    let case = Case::new();
    let buildah = buildah!(case);
    for code in [0, 7] {
        let script = format!("echo $FROM; exit {code}");
        buildah.run(&[], &["sh", "-c", &script]).exits(code).prints("image");
    }
    // A runtime that dies of a signal is only "killed" to buildah: the shell reports the child.
    buildah.run(&[], &["sh", "-c", "sh -c 'kill -KILL $$'; exit $?"]).exits(137);
    buildah.run(&[], &["sh", "-c", "echo written > /file"]).success();
    buildah
        .run(&["--user", "7:8"], &["sh", "-c", "cat /file; id -u"])
        .success()
        .prints("written\n7");
}

#[test]
fn buildah_runs_on_a_terminal() {
    let case = Case::new();
    let buildah = buildah!(case);
    // buildah does not pass new sizes on.
    let script = terminal::PROGRAM.replace("44 122", "33 101");
    let run = buildah.run_command(&["--tty"], &["sh", "-c", &script]);
    let mut run = Terminal::start(&run);
    run.sees("on-a-terminal").types("typed\r").sees("<typed>").sees("resized");
    run.types("\x03").sees("interrupted");
    run.ends_with(9);
}

#[test]
fn buildah_settings_are_in_force() {
    let case = Case::new();
    let buildah = buildah!(case);
    let volume = case.dir().join("volume");
    std::fs::create_dir(&volume).expect("make a volume");
    std::fs::write(volume.join("file"), "kept\n").expect("write");
    let volume = format!("{}:/volume:ro", volume.display());
    let flags = ["-v", &volume, "--hostname", "me", "--cap-drop", "all", "--workingdir", "/etc"];
    let script = "hostname; pwd; cat /volume/file; touch /volume/x; \
                  grep -E 'CapEff|Seccomp:' /proc/self/status";
    let outcome = buildah.run(&flags, &["sh", "-c", script]);
    outcome.prints_part("me\n/etc\nkept\n");
    assert_eq!(outcome.field("CapEff"), "0000000000000000", "{outcome}");
    assert_eq!(outcome.field("Seccomp"), "2", "{outcome}");
    assert!(outcome.stderr.contains("/volume/x: Read-only"), "{outcome}");
}

#[test]
fn buildah_limits_bite() {
    let case = Case::new();
    let buildah = buildah!(case);
    let parent = format!("/{}", case.engine_cgroup());
    let limits = ["--memory", "8m", "--memory-swap", "8m", "--cgroup-parent", &parent];
    let image = ["commit", "-q", &buildah.container, "base"];
    buildah.call(&image).success();
    let from = [["from", "-q"].as_slice(), &limits, &["localhost/base"]].concat();
    let container = buildah.call(&from).success().stdout.trim().to_owned();
    let runtime = runtime().to_str().expect("UTF-8");
    let run = ["run", "--runtime", runtime, "--isolation=oci", "--network=none", &container, "--"];
    let script = "tail -c 100000000 /dev/zero; exit $?";
    buildah.call(&[run.as_slice(), &["sh", "-c", script]].concat()).exits(137);
    buildah
        .run(&[], &["sh", "-c", "head -c 1000000 /dev/zero | wc -c"])
        .success()
        .prints("1000000");
    spec_tests::cgroup::remove_tree(&case.engine_cgroup());
}

#[test]
fn buildah_bud_runs_its_steps() {
    let case = Case::new();
    let buildah = buildah!(case);
    buildah.call(&["commit", "-q", &buildah.container, "base"]).success();
    let context = case.dir().join("context");
    std::fs::create_dir(&context).expect("make the context");
    std::fs::write(context.join("Dockerfile"), "FROM localhost/base\nRUN echo built > /result\n")
        .expect("write the Dockerfile");
    let context = context.to_str().expect("UTF-8");
    let runtime = runtime().to_str().expect("UTF-8");
    let flags = ["bud", "-q", "--runtime", runtime, "--isolation=oci", "--network=none", "-t", "x"];
    buildah.call(&[flags.as_slice(), &[context]].concat()).success();
    let container = buildah.call(&["from", "-q", "localhost/x"]).success().stdout.trim().to_owned();
    let run = ["run", "--runtime", runtime, "--isolation=oci", &container, "cat", "/result"];
    buildah.call(&run).success().prints("built");
}
