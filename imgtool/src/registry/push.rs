//! From the store to a registry.
//!
//! Manifests go as they are, so the digest stays; only an image with uncompressed layers, as they
//! are built here, is compressed on the way, once, and its manifest changes accordingly.

use std::collections::HashSet;
use std::io;

use serde_json::{Map, Value};

use super::Options;
use super::remote::Remote;
use super::upload::{UploadOptions, Uploads};
use crate::compression::{Compression, Encoder};
use crate::descriptor::{Descriptor, media_type};
use crate::digest::Digest;
use crate::image::{Document, Index, Manifest};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::Store;
use crate::{Context, Error, Result};

/// How to push an image.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Which image to push alone if an index is not complete in the store.
    pub platform: Platform,
    /// Compress layers that are not.
    pub compress: bool,
    /// How to send blobs.
    pub uploads: UploadOptions,
}

/// Pushes what `descriptor` names to `to`, which has a tag. Returns what the name stands for in
/// the registry now.
///
/// Blobs that the registry has are not sent. The manifest goes last, so the name never stands for
/// something incomplete.
pub fn push(
    store: &Store,
    descriptor: &Descriptor,
    to: &Reference,
    how: &PushOptions,
    options: &Options,
    progress: &Progress,
) -> Result<Descriptor> {
    let tag = to.tag().ok_or_else(|| Error::new(format!("{to}: a destination needs a tag")))?;
    let remote = Remote::writing(to, options, progress)?;
    let siblings = siblings(store, to)?;
    let uploads = Uploads { remote: &remote, source: store, siblings, how: how.uploads };
    let push = Push { remote: &remote, store, uploads };
    match push.whole(descriptor, how)? {
        Whole::Manifest(manifest) => {
            let manifest = if how.compress { push.compress(*manifest)? } else { *manifest };
            push.uploads.send(std::iter::once(&manifest))?;
            let descriptor = manifest.descriptor();
            remote.put_manifest(tag, &descriptor, manifest.bytes())?;
            Ok(descriptor)
        }
        Whole::Index(index, manifests) => {
            push.uploads.send(manifests.iter().map(|(_, m)| m))?;
            for (d, manifest) in &manifests {
                remote.put_manifest(&d.digest.to_string(), d, manifest.bytes())?;
            }
            remote.put_manifest(tag, descriptor, index.bytes())?;
            Ok(descriptor.bare())
        }
    }
}

/// Something that can be pushed without leaving a gap.
enum Whole {
    Manifest(Box<Manifest>),
    Index(Index, Vec<(Descriptor, Manifest)>),
}

struct Push<'a> {
    remote: &'a Remote,
    store: &'a Store,
    uploads: Uploads<'a>,
}

impl Push<'_> {
    /// The index with all its images, or else its image for the platform.
    fn whole(&self, descriptor: &Descriptor, how: &PushOptions) -> Result<Whole> {
        let index = match self.store.document(descriptor)? {
            Document::Manifest(manifest) => return Ok(Whole::Manifest(manifest)),
            Document::Index(index) => index,
        };
        if index.manifests.iter().all(|d| self.store.has_blob(d)) {
            let mut manifests = Vec::new();
            for child in &index.manifests {
                match self.store.document(child)? {
                    Document::Manifest(m) => manifests.push((child.bare(), *m)),
                    Document::Index(_) => {
                        return Err(Error::new(format!(
                            "{}: an index within an index",
                            child.digest
                        )));
                    }
                }
            }
            return Ok(Whole::Index(index, manifests));
        }
        let (chosen, manifest) = self.store.manifest(descriptor, &how.platform)?;
        self.remote.progress.line(&format!(
            "the store has not all images of index {}; pushing only {}, {}",
            descriptor.digest, how.platform, chosen.digest
        ));
        Ok(Whole::Manifest(Box::new(manifest)))
    }

    /// The manifest with its plain layers replaced by gzip ones. The configuration, which counts
    /// uncompressed layers, stays.
    fn compress(&self, manifest: Manifest) -> Result<Manifest> {
        let is_plain =
            |l: &Descriptor| Compression::of_layer(&l.media_type) == Some(Compression::None);
        if !manifest.layers.iter().any(is_plain) {
            return Ok(manifest);
        }
        let mut json: Map<String, Value> = serde_json::from_slice(manifest.bytes())?;
        for (i, layer) in manifest.layers.iter().enumerate().filter(|(_, l)| is_plain(l)) {
            let zipped = self.compress_layer(layer)?;
            let entry = json.get_mut("layers").and_then(|l| l.get_mut(i));
            let entry = entry.and_then(Value::as_object_mut).expect("the manifest was parsed");
            entry.insert("mediaType".into(), gzip_type(manifest.media_type()).into());
            entry.insert("digest".into(), zipped.digest.to_string().into());
            entry.insert("size".into(), zipped.size.into());
        }
        match Document::parse(&serde_json::to_vec(&json)?, manifest.media_type())? {
            Document::Manifest(manifest) => Ok(*manifest),
            Document::Index(_) => Err(Error::new("a manifest became an index")),
        }
    }

    fn compress_layer(&self, layer: &Descriptor) -> Result<Descriptor> {
        if let Some(known) = self.store.compressed(&layer.digest) {
            return Ok(known);
        }
        let bar =
            self.remote.progress.bar(format!("gzip {}", layer.digest.short()), Some(layer.size));
        let zip = || -> Result<Descriptor> {
            let mut reader = bar.reader(self.store.open_blob(layer)?);
            let blob = self.store.add_blob()?;
            let mut gzip = Encoder::new(Compression::Gzip, blob);
            io::copy(&mut reader, &mut gzip).map_err(Error::from)?;
            let (digest, size) = gzip.finish()?.commit()?;
            Ok(Descriptor::new(media_type::OCI_LAYER_GZIP, digest, size))
        };
        let zipped = zip().wrap(|| format!("compress layer {}", layer.digest))?;
        self.store.remember_compressed(&layer.digest, &zipped)?;
        bar.finish("compressed");
        Ok(zipped)
    }
}

fn gzip_type(manifest_type: &str) -> &'static str {
    match manifest_type {
        media_type::DOCKER_MANIFEST => media_type::DOCKER_LAYER_GZIP,
        _ => media_type::OCI_LAYER_GZIP,
    }
}

/// The other repositories of this registry that our store has names in: they may have the blobs.
fn siblings(store: &Store, to: &Reference) -> Result<Vec<(String, HashSet<Digest>)>> {
    let mut found = Vec::new();
    for (name, entry) in store.list()? {
        if name.domain() == to.domain() && name.path() != to.path() {
            // An image that cannot be read is no reason not to push another.
            if let Ok((_, manifest)) = store.manifest(&entry, &Platform::host()) {
                let zipped = manifest.layers.iter().filter_map(|l| store.compressed(&l.digest));
                let zipped: Vec<Digest> = zipped.map(|d| d.digest).collect();
                let digests = manifest.blobs().map(|d| d.digest.clone()).chain(zipped).collect();
                found.push((name.path().to_owned(), digests));
            }
        }
    }
    Ok(found)
}
