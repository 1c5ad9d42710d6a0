//! `imgtool pull` and `push` against a registry that misbehaves.

mod client;
mod server;

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use client::{LAYER, Scratch, add_image, fill, imgtool, succeeds};
use imgtool::descriptor::media_type;
use imgtool::digest::Digest;
use imgtool::platform::Platform;
use imgtool::reference::Reference;
use imgtool::store::Store;
use server::{Model, Reply, Request, Server};

/// Runs what must fail with one line on stderr and leave nothing behind.
fn fails(scratch: &Scratch, args: &[&str]) -> String {
    let output = imgtool(scratch, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty());
    let errors: Vec<&str> = stderr.lines().filter(|l| l.starts_with("imgtool: ")).collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    if scratch.store().join("davit/tmp").exists() {
        let left = std::fs::read_dir(scratch.store().join("davit/tmp")).unwrap().count();
        assert_eq!(left, 0, "temporary files left");
    }
    assert!(Store::open(scratch.store()).unwrap().list().unwrap().is_empty(), "something is named");
    errors[0].to_owned()
}

fn layer_path() -> String {
    format!("/blobs/{}", Digest::sha256(LAYER))
}

/// A model with an image behind a handler that may answer instead.
fn serving(
    lie: impl Fn(&Request, &Model) -> Option<Reply> + Send + Sync + 'static,
) -> (Server, Arc<Model>, String) {
    let model = Arc::new(Model::default());
    let digest = add_image(&model);
    let inner = model.clone();
    let server = Server::start(move |r| lie(r, &inner).or_else(|| inner.serve(r)));
    (server, model, digest)
}

fn name(server: &Server) -> String {
    format!("{}/a/b:1", server.address)
}

fn pull_fails(lie: impl Fn(&Request, &Model) -> Option<Reply> + Send + Sync + 'static) -> String {
    let (server, ..) = serving(lie);
    fails(&Scratch::new(), &["pull", &name(&server)])
}

fn layer_reply(body: &[u8]) -> Reply {
    Reply::new(200).body(body)
}

#[test]
fn pulls_an_honest_image() {
    let (server, _, digest) = serving(|_, _| None);
    let scratch = Scratch::new();
    let said = succeeds(&scratch, &["pull", &name(&server)]);
    assert_eq!(said, format!("{}@{digest}\n", name(&server)));
    let store = Store::open(scratch.store()).unwrap();
    let entry = store.resolve(&Reference::parse(&name(&server)).unwrap()).unwrap().unwrap();
    let image = store.image(&entry, &Platform::host()).unwrap();
    let mut layer = Vec::new();
    store.open_blob(&image.manifest.layers[0]).unwrap().read_to_end(&mut layer).unwrap();
    assert_eq!(layer, LAYER);
    succeeds(&scratch, &["pull", &name(&server)]);
    assert_eq!(server.requests("GET", &layer_path()).len(), 1, "the second pull fetched it again");
}

#[test]
fn a_blob_of_another_digest_is_refused() {
    let e = pull_fails(|r, _| {
        let mut body = LAYER.to_vec();
        body[0] ^= 1;
        r.is("GET", &layer_path()).then(|| layer_reply(&body))
    });
    assert!(e.contains("its content has another digest"), "{e}");
}

#[test]
fn a_blob_of_another_size_is_refused_at_once() {
    let e = pull_fails(|r, _| {
        r.is("GET", &layer_path()).then(|| layer_reply(&[LAYER, b"more"].concat()))
    });
    assert!(e.contains("offers 48 bytes, but the manifest says 44"), "{e}");
    let e = pull_fails(|r, _| {
        let mut reply = layer_reply(&vec![b'x'; 10 << 20]);
        reply.no_length = true;
        r.is("GET", &layer_path()).then_some(reply)
    });
    assert!(e.contains("longer than the 44 bytes"), "{e}");
}

#[test]
fn a_broken_download_continues_where_it_broke() {
    let broken = AtomicU32::new(0);
    let (server, ..) = serving(move |r, _| {
        let first = r.is("GET", &layer_path()) && broken.fetch_add(1, Ordering::Relaxed) == 0;
        first.then(|| Reply { cut: Some(10), ..layer_reply(LAYER) })
    });
    succeeds(&Scratch::new(), &["pull", &name(&server)]);
    let requests = server.requests("GET", &layer_path());
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].header("range"), Some("bytes=10-"));
}

#[test]
fn a_registry_without_ranges_is_read_from_the_start() {
    let broken = AtomicU32::new(0);
    let (server, ..) = serving(move |r, _| {
        let n = if r.is("GET", &layer_path()) { broken.fetch_add(1, Ordering::Relaxed) } else { 9 };
        match n {
            0 => Some(Reply { cut: Some(10), ..layer_reply(LAYER) }),
            1 => Some(layer_reply(LAYER)),
            _ => None,
        }
    });
    succeeds(&Scratch::new(), &["pull", &name(&server)]);
}

#[test]
fn a_download_that_breaks_forever_is_given_up() {
    let e = pull_fails(|r, _| {
        r.is("GET", &layer_path()).then(|| Reply { cut: Some(0), ..layer_reply(LAYER) })
    });
    assert!(e.contains("gave up after 5 attempts"), "{e}");
}

#[test]
fn too_many_requests_are_spread_out() {
    let count = AtomicU32::new(0);
    let (server, ..) = serving(move |r, _| {
        let busy = r.is("GET", "/manifests/") && count.fetch_add(1, Ordering::Relaxed) == 0;
        busy.then(|| Reply::new(429).header("Retry-After", "1"))
    });
    let start = std::time::Instant::now();
    succeeds(&Scratch::new(), &["pull", &name(&server)]);
    assert!(start.elapsed().as_millis() >= 1000);
}

#[test]
fn a_challenge_is_answered_once() {
    let (server, ..) = serving(|r, _| {
        let challenge = Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\"");
        (r.target != "/v2/").then_some(challenge)
    });
    let scratch = Scratch::new();
    let e = fails(&scratch, &["pull", &name(&server)]);
    assert!(e.contains("wants a user and a password"), "{e}");
    let auth = write_auth(&scratch, &server);
    let e = fails(&scratch, &["pull", "--authfile", auth.to_str().unwrap(), &name(&server)]);
    assert!(e.contains("access denied") && !e.contains("secret"), "{e}");
    assert_eq!(server.requests("GET", "/manifests/").len(), 3);
}

fn write_auth(scratch: &Scratch, server: &Server) -> PathBuf {
    let path = scratch.0.join("auth.json");
    // me:secret
    let json = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"bWU6c2VjcmV0\"}}}}}}", server.address);
    std::fs::write(&path, json).unwrap();
    path
}

#[test]
fn tokens_are_fetched_used_and_kept_to_the_registry() {
    let storage = Server::start(|_| Some(layer_reply(LAYER)));
    let elsewhere = format!("http://localhost:{}/blob?sig=x", storage.address.port());
    let tokens = Server::start(|_| Some(Reply::new(200).body(r#"{"token":"T","expires_in":300}"#)));
    let realm = format!("http://{}/token", tokens.address);
    let (server, ..) = serving(move |r, _| match r.header("authorization") {
        Some("Bearer T") if r.is("GET", &layer_path()) => {
            Some(Reply::new(307).header("Location", elsewhere.clone()))
        }
        Some("Bearer T") => None,
        _ if r.target == "/v2/" => None,
        _ => Some(Reply::new(401).header(
            "WWW-Authenticate",
            format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:a/b:pull\""),
        )),
    });
    let scratch = Scratch::new();
    let auth = write_auth(&scratch, &server);
    succeeds(&scratch, &["pull", "--authfile", auth.to_str().unwrap(), &name(&server)]);
    let asked = tokens.requests("GET", "/token");
    assert_eq!(asked.len(), 1, "the token was not kept");
    assert_eq!(asked[0].header("authorization"), Some("Basic bWU6c2VjcmV0"));
    assert!(asked[0].target.ends_with("?service=s&scope=repository%3Aa%2Fb%3Apull"));
    let stolen = storage.requests("GET", "/blob");
    assert_eq!(stolen.len(), 1);
    assert_eq!(stolen[0].header("authorization"), None, "the token went to another host");
}

#[test]
fn a_token_service_without_tls_elsewhere_is_refused() {
    let e = pull_fails(|r, _| {
        let challenge = "Bearer realm=\"http://tokens.invalid/t\",service=\"s\"";
        (r.target != "/v2/").then(|| Reply::new(401).header("WWW-Authenticate", challenge))
    });
    assert!(
        e.contains("refusing to ask the token service http://tokens.invalid/t without TLS"),
        "{e}"
    );
}

#[test]
fn redirects_do_not_go_on_forever() {
    let e = pull_fails(|r, _| {
        r.is("GET", &layer_path()).then(|| Reply::new(307).header("Location", r.target.clone()))
    });
    assert!(e.contains("too many redirects"), "{e}");
}

fn manifest_fails(change: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> String {
    pull_fails(move |r, model| r.is("GET", "/manifests/").then(|| change(model.serve(r).unwrap())))
}

#[test]
fn manifests_must_be_what_they_are_said_to_be() {
    let e = manifest_fails(|r| Reply {
        headers: vec![("Content-Type".into(), "text/html".into())],
        ..r
    });
    assert!(e.contains("Content-Type \"text/html\""), "{e}");
    let e = manifest_fails(|mut r| {
        r.headers[0].1 = media_type::DOCKER_MANIFEST.into();
        r
    });
    assert!(e.contains("referred to as"), "{e}");
    let e = manifest_fails(|mut r| {
        r.headers[1].1 = Digest::sha256(b"x").to_string();
        r
    });
    assert!(e.contains("another digest"), "{e}");
    let e = manifest_fails(|r| Reply { body: vec![b' '; 5 << 20], ..r });
    assert!(e.contains("larger than 4194304 bytes"), "{e}");
    let e = manifest_fails(|mut r| {
        r.body =
            String::from_utf8(r.body).unwrap().replacen('{', "{\"manifests\":[],", 1).into_bytes();
        r.headers.truncate(1);
        r
    });
    assert!(e.contains("both \"manifests\" and"), "{e}");
    let e = manifest_fails(|mut r| {
        r.body =
            String::from_utf8(r.body).unwrap().replace("\"size\":44", "\"size\":-44").into_bytes();
        r.headers.truncate(1);
        r
    });
    assert!(e.contains("-44"), "{e}");
}

#[test]
fn a_digest_in_the_name_is_believed_over_the_registry() {
    let (server, ..) = serving(|r, model| {
        let as_tag = Request { target: "/v2/a/b/manifests/1".into(), ..r.clone() };
        r.is("GET", "/manifests/").then(|| model.serve(&as_tag).unwrap())
    });
    let name = format!("{}/a/b@{}", server.address, Digest::sha256(b"x"));
    let e = fails(&Scratch::new(), &["pull", &name]);
    assert!(e.contains("its content has another digest"), "{e}");
}

#[test]
fn an_index_gives_this_machines_image() {
    let (server, model, digest) = serving(|_, _| None);
    let entry = |arch: &str, digest: &str, size: usize| {
        serde_json::json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": arch}})
    };
    let size = model.manifests.lock().unwrap()[&digest].1.len();
    let other = Digest::sha256(b"elsewhere").to_string();
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [
        entry("riscv64", &other, 7), entry(&Platform::host().architecture, &digest, size)]});
    let index = serde_json::to_vec(&index).unwrap();
    let index_digest = model.add_manifest("multi", media_type::OCI_INDEX, &index);
    let scratch = Scratch::new();
    let name = format!("{}/a/b:multi", server.address);
    let e = fails(&scratch, &["pull", "--platform", "linux/s390x", &name]);
    assert!(e.contains("no image for linux/s390x; there are: linux/riscv64, "), "{e}");
    let said = succeeds(&scratch, &["pull", &name]);
    assert_eq!(said, format!("{name}@{index_digest}\n"));
    assert_eq!(succeeds(&scratch, &["inspect", "--raw", &name]).as_bytes(), index);
    // The store lacks the other image, so only this machine's can go elsewhere.
    let to = format!("{}/c/d:1", server.address);
    assert_eq!(
        succeeds(&scratch, &["push", "--uncompressed", &name, &to]),
        format!("{to}@{digest}\n")
    );
}

fn push_fails(lie: impl Fn(&Request, &Model) -> Option<Reply> + Send + Sync + 'static) -> String {
    let (server, ..) = serving(lie);
    let scratch = Scratch::new();
    fill(&scratch);
    let output = imgtool(&scratch, &["push", "x:1", &format!("{}/p:1", server.address)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn pushes_as_it_is_or_compressed() {
    let server = Arc::new(Model::default());
    let model = server.clone();
    let server = Server::start(move |r| server.serve(r));
    let scratch = Scratch::new();
    let digest = fill(&scratch);
    let to = format!("{}/p:1", server.address);
    let said = succeeds(&scratch, &["push", "--uncompressed", "x:1", &to]);
    assert_eq!(said, format!("{to}@{digest}\n"));
    assert!(model.blobs.lock().unwrap().contains_key(&Digest::sha256(LAYER).to_string()));
    let said = [(); 2].map(|()| succeeds(&scratch, &["push", "x:1", &to]));
    assert_eq!(said[0], said[1], "compressing twice gave different bytes");
    let manifest = String::from_utf8(model.manifests.lock().unwrap()["1"].1.clone()).unwrap();
    assert!(manifest.contains("tar+gzip"), "{manifest}");
    let other = Scratch::new();
    assert_eq!(succeeds(&other, &["pull", &to]), said[0]);
}

#[test]
fn a_broken_upload_continues_where_it_broke() {
    let model = Arc::new(Model::default());
    let inner = model.clone();
    let server = Server::start(move |r| inner.serve(r));
    // The first body is that of a blob; the registry keeps the 10 bytes that arrived.
    *server.break_body_at.lock().unwrap() = Some(10);
    let scratch = Scratch::new();
    fill(&scratch);
    let to = format!("{}/p:1", server.address);
    succeeds(&scratch, &["push", "--uncompressed", "--jobs", "1", "x:1", &to]);
    let patches = server.requests("PATCH", "/blobs/uploads/");
    assert_eq!(patches.len(), 3, "config, its rest, layer");
    assert!(patches[1].header("content-range").is_some_and(|r| r.starts_with("10-")));
}

#[test]
fn a_registry_that_stores_something_else_is_noticed() {
    let e = push_fails(|r, _| {
        let other = Digest::sha256(b"x").to_string();
        r.is("PUT", "/manifests/").then(|| Reply::new(201).header("Docker-Content-Digest", other))
    });
    assert!(e.contains("the registry stored sha256:"), "{e}");
}

#[test]
fn what_the_registry_says_is_told() {
    let e = push_fails(|r, _| {
        let body = r#"{"errors":[{"code":"DENIED","message":"quota\nexceeded"}]}"#;
        r.is("POST", "/blobs/uploads/").then(|| Reply::new(403).body(body))
    });
    assert!(e.contains("403 Forbidden, DENIED quota\\nexceeded"), "{e}");
    assert_eq!(e.lines().filter(|l| l.starts_with("imgtool: ")).count(), 1);
}

#[test]
fn a_damaged_blob_is_not_sent() {
    let model = Model::default();
    let server = Server::start(move |r| model.serve(r));
    let scratch = Scratch::new();
    fill(&scratch);
    let store = Store::open(scratch.store()).unwrap();
    std::fs::write(store.blob_path(&Digest::sha256(LAYER)), vec![b'x'; LAYER.len()]).unwrap();
    let to = format!("{}/p:1", server.address);
    let output = imgtool(&scratch, &["push", "--uncompressed", "x:1", &to]);
    let e = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(e.contains("its content has another digest"), "{e}");
    assert!(server.requests("PUT", "/manifests/").is_empty());
}
