//! From a registry into the store.

use std::collections::{HashSet, VecDeque};
use std::io::{self, Read, Write};
use std::sync::Mutex;

use ureq::http::StatusCode;

use super::Options;
use super::remote::{Answer, Remote, label};
use super::retry::{self, Failure};
use crate::descriptor::{Descriptor, media_type};
use crate::digest::Digest;
use crate::image::{Document, Index, Manifest};
use crate::platform::Platform;
use crate::progress::{Bar, Progress};
use crate::reference::Reference;
use crate::store::{BlobWriter, Store};
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
        in_parallel(self.jobs, wanted, |blob| self.fetch_blob(blob))
    }

    fn fetch_blob(&self, blob: &Descriptor) -> Result<()> {
        let bar = self.remote.progress.bar(label(blob), Some(blob.size));
        if self.store.has_blob(blob) {
            bar.finish("already there");
            return Ok(());
        }
        let mut download = Download::new(self.store, blob)?;
        let result = self.remote.retry(|| self.attempt(&mut download, blob, &bar));
        match result.and_then(|()| download.commit()) {
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

    /// Continues a download where it broke off.
    fn attempt(
        &self,
        download: &mut Download,
        blob: &Descriptor,
        bar: &Bar,
    ) -> Result<(), Failure> {
        let response = match self.remote.get_blob(blob, download.have, blob.size)? {
            Answer::Bytes(response) => response,
            Answer::NoSuchRange(error) => {
                *download = Download::new(self.store, blob)?;
                return Err(Failure::transient(error));
            }
        };
        let skip = if response.status() == StatusCode::OK { download.have } else { 0 };
        let what = response.what().to_owned();
        bar.set(download.have);
        download.receive(&mut response.into_reader(), skip, bar, &what)
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

/// A blob that is arriving, over as many connections as it takes.
struct Download {
    writer: BlobWriter,
    digest: Digest,
    size: u64,
    have: u64,
}

impl Download {
    fn new(store: &Store, blob: &Descriptor) -> Result<Download> {
        let writer = store.add_blob_as(blob.digest.algorithm())?;
        Ok(Download { writer, digest: blob.digest.clone(), size: blob.size, have: 0 })
    }

    /// Takes bytes up to the size that the manifest gives, and insists that the stream ends there.
    fn receive(
        &mut self,
        reader: &mut impl Read,
        skip: u64,
        bar: &Bar,
        what: &str,
    ) -> Result<(), Failure> {
        let lost = |e: io::Error| retry::read_failure(e, what);
        let skipped = io::copy(&mut reader.take(skip), &mut io::sink()).map_err(lost)?;
        if skipped < skip {
            return Err(self.truncated(what));
        }
        let mut buf = vec![0; 1 << 16];
        while self.have < self.size {
            let want = usize::try_from(self.size - self.have).unwrap_or(usize::MAX).min(buf.len());
            let n = match reader.read(&mut buf[..want]) {
                Ok(0) => return Err(self.truncated(what)),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(lost(e)),
            };
            self.writer.write_all(&buf[..n]).map_err(Error::from)?;
            self.have += n as u64;
            bar.add(n as u64);
        }
        match reader.read(&mut buf[..1]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Error::new(format!(
                "{what}: longer than the {} bytes of the manifest",
                self.size
            ))
            .into()),
            // All that was promised has come; the digest decides.
            Err(_) => Ok(()),
        }
    }

    fn truncated(&self, what: &str) -> Failure {
        Failure::transient(Error::new(format!(
            "{what}: ended after {} of {} bytes",
            self.have, self.size
        )))
    }

    fn commit(self) -> Result<()> {
        self.writer.commit_as(&self.digest).map(drop)
    }
}
