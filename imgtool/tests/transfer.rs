//! Downloads and uploads that break, stall, are killed and are continued.

mod client;
mod server;

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use client::{LAYER, Scratch, add_image, command, fill, imgtool, succeeds};
use imgtool::descriptor::{Descriptor, media_type};
use imgtool::digest::Digest;
use imgtool::image::{ImageConfig, Manifest};
use imgtool::platform::Platform;
use imgtool::store::Store;
use server::{Model, Reply, Request, Server};

fn layer_path() -> String {
    format!("/blobs/{}", Digest::sha256(LAYER))
}

/// A registry with an image behind a handler that may answer instead.
fn serving(
    lie: impl Fn(&Request, &Model) -> Option<Reply> + Send + Sync + 'static,
) -> (Server, Arc<Model>, String) {
    let model = Arc::new(Model::default());
    add_image(&model);
    let inner = model.clone();
    let server = Server::start(move |r| lie(r, &inner).or_else(|| inner.serve(r)));
    let name = format!("{}/a/b:1", server.address);
    (server, model, name)
}

fn pull(scratch: &Scratch, name: &str) {
    succeeds(scratch, &["pull", name]);
    let store = Store::open(scratch.store()).unwrap();
    let layer = Descriptor::of(media_type::OCI_LAYER, LAYER);
    assert_eq!(store.read_blob(&layer).unwrap(), LAYER);
    assert_eq!(std::fs::read_dir(scratch.store().join("davit/tmp")).unwrap().count(), 0);
}

fn part(scratch: &Scratch) -> PathBuf {
    let name = format!("davit/tmp/part-sha256-{}", Digest::sha256(LAYER).hex());
    scratch.store().join(name)
}

#[test]
fn a_killed_pull_continues() {
    let stalled = AtomicU32::new(0);
    let (server, _, name) = serving(move |r, _| {
        let first = r.is("GET", &layer_path()) && stalled.fetch_add(1, Ordering::Relaxed) == 0;
        let stall = Some(Duration::from_secs(20));
        first.then(|| Reply { cut: Some(10), stall, ..Reply::new(200).body(LAYER) })
    });
    let scratch = Scratch::new();
    let mut child = command(&scratch, &["pull", &name]).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while std::fs::metadata(part(&scratch)).map_or(0, |m| m.len()) < 10 {
        assert!(start.elapsed() < Duration::from_secs(20), "nothing has arrived");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    pull(&scratch, &name);
    let asked = server.requests("GET", &layer_path());
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].header("range"), Some("bytes=10-"));
}

#[test]
fn what_is_left_of_a_pull_may_be_damaged_or_in_use() {
    for (left, requests) in [(&b"xxxxxxxxxx"[..], 2), (&[b'x'; 100], 1), (&LAYER[..44], 1)] {
        let (server, _, name) = serving(|_, _| None);
        let scratch = Scratch::new();
        Store::open(scratch.store()).unwrap().private_dir("tmp").unwrap();
        std::fs::write(part(&scratch), left).unwrap();
        pull(&scratch, &name);
        assert_eq!(server.requests("GET", &layer_path()).len(), requests, "{left:?}");
    }
    let (server, _, name) = serving(|_, _| None);
    let scratch = Scratch::new();
    let store = Store::open(scratch.store()).unwrap();
    let layer = Descriptor::of(media_type::OCI_LAYER, LAYER);
    let theirs = store.resume_blob(&layer).unwrap();
    succeeds(&scratch, &["pull", &name]);
    assert!(part(&scratch).exists(), "the part that another process writes was taken");
    drop(theirs);
    assert!(server.requests("GET", &layer_path())[0].header("range").is_none());
}

#[test]
fn what_a_pull_that_gave_up_has_is_kept() {
    let (_server, model, name) = serving(|r, _| {
        let part = r.is("GET", &layer_path()) && r.header("range").is_none();
        let broken = Reply { cut: Some(20), ..Reply::new(200).body(LAYER) };
        let busy = r.is("GET", &layer_path()).then(|| Reply::new(503).header("Retry-After", "0"));
        if part { Some(broken) } else { busy }
    });
    let scratch = Scratch::new();
    let output = imgtool(&scratch, &["pull", &name]);
    let e = String::from_utf8(output.stderr).unwrap();
    assert!(e.contains("gave up after 5 attempts") && e.contains("503"), "{e}");
    assert_eq!(std::fs::read(part(&scratch)).unwrap(), &LAYER[..20]);
    let honest = Server::start(move |r| model.serve(r));
    pull(&scratch, &format!("{}/a/b:1", honest.address));
    assert_eq!(honest.requests("GET", &layer_path())[0].header("range"), Some("bytes=20-"));
}

/// The layer breaks off once; what then is asked for by Range gets this.
fn answering_ranges(range: impl Fn() -> Reply + Send + Sync + 'static) -> Server {
    let count = AtomicU32::new(0);
    let (server, _, name) = serving(move |r, _| {
        if !r.is("GET", &layer_path()) {
            return None;
        }
        match r.header("range") {
            Some(_) => Some(range()),
            None if count.fetch_add(1, Ordering::Relaxed) == 0 => {
                Some(Reply { cut: Some(10), ..Reply::new(200).body(LAYER) })
            }
            None => None,
        }
    });
    pull(&Scratch::new(), &name);
    server
}

#[test]
fn a_registry_that_gets_ranges_wrong_is_asked_for_everything() {
    answering_ranges(|| Reply::new(416));
    answering_ranges(|| Reply::new(206).header("Content-Range", "bytes 5-43/44").body(&LAYER[5..]));
    answering_ranges(|| Reply::new(206).body(&LAYER[10..]));
}

#[test]
fn a_silent_registry_is_given_up() {
    let (_server, _, name) = serving(|r, _| {
        let stall = Some(Duration::from_secs(30));
        r.is("GET", &layer_path()).then(|| Reply {
            cut: Some(10),
            stall,
            ..Reply::new(200).body(LAYER)
        })
    });
    let start = Instant::now();
    let output = imgtool(&Scratch::new(), &["pull", "--timeout", "1", &name]);
    assert_eq!(output.status.code(), Some(1));
    let e = String::from_utf8(output.stderr).unwrap();
    assert!(e.contains("gave up after 5 attempts") && e.contains("imed out"), "{e}");
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
}

#[test]
fn busy_registries_say_when_to_come_back() {
    let count = AtomicU32::new(0);
    let (_server, _, name) = serving(move |r, _| {
        let busy = r.is("GET", &layer_path()) && count.fetch_add(1, Ordering::Relaxed) < 1;
        busy.then(|| Reply::new(503).header("Retry-After", "2"))
    });
    let start = Instant::now();
    pull(&Scratch::new(), &name);
    assert!(start.elapsed() >= Duration::from_secs(2));
}

/// An image of one large layer under the tag `big`; returns the layer.
fn add_big(model: &Model, size: usize) -> Vec<u8> {
    let layer: Vec<u8> = (0..size).map(|i| (i / 7 % 251) as u8 ^ (i >> 16) as u8).collect();
    let mut config = ImageConfig::new(&Platform::host());
    config.add_layer(&Digest::sha256(&layer), serde_json::json!({}));
    let config = config.to_bytes();
    model.add_blob(&config);
    model.add_blob(&layer);
    let manifest = Manifest::new(
        Descriptor::of(media_type::OCI_CONFIG, &config),
        vec![Descriptor::of(media_type::OCI_LAYER, &layer)],
    );
    model.add_manifest("big", media_type::OCI_MANIFEST, manifest.bytes());
    layer
}

#[test]
fn a_large_blob_comes_in_pieces() {
    const SIZE: usize = (33 << 20) + 1234;
    let model = Arc::new(Model::default());
    let layer = add_big(&model, SIZE);
    let inner = model.clone();
    let count = AtomicU32::new(0);
    let path = format!("/blobs/{}", Digest::sha256(&layer));
    let asked = path.clone();
    // The third piece breaks off: what is written before it stays, the rest comes as one.
    let server = Server::start(move |r| {
        let reply = inner.serve(r)?;
        let third = r.is("GET", &asked) && count.fetch_add(1, Ordering::Relaxed) == 2;
        Some(Reply { cut: third.then_some(1000), ..reply })
    });
    let scratch = Scratch::new();
    let name = format!("{}/a:big", server.address);
    succeeds(&scratch, &["pull", "--jobs", "8", &name]);
    let store = Store::open(scratch.store()).unwrap();
    let blob = Descriptor::of(media_type::OCI_LAYER, &layer);
    assert_eq!(std::fs::read(store.blob_path(&blob.digest)).unwrap(), layer);
    let ranges = server.requests("GET", &path);
    assert!(ranges.len() >= 4, "{}", ranges.len());
    assert!(ranges.iter().all(|r| r.header("range").is_some()), "it was asked for from the start");
    // A registry without ranges gives it as one.
    let inner = model.clone();
    let plain = Server::start(move |r| {
        let mut r = r.clone();
        r.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("range"));
        inner.serve(&r)
    });
    succeeds(&Scratch::new(), &["pull", "--jobs", "8", &format!("{}/a:big", plain.address)]);
}

#[test]
fn an_upload_in_pieces_continues_where_the_registry_says() {
    let model = Arc::new(Model::default());
    let inner = model.clone();
    let server = Server::start(move |r| inner.serve(r));
    *server.break_body_at.lock().unwrap() = Some(7);
    let scratch = Scratch::new();
    fill(&scratch);
    let to = format!("{}/p:1", server.address);
    let args = ["push", "--uncompressed", "--jobs", "1", "--chunk-size", "50", "x:1", &to];
    succeeds(&scratch, &args);
    let patches = server.requests("PATCH", "/blobs/uploads/");
    let ranges: Vec<&str> = patches.iter().filter_map(|r| r.header("content-range")).collect();
    assert_eq!(ranges[..3], ["0-49", "7-56", "57-106"], "the first piece broke after 7 bytes");
    assert!(model.blobs.lock().unwrap().contains_key(&Digest::sha256(LAYER).to_string()));
}

#[test]
fn an_upload_continues_after_the_last_piece_that_was_acknowledged() {
    // As docker-registry 2.8: status 0-0 for everybody, the offset is in the Location's state,
    // and Content-Range is not read.
    let have = Arc::new(std::sync::Mutex::new(Vec::<u8>::new()));
    let broken = AtomicU32::new(0);
    let (inner, model) = (have.clone(), Model::default());
    let server = Server::start(move |r| {
        let state =
            r.target.split("_state=").nth(1).and_then(|s| s.split('&').next()?.parse().ok());
        let mut bytes = inner.lock().unwrap();
        let at = |n: usize| format!("/v2/p/blobs/uploads/u?_state={n}");
        match &*r.method {
            "POST" => {
                bytes.clear();
                Some(Reply::new(202).header("Location", at(0)))
            }
            "PATCH" if state != Some(bytes.len()) => Some(Reply::new(400)),
            // The second piece of the first upload is lost whole.
            "PATCH" if bytes.len() == 20 && broken.fetch_add(1, Ordering::Relaxed) == 0 => None,
            "PATCH" => {
                bytes.extend(&r.body);
                Some(
                    Reply::new(202)
                        .header("Location", at(bytes.len()))
                        .header("Range", format!("0-{}", bytes.len() - 1)),
                )
            }
            "GET" if r.target.contains("/uploads/") => {
                Some(Reply::new(204).header("Location", at(0)).header("Range", "0-0"))
            }
            "PUT" if r.target.contains("/uploads/") => Some(Reply::new(201)),
            _ => model.serve(r),
        }
    });
    let scratch = Scratch::new();
    fill(&scratch);
    let to = format!("{}/p:1", server.address);
    succeeds(
        &scratch,
        &["push", "--uncompressed", "--jobs", "1", "--chunk-size", "20", "x:1", &to],
    );
    let begun = server.requests("POST", "/blobs/uploads/").len();
    assert_eq!(begun, 2, "one for each blob: none began again");
    assert_eq!(*have.lock().unwrap(), LAYER);
}

#[test]
fn an_upload_that_cannot_continue_begins_again() {
    let model = Arc::new(Model::default());
    let inner = model.clone();
    let refused = AtomicU32::new(0);
    let server = Server::start(move |r| {
        let resumed = r.header("content-range").is_some_and(|c| !c.starts_with("0-"));
        let first = r.is("PATCH", "") && resumed && refused.fetch_add(1, Ordering::Relaxed) == 0;
        if first { Some(Reply::new(416)) } else { inner.serve(r) }
    });
    *server.break_body_at.lock().unwrap() = Some(7);
    let scratch = Scratch::new();
    fill(&scratch);
    let to = format!("{}/p:1", server.address);
    succeeds(&scratch, &["push", "--uncompressed", "--jobs", "1", "x:1", &to]);
    assert_eq!(server.requests("POST", "/blobs/uploads/").len(), 3);
}

#[test]
fn registries_may_want_larger_pieces() {
    let model = Arc::new(Model::default());
    let inner = model.clone();
    let server = Server::start(move |r| {
        let reply = inner.serve(r)?;
        Some(if r.method == "POST" { reply.header("OCI-Chunk-Min-Length", "30") } else { reply })
    });
    let scratch = Scratch::new();
    fill(&scratch);
    let to = format!("{}/p:1", server.address);
    succeeds(&scratch, &["push", "--uncompressed", "--jobs", "1", "--chunk-size", "1", "x:1", &to]);
    let patches = server.requests("PATCH", "");
    let last = patches.iter().rev().take(2).map(|r| r.body.len()).collect::<Vec<_>>();
    assert_eq!(last, [14, 30]);
}

/// A file that says where the images of `r.example` are.
fn registries_conf(scratch: &Scratch, text: &str) -> String {
    let path = scratch.0.join("registries.conf");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn mirrors_are_asked_first_and_the_registry_last() {
    let (own, model, _) = serving(|_, _| None);
    let empty = Server::start(|r| Some(Reply::new(if r.target == "/v2/" { 200 } else { 404 })));
    let inner = model.clone();
    let mirror = Server::start(move |r| inner.serve(r));
    let scratch = Scratch::new();
    let conf = |mirrors: &[&Server]| {
        let table = |s: &&Server| format!("[[registry.mirror]]\nlocation = \"{}/m\"\n", s.address);
        let mirrors: String = mirrors.iter().map(table).collect();
        let text = format!(
            "[[registry]]\nprefix = \"r.example\"\nlocation = \"{}\"\n{mirrors}",
            own.address
        );
        registries_conf(&scratch, &text)
    };
    let name = "r.example/a/b:1";
    let digest = Digest::sha256(&model.manifests.lock().unwrap()["1"].1);
    let said = succeeds(&scratch, &["pull", "--registries-conf", &conf(&[&empty, &mirror]), name]);
    assert_eq!(said, format!("{name}@{digest}\n"), "the name changed");
    assert_eq!(empty.requests("HEAD", "/v2/m/a/b/manifests/1").len(), 1);
    assert!(!mirror.requests("GET", "/v2/m/a/b/blobs/").is_empty());
    assert!(own.requests("GET", "").is_empty(), "the registry was asked though a mirror has it");
    let file = conf(&[&empty]);
    succeeds(
        &scratch,
        &["copy", "--registries-conf", &file, &format!("docker://{name}"), "store:y:1"],
    );
    assert!(!own.requests("GET", "/v2/a/b/manifests/1").is_empty());
    // What is pushed goes to the registry itself.
    succeeds(
        &scratch,
        &["push", "--uncompressed", "--registries-conf", &file, "y:1", "r.example/p:2"],
    );
    assert_eq!(own.requests("PUT", "/v2/p/manifests/2").len(), 1);
}

#[test]
fn a_blocked_registry_is_not_asked() {
    let (server, _, name) = serving(|_, _| None);
    let scratch = Scratch::new();
    let text = format!("[[registry]]\nlocation = \"{}/a\"\nblocked = true\n", server.address);
    let file = registries_conf(&scratch, &text);
    let output = imgtool(&scratch, &["pull", "--registries-conf", &file, &name]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("registries.conf blocks"));
    assert!(server.requests("GET", "").is_empty());
    let output = imgtool(&scratch, &["pull", "--registries-conf", "/nonexistent", &name]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("read /nonexistent"));
}
