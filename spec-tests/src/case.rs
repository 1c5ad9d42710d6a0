//! One test's world: a state root, a cgroup directory and a scratch directory of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::command::detached;
use crate::leak::Traces;
use crate::program::{runtime, runtime_name};
use crate::{Bundle, Outcome, cgroup, default_config, wait_until};

/// One test's world. Dropping it deletes its containers and then panics about every leak.
#[derive(Debug)]
pub struct Case {
    name: String,
    dir: PathBuf,
    ids: Mutex<Vec<String>>,
}

impl Case {
    /// Opens a case; cheap, nothing is run yet.
    #[allow(clippy::new_without_default, reason = "it makes a directory on disk")]
    pub fn new() -> Case {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("davit-test-{}-{serial}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("out")).expect("make the scratch directory");
        Case { name, dir, ids: Mutex::default() }
    }

    /// The scratch directory; removed with the case.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The runtime's state root (`--root`) in this case.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Whether the runtime under test introduces itself by this name.
    pub fn runtime_is(&self, name: &str) -> bool {
        runtime_name() == name
    }

    /// A new bundle with the default configuration and a cgroup path of its own.
    pub fn bundle(&self) -> Bundle {
        let bundle = self.bundle_without_root();
        bundle.make_root();
        bundle
    }

    /// As [`Case::bundle`], but without a root file system: `root.path` is to name another.
    pub fn bundle_without_root(&self) -> Bundle {
        let mut ids = self.ids.lock().expect("no test panics while it holds this");
        let id = format!("{}-{}", self.name, ids.len());
        ids.push(id.clone());
        let mut config = default_config();
        config["linux"]["cgroupsPath"] = self.cgroups_path(&id).into();
        let dir = self.dir.join(&id);
        fs::create_dir(&dir).expect("make the bundle directory");
        Bundle { id, dir, config }
    }

    /// The `linux.cgroupsPath` of a container of this case.
    pub fn cgroups_path(&self, id: &str) -> String {
        format!("/{}/{id}", self.name)
    }

    /// A cgroup parent for an engine, which does not always remove what it made there: to be
    /// removed by [`cgroup::remove_tree`].
    pub fn engine_cgroup(&self) -> String {
        format!("engine-{}", self.name)
    }

    /// The runtime with this case's `--root`, and then nothing yet.
    pub fn command(&self) -> Command {
        let mut command = detached(runtime());
        command.arg("--root").arg(self.root());
        command
    }

    /// Runs any command to its end.
    #[track_caller]
    pub fn outcome(&self, command: Command) -> Outcome {
        Outcome::of(command, &self.dir.join("out"))
    }

    /// Runs the runtime with these words after `--root ROOT`.
    #[track_caller]
    pub fn runtime<const N: usize>(&self, args: [&str; N]) -> Outcome {
        let mut command = self.command();
        command.args(args);
        self.outcome(command)
    }

    /// `run`, in the foreground, to the end of the container.
    #[track_caller]
    pub fn run(&self, bundle: &Bundle) -> Outcome {
        self.on_bundle("run", bundle, [])
    }

    /// As [`Case::run`], in a mount namespace in which the shell runs `setup` first.
    #[track_caller]
    pub fn run_after(&self, setup: &str, bundle: &Bundle) -> Outcome {
        bundle.write();
        let mut runtime = self.command();
        runtime.arg("run").arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "sh", "-c", &format!("{setup} && exec \"$0\" \"$@\"")]);
        shell.arg(runtime.get_program()).args(runtime.get_args());
        self.outcome(shell)
    }

    /// `create`.
    #[track_caller]
    pub fn create(&self, bundle: &Bundle) -> Outcome {
        self.on_bundle("create", bundle, [])
    }

    /// Writes the bundle, then `VERB --bundle DIR FLAGS… ID`.
    #[track_caller]
    pub fn on_bundle<const N: usize>(
        &self,
        verb: &str,
        bundle: &Bundle,
        flags: [&str; N],
    ) -> Outcome {
        bundle.write();
        let mut command = self.command();
        command.arg(verb).arg("--bundle").arg(&bundle.dir).args(flags).arg(&bundle.id);
        self.outcome(command)
    }

    /// `create` and `start`, both expected to succeed in silence; the container then runs.
    #[track_caller]
    pub fn start(&self, bundle: &Bundle) -> Outcome {
        let created = self.create(bundle);
        created.quiet_success();
        self.runtime(["start", &bundle.id]).quiet_success();
        created
    }

    /// `exec FLAGS… ID ARGS…`
    #[track_caller]
    pub fn exec<const N: usize, const M: usize>(
        &self,
        bundle: &Bundle,
        flags: [&str; N],
        args: [&str; M],
    ) -> Outcome {
        let mut command = self.command();
        command.arg("exec").args(flags).arg(&bundle.id).args(args);
        self.outcome(command)
    }

    /// The container's state, as `state` prints it.
    #[track_caller]
    pub fn state(&self, bundle: &Bundle) -> serde_json::Value {
        self.runtime(["state", &bundle.id]).quiet_success().json()
    }

    /// The container's status: `created`, `running`, `stopped`, …
    #[track_caller]
    pub fn status(&self, bundle: &Bundle) -> String {
        self.state(bundle)["status"].as_str().expect("a status").to_owned()
    }

    /// The pid of the container's init, on the host.
    #[track_caller]
    pub fn pid(&self, bundle: &Bundle) -> u32 {
        let pid = self.state(bundle)["pid"].as_u64().expect("a pid");
        u32::try_from(pid).expect("a pid")
    }

    /// Waits until the container has stopped by itself.
    #[track_caller]
    pub fn wait_stopped(&self, bundle: &Bundle) {
        assert!(wait_until(|| self.status(bundle) == "stopped"), "{} does not stop", bundle.id);
    }

    /// `create`, `start`, wait for its end, `delete`; what the container wrote to stdout.
    #[track_caller]
    pub fn full_life(&self, bundle: &Bundle) -> String {
        let created = self.start(bundle);
        self.wait_stopped(bundle);
        self.runtime(["delete", &bundle.id]).quiet_success();
        created.stdout_now()
    }

    /// Asserts that `VERB ID` fails, saying that there is no such container.
    #[track_caller]
    pub fn assert_missing(&self, verb: &str, id: &str) {
        // crun before 1.9 tells of its own file instead.
        let text = if self.runtime_is("crun") { id } else { "does not exist" };
        self.runtime([verb, id]).exits(1).fails_with(text).prints("");
    }

    /// Asserts that nothing of the container is left: state, cgroup, process, mount.
    #[track_caller]
    pub fn assert_gone(&self, bundle: &Bundle) {
        self.assert_missing("state", &bundle.id);
        let traces = Traces::of(&bundle.id, &bundle.dir);
        assert!(traces.is_empty(), "{} left: {traces}", bundle.id);
    }

    fn clean_up(&mut self) -> Vec<String> {
        let ids = std::mem::take(self.ids.get_mut().unwrap_or_else(|e| e.into_inner()));
        let mut leaks: Vec<String> = Vec::new();
        for id in &ids {
            if self.root().join(id).exists() {
                let mut delete = self.command();
                delete.args(["delete", "--force", id]);
                match Outcome::in_time(delete, &self.dir.join("out")) {
                    Ok(outcome) if outcome.code() == 0 => {}
                    Ok(outcome) => leaks.push(format!("delete --force failed: {outcome}")),
                    Err(why) => leaks.push(why),
                }
            }
        }
        cgroup::remove_empty(&self.name);
        let traces = Traces::of(&self.name, &self.dir);
        leaks.extend(traces.clear());
        if let Ok(entries) = fs::read_dir(self.root()) {
            let names = entries.flatten().map(|entry| entry.file_name());
            // crun keeps its seccomp cache in the root; hidden files are not containers.
            let names = names.filter(|name| !name.to_string_lossy().starts_with('.'));
            leaks.extend(names.map(|name| format!("state {}", name.to_string_lossy())));
        }
        let _ = fs::remove_dir_all(&self.dir);
        leaks
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let leaks = self.clean_up();
        if leaks.is_empty() {
            return;
        }
        let text = format!("after the case these are left: {}", leaks.join("; "));
        if std::thread::panicking() {
            eprintln!("{text}");
        } else {
            panic!("{text}");
        }
    }
}
