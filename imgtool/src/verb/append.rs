//! `imgtool append`: layers on top of an image.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::Globals;
use crate::edit::{self, Draft};
use crate::progress::Progress;
use crate::verb::load::open;
use crate::verb::target::Target;
use crate::{Context, Result};

/// Arguments of `append`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to make of which image.
    #[command(flatten)]
    target: Target,
    /// A comment for the image's history
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// The layers' archives, bottom first: plain, gzip or zstd; - for standard input
    #[arg(required = true, value_name = "LAYER")]
    layers: Vec<PathBuf>,
}

/// Makes the image and prints its digest. The archives' bytes stay as they are.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    args.target.make(globals, "append to", |store, image| {
        let created = edit::now()?;
        let mut draft = Draft::of(store, image)?;
        for path in &args.layers {
            let (reader, size) = open(Some(path.as_path()).filter(|p| *p != Path::new("-")))?;
            let bar = Progress::on_terminal(globals.quiet).bar("append", size);
            let added = edit::add_archive(store, bar.reader(reader));
            bar.clear();
            let (layer, diff_id) = added.wrap(|| path.display().to_string())?;
            let by = format!("imgtool append {}", path.display());
            let mut history = json!({"created": created, "created_by": by});
            if let Some(message) = &args.message {
                history["comment"] = json!(message);
            }
            draft.add_layer(layer, &diff_id, history);
        }
        draft.config.set_top("created", json!(created));
        draft.finish()
    })
}
