//! Artifacts: `imgtool attach`, `discover`, `artifact push` and `pull`; and layers that are
//! somewhere else than their manifest.

mod client;
mod server;

use std::sync::Arc;

use client::{LAYER, Scratch, add_image, imgtool, succeeds};
use imgtool::descriptor::media_type;
use imgtool::digest::Digest;
use imgtool::image::ImageConfig;
use imgtool::platform::Platform;
use serde_json::{Value, json};
use server::{Model, Reply, Server};

fn fails(scratch: &Scratch, args: &[&str]) -> String {
    let output = imgtool(scratch, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    stderr.lines().find(|l| l.starts_with("imgtool: ")).unwrap().to_owned()
}

fn file(scratch: &Scratch, name: &str, text: &str) -> String {
    let path = scratch.0.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn descriptors(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

#[test]
fn without_the_api_a_tag_keeps_the_list() {
    let model = Arc::new(Model::default());
    let digest = add_image(&model);
    let inner = model.clone();
    let server = Server::start(move |r| inner.serve(r));
    let scratch = Scratch::new();
    let name = format!("{}/a/b:1", server.address);
    assert_eq!(succeeds(&scratch, &["discover", &name]), "");
    let (sbom, note) = (file(&scratch, "sbom.json", "{}"), file(&scratch, "note", "n"));
    let attach = |args: &[&str]| {
        let said = succeeds(&scratch, &[&["attach", "--artifact-type"], args].concat());
        said.trim().rsplit('@').next().unwrap().to_owned()
    };
    let first =
        attach(&["x/sbom", "--annotation", "k=v", &name, &format!("{sbom}:application/json")]);
    let second = attach(&["x/note", &name, &note]);
    attach(&["x/note", &name, &note]);
    let listed = succeeds(&scratch, &["discover", &name]);
    assert_eq!(listed, format!("{first}  x/sbom\n{second}  x/note\n"), "the same twice is one");
    let json = descriptors(&succeeds(
        &scratch,
        &["discover", "--json", "--artifact-type", "x/sbom", &name],
    ));
    assert_eq!(json.len(), 1);
    assert_eq!(json[0]["annotations"], json!({"k": "v"}));
    let tag = digest.replace(':', "-");
    assert!(model.manifests.lock().unwrap().contains_key(&tag));

    let manifest: Value =
        serde_json::from_slice(&model.manifests.lock().unwrap()[&first].1).unwrap();
    assert_eq!(manifest["subject"]["digest"], digest);
    assert_eq!(manifest["artifactType"], "x/sbom");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/json");
    let out = scratch.0.join("tmp").display().to_string();
    let from = format!("{}/a/b@{first}", server.address);
    succeeds(&scratch, &["artifact", "pull", "-o", &out, &from]);
    assert_eq!(std::fs::read(scratch.0.join("tmp/sbom.json")).unwrap(), b"{}");
    // What was attached is found from a copy, which keeps subject and digest.
    let to = format!("docker://{}/c:sbom", server.address);
    assert!(succeeds(&scratch, &["copy", &format!("docker://{from}"), &to]).contains(&first));
    // The store takes artifacts, too.
    assert!(succeeds(&scratch, &["pull", &from]).contains(&first));
    assert!(
        succeeds(&scratch, &["push", &from, &format!("{}/d:1", server.address)]).contains(&first)
    );
}

#[test]
fn with_the_api_the_registry_keeps_the_list() {
    let model = Arc::new(Model::default());
    add_image(&model);
    let inner = model.clone();
    let entry = |t: &str| {
        json!({"mediaType": media_type::OCI_MANIFEST, "digest": Digest::sha256(t.as_bytes()),
            "size": 3, "artifactType": t})
    };
    let page = move |t: &str| {
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [entry(t)]});
        Reply::new(200).header("Content-Type", media_type::OCI_INDEX).body(index.to_string())
    };
    let server = Server::start(move |r| match r.path().contains("/referrers/") {
        true if r.target.contains("last=1") => Some(page("x/b")),
        true => Some(page("x/a").header("Link", "<?last=1>; rel=next")),
        false if r.is("PUT", "/manifests/") => {
            Some(inner.serve(r)?.header("OCI-Subject", Digest::sha256(b"").to_string()))
        }
        false => inner.serve(r),
    });
    let scratch = Scratch::new();
    let name = format!("{}/a/b:1", server.address);
    assert_eq!(succeeds(&scratch, &["discover", &name]).lines().count(), 2);
    // This registry does not look at the type that is asked for.
    let one = succeeds(&scratch, &["discover", "--artifact-type", "x/b", &name]);
    assert_eq!(one.lines().count(), 1);
    assert!(server.requests("GET", "?artifactType=x%2Fb").len() == 1);
    let note = file(&scratch, "note", "n");
    succeeds(&scratch, &["attach", "--artifact-type", "x/y", &name, &note]);
    assert_eq!(server.requests("PUT", "/manifests/").len(), 1, "a tag was made that nobody needs");
}

#[test]
fn artifacts_go_and_come_back() {
    let model = Arc::new(Model::default());
    let inner = model.clone();
    let server = Server::start(move |r| inner.serve(r));
    let scratch = Scratch::new();
    let (a, empty) = (file(&scratch, "a.txt", "hello"), file(&scratch, "empty", ""));
    let name = format!("{}/files:1", server.address);
    let pushed =
        succeeds(&scratch, &["artifact", "push", "--artifact-type", "x/y", &name, &a, &empty]);
    assert!(pushed.starts_with(&format!("{name}@sha256:")), "{pushed}");
    let out = scratch.0.join("tmp");
    let args = ["artifact", "pull", "-o", out.to_str().unwrap(), &name];
    assert_eq!(succeeds(&scratch, &args).lines().count(), 2);
    assert_eq!(std::fs::read(out.join("a.txt")).unwrap(), b"hello");
    assert_eq!(std::fs::read(out.join("empty")).unwrap(), b"");

    for title in ["../evil", "/etc/evil", "..", "a/b", ""] {
        let layer = json!({"mediaType": "x/y", "digest": Digest::sha256(b"hello"), "size": 5,
            "annotations": {"org.opencontainers.image.title": title}});
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::sha256(b"{}"), "size": 2},
            "layers": [layer]});
        model.add_manifest("evil", media_type::OCI_MANIFEST, manifest.to_string().as_bytes());
        let evil = format!("{}/files:evil", server.address);
        let e = fails(&scratch, &["artifact", "pull", "-o", out.to_str().unwrap(), &evil]);
        assert!(e.contains("is not the name of a file"), "{e}");
    }
    let e = fails(&scratch, &["artifact", "push", "--artifact-type", "x/y", &name, "/nonexistent"]);
    assert!(e.contains("read /nonexistent"), "{e}");
}

/// An image in a model whose layer is only at these URLs.
fn with_foreign_layer(urls: &[String]) -> Server {
    let model = Model::default();
    let mut config = ImageConfig::new(&Platform::host());
    config.add_layer(&Digest::sha256(LAYER), json!({}));
    let config = config.to_bytes();
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": model.add_blob(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
            "digest": Digest::sha256(LAYER), "size": LAYER.len(), "urls": urls}]});
    model.add_manifest("1", media_type::OCI_MANIFEST, manifest.to_string().as_bytes());
    Server::start(move |r| match r.header("authorization") {
        _ if r.target == "/v2/" => Some(Reply::new(200)),
        Some(_) => model.serve(r),
        None => Some(Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\"")),
    })
}

#[test]
fn foreign_layers_come_from_where_they_are() {
    let storage = Server::start(|r| match r.target.as_str() {
        "/good" => Some(Reply::new(200).body(LAYER)),
        "/bad" => Some(Reply::new(200).body(vec![b'x'; LAYER.len()])),
        _ => Some(Reply::new(404)),
    });
    let at = |path: &str| format!("http://{}/{path}", storage.address);
    let pull = |urls: &[String]| {
        let server = with_foreign_layer(urls);
        let scratch = Scratch::new();
        let auth = json!({"auths": {server.address.to_string(): {"auth": "bWU6c2VjcmV0"}}});
        let auth = file(&scratch, "auth.json", &auth.to_string());
        let name = format!("{}/a:1", server.address);
        let output = imgtool(&scratch, &["pull", "--authfile", &auth, &name]);
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (done, e) = pull(&[at("none"), at("good")]);
    assert!(done, "{e}");
    assert_eq!(storage.requests("GET", "/good")[0].header("authorization"), None);
    let (done, e) = pull(&[at("bad")]);
    assert!(!done && e.contains("another digest"), "{e}");
    let (done, e) = pull(&[at("none")]);
    assert!(!done && e.contains("/none: 404"), "{e}");
    let (done, e) = pull(&["ftp://127.0.0.1/x".into()]);
    assert!(!done && e.contains("not http or https"), "{e}");
}
