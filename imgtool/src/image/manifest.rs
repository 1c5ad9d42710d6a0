//! Manifests and indexes (image-spec, manifest.md and image-index.md; Docker's schema 2).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::descriptor::{Descriptor, media_type};
use crate::platform::Platform;
use crate::{Context, Error, Result};

/// The largest manifest, index or configuration that is read, in bytes.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// What a manifest may hold; anything else at the top is kept in the bytes and ignored.
const FIELDS: [&str; 5] = ["schemaVersion", "mediaType", "config", "layers", "manifests"];

/// An image manifest and the bytes it came from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u32,
    media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
    #[serde(skip)]
    bytes: Vec<u8>,
}

/// A list of manifests for several platforms, and the bytes it came from.
#[derive(Clone, Debug)]
pub struct Index {
    /// Its entries, in order.
    pub manifests: Vec<Descriptor>,
    media_type: String,
    bytes: Vec<u8>,
}

/// What a name or a digest can stand for.
#[derive(Clone, Debug)]
pub enum Document {
    /// One image.
    Manifest(Box<Manifest>),
    /// Images for several platforms.
    Index(Index),
}

impl Document {
    /// Parses a manifest or index.
    ///
    /// `expected` is the media type by which it was referred to. The document must say the same
    /// (or nothing, which OCI allows), must not be both kinds at once (CVE-2021-41190), and must
    /// have no field that only differs in case from a known one, since Go would read it.
    pub fn parse(bytes: &[u8], expected: &str) -> Result<Document> {
        Document::parse_inner(bytes, expected).wrap(|| "invalid manifest")
    }

    fn parse_inner(bytes: &[u8], expected: &str) -> Result<Document> {
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(Error::new(format!("larger than {MAX_DOCUMENT} bytes")));
        }
        let map: Map<String, Value> = serde_json::from_slice(bytes)?;
        refuse_lookalikes(&map)?;
        check_media_type(&map, expected)?;
        let has = |key| map.contains_key(key);
        if has("manifests") && (has("config") || has("layers")) {
            return Err(Error::new("it holds both \"manifests\" and \"config\" or \"layers\""));
        }
        if map.get("schemaVersion") != Some(&Value::from(2)) {
            return Err(Error::new("schemaVersion is not 2; schema 1 images are not supported"));
        }
        match expected {
            t if media_type::is_manifest(t) => {
                Manifest::from_bytes(bytes, t).map(|m| Document::Manifest(Box::new(m)))
            }
            t if media_type::is_index(t) => Index::from_bytes(bytes, t).map(Document::Index),
            t => Err(Error::new(format!("\"{t}\" is neither a manifest nor an index"))),
        }
    }

    /// The exact bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Document::Manifest(manifest) => manifest.bytes(),
            Document::Index(index) => index.bytes(),
        }
    }

    /// The media type of a document that came without a descriptor, by what it says and holds.
    pub fn sniff(bytes: &[u8]) -> Result<&'static str> {
        let map: Map<String, Value> = serde_json::from_slice(bytes).wrap(|| "invalid manifest")?;
        let known = [
            media_type::OCI_MANIFEST,
            media_type::OCI_INDEX,
            media_type::DOCKER_MANIFEST,
            media_type::DOCKER_LIST,
        ];
        match map.get("mediaType").and_then(Value::as_str) {
            Some(t) => known
                .into_iter()
                .find(|k| *k == t)
                .ok_or_else(|| Error::new(format!("\"{t}\" is neither a manifest nor an index"))),
            None if map.contains_key("manifests") => Ok(media_type::OCI_INDEX),
            None => Ok(media_type::OCI_MANIFEST),
        }
    }
}

fn refuse_lookalikes(map: &Map<String, Value>) -> Result<()> {
    let lookalike = |key: &&String| FIELDS.iter().any(|f| f.eq_ignore_ascii_case(key) && f != key);
    match map.keys().find(lookalike) {
        Some(key) => {
            Err(Error::new(format!("the field \"{key}\" differs only in case from a known one")))
        }
        None => Ok(()),
    }
}

fn check_media_type(map: &Map<String, Value>, expected: &str) -> Result<()> {
    match map.get("mediaType") {
        None if expected.starts_with("application/vnd.oci.") => Ok(()),
        None => Err(Error::new(format!("it has no mediaType, but is referred to as {expected}"))),
        Some(Value::String(found)) if found == expected => Ok(()),
        Some(found) => Err(Error::new(format!(
            "its mediaType is {found}, but it is referred to as \"{expected}\""
        ))),
    }
}

#[derive(Deserialize)]
struct RawManifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct RawIndex {
    manifests: Vec<Descriptor>,
}

impl Manifest {
    /// A new OCI manifest.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        let media_type = media_type::OCI_MANIFEST.to_owned();
        let mut manifest =
            Manifest { schema_version: 2, media_type, config, layers, bytes: Vec::new() };
        manifest.bytes = serde_json::to_vec(&manifest).expect("a manifest is always JSON");
        manifest
    }

    fn from_bytes(bytes: &[u8], media_type: &str) -> Result<Manifest> {
        let raw: RawManifest = serde_json::from_slice(bytes)?;
        Ok(Manifest {
            schema_version: 2,
            media_type: media_type.to_owned(),
            config: raw.config,
            layers: raw.layers,
            bytes: bytes.to_owned(),
        })
    }

    /// The exact bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its media type.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Its own descriptor.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::of(self.media_type.clone(), &self.bytes)
    }

    /// Everything it points at: the configuration and the layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

impl Index {
    /// A new OCI index.
    pub fn new(manifests: Vec<Descriptor>) -> Index {
        let media_type = media_type::OCI_INDEX.to_owned();
        let doc = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type, "manifests": manifests,
        });
        let bytes = serde_json::to_vec(&doc).expect("an index is always JSON");
        Index { manifests, media_type, bytes }
    }

    /// The same index with these of its entries alone: other bytes, everything else as it was.
    pub fn only(&self, chosen: &[&Descriptor]) -> Result<Index> {
        let mut json: Map<String, Value> = serde_json::from_slice(&self.bytes)?;
        let entries = json.get_mut("manifests").and_then(Value::as_array_mut);
        let keep = |d: &Descriptor| chosen.iter().any(|c| c.digest == d.digest);
        let mut keeps = self.manifests.iter().map(keep);
        entries.expect("the index was parsed").retain(|_| keeps.next().unwrap_or(false));
        Index::from_bytes(&serde_json::to_vec(&json)?, &self.media_type)
    }

    /// Its own descriptor.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::of(self.media_type.clone(), &self.bytes)
    }

    fn from_bytes(bytes: &[u8], media_type: &str) -> Result<Index> {
        let raw: RawIndex = serde_json::from_slice(bytes)?;
        Ok(Index {
            manifests: raw.manifests,
            media_type: media_type.to_owned(),
            bytes: bytes.to_owned(),
        })
    }

    /// The exact bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its media type.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// The entry that serves `platform` best; an entry without a platform serves any, last.
    pub fn select(&self, platform: &Platform) -> Result<&Descriptor> {
        let usable = |d: &&Descriptor| {
            media_type::is_manifest(&d.media_type) || media_type::is_index(&d.media_type)
        };
        let rank = |d: &&Descriptor| match &d.platform {
            Some(offered) => platform.rank(offered).map(|r| r + 1),
            None => Some(0),
        };
        let mut best: Option<(u32, &Descriptor)> = None;
        for entry in self.manifests.iter().filter(usable) {
            match rank(&entry) {
                Some(r) if best.is_none_or(|(b, _)| r > b) => best = Some((r, entry)),
                _ => {}
            }
        }
        best.map(|(_, d)| d).ok_or_else(|| {
            let offered: Vec<String> = self
                .manifests
                .iter()
                .filter_map(|d| d.platform.as_ref())
                .map(|p| p.to_string())
                .collect();
            Error::not_found(format!("no image for {platform}; there are: {}", offered.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,{extra}"config":{{"mediaType":"c","digest":"{D}","size":1}},"layers":[]}}"#
        )
    }

    fn refused(text: &str, expected: &str) -> String {
        Document::parse(text.as_bytes(), expected).unwrap_err().to_string()
    }

    #[test]
    fn keeps_bytes() {
        let text = manifest("\"x\": 1,");
        match Document::parse(text.as_bytes(), media_type::OCI_MANIFEST).unwrap() {
            Document::Manifest(m) => assert_eq!(m.bytes(), text.as_bytes()),
            Document::Index(_) => panic!("an index"),
        }
    }

    #[test]
    fn refuses_confusion() {
        let both = manifest("\"manifests\":[],");
        assert!(refused(&both, media_type::OCI_MANIFEST).contains("both"));
        assert!(refused(&both, media_type::OCI_INDEX).contains("both"));
        let other = manifest(&format!("\"mediaType\":\"{}\",", media_type::OCI_INDEX));
        assert!(refused(&other, media_type::OCI_MANIFEST).contains("referred to as"));
        assert!(refused(&manifest(""), media_type::DOCKER_MANIFEST).contains("no mediaType"));
        assert!(refused(&manifest("\"Layers\":[],"), media_type::OCI_MANIFEST).contains("in case"));
        assert!(
            refused(&manifest("\"layers\":[],"), media_type::OCI_MANIFEST).contains("duplicate")
        );
    }

    #[test]
    fn refuses_negative_sizes_and_schema_1() {
        let negative = manifest("").replace("\"size\":1", "\"size\":-1");
        assert!(refused(&negative, media_type::OCI_MANIFEST).contains("-1"));
        let old = manifest("").replace("\"schemaVersion\":2", "\"schemaVersion\":1");
        assert!(refused(&old, media_type::OCI_MANIFEST).contains("schema 1"));
    }

    #[test]
    fn selects_a_platform() {
        let entry = |arch: &str| {
            let mut d = Descriptor::of(media_type::OCI_MANIFEST, arch.as_bytes());
            d.platform = Some(Platform::parse(arch).unwrap());
            d
        };
        let index = Index::new(vec![entry("arm64"), entry("amd64")]);
        let amd64 = Platform::parse("amd64").unwrap();
        assert_eq!(index.select(&amd64).unwrap(), &entry("amd64"));
        let e = index.select(&Platform::parse("s390x").unwrap()).unwrap_err().to_string();
        assert_eq!(e, "no image for linux/s390x; there are: linux/arm64, linux/amd64");
    }
}
