//! PAX extended headers: `"LENGTH KEY=VALUE\n"`, as POSIX.1-2001 `pax` and GNU tar write them.

use crate::error::{Error, Result};

use super::tar::Time;

/// What the extended header in front of an entry says about it.
#[derive(Default)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) mtime: Option<Time>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: PaxSparse,
}

/// The three PAX spellings of a sparse file: 0.0 (repeated keys), 0.1 (one list), 1.0 (in the data).
#[derive(Default)]
pub(crate) struct PaxSparse {
    pub(crate) major: Option<u64>,
    pub(crate) minor: Option<u64>,
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) map: Option<Vec<(u64, u64)>>,
    offset: Option<u64>,
}

/// Most chunks that a sparse file may have.
pub(crate) const MAX_SPARSE: usize = 1 << 16;

impl Pax {
    /// Reads every record; one that is malformed is an error, never the end.
    pub(crate) fn parse(data: &[u8]) -> Result<Pax> {
        let mut pax = Pax::default();
        for record in records(data) {
            let (key, value) = record?;
            pax.set(key, value)?;
        }
        if pax.sparse.offset.is_some() {
            return Err(malformed("GNU.sparse.offset without numbytes"));
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        // An empty value withdraws the record: the header's own field holds again.
        let bytes = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = name(key, value)?,
            b"linkpath" => self.link = name(key, value)?,
            b"size" => self.size = number(key, value)?,
            b"uid" => self.uid = id(key, value)?,
            b"gid" => self.gid = id(key, value)?,
            b"mtime" => self.mtime = time(value)?,
            b"GNU.sparse.major" => self.sparse.major = number(key, value)?,
            b"GNU.sparse.minor" => self.sparse.minor = number(key, value)?,
            b"GNU.sparse.name" => self.sparse.name = bytes(),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = number(key, value)?,
            b"GNU.sparse.offset" => self.sparse.offset = number(key, value)?,
            b"GNU.sparse.numbytes" => self.sparse.pair(number(key, value)?)?,
            b"GNU.sparse.map" => self.sparse.map = Some(list(value)?),
            _ => {
                if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((attribute.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

impl PaxSparse {
    fn pair(&mut self, length: Option<u64>) -> Result<()> {
        let (Some(offset), Some(length)) = (self.offset.take(), length) else {
            return Err(malformed("GNU.sparse.numbytes without offset"));
        };
        let map = self.map.get_or_insert_default();
        match map.len() < MAX_SPARSE {
            true => map.push((offset, length)),
            false => return Err(malformed("too many sparse chunks")),
        }
        Ok(())
    }
}

/// Refuses a global header that would rename or resize members: readers disagree whether it
/// holds for them (GNU tar: yes; Go's, and so every engine: no). Comments and the like pass.
pub(crate) fn check_global(data: &[u8]) -> Result<()> {
    for record in records(data) {
        let (key, _) = record?;
        let moves = matches!(key, b"path" | b"linkpath" | b"size");
        if moves || key.starts_with(b"GNU.sparse.") || key.starts_with(b"SCHILY.xattr.") {
            let key = String::from_utf8_lossy(key);
            return Err(Error::new(format!("global PAX header sets {key} for every member")));
        }
    }
    Ok(())
}

/// Splits `data` into key and value; NULs after the last record are padding.
fn records(mut data: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8])>> {
    std::iter::from_fn(move || {
        if data.iter().all(|&b| b == 0) {
            return None;
        }
        let record = split(data);
        data = record.as_ref().map_or(&[], |(_, rest)| *rest);
        Some(record.map(|(pair, _)| pair))
    })
}

type Record<'a> = ((&'a [u8], &'a [u8]), &'a [u8]);

fn split(data: &[u8]) -> Result<Record<'_>> {
    let bad = || malformed("record");
    let space = data.iter().take(20).position(|&b| b == b' ').ok_or_else(bad)?;
    let length = usize::try_from(decimal(&data[..space]).ok_or_else(bad)?).map_err(|_| bad())?;
    let record = data.get(space + 1..length).ok_or_else(bad)?;
    let (b'\n', pair) = record.split_last().ok_or_else(bad)? else { return Err(bad()) };
    let equals = pair.iter().position(|&b| b == b'=').filter(|&i| i > 0).ok_or_else(bad)?;
    if pair[..equals].contains(&0) {
        return Err(bad());
    }
    Ok(((&pair[..equals], &pair[equals + 1..]), &data[length..]))
}

/// Digits and nothing else.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

fn name(key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>> {
    match value.contains(&0) {
        true => Err(malformed(&String::from_utf8_lossy(key))),
        false => Ok((!value.is_empty()).then(|| value.to_vec())),
    }
}

fn number(key: &[u8], value: &[u8]) -> Result<Option<u64>> {
    if value.is_empty() {
        return Ok(None);
    }
    decimal(value).map(Some).ok_or_else(|| malformed(&String::from_utf8_lossy(key)))
}

fn id(key: &[u8], value: &[u8]) -> Result<Option<u32>> {
    let number = number(key, value)?;
    let fits = |n| u32::try_from(n).map_err(|_| malformed(&String::from_utf8_lossy(key)));
    number.map(fits).transpose()
}

fn list(value: &[u8]) -> Result<Vec<(u64, u64)>> {
    let bad = || malformed("GNU.sparse.map");
    let numbers: Option<Vec<u64>> = match value.is_empty() {
        true => Some(Vec::new()),
        false => value.split(|&b| b == b',').map(decimal).collect(),
    };
    let numbers = numbers.ok_or_else(bad)?;
    if numbers.len() % 2 != 0 || numbers.len() / 2 > MAX_SPARSE {
        return Err(bad());
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are cut.
fn time(value: &[u8]) -> Result<Option<Time>> {
    if value.is_empty() {
        return Ok(None);
    }
    let bad = || malformed("mtime");
    let (negative, rest) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let dot = rest.iter().position(|&b| b == b'.');
    let (whole, fraction) = rest.split_at(dot.unwrap_or(rest.len()));
    let seconds = decimal(whole).and_then(|s| i64::try_from(s).ok()).ok_or_else(bad)?;
    let digits = fraction.strip_prefix(b".").unwrap_or(fraction);
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let digit = |i: usize| digits.get(i).map_or(0, |b| u32::from(b - b'0'));
    let nanos = (0..9).fold(0, |n, i| n * 10 + digit(i));
    Ok(Some(match (negative, nanos) {
        (false, _) => Time { seconds, nanos },
        (true, 0) => Time { seconds: -seconds, nanos },
        // -1.25 is two seconds back and 0.75 forward.
        (true, _) => Time { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    }))
}

fn malformed(what: &str) -> Error {
    Error::new(format!("malformed PAX header: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_fractions_and_signs() {
        let at = |text: &[u8]| time(text).unwrap().map(|t| (t.seconds, t.nanos));
        assert_eq!(at(b"1350244992.023960108"), Some((1350244992, 23960108)));
        assert_eq!(at(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(at(b"-3"), Some((-3, 0)));
        assert_eq!(at(b"5.1234567899"), Some((5, 123_456_789)));
        assert_eq!(at(b""), None);
        assert!(time(b"1.x").is_err() && time(b"abc").is_err() && time(b"+1").is_err());
    }

    #[test]
    fn malformed_records_are_errors() {
        for bad in [
            &b"12 path=abcd\n9"[..],
            b"x path=a\n",
            b"99 path=a\n",
            b"10 path=ab",
            b"8 =abcd\n",
            b"0 path=a\n",
            b"+9 path=a\n",
            b"11 size=-1\n\n",
            b"10 size=1x\n",
        ] {
            assert!(Pax::parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        assert_eq!(Pax::parse(b"12 path=abc\n").unwrap().path.unwrap(), b"abc");
        assert_eq!(Pax::parse(b"8 path=\n").unwrap().path, None);
    }

    #[test]
    fn global_headers_may_not_move_members() {
        assert!(check_global(b"18 comment=abcdef\n").is_ok());
        assert!(check_global(b"10 size=99\n").is_err());
        assert!(check_global(b"11 path=abc\n").is_err());
    }
}
