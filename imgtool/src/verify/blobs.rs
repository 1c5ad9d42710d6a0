//! Every blob file, read once.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::compression::Compression;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::layer;
use crate::parallel;
use crate::progress::{Bar, Progress};
use crate::store::Store;
use crate::{Context, Error, Result};

use super::{Damage, Leftover, Report, Wanted, Wants, names, place};

pub(super) fn check(
    store: &Store,
    wants: &Wants,
    complete: bool,
    progress: &Progress,
    report: &mut Report,
) -> Result<()> {
    let found = files(store, report)?;
    let bar = progress.bar("verify", Some(found.iter().map(|(_, size)| size).sum()));
    let nobody = Wanted::default();
    let checked = parallel::try_map(parallel::threads(), &found, |_, (digest, _)| {
        blob(store, digest, wants.get(digest).unwrap_or(&nobody), &bar)
    })?;
    bar.clear();
    for ((digest, size), faults) in found.iter().zip(checked) {
        report.blobs += 1;
        report.bytes += size;
        let wanted = wants.get(digest).unwrap_or(&nobody);
        if faults.is_empty() && wanted.used_by.is_empty() && complete {
            let why = "no image needs this blob".to_owned();
            report.leftovers.push(Leftover { what: place(digest), why });
        }
        for why in faults {
            let used_by = wanted.used_by.clone();
            report.damage.push(Damage { what: place(digest), why, used_by, removable: true });
        }
    }
    missing(wants, &found, report);
    Ok(())
}

/// The blob files, with their sizes; anything else there is left over.
fn files(store: &Store, report: &mut Report) -> Result<Vec<(Digest, u64)>> {
    let mut found = Vec::new();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let dir = Path::new("blobs").join(algorithm.name());
        for name in names(&store.root().join(&dir))? {
            let what: PathBuf = dir.join(&name);
            let path = store.root().join(&what);
            let meta = path.symlink_metadata().wrap(|| path.display().to_string())?;
            match Digest::parse(&format!("{}:{}", algorithm.name(), name.display())) {
                Ok(digest) if meta.is_file() => found.push((digest, meta.len())),
                _ => {
                    let why = "not the name of a blob, or no file".to_owned();
                    report.leftovers.push(Leftover { what, why });
                }
            }
        }
    }
    Ok(found)
}

fn missing(wants: &Wants, found: &[(Digest, u64)], report: &mut Report) {
    let mut there: BTreeSet<&Digest> = BTreeSet::new();
    there.extend(found.iter().map(|(digest, _)| digest));
    for (digest, wanted) in wants.iter().filter(|(d, w)| !w.optional && !there.contains(d)) {
        let used_by = wanted.used_by.clone();
        let why = "it is missing".to_owned();
        report.damage.push(Damage { what: place(digest), why, used_by, removable: false });
    }
}

/// What is wrong with one blob.
fn blob(store: &Store, digest: &Digest, wanted: &Wanted, bar: &Bar) -> Result<Vec<String>> {
    let path = store.blob_path(digest);
    let file = match File::open(&path) {
        // Removed since the directory was read, which only a repair does.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file.wrap(|| format!("open {}", path.display()))?,
    };
    let size = file.metadata().wrap(|| format!("stat {}", path.display()))?.len();
    let mut reader = Hashing { inner: bar.reader(file), hasher: Hasher::new(digest.algorithm()) };
    let layer = wanted.diff_ids.first().map(|id| uncompressed(&mut reader, id.algorithm()));
    // What the decompressor did not want to see counts too.
    if let Err(e) = io::copy(&mut reader, &mut io::sink()) {
        return Ok(vec![format!("it cannot be read: {}", Error::from(e))]);
    }
    let mut faults = Vec::new();
    for said in wanted.sizes.iter().filter(|said| **said != size) {
        faults.push(format!("it has {size} bytes, but its descriptor says {said}"));
    }
    let actual = reader.hasher.finish();
    if actual != *digest {
        faults.push(format!("its content has another digest, {actual}"));
        return Ok(faults);
    }
    match layer {
        None => (),
        Some(Err(e)) => faults.push(format!("it does not decompress: {e}")),
        Some(Ok((found, how))) => {
            faults.extend(
                wanted.diff_ids.iter().filter(|id| **id != found).map(|id| {
                    format!("uncompressed it has digest {found}, but its image says {id}")
                }),
            );
            faults.extend(wanted.media_types.iter().filter_map(|said| wrong_type(said, how)));
        }
    }
    Ok(faults)
}

fn wrong_type(said: &str, found: Compression) -> Option<String> {
    let fits = Compression::of_layer(said).is_none_or(|c| c == found);
    (!fits).then(|| format!("its content is {found:?}, but its media type {said}").to_lowercase())
}

/// Digest of the uncompressed content, and how it is compressed.
fn uncompressed(reader: impl Read, algorithm: Algorithm) -> Result<(Digest, Compression)> {
    let mut reader = io::BufReader::new(reader);
    let how = Compression::detect(io::BufRead::fill_buf(&mut reader)?);
    let mut hashing = Hashing { inner: layer::decoder(reader)?, hasher: Hasher::new(algorithm) };
    io::copy(&mut hashing, &mut io::sink())?;
    Ok((hashing.hasher.finish(), how))
}

/// Hashes what passes.
struct Hashing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }
}
