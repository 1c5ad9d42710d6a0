//! buildah 1.28 and later: `run` in a working container.

use std::process::{Command, Stdio};

use serde_json::json;
use spec_tests::daemon::unmount_below;
use spec_tests::image::Image;
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
        let dir = self.case.dir().join("buildah");
        let mut command = Command::new("buildah");
        command.stdin(Stdio::null()).arg("--root").arg(dir.join("root"));
        command.arg("--runroot").arg(dir.join("run")).args(["--storage-driver", "vfs"]).args(args);
        self.case.outcome(command)
    }

    /// `buildah run FLAGS… CONTAINER -- ARGS…`
    #[track_caller]
    fn run(&self, flags: &[&str], args: &[&str]) -> Outcome {
        let runtime = runtime().to_str().expect("UTF-8");
        let fixed = ["run", "--runtime", runtime, "--isolation=oci", "--network=none"];
        self.call(&[fixed.as_slice(), flags, &[&self.container, "--"], args].concat())
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
