//! The store: an OCI image layout (image-spec, image-layout.md) that many processes share.
//!
//! ```text
//! STORE/oci-layout  index.json  blobs/sha256/<hex>     what any OCI tool can read
//! STORE/davit/lock                                     held shared by users, exclusively by gc
//! STORE/davit/index.lock                               held while index.json is being replaced
//! STORE/davit/tmp/                                     files being written, each one locked
//! STORE/davit/roots/<name>                             what else gc keeps: JSON list of descriptors
//! STORE/davit/compressed/<diffID>                      descriptor of a layer's compressed form
//! ```
//!
//! Contracts: every write is a locked temporary file, synced and renamed, so readers see all of it
//! or nothing, and a failure (a full disk too) leaves nothing behind. Every operation can be
//! repeated. Every blob read verifies size and digest. What a process has read or written stays
//! at least as long as it holds its [`Store`].

mod blobs;
mod files;
mod gc;
mod index;
mod layout;
pub(crate) mod partial;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::FlockOperation;

use crate::descriptor::{Descriptor, media_type};
use crate::digest::Digest;
use crate::image::{Document, Image, ImageConfig, Index, Manifest};
use crate::platform::Platform;
use crate::{Context, Error, Result};

pub use blobs::{BlobReader, BlobWriter, VerifyingReader};
pub use gc::Collected;
pub(crate) use index::{name_of, named};

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An open store. Opening reads and creates nothing; the first write creates what is missing.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Held shared from the first use to the end, so that gc spares what we are about to name.
    in_use: OnceLock<File>,
}

impl Store {
    /// Opens the store in this directory.
    ///
    /// A missing or empty directory is an empty store. Errors: it exists and is something else
    /// than an OCI image layout of version 1.
    pub fn open(root: impl Into<PathBuf>) -> Result<Store> {
        let root = root.into();
        let store = Store { root, in_use: OnceLock::new() };
        store.open_inner().wrap(|| format!("open store {}", store.root.display()))?;
        Ok(store)
    }

    fn open_inner(&self) -> Result<()> {
        let layout = match std::fs::read(self.root.join("oci-layout")) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return self.check_fresh(),
            Err(e) => return Err(Error::from(e).wrap("read oci-layout")),
        };
        let json: serde_json::Value =
            serde_json::from_slice(&layout).wrap(|| "parse oci-layout")?;
        match json.get("imageLayoutVersion").and_then(|v| v.as_str()) {
            Some(v) if v.starts_with("1.") => self.lock_if_present(),
            other => Err(Error::new(format!("unknown image layout version {other:?}"))),
        }
    }

    /// A directory without `oci-layout` may become a store only if nobody else's files are there.
    fn check_fresh(&self) -> Result<()> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        for entry in entries {
            let name = entry?.file_name();
            if !["davit", "blobs", "index.json", "oci-layout"].iter().any(|n| name == *n) {
                return Err(Error::new(format!(
                    "not an OCI image layout: it has no oci-layout, but {}",
                    name.display()
                )));
            }
        }
        Ok(())
    }

    /// The directory it is in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The private directory of this name below `davit/`, created if missing; for snapshots,
    /// caches and the like, which must be on the same file system as the blobs.
    pub fn private_dir(&self, name: &str) -> Result<PathBuf> {
        self.init()?;
        let dir = self.davit().join(name);
        files::make_dir(&dir)?;
        Ok(dir)
    }

    fn davit(&self) -> PathBuf {
        self.root.join("davit")
    }

    /// Creates what is missing and takes the shared lock. Idempotent.
    fn init(&self) -> Result<()> {
        if self.in_use.get().is_some() {
            return Ok(());
        }
        self.init_inner().wrap(|| format!("initialise store {}", self.root.display()))
    }

    fn init_inner(&self) -> Result<()> {
        files::make_dir(&self.root)?;
        for dir in ["davit", "davit/tmp", "blobs", "blobs/sha256"] {
            files::make_dir(&self.root.join(dir))?;
        }
        files::open_lock(&self.davit().join("lock"))?;
        self.lock_if_present()?;
        let layout = self.root.join("oci-layout");
        if !layout.exists() {
            files::write_atomic(&self.davit().join("tmp"), &layout, LAYOUT)?;
        }
        Ok(())
    }

    fn lock_if_present(&self) -> Result<()> {
        let path = self.davit().join("lock");
        match File::open(&path) {
            Ok(file) => {
                rustix::fs::flock(&file, FlockOperation::LockShared)
                    .wrap(|| format!("lock {}", path.display()))?;
                drop(self.in_use.set(file));
                Ok(())
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::from(e).wrap(format!("open {}", path.display()))),
        }
    }

    /// Reads and parses a manifest or index.
    pub fn document(&self, descriptor: &Descriptor) -> Result<Document> {
        let bytes = self.read_blob(descriptor)?;
        Document::parse(&bytes, &descriptor.media_type).wrap(|| descriptor.digest.to_string())
    }

    /// The manifest that `descriptor` names, or that its index offers for `platform`, with the
    /// descriptor by which the index knows it.
    pub fn manifest(
        &self,
        descriptor: &Descriptor,
        platform: &Platform,
    ) -> Result<(Descriptor, Manifest)> {
        let mut at = descriptor.clone();
        for _ in 0..=MAX_NESTING {
            match self.document(&at)? {
                Document::Manifest(manifest) => return Ok((at, *manifest)),
                Document::Index(index) => at = self.select(&index, platform)?,
            }
        }
        Err(Error::new(format!("{}: indexes nested too deeply", descriptor.digest)))
    }

    fn select(&self, index: &Index, platform: &Platform) -> Result<Descriptor> {
        let chosen = index.select(platform)?;
        if !self.has_blob(chosen) {
            return Err(Error::not_found(format!(
                "the image for {platform} ({}) is not in the store; pull it with --platform {platform}",
                chosen.digest
            )));
        }
        Ok(chosen.clone())
    }

    /// The image that `descriptor` names: a manifest, or an index from which the manifest for
    /// `platform` is taken.
    pub fn image(&self, descriptor: &Descriptor, platform: &Platform) -> Result<Image> {
        let (descriptor, manifest) = self.manifest(descriptor, platform)?;
        let config = ImageConfig::parse(&self.read_blob(&manifest.config)?)
            .wrap(|| manifest.config.digest.to_string())?;
        if config.diff_ids().len() != manifest.layers.len() {
            return Err(Error::new(format!(
                "{}: {} layers, but {} diff_ids in its configuration",
                descriptor.digest,
                manifest.layers.len(),
                config.diff_ids().len()
            )));
        }
        Ok(Image { descriptor: descriptor.bare(), manifest, config })
    }

    /// Stores the configuration, then a manifest of it and these layers; names nothing yet.
    pub fn add_image(&self, config: &ImageConfig, layers: Vec<Descriptor>) -> Result<Image> {
        let config_desc = self.put_bytes(media_type::OCI_CONFIG, &config.to_bytes())?;
        let manifest = Manifest::new(config_desc, layers);
        let descriptor = self.put_bytes(media_type::OCI_MANIFEST, manifest.bytes())?;
        Ok(Image { descriptor, manifest, config: config.clone() })
    }

    /// The compressed form of an uncompressed layer, if one was made here before and is still
    /// there.
    pub fn compressed(&self, diff_id: &Digest) -> Option<Descriptor> {
        let bytes = std::fs::read(self.davit().join("compressed").join(diff_id.hex())).ok()?;
        let descriptor: Descriptor = serde_json::from_slice(&bytes).ok()?;
        self.has_blob(&descriptor).then_some(descriptor)
    }

    /// Remembers the compressed form of an uncompressed layer.
    pub fn remember_compressed(&self, diff_id: &Digest, descriptor: &Descriptor) -> Result<()> {
        let path = self.private_dir("compressed")?.join(diff_id.hex());
        files::write_atomic(&self.davit().join("tmp"), &path, &serde_json::to_vec(descriptor)?)
    }
}

/// The store that is used when none is named: `$DAVIT_STORE`, else `/var/lib/davit/store` for
/// root and `$XDG_DATA_HOME/davit/store` (`~/.local/share/davit/store`) for others.
pub fn default_root() -> Result<PathBuf> {
    let var = |key| std::env::var_os(key).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(path) = var("DAVIT_STORE") {
        return Ok(path);
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/davit/store".into());
    }
    let data = var("XDG_DATA_HOME").or_else(|| Some(var("HOME")?.join(".local/share")));
    data.map(|d| d.join("davit/store"))
        .ok_or_else(|| Error::usage("no store: set --store, DAVIT_STORE, XDG_DATA_HOME or HOME"))
}

/// How deep indexes may nest.
const MAX_NESTING: usize = 4;

#[cfg(test)]
mod tests;
