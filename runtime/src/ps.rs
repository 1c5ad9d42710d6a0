//! `ps`: the processes of a container.

use crate::container::{Container, ContainerId};
use crate::error::{Context, Error, Result};
use std::path::Path;
use std::process::Command;

/// The verb: returns what is to be printed, pids as a JSON array, or the lines of ps(1) that are
/// about them.
pub fn ps(root: &Path, id: &ContainerId, json: bool, options: &[String]) -> Result<String> {
    let container = Container::open(root, id)?;
    if container.record.cgroups.is_empty() {
        return Err(Error::new(format!(
            "container {id} has no cgroup, by which its processes are found"
        )));
    }
    let pids = container.cgroup().pids()?;
    if json {
        return serde_json::to_string(&pids)
            .map(|t| t + "\n")
            .map_err(|e| Error::new(e.to_string()));
    }
    let options = if options.is_empty() { vec!["-ef".to_string()] } else { options.to_vec() };
    let output = Command::new("ps")
        .args(&options)
        .output()
        .wrap(|| "run ps (Debian's package procps); --format json does without")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!("ps {}: {}", options.join(" "), said.trim())));
    }
    filter(&String::from_utf8_lossy(&output.stdout), &pids)
}

/// The header, and those lines whose PID column is one of `pids`.
fn filter(table: &str, pids: &[i32]) -> Result<String> {
    let mut lines = table.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Error::new("ps printed no PID column; ask for one"))?;
    let wanted = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    let lines: Vec<&str> = std::iter::once(header).chain(lines.filter(wanted)).collect();
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_lines_remain() {
        let table = "UID PID CMD\n0 1 init\n0 22 sh 1\n";
        assert_eq!(filter(table, &[22]).unwrap(), "UID PID CMD\n0 22 sh 1\n");
        assert!(filter("CMD\nx\n", &[1]).is_err());
    }
}
