//! Moves container images between registries, archives and a local store, and unpacks them.
//!
//! The store is an OCI image layout ([`store`]); everything that enters it or leaves it goes
//! through types that cannot hold a malformed value: [`digest::Digest`],
//! [`reference::Reference`], [`platform::Platform`], [`descriptor::Descriptor`]. An image is its
//! manifest and its configuration ([`image`]). Its layers ([`layer`]) are unpacked once
//! ([`snapshot`]), stacked ([`overlay`]), and become a directory that a runtime runs ([`bundle`]).
#![forbid(unsafe_code)]

pub mod archive;
pub mod bundle;
pub mod cli;
pub mod compression;
pub mod copy;
pub mod descriptor;
pub mod digest;
pub mod edit;
pub mod error;
pub mod image;
pub mod layer;
mod order;
pub mod output;
pub mod overlay;
mod parallel;
pub mod platform;
pub mod progress;
pub mod reference;
pub mod registry;
pub mod snapshot;
pub mod store;
mod time;
pub mod verb;
pub mod verify;

#[cfg(test)]
mod testing;

pub use error::{Context, Error, Result};
