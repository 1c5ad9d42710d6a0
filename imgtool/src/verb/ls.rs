//! `imgtool ls`: the images in the store.

use indicatif::DecimalBytes;
use serde_json::{Value, json};

use crate::Result;
use crate::cli::Globals;
use crate::descriptor::Descriptor;
use crate::image::{Document, Image};
use crate::order;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Store, name_of};

/// Arguments of `ls`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write a JSON list
    #[arg(long)]
    json: bool,
    /// List only these names, or all tags of these repositories
    names: Vec<String>,
}

/// Lists the names, sorted.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let store = globals.open_store()?;
    let wanted: Vec<Reference> =
        args.names.iter().map(|n| Reference::parse(n)).collect::<Result<_>>()?;
    let is_wanted = |name: &Reference| {
        wanted.is_empty()
            || wanted.iter().zip(&args.names).any(|(w, text)| {
                w == name
                    || (!text.contains('@') && is_bare(text) && w.repository() == name.repository())
            })
    };
    let mut rows: Vec<Row> = store
        .entries()?
        .into_iter()
        .map(|entry| Row::new(&store, entry))
        .filter(|row| row.name.as_ref().map_or(wanted.is_empty(), is_wanted))
        .collect();
    order::sort_by(&mut rows, |a, b| a.name.cmp(&b.name));
    crate::output::print(&if args.json { to_json(&rows)? } else { to_table(&rows) })
}

/// Whether the text has no tag of its own.
fn is_bare(text: &str) -> bool {
    text.rsplit_once(':').is_none_or(|(_, tail)| tail.contains('/'))
}

/// One line of the list; an image may have no name, and one that cannot be read has no `facts`.
struct Row {
    name: Option<Reference>,
    entry: Descriptor,
    facts: Option<Facts>,
}

struct Facts {
    platform: Platform,
    created: Option<String>,
    size: u64,
}

impl Row {
    fn new(store: &Store, entry: Descriptor) -> Row {
        let facts = any_image(store, &entry).map(|image| Facts {
            platform: image.config.platform(),
            created: image.config.top("created").map(str::to_owned),
            size: image.manifest.blobs().map(|d| d.size).sum(),
        });
        Row { name: name_of(&entry), entry, facts }
    }
}

/// This machine's image of an entry, or else the first that the store has.
fn any_image(store: &Store, entry: &Descriptor) -> Option<Image> {
    let host = Platform::host();
    store.image(entry, &host).ok().or_else(|| match store.document(entry).ok()? {
        Document::Index(index) => index.manifests.iter().find_map(|d| store.image(d, &host).ok()),
        Document::Manifest(_) => None,
    })
}

fn to_json(rows: &[Row]) -> Result<String> {
    let row = |r: &Row| {
        let facts = r.facts.as_ref();
        json!({
            "name": r.name.as_ref().map(|n| n.to_string()),
            "digest": r.entry.digest,
            "mediaType": r.entry.media_type,
            "platform": facts.map(|f| f.platform.to_string()),
            "created": facts.and_then(|f| f.created.clone()),
            "size": facts.map(|f| f.size),
        })
    };
    let list: Vec<Value> = rows.iter().map(row).collect();
    Ok(serde_json::to_string_pretty(&list)? + "\n")
}

fn to_table(rows: &[Row]) -> String {
    let header = ["NAME", "DIGEST", "PLATFORM", "CREATED", "SIZE"].map(str::to_owned);
    let cells = |r: &Row| {
        let or_dash = |f: &dyn Fn(&Facts) -> String| r.facts.as_ref().map_or("-".into(), f);
        [
            r.name.as_ref().map_or("<none>".into(), Reference::familiar),
            r.entry.digest.short().to_owned(),
            or_dash(&|f| f.platform.to_string()),
            or_dash(&|f| f.created.as_deref().map_or("-".into(), |c| c.chars().take(10).collect())),
            or_dash(&|f| DecimalBytes(f.size).to_string()),
        ]
    };
    let table: Vec<[String; 5]> = std::iter::once(header).chain(rows.iter().map(cells)).collect();
    let width = |i: usize| table.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let line = |row: &[String; 5]| {
        let padded: Vec<String> = row.iter().zip(&widths).map(|(c, w)| format!("{c:w$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    table.iter().map(line).collect()
}
