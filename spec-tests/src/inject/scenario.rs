//! The verbs that are disturbed, what has to be there before, and what they do when they succeed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use super::tracer::Traced;
use crate::{Bundle, Case, Outcome, wait_until};

/// What a container is doing before the verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// There is none.
    Missing,
    /// It waits for `start`.
    Created,
    /// It sleeps.
    Running,
    /// It sleeps, frozen.
    Paused,
    /// Its program has ended.
    Stopped,
}

/// A verb to disturb.
pub struct Scenario {
    /// How it is called in the report.
    pub name: &'static str,
    /// What has to be there.
    pub before: Before,
    /// The verb and its flags; the container's name follows, then `after_id`.
    pub words: &'static [&'static str],
    /// What follows the name.
    pub after_id: &'static [&'static str],
    /// Whether the bundle is named.
    pub makes: bool,
    /// Whether the container has to run on as it was, whatever became of the verb.
    pub leaves_it_alone: bool,
    /// The bundle with hooks, a user namespace, a filter and an ordinary user.
    pub rich: bool,
    /// Looks at what a success has done.
    pub done: fn(&World, &Traced) -> Result<(), String>,
}

const fn scenario(name: &'static str, before: Before, words: &'static [&'static str]) -> Scenario {
    Scenario {
        name,
        before,
        words,
        after_id: &[],
        makes: false,
        leaves_it_alone: false,
        rich: false,
        done: |_, _| Ok(()),
    }
}

/// All of them, in the order of a container's life.
pub fn all() -> Vec<Scenario> {
    use Before::{Created, Missing, Paused, Running, Stopped};
    // A first process that ends once it has said "ready" is as one that is killed between `create`
    // and `start`, which then says that the container has stopped.
    let made = |world: &World, traced: &Traced| match traced.injected {
        Some(site) if site.process > 0 => {
            world.status_is("created").or_else(|_| world.status_is("stopped"))
        }
        _ => world.status_is("created"),
    };
    vec![
        Scenario { makes: true, done: made, ..scenario("create", Missing, &["create"]) },
        Scenario {
            makes: true,
            rich: true,
            done: made,
            ..scenario("create (rich)", Missing, &["create"])
        },
        Scenario {
            done: |world, _| world.status_is("running"),
            ..scenario("start", Created, &["start"])
        },
        Scenario {
            makes: true,
            done: |world, traced| world.printed("up\n", traced),
            ..scenario("run", Missing, &["run"])
        },
        Scenario {
            makes: true,
            rich: true,
            done: |world, traced| world.printed("up\n", traced),
            ..scenario("run (rich)", Missing, &["run"])
        },
        Scenario {
            after_id: &["echo", "ok"],
            leaves_it_alone: true,
            done: |world, traced| world.printed("ok\n", traced),
            ..scenario("exec", Running, &["exec"])
        },
        Scenario {
            leaves_it_alone: true,
            done: |world, _| world.prints_json(|json| json["status"] == "running"),
            ..scenario("state", Running, &["state"])
        },
        Scenario {
            leaves_it_alone: true,
            done: |world, _| world.prints_json(|j| j.as_array().is_some_and(|all| all.len() == 1)),
            ..scenario("ps", Running, &["ps", "--format", "json"])
        },
        Scenario {
            done: |world, _| world.status_is("paused"),
            ..scenario("pause", Running, &["pause"])
        },
        Scenario {
            done: |world, _| world.status_is("running"),
            ..scenario("resume", Paused, &["resume"])
        },
        Scenario {
            leaves_it_alone: true,
            ..scenario("update", Running, &["update", "--pids-limit", "100"])
        },
        Scenario {
            leaves_it_alone: true,
            done: |world, _| world.prints_json(|json| json["type"] == "stats"),
            ..scenario("events", Running, &["events", "--stats"])
        },
        Scenario {
            after_id: &["KILL"],
            done: |world, _| world.status_is("stopped"),
            ..scenario("kill", Running, &["kill"])
        },
        Scenario {
            done: |world, _| world.is_missing(),
            ..scenario("delete", Stopped, &["delete"])
        },
        Scenario {
            done: |world, _| world.is_missing(),
            ..scenario("delete --force", Running, &["delete", "--force"])
        },
    ]
}

/// A container's world, and where the disturbed command's output goes.
pub struct World {
    /// The case that holds it.
    pub case: Case,
    /// The plain bundle.
    pub bundle: Bundle,
    /// The directory of pid files, in which nothing else may be found.
    pub work: PathBuf,
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
        let plain = case.bundle().sh(script);
        let bundle = if scenario.rich { rich(plain) } else { plain };
        bundle.write();
        let work = case.dir().join("work");
        fs::create_dir(&work).expect("make a directory");
        World { case, bundle, work }
    }

    /// Where the command's stdout goes.
    pub fn out(&self) -> PathBuf {
        self.case.dir().join("disturbed.out")
    }

    /// Where its stderr goes.
    pub fn err(&self) -> PathBuf {
        self.case.dir().join("disturbed.err")
    }

    /// The disturbed command.
    pub fn command(&self, scenario: &Scenario) -> Command {
        let mut command = self.case.command();
        command.args(scenario.words);
        if scenario.makes {
            command.arg("--bundle").arg(&self.bundle.dir);
            command.arg("--pid-file").arg(self.work.join("pid"));
        }
        command.arg(&self.bundle.id).args(scenario.after_id);
        command
    }

    /// Brings the container to where the verb finds it; an earlier one is gone.
    pub fn prepare(&self, before: Before) -> Result<(), String> {
        let id = self.bundle.id.as_str();
        if before == Before::Missing {
            return Ok(());
        }
        let mut create = self.case.command();
        create.arg("create").arg("--bundle").arg(&self.bundle.dir).arg(id);
        self.must(create)?;
        if before != Before::Created {
            self.must_run(&["start", id])?;
        }
        match before {
            Before::Paused => self.must_run(&["pause", id]),
            Before::Stopped => self.status_is("stopped"),
            _ => Ok(()),
        }
    }

    /// Runs a verb undisturbed.
    pub fn must_run(&self, words: &[&str]) -> Result<(), String> {
        let mut command = self.case.command();
        command.args(words);
        self.must(command)
    }

    fn must(&self, command: Command) -> Result<(), String> {
        let outcome = Outcome::in_time(command, &self.case.dir().join("out"))?;
        match outcome.code() {
            0 => Ok(()),
            _ => Err(outcome.to_string()),
        }
    }

    fn look(&self) -> Result<Outcome, String> {
        let mut command = self.case.command();
        command.args(["state", &self.bundle.id]);
        Outcome::in_time(command, &self.case.dir().join("out"))
    }

    /// Has the container this status, or will soon?
    pub fn status_is(&self, status: &str) -> Result<(), String> {
        let mut last = String::new();
        let wanted = format!("\"status\": \"{status}\"");
        let found = wait_until(|| {
            last = match self.look() {
                Ok(outcome) => outcome.to_string(),
                Err(why) => why,
            };
            last.contains(&wanted)
        });
        if found { Ok(()) } else { Err(format!("it is not {status}: {last}")) }
    }

    /// Is there no container?
    pub fn is_missing(&self) -> Result<(), String> {
        let outcome = self.look()?;
        match outcome.stderr.contains("does not exist") {
            true => Ok(()),
            false => Err(format!("it is not gone: {outcome}")),
        }
    }

    fn printed(&self, wanted: &str, _: &Traced) -> Result<(), String> {
        let text = fs::read_to_string(self.out()).unwrap_or_default();
        if text == wanted { Ok(()) } else { Err(format!("it printed {text:?}")) }
    }

    fn prints_json(&self, holds: impl Fn(&serde_json::Value) -> bool) -> Result<(), String> {
        let text = fs::read_to_string(self.out()).unwrap_or_default();
        match serde_json::from_str(&text) {
            Ok(json) if holds(&json) => Ok(()),
            _ => Err(format!("it printed {text:?}")),
        }
    }
}

/// More of what a container can ask for, so that more of the runtime is walked through.
fn rich(bundle: Bundle) -> Bundle {
    let hook = json!([{ "path": "/bin/true", "timeout": 20 }]);
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    bundle
        .namespace("user", None)
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }))
        .set("/linux/maskedPaths", json!(["/proc/kcore", "/sys/firmware"]))
        .set("/linux/readonlyPaths", json!(["/proc/sys"]))
        .set(
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["keyctl"], "action": "SCMP_ACT_ERRNO" }
        ] }),
        )
        .set("/linux/resources/pids", json!({ "limit": 50 }))
        .set("/process/user", json!({ "uid": 1000, "gid": 1000, "additionalGids": [2000] }))
        .set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 512, "hard": 512 }]))
        .set("/process/oomScoreAdj", 500)
        .set(
            "/hooks",
            json!({
                "createRuntime": hook, "poststart": hook, "poststop": hook
            }),
        )
        .mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "size=1m"])
        .mount("/mnt", "bind", "/usr", &["rbind", "ro"])
}
