//! What tests of the program share: a directory each, the program itself, and a small image.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use imgtool::descriptor::{Descriptor, media_type};
use imgtool::digest::Digest;
use imgtool::image::{ImageConfig, Manifest};
use imgtool::platform::Platform;
use imgtool::reference::Reference;
use imgtool::store::Store;

use crate::server::Model;

/// A directory that goes away with its test.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("imgtool-registry-{}-{n}", std::process::id()));
        drop(std::fs::remove_dir_all(&dir));
        std::fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The program with an environment of its own.
pub fn command(scratch: &Scratch, args: &[&str]) -> Command {
    let temporary = scratch.0.join("tmp");
    std::fs::create_dir_all(&temporary).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_imgtool"));
    command.env_clear().env("TMPDIR", temporary).env("HOME", &scratch.0);
    command.env("XDG_RUNTIME_DIR", scratch.0.join("run")).env("DAVIT_STORE", scratch.store());
    command.args(args);
    command
}

pub fn imgtool(scratch: &Scratch, args: &[&str]) -> Output {
    command(scratch, args).output().unwrap()
}

/// Runs it with this on its standard input.
pub fn with_input(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

pub fn succeeds(scratch: &Scratch, args: &[&str]) -> String {
    let output = imgtool(scratch, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

pub const LAYER: &[u8] = b"not really a tar, but nobody unpacks it here";

/// An image in the model, under the tag `1`; returns its manifest's digest.
pub fn add_image(model: &Model) -> String {
    let (config, layer) = image_parts();
    model.add_blob(&config);
    model.add_blob(LAYER);
    let manifest = Manifest::new(Descriptor::of(media_type::OCI_CONFIG, &config), vec![layer]);
    model.add_manifest("1", media_type::OCI_MANIFEST, manifest.bytes())
}

pub fn image_parts() -> (Vec<u8>, Descriptor) {
    let mut config = ImageConfig::new(&Platform::host());
    config.add_layer(&Digest::sha256(LAYER), serde_json::json!({}));
    (config.to_bytes(), Descriptor::of(media_type::OCI_LAYER, LAYER))
}

/// A store with one image named `x:1`, of one uncompressed layer.
pub fn fill(scratch: &Scratch) -> Digest {
    let store = Store::open(scratch.store()).unwrap();
    let (config, layer) = image_parts();
    store.put_bytes(media_type::OCI_LAYER, LAYER).unwrap();
    let image = store.add_image(&ImageConfig::parse(&config).unwrap(), vec![layer]).unwrap();
    store.tag(&Reference::parse("x:1").unwrap(), &image.descriptor).unwrap();
    image.descriptor.digest
}
