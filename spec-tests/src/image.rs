//! Images for the tests: one busybox layer, as an OCI layout or as a docker-archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An image of one layer, before it has a form on disk.
#[derive(Debug)]
pub struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
}

impl Image {
    /// An image of the busybox root of [`crate::Bundle`], with these runtime settings
    /// (`Env`, `Cmd`, `Entrypoint`, … of the image configuration).
    ///
    /// # Panics
    /// When `tar` or busybox is missing.
    pub fn busybox(scratch: &Path, settings: Value) -> Image {
        let root = scratch.join("image-root");
        crate::bundle::make_root(&root);
        let output = Command::new("tar")
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"])
            .args(["--format=ustar", "-C"])
            .arg(&root)
            .args(["-c", "."])
            .output()
            .expect("run tar");
        assert!(output.status.success(), "tar failed: {output:?}");
        fs::remove_dir_all(&root).expect("remove the image's root");
        let layer = output.stdout;
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": settings,
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
            "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "busybox" }],
        });
        Image { layer, config: config.to_string().into_bytes() }
    }

    /// The digest of the image configuration: what docker calls the image's id.
    pub fn config_digest(&self) -> String {
        digest(&self.config)
    }

    /// Writes the layer alone: a tar of the root file system.
    pub fn write_layer(&self, path: &Path) {
        fs::write(path, &self.layer).expect("write the layer");
    }

    /// Writes an OCI image layout with one manifest, named `tag`; its path is `dir`.
    pub fn write_layout(&self, dir: &Path, tag: &str) {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("make the layout");
        let descriptor = |kind: &str, bytes: &[u8]| {
            let name = digest(bytes);
            fs::write(blobs.join(&name["sha256:".len()..]), bytes).expect("write a blob");
            json!({ "mediaType": kind, "digest": name, "size": bytes.len() })
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &self.config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &self.layer)],
        });
        let mut entry = descriptor(
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        );
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        fs::write(dir.join("index.json"), index.to_string()).expect("write index.json");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("write oci-layout");
    }

    /// Writes a docker-archive (what `docker save` writes) into `scratch`, and says where it is.
    pub fn write_docker_archive(&self, scratch: &Path, tag: &str) -> PathBuf {
        let dir = scratch.join("docker-archive");
        fs::create_dir_all(&dir).expect("make the archive's directory");
        let config = format!("{}.json", &self.config_digest()["sha256:".len()..]);
        let manifest = json!([{ "Config": config, "RepoTags": [tag], "Layers": ["layer.tar"] }]);
        fs::write(dir.join(&config), &self.config).expect("write the config");
        fs::write(dir.join("layer.tar"), &self.layer).expect("write the layer");
        fs::write(dir.join("manifest.json"), manifest.to_string()).expect("write the manifest");
        let path = scratch.join("image.tar");
        let status = Command::new("tar")
            .arg("-C")
            .arg(&dir)
            .arg("-cf")
            .arg(&path)
            .args(["manifest.json", &config, "layer.tar"])
            .status()
            .expect("run tar");
        assert!(status.success(), "tar failed");
        path
    }
}

/// A tar of a small but real Debian root with apt: made once, kept in the target directory.
///
/// # Errors
/// Why there is none, as the reason for a skip.
pub fn debian_root() -> Result<PathBuf, String> {
    let exe = std::env::current_exe().expect("find the test's own executable");
    // target/TRIPLE/PROFILE/deps/TEST
    let dir = exe.ancestors().nth(4).expect("the test lies in target/…/deps").join("spec-tests");
    let path = dir.join("debian.tar");
    if path.exists() {
        return Ok(path);
    }
    let mmdebstrap = crate::find_program("mmdebstrap")?;
    fs::create_dir_all(&dir).expect("make the directory");
    let unfinished = dir.join(format!("unfinished-{}.tar", std::process::id()));
    let output = Command::new(mmdebstrap)
        .args(["--quiet", "--variant=apt", "--dpkgopt=path-exclude=/usr/share/doc/*", "bookworm"])
        .arg(&unfinished)
        .output()
        .expect("run mmdebstrap");
    if !output.status.success() {
        let _ = fs::remove_file(&unfinished);
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().last().unwrap_or("no message").to_owned();
        return Err(format!("mmdebstrap makes no Debian root: {last}"));
    }
    fs::rename(&unfinished, &path).expect("keep the root");
    Ok(path)
}

/// `sha256:…` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// This machine, as images name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
