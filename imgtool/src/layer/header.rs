//! The 512-byte header block of every tar dialect: v7, ustar, GNU, star.
//!
//! `tar-core` serves for writing ([`super::write`]). For *reading* it is not used, since what a
//! layer needs is exactly where version 0.1 is lenient or silent: a PAX record with a bad length
//! ends the list without an error, base-256 numbers wrap when they overflow, times before 1970 and
//! fractions of a second are refused or dropped, and a PAX `size` beside a sparse map moves the
//! reader to the wrong place in the stream. Two readers that disagree about where a member ends
//! is how one tool checks a file that another then unpacks, so each of these is an error here.

use crate::error::{Error, Result};

/// Bytes in a header, and the unit to which contents are padded.
pub(crate) const BLOCK: usize = 512;

/// Pieces of a sparse file: offset and length.
pub(crate) type Chunks = Vec<(u64, u64)>;

/// A header block whose checksum is right.
pub(crate) struct Header<'a>(&'a [u8; BLOCK]);

impl<'a> Header<'a> {
    /// Checks the block's sum (unsigned, or signed as some old writers had it).
    pub(crate) fn parse(block: &'a [u8; BLOCK]) -> Result<Self> {
        let header = Header(block);
        let stored = octal(&block[148..156]).map_err(|_| header.malformed("checksum"))?;
        let others = || block[..148].iter().chain(&block[156..]);
        let unsigned = others().map(|&b| u64::from(b)).sum::<u64>() + 8 * u64::from(b' ');
        let signed = others().map(|&b| i64::from(b as i8)).sum::<i64>() + 8 * i64::from(b' ');
        match stored == unsigned || i64::try_from(stored) == Ok(signed) {
            true => Ok(header),
            false => Err(header.malformed("checksum")),
        }
    }

    /// The type flag.
    pub(crate) fn flag(&self) -> u8 {
        self.0[156]
    }

    /// The name, with the prefix of the ustar and star dialects in front.
    pub(crate) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = match () {
            () if &self.0[257..263] != b"ustar\0" => &[],
            () if &self.0[508..512] == b"tar\0" => text(&self.0[345..476]),
            () => text(&self.0[345..500]),
        };
        match prefix.is_empty() {
            true => name.to_vec(),
            false => [prefix, b"/", name].concat(),
        }
    }

    /// The link's target as this block has it.
    pub(crate) fn link(&self) -> &'a [u8] {
        text(&self.0[157..257])
    }

    /// Permission bits.
    pub(crate) fn mode(&self) -> Result<u32> {
        Ok((self.unsigned(100..108, "mode")? & 0o7777) as u32)
    }

    /// Owner.
    pub(crate) fn uid(&self) -> Result<u32> {
        self.id(108..116, "uid")
    }

    /// Group.
    pub(crate) fn gid(&self) -> Result<u32> {
        self.id(116..124, "gid")
    }

    /// Bytes of content that follow, before padding.
    pub(crate) fn size(&self) -> Result<u64> {
        self.unsigned(124..136, "size")
    }

    /// Seconds since 1970, negative before.
    pub(crate) fn mtime(&self) -> Result<i64> {
        numeric(&self.0[136..148]).map_err(|_| self.malformed("mtime"))
    }

    /// Device numbers; zero in the dialects that have none.
    pub(crate) fn device(&self) -> Result<(u32, u32)> {
        if &self.0[257..262] != b"ustar" {
            return Ok((0, 0));
        }
        Ok((self.id(329..337, "devmajor")?, self.id(337..345, "devminor")?))
    }

    /// The inline part of GNU's old sparse format: four pairs, "more follow", the full size.
    pub(crate) fn old_sparse(&self) -> Result<(Chunks, bool, u64)> {
        let pairs = sparse_pairs(&self.0[386..482]).map_err(|_| self.malformed("sparse map"))?;
        Ok((pairs, self.0[482] != 0, self.unsigned(483..495, "realsize")?))
    }

    fn unsigned(&self, field: std::ops::Range<usize>, what: &str) -> Result<u64> {
        let value = numeric(&self.0[field]).ok().and_then(|v| u64::try_from(v).ok());
        value.ok_or_else(|| self.malformed(what))
    }

    fn id(&self, field: std::ops::Range<usize>, what: &str) -> Result<u32> {
        u32::try_from(self.unsigned(field, what)?).map_err(|_| self.malformed(what))
    }

    fn malformed(&self, what: &str) -> Error {
        let name = String::from_utf8_lossy(text(&self.0[..100])).into_owned();
        Error::new(format!("tar header of {name:?}: malformed {what}"))
    }
}

/// The offset and length pairs of GNU's old sparse format; an empty pair ends them.
pub(crate) fn sparse_pairs(bytes: &[u8]) -> std::result::Result<Chunks, ()> {
    let mut pairs = Vec::new();
    for pair in bytes.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let field = |b: &[u8]| numeric(b).and_then(|v| u64::try_from(v).map_err(|_| ()));
        pairs.push((field(&pair[..12])?, field(&pair[12..])?));
    }
    Ok(pairs)
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&b| b == 0).unwrap_or(field.len())]
}

/// Octal digits among spaces and NULs; an empty field is zero.
fn octal(field: &[u8]) -> std::result::Result<u64, ()> {
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' if value >> 61 == 0 => Ok(value << 3 | u64::from(digit - b'0')),
        _ => Err(()),
    })
}

/// Octal, or GNU's base-256 (two's complement behind the top bit), within 64 bits.
fn numeric(field: &[u8]) -> std::result::Result<i64, ()> {
    if field[0] & 0x80 == 0 {
        return octal(field).and_then(|v| i64::try_from(v).map_err(|_| ()));
    }
    let negative = field[0] & 0x40 != 0;
    let first = if negative { field[0] } else { field[0] & 0x7f };
    let start = if negative { -1i128 } else { 0 };
    let value =
        field[1..].iter().fold(start << 8 | i128::from(first), |v, &b| v << 8 | i128::from(b));
    i64::try_from(value).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_fields_end_at_blanks() {
        assert_eq!(octal(b"0000644\0"), Ok(0o644));
        assert_eq!(octal(b"   17 \0\0"), Ok(0o17));
        assert_eq!(octal(b"\0\0\0\0"), Ok(0));
        assert_eq!(octal(b"00009\0"), Err(()));
        assert_eq!(octal(b"7777777777777777777777777"), Err(()));
    }

    #[test]
    fn base_256_is_signed_and_never_wraps() {
        assert_eq!(numeric(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Ok(256));
        assert_eq!(numeric(&[0xff; 12]), Ok(-1));
        assert_eq!(numeric(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), Ok(-2));
        assert_eq!(numeric(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(()));
    }
}
