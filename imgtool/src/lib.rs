//! Moves container images between registries, archives and a local store, and unpacks them.
//!
//! The store is an OCI image layout ([`store`]); everything that enters it or leaves it goes
//! through types that cannot hold a malformed value: [`digest::Digest`],
//! [`reference::Reference`], [`platform::Platform`], [`descriptor::Descriptor`]. An image is its
//! manifest and its configuration ([`image`]).
#![forbid(unsafe_code)]

pub mod bundle;
pub mod descriptor;
pub mod digest;
pub mod error;
pub mod image;
pub mod layer;
pub mod overlay;
pub mod platform;
pub mod reference;
pub mod snapshot;
pub mod store;

pub use error::{Context, Error, Result};
