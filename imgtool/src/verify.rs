//! Looks at everything in a store: is it what it says it is?
//!
//! First the documents are walked, from the names down, which tells what each blob should be
//! ([`walk`]). Then every blob file is read once, hashed, and as a layer decompressed and hashed
//! again ([`blobs`]). Last come the caches and what killed processes left ([`private`]).
//!
//! *Damage* is what a reader would trip over, or be deceived by. *Leftovers* are whole but of use to
//! nobody. A download that a pull would continue is neither, and neither is an image of another
//! platform that an index names and nobody fetched.

mod blobs;
mod private;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::digest::Digest;
use crate::order;
use crate::progress::Progress;
use crate::store::Store;
use crate::{Context, Result};

/// Something that is not what it says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Damage {
    /// The file, relative to the store.
    pub what: PathBuf,
    /// What is wrong with it.
    pub why: String,
    /// The names, or else digests, of the images that need it.
    pub used_by: BTreeSet<String>,
    /// Only a file that is there can be removed.
    #[serde(skip)]
    pub removable: bool,
}

/// Something that nobody needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Leftover {
    /// The file or directory, relative to the store.
    pub what: PathBuf,
    /// Why nobody needs it.
    pub why: String,
}

/// A download that was cut off: neither damage, since nothing reads it before its digest is right,
/// nor left over, since whoever pulls the blob next continues it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Begun {
    /// The file, relative to the store.
    pub what: PathBuf,
    /// The blob that it is to become.
    pub blob: Digest,
    /// How many bytes have arrived.
    pub bytes: u64,
}

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Entries of index.json.
    pub images: usize,
    /// Blobs read.
    pub blobs: usize,
    /// Bytes of those blobs.
    pub bytes: u64,
    /// Images that an index names and the store never had.
    pub absent: usize,
    /// What is damaged, sorted.
    pub damage: Vec<Damage>,
    /// What is left over, sorted.
    pub leftovers: Vec<Leftover>,
    /// What a pull would continue, sorted.
    pub begun: Vec<Begun>,
}

/// What documents say of one blob.
#[derive(Clone, Debug, Default)]
struct Wanted {
    sizes: BTreeSet<u64>,
    media_types: BTreeSet<String>,
    /// What it must be uncompressed, if it is a layer.
    diff_ids: BTreeSet<Digest>,
    used_by: BTreeSet<String>,
    /// May be missing: a foreign layer, or the image of a platform that was not fetched.
    optional: bool,
}

/// Everything that documents want.
type Wants = BTreeMap<Digest, Wanted>;

/// Verifies everything, reading every blob once. Fails only if it cannot look.
pub fn verify(store: &Store, progress: &Progress) -> Result<Report> {
    let mut report = Report::default();
    let (wants, complete) = walk::documents(store, &mut report);
    blobs::check(store, &wants, complete, progress, &mut report)
        .wrap(|| format!("verify the blobs of {}", store.root().display()))?;
    private::check(store, &mut report)
        .wrap(|| format!("verify the caches of {}", store.root().display()))?;
    order::sort(&mut report.damage);
    report.damage.dedup();
    order::sort(&mut report.leftovers);
    Ok(report)
}

/// Removes damaged blobs and cache entries, so that a pull fetches them instead of trusting them,
/// and leftovers; what is begun stays. Returns what was removed, relative to the store.
///
/// The store must be ours alone ([`Store::lock_exclusively`]) since before `report` was made. What
/// is wrong with `index.json`, a root or a finished snapshot is left alone: nothing here knows
/// better, and a bundle may be using the snapshot.
pub fn repair(store: &Store, report: &Report) -> Result<Vec<PathBuf>> {
    let damaged = report.damage.iter().filter(|d| d.removable).map(|d| &d.what);
    let mut removed = Vec::new();
    for what in damaged.chain(report.leftovers.iter().map(|l| &l.what)) {
        let path = store.root().join(what);
        remove(&path).wrap(|| format!("remove {}", path.display()))?;
        removed.push(what.clone());
    }
    order::sort(&mut removed);
    removed.dedup();
    Ok(removed)
}

fn remove(path: &Path) -> std::io::Result<()> {
    let result = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        _ => std::fs::remove_file(path),
    };
    match result {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Where a blob is, relative to the store.
fn place(digest: &Digest) -> PathBuf {
    Path::new("blobs").join(digest.algorithm().name()).join(digest.hex())
}

/// The names in a directory, sorted; none if it is missing.
fn names(dir: &Path) -> Result<Vec<std::ffi::OsString>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(crate::Error::from(e).wrap(format!("list {}", dir.display()))),
    };
    let names = entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>();
    let mut names = names.wrap(|| format!("list {}", dir.display()))?;
    order::sort(&mut names);
    Ok(names)
}

#[cfg(test)]
mod tests;
