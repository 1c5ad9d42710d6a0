//! Names in an archive, made safe: what a path means below a root, and what whiteout names mean.

use crate::error::{Error, Result};

use super::tar::show;

/// Splits a name into components below the root. `/`, `.` and doubled slashes vanish; `..` takes
/// back what stands before it and is an error where it would leave the root.
pub(crate) fn components(path: &[u8]) -> Result<Vec<&[u8]>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => (),
            b".." if parts.pop().is_some() => (),
            b".." => return Err(Error::new(format!("{}: leaves the root", show(path)))),
            part => parts.push(part),
        }
    }
    Ok(parts)
}

/// What the last component of a name says (image-spec, layer.md, Whiteouts).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// An ordinary name.
    Plain,
    /// `.wh.NAME`: NAME of the lower layers is gone.
    Whiteout(&'a [u8]),
    /// `.wh..wh..opq`: everything of the lower layers in this directory is gone.
    Opaque,
    /// AUFS's own bookkeeping (`.wh..wh.plnk` and the like), no part of any image.
    Ignored,
}

/// Classifies a cleaned path; the prefix `.wh.` is reserved, also in directory names.
pub(crate) fn classify<'a>(parts: &[&'a [u8]]) -> Result<Name<'a>> {
    let Some((last, parents)) = parts.split_last() else { return Ok(Name::Plain) };
    for parent in parents {
        match parent.strip_prefix(b".wh.") {
            None => (),
            Some(rest) if rest.starts_with(b".wh.") => return Ok(Name::Ignored),
            Some(_) => return Err(reserved(parts)),
        }
    }
    match last.strip_prefix(b".wh.") {
        None => Ok(Name::Plain),
        Some(b".wh..opq") => Ok(Name::Opaque),
        Some(b"" | b"." | b"..") => Err(reserved(parts)),
        Some(rest) if rest.starts_with(b".wh.") => Ok(Name::Ignored),
        Some(rest) => Ok(Name::Whiteout(rest)),
    }
}

fn reserved(parts: &[&[u8]]) -> Error {
    let path = parts.join(&b'/');
    Error::new(format!("{}: a whiteout name that hides nothing", show(&path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        let clean = |p: &str| components(p.as_bytes()).map(|c| c.join(&b'/'));
        assert_eq!(clean("./a//b/").unwrap(), b"a/b");
        assert_eq!(clean("/etc/passwd").unwrap(), b"etc/passwd");
        assert_eq!(clean("a/../b").unwrap(), b"b");
        assert_eq!(clean("./").unwrap(), b"");
        assert!(clean("../x").is_err() && clean("a/../../x").is_err() && clean("/..").is_err());
    }

    #[test]
    fn whiteout_names() {
        let name = |p: &'static str| classify(&components(p.as_bytes()).unwrap());
        assert_eq!(name("a/.wh.b").unwrap(), Name::Whiteout(b"b"));
        assert_eq!(name("a/.wh..wh..opq").unwrap(), Name::Opaque);
        assert_eq!(name(".wh..wh.plnk/12").unwrap(), Name::Ignored);
        assert_eq!(name("a/b").unwrap(), Name::Plain);
        assert_eq!(name("a/.whb").unwrap(), Name::Plain);
        for bad in ["a/.wh.", ".wh..", ".wh...", ".wh.d/x"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
