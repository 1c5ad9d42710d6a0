//! Layers: archives of changes, applied to directories and made from them.
//!
//! [`apply()`] unpacks one archive, which it treats as hostile, onto a directory. [`from_upper()`] is
//! the way back: the archive of what an overlay's upper directory changes, the same bytes for the
//! same tree. Both speak of whiteouts as image-spec's layer.md does.

mod apply;
mod attributes;
mod decompress;
mod header;
mod index;
mod merge;
mod path;
mod pax;
mod root;
mod rootless;
mod tar;
#[cfg(test)]
mod tests;
mod tree;
mod upper;
mod whiteout;
mod write;

pub use apply::{Applied, Options, apply};
pub use decompress::{Limits, decoder};
pub use index::{from_index, write_index};
pub use merge::{Change, Checked, Tree, What, check_archive};
pub use tree::{copy_attributes, copy_tree, make_dirs};
pub use upper::{DiffOptions, from_upper};

/// What whiteouts become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whiteouts {
    /// The named things are removed: for a tree that holds the lower layers already.
    #[default]
    Remove,
    /// Overlay's marks (a 0:0 device, an `opaque` attribute): for a layer's own directory.
    Overlay(XattrSpace),
}

impl Whiteouts {
    /// Where overlay's attributes would be read.
    fn space(self) -> Option<XattrSpace> {
        match self {
            Whiteouts::Remove => None,
            Whiteouts::Overlay(space) => Some(space),
        }
    }
}

/// The name space of overlay's own attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum XattrSpace {
    /// `trusted.overlay.*`: needs CAP_SYS_ADMIN in the initial user namespace.
    Trusted,
    /// `user.overlay.*`, for mounts with `userxattr`.
    User,
}

/// Who owns what is unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// The ids in the archive. Needs CAP_CHOWN, and in a user namespace that they are mapped.
    #[default]
    Keep,
    /// Ourselves: the single id that an unprivileged user has, which a user namespace shows as
    /// root. Devices become empty files.
    Ours,
}
