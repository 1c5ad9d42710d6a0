//! `imgtool verify`: is everything in the store what it says it is?

use std::collections::BTreeSet;
use std::path::PathBuf;

use indicatif::DecimalBytes;
use serde_json::json;

use crate::cli::Globals;
use crate::progress::Progress;
use crate::verify::{self, Report};
use crate::{Error, Result};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Remove what is damaged or left over, once nobody else uses the store, and say what must be
    /// pulled again
    #[arg(long)]
    repair: bool,
    /// Write a JSON object
    #[arg(long)]
    json: bool,
}

/// Verifies, and names each damage on standard output; any damage, repaired or not, is an error.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let store = globals.open_store()?;
    if args.repair {
        store.lock_exclusively()?;
    }
    let report = verify::verify(&store, &Progress::on_terminal(globals.quiet))?;
    let removed = if args.repair { verify::repair(&store, &report)? } else { Vec::new() };
    crate::output::print(&match args.json {
        true => to_json(&report, &removed)?,
        false => to_text(&report, &removed),
    })?;
    match report.damage.len() {
        0 => Ok(()),
        n => Err(Error::new(advice(&report, args.repair))
            .wrap(format!("verify {}: {n} damaged", store.root().display()))),
    }
}

fn to_json(report: &Report, removed: &[PathBuf]) -> Result<String> {
    let mut json = serde_json::to_value(report)?;
    json["removed"] = json!(removed);
    json["pullAgain"] = json!(pull_again(report));
    Ok(serde_json::to_string_pretty(&json)? + "\n")
}

fn to_text(report: &Report, removed: &[PathBuf]) -> String {
    let mut text = String::new();
    for damage in &report.damage {
        let users: Vec<&str> = damage.used_by.iter().map(String::as_str).collect();
        let users = if users.is_empty() { "nobody".to_owned() } else { users.join(", ") };
        text += &format!("damaged: {}: {} (used by {users})\n", damage.what.display(), damage.why);
    }
    for leftover in &report.leftovers {
        text += &format!("left over: {}: {}\n", leftover.what.display(), leftover.why);
    }
    for begun in &report.begun {
        let (what, have) = (begun.what.display(), DecimalBytes(begun.bytes));
        text += &format!(
            "begun: {what}: {have} of {}, which a pull continues and `gc` removes\n",
            begun.blob
        );
    }
    for path in removed {
        text += &format!("removed: {}\n", path.display());
    }
    let absent = match report.absent {
        0 => String::new(),
        n => format!(", {n} images of other platforms not here"),
    };
    let size = DecimalBytes(report.bytes);
    text + &format!(
        "{} images, {} blobs, {size}: {} damaged, {} left over{absent}\n",
        report.images,
        report.blobs,
        report.damage.len(),
        report.leftovers.len()
    )
}

/// The images that lack something.
fn pull_again(report: &Report) -> BTreeSet<&str> {
    let users = report.damage.iter().flat_map(|d| &d.used_by).map(String::as_str);
    let mut all = BTreeSet::new();
    all.extend(users.filter(|user| !user.starts_with("davit/")));
    all
}

fn advice(report: &Report, repaired: bool) -> String {
    let images: Vec<&str> = pull_again(report).into_iter().collect();
    let again = match images.is_empty() {
        true => String::new(),
        false => format!("pull or load again: {}", images.join(", ")),
    };
    match (repaired, again.is_empty()) {
        (true, true) => "what could be removed is removed".to_owned(),
        (true, false) => again,
        (false, true) => "--repair removes what can be removed".to_owned(),
        (false, false) => format!("--repair removes it, then {again}"),
    }
}
