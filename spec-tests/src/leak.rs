//! What a container leaves behind when a runtime does not clean up.
//!
//! Tests run in parallel, so a comparison of the whole machine before and after would see its
//! neighbours. Every trace of a case carries the case's unique name instead: the paths of its
//! mounts, the names of its cgroups, the root directory and cgroup of its processes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cgroup;

/// The mounts, cgroups and processes that carry one name.
#[derive(Debug)]
pub(crate) struct Traces {
    mounts: Vec<String>,
    cgroups: Vec<PathBuf>,
    processes: Vec<(u32, String)>,
}

impl Traces {
    /// Looks for cgroups called `name` and what is in them, and for whatever lies below `dir`.
    pub(crate) fn of(name: &str, dir: &Path) -> Traces {
        Traces { mounts: mounts(dir), cgroups: cgroups(name), processes: processes(name, dir) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.mounts.is_empty() && self.cgroups.is_empty() && self.processes.is_empty()
    }

    /// Removes all of them, and says what they were.
    pub(crate) fn clear(self) -> Vec<String> {
        let mut said = Vec::new();
        for (pid, what) in &self.processes {
            said.push(format!("process {pid} ({what})"));
            kill(*pid);
        }
        if !self.processes.is_empty() {
            crate::wait_until(|| {
                !self
                    .processes
                    .iter()
                    .any(|(pid, _)| Path::new(&format!("/proc/{pid}/root")).exists())
            });
        }
        for mount in self.mounts.iter().rev() {
            said.push(format!("mount {mount}"));
            let _ = rustix::mount::unmount(mount.as_str(), rustix::mount::UnmountFlags::DETACH);
        }
        for cgroup in self.cgroups.iter().rev() {
            said.push(format!("cgroup {}", cgroup.display()));
            let _ = fs::remove_dir(cgroup);
        }
        said
    }
}

impl std::fmt::Display for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "mounts {:?}, cgroups {:?}, processes {:?}",
            self.mounts, self.cgroups, self.processes
        )
    }
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn mounts(dir: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
    let targets = table.lines().filter_map(|line| line.split(' ').nth(4));
    targets.filter(|target| Path::new(target).starts_with(dir)).map(str::to_owned).collect()
}

fn cgroups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in cgroup::roots() {
        // A test's cgroups are at most two levels down: /CASE/ID.
        let mut candidates = vec![root.join(name)];
        candidates.extend(subdirectories(&root).into_iter().map(|dir| dir.join(name)));
        for top in candidates.into_iter().filter(|path| path.exists()) {
            collect(top, &mut found);
        }
    }
    found
}

/// A cgroup and all below it, parents first.
fn collect(dir: PathBuf, found: &mut Vec<PathBuf>) {
    found.push(dir.clone());
    for child in subdirectories(&dir) {
        collect(child, found);
    }
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn processes(name: &str, dir: &Path) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("read /proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let root = fs::read_link(entry.path().join("root")).unwrap_or_default();
        // A zombie has no root; it is its parent's to reap, and no container keeps running.
        if root.as_os_str().is_empty() {
            continue;
        }
        let cgroups = read("cgroup");
        let inside = cgroups.lines().any(|line| line.split('/').any(|part| part == name));
        if inside || root.starts_with(dir) {
            found.push((pid, read("comm").trim().to_owned()));
        }
    }
    found
}
