//! Turns a Dockerfile into layer tarballs and an image.

pub mod build;
pub mod dockerignore;
pub mod error;
pub mod expand;
pub mod parse;
pub mod pattern;
pub mod plan;
pub mod scope;
pub mod steps;
