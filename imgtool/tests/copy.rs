//! `imgtool copy`, `digest`, `tags`, `delete` and `inspect docker://` against our own registry.

mod client;
mod server;

use std::sync::Arc;

use client::{LAYER, Scratch, add_image, fill, imgtool, succeeds};
use imgtool::descriptor::media_type;
use imgtool::digest::Digest;
use imgtool::platform::Platform;
use imgtool::store::Store;
use serde_json::{Value, json};
use server::{Model, Reply, Request, Server};

fn registry() -> (Server, Arc<Model>) {
    let model = Arc::new(Model::default());
    let inner = model.clone();
    (Server::start(move |r| inner.serve(r)), model)
}

/// A registry whose handler may answer instead of the model.
fn lying(lie: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> (Server, Arc<Model>) {
    let model = Arc::new(Model::default());
    let inner = model.clone();
    (Server::start(move |r| lie(r).or_else(|| inner.serve(r))), model)
}

fn fails(scratch: &Scratch, args: &[&str]) -> String {
    let output = imgtool(scratch, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty());
    stderr.lines().find(|l| l.starts_with("imgtool: ")).unwrap().to_owned()
}

fn docker(server: &Server, rest: &str) -> String {
    format!("docker://{}/{rest}", server.address)
}

/// An index of three images in the model under the tag `multi`: this machine's, which is `1` too,
/// and two of other machines. Returns its bytes.
fn add_index(model: &Model) -> Vec<u8> {
    let host = add_image(model);
    let mut entries = vec![json!({"mediaType": media_type::OCI_MANIFEST, "digest": host,
        "size": model.manifests.lock().unwrap()[&host].1.len(),
        "platform": {"os": "linux", "architecture": Platform::host().architecture}})];
    for arch in ["s390x", "riscv64"] {
        let config = json!({"os": "linux", "architecture": arch,
            "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(LAYER)]}})
        .to_string();
        let config_digest = model.add_blob(config.as_bytes());
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": {"mediaType": media_type::OCI_CONFIG, "digest": config_digest, "size": config.len()},
            "layers": [{"mediaType": media_type::OCI_LAYER, "digest": Digest::sha256(LAYER), "size": LAYER.len()}]})
        .to_string();
        let digest = model.add_manifest(arch, media_type::OCI_MANIFEST, manifest.as_bytes());
        entries.push(json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest,
            "size": manifest.len(), "platform": {"os": "linux", "architecture": arch}, "x-kept": 1}));
    }
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries,
        "annotations": {"a": "b"}});
    let bytes = serde_json::to_vec_pretty(&index).unwrap();
    model.add_manifest("multi", media_type::OCI_INDEX, &bytes);
    bytes
}

fn stored(model: &Model, tag: &str) -> Vec<u8> {
    model.manifests.lock().unwrap()[tag].1.clone()
}

#[test]
fn an_index_goes_whole_and_through_every_place_with_its_bytes() {
    let (a, model_a) = registry();
    let (b, model_b) = registry();
    let index = add_index(&model_a);
    let scratch = Scratch::new();
    let path = |name: &str| scratch.0.join(name).display().to_string();
    let route = [
        docker(&a, "x:multi"),
        docker(&b, "y:multi"),
        format!("oci:{}:1.0", path("layout")),
        format!("oci-archive:{}:1.0", path("archive.tar")),
        "store:z:1".into(),
        docker(&b, "y:back"),
    ];
    let digest = Digest::sha256(&index);
    for hop in route.windows(2) {
        let said = succeeds(&scratch, &["copy", "--all", &hop[0], &hop[1]]);
        assert!(said.ends_with(&format!(" {digest}\n")), "{said}");
    }
    assert_eq!(stored(&model_b, "multi"), index);
    assert_eq!(stored(&model_b, "back"), index);
    assert_eq!(model_b.manifests.lock().unwrap().len(), 3 + 3);
    let temporary = std::fs::read_dir(scratch.0.join("tmp")).unwrap().count();
    assert_eq!(temporary, 0, "a temporary layout was left");
    // Nothing but the places that were named was written to.
    let mut made: Vec<_> = std::fs::read_dir(&scratch.0)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    made.sort();
    assert_eq!(made, ["archive.tar", "layout", "store", "tmp"]);
}

#[test]
fn one_image_or_some_are_taken_of_an_index() {
    let (a, model) = registry();
    let (b, other) = registry();
    let index = add_index(&model);
    let scratch = Scratch::new();
    let from = docker(&a, "x:multi");
    let copy = |options: &[&str], tag: &str| {
        let to = docker(&b, &format!("x:{tag}"));
        let output = imgtool(&scratch, &[&["copy"], options, &[&from, &to]].concat());
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = copy(&[], "host");
    assert_eq!(stored(&other, "host"), stored(&model, "1"));
    assert!(said.contains(&format!("of the index {}", Digest::sha256(&index))), "{said}");
    copy(&["--platform", "linux/s390x"], "one");
    assert_eq!(stored(&other, "one"), stored(&model, "s390x"));
    let said = copy(&["--platform", "s390x,riscv64"], "some");
    assert!(said.contains("a new index of the images for linux/s390x, linux/riscv64"), "{said}");
    let some: Value = serde_json::from_slice(&stored(&other, "some")).unwrap();
    let whole: Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(
        some["manifests"].as_array().unwrap()[..],
        whole["manifests"].as_array().unwrap()[1..]
    );
    assert_eq!(some["annotations"], whole["annotations"]);
    let e =
        fails(&scratch, &["copy", "--platform", "arm64,windows/amd64", &from, &docker(&b, "x:no")]);
    assert!(e.contains("no image for ") && e.contains("there are: "), "{e}");
    let one = docker(&a, "x:1");
    let e = fails(&scratch, &["copy", "--platform", "s390x", &one, &docker(&b, "x:no")]);
    assert!(e.contains("no image for linux/s390x; there is only one, for "), "{e}");
    assert!(!other.manifests.lock().unwrap().contains_key("no"));
}

#[test]
fn within_a_registry_blobs_are_mounted() {
    let (server, model) = registry();
    add_image(&model);
    let scratch = Scratch::new();
    // The model has one place for all repositories; the copy must not find its blobs there.
    let inner = model.clone();
    let honest = Server::start(move |r| match r.is("HEAD", "/blobs/") {
        true => Some(Reply::new(404)),
        false => inner.serve(r),
    });
    succeeds(&scratch, &["copy", &docker(&honest, "a/b:1"), &docker(&honest, "c:2")]);
    let begun = honest.requests("POST", "/v2/c/blobs/uploads/");
    assert_eq!(begun.len(), 2);
    assert!(
        begun
            .iter()
            .all(|r| r.target.contains("?mount=sha256%3A") && r.target.ends_with("&from=a%2Fb"))
    );
    assert!(
        honest.requests("PATCH", "").is_empty() && honest.requests("GET", "/blobs/").is_empty()
    );
    drop(server);
}

#[test]
fn a_lying_source_does_not_get_into_a_registry() {
    let (a, model) = lying(|r| {
        let mut body = LAYER.to_vec();
        body[3] ^= 1;
        r.is("GET", &format!("/blobs/{}", Digest::sha256(LAYER)))
            .then(|| Reply::new(200).body(body))
    });
    add_image(&model);
    let (b, other) = registry();
    let e = fails(&Scratch::new(), &["copy", &docker(&a, "x:1"), &docker(&b, "y:1")]);
    assert!(e.contains("its content has another digest"), "{e}");
    assert!(other.manifests.lock().unwrap().is_empty());
}

#[test]
fn a_source_that_breaks_off_is_asked_again() {
    let broken = std::sync::atomic::AtomicU32::new(0);
    let (a, model) = lying(move |r| {
        let layer = r.is("GET", &format!("/blobs/{}", Digest::sha256(LAYER)));
        let first = layer && broken.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        first.then(|| Reply { cut: Some(10), ..Reply::new(200).body(LAYER) })
    });
    add_image(&model);
    let (b, other) = registry();
    succeeds(&Scratch::new(), &["copy", &docker(&a, "x:1"), &docker(&b, "y:1")]);
    assert_eq!(stored(&other, "1"), stored(&model, "1"));
}

#[test]
fn archives_and_layouts_say_what_they_have() {
    let scratch = Scratch::new();
    fill(&scratch);
    let archive = format!("docker-archive:{}", scratch.0.join("d.tar").display());
    succeeds(&scratch, &["copy", "x:1", &format!("{archive}:y:2")]);
    let layout = format!("oci:{}", scratch.0.join("l").display());
    succeeds(&scratch, &["copy", &format!("{archive}:y:2"), &format!("{layout}:a")]);
    // The layer was never compressed, so the manifest is made again as it was.
    let digest = |place: &str| {
        let json: Value = serde_json::from_str(&succeeds(&scratch, &["inspect", place])).unwrap();
        json["digest"].as_str().unwrap().to_owned()
    };
    assert_eq!(digest(&layout), digest("x:1"));
    assert_eq!(digest(&archive), digest("x:1"));
    let e = fails(&scratch, &["inspect", &format!("{layout}:b")]);
    assert!(e.contains("no image \"b\"") && e.ends_with("there are: a"), "{e}");
    let e = fails(&scratch, &["inspect", &format!("{archive}:z")]);
    assert!(e.contains("no image \"z:latest\" in it; there are: y:2"), "{e}");
    let e = fails(&scratch, &["inspect", "oci:/nonexistent/there"]);
    assert!(e.contains("no image in /nonexistent/there"), "{e}");
}

#[test]
fn json_says_what_was_copied() {
    let (a, model) = registry();
    let index = add_index(&model);
    let scratch = Scratch::new();
    let said = succeeds(&scratch, &["copy", "--json", &docker(&a, "x:multi"), "store:q:1"]);
    let json: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(json["destination"], "store:q:1");
    assert_eq!(json["fromIndex"], Digest::sha256(&index).to_string());
    assert_eq!(json["digest"], Digest::sha256(&stored(&model, "1")).to_string());
    assert_eq!(Store::open(scratch.store()).unwrap().list().unwrap().len(), 1);
}

#[test]
fn a_registry_tells_digests_without_documents() {
    let (server, model) = registry();
    let digest = add_image(&model);
    let scratch = Scratch::new();
    let name = format!("{}/a/b:1", server.address);
    assert_eq!(succeeds(&scratch, &["digest", &name]), format!("{digest}\n"));
    assert!(server.requests("GET", "/manifests/").is_empty());
    // A registry that does not say it is asked for the document.
    let inner = model.clone();
    let silent = Server::start(move |r| {
        let mut reply = inner.serve(r)?;
        reply.headers.retain(|(name, _)| name != "Docker-Content-Digest");
        Some(reply)
    });
    let name = format!("docker://{}/a/b:1", silent.address);
    assert_eq!(succeeds(&scratch, &["digest", &name]), format!("{digest}\n"));
    let e = fails(&scratch, &["digest", &format!("{}/a/b:none", server.address)]);
    assert!(e.contains("no such image: HEAD http://") && e.contains("404"), "{e}");
}

#[test]
fn tags_come_in_pages() {
    let (server, _) = lying(|r| {
        let page = |tags: &[&str]| Reply::new(200).body(json!({"tags": tags}).to_string());
        match &*r.target {
            "/v2/a/b/tags/list?n=1000" => {
                Some(page(&["1", "2"]).header("Link", "</v2/a/b/tags/list?last=2>; rel=\"next\""))
            }
            "/v2/a/b/tags/list?last=2" => Some(page(&["3\u{1b}[1m"])),
            "/v2/loop/tags/list?n=1000" => {
                Some(page(&["1"]).header("Link", "</v2/loop/tags/list?n=1000>; rel=\"next\""))
            }
            "/v2/away/tags/list?n=1000" => {
                Some(page(&["1"]).header("Link", "<http://127.0.0.1:1/x>; rel=\"next\""))
            }
            t if t.starts_with("/v2/no/") => {
                Some(Reply::new(404).body(r#"{"errors":[{"code":"NAME_UNKNOWN","message":"x"}]}"#))
            }
            _ => None,
        }
    });
    let scratch = Scratch::new();
    let name = |rest: &str| format!("{}/{rest}", server.address);
    assert_eq!(succeeds(&scratch, &["tags", &name("a/b")]), "1\n2\n3[1m\n");
    let json = succeeds(&scratch, &["list-tags", "--json", &docker(&server, "a/b")]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["Tags"].as_array().unwrap().len(), 3);
    assert_eq!(json["Repository"], name("a/b"));
    assert!(fails(&scratch, &["tags", &name("loop")]).contains("its pages have no end"));
    assert!(fails(&scratch, &["tags", &name("away")]).contains("refusing to read the next page"));
    let e = fails(&scratch, &["tags", &name("no")]);
    assert!(e.contains("no such repository") && e.contains("NAME_UNKNOWN"), "{e}");
}

#[test]
fn deleting_explains_a_refusal() {
    let (server, model) = registry();
    let digest = add_image(&model);
    let scratch = Scratch::new();
    let name = |rest: &str| format!("{}/a/b{rest}", server.address);
    succeeds(&scratch, &["delete", &name(":1")]);
    assert!(model.manifests.lock().unwrap().contains_key(&digest), "more than the tag went");
    succeeds(&scratch, &["delete", &name(&format!("@{digest}"))]);
    assert!(model.manifests.lock().unwrap().is_empty());
    assert!(fails(&scratch, &["delete", &name(":1")]).contains("no such image: DELETE http://"));
    let output = imgtool(&scratch, &["delete", &name("")]);
    assert_eq!(output.status.code(), Some(2), "deleted what was not named");

    let (strict, _) = lying(|r| r.is("DELETE", "").then(|| Reply::new(405)));
    let name = |rest: &str| format!("{}/a/b{rest}", strict.address);
    let e = fails(&scratch, &["delete", &name(":1")]);
    assert!(e.contains("does not delete tags") && e.contains("405"), "{e}");
    let e = fails(&scratch, &["delete", &name(&format!("@{digest}"))]);
    assert!(e.contains("storage.delete.enabled"), "{e}");
}

#[test]
fn inspect_reads_a_registry() {
    let (server, model) = registry();
    let index = add_index(&model);
    let scratch = Scratch::new();
    let name = docker(&server, "x:multi");
    assert_eq!(succeeds(&scratch, &["inspect", "--raw", &name]).as_bytes(), index);
    let shown = succeeds(&scratch, &["inspect", "--platform", "s390x", &name]);
    let json: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(json["platform"], "linux/s390x");
    assert_eq!(json["digest"], Digest::sha256(&index).to_string());
    assert_eq!(json["layers"][0]["diffID"], Digest::sha256(LAYER).to_string());
    assert!(!scratch.store().exists(), "inspecting a registry made a store");
}

#[test]
fn a_copy_asks_once_for_the_rights_that_it_needs() {
    let tokens = Server::start(|_| Some(Reply::new(200).body(r#"{"token":"T","expires_in":300}"#)));
    let realm = format!("http://{}/token", tokens.address);
    let model = Model::default();
    add_index(&model);
    let server = Server::start(move |r| match r.header("authorization") {
        _ if r.target == "/v2/" => Some(Reply::new(200)),
        Some("Bearer T") if r.is("HEAD", "/blobs/") => Some(Reply::new(404)),
        Some("Bearer T") => model.serve(r),
        _ => Some(
            Reply::new(401)
                .header("WWW-Authenticate", format!("Bearer realm=\"{realm}\",service=\"s\"")),
        ),
    });
    let (from, to) = (docker(&server, "a/b:multi"), docker(&server, "c:1"));
    succeeds(&Scratch::new(), &["copy", "--all", "--jobs", "8", &from, &to]);
    let mut asked: Vec<String> =
        tokens.requests("GET", "/token").into_iter().map(|r| r.target).collect();
    asked.sort();
    let (read, write) = ("scope=repository%3Aa%2Fb%3Apull", "scope=repository%3Ac%3Apull%2Cpush");
    assert_eq!(
        asked,
        [
            format!("/token?service=s&{read}"),
            format!("/token?service=s&{write}"),
            format!("/token?service=s&{write}&{read}"),
        ],
        "each set of scopes once"
    );
}
