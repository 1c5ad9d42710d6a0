//! A container's world, and how a verb is called in it.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::bundles::USER;
use super::pair::Meanwhile;
use super::scenario::{Before, Scenario};
use super::tracer::Traced;
use crate::user_namespace::FIRST;
use crate::{Bundle, Case, Outcome, runtime, wait_until};

/// Has the user's subordinate ids put into /etc, then becomes the user.
const WITH_SUBORDINATE_IDS: &str = r#"
    mount --bind "$1" /etc/passwd && shift || exit 99
    for f in /etc/subuid /etc/subgid; do mount --bind "$1" $f || exit 99; done
    shift; id=$1; shift
    exec setpriv --reuid "$id" --regid "$id" --clear-groups -- "$@"
"#;

/// A container's world, and where the disturbed command's output goes.
pub struct World {
    /// The case that holds it.
    pub case: Case,
    /// The bundle.
    pub bundle: Bundle,
    /// The directory of pid files, in which nothing else may be found.
    pub work: PathBuf,
    sockets: Vec<UnixListener>,
    subordinate: bool,
    rootless: bool,
}

/// Where the agent of a filter listens.
pub fn agent(case: &Case) -> PathBuf {
    case.dir().join("agent.sock")
}

impl World {
    /// A world for one scenario.
    pub fn new(scenario: &Scenario) -> World {
        let case = Case::new();
        let script = match scenario.words[0] {
            "run" => "echo up",
            _ if scenario.before == Before::Stopped => "exit",
            _ => "echo up; exec sleep 1000",
        };
        let bundle = scenario.bundle.bundle(&case, script);
        bundle.write();
        let work = case.dir().join("work");
        fs::create_dir(&work).expect("make a directory");
        let rootless = scenario.bundle.is_rootless();
        if rootless {
            chown(&work, Some(USER), Some(USER)).expect("give it to the user");
        }
        let mut world = World {
            sockets: Vec::new(),
            subordinate: scenario.bundle == super::bundles::Kind::Subordinate,
            rootless,
            case,
            bundle,
            work,
        };
        let paths = [world.socket("console"), world.socket("pidfd"), agent(&world.case)];
        world.sockets = paths.iter().map(|path| listener(path)).collect();
        world
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.case.dir().join(format!("{name}.sock"))
    }

    /// How many have connected to the sockets since the last look; what they sent is dropped.
    pub fn arrived(&self) -> usize {
        self.sockets.iter().map(|socket| std::iter::from_fn(|| socket.accept().ok()).count()).sum()
    }

    /// Where the command's stdout goes.
    pub fn out(&self) -> PathBuf {
        self.case.dir().join("disturbed.out")
    }

    /// Where its stderr goes.
    pub fn err(&self) -> PathBuf {
        self.case.dir().join("disturbed.err")
    }

    /// The runtime as the scenario's user calls it, and then nothing yet.
    fn caller(&self) -> Command {
        if !self.rootless {
            return self.case.command();
        }
        let user = USER.to_string();
        let mut command = if self.subordinate {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "sh", "-c"]);
            command.args([WITH_SUBORDINATE_IDS, "sh"]);
            command.arg(self.accounts()).arg(self.subordinate_ids()).arg(&user);
            command
        } else {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]);
            command
        };
        command.stdin(Stdio::null()).env_remove("XDG_RUNTIME_DIR").current_dir("/");
        command.arg(runtime()).arg("--root").arg(self.case.root());
        command
    }

    fn accounts(&self) -> PathBuf {
        let path = self.case.dir().join("passwd");
        let home = format!("tester:x:{USER}:{USER}::/:/bin/sh\n");
        let all = fs::read_to_string("/etc/passwd").expect("read the accounts") + &home;
        fs::write(&path, all).expect("write the accounts");
        path
    }

    fn subordinate_ids(&self) -> PathBuf {
        let path = self.case.dir().join("subids");
        fs::write(&path, format!("tester:{FIRST}:1000\n")).expect("write the ids");
        path
    }

    /// The disturbed command.
    pub fn command(&self, scenario: &Scenario) -> Command {
        let mut command = self.caller();
        command.args(scenario.words);
        if scenario.makes {
            command.arg("--bundle").arg(&self.bundle.dir);
            command.arg("--pid-file").arg(self.work.join("pid"));
        }
        for name in scenario.sockets {
            command.arg(format!("--{name}-socket")).arg(self.socket(name));
        }
        command.arg(&self.bundle.id).args(scenario.after_id);
        command
    }

    /// The command that comes while the other one stands.
    pub fn meanwhile(&self, second: &Meanwhile) -> Command {
        let mut command = self.caller();
        command.args(second.words);
        if second.makes {
            command.arg("--bundle").arg(&self.bundle.dir);
        }
        command.arg(&self.bundle.id);
        command
    }

    /// Brings the container to where the verb finds it; an earlier one is gone.
    pub fn prepare(&self, scenario: &Scenario) -> Result<(), String> {
        let id = self.bundle.id.as_str();
        if scenario.before == Before::Missing {
            return Ok(());
        }
        self.create()?;
        if scenario.before != Before::Created {
            self.must_run(&["start", id])?;
        }
        match scenario.before {
            Before::Paused => self.must_run(&["pause", id]),
            Before::Stopped => self.status_is("stopped"),
            _ => Ok(()),
        }
    }

    fn create(&self) -> Result<(), String> {
        let mut create = self.caller();
        create.arg("create").arg("--bundle").arg(&self.bundle.dir).arg(&self.bundle.id);
        match Outcome::in_time(create, &self.case.dir().join("out"))? {
            outcome if outcome.code() == 0 => Ok(()),
            outcome => Err(outcome.to_string()),
        }
    }

    /// A `create` after a runtime that was killed. It takes the name; only a container that was made
    /// whole may keep it.
    pub fn create_again(&self, scenario: &Scenario) -> Result<(), String> {
        let create = self.command(&Scenario { words: &["create"], makes: true, ..*scenario });
        let outcome = Outcome::in_time(create, &self.case.dir().join("out"))?;
        match outcome.code() {
            0 => self.status_is("created"),
            _ if !outcome.stderr.contains("already exists") => Err(outcome.to_string()),
            _ => self.is_whole().map_err(|why| format!("{outcome}, but {why}")),
        }
    }

    /// `create` left one that waits for its start, `delete` one that it has not begun to delete.
    fn is_whole(&self) -> Result<(), String> {
        let status = self.look()?;
        let has = |word: &str| status.stdout.contains(&format!("\"status\": \"{word}\""));
        let begun = self.case.root().join(&self.bundle.id).join(".deleting").exists();
        match (has("created") || has("running") || has("stopped")) && !begun {
            true => Ok(()),
            false => Err(format!("what is there is none: {status}")),
        }
    }

    /// Runs a verb undisturbed.
    pub fn must_run(&self, words: &[&str]) -> Result<(), String> {
        let mut command = self.case.command();
        command.args(words);
        match Outcome::in_time(command, &self.case.dir().join("out"))? {
            outcome if outcome.code() == 0 => Ok(()),
            outcome => Err(outcome.to_string()),
        }
    }

    /// Takes away what the last run has left for the next.
    pub fn finish(&self) {
        let _ = self.must_run(&["delete", "--force", &self.bundle.id]);
    }

    fn look(&self) -> Result<Outcome, String> {
        let mut command = self.case.command();
        command.args(["state", &self.bundle.id]);
        Outcome::in_time(command, &self.case.dir().join("out"))
    }

    /// Has the container this status, or will soon?
    pub fn status_is(&self, status: &str) -> Result<(), String> {
        self.status_is_any(&[status])
    }

    /// Has it one of these, or will soon?
    pub fn status_is_any(&self, statuses: &[&str]) -> Result<(), String> {
        let mut last = String::new();
        let wanted = statuses.iter().map(|status| format!("\"status\": \"{status}\""));
        let wanted: Vec<String> = wanted.collect();
        let found = wait_until(|| {
            last = match self.look() {
                Ok(outcome) => outcome.to_string(),
                Err(why) => why,
            };
            wanted.iter().any(|text| last.contains(text))
        });
        if found { Ok(()) } else { Err(format!("it is not {statuses:?}: {last}")) }
    }

    /// Is there no container?
    pub fn is_missing(&self) -> Result<(), String> {
        let outcome = self.look()?;
        match outcome.stderr.contains("does not exist") {
            true => Ok(()),
            false => Err(format!("it is not gone: {outcome}")),
        }
    }

    /// Did the disturbed command print this?
    pub fn printed(&self, wanted: &str, _: &Traced) -> Result<(), String> {
        let text = fs::read_to_string(self.out()).unwrap_or_default();
        if text == wanted { Ok(()) } else { Err(format!("it printed {text:?}")) }
    }

    /// Did it print JSON of which this holds?
    pub fn prints_json(&self, holds: impl Fn(&serde_json::Value) -> bool) -> Result<(), String> {
        let text = fs::read_to_string(self.out()).unwrap_or_default();
        match serde_json::from_str(&text) {
            Ok(json) if holds(&json) => Ok(()),
            _ => Err(format!("it printed {text:?}")),
        }
    }

    /// Has somebody come to the sockets?
    pub fn was_sent(&self, count: usize) -> Result<(), String> {
        match self.arrived() {
            n if n >= count => Ok(()),
            n => Err(format!("{n} came to the sockets, not {count}")),
        }
    }
}

fn listener(path: &std::path::Path) -> UnixListener {
    let listener = UnixListener::bind(path).expect("bind a socket");
    listener.set_nonblocking(true).expect("make the socket non-blocking");
    // The user without privileges connects, too.
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions(path, all).expect("open the socket to all");
    listener
}
