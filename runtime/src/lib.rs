//! An OCI runtime: executes a bundle's `config.json`.

pub mod seccomp;
