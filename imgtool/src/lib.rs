//! Moves container images and unpacks them into OCI bundles.
