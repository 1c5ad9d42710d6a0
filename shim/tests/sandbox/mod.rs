//! A state directory and a busybox bundle for one test; both are gone afterwards.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The program under test.
pub const SHIM: &str = env!("CARGO_BIN_EXE_shim");

/// Everything that a test leaves anywhere.
pub struct Sandbox {
    pub dir: PathBuf,
    pub runtime: PathBuf,
}

/// What a finished command left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Sandbox {
    /// `None`, said by name, where containers cannot be run.
    pub fn new(test: &str) -> Option<Self> {
        let skip = |why: &str| {
            eprintln!("skipped: {test}: {why}");
            None
        };
        if !rustix::process::geteuid().is_root() {
            return skip("not root");
        }
        let wanted = std::env::var_os("RUNTIME").unwrap_or("runc".into());
        let Some(runtime) = find(Path::new(&wanted)) else {
            return skip("no runtime (RUNTIME=, else runc on PATH)");
        };
        let Some(busybox) = find(Path::new("busybox")) else {
            return skip("no busybox");
        };
        let dir = std::env::temp_dir().join(format!("shim-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let sandbox = Self { dir, runtime };
        sandbox.fill_bundle(&busybox);
        Some(sandbox)
    }

    fn fill_bundle(&self, busybox: &Path) {
        let bundle = self.bundle();
        for dir in ["bin", "proc", "dev", "sys", "tmp"] {
            std::fs::create_dir_all(bundle.join("rootfs").join(dir)).unwrap();
        }
        let bin = bundle.join("rootfs/bin");
        std::fs::copy(busybox, bin.join("busybox")).unwrap();
        for applet in "sh cat sleep true echo yes seq stty head kill dd".split(' ') {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        let spec = Command::new(&self.runtime).args(["spec", "--bundle"]).arg(&bundle).status();
        assert!(spec.unwrap().success());
    }

    pub fn bundle(&self) -> PathBuf {
        self.dir.join("bundle")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Changes the bundle's config.json.
    pub fn edit(&self, change: impl FnOnce(&mut Value)) {
        let path = self.bundle().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
    }

    /// `shim --state STATE ARGS`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(SHIM);
        command.arg("--state").arg(self.state()).args(args);
        command.stdin(Stdio::null());
        command
    }

    pub fn shim(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// `shim run OPTIONS BUNDLE sh -c SCRIPT`.
    pub fn run_command(&self, options: &[&str], script: &str) -> Command {
        let mut command = self.command(&["run", "--runtime"]);
        command.arg(&self.runtime).args(options);
        command.arg(self.bundle()).args(["sh", "-c", script]);
        command
    }

    pub fn run(&self, options: &[&str], script: &str) -> Ran {
        self.run_command(options, script).output().unwrap().into()
    }

    /// Runs in the background and returns the id.
    pub fn detached(&self, name: &str, options: &[&str], script: &str) -> String {
        let options = [&["-d", "--name", name], options].concat();
        let ran = self.run(&options, script);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        ran.stdout.trim().to_owned()
    }

    /// `shim ps -a --json` for one container.
    pub fn facts(&self, name: &str) -> Value {
        let all = self.shim(&["ps", "-a", "--json"]).stdout;
        let all: Vec<Value> = serde_json::from_str(&all).unwrap();
        let mut named = all.into_iter().filter(|row| row["name"] == name);
        named.next().unwrap_or(json!(null))
    }

    /// The pid of a container's keeper.
    pub fn keeper(&self, id: &str, which: &str) -> i32 {
        let text = std::fs::read_to_string(self.state().join(id).join(which)).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }

    /// A runtime that is a shell script; `$RT` is the real one, `$verb` what it was asked.
    pub fn fake_runtime(&self, script: &str) -> Sandbox {
        let path = self.dir.join("fake-runtime");
        let real = self.runtime.display();
        let verb = "verb=; for a in \"$@\"; do case $a in \
                    create|start|kill|delete|state) verb=$a; break;; esac; done";
        let text = format!("#!/bin/sh\nRT={real}\n{verb}\n{script}\nexec $RT \"$@\"\n");
        std::fs::write(&path, text).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Sandbox { dir: self.dir.clone(), runtime: path }
    }

    /// Nothing of any container is left: no directory, no name, no process.
    pub fn assert_clean(&self) {
        let names = std::fs::read_dir(self.state().join("names"));
        assert_eq!(names.map_or(0, Iterator::count), 0, "names are left");
        let left: Vec<_> = std::fs::read_dir(self.state())
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name != "names")
            .collect();
        assert!(left.is_empty(), "left in the state directory: {left:?}");
        eventually("the keepers end", || self.keepers().is_empty());
    }

    /// Processes whose command line names our state directory.
    pub fn keepers(&self) -> Vec<String> {
        let state = self.state().display().to_string();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(&state) && line.contains(" @"))
            .collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.runtime.ends_with("fake-runtime") {
            return;
        }
        let ids = self.shim(&["ps", "-aq"]).stdout;
        for id in ids.split_whitespace() {
            self.shim(&["rm", "-f", id]);
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Waits for at most ten seconds.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn kill(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn find(program: &Path) -> Option<PathBuf> {
    if program.is_absolute() {
        return program.exists().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    let mut dirs = std::env::split_paths(&path);
    dirs.find_map(|dir| Some(dir.join(program)).filter(|path| path.exists()))
}
