//! New images of old ones: other settings, more layers, one layer, another base.
//!
//! What is made is an OCI image, whatever the old one was: the media types become OCI's, the bytes
//! of configuration and layers do not change by that. Whatever else the old manifest said, its
//! annotations first of all, stays.

use std::fs::File;
use std::io::{BufWriter, Read, Write};

use serde_json::{Map, Value, json};

use crate::compression::{Compression, Encoder};
use crate::descriptor::{Descriptor, media_type};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::image::{Document, Image, ImageConfig, format_time};
use crate::layer::{self, Tree};
use crate::store::Store;
use crate::{Context, Error, Result};

/// An image being made.
pub struct Draft<'s> {
    store: &'s Store,
    manifest: Map<String, Value>,
    /// Its configuration.
    pub config: ImageConfig,
    layers: Vec<Descriptor>,
}

impl<'s> Draft<'s> {
    /// Starts from an image.
    pub fn of(store: &'s Store, image: &Image) -> Result<Draft<'s>> {
        Ok(Draft {
            store,
            manifest: serde_json::from_slice(image.manifest.bytes())?,
            config: image.config.clone(),
            layers: image.manifest.layers.clone(),
        })
    }

    /// Starts from nothing.
    pub fn new(store: &'s Store, config: ImageConfig) -> Draft<'s> {
        Draft { store, manifest: Map::new(), config, layers: Vec::new() }
    }

    /// Adds a layer on top, which the store has already.
    pub fn add_layer(&mut self, layer: Descriptor, diff_id: &Digest, history: Value) {
        self.layers.push(layer);
        self.config.add_layer(diff_id, history);
    }

    /// Replaces all layers, and the whole history.
    pub fn set_layers(&mut self, layers: Vec<(Descriptor, Digest)>, history: Vec<Value>) {
        let (layers, diff_ids): (_, Vec<Digest>) = layers.into_iter().unzip();
        self.layers = layers;
        self.config.set_layers(&diff_ids, history);
    }

    /// Sets an annotation of the manifest, or removes it.
    pub fn annotate(&mut self, key: &str, value: Option<&str>) {
        let all = self.manifest.entry("annotations").or_insert_with(|| json!({}));
        if !all.is_object() {
            *all = json!({});
        }
        let all = all.as_object_mut().expect("made an object above");
        match value {
            Some(value) => drop(all.insert(key.into(), json!(value))),
            None => drop(all.shift_remove(key)),
        }
        if all.is_empty() {
            self.manifest.shift_remove("annotations");
        }
    }

    /// Stores configuration and manifest. The image has no name yet.
    pub fn finish(mut self) -> Result<Descriptor> {
        let config = self.store.put_bytes(media_type::OCI_CONFIG, &self.config.to_bytes())?;
        let layers: Vec<Descriptor> = self.layers.into_iter().map(oci_layer).collect();
        self.manifest.insert("schemaVersion".into(), json!(2));
        self.manifest.insert("mediaType".into(), json!(media_type::OCI_MANIFEST));
        self.manifest.insert("config".into(), json!(config));
        self.manifest.insert("layers".into(), json!(layers));
        let bytes = serde_json::to_vec(&self.manifest)?;
        Document::parse(&bytes, media_type::OCI_MANIFEST)?;
        self.store.put_bytes(media_type::OCI_MANIFEST, &bytes)
    }
}

fn oci_layer(layer: Descriptor) -> Descriptor {
    let media_type = match &*layer.media_type {
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        other => other,
    };
    Descriptor { media_type: media_type.to_owned(), ..layer }
}

/// Now, or `SOURCE_DATE_EPOCH`, as image-spec writes times.
pub fn now() -> Result<String> {
    format_time(match crate::bundle::source_date_epoch()? {
        Some(seconds) => seconds,
        None => crate::time::now(),
    })
}

/// Stores an archive (plain, gzip or zstd) as a layer, its bytes as they come. An archive that no
/// layer can be is an error, and names the member. Returns the layer and its diffID.
pub fn add_archive(store: &Store, mut reader: impl Read) -> Result<(Descriptor, Digest)> {
    let mut blob = store.add_blob()?;
    let mut head = Vec::new();
    reader.by_ref().take(4).read_to_end(&mut head)?;
    blob.write_all(&head)?;
    std::io::copy(&mut reader, &mut blob)?;
    let (digest, size) = blob.commit()?;
    let how = Compression::detect(&head);
    let layer = Descriptor::new(how.layer_type(), digest, size);
    let checked = layer::check_archive(store.open_blob(&layer)?)?;
    if checked.size == 0 {
        return Err(Error::new("it is empty: no tar archive"));
    }
    Ok((layer, checked.diff_id))
}

/// What an image's layers come to, to be compared with another: files with what is in them.
pub fn tree(store: &Store, image: &Image) -> Result<Tree> {
    let mut tree = Tree::new(true);
    for (layer, diff_id) in image.layers() {
        tree.add(store.open_blob(layer)?, diff_id, std::io::sink())
            .wrap(|| format!("layer {diff_id}"))?;
    }
    Ok(tree)
}

/// Writes an image's root file system as one archive, in the order of the names. The same tree
/// gives the same bytes. Compressed layers need as much room in the store, meanwhile, as they have
/// uncompressed.
pub fn export<W: Write>(store: &Store, image: &Image, out: W) -> Result<W> {
    let mut tree = Tree::new(false);
    let mut archives = Vec::new();
    for (layer, diff_id) in image.layers() {
        let added = add_layer(store, &mut tree, layer, diff_id);
        archives.push(added.wrap(|| format!("layer {diff_id}"))?);
    }
    tree.write(out, crate::bundle::source_date_epoch()?, &archives)
}

/// Adds a layer to the tree; its uncompressed archive as a file.
fn add_layer(store: &Store, tree: &mut Tree, layer: &Descriptor, id: &Digest) -> Result<File> {
    let blob = File::open(store.blob_path(&layer.digest))?;
    let mut head = Vec::new();
    (&blob).take(4).read_to_end(&mut head)?;
    if Compression::detect(&head) == Compression::None {
        tree.add(store.open_blob(layer)?, id, std::io::sink())?;
        return Ok(blob);
    }
    let mut spool = store.spool()?;
    tree.add(store.open_blob(layer)?, id, &mut spool)?;
    Ok(spool)
}

/// Stores the archive that `write` writes as a layer, compressed so. Returns the layer and its
/// diffID.
pub fn write_layer(
    store: &Store,
    how: Compression,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<(Descriptor, Digest)> {
    let encoder = Encoder::new(how, store.add_blob()?);
    let hasher = (how != Compression::None).then(|| Hasher::new(Algorithm::Sha256));
    let mut out = BufWriter::with_capacity(1 << 20, Hashing { inner: encoder, hasher });
    write(&mut out)?;
    let Hashing { inner, hasher } = out.into_inner().map_err(|e| Error::from(e.into_error()))?;
    let (digest, size) = inner.finish()?.commit()?;
    let diff_id = hasher.map_or_else(|| digest.clone(), Hasher::finish);
    Ok((Descriptor::new(how.layer_type(), digest, size), diff_id))
}

/// Hashes what passes, unless its digest is found out elsewhere.
struct Hashing<W> {
    inner: W,
    hasher: Option<Hasher>,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(buf)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..n]);
        }
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// The image with one layer, compressed so, instead of all its layers, and a history that says so.
pub fn flatten(store: &Store, image: &Image, how: Compression) -> Result<Descriptor> {
    let (layer, digest) = write_layer(store, how, |out| export(store, image, out).map(drop))?;
    let (created, count) = (now()?, image.manifest.layers.len());
    let history = json!({
        "created": created,
        "created_by": "imgtool flatten",
        "comment": format!("{count} layers of {}", image.descriptor.digest),
    });
    let mut draft = Draft::of(store, image)?;
    draft.set_layers(vec![(layer, digest)], vec![history]);
    draft.config.set_top("created", json!(created));
    draft.finish()
}

/// The image with the layers and the history of `old`, which must be its lowest, replaced by those
/// of `new`. Its settings stay.
pub fn rebase<'s>(store: &'s Store, image: &Image, old: &Image, new: &Image) -> Result<Draft<'s>> {
    let (ids, old_ids) = (image.config.diff_ids(), old.config.diff_ids());
    if !ids.starts_with(old_ids) {
        let same = ids.iter().zip(old_ids).take_while(|(a, b)| a == b).count();
        return Err(Error::new(format!(
            "it does not stand on that old base: the base has {} layers, of which the image has \
             the lowest {same}",
            old_ids.len()
        )));
    }
    let (here, there) = (image.config.platform(), new.config.platform());
    if (&here.os, &here.architecture) != (&there.os, &there.architecture) {
        return Err(Error::new(format!("it is for {here}, but the new base for {there}")));
    }
    let pair = |(layer, id): (&Descriptor, &Digest)| (layer.clone(), id.clone());
    let own = image.layers().skip(old_ids.len()).map(pair);
    let layers = new.layers().map(pair).chain(own).collect();
    let history = [new.config.history(), own_history(image, old)].concat();
    let mut draft = Draft::of(store, image)?;
    draft.set_layers(layers, history);
    draft.config.set_top("created", json!(now()?));
    Ok(draft)
}

/// The history entries after those of the base: the base's own if they are at the front, else as
/// many as tell of its layers.
fn own_history<'i>(image: &'i Image, base: &Image) -> &'i [Value] {
    let (all, of_base) = (image.config.history(), base.config.history());
    if all.starts_with(of_base) {
        return &all[of_base.len()..];
    }
    let layers = base.config.diff_ids().len();
    let of_layers = all.iter().enumerate().filter(|(_, entry)| !is_empty_layer(entry));
    match of_layers.take(layers).last() {
        Some((last, _)) => &all[last + 1..],
        None => all,
    }
}

/// Whether a history entry tells of no layer.
pub fn is_empty_layer(entry: &Value) -> bool {
    entry.get("empty_layer").and_then(Value::as_bool).unwrap_or(false)
}
