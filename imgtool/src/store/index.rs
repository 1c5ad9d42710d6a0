//! `index.json`: names, and what they stand for.
//!
//! An entry's name is `io.containerd.image.name`, else `org.opencontainers.image.ref.name`; both
//! are written. Entries without a usable name, made by other tools, are kept as they are.

use std::io::Read;
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use serde_json::{Map, Value, json};

use super::{Store, files};
use crate::descriptor::{Descriptor, media_type};
use crate::digest::Digest;
use crate::image::MAX_DOCUMENT;
use crate::reference::Reference;
use crate::{Context, Error, Result};

/// Annotation that holds the tag, or for us the whole name.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation by which containerd and Docker hand on the whole name.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";

/// The name that an index entry carries, if it carries one.
pub(crate) fn name_of(entry: &Descriptor) -> Option<Reference> {
    let name = |key| Reference::parse(entry.annotations.get(key)?).ok();
    name(IMAGE_NAME).or_else(|| name(REF_NAME))
}

/// `descriptor` as an index entry under this name.
pub(crate) fn named(descriptor: &Descriptor, name: &Reference) -> Descriptor {
    let mut entry = descriptor.clone();
    entry.annotations.insert(IMAGE_NAME.into(), name.to_string());
    entry.annotations.insert(REF_NAME.into(), name.to_string());
    entry
}

impl Store {
    /// All names and what they stand for, in the order in which they were tagged.
    pub fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        let entries = self.entries()?;
        Ok(entries.into_iter().filter_map(|e| Some((name_of(&e)?, e))).collect())
    }

    /// All entries of the index, named or not.
    pub fn entries(&self) -> Result<Vec<Descriptor>> {
        let index = self.read_index()?;
        let list = index.get("manifests").cloned().unwrap_or_else(|| json!([]));
        serde_json::from_value(list).wrap(|| format!("{}: manifests", self.index_path().display()))
    }

    /// What a name stands for. With a digest, any entry of the same repository and that digest
    /// will do, since a digest cannot be reused.
    pub fn resolve(&self, name: &Reference) -> Result<Option<Descriptor>> {
        let list = self.list()?;
        let same = |(n, d): &&(Reference, Descriptor)| match name.digest() {
            Some(digest) => d.digest == *digest && n.repository() == name.repository(),
            None => n == name,
        };
        Ok(list.iter().find(same).map(|(_, d)| d.clone()))
    }

    /// What a user means by an image on the command line: a name, or else the digest or the
    /// first digits (at least 4) of the digest of a manifest, index or configuration. The
    /// reference is one that stands for it, if it has any.
    pub fn find(&self, text: &str) -> Result<(Option<Reference>, Descriptor)> {
        if let Some(found) = self.find_digest(text)? {
            return Ok(found);
        }
        let name = Reference::parse(text)?;
        match self.resolve(&name)? {
            Some(descriptor) => Ok((Some(name), descriptor)),
            None => Err(Error::not_found(format!(
                "no image \"{}\" in the store {}; see imgtool ls, or imgtool pull",
                name.familiar(),
                self.root().display()
            ))),
        }
    }

    fn find_digest(&self, text: &str) -> Result<Option<(Option<Reference>, Descriptor)>> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() < 4 || hex.len() > 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        if !text.starts_with("sha256:")
            && self.resolve(&Reference::parse(text)?).is_ok_and(|f| f.is_some())
        {
            return Ok(None);
        }
        let mut found: Vec<(Option<Reference>, Descriptor)> = Vec::new();
        for entry in self.entries()? {
            let known = found.iter().any(|(_, d)| d.digest == entry.digest);
            if !known && self.digests_of(&entry).any(|d| d.hex().starts_with(hex)) {
                found.push((name_of(&entry), entry));
            }
        }
        match found.len() {
            0 | 1 => Ok(found.pop()),
            n => Err(Error::new(format!("\"{text}\" is ambiguous: {n} images begin so"))),
        }
    }

    /// The digests by which an entry is known: its own, and its configuration's.
    fn digests_of(&self, entry: &Descriptor) -> impl Iterator<Item = Digest> {
        let config = self.manifest(entry, &crate::platform::Platform::host());
        let config = config.ok().map(|(_, m)| m.config.digest);
        std::iter::once(entry.digest.clone()).chain(config)
    }

    /// Makes `name` stand for `descriptor`, and for nothing else. Idempotent. The blobs must be
    /// in the store already. An image that was kept without a name has one then.
    pub fn tag(&self, name: &Reference, descriptor: &Descriptor) -> Result<()> {
        if !self.has_blob(descriptor) {
            return Err(Error::not_found(format!("tag {name}: no blob {}", descriptor.digest)));
        }
        let entry = named(descriptor, name);
        self.change_index(|entries| {
            let unchanged = entries.contains(&entry);
            if !unchanged {
                let nameless =
                    |e: &Descriptor| e.digest == entry.digest && e.annotations.is_empty();
                entries.retain(|e| name_of(e).as_ref() != Some(name) && !nameless(e));
                entries.push(entry.clone());
            }
            !unchanged
        })
        .wrap(|| format!("tag {name}"))
    }

    /// Keeps an image that has no name. Idempotent; nothing happens if it has one.
    pub fn keep(&self, descriptor: &Descriptor) -> Result<()> {
        self.change_index(|entries| {
            let new = entries.iter().all(|e| e.digest != descriptor.digest);
            if new {
                entries.push(descriptor.clone());
            }
            new
        })
        .wrap(|| format!("keep {}", descriptor.digest))
    }

    /// Forgets a name. Returns whether it was there.
    pub fn untag(&self, name: &Reference) -> Result<bool> {
        let mut found = false;
        self.change_index(|entries| {
            let before = entries.len();
            entries.retain(|e| name_of(e).as_ref() != Some(name));
            found = entries.len() != before;
            found
        })
        .wrap(|| format!("remove {name}"))?;
        Ok(found)
    }

    /// Forgets every entry with this digest, named or not.
    pub fn untag_digest(&self, digest: &Digest) -> Result<()> {
        self.change_index(|entries| {
            let before = entries.len();
            entries.retain(|e| e.digest != *digest);
            entries.len() != before
        })
        .wrap(|| format!("remove {digest}"))
    }

    pub(super) fn change_index(
        &self,
        change: impl FnOnce(&mut Vec<Descriptor>) -> bool,
    ) -> Result<()> {
        self.init()?;
        let lock = files::open_lock(&self.davit().join("index.lock"))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).wrap(|| "lock index.json")?;
        let mut index = self.read_index()?;
        let mut entries = self.entries()?;
        if !change(&mut entries) {
            return Ok(());
        }
        index.insert("manifests".into(), serde_json::to_value(&entries)?);
        let bytes = serde_json::to_vec(&index)?;
        if bytes.len() as u64 > MAX_INDEX {
            return Err(Error::new(format!("index.json would exceed {MAX_INDEX} bytes")));
        }
        files::write_atomic(&self.davit().join("tmp"), &self.index_path(), &bytes)
    }

    fn index_path(&self) -> PathBuf {
        self.root.join("index.json")
    }

    fn read_index(&self) -> Result<Map<String, Value>> {
        let path = self.index_path();
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(empty_index()),
            Err(e) => return Err(Error::from(e).wrap(format!("open {}", path.display()))),
        };
        let mut bytes = Vec::new();
        file.take(MAX_INDEX + 1)
            .read_to_end(&mut bytes)
            .wrap(|| format!("read {}", path.display()))?;
        if bytes.len() as u64 > MAX_INDEX {
            return Err(Error::new(format!("{}: larger than {MAX_INDEX} bytes", path.display())));
        }
        serde_json::from_slice(&bytes).wrap(|| format!("parse {}", path.display()))
    }
}

/// A store of many images has a larger index than any image.
const MAX_INDEX: u64 = 16 * MAX_DOCUMENT;

fn empty_index() -> Map<String, Value> {
    let mut index = Map::new();
    index.insert("schemaVersion".into(), json!(2));
    index.insert("mediaType".into(), json!(media_type::OCI_INDEX));
    index.insert("manifests".into(), json!([]));
    index
}
