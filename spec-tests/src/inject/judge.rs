//! One run with one fault, and the verdict on it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::calls;
use super::scenario::{Scenario, World};
use super::tracer::{Fault, Site, Traced, trace};
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
    world.prepare(scenario.before)?;
    let traced = trace(&world.command(scenario), &world.out(), &world.err(), None);
    let said = fs::read_to_string(world.err()).unwrap_or_default();
    world.must_run(&["delete", "--force", &world.bundle.id])?;
    match traced.code {
        0 => Ok(traced.sites),
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
    let prepared = if *ready { Ok(()) } else { world.prepare(scenario.before) };
    if let Err(why) = prepared {
        verdict.wrong = Some(format!("cannot prepare: {why}"));
        return verdict;
    }
    let plan = Some((site, fault));
    let traced = trace(&world.command(scenario), &world.out(), &world.err(), plan);
    verdict.injected = traced.injected.is_some();
    verdict.wrong = judge(world, scenario, site, fault, &traced).err();
    // Where Rust's library does not take a failure, it ends the program as a signal would.
    let aborted = calls::is_the_librarys(site.call) && traced.code == 128 + Signal::SIGABRT as i32;
    if scenario.words[0] == "create" && traced.code != 0 && fault != Fault::Kill && !aborted {
        // It says that it has failed: then it has undone what it did.
        verdict.leak = remains(world, &[]).map(|left| format!("before any clean-up: {left}"));
    }
    *ready = scenario.leaves_it_alone && unharmed(world, &traced).is_ok();
    if scenario.leaves_it_alone && !*ready {
        verdict.wrong = unharmed(world, &traced).err();
    }
    if !*ready {
        if let Err(why) = world.must_run(&["delete", "--force", &world.bundle.id]) {
            verdict.wrong.get_or_insert(format!("delete --force afterwards: {why}"));
        }
        let _ = fs::remove_file(world.work.join("pid"));
        if let Some(left) = remains(world, &traced.left) {
            verdict.leak.get_or_insert(left);
        }
    }
    verdict
}

/// Ends what the last run has left for the next.
pub fn finish(world: &World) {
    let _ = world.must_run(&["delete", "--force", &world.bundle.id]);
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
    let Fault::Fail(errno) = fault else {
        // Killed itself, or it tells that its child has been.
        return match (site.process, said.trim()) {
            (0, _) => Ok(()),
            // Started, but not yet the program: to `run` and `exec` it is the program that died.
            (_, "") if traced.code == 137 => Ok(()),
            (_, "") => Err(format!("exit code {} without a word", traced.code)),
            _ => Ok(()),
        };
    };
    if site.startup || calls::is_the_librarys(site.call) {
        return Ok(());
    }
    if errno == Errno::EINTR && calls::is_interruptible(site.call) {
        return Err(format!("it does not try again: {said:?}"));
    }
    let name = format!("{errno:?}");
    match said.contains(&name) {
        true => Ok(()),
        false => Err(format!("exit code {}, and it does not say {name}: {said:?}", traced.code)),
    }
}

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
