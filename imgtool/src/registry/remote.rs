//! One repository of a registry: manifests in and out, and blobs as a stream.

use std::cell::Cell;
use std::io::Read;

use ureq::http::header::{ACCEPT, CONTENT_TYPE, RANGE};
use ureq::http::{Method, StatusCode, Uri};

use super::auth::Scope;
use super::http::{self, Outgoing, Response};
use super::mirrors::{self, Endpoint};
use super::retry::{self, Failure};
use super::{Options, Registry};
use crate::descriptor::{Descriptor, media_type};
use crate::digest::{Digest, Hasher};
use crate::image::{Document, MAX_DOCUMENT};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{Store, VerifyingReader};
use crate::{Context, Error, Result};

const ACCEPTED: [&str; 4] = [
    media_type::OCI_INDEX,
    media_type::OCI_MANIFEST,
    media_type::DOCKER_LIST,
    media_type::DOCKER_MANIFEST,
];

/// Where blobs come from.
pub trait BlobSource: Sync {
    /// Makes sure that a blob is what its descriptor says, as far as this can be known beforehand.
    fn check(&self, blob: &Descriptor) -> Result<()>;

    /// Opens the bytes `from` to `to` (without that one) of a blob.
    fn open(&self, blob: &Descriptor, from: u64, to: u64) -> Result<Box<dyn Read + '_>>;
}

/// A repository of a registry, while one command works on it.
#[derive(Debug)]
pub struct Remote {
    pub(super) registry: Registry,
    pub(super) repository: String,
    pub(super) scope: Scope,
    pub(super) progress: Progress,
}

impl Remote {
    /// The repository of this name, to be read: the first mirror that has the image, or else the
    /// registry itself.
    pub fn reading(name: &Reference, options: &Options, progress: &Progress) -> Result<Remote> {
        let mut endpoints = mirrors::endpoints(name, options)?;
        let own = endpoints.pop().expect("the registry itself is the last");
        for mirror in endpoints {
            let scope = Scope::pull(&mirror.path);
            let has_it = || {
                let remote = Remote::at(&mirror, scope, options, progress)?;
                remote.head(name)?;
                Ok::<_, Error>(remote)
            };
            match has_it() {
                Ok(remote) => return Ok(remote),
                Err(e) => progress.line(&format!("mirror {}: {e}", mirror.domain)),
            }
        }
        let scope = Scope::pull(&own.path);
        Remote::at(&own, scope, options, progress)
    }

    /// The repository of this name, to be read and written.
    pub fn writing(name: &Reference, options: &Options, progress: &Progress) -> Result<Remote> {
        Remote::own(name, Scope::push, options, progress)
    }

    /// The repository of this name, to delete from it.
    pub fn deleting(name: &Reference, options: &Options, progress: &Progress) -> Result<Remote> {
        Remote::own(name, Scope::delete, options, progress)
    }

    /// No mirror of it.
    fn own(
        name: &Reference,
        scope: impl Fn(&str) -> Scope,
        options: &Options,
        progress: &Progress,
    ) -> Result<Remote> {
        let own =
            mirrors::endpoints(name, options)?.pop().expect("the registry itself is the last");
        Remote::at(&own, scope(&own.path), options, progress)
    }

    fn at(at: &Endpoint, scope: Scope, options: &Options, progress: &Progress) -> Result<Remote> {
        let insecure = options.insecure || (at.insecure && !options.plain_http);
        let options = Options { insecure, ..options.clone() };
        Ok(Remote {
            registry: Registry::connect(&at.domain, &options)?,
            repository: at.path.clone(),
            scope,
            progress: progress.clone(),
        })
    }

    /// The name of this repository in the registry of the other, if it is in that one.
    pub fn sibling_of(&self, other: &Remote) -> Option<&str> {
        let same = http::same_origin(&self.registry.base, &other.registry.base);
        (same && self.repository != other.repository).then_some(&*self.repository)
    }

    /// The path of something below `/v2/NAME/`.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("{}/{rest}", self.repository)
    }

    pub(super) fn retry<T>(&self, attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        retry::retry(|e| self.progress.line(e), attempt)
    }

    /// As [`Remote::retry`], for a transfer that tells how far it has come.
    pub(super) fn retry_from<T>(
        &self,
        reached: &Cell<u64>,
        attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T> {
        retry::retry_from(|e| self.progress.line(e), reached, attempt)
    }

    /// Fetches the document that a name stands for; its digest is whatever it is, unless the name
    /// or the registry says so.
    pub fn named(&self, reference: &Reference) -> Result<(Descriptor, Document)> {
        let (bytes, found_type, claimed) = self.fetch_document(&reference.target())?;
        let expected = reference.digest().cloned().or(claimed);
        let parse = || -> Result<(Descriptor, Document)> {
            let descriptor = match &expected {
                Some(digest) => described(&found_type, digest, &bytes)?,
                None => Descriptor::of(&*found_type, &bytes),
            };
            let document = Document::parse(&bytes, &descriptor.media_type)?;
            Ok((descriptor, document))
        };
        parse().wrap(|| reference.to_string())
    }

    /// Fetches the document that a descriptor describes, which must be exactly that.
    pub fn document(&self, child: &Descriptor) -> Result<Document> {
        let (bytes, found_type, _) = self.fetch_document(&child.digest.to_string())?;
        let found = described(&found_type, &child.digest, &bytes)?;
        if found.size != child.size || found.media_type != child.media_type {
            return Err(Error::new(format!(
                "manifest {}: {} bytes of {}, but the index says {} bytes of {}",
                child.digest, found.size, found.media_type, child.size, child.media_type
            )));
        }
        Document::parse(&bytes, &found.media_type)
    }

    /// What a name stands for now, by a HEAD request: no document is fetched. `None` if the
    /// registry does not say so.
    pub fn head(&self, reference: &Reference) -> Result<Option<Digest>> {
        let path = self.path(&format!("manifests/{}", reference.target()));
        self.retry(|| {
            let request =
                self.registry.request(Method::HEAD, &path)?.header(ACCEPT, ACCEPTED.join(", "));
            let response = self.registry.get(request, &self.scope)?;
            match response.status() {
                StatusCode::OK => {
                    let digest = response.header("docker-content-digest");
                    Ok(digest.map(Digest::parse).transpose()?)
                }
                _ => Err(no_such("image", response)),
            }
        })
    }

    /// The bytes of a manifest, its Content-Type, and the digest that the registry claims.
    fn fetch_document(&self, target: &str) -> Result<(Vec<u8>, String, Option<Digest>)> {
        let path = self.path(&format!("manifests/{target}"));
        self.retry(|| {
            let request =
                self.registry.request(Method::GET, &path)?.header(ACCEPT, ACCEPTED.join(", "));
            let response = self.registry.get(request, &self.scope)?;
            if response.status() != StatusCode::OK {
                return Err(no_such("image", response));
            }
            let found_type = manifest_type(response.header("content-type"))
                .wrap(|| response.what().to_owned())?;
            let claimed =
                response.header("docker-content-digest").map(Digest::parse).transpose()?;
            let bytes = response.into_bytes(MAX_DOCUMENT)?;
            Ok((bytes, found_type, claimed))
        })
    }

    /// Stores a manifest under a tag or its digest, and checks what the registry made of it.
    pub fn put_manifest(&self, target: &str, what: &Descriptor, bytes: &[u8]) -> Result<()> {
        let path = self.path(&format!("manifests/{target}"));
        let open = || Ok((Box::new(bytes) as Box<dyn Read>, bytes.len() as u64));
        let listed = self.retry(|| {
            let request = self
                .registry
                .request(Method::PUT, &path)?
                .header(CONTENT_TYPE, &*what.media_type)
                .body(&open);
            let response = self.registry.send(&request, &self.scope)?;
            if !matches!(response.status(), StatusCode::CREATED | StatusCode::OK) {
                return Err(response.into_error("").into());
            }
            match response.header("docker-content-digest").map(Digest::parse).transpose()? {
                Some(found) if found != what.digest => Err(Error::new(format!(
                    "{}: the registry stored {found} instead of {}",
                    response.what(),
                    what.digest
                ))
                .into()),
                _ => Ok(response.header("oci-subject").is_some()),
            }
        })?;
        // What refers to another manifest must be found from there.
        match listed || !has_subject(bytes) {
            true => Ok(()),
            false => self.add_to_stand_in(what, bytes).wrap(|| "list it as a referrer"),
        }
    }

    /// Deletes a manifest, by its digest, or a tag alone.
    ///
    /// Not every registry does either; the error says what to do then.
    pub fn delete(&self, target: &Reference) -> Result<()> {
        let path = self.path(&format!("manifests/{}", target.target()));
        self.retry(|| {
            let request = self.registry.request(Method::DELETE, &path)?;
            let response = self.registry.send(&request, &self.scope)?;
            let status = response.status();
            if status.is_success() {
                return Ok(());
            }
            let hint = match (status.as_u16(), target.digest()) {
                (404, _) => return Err(no_such("image", response)),
                (400 | 405 | 501, None) => {
                    "the registry does not delete tags; delete the image by its digest, which takes all of its tags away (imgtool digest tells it)"
                }
                (400 | 405 | 501, Some(_)) => {
                    "the registry does not delete; its configuration may have to allow it (docker-registry: storage.delete.enabled)"
                }
                _ => "",
            };
            Err(response.into_error(hint).into())
        })
    }

    /// Asks for a blob, or for the bytes `from` to `to` (without that one) of it. What answers is
    /// 200 or 206, and is as long as it should be if it says how long it is.
    pub(super) fn get_blob(
        &self,
        blob: &Descriptor,
        from: u64,
        to: u64,
    ) -> Result<Answer, Failure> {
        let response = self.ask_for_blob(blob, from, to)?;
        let expected = match response.status() {
            StatusCode::OK => blob.size,
            StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(from) => to - from,
            StatusCode::PARTIAL_CONTENT => {
                let found = response.header("content-range").unwrap_or("none").to_owned();
                return Ok(Answer::NoSuchRange(Error::new(format!(
                    "{}: asked for the bytes from {from}, but its Content-Range is {found}",
                    response.what()
                ))));
            }
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => {
                return Ok(Answer::NoSuchRange(response.into_error("")));
            }
            _ => return Err(response.into_error("").into()),
        };
        let announced = response.header("content-length").and_then(|v| v.parse::<u64>().ok());
        match announced {
            Some(n) if n != expected => Err(Error::new(format!(
                "{}: offers {} bytes, but the manifest says {}",
                response.what(),
                n + blob.size - expected,
                blob.size
            ))
            .into()),
            _ => Ok(Answer::Bytes(Box::new(response))),
        }
    }

    /// Asks the registry, and then those that the manifest of a foreign layer names (image-spec,
    /// descriptor.md, `urls`), who get no credentials.
    fn ask_for_blob(&self, blob: &Descriptor, from: u64, to: u64) -> Result<Response, Failure> {
        let ranged = |request: Outgoing<'static>| match (from, to) {
            (0, to) if to == blob.size => request,
            (from, to) if to == blob.size => request.header(RANGE, format!("bytes={from}-")),
            (from, to) => request.header(RANGE, format!("bytes={from}-{}", to - 1)),
        };
        let path = self.path(&format!("blobs/{}", blob.digest));
        let request = ranged(self.registry.request(Method::GET, &path)?);
        let mut response = self.registry.get(request, &self.scope)?;
        for url in &blob.urls {
            if response.status() != StatusCode::NOT_FOUND {
                break;
            }
            let request = ranged(Outgoing::new(Method::GET, self.foreign(url)?));
            response = self.registry.get(request, &self.scope)?;
        }
        Ok(response)
    }

    /// The URL of a foreign layer: with TLS, unless the registry itself has none.
    fn foreign(&self, url: &str) -> Result<Uri> {
        let url = http::parse_url(url)?;
        let plain = self.registry.base.scheme_str() == Some("http");
        match url.scheme_str() {
            Some("https") => Ok(url),
            _ if plain => Ok(url),
            _ => Err(Error::new(format!(
                "refusing to fetch a layer from {} without TLS",
                http::display(&url)
            ))),
        }
    }
}

/// What a request for a part of a blob gives.
pub(super) enum Answer {
    /// These bytes, or with status 200 the whole blob.
    Bytes(Box<Response>),
    /// Something else; the blob can only be had from its start.
    NoSuchRange(Error),
}

impl BlobSource for Remote {
    fn check(&self, _: &Descriptor) -> Result<()> {
        Ok(())
    }

    fn open(&self, blob: &Descriptor, from: u64, to: u64) -> Result<Box<dyn Read + '_>> {
        let response = match self.retry(|| self.get_blob(blob, from, to))? {
            Answer::Bytes(response) => *response,
            Answer::NoSuchRange(_) => self.retry(|| self.ask_for_blob(blob, 0, blob.size))?,
        };
        let skip = if response.status() == StatusCode::OK { from } else { 0 };
        let mut reader = response.into_reader();
        if from == 0 && to == blob.size {
            return Ok(Box::new(Prompt(VerifyingReader::new(reader, blob), blob.size)));
        }
        std::io::copy(&mut (&mut reader).take(skip), &mut std::io::sink())
            .wrap(|| format!("skip {skip} bytes of blob {}", blob.digest))?;
        // Only a whole blob can be verified on the way; who receives the parts verifies it.
        Ok(Box::new(reader.take(to - from)))
    }
}

/// Verifies with the last byte, since nobody reads on who knows the size.
struct Prompt<R>(VerifyingReader<R>, u64);

impl<R: Read> Read for Prompt<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.read(buf)?;
        self.1 = self.1.saturating_sub(n as u64);
        if self.1 == 0 && n > 0 {
            self.0.read(&mut [0])?;
        }
        Ok(n)
    }
}

impl BlobSource for Store {
    /// The registry must not be the first to notice that a blob is damaged.
    fn check(&self, blob: &Descriptor) -> Result<()> {
        std::io::copy(&mut self.open_blob(blob)?, &mut std::io::sink())
            .map_err(Error::from)
            .map(drop)
    }

    fn open(&self, blob: &Descriptor, from: u64, to: u64) -> Result<Box<dyn Read + '_>> {
        use std::io::{Seek, SeekFrom};
        let path = self.blob_path(&blob.digest);
        let mut file = std::fs::File::open(&path).wrap(|| format!("open {}", path.display()))?;
        file.seek(SeekFrom::Start(from)).wrap(|| format!("seek in {}", path.display()))?;
        Ok(Box::new(file.take(to - from)))
    }
}

/// Whether it may have a `subject`; the few that have another field of that name cost a look.
fn has_subject(bytes: &[u8]) -> bool {
    bytes.windows(9).any(|w| w == b"\"subject\"")
}

/// 404 as an error that says what there is not; other statuses as they are.
pub(super) fn no_such(what: &str, response: Response) -> Failure {
    match response.status() {
        StatusCode::NOT_FOUND => {
            let e = response.into_error("");
            Error::not_found(e.to_string()).wrap(format!("no such {what}")).into()
        }
        _ => response.into_error("").into(),
    }
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

/// Where `Content-Range: bytes START-END/SIZE` starts.
fn range_start(response: &Response) -> Option<u64> {
    let range = response.header("content-range")?;
    range.trim().strip_prefix("bytes ")?.split('-').next()?.parse().ok()
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
