//! Writes tar archives: ustar, with PAX records only where a value does not fit.
//!
//! The same members give the same bytes: nothing is written that was not given, and the PAX
//! records of a member stand in a fixed order.

use std::io::{self, Write};

const BLOCK: usize = 512;

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of this size, its content follows.
    File(u64),
    /// A directory.
    Dir,
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// Another name of the member at this path.
    Hardlink(Vec<u8>),
    /// A character device.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One member's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Path relative to the root, without a trailing slash.
    pub path: Vec<u8>,
    /// Type and what belongs to it.
    pub kind: Kind,
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An archive being written.
pub struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Begins an archive on `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes a member without content.
    pub fn header(&mut self, member: &Member) -> io::Result<()> {
        let records = pax_records(member);
        if !records.is_empty() {
            let mut header = Header::new(b"PaxHeaders.0/member", b'x', records.len() as u64);
            header.octal(100..108, 0o644);
            self.out.write_all(&header.sealed())?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.out.write_all(&ustar(member))
    }

    /// Writes the content of the file member just written: exactly the size it announced.
    pub fn content(
        &mut self,
        size: u64,
        mut write: impl FnMut(&mut dyn Write) -> io::Result<u64>,
    ) -> io::Result<()> {
        let written = write(&mut self.out)?;
        if written != size {
            return Err(io::Error::other(format!("it has {written} bytes and had {size} before")));
        }
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = size.wrapping_neg() as usize % BLOCK;
        self.out.write_all(&[0; BLOCK][..rest])
    }

    /// Writes the end marker and returns what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }
}

struct Header([u8; BLOCK]);

impl Header {
    fn new(path: &[u8], flag: u8, size: u64) -> Self {
        let mut header = Self([0; BLOCK]);
        header.text(0..100, path);
        header.octal(108..116, 0);
        header.octal(116..124, 0);
        header.octal(124..136, if size < 1 << 33 { size } else { 0 });
        header.octal(136..148, 0);
        header.0[156] = flag;
        header.text(257..265, b"ustar\x0000");
        header.octal(329..337, 0);
        header.octal(337..345, 0);
        header
    }

    fn text(&mut self, range: std::ops::Range<usize>, text: &[u8]) {
        let length = text.len().min(range.len());
        self.0[range.start..range.start + length].copy_from_slice(&text[..length]);
    }

    /// A number as zero-padded octal digits and a NUL.
    fn octal(&mut self, range: std::ops::Range<usize>, value: u64) {
        let digits = format!("{value:0width$o}\0", width = range.len() - 1);
        self.text(range, digits.as_bytes());
    }

    fn sealed(mut self) -> [u8; BLOCK] {
        self.text(148..156, b"        ");
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.text(148..156, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

const MAX_ID: u32 = 0o7777777;
const MAX_SIZE: u64 = 1 << 33;
const MAX_TIME: i64 = 1 << 33;

/// The path as the archive spells it: directories end in a slash.
fn spelled(member: &Member) -> Vec<u8> {
    let mut path = member.path.clone();
    if member.kind == Kind::Dir {
        path.push(b'/');
    }
    path
}

fn ustar(member: &Member) -> [u8; BLOCK] {
    let (flag, size) = match member.kind {
        Kind::File(size) => (b'0', size),
        Kind::Hardlink(_) => (b'1', 0),
        Kind::Symlink(_) => (b'2', 0),
        Kind::Char(..) => (b'3', 0),
        Kind::Block(..) => (b'4', 0),
        Kind::Dir => (b'5', 0),
        Kind::Fifo => (b'6', 0),
    };
    let mut header = Header::new(&spelled(member), flag, size);
    header.octal(100..108, u64::from(member.mode & 0o7777));
    header.octal(108..116, u64::from(if member.uid > MAX_ID { 0 } else { member.uid }));
    header.octal(116..124, u64::from(if member.gid > MAX_ID { 0 } else { member.gid }));
    if (0..MAX_TIME).contains(&member.mtime) {
        header.octal(136..148, member.mtime as u64);
    }
    match &member.kind {
        Kind::Symlink(target) | Kind::Hardlink(target) => header.text(157..257, target),
        Kind::Char(major, minor) | Kind::Block(major, minor) => {
            header.octal(329..337, u64::from(*major));
            header.octal(337..345, u64::from(*minor));
        }
        _ => {}
    }
    header.sealed()
}

/// What does not fit the ustar header, as PAX records in a fixed order.
fn pax_records(member: &Member) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| records.extend(record(key, value));
    let path = spelled(member);
    if path.len() > 100 || !path.is_ascii() {
        add(b"path", &path);
    }
    if let Kind::Symlink(target) | Kind::Hardlink(target) = &member.kind
        && (target.len() > 100 || !target.is_ascii())
    {
        add(b"linkpath", target);
    }
    if let Kind::File(size) = member.kind
        && size >= MAX_SIZE
    {
        add(b"size", size.to_string().as_bytes());
    }
    for (key, id) in [(b"uid", member.uid), (b"gid", member.gid)] {
        if id > MAX_ID {
            add(key, id.to_string().as_bytes());
        }
    }
    if !(0..MAX_TIME).contains(&member.mtime) {
        add(b"mtime", member.mtime.to_string().as_bytes());
    }
    for (name, value) in &member.xattrs {
        add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut out = format!("{length} ").into_bytes();
    for part in [key, b"=", value, b"\n"] {
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves() {
        assert_eq!(record(b"path", b"a"), b"9 path=a\n");
        assert_eq!(record(b"path", &[b'a'; 90]).len(), 99);
        assert!(record(b"path", &[b'a'; 91]).starts_with(b"101 "));
    }
}
