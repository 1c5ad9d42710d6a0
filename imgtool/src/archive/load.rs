//! Reading an archive into the store, in one pass over a stream that need not be seekable.
//!
//! Large files become blobs at once, small ones wait in memory; what they mean is known only when
//! `index.json` or `manifest.json` has been seen, which may be the last entry. Names are given
//! last, when everything that they stand for has been verified.

use std::collections::HashMap;
use std::io::{BufReader, Read};

use super::DockerImage;
use super::tar::{Entry, Kind, TarReader, normalise};
use crate::compression::{self, Compression};
use crate::descriptor::{Descriptor, media_type};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::image::{Document, ImageConfig, Manifest};
use crate::reference::Reference;
use crate::store::{Store, name_of};
use crate::{Context, Error, Result};

/// An image that was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// Its name, if the archive gave it one.
    pub name: Option<Reference>,
    /// Its manifest or index.
    pub descriptor: Descriptor,
}

/// Loads all images of an archive: docker-archive or oci-archive, plain or compressed by gzip or
/// zstd.
///
/// All or none: a failure names nothing. Blobs that were already written then are collected by
/// [`Store::collect`].
pub fn load(store: &Store, reader: impl Read + Send) -> Result<Vec<Loaded>> {
    let decoded = compression::auto_decoder(BufReader::with_capacity(1 << 16, reader))?;
    let mut tar = TarReader::new(decoded);
    let mut contents = Contents::new(store);
    while let Some(entry) = tar.next_entry()? {
        contents.take(entry, &mut tar)?;
    }
    tar.finish()?;
    let loaded = contents.images()?;
    for image in &loaded {
        match &image.name {
            Some(name) => store.tag(name, &image.descriptor)?,
            None => store.keep(&image.descriptor)?,
        }
    }
    Ok(loaded)
}

/// What has been seen of an archive.
struct Contents<'a> {
    store: &'a Store,
    files: HashMap<String, File>,
    links: HashMap<String, String>,
    held: usize,
}

/// A file of the archive.
enum File {
    /// A blob by now.
    Stored(Digest, u64),
    /// Small, and perhaps of no use; a blob only when an image needs it.
    Held(Vec<u8>),
}

impl<'a> Contents<'a> {
    fn new(store: &'a Store) -> Contents<'a> {
        Contents { store, files: HashMap::new(), links: HashMap::new(), held: 0 }
    }

    fn take(&mut self, entry: Entry, content: &mut impl Read) -> Result<()> {
        if self.files.len() + self.links.len() >= MAX_ENTRIES {
            return Err(Error::new(format!(
                "more than {MAX_ENTRIES} entries: not an archive of images"
            )));
        }
        match entry.kind {
            Kind::Other => {}
            Kind::Link(target) => drop(self.links.insert(entry.path, target)),
            Kind::File => {
                let file =
                    self.take_file(&entry, content).wrap(|| format!("read {}", entry.path))?;
                self.files.insert(entry.path, file);
            }
        }
        Ok(())
    }

    fn take_file(&mut self, entry: &Entry, content: &mut impl Read) -> Result<File> {
        let claimed = claimed_digest(&entry.path)?;
        let size = usize::try_from(entry.size).unwrap_or(usize::MAX);
        if claimed.is_none() && size <= SMALL && self.held + size <= MAX_HELD {
            let mut bytes = Vec::with_capacity(size);
            content.read_to_end(&mut bytes).map_err(Error::from)?;
            self.held += size;
            return Ok(File::Held(bytes));
        }
        let algorithm = claimed.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let mut blob = self.store.add_blob_as(algorithm)?;
        std::io::copy(content, &mut blob).map_err(Error::from)?;
        let (digest, size) = match &claimed {
            Some(claimed) => blob.commit_as(claimed)?,
            None => blob.commit()?,
        };
        Ok(File::Stored(digest, size))
    }

    fn images(&self) -> Result<Vec<Loaded>> {
        let has = |path| self.find(path).is_some();
        match (has("oci-layout") && has("index.json"), has("manifest.json")) {
            (true, _) => self.oci_images().wrap(|| "oci-archive"),
            (_, true) => self.docker_images().wrap(|| "docker-archive"),
            _ if has("repositories") => Err(Error::new(
                "a docker-archive without manifest.json, from before Docker 1.10, which is not supported",
            )),
            _ => Err(Error::new(
                "not an archive of images: it has neither manifest.json nor index.json with oci-layout",
            )),
        }
    }

    /// A file of the archive, through links.
    fn find(&self, path: &str) -> Option<&File> {
        let mut path = &normalise("", path);
        for _ in 0..MAX_LINKS {
            match self.links.get(path) {
                Some(target) if !self.files.contains_key(path) => path = target,
                _ => break,
            }
        }
        self.files.get(path)
    }

    /// A file as a blob.
    fn blob(&self, path: &str) -> Result<Descriptor> {
        match self.find(path) {
            Some(File::Stored(digest, size)) => Ok(Descriptor::new(OCTETS, digest.clone(), *size)),
            Some(File::Held(bytes)) => self.store.put_bytes(OCTETS, bytes),
            None => Err(Error::new(format!("the archive has no file {path}"))),
        }
    }

    /// The bytes of a document.
    fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        match self.find(path) {
            Some(File::Held(bytes)) => Ok(bytes.clone()),
            _ => self.store.read_blob(&self.blob(path)?).wrap(|| path.to_owned()),
        }
    }

    fn oci_images(&self) -> Result<Vec<Loaded>> {
        let bytes = self.bytes("index.json")?;
        let Document::Index(index) =
            Document::parse(&bytes, media_type::OCI_INDEX).wrap(|| "index.json")?
        else {
            return Err(Error::new("index.json is not an index"));
        };
        let mut loaded = Vec::new();
        for entry in &index.manifests {
            if !self.check(entry, 0)? {
                return Err(Error::new(format!("the archive has no blob {}", entry.digest)));
            }
            loaded.push(Loaded { name: name_of(entry), descriptor: entry.bare() });
        }
        Ok(loaded)
    }

    /// Checks that all of an image is there. An index may lack some of its images, but not all;
    /// `false` says that the entry itself is missing.
    fn check(&self, at: &Descriptor, depth: usize) -> Result<bool> {
        if !self.store.has_blob(at) {
            return Ok(false);
        }
        match self.store.document(at)? {
            Document::Manifest(manifest) => self.check_manifest(at, &manifest)?,
            Document::Index(_) if depth > MAX_LINKS => {
                return Err(Error::new("indexes nested too deeply"));
            }
            Document::Index(index) => {
                let mut any = false;
                for entry in &index.manifests {
                    any |= self.check(entry, depth + 1)?;
                }
                if !any {
                    return Err(Error::new(format!(
                        "the archive has no image of index {}",
                        at.digest
                    )));
                }
            }
        }
        Ok(true)
    }

    fn check_manifest(&self, at: &Descriptor, manifest: &Manifest) -> Result<()> {
        let missing = |d: &&Descriptor| !self.store.has_blob(d) && d.urls.is_empty();
        if let Some(missing) = manifest.blobs().find(missing) {
            return Err(Error::new(format!(
                "manifest {}: the archive has no blob {} of {} bytes",
                at.digest, missing.digest, missing.size
            )));
        }
        if Compression::of_layer(manifest.layers.first().map_or("", |l| &l.media_type)).is_none() {
            return Ok(());
        }
        let image = self.store.image(at, &crate::platform::Platform::host())?;
        image.layers().try_for_each(|(layer, diff_id)| {
            match Compression::of_layer(&layer.media_type) {
                Some(Compression::None) if layer.digest != *diff_id => {
                    Err(wrong_diff_id(&layer.digest.to_string(), &layer.digest, diff_id))
                }
                _ => Ok(()),
            }
        })
    }

    fn docker_images(&self) -> Result<Vec<Loaded>> {
        let bytes = self.bytes("manifest.json")?;
        let images: Vec<DockerImage> = serde_json::from_slice(&bytes).wrap(|| "manifest.json")?;
        let mut loaded = Vec::new();
        for image in &images {
            let descriptor = self.docker_image(image)?;
            let tags = image.repo_tags.as_deref().unwrap_or_default();
            for tag in tags {
                let name = Some(Reference::parse(tag).wrap(|| "manifest.json")?);
                loaded.push(Loaded { name, descriptor: descriptor.clone() });
            }
            if tags.is_empty() {
                loaded.push(Loaded { name: None, descriptor });
            }
        }
        Ok(loaded)
    }

    /// Makes an OCI manifest for an image that came without one.
    fn docker_image(&self, image: &DockerImage) -> Result<Descriptor> {
        let config =
            ImageConfig::parse(&self.bytes(&image.config)?).wrap(|| image.config.clone())?;
        if config.diff_ids().len() != image.layers.len() {
            return Err(Error::new(format!(
                "{}: {} diff_ids, but manifest.json lists {} layers",
                image.config,
                config.diff_ids().len(),
                image.layers.len()
            )));
        }
        let mut layers = Vec::new();
        for (path, diff_id) in image.layers.iter().zip(config.diff_ids()) {
            layers.push(self.docker_layer(path, diff_id)?);
        }
        let config_desc = self.store.put_bytes(media_type::OCI_CONFIG, &config.to_bytes())?;
        let manifest = Manifest::new(config_desc, layers);
        self.store.put_bytes(media_type::OCI_MANIFEST, manifest.bytes())
    }

    /// The descriptor of a layer, whose uncompressed content must have this digest.
    fn docker_layer(&self, path: &str, diff_id: &Digest) -> Result<Descriptor> {
        let file = self.blob(path)?;
        let mut reader = BufReader::with_capacity(1 << 16, self.store.open_blob(&file)?);
        let compression = Compression::detect(std::io::BufRead::fill_buf(&mut reader)?);
        let found = match compression {
            Compression::None if diff_id.algorithm() == file.digest.algorithm() => {
                file.digest.clone()
            }
            _ => {
                hash(compression.decoder(reader)?, diff_id.algorithm()).wrap(|| path.to_owned())?
            }
        };
        if found != *diff_id {
            return Err(wrong_diff_id(path, &found, diff_id));
        }
        Ok(Descriptor::new(compression.layer_type(), file.digest.clone(), file.size))
    }
}

/// An archive of images has a few files per layer; this many are somebody's home directory.
const MAX_ENTRIES: usize = 65536;
/// What is not stored before it is known to be of use: files up to this size,
const SMALL: usize = 64 << 10;
/// and up to this size together.
const MAX_HELD: usize = 16 << 20;
/// The type of content that nobody has described yet.
const OCTETS: &str = "application/octet-stream";
/// How many links are followed.
const MAX_LINKS: usize = 8;

fn wrong_diff_id(layer: &str, found: &Digest, diff_id: &Digest) -> Error {
    Error::new(format!("layer {layer} has diffID {found}, but the configuration says {diff_id}"))
}

/// The digest that a path in `blobs/` claims.
fn claimed_digest(path: &str) -> Result<Option<Digest>> {
    match path.strip_prefix("blobs/").and_then(|rest| rest.split_once('/')) {
        Some((algorithm, hex)) => Digest::parse(&format!("{algorithm}:{hex}")).map(Some),
        None => Ok(None),
    }
}

fn hash(mut reader: impl Read, algorithm: Algorithm) -> Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    let mut buf = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buf)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buf[..n]),
        }
    }
}
