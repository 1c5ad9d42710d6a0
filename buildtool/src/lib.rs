//! Turns a Dockerfile into layer tarballs and an image.

pub mod error;
pub mod expand;
pub mod parse;
pub mod pattern;
