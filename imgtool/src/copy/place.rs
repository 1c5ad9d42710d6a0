//! Places that images are copied from and to, in the words of skopeo: `docker://NAME`,
//! `oci:DIR[:LABEL]`, `oci-archive:FILE[:LABEL]`, `docker-archive:FILE[:NAME]`, and the store.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::reference::Reference;
use crate::{Error, Result};

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a registry: `docker://[HOST[:PORT]/]NAME[:TAG][@DIGEST]`.
    Registry(Reference),
    /// In the store, by a name or the start of a digest: `store:IMAGE`, or the image alone.
    Store(String),
    /// In an OCI image layout: `oci:DIR[:LABEL]`.
    Layout(PathBuf, Option<String>),
    /// In an OCI image layout as a tar: `oci-archive:FILE[:LABEL]`.
    OciArchive(PathBuf, Option<String>),
    /// In an archive as `docker save` writes it: `docker-archive:FILE[:NAME]`.
    DockerArchive(PathBuf, Option<Reference>),
}

impl Place {
    /// Parses a place.
    pub fn parse(text: &str) -> Result<Place> {
        let Some((transport, rest)) = text.split_once(':') else {
            return Ok(Place::Store(text.to_owned()));
        };
        let path = |what: &str| {
            let (path, label) = rest.split_once(':').map_or((rest, None), |(p, l)| (p, Some(l)));
            match path.is_empty() || label == Some("") {
                true => Err(Error::usage(format!("\"{text}\": expected {transport}:{what}"))),
                false => Ok((PathBuf::from(path), label.map(str::to_owned))),
            }
        };
        match transport {
            "docker" => match rest.strip_prefix("//") {
                Some(name) => Ok(Place::Registry(Reference::parse(name)?)),
                None => Err(Error::usage(format!("\"{text}\": expected docker://NAME"))),
            },
            "oci" => path("DIR[:LABEL]").map(|(p, l)| Place::Layout(p, l)),
            "oci-archive" => path("FILE[:LABEL]").map(|(p, l)| Place::OciArchive(p, l)),
            "docker-archive" => {
                let (path, name) = path("FILE[:NAME]")?;
                let name = name.map(|n| Reference::parse(&n)).transpose()?;
                Ok(Place::DockerArchive(path, name))
            }
            "dir" | "containers-storage" | "docker-daemon" | "sif" | "tarball" | "ostree" => {
                Err(Error::usage(format!(
                    "\"{text}\": {transport} is not supported; there are docker://, oci:, oci-archive:, docker-archive: and store:"
                )))
            }
            "store" => Ok(Place::Store(rest.to_owned())),
            _ => Ok(Place::Store(text.to_owned())),
        }
    }
}

impl FromStr for Place {
    type Err = Error;
    fn from_str(text: &str) -> Result<Place> {
        Place::parse(text)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut path = |transport: &str, path: &PathBuf, label: Option<String>| {
            let label = label.map_or(String::new(), |l| format!(":{l}"));
            write!(f, "{transport}:{}{label}", path.display())
        };
        match self {
            Place::Registry(name) => write!(f, "docker://{name}"),
            Place::Store(image) => write!(f, "store:{image}"),
            Place::Layout(p, label) => path("oci", p, label.clone()),
            Place::OciArchive(p, label) => path("oci-archive", p, label.clone()),
            Place::DockerArchive(p, name) => {
                path("docker-archive", p, name.as_ref().map(Reference::familiar))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "docker://localhost:5000/a/b:1",
            "oci:/x/y",
            "oci:y:1.0",
            "oci:y:name:tag",
            "oci-archive:x.tar:1",
            "docker-archive:x.tar",
            "docker-archive:x.tar:a:1",
            "store:busybox:1",
        ] {
            assert_eq!(Place::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Place::parse("busybox:1").unwrap(), Place::Store("busybox:1".into()));
        assert_eq!(
            Place::parse("localhost:5000/a").unwrap(),
            Place::parse("store:localhost:5000/a").unwrap()
        );
    }

    #[test]
    fn refuses_what_it_cannot() {
        for text in ["docker:x", "docker://X", "oci:", "oci:d:", "oci-archive::x", "dir:x"] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }
}
