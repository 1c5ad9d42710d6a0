//! The step cache: which layer a step made, under a key of everything the layer depends on.
//!
//! A key is a SHA-256 over fields that are framed by name and length, so that no two different
//! steps can write the same bytes (docs/build-cache.md lists the fields). A record is one file,
//! written beside and renamed: builds that run at the same time share them, and the last of two
//! equal steps wins. A record whose layer is gone from the store counts as absent.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use imgtool::descriptor::Descriptor;
use imgtool::digest::{Algorithm, Hasher};
use imgtool::store::Store;
use serde_json::{Value, json};

use crate::error::{Context, Result};

/// Changes whenever the meaning of a key or of a layer changes.
const VERSION: &str = "1";

/// A key being made.
pub struct Key(Hasher);

impl Key {
    /// A key for a step of this kind.
    pub fn new(kind: &str) -> Self {
        let mut key = Self(Hasher::new(Algorithm::Sha256));
        key.field("version", VERSION);
        key.field("kind", kind);
        key
    }

    /// Adds a field: its name and value, each preceded by its length.
    pub fn field(&mut self, name: &str, value: impl AsRef<[u8]>) {
        for part in [name.as_bytes(), value.as_ref()] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    /// Adds a list: its length, then each element.
    pub fn list<T: AsRef<[u8]>>(&mut self, name: &str, values: &[T]) {
        self.field(name, values.len().to_string());
        for value in values {
            self.field(name, value);
        }
    }

    /// Adds a value that may be missing, which differs from an empty one.
    pub fn optional(&mut self, name: &str, value: Option<&str>) {
        let values: Vec<&str> = value.into_iter().collect();
        self.list(name, &values);
    }

    /// The key as the name of its record.
    pub fn finish(self) -> String {
        self.0.finish().hex().to_owned()
    }
}

/// What a step did: the layer it made, or `None` if it changed no file.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// An uncompressed layer in the store; its digest is its diffID.
    pub layer: Option<Descriptor>,
}

/// The records of a store.
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// The cache of `store`, created if missing.
    pub fn open(store: &Store) -> Result<Self> {
        let dir = store.private_dir("build-cache")?;
        Ok(Self { dir })
    }

    /// The directory of cache mounts, created if missing.
    pub fn mounts(&self) -> Result<PathBuf> {
        let dir = self.dir.join("mounts");
        fs::create_dir_all(&dir).wrap(|| format!("create {}", dir.display()))?;
        Ok(dir)
    }

    /// The record under `key`, if there is one and its layer is still in `store`.
    pub fn get(&self, key: &str, store: &Store) -> Option<Record> {
        let bytes = fs::read(self.dir.join(key)).ok()?;
        let json: Value = serde_json::from_slice(&bytes).ok()?;
        match json.get("layer")? {
            Value::Null => Some(Record { layer: None }),
            layer => {
                let layer: Descriptor = serde_json::from_value(layer.clone()).ok()?;
                store.has_blob(&layer).then_some(Record { layer: Some(layer) })
            }
        }
    }

    /// Stores a record. Atomic; a record that is there already is replaced.
    pub fn put(&self, key: &str, record: &Record) -> Result<()> {
        let what = || format!("write the cache record {key} in {}", self.dir.display());
        let temporary = self.dir.join(format!(".{key}.{}", unique()));
        let write = || -> std::io::Result<()> {
            let mut file = fs::File::create_new(&temporary)?;
            file.write_all(json!({ "layer": record.layer }).to_string().as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, self.dir.join(key))
        };
        let written = write();
        if written.is_err() {
            drop(fs::remove_file(&temporary));
        }
        written.wrap(what)
    }
}

/// A name that no other process has: every build is process 1 of its own namespace, so a process
/// id would not do.
pub fn unique() -> String {
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    random.trim().replace('-', "")
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn fields_cannot_run_into_each_other() {
        let key = |fields: &[(&str, &str)]| {
            let mut key = Key::new("test");
            fields.iter().for_each(|(name, value)| key.field(name, value));
            key.finish()
        };
        assert_ne!(key(&[("a", "bc")]), key(&[("ab", "c")]));
        assert_ne!(key(&[("a", "b"), ("c", "d")]), key(&[("a", "bc"), ("", "d")]));
        assert_eq!(key(&[("a", "b")]), key(&[("a", "b")]));
        let optional = |value| {
            let mut key = Key::new("test");
            key.optional("x", value);
            key.finish()
        };
        assert_ne!(optional(None), optional(Some("")));
    }
}
