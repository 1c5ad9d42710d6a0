//! Sending one blob (distribution-spec, "Pushing blobs"): not if it is there, by mounting it from
//! another repository, or as one stream that continues where it broke off.

use std::io::{Read, Seek, SeekFrom};

use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use ureq::http::{Method, StatusCode, Uri};

use super::http::{self, Outgoing};
use super::push::Push;
use super::retry::{Failure, retry};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::progress::Bar;
use crate::{Context, Error, Result};

/// An upload session: where to send the next bytes, and how many the registry has.
struct Session {
    url: Uri,
    have: u64,
}

impl Push<'_> {
    /// Makes sure that the registry has a blob; says how.
    pub(super) fn send_blob(&self, blob: &Descriptor, bar: &Bar) -> Result<&'static str> {
        if retry(|e| self.progress.line(e), || self.is_there(blob))? {
            return Ok("already there");
        }
        let mut session = match retry(|e| self.progress.line(e), || self.begin(blob))? {
            Some(session) => Some(session),
            None => return Ok("mounted"),
        };
        retry(
            |e| self.progress.line(e),
            || {
                let at = match session.take() {
                    Some(at) => at,
                    None => match self.begin(blob)? {
                        Some(at) => at,
                        None => return Ok(()),
                    },
                };
                bar.set(at.have);
                let url = at.url.clone();
                self.send_rest(blob, at, bar).inspect_err(|_| session = self.look_up(&url, blob))
            },
        )?;
        Ok("done")
    }

    fn is_there(&self, blob: &Descriptor) -> Result<bool, Failure> {
        let path = format!("{}/blobs/{}", self.repository, blob.digest);
        let response =
            self.registry.get(self.registry.request(Method::HEAD, &path)?, &self.scope)?;
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
        let mut path = format!("{}/blobs/uploads/", self.repository);
        let mut scope = self.scope.clone();
        if let Some((from, _)) = sibling {
            path += &format!(
                "?mount={}&from={}",
                http::encode(&blob.digest.to_string()),
                http::encode(from)
            );
            scope = scope.and_pull(from);
        }
        let open = || Ok((Box::new(std::io::empty()) as Box<dyn Read>, 0));
        let request = self.registry.request(Method::POST, &path)?.body(&open);
        let response = self.registry.send(&request, &scope)?;
        match response.status() {
            StatusCode::CREATED if sibling.is_some() => Ok(None),
            StatusCode::ACCEPTED => Ok(Some(Session { url: response.location()?, have: 0 })),
            _ => Err(response.into_error("").into()),
        }
    }

    /// Sends what the registry lacks, and closes the upload under the blob's digest.
    fn send_rest(&self, blob: &Descriptor, at: Session, bar: &Bar) -> Result<(), Failure> {
        let open = || {
            let mut file = self.open_verified(blob)?;
            file.seek(SeekFrom::Start(at.have)).wrap(|| "seek")?;
            let body: Box<dyn Read> = Box::new(bar.reader(file));
            Ok((body, blob.size - at.have))
        };
        let mut url = at.url;
        if at.have < blob.size {
            let mut request = Outgoing::new(Method::PATCH, url)
                .header(CONTENT_TYPE, "application/octet-stream")
                .body(&open);
            if at.have > 0 {
                let range = format!("{}-{}", at.have, blob.size - 1);
                request = request.header(CONTENT_RANGE, range);
            }
            let response = self.registry.send(&request, &self.scope)?;
            if response.status() != StatusCode::ACCEPTED {
                return Err(response.into_error("").into());
            }
            url = response.location()?;
        }
        let digest = format!("digest={}", http::encode(&blob.digest.to_string()));
        let request = Outgoing::new(Method::PUT, http::with_query(&url, &digest)?)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, "0");
        let response = self.registry.send(&request, &self.scope)?;
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

    /// The file of a blob, after its content has been verified: the registry must not be the
    /// first to notice that it is damaged.
    fn open_verified(&self, blob: &Descriptor) -> Result<std::fs::File> {
        std::io::copy(&mut self.store.open_blob(blob)?, &mut std::io::sink())
            .map_err(Error::from)?;
        let path = self.store.blob_path(&blob.digest);
        std::fs::File::open(&path).wrap(|| format!("open {}", path.display()))
    }

    /// How far a broken upload came (`Range: 0-LAST`); `None` if it must begin again.
    fn look_up(&self, url: &Uri, blob: &Descriptor) -> Option<Session> {
        let response =
            self.registry.send(&Outgoing::new(Method::GET, url.clone()), &self.scope).ok()?;
        let range = response.header("range")?;
        let last: u64 = range.trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
        let url = response.location().unwrap_or_else(|_| url.clone());
        let known = response.status() == StatusCode::NO_CONTENT && last < blob.size;
        // Registries answer 0-0 both for one byte and for none.
        known.then_some(Session { url, have: if last == 0 { 0 } else { last + 1 } })
    }
}
