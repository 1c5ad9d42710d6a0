//! The host's cgroups: which layout, and a container's files in it.

use std::fs;
use std::path::{Path, PathBuf};

/// How the host lays out its cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Controllers in v1 hierarchies, with or without an additional v2 tree.
    V1,
    /// One v2 tree with whatever controllers it has.
    V2,
}

/// Where cgroups are mounted on every system that these tests know.
const ROOT: &str = "/sys/fs/cgroup";

/// The layout at /sys/fs/cgroup.
pub fn layout() -> Layout {
    if Path::new(ROOT).join("cgroup.controllers").exists() { Layout::V2 } else { Layout::V1 }
}

/// Whether a v2 tree is mounted beside v1 hierarchies.
pub fn is_hybrid() -> bool {
    layout() == Layout::V1 && Path::new(ROOT).join("unified/cgroup.controllers").exists()
}

/// The mount point of the v2 tree, if the host has one.
pub fn unified_root() -> Option<PathBuf> {
    let places = [PathBuf::from(ROOT), Path::new(ROOT).join("unified")];
    places.into_iter().find(|place| place.join("cgroup.controllers").exists())
}

/// Whether the host can limit this resource (`memory`, `cpu`, `pids`, …).
pub fn has_controller(name: &str) -> bool {
    match layout() {
        Layout::V1 => Path::new(ROOT).join(name).join("cgroup.procs").exists(),
        Layout::V2 => fs::read_to_string(Path::new(ROOT).join("cgroup.controllers"))
            .is_ok_and(|list| list.split_whitespace().any(|word| word == name)),
    }
}

/// The mount point of each hierarchy.
pub fn roots() -> Vec<PathBuf> {
    if layout() == Layout::V2 {
        return vec![PathBuf::from(ROOT)];
    }
    let entries = fs::read_dir(ROOT).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// Removes the cgroup `name` at the top of each hierarchy, where it is empty.
pub fn remove_empty(name: &str) {
    for root in roots() {
        let _ = fs::remove_dir(root.join(name));
    }
}

/// Removes the cgroup `name` at the top of each hierarchy with all the empty ones below it: what
/// engines leave of a parent that they were given.
pub fn remove_tree(name: &str) {
    for root in roots() {
        remove_below(&root.join(name));
    }
}

fn remove_below(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

/// The directory of the cgroup in which `controller` holds process `pid`.
///
/// # Panics
/// When the process is gone, or the host lacks the controller.
pub fn dir_of(pid: u32, controller: &str) -> PathBuf {
    let table =
        fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("read a process's cgroups");
    for line in table.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let path = path.trim_start_matches('/');
        match layout() {
            Layout::V2 if names.is_empty() => return Path::new(ROOT).join(path),
            Layout::V1 if names.split(',').any(|name| name == controller) => {
                return Path::new(ROOT).join(controller).join(path);
            }
            _ => {}
        }
    }
    panic!("process {pid} has no {controller} cgroup:\n{table}");
}

/// A file of the container's cgroup, by its v1 or its v2 name, without blanks at the ends.
///
/// # Panics
/// When the file is not there.
pub fn read(pid: u32, controller: &str, v1: &str, v2: &str) -> String {
    let file = if layout() == Layout::V1 { v1 } else { v2 };
    let path = dir_of(pid, controller).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    text.trim().to_owned()
}
