//! `imgtool import`: an archive of a root file system as an image of one layer.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::Globals;
use crate::edit::{self, Draft};
use crate::image::ImageConfig;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::Store;
use crate::verb::config::Edits;
use crate::verb::load::open;
use crate::verb::tag::parse_name;
use crate::{Context, Result};

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name for the image; it may be repeated
    #[arg(long, short, value_name = "NAME")]
    tag: Vec<String>,
    /// What the image is for [default: this machine]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// A comment for the image's history
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// Settings of the image.
    #[command(flatten, next_help_heading = "Settings")]
    edits: Edits,
    /// The archive, plain, gzip or zstd; - for standard input
    file: PathBuf,
}

/// Imports it and prints the image's digest. If it fails, nothing of the archive stays.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let tags: Vec<Reference> = args.tag.iter().map(|t| parse_name(t)).collect::<Result<_>>()?;
    let path = Some(&args.file).filter(|p| *p != Path::new("-"));
    let what = path.map_or("standard input".to_owned(), |p| p.display().to_string());
    let (reader, size) = open(path.map(PathBuf::as_path))?;
    let store = globals.open_store()?;
    let bar = Progress::on_terminal(globals.quiet).bar("import", size);
    let imported = import(&args, &store, bar.reader(reader), &what);
    bar.clear();
    let digest = match imported {
        Ok(image) => {
            match tags.is_empty() {
                true => store.keep(&image)?,
                false => tags.iter().try_for_each(|name| store.tag(name, &image))?,
            }
            image.digest
        }
        Err(e) => {
            // The first error is the one to tell.
            drop(store.collect(false));
            return Err(e.wrap(format!("import {what}")));
        }
    };
    crate::output::print(&format!("{digest}\n"))
}

fn import(
    args: &Args,
    store: &Store,
    reader: impl std::io::Read,
    from: &str,
) -> Result<crate::descriptor::Descriptor> {
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let created = edit::now()?;
    let mut config = ImageConfig::new(&platform);
    config.set_top("created", json!(created));
    let mut draft = Draft::new(store, config);
    // First, since it may be refused.
    args.edits.apply(&mut draft)?;
    let (layer, diff_id) = edit::add_archive(store, reader)?;
    let mut history = json!({"created": created, "created_by": format!("imgtool import {from}")});
    if let Some(message) = &args.message {
        history["comment"] = json!(message);
    }
    draft.add_layer(layer, &diff_id, history);
    draft.finish().wrap(|| "make the image")
}
