use std::io::{Read, Write};

use super::*;
use crate::reference::Reference;
use crate::testing::Scratch;

fn open(scratch: &Scratch) -> Store {
    Store::open(scratch.path()).unwrap()
}

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn add_image(store: &Store, layer: &[u8]) -> Image {
    let desc = store.put_bytes(media_type::OCI_LAYER, layer).unwrap();
    let mut config = ImageConfig::new(&Platform::host());
    config.add_layer(&desc.digest, serde_json::json!({"created_by": "test"}));
    store.add_image(&config, vec![desc]).unwrap()
}

fn temp_files(store: &Store) -> usize {
    std::fs::read_dir(store.davit().join("tmp")).unwrap().count()
}

#[test]
fn opening_creates_nothing() {
    let scratch = Scratch::new("open");
    assert!(open(&scratch).list().unwrap().is_empty());
    assert!(!scratch.path().exists());
}

#[test]
fn refuses_a_directory_of_somebody_else() {
    let scratch = Scratch::new("foreign");
    std::fs::create_dir(scratch.path()).unwrap();
    std::fs::write(scratch.path().join("thesis.tex"), "x").unwrap();
    let e = Store::open(scratch.path()).unwrap_err().to_string();
    assert!(e.contains("not an OCI image layout") && e.contains("thesis.tex"), "{e}");
}

#[test]
fn a_blob_comes_back() {
    let scratch = Scratch::new("blob");
    let store = open(&scratch);
    let desc = store.put_bytes("a/b", b"hello").unwrap();
    assert_eq!(store.read_blob(&desc).unwrap(), b"hello");
    assert_eq!(store.put_bytes("a/b", b"hello").unwrap(), desc);
    assert_eq!(temp_files(&store), 0);
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let scratch = Scratch::new("drop");
    let store = open(&scratch);
    let mut writer = store.add_blob().unwrap();
    writer.write_all(b"half").unwrap();
    assert_eq!(temp_files(&store), 1);
    drop(writer);
    assert_eq!(temp_files(&store), 0);
    assert_eq!(std::fs::read_dir(scratch.path().join("blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn a_damaged_blob_is_never_read_to_its_end() {
    let scratch = Scratch::new("damaged");
    let store = open(&scratch);
    let desc = store.put_bytes("a/b", b"hello").unwrap();
    let path = store.blob_path(&desc.digest);

    std::fs::write(&path, b"hellO").unwrap();
    let e = store.read_blob(&desc).unwrap_err().to_string();
    assert!(e.contains("another digest"), "{e}");

    std::fs::write(&path, b"hell").unwrap();
    let e = store.read_blob(&desc).unwrap_err().to_string();
    assert!(e.contains("4 bytes, but its descriptor says 5"), "{e}");

    store.put_bytes("a/b", b"hello").unwrap();
    assert_eq!(store.read_blob(&desc).unwrap(), b"hello");
}

#[test]
fn the_reader_stops_at_the_promised_size() {
    let desc = Descriptor::of("a/b", b"hello");
    let check = |bytes: &[u8]| {
        let mut out = Vec::new();
        let e = VerifyingReader::new(bytes, &desc).read_to_end(&mut out).unwrap_err();
        Error::from(e).to_string()
    };
    assert!(check(b"hello!").contains("longer than the 5 bytes"));
    assert!(check(b"hell").contains("truncated: 4 bytes"));
    assert!(check(b"jello").contains("another digest"));
}

#[test]
fn put_reader_stores_only_what_was_promised() {
    let scratch = Scratch::new("reader");
    let store = open(&scratch);
    let desc = Descriptor::of("a/b", b"hello");
    assert!(store.put_reader(&desc, &b"jello"[..]).is_err());
    assert!(!store.has_blob(&desc));
    assert_eq!(temp_files(&store), 0);
    store.put_reader(&desc, &b"hello"[..]).unwrap();
    assert!(store.has_blob(&desc));
}

#[test]
fn names_resolve_move_and_vanish() {
    let scratch = Scratch::new("names");
    let store = open(&scratch);
    let (a, b) = (add_image(&store, b"a"), add_image(&store, b"b"));
    store.tag(&name("x"), &a.descriptor).unwrap();
    store.tag(&name("y:1"), &a.descriptor).unwrap();
    store.tag(&name("x"), &b.descriptor).unwrap();
    assert_eq!(store.resolve(&name("x")).unwrap().unwrap().digest, b.descriptor.digest);
    let by_digest = name(&format!("y@{}", a.descriptor.digest));
    assert_eq!(store.resolve(&by_digest).unwrap().unwrap().digest, a.descriptor.digest);
    assert_eq!(store.list().unwrap().len(), 2);
    assert!(store.untag(&name("x")).unwrap());
    assert!(!store.untag(&name("x")).unwrap());
    assert!(store.resolve(&name("x")).unwrap().is_none());
}

#[test]
fn an_image_without_a_name_is_kept_until_it_has_one() {
    let scratch = Scratch::new("nameless");
    let store = open(&scratch);
    let image = add_image(&store, b"a");
    store.keep(&image.descriptor).unwrap();
    store.keep(&image.descriptor).unwrap();
    assert_eq!((store.entries().unwrap().len(), store.list().unwrap().len()), (1, 0));
    store.tag(&name("x"), &image.descriptor).unwrap();
    store.keep(&image.descriptor).unwrap();
    assert_eq!((store.entries().unwrap().len(), store.list().unwrap().len()), (1, 1));
    store.untag_digest(&image.descriptor.digest).unwrap();
    assert!(store.entries().unwrap().is_empty());
}

#[test]
fn finds_by_name_and_by_digest() {
    let scratch = Scratch::new("find");
    let store = open(&scratch);
    let image = add_image(&store, b"a");
    store.tag(&name("x"), &image.descriptor).unwrap();
    for text in [
        "x",
        &image.descriptor.digest.to_string(),
        image.descriptor.digest.short(),
        image.manifest.config.digest.short(),
    ] {
        assert_eq!(store.find(text).unwrap().1.digest, image.descriptor.digest, "{text}");
    }
    let e = store.find("nope").unwrap_err();
    assert!(e.to_string().starts_with("no image \"nope:latest\" in the store "), "{e}");
    assert_eq!(e.kind(), crate::error::Kind::NotFound);
}

#[test]
fn an_image_is_chosen_from_an_index() {
    let scratch = Scratch::new("index");
    let store = open(&scratch);
    let image = add_image(&store, b"a");
    let mut here = image.descriptor.clone();
    here.platform = Some(Platform::host());
    let mut away = Descriptor::of(media_type::OCI_MANIFEST, b"elsewhere");
    away.platform = Some(Platform::parse("linux/s390x").unwrap());
    let index = Index::new(vec![away, here]);
    let desc = store.put_bytes(media_type::OCI_INDEX, index.bytes()).unwrap();
    let found = store.image(&desc, &Platform::host()).unwrap();
    assert_eq!(found.descriptor.digest, image.descriptor.digest);
    assert_eq!(found.layers().count(), 1);
    let e = store.image(&desc, &Platform::parse("linux/s390x").unwrap()).unwrap_err().to_string();
    assert!(e.contains("not in the store"), "{e}");
}

#[test]
fn gc_keeps_what_is_named_and_rooted() {
    let scratch = Scratch::new("gc");
    let store = open(&scratch);
    let (kept, rooted, lost) =
        (add_image(&store, b"a"), add_image(&store, b"b"), add_image(&store, b"c"));
    store.tag(&name("x"), &kept.descriptor).unwrap();
    store.set_root("build", std::slice::from_ref(&rooted.descriptor)).unwrap();
    std::fs::write(store.davit().join("tmp/1-1"), "leftover").unwrap();
    let collected = store.collect(false).unwrap().unwrap();
    assert_eq!(collected.files, 4);
    let store = open(&scratch);
    assert!(store.image(&kept.descriptor, &Platform::host()).is_ok());
    assert!(store.image(&rooted.descriptor, &Platform::host()).is_ok());
    assert!(!store.has_blob(&lost.descriptor) && !store.has_blob(&lost.manifest.layers[0]));
}

#[test]
fn gc_waits_for_those_who_use_the_store() {
    let scratch = Scratch::new("busy");
    let store = open(&scratch);
    let image = add_image(&store, b"a");
    assert_eq!(open(&scratch).collect(false).unwrap(), None);
    assert!(store.has_blob(&image.descriptor));
    drop(store);
    assert_eq!(open(&scratch).collect(false).unwrap().unwrap().files, 3);
}

#[test]
fn many_writers_lose_no_name() {
    let scratch = Scratch::new("race");
    let store = open(&scratch);
    let image = add_image(&store, b"a");
    std::thread::scope(|s| {
        for i in 0..8 {
            let (scratch, image) = (&scratch, &image);
            s.spawn(move || {
                let store = open(scratch);
                for j in 0..8 {
                    store.tag(&name(&format!("x{i}:{j}")), &image.descriptor).unwrap();
                }
            });
        }
    });
    assert_eq!(store.list().unwrap().len(), 64);
}
