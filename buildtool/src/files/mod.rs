//! Files on their way into a layer: where they are, what they are, and the archive they become.
//!
//! [`tree`] resolves paths inside a root that may be hostile, [`collect`] gathers what COPY and
//! ADD name, [`stage`] lays it out at its destination, and [`tarball`] writes the layer.

pub mod collect;
pub mod mode;
pub mod stage;
pub mod tarball;
pub mod tree;
