//! One file for each verb.

pub mod build;
pub mod completions;
pub mod man;
