use std::io::Write;

use super::tar::{Kind, TarReader, TarWriter};
use super::*;
use crate::descriptor::{Descriptor, media_type};
use crate::digest::Digest;
use crate::image::{Image, ImageConfig};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::Store;
use crate::testing::Scratch;

fn store(scratch: &Scratch) -> Store {
    Store::open(scratch.path()).unwrap()
}

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// An image of one plain and one gzip layer.
fn add_image(store: &Store) -> Image {
    let mut config = ImageConfig::new(&Platform::host());
    let (plain, zipped) = (b"plain layer".to_vec(), b"zipped layer".to_vec());
    config.add_layer(&Digest::sha256(&plain), serde_json::json!({}));
    config.add_layer(&Digest::sha256(&zipped), serde_json::json!({}));
    let plain = store.put_bytes(media_type::OCI_LAYER, &plain).unwrap();
    let zipped = store.put_bytes(media_type::OCI_LAYER_GZIP, &gzip(&zipped)).unwrap();
    store.add_image(&config, vec![plain, zipped]).unwrap()
}

fn saved(store: &Store, descriptor: &Descriptor, format: Format) -> Vec<u8> {
    let images = [(Some(name("x:1")), descriptor.clone())];
    save(store, &images, format, &Platform::host(), Vec::new()).unwrap()
}

fn files(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut reader = TarReader::new(tar);
    let mut files = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
        if entry.kind == Kind::File {
            files.push((entry.path, bytes));
        }
    }
    files
}

fn retar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (path, bytes) in files {
        tar.bytes(path, bytes).unwrap();
    }
    tar.finish().unwrap()
}

#[test]
fn layouts_keep_the_manifest_digest() {
    let (a, b) = (Scratch::new("arch-a"), Scratch::new("arch-b"));
    let image = add_image(&store(&a));
    for format in [Format::Both, Format::Oci] {
        let tar = saved(&store(&a), &image.descriptor, format);
        for archive in [tar.clone(), gzip(&tar), zstd::encode_all(&tar[..], 1).unwrap()] {
            let loaded = load(&store(&b), &archive[..]).unwrap();
            assert_eq!(loaded.len(), 1);
            assert_eq!(loaded[0].descriptor, image.descriptor);
        }
    }
    assert_eq!(store(&b).resolve(&name("x:1")).unwrap().unwrap().digest, image.descriptor.digest);
}

#[test]
fn docker_archives_keep_config_and_diff_ids() {
    let (a, b) = (Scratch::new("arch-c"), Scratch::new("arch-d"));
    let image = add_image(&store(&a));
    let tar = saved(&store(&a), &image.descriptor, Format::Docker);
    let loaded = load(&store(&b), &tar[..]).unwrap();
    let again = store(&b).image(&loaded[0].descriptor, &Platform::host()).unwrap();
    assert_eq!(again.manifest.config.digest, image.manifest.config.digest);
    assert!(again.layers().all(|(layer, diff_id)| layer.digest == *diff_id));
}

#[test]
fn saving_twice_gives_the_same_bytes() {
    let a = Scratch::new("arch-e");
    let image = add_image(&store(&a));
    for format in [Format::Both, Format::Oci, Format::Docker] {
        let twice = [(); 2].map(|()| saved(&store(&a), &image.descriptor, format));
        assert_eq!(twice[0], twice[1]);
    }
}

#[test]
fn a_changed_layer_is_refused_and_not_named() {
    let (a, b) = (Scratch::new("arch-f"), Scratch::new("arch-g"));
    let image = add_image(&store(&a));
    for format in [Format::Both, Format::Oci, Format::Docker] {
        let mut files = files(&saved(&store(&a), &image.descriptor, format));
        let layer = files.iter_mut().find(|(_, bytes)| bytes == b"plain layer").unwrap();
        layer.1 = b"PLAIN layer".to_vec();
        let e = load(&store(&b), &retar(&files)[..]).unwrap_err().to_string();
        assert!(e.contains("another digest") || e.contains("has diffID"), "{e}");
    }
    assert!(store(&b).list().unwrap().is_empty());
}

#[test]
fn a_missing_file_is_named() {
    let (a, b) = (Scratch::new("arch-h"), Scratch::new("arch-i"));
    let image = add_image(&store(&a));
    for format in [Format::Both, Format::Docker] {
        let mut files = files(&saved(&store(&a), &image.descriptor, format));
        files.retain(|(_, bytes)| bytes != b"plain layer");
        let e = load(&store(&b), &retar(&files)[..]).unwrap_err().to_string();
        assert!(e.contains("the archive has no "), "{e}");
    }
}

#[test]
fn layers_may_be_links_and_compressed_and_repositories_is_ignored() {
    let (a, b) = (Scratch::new("arch-j"), Scratch::new("arch-k"));
    let image = add_image(&store(&a));
    let mut old = files(&saved(&store(&a), &image.descriptor, Format::Docker));
    old.push(("repositories".into(), b"{}".to_vec()));
    for (path, bytes) in &mut old {
        if path.ends_with(".tar") {
            *bytes = gzip(bytes);
        }
    }
    load(&store(&b), &retar(&old)[..]).unwrap();
    assert_eq!(store(&b).list().unwrap().len(), 1);
}

#[test]
fn rubbish_is_refused() {
    let b = Scratch::new("arch-l");
    let refused = |bytes: &[u8]| load(&store(&b), bytes).unwrap_err().to_string();
    assert!(refused(b"").contains("not an archive of images"));
    assert!(refused(&[b'x'; 600]).contains("header"), "{}", refused(&[b'x'; 600]));
    let empty = |path: &str| retar(&[(path.to_owned(), b"[]".to_vec())]);
    assert!(refused(&empty("a")).contains("neither manifest.json nor index.json"));
    assert!(refused(&empty("repositories")).contains("before Docker 1.10"));
    assert!(refused(&empty("blobs/sha256/xyz")).contains("invalid digest"));
}
