//! `imgtool diff`: a bundle's changes as a layer, or two images' differences as a list.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bundle::{self, Metadata};
use crate::cli::Globals;
use crate::edit;
use crate::layer::{Change, What};
use crate::output::Stdout;
use crate::platform::Platform;
use crate::store::Store;
use crate::{Context, Error, Result};

/// Arguments of `diff`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write the list of two images' differences as JSON
    #[arg(long, requires = "image")]
    json: bool,
    /// Which images of multi-platform indexes [default: this machine's]
    #[arg(long, value_name = "OS/ARCH", requires = "image")]
    platform: Option<Platform>,
    /// The bundle; or the old image, by name or digest
    bundle: PathBuf,
    /// The new image: what it adds (A), changes (C) and deletes (D) is listed
    image: Option<String>,
}

/// Of a bundle writes the layer, uncompressed, to standard output, unless that is a terminal.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    if let Some(new) = &args.image {
        return images(&args, new, globals);
    }
    let metadata = Metadata::read(&args.bundle)?;
    bundle::diff(&args.bundle, &metadata, Stdout::for_archive()?)?.finish()
}

fn images(args: &Args, new: &str, globals: &Globals) -> Result<()> {
    let old = name(&args.bundle)?;
    let store = globals.open_store()?;
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let (a, b) = (tree(&store, old, &platform)?, tree(&store, new, &platform)?);
    let changes = a.changes(&b);
    crate::output::print(&match args.json {
        true => to_json(&changes)?,
        false => changes.iter().map(line).collect::<String>(),
    })
}

fn name(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::usage(format!("{}: no image's name", path.display())))
}

fn tree(store: &Store, image: &str, platform: &Platform) -> Result<crate::layer::Tree> {
    let (_, entry) = store.find(image)?;
    edit::tree(store, &store.image(&entry, platform)?).wrap(|| format!("read {image}"))
}

fn letter(change: &Change) -> char {
    match change.what {
        What::Added => 'A',
        What::Changed => 'C',
        What::Deleted => 'D',
    }
}

fn path(change: &Change) -> String {
    match &change.path[..] {
        b"." => "/".to_owned(),
        path => format!("/{}", String::from_utf8_lossy(path)),
    }
}

/// Control characters in names must not reach a terminal, nor split a line.
fn line(change: &Change) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    let path: String = path(change).chars().map(escape).collect();
    format!("{} {path}\n", letter(change))
}

fn to_json(changes: &[Change]) -> Result<String> {
    let entry = |c: &Change| json!({"path": path(c), "change": letter(c).to_string()});
    let list: Vec<Value> = changes.iter().map(entry).collect();
    Ok(serde_json::to_string_pretty(&list)? + "\n")
}
