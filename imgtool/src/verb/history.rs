//! `imgtool history`: how an image came to be.

use indicatif::DecimalBytes;
use serde_json::{Value, json};

use crate::Result;
use crate::cli::Globals;
use crate::edit::is_empty_layer;
use crate::image::Image;
use crate::platform::Platform;

/// Arguments of `history`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write a JSON list, newest first
    #[arg(long)]
    json: bool,
    /// Show commands in full
    #[arg(long)]
    no_trunc: bool,
    /// Which image of a multi-platform index [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// The image, by name or digest
    image: String,
}

/// Shows the history, newest first, each entry with the layer that it made.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let store = globals.open_store()?;
    let (_, entry) = store.find(&args.image)?;
    let image = store.image(&entry, &args.platform.clone().unwrap_or_else(Platform::host))?;
    let steps = steps(&image);
    crate::output::print(&match args.json {
        true => serde_json::to_string_pretty(&steps)? + "\n",
        false => to_table(&steps, args.no_trunc),
    })
}

/// History entries with their layers; layers that no entry tells of come with none.
fn steps(image: &Image) -> Vec<Value> {
    let mut layers = image.layers();
    let mut steps = Vec::new();
    for entry in image.config.history() {
        let layer = if is_empty_layer(entry) { None } else { layers.next() };
        steps.push(step(entry, layer));
    }
    let nothing = json!({});
    steps.extend(layers.map(|layer| step(&nothing, Some(layer))));
    steps.reverse();
    steps
}

fn step(
    entry: &Value,
    layer: Option<(&crate::descriptor::Descriptor, &crate::digest::Digest)>,
) -> Value {
    json!({
        "created": entry.get("created"),
        "createdBy": entry.get("created_by"),
        "author": entry.get("author"),
        "comment": entry.get("comment"),
        "size": layer.map_or(0, |(blob, _)| blob.size),
        "layer": layer.map(|(blob, _)| &blob.digest),
        "diffID": layer.map(|(_, id)| id),
    })
}

fn to_table(steps: &[Value], full: bool) -> String {
    let text = |step: &Value, key: &str| -> String {
        let text = step[key].as_str().unwrap_or("-");
        text.split_whitespace().collect::<Vec<_>>().join(" ").replace(char::is_control, "?")
    };
    let mut table = format!("{:<20}  {:>9}  CREATED BY\n", "CREATED", "SIZE");
    for step in steps {
        let mut by = text(step, "createdBy");
        if let Some(comment) = step["comment"].as_str().filter(|c| !c.is_empty()) {
            by += &format!("  # {}", comment.replace(char::is_control, "?"));
        }
        if !full && by.chars().count() > 80 {
            by = by.chars().take(79).chain(['…']).collect();
        }
        let created: String = text(step, "created").chars().take(19).collect();
        let size = match step["layer"].is_null() {
            true => "-".to_owned(),
            false => DecimalBytes(step["size"].as_u64().unwrap_or_default()).to_string(),
        };
        table += &format!("{created:<20}  {size:>9}  {by}\n");
    }
    table
}
