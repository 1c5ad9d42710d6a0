//! Owners that an unprivileged user cannot give, remembered in `user.rootlesscontainers`.
//!
//! The attribute's value is a protobuf message of two numbers, field 1 the user and field 2 the
//! group (rootlesscontaine.rs, proto/rootlesscontainers.proto), which umoci and PRoot write and read
//! too. A file of 0:0 has none: it is ours, and we are root in our namespace.

use super::Ownership;
use super::attributes::Attributes;

/// The attribute.
pub(crate) const NAME: [u8; 23] = *b"user.rootlesscontainers";

/// The value for a file that gets our ids instead of its own.
pub(crate) fn value(ownership: Ownership, of: &Attributes) -> Option<Vec<u8>> {
    let needed = ownership == Ownership::Ours && (of.uid, of.gid) != (0, 0);
    needed.then(|| encode(of.uid, of.gid))
}

/// The owner that the attribute tells; `None` if it is malformed.
pub(crate) fn owner(value: &[u8]) -> Option<(u32, u32)> {
    let (mut uid, mut gid, mut rest) = (0, 0, value);
    while let Some((tag, after)) = rest.split_first() {
        let (number, after) = varint(after)?;
        match tag {
            0x08 => uid = number,
            0x10 => gid = number,
            _ => return None,
        }
        rest = after;
    }
    Some((uid, gid))
}

fn encode(uid: u32, gid: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, mut number) in [(0x08, uid), (0x10, gid)] {
        // Proto3 leaves zeros out.
        if number == 0 {
            continue;
        }
        out.push(tag);
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }
    out
}

fn varint(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let end = bytes.iter().position(|b| b & 0x80 == 0).filter(|end| *end < 5)?;
    let number = bytes[..=end].iter().rev().fold(0u64, |n, b| n << 7 | u64::from(b & 0x7f));
    Some((u32::try_from(number).ok()?, &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_come_back() {
        for (uid, gid) in [(0, 5), (1, 0), (1000, 1000), (127, 128), (u32::MAX, 65534)] {
            assert_eq!(owner(&encode(uid, gid)), Some((uid, gid)));
        }
        // As protoc encodes {uid: 1000, gid: 5}.
        assert_eq!(encode(1000, 5), [0x08, 0xe8, 0x07, 0x10, 0x05]);
        for bad in [&b"\x08"[..], b"\x08\xff", b"\x18\x01", b"\x08\xff\xff\xff\xff\xff\x01"] {
            assert_eq!(owner(bad), None);
        }
    }
}
