//! An OCI runtime: executes a bundle's `config.json`.
