//! `imgtool inspect`: what an image is.

use serde_json::{Value, json};

use crate::Result;
use crate::cli::Globals;
use crate::image::Image;
use crate::output;
use crate::platform::Platform;

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
    /// The image, by name or digest
    image: String,
}

/// Shows the image as JSON.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let store = globals.open_store()?;
    let (name, entry) = store.find(&args.image)?;
    if args.raw && !args.config && args.platform.is_none() {
        return print_bytes(&store.read_blob(&entry)?);
    }
    let platform = args.platform.unwrap_or_else(Platform::host);
    let image = store.image(&entry, &platform)?;
    let shown = match (args.raw, args.config) {
        (true, true) => return print_bytes(&image.config.to_bytes()),
        (true, false) => return print_bytes(image.manifest.bytes()),
        (false, true) => Value::Object(image.config.as_json().clone()),
        (false, false) => json!({
            "name": name.map(|n| n.to_string()),
            "digest": entry.digest,
            "mediaType": entry.media_type,
            "manifest": image.descriptor,
            "platform": image.config.platform().to_string(),
            "size": image.manifest.blobs().map(|d| d.size).sum::<u64>(),
            "layers": layers(&image),
            "configDigest": image.manifest.config.digest,
            "config": image.config.as_json(),
        }),
    };
    output::print(&(serde_json::to_string_pretty(&shown)? + "\n"))
}

fn layers(image: &Image) -> Vec<Value> {
    let layer = |(d, diff_id): (&crate::descriptor::Descriptor, &crate::digest::Digest)| json!({"mediaType": d.media_type, "digest": d.digest, "size": d.size, "diffID": diff_id});
    image.layers().map(layer).collect()
}

fn print_bytes(bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let mut out = output::Stdout::lock();
    out.write_all(bytes)?;
    out.finish()
}
