//! `imgtool inspect`: what an image is.

use serde_json::{Value, json};

use crate::cli::Globals;
use crate::copy::{Place, Selection, Source, Tree};
use crate::descriptor::Descriptor;
use crate::image::{Document, ImageConfig, Manifest};
use crate::output;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::Options;
use crate::{Context, Error, Result};

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write the exact bytes of the manifest or index, or with --config of the configuration
    #[arg(long)]
    raw: bool,
    /// Show only the image's configuration
    #[arg(long)]
    config: bool,
    /// Which image of a multi-platform index [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    registry: Options,
    /// The image, by name or digest; or in a registry, docker://NAME, or in a layout or archive,
    /// as copy takes it
    image: Place,
}

/// Shows the image as JSON.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    inspect(&args, globals).wrap(|| format!("inspect {}", args.image))
}

fn inspect(args: &Args, globals: &Globals) -> Result<()> {
    let progress = Progress::new(globals.quiet);
    let open_store = || globals.open_store();
    let source = Source::open(&args.image, &args.registry, &open_store, &progress)?;
    let (entry, document) = source.root()?;
    if args.raw && !args.config && args.platform.is_none() {
        return print_bytes(document.bytes());
    }
    let what = args.platform.clone().map_or(Selection::Host, Selection::One);
    let tree = Tree::choose((entry.clone(), document), &what, |d| source.document(d))?;
    let (at, Document::Manifest(manifest)) = &tree.root else {
        return Err(Error::new("an index without an image"));
    };
    if args.raw && !args.config {
        return print_bytes(manifest.bytes());
    }
    let config = source.config(manifest)?;
    let shown = match (args.raw, args.config) {
        (true, _) => return print_bytes(&config.to_bytes()),
        (false, true) => Value::Object(config.as_json().clone()),
        (false, false) => json!({
            "name": name(&args.image, globals)?.map(|n| n.to_string()),
            "digest": entry.digest,
            "mediaType": entry.media_type,
            "manifest": at,
            "platform": config.platform().to_string(),
            "size": manifest.blobs().map(|d| d.size).sum::<u64>(),
            "layers": layers(manifest, &config),
            "configDigest": manifest.config.digest,
            "config": config.as_json(),
        }),
    };
    output::print(&(serde_json::to_string_pretty(&shown)? + "\n"))
}

/// The complete name by which it is known where it is.
fn name(place: &Place, globals: &Globals) -> Result<Option<Reference>> {
    match place {
        Place::Registry(name) => Ok(Some(name.clone())),
        Place::Store(image) => Ok(globals.open_store()?.find(image)?.0),
        Place::DockerArchive(_, name) => Ok(name.clone()),
        Place::Layout(..) | Place::OciArchive(..) => Ok(None),
    }
}

fn layers(manifest: &Manifest, config: &ImageConfig) -> Vec<Value> {
    let layer = |(i, d): (usize, &Descriptor)| {
        json!({"mediaType": d.media_type, "digest": d.digest, "size": d.size,
            "diffID": config.diff_ids().get(i)})
    };
    manifest.layers.iter().enumerate().map(layer).collect()
}

fn print_bytes(bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let mut out = output::Stdout::lock();
    out.write_all(bytes)?;
    out.finish()
}
