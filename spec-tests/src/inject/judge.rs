//! One run with one fault, and the verdict on it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::calls;
use super::pair::{Answers, Meanwhile, Second};
use super::scenario::Scenario;
use super::tracer::{Fault, Site, Traced, trace};
use super::world::World;
use crate::leak::Traces;

/// What came of a run.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The call was met, and spoilt.
    pub injected: bool,
    /// What the verb did or said wrongly.
    pub wrong: Option<String>,
    /// What was left although it had been cleaned up.
    pub leak: Option<String>,
}

/// Runs the verb of `scenario` once, undisturbed; the calls that it makes.
///
/// # Errors
/// It fails, as it does where the runtime does not have the verb.
pub fn record(scenario: &Scenario) -> Result<Vec<Site>, String> {
    let world = World::new(scenario);
    world.prepare(scenario)?;
    let files = (world.out(), world.err());
    let traced = trace(&world.command(scenario), (&files.0, &files.1), None, &|| ());
    let said = fs::read_to_string(world.err()).unwrap_or_default();
    let done = (scenario.done)(&world, &traced);
    world.must_run(&["delete", "--force", &world.bundle.id])?;
    match traced.code {
        0 => done.map(|()| traced.sites),
        code => Err(format!("exit code {code}: {}", said.trim())),
    }
}

/// Runs the verb with one call spoilt, judges it, and cleans up. `ready`: the container is as the
/// verb needs it, from the run before.
pub fn disturb(
    world: &World,
    scenario: &Scenario,
    site: Site,
    fault: Fault,
    ready: &mut bool,
) -> Verdict {
    let mut verdict = Verdict::default();
    let prepared = if *ready { Ok(()) } else { world.prepare(scenario) };
    if let Err(why) = prepared {
        verdict.wrong = Some(format!("cannot prepare: {why}"));
        world.finish();
        return verdict;
    }
    world.arrived();
    let second = Second::default();
    let meet = || {
        if let Some(meanwhile) = scenario.meanwhile {
            second.run(world.meanwhile(meanwhile), &world.case.dir().join("out"));
        }
    };
    let files = (world.out(), world.err());
    let command = world.command(scenario);
    let traced = trace(&command, (&files.0, &files.1), Some((site, fault)), &meet);
    verdict.injected = traced.injected.is_some();
    verdict.wrong = match scenario.meanwhile {
        Some(meanwhile) => judge_pair(world, meanwhile, &traced, &second),
        None => judge(world, scenario, site, fault, &traced),
    }
    .err();
    // Where Rust's library does not take a failure, it aborts: the program is dead as by SIGKILL, no
    // line of ours runs any more, and only the next verb can clean up.
    let aborted = calls::is_the_librarys(site.call) && ABORTED.contains(&traced.code);
    let undoes = scenario.words[0] == "create" && matches!(fault, Fault::Fail(_)) && !aborted;
    if undoes && traced.code != 0 {
        // It says that it has failed: then it has undone what it did.
        verdict.leak = remains(world, &[]).map(|left| format!("before any clean-up: {left}"));
    }
    if scenario.again && verdict.injected {
        let again = world.create_again(scenario).map_err(|why| format!("create again: {why}"));
        verdict.wrong = verdict.wrong.or(again.err());
    }
    *ready = scenario.leaves_it_alone && unharmed(world, &traced).is_ok();
    if scenario.leaves_it_alone && !*ready {
        verdict.wrong = unharmed(world, &traced).err();
    }
    if !*ready {
        clean_up(world, &traced, &mut verdict);
    }
    verdict
}

/// The exit codes of a program that abort(3) ended, and of a panic where it unwinds, as in builds for
/// tests.
const ABORTED: [i32; 2] = [128 + Signal::SIGABRT as i32, 101];

fn clean_up(world: &World, traced: &Traced, verdict: &mut Verdict) {
    if let Err(why) = world.must_run(&["delete", "--force", &world.bundle.id]) {
        verdict.wrong.get_or_insert(format!("delete --force afterwards: {why}"));
    }
    let _ = fs::remove_file(world.work.join("pid"));
    if let Some(left) = remains(world, &traced.left) {
        verdict.leak.get_or_insert(left);
    }
}

fn judge_pair(
    world: &World,
    meanwhile: &Meanwhile,
    traced: &Traced,
    second: &Second,
) -> Result<(), String> {
    let first_said = fs::read_to_string(world.err()).unwrap_or_default();
    // It was not met: nothing came meanwhile.
    let Some(outcome) = second.end() else { return Ok(()) };
    let outcome = outcome.map_err(|why| format!("the second hangs: {why}"))?;
    if traced.hung {
        return Err(format!("the first hangs: {first_said:?}"));
    }
    let answers = Answers {
        first: traced.code,
        first_said,
        second: outcome.code(),
        second_said: outcome.stderr,
    };
    let fits = answers.have_words().and_then(|()| (meanwhile.fits)(world, &answers));
    fits.map_err(|why| format!("{why}: {answers:?}"))
}

fn judge(
    world: &World,
    scenario: &Scenario,
    site: Site,
    fault: Fault,
    traced: &Traced,
) -> Result<(), String> {
    let said = fs::read_to_string(world.err()).unwrap_or_default();
    if traced.hung {
        return Err(format!("it hangs; it has said {said:?}"));
    }
    if traced.code == 0 {
        return match (scenario.done)(world, traced) {
            Err(why) => Err(format!("it succeeds, but {why}")),
            Ok(()) => Ok(()),
        };
    }
    let silent = said.trim().is_empty();
    let Fault::Fail(errno) = fault else {
        // Killed itself, it says nothing. Of a child that was killed it tells, but for one that was the
        // program already as far as `run` and `exec` know, whose end is theirs.
        let programs_end = ["run", "exec"].contains(&scenario.words[0]) && traced.code == KILLED;
        return match site.process == 0 || !silent || programs_end {
            true => Ok(()),
            false => Err(format!("exit code {} without a word", traced.code)),
        };
    };
    let interrupted = errno == Errno::EINTR && calls::is_interruptible(site.call);
    if interrupted && !site.startup {
        return Err(format!("it does not try again: {said:?}"));
    }
    if site.startup {
        // Before main(): what the C library or Rust's does then, no line of ours can tell of.
        return Ok(());
    }
    if calls::is_the_librarys(site.call) {
        // The allocator's failure is an abort with Rust's words; that of a helper's or the first
        // process's allocator is told by its parent. Neither knows the call.
        return match silent {
            false => Ok(()),
            true => Err(format!("exit code {} without a word", traced.code)),
        };
    }
    let name = format!("{errno:?}");
    match said.contains(&name) {
        true if !calls::words(site.call).iter().any(|word| said.contains(word)) => {
            Err(format!("it does not name the call: {said:?}"))
        }
        true => Ok(()),
        false => Err(format!("exit code {}, and it does not say {name}: {said:?}", traced.code)),
    }
}

/// The exit code of a program that SIGKILL ended.
const KILLED: i32 = 128 + Signal::SIGKILL as i32;

/// Does the container run as before, with nobody else in it?
fn unharmed(world: &World, traced: &Traced) -> Result<(), String> {
    let alive = alive(&traced.left);
    if !alive.is_empty() {
        return Err(format!("processes {alive:?} stay"));
    }
    world.status_is("running").map_err(|why| format!("the container is harmed: {why}"))
}

/// Those of the processes that are still there after some time.
fn alive(pids: &[i32]) -> Vec<i32> {
    let lives = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
        !matches!(state, None | Some('Z' | 'X'))
    };
    let start = Instant::now();
    loop {
        let left: Vec<i32> = pids.iter().copied().filter(lives).collect();
        if left.is_empty() || start.elapsed() > Duration::from_secs(3) {
            return left;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What is left of a container that should be gone.
fn remains(world: &World, pids: &[i32]) -> Option<String> {
    let mut left = Vec::new();
    let alive = alive(pids);
    if !alive.is_empty() {
        left.push(format!("processes {alive:?}"));
    }
    let traces = Traces::of(&world.bundle.id, &world.bundle.dir);
    if !traces.is_empty() {
        left.push(traces.to_string());
        traces.clear();
    }
    for directory in [world.case.root(), world.work.clone()] {
        left.extend(entries(&directory).map(|path| {
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            path.display().to_string()
        }));
    }
    if left.is_empty() { None } else { Some(left.join("; ")) }
}

fn entries(directory: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}
