//! Blobs: written under a digest that we computed, read against a descriptor.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use super::{Store, files};
use crate::descriptor::Descriptor;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::image::MAX_DOCUMENT;
use crate::{Context, Error, Result};

impl Store {
    /// Where a blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// Whether a blob of this digest and size is there. Its content is verified when it is read.
    pub fn has_blob(&self, descriptor: &Descriptor) -> bool {
        std::fs::metadata(self.blob_path(&descriptor.digest))
            .is_ok_and(|m| m.is_file() && m.len() == descriptor.size)
    }

    /// Reads a manifest, index or configuration: at most [`MAX_DOCUMENT`] bytes, verified.
    pub fn read_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        if descriptor.size > MAX_DOCUMENT {
            return Err(Error::new(format!(
                "blob {}: {} bytes, more than the {MAX_DOCUMENT} that a document may have",
                descriptor.digest, descriptor.size
            )));
        }
        let mut bytes = Vec::with_capacity(descriptor.size as usize);
        self.open_blob(descriptor)?.read_to_end(&mut bytes).map_err(Error::from)?;
        Ok(bytes)
    }

    /// Opens a blob for reading. Size and digest are verified on the way; the read that would
    /// return end-of-file fails instead if either is wrong.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        let path = self.blob_path(&descriptor.digest);
        let context = || format!("open blob {}", path.display());
        let file = File::open(&path).wrap(context)?;
        let len = file.metadata().wrap(context)?.len();
        if len != descriptor.size {
            return Err(Error::new(format!(
                "blob {}: has {len} bytes, but its descriptor says {}",
                path.display(),
                descriptor.size
            )));
        }
        Ok(VerifyingReader::new(file, descriptor))
    }

    /// Starts a new blob, to be named by its SHA-256 digest.
    pub fn add_blob(&self) -> Result<BlobWriter> {
        self.add_blob_as(Algorithm::Sha256)
    }

    /// Starts a new blob, to be named by a digest of this algorithm.
    pub fn add_blob_as(&self, algorithm: Algorithm) -> Result<BlobWriter> {
        self.init()?;
        let blobs = self.root.join("blobs").join(algorithm.name());
        files::make_dir(&blobs)?;
        let temp = files::Temp::create(&self.davit().join("tmp"))?;
        Ok(BlobWriter { temp, blobs, algorithm, hasher: Hasher::new(algorithm), size: 0 })
    }

    /// A file for what must be read again soon. It has no name, and is gone when it is closed.
    pub fn spool(&self) -> Result<File> {
        self.init()?;
        let temp = files::Temp::create(&self.davit().join("tmp"))?;
        temp.file.try_clone().wrap(|| format!("open {}", temp.path().display()))
    }

    /// Stores bytes as a blob. Idempotent.
    pub fn put_bytes(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let descriptor = Descriptor::of(media_type, bytes);
        if self.has_intact(&descriptor) {
            self.init()?;
        } else {
            let mut writer = self.add_blob()?;
            writer.write_all(bytes).map_err(Error::from)?;
            writer.commit()?;
        }
        Ok(descriptor)
    }

    fn has_intact(&self, descriptor: &Descriptor) -> bool {
        self.has_blob(descriptor) && self.read_blob(descriptor).is_ok()
    }

    /// Stores what `reader` yields, which must be what `descriptor` says. Idempotent: success
    /// means stored, not stored by you. On failure nothing is left.
    pub fn put_reader(&self, descriptor: &Descriptor, reader: impl Read) -> Result<()> {
        let mut writer = self.add_blob_as(descriptor.digest.algorithm())?;
        let mut reader = VerifyingReader::new(reader, descriptor);
        io::copy(&mut reader, &mut writer).map_err(Error::from)?;
        writer.commit().map(drop)
    }
}

/// A verified blob of a store.
pub type BlobReader = VerifyingReader<File>;

/// Reads exactly what a descriptor promises, or fails.
#[derive(Debug)]
pub struct VerifyingReader<R> {
    inner: R,
    digest: Digest,
    size: u64,
    seen: u64,
    hasher: Option<Hasher>,
}

impl<R: Read> VerifyingReader<R> {
    /// Reads from `inner`, never more than one byte beyond the size that `descriptor` gives.
    pub fn new(inner: R, descriptor: &Descriptor) -> VerifyingReader<R> {
        VerifyingReader {
            inner,
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            seen: 0,
            hasher: Some(Hasher::new(descriptor.digest.algorithm())),
        }
    }

    fn fail(&self, why: String) -> io::Error {
        Error::new(format!("blob {}: {why}", self.digest)).into()
    }

    fn check_end(&mut self) -> io::Result<usize> {
        if self.seen != self.size {
            return Err(self.fail(format!(
                "truncated: {} bytes, but its descriptor says {}",
                self.seen, self.size
            )));
        }
        match self.hasher.take().map(Hasher::finish) {
            Some(found) if found != self.digest => {
                Err(self.fail(format!("its content has another digest, {found}")))
            }
            _ => Ok(0),
        }
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let n = self.inner.read(buf)?;
        if n == 0 {
            return self.check_end();
        }
        self.seen += n as u64;
        if self.seen > self.size {
            return Err(self.fail(format!("longer than the {} bytes of its descriptor", self.size)));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..n]);
        }
        Ok(n)
    }
}

/// A blob being written. Dropped without [`BlobWriter::commit`], it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    pub(super) temp: files::Temp,
    blobs: PathBuf,
    pub(super) algorithm: Algorithm,
    pub(super) hasher: Hasher,
    pub(super) size: u64,
}

impl BlobWriter {
    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The same with another file, of which nothing is known yet.
    pub(super) fn in_place_of(self, temp: files::Temp) -> BlobWriter {
        BlobWriter { temp, ..self }
    }

    /// Makes the blob durable under its digest. Idempotent: an existing blob is replaced by the
    /// same bytes, which also repairs a damaged one.
    pub fn commit(self) -> Result<(Digest, u64)> {
        self.commit_if(|_| Ok(()))
    }

    /// As [`BlobWriter::commit`], but only if the digest is this one.
    pub fn commit_as(self, expected: &Digest) -> Result<(Digest, u64)> {
        self.commit_if(|found| match found == expected {
            true => Ok(()),
            false => {
                Err(Error::new(format!("blob {expected}: its content has another digest, {found}")))
            }
        })
    }

    fn commit_if(self, check: impl FnOnce(&Digest) -> Result<()>) -> Result<(Digest, u64)> {
        let digest = self.hasher.finish();
        check(&digest)?;
        self.temp.persist(&self.blobs.join(digest.hex()))?;
        Ok((digest, self.size))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n =
            self.temp.file.write(buf).map_err(|e| {
                Error::from(e).wrap(format!("write {}", self.temp.path().display()))
            })?;
        self.hasher.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
