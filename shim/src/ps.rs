//! `shim ps`: what there is, and what it is doing.

use std::io::Write;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;

use crate::cli::{Global, Ps};
use crate::container::{self, Config, Container, Status};
use crate::error::Result;
use crate::log::k8s_file::read_lost;
use crate::process::Recorded;
use crate::{exit, id, places};

/// Everything known of a container: `shim ps --json`.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    config: Config,
    status: &'static str,
    #[serde(rename = "exitCode")]
    exit_code: Option<u8>,
    pid: Option<i32>,
    monitor: Option<i32>,
    started: Option<Timestamp>,
    finished: Option<Timestamp>,
    #[serde(rename = "lostLog")]
    lost_log: Option<Lost>,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Lost {
    entries: u64,
    bytes: u64,
    reason: String,
}

/// Lists containers, the newest first.
///
/// # Errors
/// When the state directory cannot be read. A damaged container is a warning.
pub fn ps(global: &Global, args: &Ps) -> Result<u8> {
    let root = places::state_dir(global.state.as_deref())?;
    let mut rows = Vec::new();
    for id in container::ids(&root)? {
        match Container::load(&root, &id) {
            Ok(container) => rows.push(row(container)),
            // Removed between the listing and now.
            Err(_) if !root.join(&id).exists() => {}
            Err(error) => crate::client::warn(&format!("{error} (shim rm {id} removes it)")),
        }
    }
    rows.retain(|row| args.all || ["running", "orphaned", "created"].contains(&row.status));
    rows.sort_by_key(|row| std::cmp::Reverse(row.config.created));
    let text = match (args.json, args.quiet) {
        (true, _) => serde_json::to_string_pretty(&rows)? + "\n",
        (_, true) => rows.iter().map(|row| format!("{}\n", id::short(&row.config.id))).collect(),
        _ => table(&rows),
    };
    // A closed pipe is the reader's own choice.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(0)
}

fn row(container: Container) -> Row {
    let dir = container.dir();
    let status = container.status();
    let end = exit::read(&dir).ok().flatten();
    let runs = matches!(status, Status::Running | Status::Orphaned);
    let pid = |name| Recorded::read(&dir.join(name)).filter(|_| runs).map(|process| process.pid);
    let lost =
        read_lost(&dir.join("lost")).filter(|lost| lost.entries > 0 || !lost.reason.is_empty());
    Row {
        status: name(status),
        exit_code: end.map(|(code, _)| code),
        pid: pid("init"),
        monitor: pid("monitor"),
        started: container.started().and_then(timestamp),
        finished: end.and_then(|(_, at)| timestamp(at)),
        lost_log: lost.map(|lost| Lost {
            entries: lost.entries,
            bytes: lost.bytes,
            reason: lost.reason,
        }),
        error: container.trouble(),
        config: container.config,
    }
}

fn name(status: Status) -> &'static str {
    match status {
        Status::Created => "created",
        Status::Running => "running",
        Status::Orphaned => "orphaned",
        Status::Exited(_) => "exited",
        Status::Lost => "lost",
    }
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}

fn table(rows: &[Row]) -> String {
    let mut cells =
        vec![["CONTAINER ID", "SOURCE", "COMMAND", "CREATED", "STATUS", "NAME"].map(String::from)];
    let now = Timestamp::now();
    for row in rows {
        let bundle = row.config.origin.as_ref().unwrap_or(&row.config.bundle);
        let source = row.config.image.clone();
        let source = source.unwrap_or_else(|| bundle.display().to_string());
        cells.push([
            id::short(&row.config.id).to_owned(),
            shorten(&source, 32, true),
            shorten(&row.config.command.join(" "), 24, false),
            ago(Some(row.config.created), now),
            status_text(row, now),
            row.config.name.clone(),
        ]);
    }
    let mut widths = [0; 6];
    for line in &cells {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in &cells {
        let padded = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}   "));
        text.push_str(padded.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

fn status_text(row: &Row, now: Timestamp) -> String {
    let mut text = match (row.status, row.exit_code) {
        ("running", _) => format!("running since {}", age(row.started, now)),
        ("exited", Some(code)) => format!("exited ({code}) {}", ago(row.finished, now)),
        (status, _) => status.to_owned(),
    };
    if let Some(lost) = &row.lost_log {
        text.push_str(&format!(", log lost {} lines", lost.entries));
    }
    if row.error.is_some() {
        text.push_str(", error");
    }
    text
}

fn ago(time: Option<Timestamp>, now: Timestamp) -> String {
    format!("{} ago", age(time, now))
}

fn age(time: Option<Timestamp>, now: Timestamp) -> String {
    let seconds = time.map_or(0, |time| now.duration_since(time).as_secs().max(0));
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// At most `width` characters on one line; a path keeps its end.
fn shorten(text: &str, width: usize, keep_end: bool) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let chars: Vec<char> = text.chars().map(printable).collect();
    if chars.len() <= width {
        return chars.into_iter().collect();
    }
    match keep_end {
        true => {
            std::iter::once('…').chain(chars[chars.len() + 1 - width..].iter().copied()).collect()
        }
        false => chars[..width - 1].iter().copied().chain(std::iter::once('…')).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_fit_and_ages_read_well() {
        assert_eq!(shorten("short", 8, false), "short");
        assert_eq!(shorten("a\nvery long command", 8, false), "a very …");
        assert_eq!(shorten("/a/very/long/path", 8, true), "…ng/path");
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let then: Timestamp = "2026-01-01T22:00:00Z".parse().unwrap();
        assert_eq!(ago(Some(then), now), "2 h ago");
        assert_eq!(age(Some(now), then), "0 s");
    }
}
