//! Compressing in parallel, to the same bytes on any machine.
//!
//! The stream is cut into blocks of a fixed size, and each is compressed by itself, so neither the
//! number of processors nor the sizes of the writes show in the result. For gzip the blocks make up
//! one member, as pigz has it: each starts with the 32 KiB before it as dictionary, and ends on a
//! byte. For zstd each is a frame.

use std::io::{self, Write};

use flate2::{Compress, Crc, FlushCompress};

use super::Compression;
use crate::parallel;
use crate::{Error, Result};

/// Bytes of a block.
const GZIP_BLOCK: usize = 1 << 20;
const ZSTD_BLOCK: usize = 4 << 20;
/// Bytes that are compressed at a time, a multiple of both.
const BATCH: usize = 8 << 20;
/// How far deflate looks back.
const WINDOW: usize = 32 << 10;

/// No name, no time, no operating system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty last block of deflate's fixed codes.
const DEFLATE_END: [u8; 2] = [3, 0];

/// Compresses what is written to it.
pub struct Encoder<W> {
    out: W,
    how: Compression,
    pending: Vec<u8>,
    /// The last bytes of the batch before.
    window: Vec<u8>,
    crc: Crc,
    started: bool,
    threads: usize,
}

impl<W: Write> Encoder<W> {
    /// Compresses so; [`Compression::None`] passes everything on.
    pub fn new(how: Compression, out: W) -> Encoder<W> {
        let (pending, window) = (Vec::new(), Vec::new());
        let threads = parallel::threads();
        Encoder { out, how, pending, window, crc: Crc::new(), started: false, threads }
    }

    /// Ends the stream; without, it is cut off.
    pub fn finish(mut self) -> Result<W> {
        self.batch()?;
        if self.how == Compression::Gzip {
            self.out.write_all(&DEFLATE_END)?;
            self.out.write_all(&self.crc.sum().to_le_bytes())?;
            self.out.write_all(&self.crc.amount().to_le_bytes())?;
        }
        Ok(self.out)
    }

    /// Compresses and writes what is pending: whole blocks, but for the last of the stream.
    fn batch(&mut self) -> io::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        match self.how {
            Compression::None => self.out.write_all(&pending)?,
            Compression::Gzip => self.gzip(&pending)?,
            Compression::Zstd => self.zstd(&pending)?,
        }
        self.started = true;
        self.pending = pending;
        self.pending.clear();
        Ok(())
    }

    fn gzip(&mut self, pending: &[u8]) -> io::Result<()> {
        if !self.started {
            self.out.write_all(&GZIP_HEADER)?;
        }
        let window = std::mem::take(&mut self.window);
        let blocks: Vec<&[u8]> = pending.chunks(GZIP_BLOCK).collect();
        let blocks = parallel::try_map(self.threads, &blocks, |i, block| match i {
            0 => deflate(&window, block),
            i => deflate(&pending[i * GZIP_BLOCK - WINDOW..i * GZIP_BLOCK], block),
        })?;
        for (block, crc) in blocks {
            self.out.write_all(&block)?;
            self.crc.combine(&crc);
        }
        self.window = pending[pending.len().saturating_sub(WINDOW)..].to_vec();
        Ok(())
    }

    fn zstd(&mut self, pending: &[u8]) -> io::Result<()> {
        // An empty stream is one empty frame.
        let none: &[&[u8]] = if self.started || !pending.is_empty() { &[] } else { &[b""] };
        let blocks: Vec<&[u8]> = pending.chunks(ZSTD_BLOCK).chain(none.iter().copied()).collect();
        let blocks = parallel::try_map(self.threads, &blocks, |_, block| {
            Ok(zstd::bulk::compress(block, zstd::DEFAULT_COMPRESSION_LEVEL)?)
        })?;
        blocks.iter().try_for_each(|block| self.out.write_all(block))
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(BATCH - self.pending.len());
        self.pending.extend_from_slice(&buf[..n]);
        if self.pending.len() == BATCH {
            self.batch()?;
        }
        Ok(n)
    }

    /// Only whole batches are passed on.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One block as deflate, ending on a byte, with its checksum.
fn deflate(window: &[u8], block: &[u8]) -> Result<(Vec<u8>, Crc)> {
    let bad = |e: &dyn std::fmt::Display| Error::new(format!("compress: {e}"));
    let mut state = Compress::new(flate2::Compression::default(), false);
    if !window.is_empty() {
        state.set_dictionary(window).map_err(|e| bad(&e))?;
    }
    let mut out = Vec::with_capacity(block.len() / 2 + 1024);
    loop {
        let read = state.total_in() as usize;
        let room = out.capacity() - out.len();
        let before = out.len();
        state.compress_vec(&block[read..], &mut out, FlushCompress::Sync).map_err(|e| bad(&e))?;
        // Room that is left says that everything is out.
        if state.total_in() as usize == block.len() && out.len() - before < room {
            break;
        }
        out.reserve(out.capacity().max(4096));
    }
    let mut crc = Crc::new();
    crc.update(block);
    Ok((out, crc))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::compression::auto_decoder;

    /// Bytes that compress, but not to nothing.
    fn text(len: usize) -> Vec<u8> {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            b'a' + (state >> 60) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    fn encode(how: Compression, bytes: &[u8], piece: usize) -> Vec<u8> {
        encode_with(parallel::threads(), how, bytes, piece)
    }

    fn encode_with(threads: usize, how: Compression, bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut encoder = Encoder { threads, ..Encoder::new(how, Vec::new()) };
        bytes.chunks(piece).for_each(|c| encoder.write_all(c).unwrap());
        encoder.finish().unwrap()
    }

    const ALL: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

    #[test]
    fn comes_back_whatever_its_length() {
        for len in [0, 1, WINDOW, GZIP_BLOCK - 1, GZIP_BLOCK, GZIP_BLOCK + 1, BATCH, BATCH + 5] {
            let bytes = text(len);
            for how in ALL {
                let encoded = encode(how, &bytes, 1 << 16);
                let mut decoded = Vec::new();
                auto_decoder(&encoded[..]).unwrap().read_to_end(&mut decoded).unwrap();
                assert!(decoded == bytes, "{how:?} {len}");
                assert!(len < 100 || how == Compression::None || encoded.len() < len * 2 / 3 + 50);
            }
        }
    }

    #[test]
    fn neither_threads_nor_pieces_show() {
        let bytes = text(BATCH + 3 * GZIP_BLOCK + 17);
        for how in ALL {
            let one = encode_with(1, how, &bytes, 1000);
            assert!(one == encode_with(5, how, &bytes, BATCH * 2), "{how:?}");
        }
    }

    #[test]
    fn gzip_is_one_member_that_gzip_reads() {
        let bytes = text(3 * GZIP_BLOCK + 5);
        let encoded = encode(Compression::Gzip, &bytes, 1 << 20);
        let mut single = flate2::read::GzDecoder::new(&encoded[..]);
        let mut decoded = Vec::new();
        single.read_to_end(&mut decoded).unwrap();
        assert!(decoded == bytes);
        let mut gzip = Command::new("gzip")
            .arg("-t")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("gzip is on every Debian");
        gzip.stdin.take().unwrap().write_all(&encoded).unwrap();
        assert!(gzip.wait().unwrap().success());
    }
}
