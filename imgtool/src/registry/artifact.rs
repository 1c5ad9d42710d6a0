//! Artifacts: files in a manifest of their own, which may refer to an image (image-spec,
//! manifest.md, `subject` and `artifactType`; distribution-spec, "Listing Referrers").

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use ureq::http::header::ACCEPT;
use ureq::http::{Method, StatusCode};

use super::http::{self, Outgoing};
use super::list::next_page;
use super::remote::{BlobSource, Remote, no_such};
use super::upload::{UploadOptions, Uploads};
use crate::descriptor::{Descriptor, media_type};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::Kind;
use crate::image::{Document, Index, MAX_DOCUMENT};
use crate::reference::Reference;
use crate::{Context, Error, Result};

/// Annotation that holds a file's name.
pub const TITLE: &str = "org.opencontainers.image.title";
/// The type of the configuration of an artifact that has none, which is `{}`.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// How many pages of referrers are followed.
const MAX_PAGES: usize = 1000;

/// A manifest of files, not yet anywhere.
#[derive(Debug)]
pub struct Artifact {
    descriptor: Descriptor,
    document: Document,
    files: Vec<(Descriptor, PathBuf)>,
}

impl Artifact {
    /// Describes these files, each with its media type, by what they hold now.
    pub fn new(
        artifact_type: &str,
        files: &[(PathBuf, String)],
        annotations: &BTreeMap<String, String>,
        subject: Option<&Descriptor>,
    ) -> Result<Artifact> {
        let described: Vec<(Descriptor, PathBuf)> = files
            .iter()
            .map(|(path, t)| {
                let layer = describe(path, t).wrap(|| format!("read {}", path.display()))?;
                Ok((layer, path.clone()))
            })
            .collect::<Result<_>>()?;
        let mut json = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": Descriptor::of(EMPTY, b"{}"),
            "layers": described.iter().map(|(d, _)| d).collect::<Vec<_>>(),
        });
        if let Some(subject) = subject {
            json["subject"] = serde_json::to_value(subject.bare())?;
        }
        if !annotations.is_empty() {
            json["annotations"] = serde_json::to_value(annotations)?;
        }
        let bytes = serde_json::to_vec(&json)?;
        let document = Document::parse(&bytes, media_type::OCI_MANIFEST)?;
        let descriptor = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
        Ok(Artifact { descriptor, document, files: described })
    }

    /// Sends it: its files, then its manifest under the name's tag, or under its digest.
    pub fn push(
        &self,
        remote: &Remote,
        tag: Option<&str>,
        how: UploadOptions,
    ) -> Result<&Descriptor> {
        let Document::Manifest(manifest) = &self.document else {
            return Err(Error::new("an artifact is a manifest"));
        };
        let uploads = Uploads { remote, source: self, siblings: Vec::new(), how };
        uploads.send(std::iter::once(&**manifest))?;
        let digest = self.descriptor.digest.to_string();
        remote.put_manifest(tag.unwrap_or(&digest), &self.descriptor, self.document.bytes())?;
        Ok(&self.descriptor)
    }
}

fn describe(path: &Path, media_type: &str) -> Result<Descriptor> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let (mut buf, mut size) = (vec![0; 1 << 16], 0);
    loop {
        match file.read(&mut buf)? {
            0 => break,
            n => {
                hasher.update(&buf[..n]);
                size += n as u64;
            }
        }
    }
    let mut layer = Descriptor::new(media_type, hasher.finish(), size);
    let title = path.file_name().ok_or_else(|| Error::new("it has no name"))?;
    layer.annotations.insert(TITLE.into(), title.to_string_lossy().into_owned());
    Ok(layer)
}

impl BlobSource for Artifact {
    /// The registry notices a file that changed since.
    fn check(&self, _: &Descriptor) -> Result<()> {
        Ok(())
    }

    fn open(&self, blob: &Descriptor, from: u64, to: u64) -> Result<Box<dyn Read + '_>> {
        let Some((_, path)) = self.files.iter().find(|(d, _)| d.digest == blob.digest) else {
            return Ok(Box::new(&b"{}"[from as usize..to as usize]));
        };
        let context = || format!("read {}", path.display());
        let mut file = File::open(path).wrap(context)?;
        file.seek(SeekFrom::Start(from)).wrap(context)?;
        Ok(Box::new(file.take(to - from)))
    }
}

impl Remote {
    /// What refers to this digest, of one type or of any. A registry without the referrers API is
    /// asked for the tag that stands in for it.
    pub fn referrers(&self, to: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        let mut path = self.path(&format!("referrers/{to}"));
        if let Some(t) = artifact_type {
            path += &format!("?artifactType={}", http::encode(t));
        }
        let mut found = Vec::new();
        let mut next = Some(self.registry.url(&path)?);
        for _ in 0..MAX_PAGES {
            let Some(url) = next.take() else { break };
            let page = self.retry(|| {
                let request =
                    Outgoing::new(Method::GET, url.clone()).header(ACCEPT, media_type::OCI_INDEX);
                let response = self.registry.get(request, &self.scope)?;
                match response.status() {
                    StatusCode::OK => {
                        let link = next_page(&response, &url)?;
                        Ok(Some((response.into_bytes(MAX_DOCUMENT)?, link)))
                    }
                    StatusCode::NOT_FOUND => Ok(None),
                    _ => Err(no_such("referrers", response)),
                }
            })?;
            let Some((bytes, link)) = page else {
                found = self.stand_in(to)?;
                break;
            };
            match Document::parse(&bytes, media_type::OCI_INDEX).wrap(|| http::display(&url))? {
                Document::Index(index) => found.extend(index.manifests),
                Document::Manifest(_) => return Err(Error::new("referrers are not an index")),
            }
            next = link;
        }
        // The registry may or may not have looked at the type.
        let wanted = |d: &Descriptor| artifact_type.is_none_or(|t| type_of(d) == Some(t));
        found.retain(wanted);
        Ok(found)
    }

    /// The list under the tag that stands in for the referrers API; empty if there is none.
    fn stand_in(&self, to: &Digest) -> Result<Vec<Descriptor>> {
        match self.named(&self.stand_in_name(to)?) {
            Ok((_, Document::Index(index))) => Ok(index.manifests),
            Ok((_, Document::Manifest(_))) => {
                Err(Error::new(format!("the tag {} is not an index", stand_in_tag(to))))
            }
            Err(e) if e.kind() == Kind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    fn stand_in_name(&self, to: &Digest) -> Result<Reference> {
        // Only the tag counts here.
        Reference::parse(&format!("x.invalid/{}:{}", self.repository, stand_in_tag(to)))
    }

    /// Adds a referrer to that list, for a registry that does not keep one.
    pub(super) fn add_to_stand_in(&self, referrer: &Descriptor, manifest: &[u8]) -> Result<()> {
        let json: Value = serde_json::from_slice(manifest)?;
        let Some(subject) = json["subject"]["digest"].as_str() else { return Ok(()) };
        let subject = Digest::parse(subject)?;
        let mut list = self.stand_in(&subject)?;
        if list.iter().any(|d| d.digest == referrer.digest) {
            return Ok(());
        }
        let mut entry = referrer.bare();
        let t = json.get("artifactType").or_else(|| json["config"].get("mediaType"));
        if let Some(t) = t {
            entry.extra.insert("artifactType".into(), t.clone());
        }
        if let Some(annotations) = json.get("annotations") {
            entry.annotations = serde_json::from_value(annotations.clone())?;
        }
        list.push(entry);
        let index = Index::new(list);
        self.put_manifest(&stand_in_tag(&subject), &index.descriptor(), index.bytes())
    }
}

/// The artifact type that an entry of a list of referrers gives.
pub fn type_of(entry: &Descriptor) -> Option<&str> {
    entry.extra.get("artifactType").and_then(Value::as_str)
}

/// The tag that stands in for the referrers API (distribution-spec, "Referrers Tag Schema").
fn stand_in_tag(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), &digest.hex()[..64])
}
