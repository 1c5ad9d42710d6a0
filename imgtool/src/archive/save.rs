//! Writing images of the store as an archive, streamed.
//!
//! The bytes depend on the images and their names alone: no times, no owners, sorted blobs.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};

use serde_json::json;

use super::DockerImage;
use super::tar::TarWriter;
use crate::compression::Compression;
use crate::descriptor::{Descriptor, media_type};
use crate::digest::Digest;
use crate::image::{Document, Image};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Store, named};
use crate::{Error, Result};

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One tar that is an OCI image layout and a docker-archive
    Both,
    /// An OCI image layout alone
    Oci,
    /// A docker-archive with uncompressed layers, for tools that know nothing else
    Docker,
}

/// Writes these images, in one archive. `platform` chooses what a docker-archive, which cannot
/// hold an index, gets of one; the OCI layout has all that the store has.
///
/// Manifests are written as they are, so digests do not change.
pub fn save<W: Write>(
    store: &Store,
    images: &[(Option<Reference>, Descriptor)],
    format: Format,
    platform: &Platform,
    out: W,
) -> Result<W> {
    let mut tar = TarWriter::new(out);
    match format {
        Format::Docker => save_docker(store, images, platform, &mut tar)?,
        Format::Oci => save_layout(store, &entries(images), None, &mut tar)?,
        Format::Both => {
            let blob = |d: &Descriptor| blob_path(&d.digest);
            let docker = docker_images(store, images, platform, |image| DockerImage {
                config: blob(&image.manifest.config),
                repo_tags: None,
                layers: image.manifest.layers.iter().map(blob).collect(),
            })?;
            save_layout(store, &entries(images), Some(&docker), &mut tar)?;
        }
    }
    tar.finish()
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// `manifest.json` as a list of distinct images, each with all its names.
fn docker_images(
    store: &Store,
    images: &[(Option<Reference>, Descriptor)],
    platform: &Platform,
    describe: impl Fn(&Image) -> DockerImage,
) -> Result<Vec<DockerImage>> {
    let mut list: Vec<(Digest, DockerImage)> = Vec::new();
    for (name, descriptor) in images {
        let image = store.image(descriptor, platform)?;
        let at =
            list.iter().position(|(d, _)| *d == image.descriptor.digest).unwrap_or_else(|| {
                list.push((image.descriptor.digest.clone(), describe(&image)));
                list.len() - 1
            });
        // Docker refuses names with a digest here.
        if let Some(name) = name.as_ref().filter(|n| n.digest().is_none()) {
            list[at].1.repo_tags.get_or_insert_default().push(name.familiar());
        }
    }
    Ok(list.into_iter().map(|(_, image)| image).collect())
}

/// Writes the image of this entry, with its annotations, as an OCI image layout alone.
pub fn save_entry<W: Write>(store: &Store, entry: &Descriptor, out: W) -> Result<W> {
    let mut tar = TarWriter::new(out);
    save_layout(store, std::slice::from_ref(entry), None, &mut tar)?;
    tar.finish()
}

/// The images as entries of an index.
fn entries(images: &[(Option<Reference>, Descriptor)]) -> Vec<Descriptor> {
    let entry = |(name, descriptor): &(Option<Reference>, Descriptor)| match name {
        Some(name) => named(&descriptor.bare(), name),
        None => descriptor.bare(),
    };
    images.iter().map(entry).collect()
}

fn save_layout<W: Write>(
    store: &Store,
    entries: &[Descriptor],
    docker: Option<&[DockerImage]>,
    tar: &mut TarWriter<W>,
) -> Result<()> {
    let mut blobs = BTreeMap::new();
    for entry in entries {
        reach(store, entry, &mut blobs)?;
    }
    let index = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries,
    });
    tar.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.bytes("index.json", &serde_json::to_vec(&index)?)?;
    if let Some(docker) = docker {
        tar.bytes("manifest.json", &serde_json::to_vec(docker)?)?;
    }
    tar.dir("blobs/")?;
    let mut algorithms: Vec<&str> = blobs.keys().map(|d: &Digest| d.algorithm().name()).collect();
    algorithms.dedup();
    for algorithm in algorithms {
        tar.dir(&format!("blobs/{algorithm}/"))?;
    }
    for (digest, descriptor) in &blobs {
        tar.file(&blob_path(digest), descriptor.size, store.open_blob(descriptor)?)?;
    }
    Ok(())
}

/// Collects everything that `at` points at. An index may lack images, an image may not lack
/// anything but foreign layers.
fn reach(store: &Store, at: &Descriptor, blobs: &mut BTreeMap<Digest, Descriptor>) -> Result<()> {
    if blobs.insert(at.digest.clone(), at.bare()).is_some() {
        return Ok(());
    }
    match store.document(at)? {
        Document::Index(index) => index
            .manifests
            .iter()
            .filter(|d| store.has_blob(d))
            .try_for_each(|d| reach(store, d, blobs)),
        Document::Manifest(manifest) => {
            for blob in manifest.blobs().filter(|d| d.urls.is_empty() || store.has_blob(d)) {
                blobs.insert(blob.digest.clone(), blob.bare());
            }
            Ok(())
        }
    }
}

/// A docker-archive alone, in the shape that `docker save` had for ten years.
fn save_docker<W: Write>(
    store: &Store,
    images: &[(Option<Reference>, Descriptor)],
    platform: &Platform,
    tar: &mut TarWriter<W>,
) -> Result<()> {
    let layer_path = |diff_id: &Digest| format!("{}.tar", diff_id.hex());
    let config_path = |image: &Image| format!("{}.json", image.manifest.config.digest.hex());
    let list = docker_images(store, images, platform, |image| DockerImage {
        config: config_path(image),
        repo_tags: None,
        layers: image.config.diff_ids().iter().map(layer_path).collect(),
    })?;
    tar.bytes("manifest.json", &serde_json::to_vec(&list)?)?;
    let mut done = std::collections::HashSet::new();
    for (_, descriptor) in images {
        let image = store.image(descriptor, platform)?;
        if done.insert(config_path(&image)) {
            tar.bytes(&config_path(&image), &image.config.to_bytes())?;
        }
        for (layer, diff_id) in image.layers() {
            if done.insert(layer_path(diff_id)) {
                save_uncompressed(store, layer, diff_id, &layer_path(diff_id), tar)?;
            }
        }
    }
    Ok(())
}

/// A tar header tells the size first, so a compressed layer is decompressed twice.
fn save_uncompressed<W: Write>(
    store: &Store,
    layer: &Descriptor,
    diff_id: &Digest,
    path: &str,
    tar: &mut TarWriter<W>,
) -> Result<()> {
    let open = || -> Result<Box<dyn Read + Send>> {
        let compression = Compression::of_layer(&layer.media_type).ok_or_else(|| {
            Error::new(format!("layer {}: unknown type \"{}\"", layer.digest, layer.media_type))
        })?;
        compression.decoder(BufReader::with_capacity(1 << 16, store.open_blob(layer)?))
    };
    let size = io::copy(&mut open()?, &mut io::sink()).map_err(Error::from)?;
    let expected = Descriptor::new(media_type::OCI_LAYER, diff_id.clone(), size);
    tar.file(path, size, crate::store::VerifyingReader::new(open()?, &expected))
}
