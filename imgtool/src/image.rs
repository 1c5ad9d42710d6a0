//! An image: its manifest, and the configuration that the manifest names.
//!
//! Manifests and indexes are parsed strictly and keep the bytes that they came from, so that a
//! digest never changes by passing through. The configuration is edited as order-preserving
//! JSON; fields that this crate does not know survive.

mod config;
mod manifest;

pub use config::{ImageConfig, format_time};
pub use manifest::{Document, Index, MAX_DOCUMENT, Manifest};

use crate::descriptor::Descriptor;

/// A manifest and its configuration, as read from a store.
#[derive(Clone, Debug)]
pub struct Image {
    /// Descriptor of the manifest (not of an index around it).
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The configuration.
    pub config: ImageConfig,
}

impl Image {
    /// The layers, bottom first, each with the digest of its uncompressed tar.
    pub fn layers(&self) -> impl Iterator<Item = (&Descriptor, &crate::digest::Digest)> {
        self.manifest.layers.iter().zip(self.config.diff_ids())
    }
}
