//! From a registry into the store.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;

use super::Options;
use super::download::{self, Lanes};
use super::remote::{Remote, label};
use crate::descriptor::{Descriptor, media_type};
use crate::image::{Document, Index, Manifest};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::Store;
use crate::{Error, Result};

/// What to pull of an image.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// Which image of an index; if it was asked for, a lone image of another platform is refused.
    pub platform: Option<Platform>,
    /// All images of an index.
    pub all_platforms: bool,
    /// How many blobs to fetch at a time.
    pub jobs: usize,
}

/// Pulls an image and names it. Returns what the name stands for now: of a multi-platform image
/// it is the index, of whose images the store has those that were asked for.
///
/// Nothing is named before everything has arrived and been verified. What arrived of a pull that
/// failed stays until it is collected, so that the next attempt need not repeat it.
pub fn pull(
    store: &Store,
    reference: &Reference,
    what: &PullOptions,
    options: &Options,
    progress: &Progress,
) -> Result<Descriptor> {
    let remote = Remote::reading(reference, options, progress)?;
    let pull = Pull { remote: &remote, store, jobs: what.jobs };
    let (descriptor, document) = remote.named(reference)?;
    store.put_reader(&descriptor, document.bytes())?;
    let manifests = match document {
        Document::Manifest(manifest) => vec![(descriptor.clone(), *manifest)],
        Document::Index(index) => pull.fetch_children(&index, what)?,
    };
    pull.fetch_blobs(manifests.iter().map(|(_, m)| m))?;
    for (manifest_desc, manifest) in &manifests {
        pull.check_image(manifest_desc, manifest, what)?;
    }
    store.tag(reference, &descriptor)?;
    Ok(descriptor)
}

/// Fetches what these manifests name and the store lacks.
pub fn pull_blobs<'a>(
    remote: &Remote,
    store: &Store,
    manifests: impl Iterator<Item = &'a Manifest>,
    jobs: usize,
) -> Result<()> {
    Pull { remote, store, jobs }.fetch_blobs(manifests)
}

struct Pull<'a> {
    remote: &'a Remote,
    store: &'a Store,
    jobs: usize,
}

impl Pull<'_> {
    fn fetch_children(
        &self,
        index: &Index,
        what: &PullOptions,
    ) -> Result<Vec<(Descriptor, Manifest)>> {
        let host = Platform::host();
        let chosen: Vec<&Descriptor> = match what.all_platforms {
            true => index.manifests.iter().collect(),
            false => vec![index.select(what.platform.as_ref().unwrap_or(&host))?],
        };
        let mut manifests = Vec::new();
        for child in chosen {
            match self.fetch_child(child)? {
                Document::Manifest(m) => manifests.push((child.bare(), *m)),
                Document::Index(inner) => {
                    // One level of nesting is legal and rare; deeper ones are not followed.
                    let flat = Index::new(
                        inner
                            .manifests
                            .iter()
                            .filter(|d| media_type::is_manifest(&d.media_type))
                            .cloned()
                            .collect(),
                    );
                    manifests.extend(self.fetch_children(&flat, what)?);
                }
            }
        }
        Ok(manifests)
    }

    fn fetch_child(&self, child: &Descriptor) -> Result<Document> {
        if self.store.has_blob(child)
            && let Ok(document) = self.store.document(child)
        {
            return Ok(document);
        }
        let document = self.remote.document(child)?;
        self.store.put_reader(child, document.bytes())?;
        Ok(document)
    }

    /// Fetches what the store lacks, several at a time; the first failure stops the rest.
    fn fetch_blobs<'m>(&self, manifests: impl Iterator<Item = &'m Manifest>) -> Result<()> {
        let mut seen = HashSet::new();
        let wanted: VecDeque<&Descriptor> =
            manifests.flat_map(Manifest::blobs).filter(|d| seen.insert(d.digest.clone())).collect();
        // What is not needed for blobs beside each other, is for pieces of them.
        let missing = wanted.iter().filter(|d| !self.store.has_blob(d)).count();
        let lanes = Lanes::shared(self.jobs, missing);
        in_parallel(self.jobs, wanted, |blob| self.fetch_blob(blob, lanes))
    }

    fn fetch_blob(&self, blob: &Descriptor, lanes: Lanes) -> Result<()> {
        let bar = self.remote.progress.bar(label(blob), Some(blob.size));
        if self.store.has_blob(blob) {
            bar.finish("already there");
            return Ok(());
        }
        match download::fetch(self.remote, self.store, blob, lanes, &bar) {
            Ok(()) => {
                bar.finish("done");
                Ok(())
            }
            Err(e) => {
                bar.clear();
                Err(e.wrap(format!("fetch blob {}", blob.digest)))
            }
        }
    }

    fn check_image(&self, at: &Descriptor, manifest: &Manifest, what: &PullOptions) -> Result<()> {
        if !is_image(manifest) {
            return Ok(());
        }
        let image = self.store.image(at, &Platform::host())?;
        let found = image.config.platform();
        match &what.platform {
            Some(wanted) if !what.all_platforms && wanted.rank(&found).is_none() => Err(
                Error::not_found(format!("no image for {wanted}; there is only one, for {found}")),
            ),
            _ => Ok(()),
        }
    }
}

/// Whether a manifest is an image and not some other artifact or an attestation.
pub(crate) fn is_image(manifest: &Manifest) -> bool {
    use crate::compression::Compression;
    matches!(&*manifest.config.media_type, media_type::OCI_CONFIG | media_type::DOCKER_CONFIG)
        && manifest.layers.iter().all(|l| Compression::of_layer(&l.media_type).is_some())
}

/// Works on all items, `jobs` at a time. After a failure no new item is begun; the first failure
/// is returned.
pub(crate) fn in_parallel<T: Send>(
    jobs: usize,
    items: VecDeque<T>,
    work: impl Fn(T) -> Result<()> + Sync,
) -> Result<()> {
    let threads = jobs.min(items.len());
    let queue = Mutex::new((items, None));
    let next = || {
        let mut queue = queue.lock().expect("work does not panic with the lock");
        if queue.1.is_some() { None } else { queue.0.pop_front() }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = next() {
                    if let Err(e) = work(item) {
                        let mut queue = queue.lock().expect("work does not panic with the lock");
                        queue.1.get_or_insert(e);
                    }
                }
            });
        }
    });
    match queue.into_inner().expect("work does not panic with the lock").1 {
        Some(e) => Err(e),
        None => Ok(()),
    }
}
