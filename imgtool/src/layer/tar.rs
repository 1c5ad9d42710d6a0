//! Reads tar archives: v7, ustar, PAX, GNU long names, star, and the four sparse formats.
//!
//! A pull parser over chunks of memory: [`Archive::next`] gives one [`Entry`] with every extension
//! already applied, [`Archive::data`] borrows its contents piece by piece, without copying.

use std::sync::Arc;

use crate::error::{Error, Result};

use super::header::{self, BLOCK, Header, sparse_pairs};
use super::pax::{self, MAX_SPARSE, Pax};

/// Largest extended header or long name, in bytes.
const MAX_META: u64 = 1 << 20;
/// Longest path or link target, in bytes (PATH_MAX).
const MAX_PATH: usize = 4096;

/// A moment, as `timespec`: `nanos` counts forward from `seconds`, which may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds, below 10⁹.
    pub nanos: u32,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Another name of the file at this path within the archive's root.
    HardLink(Vec<u8>),
    /// Symbolic link with this target.
    Symlink(Vec<u8>),
    /// Character device, major and minor.
    Char(u32, u32),
    /// Block device, major and minor.
    Block(u32, u32),
    /// Directory.
    Dir,
    /// Named pipe.
    Fifo,
}

/// Full size of a sparse file, and where each stored piece goes (offset, length).
pub type Sparse = (u64, Vec<(u64, u64)>);

/// One member, every extension applied.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name as written: it may be absolute, hold `..`, or end in a slash.
    pub path: Vec<u8>,
    /// Type, with what belongs to it.
    pub kind: Kind,
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes, full names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the content goes, for a sparse file.
    pub sparse: Option<Sparse>,
}

/// Where chunks of the archive come from; `None` is the end.
pub(crate) type Chunks<'a> = Box<dyn FnMut() -> Result<Option<Arc<Vec<u8>>>> + 'a>;

/// An archive being read.
pub(crate) struct Archive<'a> {
    next: Chunks<'a>,
    chunk: Arc<Vec<u8>>,
    at: usize,
    /// Content of the current entry that was not yet asked for, and its padding.
    left: u64,
    padding: u64,
    /// Bytes of the archive that were given out or passed over.
    position: u64,
}

/// Extensions collected in front of an entry.
#[derive(Default)]
struct Pending {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<'a> Archive<'a> {
    pub(crate) fn new(next: Chunks<'a>) -> Self {
        Archive { next, chunk: Arc::default(), at: 0, left: 0, padding: 0, position: 0 }
    }

    /// The next member, or `None` after the end marker (or where the stream ends between members).
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        self.skip()?;
        let mut pending = Pending::default();
        loop {
            let Some(block) = self.header()? else {
                return match pending.is_empty() {
                    true => Ok(None),
                    false => Err(Error::new("tar archive ends after an extended header")),
                };
            };
            let header = Header::parse(&block)?;
            match header.flag() {
                b'x' => pending.add_pax(self.metadata(&header)?)?,
                b'g' => pax::check_global(&self.metadata(&header)?)?,
                b'L' => once(&mut pending.long_name, cut(self.metadata(&header)?))?,
                b'K' => once(&mut pending.long_link, cut(self.metadata(&header)?))?,
                b'V' => (), // GNU volume label: a name for the tape.
                _ => return self.entry(&header, pending).map(Some),
            }
        }
    }

    /// The next piece of the current entry's content, at most `max` bytes; empty at its end.
    pub(crate) fn data(&mut self, max: u64) -> Result<&[u8]> {
        let want = self.left.min(max);
        if want == 0 {
            return Ok(&[]);
        }
        if self.at == self.chunk.len() && !self.refill()? {
            return Err(truncated());
        }
        let take = usize::try_from(want).unwrap_or(usize::MAX).min(self.chunk.len() - self.at);
        let from = self.at;
        self.at += take;
        self.left -= take as u64;
        self.position += take as u64;
        Ok(&self.chunk[from..from + take])
    }

    /// Bytes of the current entry's content that are not read yet.
    pub(crate) fn remaining(&self) -> u64 {
        self.left
    }

    /// Where in the archive what [`Archive::data`] gives next begins.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Reads to the end of the stream; true if something other than zeros follows the archive.
    pub(crate) fn finish(&mut self) -> Result<bool> {
        let mut trailing = false;
        loop {
            trailing |= self.chunk[self.at..].iter().any(|&b| b != 0);
            if !self.refill()? {
                return Ok(trailing);
            }
        }
    }

    fn skip(&mut self) -> Result<()> {
        while !self.data(u64::MAX)?.is_empty() {}
        self.left = std::mem::take(&mut self.padding);
        while !self.data(u64::MAX)?.is_empty() {}
        Ok(())
    }

    /// The next header block; `None` at two blocks of zeros or at the end of the stream.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        // One stray block of zeros is passed over, as every reader does.
        Ok(self.block()?.filter(|second| *second != [0; BLOCK]))
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        self.left = BLOCK as u64;
        let mut filled = 0;
        while filled < BLOCK {
            if self.at == self.chunk.len() && !self.refill()? {
                self.left = 0;
                return match filled {
                    0 => Ok(None),
                    _ => Err(truncated()),
                };
            }
            let piece = self.data(BLOCK as u64)?;
            block[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        }
        Ok(Some(block))
    }

    fn metadata(&mut self, header: &Header<'_>) -> Result<Vec<u8>> {
        let size = header.size()?;
        if size > MAX_META {
            return Err(Error::new(format!("tar extended header of {size} bytes is too large")));
        }
        self.begin(size);
        let mut data = Vec::with_capacity(size as usize);
        loop {
            let piece = self.data(MAX_META)?;
            if piece.is_empty() {
                break;
            }
            data.extend_from_slice(piece);
        }
        self.skip()?;
        Ok(data)
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn entry(&mut self, header: &Header<'_>, pending: Pending) -> Result<Entry> {
        let (pax, name, target) = pending.resolve(header)?;
        let kind = kind(header, &name, target)?;
        let stored = match kind {
            Kind::File => pax.size.map_or_else(|| header.size(), Ok)?,
            _ => 0, // Readers agree that only files have content, whatever the size field says.
        };
        if kind == Kind::Dir && header.flag() != b'5' && pax.size.unwrap_or(header.size()?) > 0 {
            return Err(Error::new(format!("{}: a directory with content", show(&name))));
        }
        if stored > i64::MAX as u64 {
            return Err(Error::new(format!("{}: impossible size {stored}", show(&name))));
        }
        self.begin(stored);
        let sparse = match kind {
            Kind::File => self.sparse(header, &pax).map_err(|e| e.wrap(show(&name)))?,
            _ => None,
        };
        Ok(Entry {
            kind,
            mode: header.mode()?,
            uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
            gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: match pax.mtime {
                Some(time) => time,
                None => Time { seconds: header.mtime()?, nanos: 0 },
            },
            xattrs: pax.xattrs,
            sparse,
            path: name,
        })
    }

    /// The map of a sparse file, in whichever of the four places it is.
    fn sparse(&mut self, header: &Header<'_>, pax: &Pax) -> Result<Option<Sparse>> {
        let (size, map) = match (pax.sparse.major, pax.sparse.minor, &pax.sparse.map) {
            (Some(1), Some(0), _) => (pax.sparse.size, self.map_in_data()?),
            (_, _, Some(map)) => (pax.sparse.size, map.clone()),
            _ if header.flag() == b'S' => {
                let (map, size) = self.map_in_blocks(header)?;
                (Some(size), map)
            }
            (None, None, None) => return Ok(None),
            _ => return Err(Error::new("unknown sparse format")),
        };
        let size = size.ok_or_else(|| Error::new("sparse file without its full size"))?;
        check_map(size, &map, self.left)?;
        Ok(Some((size, map)))
    }

    /// GNU's old format: the map continues in blocks between header and content.
    fn map_in_blocks(&mut self, header: &Header<'_>) -> Result<(header::Chunks, u64)> {
        let (mut map, mut more, size) = header.old_sparse()?;
        let (left, padding) = (self.left, self.padding);
        while more {
            let block = self.block()?.ok_or_else(truncated)?;
            map.extend(
                sparse_pairs(&block[..504]).map_err(|_| Error::new("malformed sparse map"))?,
            );
            more = block[504] != 0;
            if map.len() > MAX_SPARSE {
                return Err(Error::new("too many sparse chunks"));
            }
        }
        (self.left, self.padding) = (left, padding);
        Ok((map, size))
    }

    /// PAX 1.0: the content begins with decimal lines, padded to a block.
    fn map_in_data(&mut self) -> Result<header::Chunks> {
        let bad = || Error::new("malformed sparse map");
        let mut numbers = Vec::new();
        let mut line = Vec::new();
        let mut wanted = 1;
        while numbers.len() < wanted {
            let mut block = Vec::with_capacity(BLOCK);
            while block.len() < BLOCK {
                let piece = self.data((BLOCK - block.len()) as u64)?;
                if piece.is_empty() {
                    return Err(bad());
                }
                block.extend_from_slice(piece);
            }
            for byte in block {
                match byte {
                    _ if numbers.len() == wanted => break,
                    b'\n' => {
                        numbers.push(pax::decimal(&std::mem::take(&mut line)).ok_or_else(bad)?)
                    }
                    _ => line.push(byte),
                }
                if let ([count], 1) = (&numbers[..], wanted) {
                    let count = usize::try_from(*count).ok().filter(|n| *n <= MAX_SPARSE);
                    wanted = 1 + 2 * count.ok_or_else(bad)?;
                }
            }
            if line.len() > 20 {
                return Err(bad());
            }
        }
        Ok(numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    fn refill(&mut self) -> Result<bool> {
        loop {
            match (self.next)()? {
                None => {
                    (self.chunk, self.at) = (Arc::default(), 0);
                    return Ok(false);
                }
                Some(chunk) if chunk.is_empty() => continue,
                Some(chunk) => {
                    (self.chunk, self.at) = (chunk, 0);
                    return Ok(true);
                }
            }
        }
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }

    fn add_pax(&mut self, data: Vec<u8>) -> Result<()> {
        once(&mut self.pax, Pax::parse(&data)?)
    }

    /// Name and link target, each said at most once outside the header itself.
    fn resolve(self, header: &Header<'_>) -> Result<(Pax, Vec<u8>, Vec<u8>)> {
        let mut pax = self.pax.unwrap_or_default();
        if pax.path.is_some() && self.long_name.is_some()
            || pax.link.is_some() && self.long_link.is_some()
        {
            return Err(Error::new("a tar member names itself by PAX and by GNU's extension"));
        }
        let sparse_name = pax.sparse.name.take();
        let name = sparse_name.or(pax.path.take()).or(self.long_name);
        let name = name.unwrap_or_else(|| header.path());
        let target = pax.link.take().or(self.long_link).unwrap_or_else(|| header.link().to_vec());
        for path in [&name, &target] {
            if path.len() >= MAX_PATH || path.contains(&0) {
                return Err(Error::new(format!(
                    "{}…: bad path",
                    show(&path[..path.len().min(80)])
                )));
            }
        }
        if name.is_empty() {
            return Err(Error::new("a tar member has no name"));
        }
        Ok((pax, name, target))
    }
}

fn kind(header: &Header<'_>, name: &[u8], target: Vec<u8>) -> Result<Kind> {
    let device = || header.device();
    Ok(match header.flag() {
        // v7 knew directories by the slash alone.
        0 | b'0' | b'7' if name.ends_with(b"/") => Kind::Dir,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' | b'2' if target.is_empty() => {
            return Err(Error::new(format!("{}: a link to nothing", show(name))));
        }
        b'1' => Kind::HardLink(target),
        b'2' => Kind::Symlink(target),
        b'3' => device().map(|(major, minor)| Kind::Char(major, minor))?,
        b'4' => device().map(|(major, minor)| Kind::Block(major, minor))?,
        b'5' => Kind::Dir,
        b'6' => Kind::Fifo,
        flag => {
            let flag = char::from(flag).escape_default();
            return Err(Error::new(format!("{}: unknown tar type '{flag}'", show(name))));
        }
    })
}

/// Chunks in order, apart, inside the file, and together as long as what is stored.
fn check_map(size: u64, map: &[(u64, u64)], stored: u64) -> Result<()> {
    let (mut end, mut sum) = (0u64, 0u64);
    for &(offset, length) in map {
        let next = offset.checked_add(length).filter(|n| offset >= end && *n <= size);
        end = next.ok_or_else(|| Error::new("sparse map leaves the file or overlaps itself"))?;
        sum += length;
    }
    match sum == stored && size <= i64::MAX as u64 {
        true => Ok(()),
        false => Err(Error::new(format!("sparse map covers {sum} bytes, {stored} are stored"))),
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::new("two extended headers of one kind before a tar member")),
    }
}

fn cut(mut name: Vec<u8>) -> Vec<u8> {
    let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    name.truncate(end);
    name
}

fn truncated() -> Error {
    Error::new("tar archive is cut off in the middle of a member")
}

/// A path for messages.
pub(crate) fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}
