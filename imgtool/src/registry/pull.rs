//! From a registry into the store.

use std::collections::{HashSet, VecDeque};
use std::io::{self, Read, Write};
use std::sync::Mutex;

use ureq::http::header::{ACCEPT, RANGE};
use ureq::http::{Method, StatusCode};

use super::auth::Scope;
use super::http::{self, Outgoing};
use super::retry::{self, Failure, retry};
use super::{Options, Registry};
use crate::descriptor::{Descriptor, media_type};
use crate::digest::{Digest, Hasher};
use crate::image::{Document, Index, MAX_DOCUMENT, Manifest};
use crate::platform::Platform;
use crate::progress::{Bar, Progress};
use crate::reference::Reference;
use crate::store::{BlobWriter, Store};
use crate::{Context, Error, Result};

const ACCEPTED: [&str; 4] = [
    media_type::OCI_INDEX,
    media_type::OCI_MANIFEST,
    media_type::DOCKER_LIST,
    media_type::DOCKER_MANIFEST,
];

/// What to pull of an image.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// Which image of an index; if it was asked for, a lone image of another platform is refused.
    pub platform: Option<Platform>,
    /// All images of an index.
    pub all_platforms: bool,
}

/// Pulls an image and names it. Returns what the name stands for now: of a multi-platform image
/// it is the index, of whose images the store has those that were asked for.
///
/// Nothing is named before everything has arrived and been verified. Complete blobs of a pull
/// that failed stay until they are collected, so that the next attempt need not repeat them.
pub fn pull(
    store: &Store,
    reference: &Reference,
    what: &PullOptions,
    options: &Options,
    progress: &Progress,
) -> Result<Descriptor> {
    let registry = Registry::connect(reference.domain(), options)?;
    let pull = Pull {
        registry: &registry,
        store,
        progress,
        repository: reference.path(),
        scope: Scope::pull(reference.path()),
        jobs: options.jobs.into(),
    };
    let (descriptor, document) = pull.fetch_named(reference)?;
    let manifests = match document {
        Document::Manifest(manifest) => vec![(descriptor.clone(), *manifest)],
        Document::Index(index) => pull.fetch_children(&index, what)?,
    };
    pull.fetch_blobs(&manifests)?;
    for (manifest_desc, manifest) in &manifests {
        pull.check_image(manifest_desc, manifest, what)?;
    }
    store.tag(reference, &descriptor)?;
    Ok(descriptor)
}

struct Pull<'a> {
    registry: &'a Registry,
    store: &'a Store,
    progress: &'a Progress,
    repository: &'a str,
    scope: Scope,
    jobs: usize,
}

impl Pull<'_> {
    /// Fetches the document that a name stands for; its digest is whatever it is, unless the name
    /// or the registry says so.
    fn fetch_named(&self, reference: &Reference) -> Result<(Descriptor, Document)> {
        let target = reference.target();
        let (bytes, found_type, claimed) = self.fetch_document(&target)?;
        let expected = reference.digest().cloned().or(claimed);
        let descriptor = match &expected {
            Some(digest) => {
                described(&found_type, digest, &bytes).wrap(|| reference.to_string())?
            }
            None => Descriptor::of(&*found_type, &bytes),
        };
        self.keep(&descriptor, &bytes).wrap(|| reference.to_string())
    }

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
                (d, Document::Manifest(m)) => manifests.push((d, *m)),
                (_, Document::Index(inner)) => {
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

    fn fetch_child(&self, child: &Descriptor) -> Result<(Descriptor, Document)> {
        if self.store.has_blob(child)
            && let Ok(document) = self.store.document(child)
        {
            return Ok((child.bare(), document));
        }
        let (bytes, found_type, _) = self.fetch_document(&child.digest.to_string())?;
        let found = described(&found_type, &child.digest, &bytes)?;
        if found.size != child.size || found.media_type != child.media_type {
            return Err(Error::new(format!(
                "manifest {}: {} bytes of {}, but the index says {} bytes of {}",
                child.digest, found.size, found.media_type, child.size, child.media_type
            )));
        }
        self.keep(&found, &bytes)
    }

    fn keep(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(Descriptor, Document)> {
        let document = Document::parse(bytes, &descriptor.media_type)?;
        self.store.put_reader(descriptor, bytes)?;
        Ok((descriptor.clone(), document))
    }

    /// The bytes of a manifest, its Content-Type, and the digest that the registry claims.
    fn fetch_document(&self, target: &str) -> Result<(Vec<u8>, String, Option<Digest>)> {
        let path = format!("{}/manifests/{target}", self.repository);
        retry(
            |e| self.progress.line(e),
            || {
                let request =
                    self.registry.request(Method::GET, &path)?.header(ACCEPT, ACCEPTED.join(", "));
                let response = self.registry.get(request, &self.scope)?;
                match response.status() {
                    StatusCode::OK => {}
                    StatusCode::NOT_FOUND => {
                        let e = response.into_error("");
                        return Err(Error::not_found(e.to_string()).wrap("no such image").into());
                    }
                    _ => return Err(response.into_error("").into()),
                }
                let found_type = manifest_type(response.header("content-type"))
                    .wrap(|| response.what().to_owned())?;
                let claimed =
                    response.header("docker-content-digest").map(Digest::parse).transpose()?;
                let bytes = response.into_bytes(MAX_DOCUMENT)?;
                Ok((bytes, found_type, claimed))
            },
        )
    }

    /// Fetches what the store lacks, several at a time; the first failure stops the rest.
    fn fetch_blobs(&self, manifests: &[(Descriptor, Manifest)]) -> Result<()> {
        let mut seen = HashSet::new();
        let wanted: VecDeque<&Descriptor> = manifests
            .iter()
            .flat_map(|(_, manifest)| manifest.blobs())
            .filter(|d| seen.insert(d.digest.clone()))
            .collect();
        in_parallel(self.jobs, wanted, |blob| self.fetch_blob(blob))
    }

    fn fetch_blob(&self, blob: &Descriptor) -> Result<()> {
        let bar = self.progress.bar(label(blob), Some(blob.size));
        if self.store.has_blob(blob) {
            bar.finish("already there");
            return Ok(());
        }
        let mut download = Download::new(self.store, blob)?;
        let result = retry(|e| self.progress.line(e), || self.attempt(&mut download, blob, &bar));
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
        let path = format!("{}/blobs/{}", self.repository, blob.digest);
        let mut request = self.registry.request(Method::GET, &path)?;
        if download.have > 0 {
            request = request.header(RANGE, format!("bytes={}-", download.have));
        }
        let response = self.registry.get(request, &self.scope)?;
        let response = match response.status() {
            StatusCode::NOT_FOUND if !blob.urls.is_empty() => self.get_foreign(blob)?,
            _ => response,
        };
        let skip = match response.status() {
            StatusCode::PARTIAL_CONTENT
                if continues(response.header("content-range"), download.have) =>
            {
                0
            }
            StatusCode::OK => download.have,
            _ => return Err(response.into_error("").into()),
        };
        let what = response.what().to_owned();
        let expected = blob.size - download.have + skip;
        let announced = response.header("content-length").and_then(|v| v.parse::<u64>().ok());
        if announced.is_some_and(|n| n != expected) {
            return Err(Error::new(format!(
                "{what}: offers {} bytes, but the manifest says {}",
                announced.unwrap_or_default() + blob.size - expected,
                blob.size
            ))
            .into());
        }
        bar.set(download.have);
        download.receive(&mut response.into_reader(), skip, bar, &what)
    }

    /// A layer that its manifest says is elsewhere (image-spec, `urls`): no credentials go there.
    fn get_foreign(&self, blob: &Descriptor) -> Result<http::Response, Failure> {
        let url = http::parse_url(&blob.urls[0])?;
        if url.scheme_str() != Some("https") {
            return Err(Error::new(format!(
                "refusing to fetch a layer from {}",
                http::display(&url)
            ))
            .into());
        }
        self.registry.get(Outgoing::new(Method::GET, url), &self.scope)
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
fn is_image(manifest: &Manifest) -> bool {
    use crate::compression::Compression;
    matches!(&*manifest.config.media_type, media_type::OCI_CONFIG | media_type::DOCKER_CONFIG)
        && manifest.layers.iter().all(|l| Compression::of_layer(&l.media_type).is_some())
}

/// The digest's algorithm decides by which the bytes are checked.
fn described(media_type: &str, digest: &Digest, bytes: &[u8]) -> Result<Descriptor> {
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(bytes);
    match hasher.finish() {
        found if found == *digest => Ok(Descriptor::new(media_type, found, bytes.len() as u64)),
        found => {
            Err(Error::new(format!("manifest {digest}: its content has another digest, {found}")))
        }
    }
}

fn manifest_type(content_type: Option<&str>) -> Result<String> {
    let t = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match t {
        _ if ACCEPTED.contains(&t) => Ok(t.to_owned()),
        "application/vnd.docker.distribution.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v1+prettyjws" => {
            Err(Error::new("a schema 1 image, which is not supported"))
        }
        _ => {
            Err(Error::new(format!("the Content-Type \"{t}\" is not that of a manifest or index")))
        }
    }
}

/// Whether `Content-Range: bytes START-END/SIZE` starts here.
fn continues(range: Option<&str>, start: u64) -> bool {
    let first =
        range.and_then(|r| r.trim().strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    first == Some(start)
}

/// `layer 0123456789ab`.
pub(super) fn label(blob: &Descriptor) -> String {
    let kind = if blob.media_type.contains("config") || blob.media_type == media_type::DOCKER_CONFIG
    {
        "config"
    } else {
        "layer"
    };
    format!("{kind} {}", blob.digest.short())
}

/// Works on all items, `jobs` at a time. After a failure no new item is begun; the first failure
/// is returned.
pub(super) fn in_parallel<T: Send>(
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
