//! `list`: all containers below the root directory of states.

use crate::container::{self, Container, Status};
use crate::error::{Error, Kind, Result};
use crate::log::Log;
use crate::state::Report;
use std::path::Path;

/// How the list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Columns for people.
    Table,
    /// An array of what `state` prints.
    Json,
    /// Names, one a line.
    Quiet,
}

/// The verb: returns what is to be printed.
///
/// A container whose state cannot be read does not hide the others: it is told by `log`.
pub fn list(root: &Path, format: Format, log: &Log) -> Result<String> {
    let mut reports = Vec::new();
    for id in container::all(root)? {
        match Container::open(root, &id).and_then(|c| Report::of(&c)) {
            Ok(report) => reports.push(report),
            // Deleted while we looked.
            Err(e) if e.kind() == Kind::NotFound => {}
            Err(e) => log.warn(&e.wrap(format!("container {id}")).to_string()),
        }
    }
    match format {
        Format::Json => {
            serde_json::to_string(&reports).map(|t| t + "\n").map_err(|e| Error::new(e.to_string()))
        }
        Format::Quiet => Ok(reports.iter().map(|r| format!("{}\n", r.id)).collect()),
        Format::Table => Ok(table(&reports)),
    }
}

fn table(reports: &[Report]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from);
    let row = |r: &Report| {
        let status: Status = r.status;
        [
            r.id.clone(),
            r.pid.to_string(),
            status.to_string(),
            r.bundle.clone(),
            r.created.clone(),
            r.owner.clone(),
        ]
    };
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(reports.iter().map(row)).collect();
    columns(&rows)
}

/// Lays rows out in columns, each as wide as its widest cell and at least 12.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count() + 3).max().unwrap_or(0).max(12);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.concat().trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["ID".into(), "X".into()], ["a-rather-long-name".into(), "1".into()]];
        assert_eq!(columns::<2>(&rows), "ID                   X\na-rather-long-name   1\n");
    }
}
