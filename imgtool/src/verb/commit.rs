//! `imgtool commit`: a bundle's changes as a layer on its image, which makes a new image.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bundle::{self, Metadata};
use crate::cli::Globals;
use crate::compression::Compression;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::edit;
use crate::image::Image;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::Store;
use crate::{Context, Error, Result};

/// Arguments of `commit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Who made the image
    #[arg(long, short, value_name = "NAME")]
    author: Option<String>,
    /// A comment for the image's history
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// How to compress the layer
    #[arg(long, value_enum, value_name = "HOW", default_value = "none")]
    compress: Compression,
    /// The bundle
    bundle: PathBuf,
    /// The new image's name
    name: Reference,
}

/// Makes the image, in the store that the bundle's own image is in.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let metadata = Metadata::read(&args.bundle)?;
    if globals.store.as_deref().is_some_and(|store| !same(store, &metadata.store)) {
        return Err(Error::usage(format!(
            "--store: the bundle's image is in {}, and its layers with it",
            metadata.store.display()
        )));
    }
    let store = Store::open(&metadata.store)?;
    let image = commit(&args, &metadata, &store)
        .wrap(|| format!("commit {} as {}", args.bundle.display(), args.name))?;
    store.tag(&args.name, &image.descriptor)
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn commit(args: &Args, metadata: &Metadata, store: &Store) -> Result<Image> {
    let parent = store.image(&metadata.manifest, &Platform::host())?;
    let (layer, diff_id) = add_layer(args, metadata, store)?;
    let created = edit::now()?;
    let mut history = json!({"created": created, "created_by": "imgtool commit"});
    let mut config = parent.config.clone();
    config.set_top("created", json!(created));
    for (key, value) in [("author", &args.author), ("comment", &args.message)] {
        if let Some(value) = value {
            history[key] = json!(value);
        }
    }
    if let Some(author) = &args.author {
        config.set_top("author", Value::String(author.clone()));
    }
    config.add_layer(&diff_id, history);
    let layers = [parent.manifest.layers.clone(), vec![layer]].concat();
    store.add_image(&config, layers)
}

fn add_layer(args: &Args, metadata: &Metadata, store: &Store) -> Result<(Descriptor, Digest)> {
    edit::write_layer(store, args.compress, |out| {
        bundle::diff(&args.bundle, metadata, out).map(drop)
    })
}
