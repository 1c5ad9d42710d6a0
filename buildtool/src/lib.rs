//! Turns a Dockerfile into layer tarballs and an image.

pub mod build;
pub mod cache;
pub mod dockerignore;
pub mod error;
pub mod expand;
pub mod files;
pub mod parse;
pub mod pattern;
pub mod plan;
pub mod sandbox;
pub mod scope;
pub mod steps;
pub mod workspace;
