//! Gzip and zstd, recognised by their first bytes.

mod encode;

use std::io::{BufRead, Read};

use crate::descriptor::media_type;
use crate::{Error, Result};

pub use encode::Encoder;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, possibly of several members.
    Gzip,
    /// zstd, possibly of several frames.
    Zstd,
}

impl Compression {
    /// Recognises a stream by its first bytes; four are enough.
    pub fn detect(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame, such as estargz and zstd:chunked begin with.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// What a layer's media type promises; `None` for a type that is no layer we can read.
    pub fn of_layer(t: &str) -> Option<Compression> {
        match t {
            media_type::OCI_LAYER | media_type::DOCKER_LAYER => Some(Compression::None),
            media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Some(Compression::Gzip),
            media_type::OCI_LAYER_ZSTD => Some(Compression::Zstd),
            "application/vnd.oci.image.layer.nondistributable.v1.tar" => Some(Compression::None),
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {
                Some(Compression::Gzip)
            }
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd" => {
                Some(Compression::Zstd)
            }
            _ => None,
        }
    }

    /// The OCI media type of a layer compressed so.
    pub fn layer_type(self) -> &'static str {
        match self {
            Compression::None => media_type::OCI_LAYER,
            Compression::Gzip => media_type::OCI_LAYER_GZIP,
            Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        }
    }

    /// Decompresses a stream.
    pub fn decoder<'a>(
        self,
        reader: impl BufRead + Send + 'a,
    ) -> Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Compression::None => Box::new(reader),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            Compression::Zstd => Box::new(
                zstd::stream::read::Decoder::with_buffer(reader)
                    .map_err(|e| Error::from(e).wrap("start zstd"))?,
            ),
        })
    }
}

/// Decompresses a stream of whatever kind it turns out to be.
pub fn auto_decoder<'a>(mut reader: impl BufRead + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    // One fill may return less than four bytes of a slow pipe; a tar header never starts like
    // the two that gzip needs, and zstd frames come from files or in large writes.
    let start = reader.fill_buf()?;
    Compression::detect(start).decoder(reader)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn decodes_what_it_detects() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"hello").unwrap();
        let zstd = zstd::encode_all(&b"hello"[..], 1).unwrap();
        for (bytes, kind) in [
            (b"hello".to_vec(), Compression::None),
            (gzip.finish().unwrap(), Compression::Gzip),
            (zstd, Compression::Zstd),
        ] {
            assert_eq!(Compression::detect(&bytes), kind);
            let mut out = String::new();
            auto_decoder(&bytes[..]).unwrap().read_to_string(&mut out).unwrap();
            assert_eq!(out, "hello");
        }
    }

    #[test]
    fn a_truncated_stream_is_an_error() {
        let zstd = zstd::encode_all(&[7u8; 100_000][..], 1).unwrap();
        let cut = &zstd[..zstd.len() - 4];
        assert!(auto_decoder(cut).unwrap().read_to_end(&mut Vec::new()).is_err());
    }
}
