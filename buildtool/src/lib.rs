//! Turns a Dockerfile into layer tarballs and an image.
//!
//! In the order in which a build goes: [`parse`] reads the Dockerfile, [`plan`] finds its stages
//! and [`scope`] their variables, [`steps`] expands instructions ([`expand`]) into what is to be
//! done; then [`sandbox`] gives the build its own namespaces and [`workspace`] a directory, and
//! [`build`](mod@build) executes the steps, each from the [`cache`] or anew: [`files`] for COPY
//! and ADD, a runtime for RUN. [`output`] brings the image where it is wanted.
#![forbid(unsafe_code)]

pub mod build;
pub mod cache;
pub mod cli;
pub mod dockerignore;
pub mod error;
pub mod expand;
pub mod files;
pub mod log;
pub mod output;
pub mod parse;
pub mod pattern;
pub mod plan;
pub mod sandbox;
pub mod scope;
pub mod sibling;
pub mod steps;
pub mod verb;
pub mod workspace;
