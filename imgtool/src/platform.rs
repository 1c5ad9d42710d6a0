//! Platforms: `os/architecture[/variant]`, in the names that image-spec takes from Go.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What an image runs on (image-spec, image-index.md, `platform`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture, as Go names it: `amd64`, `arm64`, ...
    pub architecture: String,
    /// Operating system, as Go names it: `linux`.
    pub os: String,
    /// Operating system version; Windows images have one.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Mandatory features of the operating system.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// CPU variant: `v7` of arm, `v8` of arm64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Parses `os/arch[/variant]`, or `arch` alone for Linux; `x86_64`, `aarch64` and other
    /// names from outside Go are translated.
    pub fn parse(text: &str) -> Result<Platform> {
        let bad = || {
            Error::new(format!(
                "invalid platform \"{text}\": expected os/architecture[/variant], such as linux/amd64"
            ))
        };
        let word = |s: &&str| {
            !s.is_empty()
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(word) {
            return Err(bad());
        }
        match parts[..] {
            [arch] if arch != "linux" => Ok(Platform::new("linux", arch, None)),
            [os, arch] => Ok(Platform::new(os, arch, None)),
            [os, arch, variant] => Ok(Platform::new(os, arch, Some(variant))),
            _ => Err(bad()),
        }
    }

    /// The platform of this machine.
    pub fn host() -> Platform {
        Platform::new("linux", std::env::consts::ARCH, None)
    }

    fn new(os: &str, arch: &str, variant: Option<&str>) -> Platform {
        let (architecture, implied) = go_arch(&arch.to_ascii_lowercase());
        Platform {
            architecture,
            os: os.to_ascii_lowercase(),
            os_version: None,
            os_features: Vec::new(),
            variant: variant.map(str::to_ascii_lowercase).or(implied),
        }
    }

    /// How well an image for `offered` serves where `self` is wanted: `None` not at all, else
    /// higher is better. An older arm variant serves a newer one; `arm64` is `arm64/v8` and
    /// `amd64` is `amd64/v1`.
    pub fn rank(&self, offered: &Platform) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let (want, have) = (self.variant_level()?, offered.variant_level()?);
        let backward_compatible = matches!(&*self.architecture, "arm" | "arm64" | "amd64");
        (have == want || (backward_compatible && have < want)).then_some(have)
    }

    /// The variant as a number; `None` for a variant that is not `v` and a number.
    fn variant_level(&self) -> Option<u32> {
        match (&self.variant, &*self.architecture) {
            (Some(v), _) if !v.is_empty() => {
                let (major, minor) = v.strip_prefix('v')?.split_once('.').unwrap_or((&v[1..], "0"));
                Some(major.parse::<u32>().ok()?.checked_mul(100)? + minor.parse::<u32>().ok()?)
            }
            (_, "arm") => Some(700),
            (_, "arm64") => Some(800),
            _ => Some(100),
        }
    }
}

/// Go's name of an architecture, and the variant that an alias implies.
fn go_arch(name: &str) -> (String, Option<String>) {
    let (arch, variant) = match name {
        "x86_64" | "x86-64" => ("amd64", None),
        "aarch64" => ("arm64", None),
        "armhf" => ("arm", Some("v7")),
        "armel" => ("arm", Some("v6")),
        "i386" | "i486" | "i586" | "i686" | "x86" => ("386", None),
        "powerpc64" => (if cfg!(target_endian = "little") { "ppc64le" } else { "ppc64" }, None),
        "loongarch64" => ("loong64", None),
        other => (other, None),
    };
    (arch.to_owned(), variant.map(str::to_owned))
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

impl FromStr for Platform {
    type Err = Error;
    fn from_str(text: &str) -> Result<Platform> {
        Platform::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Platform {
        Platform::parse(text).unwrap()
    }

    #[test]
    fn parses_and_prints() {
        assert_eq!(p("linux/amd64").to_string(), "linux/amd64");
        assert_eq!(p("x86_64").to_string(), "linux/amd64");
        assert_eq!(p("linux/armhf").to_string(), "linux/arm/v7");
        assert_eq!(p("Linux/ARM/V6").to_string(), "linux/arm/v6");
        for bad in ["", "/", "linux", "linux/", "a/b/c/d", "linux/amd64/", "linux/am d64"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranks_variants() {
        assert!(p("linux/amd64").rank(&p("linux/arm64")).is_none());
        assert!(p("linux/arm64").rank(&p("linux/arm64/v8")).is_some());
        assert!(p("linux/arm/v6").rank(&p("linux/arm/v7")).is_none());
        assert!(
            p("linux/arm/v7").rank(&p("linux/arm/v7")) > p("linux/arm/v7").rank(&p("linux/arm/v6"))
        );
        assert!(p("linux/amd64").rank(&p("linux/amd64/v3")).is_none());
        assert!(p("linux/amd64/v3").rank(&p("linux/amd64")).is_some());
    }
}
