//! From the names down: what each blob should be.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use crate::Result;
use crate::descriptor::{Descriptor, media_type};
use crate::digest::Digest;
use crate::image::{Document, ImageConfig, Manifest};
use crate::store::{Store, name_of};

use super::{Damage, Report, Wants, names, place};

/// How deep indexes may nest.
const MAX_NESTING: usize = 4;

/// Walks all documents. The flag says that all could be read: only then is a blob that none of them
/// names known to be left over.
pub(super) fn documents(store: &Store, report: &mut Report) -> (Wants, bool) {
    let mut walk =
        Walk { store, report, wants: Wants::new(), complete: true, seen: HashSet::new() };
    match store.entries() {
        Ok(entries) => {
            walk.report.images = entries.len();
            for entry in entries {
                let name = name_of(&entry).map_or(entry.digest.to_string(), |n| n.familiar());
                walk.document(&entry, &name, false, 0);
            }
        }
        Err(e) => walk.broken("index.json".into(), e.to_string(), ""),
    }
    walk.roots();
    walk.compressed();
    (walk.wants, walk.complete)
}

struct Walk<'a> {
    store: &'a Store,
    report: &'a mut Report,
    wants: Wants,
    complete: bool,
    seen: HashSet<(Digest, String, String)>,
}

impl Walk<'_> {
    /// A document that cannot be used, and that cannot be replaced by pulling it either.
    fn broken(&mut self, what: PathBuf, why: String, used_by: &str) {
        self.complete = false;
        let mut users = BTreeSet::new();
        users.extend(Some(used_by.to_owned()).filter(|name| !name.is_empty()));
        self.report.damage.push(Damage { what, why, used_by: users, removable: false });
    }

    fn want(&mut self, what: &Descriptor, user: &str, optional: bool) {
        let fresh = !self.wants.contains_key(&what.digest);
        let wanted = self.wants.entry(what.digest.clone()).or_default();
        wanted.sizes.insert(what.size);
        wanted.media_types.insert(what.media_type.clone());
        wanted.used_by.insert(user.to_owned());
        wanted.optional = optional && (fresh || wanted.optional);
    }

    /// A manifest or index, and all below. An `optional` one is an index's: it may be missing.
    fn document(&mut self, at: &Descriptor, user: &str, optional: bool, depth: usize) {
        self.want(at, user, optional);
        let key = (at.digest.clone(), at.media_type.clone(), user.to_owned());
        if !self.seen.insert(key) {
            return;
        }
        if !self.store.blob_path(&at.digest).exists() {
            self.report.absent += usize::from(optional);
            self.complete &= optional;
            return;
        }
        let is_document =
            media_type::is_manifest(&at.media_type) || media_type::is_index(&at.media_type);
        if !is_document {
            return;
        }
        match self.store.read_blob(at).map(|bytes| Document::parse(&bytes, &at.media_type)) {
            // Its digest is wrong, which the look at the blobs will tell.
            Err(_) => self.complete = false,
            Ok(Err(e)) => self.broken(place(&at.digest), e.to_string(), user),
            Ok(Ok(Document::Manifest(manifest))) => self.manifest(at, &manifest, user),
            Ok(Ok(Document::Index(_))) if depth >= MAX_NESTING => {
                self.broken(place(&at.digest), "indexes nested too deeply".into(), user);
            }
            Ok(Ok(Document::Index(index))) => {
                for child in &index.manifests {
                    self.document(child, user, true, depth + 1);
                }
            }
        }
    }

    fn manifest(&mut self, at: &Descriptor, manifest: &Manifest, user: &str) {
        self.want(&manifest.config, user, false);
        for layer in &manifest.layers {
            self.want(layer, user, !layer.urls.is_empty());
        }
        // An artifact's configuration may be anything.
        let is_image = matches!(
            &*manifest.config.media_type,
            media_type::OCI_CONFIG | media_type::DOCKER_CONFIG
        );
        if !is_image {
            return;
        }
        let Ok(bytes) = self.store.read_blob(&manifest.config) else { return };
        let config = match ImageConfig::parse(&bytes) {
            Ok(config) => config,
            Err(e) => return self.broken(place(&manifest.config.digest), e.to_string(), user),
        };
        let (ids, layers) = (config.diff_ids(), &manifest.layers);
        if ids.len() != layers.len() {
            let why = format!("{} layers, but its configuration has {}", layers.len(), ids.len());
            return self.broken(place(&at.digest), why, user);
        }
        for (layer, id) in layers.iter().zip(ids) {
            let wanted = self.wants.entry(layer.digest.clone()).or_default();
            wanted.diff_ids.insert(id.clone());
        }
    }

    fn roots(&mut self) {
        let dir = Path::new("davit/roots");
        for name in names(&self.store.root().join(dir)).unwrap_or_default() {
            let what = dir.join(&name);
            let read = || -> Result<Vec<Descriptor>> {
                Ok(serde_json::from_slice(&std::fs::read(self.store.root().join(&what))?)?)
            };
            match read() {
                Ok(list) => {
                    for root in list {
                        self.document(&root, &what.display().to_string(), false, 0);
                    }
                }
                Err(e) => self.broken(what, e.to_string(), ""),
            }
        }
    }

    /// What the map of compressed layers says; the entries themselves are checked with the caches.
    fn compressed(&mut self) {
        for name in names(&self.store.root().join("davit/compressed")).unwrap_or_default() {
            let Ok(id) = Digest::parse(&format!("sha256:{}", name.display())) else { continue };
            let Some(descriptor) = self.store.compressed(&id) else { continue };
            let user = format!("davit/compressed/{}", id.hex());
            let fresh = !self.wants.contains_key(&descriptor.digest);
            self.want(&descriptor, &user, true);
            let live = self.wants.contains_key(&id);
            let wanted = self.wants.entry(descriptor.digest).or_default();
            wanted.diff_ids.insert(id);
            // The compressed form of a layer that no image has any more is needed no more.
            if fresh && !live {
                wanted.used_by.clear();
            }
        }
    }
}
