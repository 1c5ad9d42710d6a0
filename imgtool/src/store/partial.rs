//! Blobs that arrive over several processes: `davit/tmp/part-ALGORITHM-HEX`, locked by the one
//! that is writing. What a killed one left is a beginning of the blob, or, after a power cut,
//! anything; its digest decides in the end. Until somebody continues, `gc` may remove it.

use std::io::{Read, Seek, SeekFrom};

use super::blobs::BlobWriter;
use super::{Store, files};
use crate::descriptor::Descriptor;
use crate::digest::{Digest, Hasher};
use crate::{Context, Result};

/// What a partial blob is called in `davit/tmp`.
fn name(digest: &Digest) -> String {
    format!("part-{}-{}", digest.algorithm().name(), digest.hex())
}

/// The blob that a file of this name in `davit/tmp` is a part of, if it is called like one.
pub(crate) fn blob_of(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("part-")?.split_once('-')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

impl Store {
    /// Continues a blob where another process stopped, or begins it. While one is writing, others
    /// begin their own.
    pub fn resume_blob(&self, blob: &Descriptor) -> Result<BlobWriter> {
        let algorithm = blob.digest.algorithm();
        let fresh = self.add_blob_as(algorithm)?;
        let tmp = self.davit().join("tmp");
        let Some(temp) = files::Temp::take_up(&tmp, &name(&blob.digest))? else {
            return Ok(fresh);
        };
        let mut writer = fresh.in_place_of(temp);
        writer.hash_again(blob.size)?;
        Ok(writer)
    }
}

impl BlobWriter {
    /// Counts and hashes what is there; more than the blob can have is worth nothing.
    fn hash_again(&mut self, size: u64) -> Result<()> {
        let context = |path: &std::path::Path| format!("read {}", path.display());
        let path = self.temp.path().to_owned();
        let len = self.temp.file.metadata().wrap(|| context(&path))?.len();
        if len > size {
            return self.restart();
        }
        let mut buf = vec![0; 1 << 16];
        loop {
            match self.temp.file.read(&mut buf).wrap(|| context(&path))? {
                0 => return Ok(()),
                n => {
                    self.hasher.update(&buf[..n]);
                    self.size += n as u64;
                }
            }
        }
    }

    /// Begins again.
    pub fn restart(&mut self) -> Result<()> {
        let path = self.temp.path().to_owned();
        let context = || format!("truncate {}", path.display());
        self.temp.file.set_len(0).wrap(context)?;
        self.temp.file.seek(SeekFrom::Start(0)).wrap(context)?;
        self.hasher = Hasher::new(self.algorithm);
        self.size = 0;
        Ok(())
    }

    /// Leaves what there is to the next who wants the blob.
    pub fn leave(self) {
        self.temp.leave();
    }
}
