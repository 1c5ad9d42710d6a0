use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::descriptor::{Descriptor, media_type};
use crate::image::{Image, ImageConfig, Index};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::testing::Scratch;

struct World {
    scratch: Scratch,
    image: Image,
}

/// A store with the image `x` of one gzip layer.
fn world(name: &str) -> World {
    let scratch = Scratch::new(name);
    let store = Store::open(scratch.path()).unwrap();
    let image = add(&store, b"a layer", media_type::OCI_LAYER_GZIP);
    store.tag(&Reference::parse("x").unwrap(), &image.descriptor).unwrap();
    World { scratch, image }
}

fn add(store: &Store, layer: &[u8], media_type: &str) -> Image {
    let mut config = ImageConfig::new(&Platform::host());
    config.add_layer(&Digest::sha256(layer), json!({}));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(layer).unwrap();
    let layer = store.put_bytes(media_type, &gzip.finish().unwrap()).unwrap();
    store.add_image(&config, vec![layer]).unwrap()
}

impl World {
    fn store(&self) -> Store {
        Store::open(self.scratch.path()).unwrap()
    }

    fn report(&self) -> Report {
        verify(&self.store(), &Progress::new(true)).unwrap()
    }

    fn path(&self, blob: &Descriptor) -> PathBuf {
        self.store().blob_path(&blob.digest)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.scratch.path().join(path)
    }

    /// The only damage.
    fn damage(&self) -> Damage {
        let report = self.report();
        assert_eq!(report.damage.len(), 1, "{report:?}");
        report.damage[0].clone()
    }
}

fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_whole_store_is_whole() {
    let world = world("verify-whole");
    let report = world.report();
    assert_eq!((report.images, report.blobs, report.absent), (1, 3, 0));
    assert!(report.damage.is_empty() && report.leftovers.is_empty(), "{report:?}");
}

#[test]
fn each_changed_blob_is_named_with_its_image_and_repaired() {
    for kind in ["manifest", "config", "layer"] {
        let world = world(&format!("verify-{kind}"));
        let blob = match kind {
            "manifest" => &world.image.descriptor,
            "config" => &world.image.manifest.config,
            _ => &world.image.manifest.layers[0],
        };
        spoil(&world.path(blob));
        let damage = world.damage();
        assert_eq!(damage.what, place(&blob.digest));
        assert!(damage.why.contains("another digest"), "{damage:?}");
        assert_eq!(Vec::from_iter(&damage.used_by), ["x:latest"]);

        let (store, report) = (world.store(), world.report());
        store.lock_exclusively().unwrap();
        assert_eq!(repair(&store, &report).unwrap(), [damage.what]);
        assert!(!store.has_blob(blob));
        drop(store);
        // It is gone, so a pull fetches it; what it pointed at stays.
        assert_eq!(world.damage().why, "it is missing");
        assert!(world.report().leftovers.is_empty());
    }
}

#[test]
fn sizes_and_missing_blobs_are_found() {
    let world = world("verify-size");
    let layer = &world.image.manifest.layers[0];
    std::fs::File::options().append(true).open(world.path(layer)).unwrap().write_all(b"x").unwrap();
    assert!(world.report().damage.iter().any(|d| d.why.contains("bytes, but its descriptor says")));
    std::fs::remove_file(world.path(layer)).unwrap();
    assert_eq!(world.damage().why, "it is missing");
}

#[test]
fn a_layer_must_be_what_the_configuration_and_its_type_say() {
    let world = world("verify-diffid");
    let store = world.store();
    let mut config = ImageConfig::new(&Platform::host());
    config.add_layer(&Digest::sha256(b"something else"), json!({}));
    let image = store.add_image(&config, world.image.manifest.layers.clone()).unwrap();
    store.tag(&Reference::parse("y").unwrap(), &image.descriptor).unwrap();
    assert!(world.damage().why.contains("but its image says"));
    store.untag(&Reference::parse("y").unwrap()).unwrap();

    let image = add(&store, b"a layer", media_type::OCI_LAYER_ZSTD);
    store.tag(&Reference::parse("z").unwrap(), &image.descriptor).unwrap();
    assert!(world.damage().why.starts_with("its content is gzip, but its media type"));
}

#[test]
fn a_document_of_both_kinds_is_found() {
    let world = world("verify-confusion");
    let store = world.store();
    let both = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
    let both = store.put_bytes(media_type::OCI_INDEX, both).unwrap();
    store.tag(&Reference::parse("both").unwrap(), &both).unwrap();
    let damage = world.damage();
    assert!(damage.why.contains("it holds both"), "{damage:?}");
    assert!(!damage.removable);
}

#[test]
fn what_nobody_needs_is_left_over_and_removed() {
    let world = world("verify-litter");
    let store = world.store();
    let orphan = store.put_bytes("a/b", b"orphan").unwrap();
    std::fs::write(world.at("davit/tmp/1-1"), "half").unwrap();
    std::fs::write(world.at("blobs/sha256/rubbish"), "x").unwrap();
    std::fs::create_dir_all(world.at("davit/snapshots/user/sha256-00.tmp/fs")).unwrap();
    let mut half = store.add_blob().unwrap();
    half.write_all(b"being written").unwrap();

    let report = world.report();
    assert!(report.damage.is_empty(), "{report:?}");
    let mut found: Vec<String> =
        report.leftovers.iter().map(|l| l.what.display().to_string()).collect();
    found.sort();
    let orphan = place(&orphan.digest).display().to_string();
    let tmp = "davit/snapshots/user/sha256-00.tmp";
    assert_eq!(found, [&orphan, "blobs/sha256/rubbish", tmp, "davit/tmp/1-1"]);
    repair(&store, &report).unwrap();
    assert!(world.report().leftovers.is_empty());
    half.commit().unwrap();
}

#[test]
fn a_download_that_was_cut_off_is_neither_damaged_nor_left_over() {
    let world = world("verify-begun");
    let store = world.store();
    let blob = Descriptor::of(media_type::OCI_LAYER, b"arrives in pieces");
    let mut writer = store.resume_blob(&blob).unwrap();
    writer.write_all(b"arrives").unwrap();
    assert!(world.report().begun.is_empty(), "somebody is writing it");
    writer.leave();
    let odd = world.at("davit/tmp/part-sha256-0123");
    std::fs::write(&odd, "x").unwrap();

    let report = world.report();
    let what = PathBuf::from(format!("davit/tmp/part-sha256-{}", blob.digest.hex()));
    let begun = Begun { what: what.clone(), blob: blob.digest.clone(), bytes: 7 };
    assert_eq!((&report.begun[..], report.damage.len()), (&[begun][..], 0), "{report:?}");
    assert_eq!(report.leftovers.len(), 1, "{report:?}");
    assert_eq!(repair(&store, &report).unwrap(), [Path::new("davit/tmp/part-sha256-0123")]);

    // Where it was left, it goes on.
    let mut writer = store.resume_blob(&blob).unwrap();
    writer.write_all(b" in pieces").unwrap();
    assert_eq!(writer.commit().unwrap().0, blob.digest);
    assert!(!world.at(what.to_str().unwrap()).exists());
}

#[test]
fn an_orphan_that_lies_is_damage() {
    let world = world("verify-liar");
    let orphan = world.store().put_bytes("a/b", b"orphan").unwrap();
    spoil(&world.path(&orphan));
    // A pull would take it for what its name says.
    assert!(world.damage().why.contains("another digest"));
}

#[test]
fn images_of_other_platforms_may_be_absent() {
    let world = world("verify-index");
    let store = world.store();
    let away = Descriptor::of(media_type::OCI_MANIFEST, b"elsewhere");
    let index = Index::new(vec![world.image.descriptor.clone(), away]);
    let index = store.put_bytes(media_type::OCI_INDEX, index.bytes()).unwrap();
    store.tag(&Reference::parse("multi").unwrap(), &index).unwrap();
    let report = world.report();
    assert!(report.damage.is_empty(), "{report:?}");
    assert_eq!(report.absent, 1);
}

#[test]
fn caches_are_checked() {
    let world = world("verify-caches");
    let (store, layer) = (world.store(), world.image.manifest.layers[0].clone());
    let id = Digest::sha256(b"a layer");
    store.remember_compressed(&id, &layer).unwrap();
    assert!(world.report().damage.is_empty());
    let other = Digest::sha256(b"another layer");
    store.remember_compressed(&other, &layer).unwrap();
    assert!(world.damage().why.contains("uncompressed it has digest"));
    std::fs::write(world.at(&format!("davit/compressed/{}", other.hex())), "{").unwrap();
    assert!(world.damage().why.starts_with("no descriptor"));
    std::fs::remove_file(world.at(&format!("davit/compressed/{}", other.hex()))).unwrap();

    let snapshot = world.at(&format!("davit/snapshots/trusted/sha256-{}", id.hex()));
    std::fs::create_dir_all(snapshot.join("fs")).unwrap();
    std::fs::write(snapshot.join("info.json"), json!({"diff_id": id}).to_string()).unwrap();
    assert!(world.report().damage.is_empty());
    std::fs::write(snapshot.join("info.json"), json!({"diff_id": other}).to_string()).unwrap();
    assert!(world.damage().why.contains("its name says another"));
    std::fs::remove_dir(snapshot.join("fs")).unwrap();
    std::fs::write(snapshot.join("info.json"), json!({"diff_id": id}).to_string()).unwrap();
    assert_eq!(world.damage().why, "it has no tree");
}

#[test]
fn a_broken_index_is_named_and_nothing_is_taken_for_left_over() {
    let world = world("verify-names");
    std::fs::write(world.at("index.json"), "{").unwrap();
    let damage = world.damage();
    assert_eq!((damage.what.to_str(), damage.removable), (Some("index.json"), false));
    assert!(world.report().leftovers.is_empty());
}
