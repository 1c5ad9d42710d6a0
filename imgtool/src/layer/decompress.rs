//! From a compressed stream to chunks of tar, on threads of their own.
//!
//! Inflating and hashing each cost about as much CPU as writing the files, so the three run side by
//! side: this thread's caller writes, one thread inflates, one hashes. Chunks are shared, not copied.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Context, Error, Result};

use super::tar::Chunks;

/// Bytes in a chunk, and chunks in flight: enough to ride out a slow stage, small for the cache.
const CHUNK: usize = 256 << 10;
const IN_FLIGHT: usize = 16;

/// What a stream may grow to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of uncompressed archive.
    pub max_bytes: u64,
    /// Most uncompressed bytes for one compressed byte, once past `ratio_from`.
    pub max_ratio: u64,
    /// Uncompressed bytes below which no ratio is too good.
    pub ratio_from: u64,
    /// Most members.
    pub max_entries: u64,
}

impl Default for Limits {
    /// 512 GiB, 16 Mi members, and ratios beyond 2000 (gzip ends near 1030) above 4 GiB.
    fn default() -> Self {
        Limits { max_bytes: 512 << 30, max_ratio: 2000, ratio_from: 4 << 30, max_entries: 16 << 20 }
    }
}

/// The uncompressed stream as a whole.
pub(crate) struct Summary {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// Runs `consume` on the uncompressed chunks of `reader`, and hashes them on the way.
///
/// `consume` must read to the end, or the digest is of a part; it may stop early with an error.
pub(crate) fn pipeline<R: Read + Send, T>(
    reader: R,
    limits: &Limits,
    algorithm: Algorithm,
    consume: impl FnOnce(Chunks<'_>) -> Result<T>,
) -> Result<(T, Summary)> {
    let (to_writer, chunks) = sync_channel::<Result<Arc<Vec<u8>>>>(IN_FLIGHT);
    let (to_hasher, hashed) = sync_channel::<Arc<Vec<u8>>>(IN_FLIGHT);
    thread::scope(|scope| {
        scope.spawn(move || {
            if let Err(e) = inflate(reader, limits, &to_writer, &to_hasher) {
                // The receiver is gone only if it failed first, and then that error counts.
                let _ = to_writer.send(Err(e));
            }
        });
        let hash = scope.spawn(move || hash(algorithm, &hashed));
        let result = {
            let next = move || chunks.recv().ok().transpose();
            consume(Box::new(next))
        };
        let summary = hash.join().map_err(|_| Error::new("the hashing thread panicked"))?;
        Ok((result?, summary))
    })
}

fn hash(algorithm: Algorithm, chunks: &Receiver<Arc<Vec<u8>>>) -> Summary {
    let mut hasher = Hasher::new(algorithm);
    let mut size = 0;
    while let Ok(chunk) = chunks.recv() {
        hasher.update(&chunk);
        size += chunk.len() as u64;
    }
    Summary { digest: hasher.finish(), size }
}

fn inflate<R: Read>(
    reader: R,
    limits: &Limits,
    to_writer: &SyncSender<Result<Arc<Vec<u8>>>>,
    to_hasher: &SyncSender<Arc<Vec<u8>>>,
) -> Result<()> {
    let counted = Counted { inner: reader, bytes: std::rc::Rc::default() };
    let read = counted.bytes.clone();
    let mut plain = decoder(counted)?;
    let mut size = 0;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        plain.by_ref().take(CHUNK as u64).read_to_end(&mut chunk).wrap(|| "read the layer")?;
        if chunk.is_empty() {
            return Ok(());
        }
        size += chunk.len() as u64;
        check(size, read.get(), limits)?;
        let chunk = Arc::new(chunk);
        if to_hasher.send(chunk.clone()).is_err() || to_writer.send(Ok(chunk)).is_err() {
            return Ok(());
        }
    }
}

fn check(size: u64, read: u64, limits: &Limits) -> Result<()> {
    if size > limits.max_bytes {
        return Err(Error::new(format!("the layer is larger than {} bytes", limits.max_bytes)));
    }
    if size > limits.ratio_from && size / read.max(1) > limits.max_ratio {
        return Err(Error::new(format!(
            "the layer grows more than {} times on decompression: a bomb?",
            limits.max_ratio
        )));
    }
    Ok(())
}

struct Counted<R> {
    inner: R,
    bytes: std::rc::Rc<std::cell::Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.bytes.set(self.bytes.get() + n as u64);
        Ok(n)
    }
}

/// Recognises gzip (of any number of members), zstd (of any number of frames) and plain tar by
/// their first bytes, whatever the media type claims.
pub fn decoder<'a, R: Read + 'a>(reader: R) -> Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(CHUNK, reader);
    let head = reader.fill_buf().wrap(|| "read the layer")?;
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(reader).wrap(|| "start zstd")?)
        }
        [b'B', b'Z', b'h', ..] => return Err(unknown("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(unknown("xz")),
        _ => Box::new(reader),
    })
}

fn unknown(what: &str) -> Error {
    Error::new(format!("the layer is compressed by {what}; gzip, zstd and plain tar are known"))
}
