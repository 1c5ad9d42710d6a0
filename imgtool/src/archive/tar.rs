//! The little of tar that an archive of images needs: files and links, streamed.

use std::io::{self, Read, Write};

use tar_core::parse::{Limits, ParseEvent, Parser};
use tar_core::{EntryBuilder, EntryType, HEADER_SIZE};

use crate::{Context, Error, Result};

/// Reads the entries of a tar in order.
pub(super) struct TarReader<R> {
    inner: R,
    parser: Parser,
    /// Header bytes that were read ahead.
    ahead: Vec<u8>,
    /// Content bytes of the current entry not yet read.
    content: u64,
    /// Bytes between the content and the next header.
    padding: u64,
    /// Whether there has been an entry.
    begun: bool,
}

/// What an entry is, as far as archives of images go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file; its content is to be read next.
    File,
    /// A link to another path of the archive, as it would be resolved.
    Link(String),
    /// Directories, which nobody needs.
    Other,
}

/// An entry of a tar.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) kind: Kind,
    pub(super) size: u64,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(inner: R) -> TarReader<R> {
        let limits = Limits { max_path_len: Some(4096), ..Limits::default() };
        let parser = Parser::new(limits);
        TarReader { inner, parser, ahead: Vec::new(), content: 0, padding: 0, begun: false }
    }

    /// Skips what is left of the current entry and reads the next header; `None` at the end.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip_rest()?;
        loop {
            let need =
                match self.parser.parse(&self.ahead).map_err(|e| Error::new(e.to_string()))? {
                    ParseEvent::NeedData { min_bytes } => min_bytes,
                    ParseEvent::End { .. } => return Ok(None),
                    ParseEvent::GlobalExtensions { consumed, .. } => {
                        self.ahead.drain(..consumed);
                        continue;
                    }
                    ParseEvent::SparseEntry { entry, .. } => {
                        return Err(Error::new(format!(
                            "{}: sparse files are not supported",
                            entry.path_lossy()
                        )));
                    }
                    ParseEvent::Entry { consumed, entry } => {
                        let found = to_entry(&entry)?;
                        self.content = entry.size;
                        self.padding = entry.size.wrapping_neg() % HEADER_SIZE as u64;
                        self.ahead.drain(..consumed);
                        return Ok(Some(found));
                    }
                };
            if !self.read_ahead(need)? {
                return Ok(None);
            }
        }
    }

    /// Reads until `need` header bytes are there; `false` at a clean end of the stream.
    fn read_ahead(&mut self, need: usize) -> Result<bool> {
        let missing = need.saturating_sub(self.ahead.len()) as u64;
        self.inner.by_ref().take(missing).read_to_end(&mut self.ahead)?;
        match self.ahead.len() {
            n if n >= need => Ok(true),
            // Some writers leave out the two zero blocks, or one of them.
            _ if self.ahead.iter().all(|b| *b == 0) => Ok(false),
            _ if self.begun => Err(truncated()),
            _ => Err(Error::new("not a tar archive")),
        }
    }

    fn skip_rest(&mut self) -> Result<()> {
        io::copy(self, &mut io::sink()).map_err(Error::from)?;
        let padding = std::mem::take(&mut self.padding);
        let skipped = self.read_raw_exact(padding)?;
        if skipped == padding { Ok(()) } else { Err(truncated()) }
    }

    fn read_raw_exact(&mut self, n: u64) -> Result<u64> {
        let from_ahead = (self.ahead.len() as u64).min(n);
        self.ahead.drain(..from_ahead as usize);
        let rest = io::copy(&mut self.inner.by_ref().take(n - from_ahead), &mut io::sink())?;
        Ok(from_ahead + rest)
    }

    /// Reads on to the end of the stream, so that checksums after the tar are verified and a
    /// writer at the other end of a pipe can finish.
    pub(super) fn finish(mut self) -> Result<()> {
        io::copy(&mut self.inner, &mut io::sink())?;
        Ok(())
    }
}

fn truncated() -> Error {
    Error::new("truncated: the tar ends in the middle of an entry")
}

fn to_entry(entry: &tar_core::parse::ParsedEntry<'_>) -> Result<Entry> {
    let path = normalise("", &entry.path_lossy());
    let link = entry.link_target_lossy();
    let kind = match entry.entry_type {
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Symlink => {
            let parent = path.rsplit_once('/').map_or("", |(dir, _)| dir);
            Kind::Link(normalise(parent, &link.unwrap_or_default()))
        }
        EntryType::Link => Kind::Link(normalise("", &link.unwrap_or_default())),
        _ => Kind::Other,
    };
    Ok(Entry { path, kind, size: entry.size })
}

/// A path as a key: relative to the root of the archive, without `.` and `..`.
pub(super) fn normalise(base: &str, path: &str) -> String {
    let base = if path.starts_with('/') { "" } else { base };
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Reads the content of the current entry.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.content).unwrap_or(usize::MAX).min(buf.len());
        if want == 0 {
            return Ok(0);
        }
        let n = match self.ahead.len() {
            0 => self.inner.read(&mut buf[..want])?,
            have => {
                let n = have.min(want);
                buf[..n].copy_from_slice(&self.ahead[..n]);
                self.ahead.drain(..n);
                n
            }
        };
        if n == 0 {
            return Err(truncated().into());
        }
        self.content -= n as u64;
        Ok(n)
    }
}

/// Writes a tar whose bytes depend on names and contents alone.
pub(super) struct TarWriter<W> {
    inner: W,
}

impl<W: Write> TarWriter<W> {
    pub(super) fn new(inner: W) -> TarWriter<W> {
        TarWriter { inner }
    }

    pub(super) fn dir(&mut self, path: &str) -> Result<()> {
        self.header(path, EntryType::Directory, 0o755, 0)
    }

    pub(super) fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.file(path, bytes.len() as u64, bytes)
    }

    /// Writes a file of exactly `size` bytes.
    pub(super) fn file(&mut self, path: &str, size: u64, mut content: impl Read) -> Result<()> {
        self.header(path, EntryType::Regular, 0o644, size)?;
        let written = io::copy(&mut content, &mut self.inner).map_err(Error::from)?;
        if written != size {
            return Err(Error::new(format!("{path}: {written} bytes instead of {size}")));
        }
        let padding = size.wrapping_neg() % HEADER_SIZE as u64;
        self.write(&[0; HEADER_SIZE][..padding as usize])
    }

    /// Writes the end of the archive and gives the stream back.
    pub(super) fn finish(mut self) -> Result<W> {
        self.write(&[0; 2 * HEADER_SIZE])?;
        Ok(self.inner)
    }

    fn header(&mut self, path: &str, kind: EntryType, mode: u32, size: u64) -> Result<()> {
        let header = encode(path, kind, mode, size).wrap(|| format!("write header of {path}"))?;
        self.write(&header)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.inner.write_all(bytes)?)
    }
}

fn encode(path: &str, kind: EntryType, mode: u32, size: u64) -> Result<Vec<u8>> {
    let encode = || -> tar_core::Result<Vec<u8>> {
        let mut entry = EntryBuilder::new_ustar();
        entry.path(path).entry_type(kind);
        entry.mode(mode)?.uid(0)?.gid(0)?.size(size)?.mtime(0)?;
        Ok(entry.finish_bytes())
    };
    encode().map_err(|e| Error::new(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut tar = TarWriter::new(Vec::new());
        let long = format!("{}/x", "d".repeat(300));
        tar.dir("a/").unwrap();
        tar.bytes("a/b", b"hello").unwrap();
        tar.bytes(&long, &[1; 1024]).unwrap();
        let bytes = tar.finish().unwrap();
        let mut reader = TarReader::new(&bytes[..]);
        assert_eq!(reader.next_entry().unwrap().unwrap().kind, Kind::Other);
        let b = reader.next_entry().unwrap().unwrap();
        assert_eq!((&*b.path, b.size), ("a/b", 5));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert_eq!(reader.next_entry().unwrap().unwrap().path, long);
        assert!(reader.next_entry().unwrap().is_none());
    }

    #[test]
    fn any_truncation_inside_an_entry_is_found() {
        let mut tar = TarWriter::new(Vec::new());
        tar.bytes("a", &[7; 700]).unwrap();
        let bytes = tar.finish().unwrap();
        for len in [1, 511, 513, 1211, 1212, 1500] {
            let mut reader = TarReader::new(&bytes[..len]);
            let result = reader.next_entry().and_then(|_| reader.next_entry());
            assert!(result.is_err(), "{len}");
        }
    }

    #[test]
    fn paths_stay_inside() {
        assert_eq!(normalise("a/b", "../c/layer.tar"), "a/c/layer.tar");
        assert_eq!(normalise("", "./x//y"), "x/y");
        assert_eq!(normalise("a", "../../../etc"), "etc");
        assert_eq!(normalise("a", "/x"), "x");
    }
}
