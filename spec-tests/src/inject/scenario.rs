//! The verbs that are disturbed, what has to be there before, and what they do when they succeed.

use super::bundles::Kind;
use super::pair::{Answers, Meanwhile};
use super::tracer::Traced;
use super::world::World;

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
    /// What the container asks for.
    pub bundle: Kind,
    /// The sockets that are named: `console`, `pidfd`.
    pub sockets: &'static [&'static str],
    /// Killed only, and then a `create` of the same name has to do.
    pub again: bool,
    /// Not spoilt, but met by another verb.
    pub meanwhile: Option<&'static Meanwhile>,
    /// Looks at what a success has done.
    pub done: fn(&World, &Traced) -> Result<(), String>,
}

impl Scenario {
    /// Is it the verb itself, rather than a variant?
    pub fn is_plain(&self) -> bool {
        let alone = !self.again && self.meanwhile.is_none() && self.sockets.is_empty();
        alone && self.bundle == Kind::Plain && self.before != Before::Paused
    }
}

const fn scenario(name: &'static str, before: Before, words: &'static [&'static str]) -> Scenario {
    Scenario {
        name,
        before,
        words,
        after_id: &[],
        makes: false,
        leaves_it_alone: false,
        bundle: Kind::Plain,
        sockets: &[],
        again: false,
        meanwhile: None,
        done: |_, _| Ok(()),
    }
}

const fn create(name: &'static str, bundle: Kind) -> Scenario {
    Scenario { makes: true, bundle, done: made, ..scenario(name, Before::Missing, &["create"]) }
}

const fn run(name: &'static str, bundle: Kind) -> Scenario {
    Scenario {
        makes: true,
        bundle,
        done: |world, traced| world.printed("up\n", traced),
        ..scenario(name, Before::Missing, &["run"])
    }
}

/// A first process that ends once it has said "ready" is as one that is killed between `create` and
/// `start`, which then says that the container has stopped.
fn made(world: &World, traced: &Traced) -> Result<(), String> {
    match traced.injected {
        Some(site) if site.process > 0 => world.status_is_any(&["created", "stopped"]),
        _ => world.status_is("created"),
    }
}

/// All of them, in the order of a container's life, then the pairs.
pub fn all() -> Vec<Scenario> {
    [making(), entering(), changing(), ending(), pairs()].into_iter().flatten().collect()
}

fn making() -> Vec<Scenario> {
    use Before::{Created, Missing};
    vec![
        create("create", Kind::Plain),
        create("create (hooks, filter, limits)", Kind::Rich),
        Scenario {
            sockets: &["console", "pidfd"],
            done: |world, traced| world.was_sent(2).and_then(|()| made(world, traced)),
            ..create("create (terminal, pidfd)", Kind::Terminal)
        },
        create("create (user namespace)", Kind::Mapped),
        create("create (several ranges)", Kind::Ranges),
        create("create (idmapped mounts)", Kind::Idmapped),
        Scenario {
            done: |world, traced| world.was_sent(1).and_then(|()| made(world, traced)),
            ..create("create (seccomp agent)", Kind::Notified)
        },
        create("create (rootless)", Kind::Rootless),
        create("create (rootless, newuidmap)", Kind::Subordinate),
        Scenario { again: true, ..create("create, then create", Kind::Plain) },
        Scenario { again: true, ..create("create (hooks), then create", Kind::Rich) },
        Scenario {
            done: |world, _| world.status_is("running"),
            ..scenario("start", Created, &["start"])
        },
        Scenario {
            bundle: Kind::Rich,
            done: |world, _| world.status_is("running"),
            ..scenario("start (hooks)", Created, &["start"])
        },
        run("run", Kind::Plain),
        run("run (hooks, filter, limits)", Kind::Rich),
        Scenario {
            makes: true,
            bundle: Kind::Terminal,
            sockets: &["console"],
            done: |world, _| world.was_sent(1),
            ..scenario("run --detach (terminal)", Missing, &["run", "--detach"])
        },
        run("run (rootless)", Kind::Rootless),
    ]
}

fn entering() -> Vec<Scenario> {
    let exec = |name, bundle| Scenario {
        bundle,
        after_id: &["echo", "ok"],
        leaves_it_alone: true,
        done: |world, traced| world.printed("ok\n", traced),
        ..scenario(name, Before::Running, &["exec"])
    };
    vec![
        exec("exec", Kind::Plain),
        exec("exec (user namespace, filter)", Kind::Rich),
        Scenario {
            words: &["exec", "--tty"],
            sockets: &["console"],
            done: |world, _| world.was_sent(1),
            ..exec("exec --tty", Kind::Plain)
        },
        Scenario {
            words: &["exec", "--detach"],
            // What it prints may come later.
            done: |_, _| Ok(()),
            ..exec("exec --detach", Kind::Plain)
        },
        exec("exec (rootless)", Kind::Rootless),
    ]
}

fn changing() -> Vec<Scenario> {
    use Before::{Paused, Running};
    vec![
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
    ]
}

fn ending() -> Vec<Scenario> {
    use Before::{Paused, Running, Stopped};
    let gone: fn(&World, &Traced) -> Result<(), String> = |world, _| world.is_missing();
    vec![
        Scenario {
            after_id: &["KILL"],
            done: |world, _| world.status_is("stopped"),
            ..scenario("kill", Running, &["kill"])
        },
        Scenario {
            after_id: &["KILL"],
            done: |world, _| world.status_is("stopped"),
            ..scenario("kill --all (paused)", Paused, &["kill", "--all"])
        },
        Scenario { done: gone, ..scenario("delete", Stopped, &["delete"]) },
        Scenario {
            bundle: Kind::Rich,
            done: gone,
            ..scenario("delete (hooks)", Stopped, &["delete"])
        },
        Scenario { again: true, ..scenario("delete, then create", Stopped, &["delete"]) },
        Scenario { done: gone, ..scenario("delete --force", Running, &["delete", "--force"]) },
        Scenario {
            done: gone,
            ..scenario("delete --force (paused)", Paused, &["delete", "--force"])
        },
        Scenario {
            bundle: Kind::Rootless,
            done: gone,
            ..scenario("delete --force (rootless)", Running, &["delete", "--force"])
        },
    ]
}

const CREATE: &[&str] = &["create"];
const START: &[&str] = &["start"];
const DELETE: &[&str] = &["delete"];
const FORCE: &[&str] = &["delete", "--force"];

/// A `create` that came second has the name only if it says so.
fn second_decides(world: &World, answers: &Answers) -> Result<(), String> {
    match answers.second {
        0 => world.status_is("created"),
        _ if answers.second_said.contains("already exists") => world.is_missing(),
        _ => Err("the second says something else".into()),
    }
}

/// The verb that comes meanwhile, by name.
macro_rules! meanwhile {
    ($words:expr, $makes:literal, $fits:expr) => {{
        const SECOND: Meanwhile = Meanwhile { words: $words, makes: $makes, fits: $fits };
        Some(&SECOND)
    }};
}

fn pairs() -> Vec<Scenario> {
    use Before::{Created, Running, Stopped};
    vec![
        Scenario {
            meanwhile: meanwhile!(CREATE, true, |world, answers| {
                answers.one_succeeds().and_then(|()| world.status_is("created"))
            }),
            ..create("create, and create", Kind::Plain)
        },
        Scenario {
            meanwhile: meanwhile!(FORCE, false, |world, answers| {
                let after = world.is_missing().or_else(|_| world.status_is("created"));
                answers.both_succeed().and(after)
            }),
            ..create("create, and delete --force", Kind::Plain)
        },
        Scenario {
            meanwhile: meanwhile!(START, false, |world, answers| {
                let wanted = if answers.second == 0 { "running" } else { "created" };
                match answers.first {
                    0 => world.status_is(wanted),
                    _ => Err("create fails".into()),
                }
            }),
            ..create("create, and start", Kind::Plain)
        },
        Scenario {
            meanwhile: meanwhile!(START, false, |world, answers| {
                answers.one_succeeds().and_then(|()| world.status_is("running"))
            }),
            ..scenario("start, and start", Created, START)
        },
        Scenario {
            meanwhile: meanwhile!(FORCE, false, |world, answers| {
                match answers.second {
                    0 => world.is_missing(),
                    _ => Err("delete fails".into()),
                }
            }),
            ..scenario("start, and delete --force", Created, START)
        },
        Scenario {
            meanwhile: meanwhile!(DELETE, false, |world, answers| {
                let fine = |code, said: &str| code == 0 || said.contains("does not exist");
                let both = fine(answers.first, &answers.first_said)
                    && fine(answers.second, &answers.second_said);
                match both && (answers.first == 0 || answers.second == 0) {
                    true => world.is_missing(),
                    false => Err("nobody deletes it, or one says something else".into()),
                }
            }),
            ..scenario("delete, and delete", Stopped, DELETE)
        },
        Scenario {
            meanwhile: meanwhile!(FORCE, false, |world, answers| {
                answers.both_succeed().and_then(|()| world.is_missing())
            }),
            ..scenario("delete --force, and the same", Running, FORCE)
        },
        Scenario {
            meanwhile: meanwhile!(CREATE, true, |world, answers| {
                match answers.first {
                    0 => second_decides(world, answers),
                    _ => Err("delete fails".into()),
                }
            }),
            ..scenario("delete --force, and create", Running, FORCE)
        },
        Scenario {
            meanwhile: meanwhile!(START, false, |world, answers| {
                match answers.first {
                    0 => world.is_missing(),
                    _ => Err("delete fails".into()),
                }
            }),
            ..scenario("delete --force, and start", Created, FORCE)
        },
    ]
}
