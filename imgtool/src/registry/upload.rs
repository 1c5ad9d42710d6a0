//! Sending blobs (distribution-spec, "Pushing blobs"): not if they are there, by mounting them
//! from another repository, or as streams that continue where they broke off.
//!
//! A large blob goes in pieces. What a registry says that it has of a broken upload is believed;
//! where it says nothing (docker-registry 2.8 answers 0 to everybody), the upload continues after
//! the last piece that was acknowledged, at the Location that came with the acknowledgement. If
//! the registry does not take that, the upload begins again.

use std::cell::Cell;
use std::collections::{HashSet, VecDeque};
use std::io::Read;

use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use ureq::http::{Method, StatusCode, Uri};

use super::http::{self, Outgoing, Response};
use super::pull::in_parallel;
use super::remote::{BlobSource, Remote, label};
use super::retry::Failure;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::image::Manifest;
use crate::progress::Bar;
use crate::{Context, Error, Result};

/// How to send blobs.
#[derive(Clone, Copy, Debug)]
pub struct UploadOptions {
    /// How many at a time.
    pub jobs: usize,
    /// A larger blob goes in pieces of this many bytes.
    pub chunk: u64,
}

/// The blobs that go to one repository.
pub struct Uploads<'a> {
    pub(crate) remote: &'a Remote,
    pub(crate) source: &'a dyn BlobSource,
    /// Other repositories of the registry, and the blobs that they should have.
    pub(crate) siblings: Vec<(String, HashSet<Digest>)>,
    pub(crate) how: UploadOptions,
}

/// An upload session: where to send the next bytes, and how many the registry has.
#[derive(Clone)]
struct Session {
    url: Uri,
    have: u64,
    /// The least that this registry takes in one piece.
    least: u64,
    /// It is the continuation of one that broke, which the registry may refuse.
    resumed: bool,
}

impl Uploads<'_> {
    /// Sends what these manifests name, several at a time; the first failure stops the rest.
    /// Foreign layers stay where they are.
    pub fn send<'m>(&self, manifests: impl Iterator<Item = &'m Manifest>) -> Result<()> {
        let mut seen = HashSet::new();
        let blobs: VecDeque<&Descriptor> = manifests
            .flat_map(Manifest::blobs)
            .filter(|d| d.urls.is_empty() && seen.insert(d.digest.clone()))
            .collect();
        in_parallel(self.how.jobs, blobs, |blob| {
            let bar = self.remote.progress.bar(label(blob), Some(blob.size));
            let outcome =
                self.send_blob(blob, &bar).wrap(|| format!("push blob {}", blob.digest))?;
            bar.finish(outcome);
            Ok(())
        })
    }

    /// Makes sure that the registry has a blob; says how.
    pub fn send_blob(&self, blob: &Descriptor, bar: &Bar) -> Result<&'static str> {
        if self.remote.retry(|| self.is_there(blob))? {
            return Ok("already there");
        }
        let Some(begun) = self.remote.retry(|| self.begin(blob))? else { return Ok("mounted") };
        self.source.check(blob)?;
        let mut session = Some(begun);
        let reached = Cell::new(0);
        self.remote.retry_from(&reached, || {
            let at = match session.take() {
                Some(at) => at,
                None => match self.begin(blob)? {
                    Some(at) => at,
                    None => return Ok(()),
                },
            };
            bar.set(at.have);
            let result = self.send_rest(blob, at, bar, &mut session);
            reached.set(session.as_ref().map_or(0, |s| s.have));
            result
        })?;
        Ok("done")
    }

    fn is_there(&self, blob: &Descriptor) -> Result<bool, Failure> {
        let registry = &self.remote.registry;
        let path = self.remote.path(&format!("blobs/{}", blob.digest));
        let response = registry.get(registry.request(Method::HEAD, &path)?, &self.remote.scope)?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(response.into_error("").into()),
        }
    }

    /// Begins an upload, unless the registry can take the blob from a repository that it has it
    /// in already.
    fn begin(&self, blob: &Descriptor) -> Result<Option<Session>, Failure> {
        let sibling = self.siblings.iter().find(|(_, blobs)| blobs.contains(&blob.digest));
        let mut path = self.remote.path("blobs/uploads/");
        let mut scope = self.remote.scope.clone();
        if let Some((from, _)) = sibling {
            path += &format!(
                "?mount={}&from={}",
                http::encode(&blob.digest.to_string()),
                http::encode(from)
            );
            scope = scope.and_pull(from);
        }
        let open = || Ok((Box::new(std::io::empty()) as Box<dyn Read>, 0));
        let request = self.remote.registry.request(Method::POST, &path)?.body(&open);
        let response = self.remote.registry.send(&request, &scope)?;
        let least = response.header("oci-chunk-min-length").and_then(|v| v.trim().parse().ok());
        match response.status() {
            StatusCode::CREATED if sibling.is_some() => Ok(None),
            StatusCode::ACCEPTED => Ok(Some(Session {
                url: response.location()?,
                have: 0,
                least: least.unwrap_or(0),
                resumed: false,
            })),
            _ => Err(response.into_error("").into()),
        }
    }

    /// Sends what the registry lacks, and closes the upload under the blob's digest. `resume` is
    /// where another attempt should continue, if it should not begin again.
    fn send_rest(
        &self,
        blob: &Descriptor,
        mut at: Session,
        bar: &Bar,
        resume: &mut Option<Session>,
    ) -> Result<(), Failure> {
        let mut failed = |at: &Session, failure: Failure| match failure {
            // What was continued is refused; from the start it may be taken.
            Failure::Final(error) if at.resumed => Failure::transient(error),
            Failure::Final(error) => Failure::Final(error),
            transient => {
                *resume = self.look_up(at, blob);
                transient
            }
        };
        while at.have < blob.size {
            at = self.send_piece(blob, &at, bar).map_err(|e| failed(&at, e))?;
        }
        self.close(blob, &at).map_err(|e| failed(&at, e))
    }

    /// Sends the next piece, or all of it if it is not long. Returns where the next one goes.
    fn send_piece(&self, blob: &Descriptor, at: &Session, bar: &Bar) -> Result<Session, Failure> {
        let piece = self.how.chunk.max(at.least).max(1);
        let end = at.have.saturating_add(piece).min(blob.size);
        let open = || {
            let body: Box<dyn Read> = Box::new(bar.reader(self.source.open(blob, at.have, end)?));
            Ok((body, end - at.have))
        };
        let mut request = Outgoing::new(Method::PATCH, at.url.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(&open);
        if (at.have, end) != (0, blob.size) {
            request = request.header(CONTENT_RANGE, format!("{}-{}", at.have, end - 1));
        }
        let response = self.remote.registry.send(&request, &self.remote.scope)?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(response.into_error("").into());
        }
        // It may have taken less than it was sent.
        let taken = acknowledged(&response).filter(|n| *n > at.have && *n < end);
        let have = taken.unwrap_or(end);
        Ok(Session { url: response.location()?, have, resumed: false, ..at.clone() })
    }

    fn close(&self, blob: &Descriptor, at: &Session) -> Result<(), Failure> {
        let digest = format!("digest={}", http::encode(&blob.digest.to_string()));
        let request = Outgoing::new(Method::PUT, http::with_query(&at.url, &digest)?)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, "0");
        let response = self.remote.registry.send(&request, &self.remote.scope)?;
        if response.status() != StatusCode::CREATED {
            return Err(response.into_error("").into());
        }
        match response.header("docker-content-digest").map(Digest::parse).transpose()? {
            Some(found) if found != blob.digest => {
                Err(Error::new(format!("the registry stored {found} instead")).into())
            }
            _ => Ok(()),
        }
    }

    /// Where a broken upload can continue: where the registry says, or else after what it has
    /// acknowledged. `None` if it must begin again.
    fn look_up(&self, at: &Session, blob: &Descriptor) -> Option<Session> {
        let request = Outgoing::new(Method::GET, at.url.clone());
        let response = self.remote.registry.send(&request, &self.remote.scope).ok()?;
        if response.status() != StatusCode::NO_CONTENT {
            return None;
        }
        match acknowledged(&response) {
            Some(have) if have >= at.have && have <= blob.size => {
                let url = response.location().unwrap_or_else(|_| at.url.clone());
                Some(Session { url, have, resumed: true, ..at.clone() })
            }
            _ => Some(Session { resumed: true, ..at.clone() }),
        }
    }
}

/// How many bytes the registry has (`Range: 0-LAST`), if it says so. Registries answer 0-0 both
/// for one byte and for none.
fn acknowledged(response: &Response) -> Option<u64> {
    let range = response.header("range")?.trim();
    let last: u64 = range.trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
    (last > 0).then_some(last.checked_add(1)?)
}
