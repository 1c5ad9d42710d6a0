//! `imgtool tree`: an image's parts, and what shares them.

use std::collections::{BTreeMap, BTreeSet};

use indicatif::DecimalBytes;
use serde_json::{Value, json};

use crate::cli::Globals;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::image::Document;
use crate::platform::Platform;
use crate::store::{Store, name_of};
use crate::{Error, Result};

/// How deep indexes may nest.
const MAX_NESTING: usize = 4;

/// Arguments of `tree`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write a JSON object
    #[arg(long)]
    json: bool,
    /// The image, by name or digest
    image: String,
}

/// Shows the images of an index, the layers of each, and which other names use those.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let store = globals.open_store()?;
    let (name, entry) = store.find(&args.image)?;
    let users = users(&store)?;
    let own = match name {
        Some(name) => name.familiar(),
        None => entry.digest.to_string(),
    };
    let tree = node(&store, &entry, &own, &users, 0)?;
    crate::output::print(&if args.json {
        serde_json::to_string_pretty(&tree)? + "\n"
    } else {
        let mut text = format!("{own}\n");
        draw(&tree, "", &mut text);
        text
    })
}

/// The names that use each layer.
type Users = BTreeMap<Digest, BTreeSet<String>>;

fn users(store: &Store) -> Result<Users> {
    let mut users = Users::new();
    for entry in store.entries()? {
        let name = name_of(&entry).map_or(entry.digest.to_string(), |n| n.familiar());
        mark(store, &entry, &name, &mut users, 0);
    }
    Ok(users)
}

/// What cannot be read shares nothing.
fn mark(store: &Store, at: &Descriptor, name: &str, users: &mut Users, depth: usize) {
    match store.document(at) {
        Ok(Document::Manifest(manifest)) => {
            for layer in &manifest.layers {
                users.entry(layer.digest.clone()).or_default().insert(name.to_owned());
            }
        }
        Ok(Document::Index(index)) if depth < MAX_NESTING => {
            index.manifests.iter().for_each(|d| mark(store, d, name, users, depth + 1));
        }
        _ => (),
    }
}

fn node(store: &Store, at: &Descriptor, own: &str, users: &Users, depth: usize) -> Result<Value> {
    let mut shown = json!({
        "digest": at.digest,
        "mediaType": at.media_type,
        "platform": at.platform.as_ref().map(Platform::to_string),
    });
    if depth > 0 && !store.has_blob(at) {
        shown["absent"] = json!(true);
        return Ok(shown);
    }
    match store.document(at)? {
        Document::Manifest(manifest) => {
            if let Ok(image) = store.image(at, &Platform::host()) {
                shown["platform"] = json!(image.config.platform().to_string());
            }
            shown["size"] = json!(manifest.blobs().map(|d| d.size).sum::<u64>());
            let layer = |d: &Descriptor| {
                let shared = users.get(&d.digest).into_iter().flatten().filter(|n| *n != own);
                json!({
                    "digest": d.digest,
                    "size": d.size,
                    "mediaType": d.media_type,
                    "sharedWith": shared.collect::<Vec<_>>(),
                })
            };
            shown["layers"] = manifest.layers.iter().map(layer).collect();
        }
        Document::Index(_) if depth >= MAX_NESTING => {
            return Err(Error::new(format!("{}: indexes nested too deeply", at.digest)));
        }
        Document::Index(index) => {
            let children = index.manifests.iter().map(|d| node(store, d, own, users, depth + 1));
            shown["images"] = children.collect::<Result<Vec<Value>>>()?.into();
        }
    }
    Ok(shown)
}

fn draw(node: &Value, indent: &str, text: &mut String) {
    let short = |v: &Value| -> String {
        let digest = v["digest"].as_str().unwrap_or_default();
        digest.split(':').next_back().unwrap_or_default().chars().take(12).collect()
    };
    let size = |v: &Value| DecimalBytes(v["size"].as_u64().unwrap_or_default()).to_string();
    let kind = if node["images"].is_array() { "index" } else { "image" };
    let platform = node["platform"].as_str().map(|p| format!("  {p}")).unwrap_or_default();
    let state = match (node["absent"].is_null(), kind) {
        (false, _) => "  not in the store".to_owned(),
        (true, "image") => format!("  {}", size(node)),
        _ => String::new(),
    };
    *text += &format!("{indent}{kind} {}{platform}{state}\n", short(node));
    let indent = format!("{indent}  ");
    for layer in node["layers"].as_array().into_iter().flatten() {
        let shared: Vec<&str> = layer["sharedWith"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let shared = match shared.is_empty() {
            true => String::new(),
            false => format!("  also in {}", shared.join(", ")),
        };
        *text += &format!("{indent}layer {}  {}{shared}\n", short(layer), size(layer));
    }
    for image in node["images"].as_array().into_iter().flatten() {
        draw(image, &indent, text);
    }
}
