//! Images in a single tar file: docker-archive and oci-archive, in and out.
//!
//! A docker-archive (`docker save`) has `manifest.json`, a configuration and uncompressed layers;
//! an oci-archive is an OCI image layout as a tar. The archive that we write by default is both:
//! its `manifest.json` points into `blobs/`.

mod load;
mod save;
mod tar;

use serde::{Deserialize, Serialize};

pub use load::{Loaded, load};
pub use save::{Format, save, save_entry};

/// One image of a docker-archive's `manifest.json`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    /// Path of the configuration.
    config: String,
    /// Names; Go writes `null` for none.
    repo_tags: Option<Vec<String>>,
    /// Paths of the layers, bottom first.
    layers: Vec<String>,
}

#[cfg(test)]
mod tests;
