//! Digests against a real registry and against skopeo; skipped where they are not installed.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use imgtool::descriptor::media_type;
use imgtool::image::ImageConfig;
use imgtool::platform::Platform;
use imgtool::reference::Reference;
use imgtool::store::Store;

/// A docker-registry on a free port, with its directory; both go away with the value.
struct Registry {
    child: Child,
    dir: PathBuf,
    address: String,
}

impl Registry {
    /// `None`, said by name, where a program is missing.
    fn start(test: &str) -> Option<Registry> {
        Registry::start_with(test, "", "")
    }

    /// With more configuration, of `http` and at the top.
    fn start_with(test: &str, http: &str, more: &str) -> Option<Registry> {
        for program in ["docker-registry", "skopeo"] {
            let found = Command::new(program).arg("--version").stdout(Stdio::null()).status();
            if found.is_err() {
                eprintln!("skipped {test}: {program} is not installed");
                return None;
            }
        }
        let dir = std::env::temp_dir().join(format!("imgtool-{test}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&dir));
        std::fs::create_dir_all(&dir).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let root = dir.join("registry");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: {address}{http}}}\n{more}",
            root.display()
        );
        std::fs::write(dir.join("config.yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Registry { child, dir, address };
        registry.wait_until_it_listens();
        Some(registry)
    }

    fn wait_until_it_listens(&self) {
        let start = Instant::now();
        while std::net::TcpStream::connect(&self.address).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn store(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn imgtool(&self, store: &str, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgtool"));
        command.env_clear().env("HOME", &self.dir).arg("--store").arg(self.store(store)).args(args);
        output(&mut command)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// What skopeo says is the digest of something.
fn skopeo_digest(what: &str) -> String {
    let args = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}", what];
    output(Command::new("skopeo").args(args)).trim().to_owned()
}

/// An image of one real tar layer, named `x:1`.
fn fill(store: &Path) {
    let store = Store::open(store).unwrap();
    let tar = output(Command::new("tar").args(["-cC", env!("CARGO_MANIFEST_DIR"), "Cargo.toml"]));
    let layer = store.put_bytes(media_type::OCI_LAYER, tar.as_bytes()).unwrap();
    let mut config = ImageConfig::new(&Platform::host());
    config.add_layer(&layer.digest, serde_json::json!({"created_by": "test"}));
    let image = store.add_image(&config, vec![layer]).unwrap();
    store.tag(&Reference::parse("x:1").unwrap(), &image.descriptor).unwrap();
}

#[test]
fn push_pull_and_skopeo_agree_on_the_digest() {
    let Some(registry) = Registry::start("digests") else { return };
    fill(&registry.store("a"));
    let name = format!("{}/team/x:1", registry.address);
    let pushed = registry.imgtool("a", &["push", "x:1", &name]);
    let pulled = registry.imgtool("b", &["pull", &name]);
    assert_eq!(pushed, pulled);
    let digest = pushed.trim().rsplit('@').next().unwrap();
    assert_eq!(skopeo_digest(&format!("docker://{name}")), digest);

    let layout = format!("oci:{}:x", registry.store("layout").display());
    let from = format!("docker://{name}");
    output(Command::new("skopeo").args(["copy", "-q", "--src-tls-verify=false", &from, &layout]));
    assert_eq!(skopeo_digest(&layout), digest);
}

#[test]
fn skopeo_reads_our_archives_and_we_read_its() {
    let Some(registry) = Registry::start("archives") else { return };
    fill(&registry.store("a"));
    let path = |name: &str| registry.dir.join(name).display().to_string();
    let digest = |store: &str, name: &str| {
        let json: serde_json::Value =
            serde_json::from_str(&registry.imgtool(store, &["inspect", name])).unwrap();
        json["digest"].as_str().unwrap().to_owned()
    };
    registry.imgtool("a", &["save", "-o", &path("both.tar"), "x:1"]);
    registry.imgtool("a", &["save", "--format", "docker", "-o", &path("docker.tar"), "x:1"]);
    assert_eq!(skopeo_digest(&format!("oci-archive:{}", path("both.tar"))), digest("a", "x:1"));
    skopeo_digest(&format!("docker-archive:{}", path("both.tar")));
    skopeo_digest(&format!("docker-archive:{}", path("docker.tar")));

    let from = format!("oci-archive:{}", path("both.tar"));
    let to = format!("docker-archive:{}:y:2", path("theirs.tar"));
    output(Command::new("skopeo").args(["copy", "-q", &from, &to]));
    assert_eq!(registry.imgtool("c", &["load", &path("theirs.tar")]), "Loaded image: y:2\n");
    // The layer was never compressed and the configuration is the same, so is the manifest.
    assert_eq!(digest("c", "y:2"), digest("a", "x:1"));
}

#[test]
fn save_and_load_make_a_pipeline() {
    let Some(registry) = Registry::start("pipeline") else { return };
    fill(&registry.store("a"));
    let program = env!("CARGO_BIN_EXE_imgtool");
    let mut save = Command::new(program)
        .args(["--store", registry.store("a").to_str().unwrap(), "save", "x:1", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut load = Command::new(program);
    load.args(["--store", registry.store("b").to_str().unwrap(), "load", "-"]);
    load.stdin(save.stdout.take().unwrap());
    assert_eq!(output(&mut load), "Loaded image: x:1\n");
    assert!(save.wait().unwrap().success());
}

/// The digest at the end of a line.
fn digest_of(said: &str) -> &str {
    said.trim().rsplit(['@', ' ']).next().unwrap()
}

#[test]
fn copy_moves_what_skopeo_then_finds() {
    let Some(a) = Registry::start("copy-a") else { return };
    let Some(b) = Registry::start("copy-b") else { return };
    fill(&a.store("s"));
    let pushed = a.imgtool("s", &["push", "x:1", &format!("{}/team/x:1", a.address)]);
    let digest = digest_of(&pushed);
    let from = format!("docker://{}/team/x:1", a.address);
    let across = format!("docker://{}/other/y:2", b.address);
    assert_eq!(
        digest_of(&a.imgtool("s", &["copy", "--chunk-size", "100", &from, &across])),
        digest
    );
    assert_eq!(skopeo_digest(&across), digest);
    // In one registry the blobs are mounted: nothing is uploaded.
    let within = format!("docker://{}/team/z:3", a.address);
    let mut copy = Command::new(env!("CARGO_BIN_EXE_imgtool"));
    copy.env_clear().env("HOME", &a.dir).args(["copy", &from, &within]);
    let output = copy.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().filter(|l| l.ends_with(": mounted")).count(), 2, "{said}");
    assert_eq!(skopeo_digest(&within), digest);
    let layout = format!("oci:{}:v1", a.store("layout").display());
    a.imgtool("s", &["copy", &within, &layout]);
    assert_eq!(skopeo_digest(&layout), digest);
    let archive = format!("oci-archive:{}:v1", a.store("v1.tar").display());
    a.imgtool("s", &["copy", &layout, &archive]);
    assert_eq!(skopeo_digest(&archive), digest);
    // And what skopeo copied.
    let theirs = format!("docker://{}/theirs:1", b.address);
    let tls =
        ["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests"];
    output_of_skopeo(&tls, &[&layout, &theirs]);
    assert_eq!(digest_of(&a.imgtool("t", &["copy", &theirs, "store:theirs:1"])), digest);
}

fn output_of_skopeo(options: &[&str], places: &[&str]) {
    output(Command::new("skopeo").args(options).args(places));
}

#[test]
fn tags_digests_and_deletion() {
    let Some(registry) = Registry::start("delete") else { return };
    fill(&registry.store("a"));
    let name = |rest: &str| format!("{}/d/x{rest}", registry.address);
    for tag in [":1", ":2"] {
        registry.imgtool("a", &["push", "x:1", &name(tag)]);
    }
    let listed = registry.imgtool("a", &["tags", &name("")]);
    let mut tags: Vec<&str> = listed.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["1", "2"]);
    assert_eq!(registry.imgtool("a", &["catalog", &registry.address]), "d/x\n");
    let digest = registry.imgtool("a", &["digest", &name(":1")]);
    assert_eq!(skopeo_digest(&format!("docker://{}", name(":2"))), digest.trim());
    // docker-registry 2.8 does not delete tags, and says it with 405 or 400.
    let mut command = Command::new(env!("CARGO_BIN_EXE_imgtool"));
    command.env_clear().env("HOME", &registry.dir).args(["delete", &name(":1")]);
    let refused = command.output().unwrap();
    let e = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && e.contains("does not delete tags"), "{e}");
    registry.imgtool("a", &["delete", &name(&format!("@{}", digest.trim()))]);
    assert_eq!(registry.imgtool("a", &["tags", &name("")]), "");
}

#[test]
fn login_to_a_registry_with_passwords() {
    // me and secret, by bcrypt.
    let line = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
    let path = std::env::temp_dir().join(format!("imgtool-htpasswd-{}", std::process::id()));
    std::fs::write(&path, line).unwrap();
    let more = format!("auth: {{htpasswd: {{realm: x, path: {}}}}}\n", path.display());
    let Some(registry) = Registry::start_with("login", "", &more) else { return };
    let authfile = registry.dir.join("auth.json");
    let login = |password: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgtool"));
        command.args(["login", "-u", "me", "-p", password, "--authfile"]);
        command.arg(&authfile).arg(&registry.address).env_clear().env("HOME", &registry.dir);
        command.output().unwrap()
    };
    let e = String::from_utf8(login("wrong").stderr).unwrap();
    assert!(e.contains("access denied: 401"), "{e}");
    assert!(login("secret").status.success());
    fill(&registry.store("a"));
    let name = format!("{}/x:1", registry.address);
    let file = authfile.to_str().unwrap();
    registry.imgtool("a", &["push", "--authfile", file, "x:1", &name]);
    // skopeo reads the file that we wrote.
    let from = format!("docker://{name}");
    let args =
        ["inspect", "--tls-verify=false", "--authfile", file, "--format", "{{.Digest}}", &from];
    let theirs = output(Command::new("skopeo").args(args));
    assert_eq!(theirs, registry.imgtool("a", &["digest", "--authfile", file, &name]));
    drop(std::fs::remove_file(&path));
}

/// Makes an authority, and certificates of it for a server on 127.0.0.1 and for a client.
fn make_certificates(dir: &Path) {
    let script = "set -e
        key() { openssl req -newkey rsa:2048 -nodes -keyout $1.key -out $1.csr -subj /CN=$1; }
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=ca -days 2
        echo subjectAltName=IP:127.0.0.1 > san
        key server; key client
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.cert
        echo extendedKeyUsage=clientAuth > eku
        openssl x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile eku -out client.cert";
    output(Command::new("sh").args(["-c", script]).current_dir(dir));
}

#[test]
fn certificates_of_a_directory_open_a_registry() {
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: openssl is not installed");
        return;
    }
    let dir = std::env::temp_dir().join(format!("imgtool-certs-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    make_certificates(&dir);
    let at = |name: &str| dir.join(name).display().to_string();
    let tls = format!(
        ", tls: {{certificate: {}, key: {}, clientcas: [{}]}}",
        at("server.cert"),
        at("server.key"),
        at("ca.crt")
    );
    let Some(registry) = Registry::start_with("tls", &tls, "") else { return };
    fill(&registry.store("a"));
    let name = format!("{}/x:1", registry.address);
    let push = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgtool"));
        command.env_clear().env("HOME", &registry.dir).env("DAVIT_STORE", registry.store("a"));
        let output = command.arg("push").args(options).args(["x:1", &name]).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let own = registry.dir.join(".config/containers/certs.d").join(&registry.address);
    std::fs::create_dir_all(&own).unwrap();
    let (done, e) = push(&[]);
    assert!(!done && e.contains("certificate"), "{e}");
    // Its authority is known, and we are not.
    std::fs::copy(dir.join("ca.crt"), own.join("ca.crt")).unwrap();
    let (done, e) = push(&[]);
    assert!(!done, "a registry that wants a certificate took none: {e}");
    std::fs::copy(dir.join("client.key"), own.join("client.key")).unwrap();
    let (_, e) = push(&[]);
    assert!(e.contains("has no certificate"), "{e}");
    std::fs::copy(dir.join("client.cert"), own.join("client.cert")).unwrap();
    let (done, e) = push(&[]);
    assert!(done, "{e}");
    std::fs::rename(&own, registry.dir.join("elsewhere")).unwrap();
    let (done, e) = push(&["--cert-dir", registry.dir.join("elsewhere").to_str().unwrap()]);
    assert!(done, "{e}");
    drop(std::fs::remove_dir_all(&dir));
}

/// Forwards connections to `to`, and cuts one off, once, when `after` bytes have gone there in
/// all. Returns where it listens.
fn cutting_proxy(to: String, after: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let passed = Arc::new(AtomicU64::new(0));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, passed) = (client.unwrap(), passed.clone());
            let Ok(server) = TcpStream::connect(&to) else { continue };
            let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || drop(std::io::copy(&mut &back.0, &mut &back.1)));
            std::thread::spawn(move || forward(client, server, &passed, after));
        }
    });
    address
}

fn forward(mut client: TcpStream, mut server: TcpStream, passed: &AtomicU64, after: u64) {
    let mut buf = vec![0; 1 << 12];
    while let Ok(n @ 1..) = client.read(&mut buf) {
        let before = passed.fetch_add(n as u64, Ordering::Relaxed);
        if before < after && before + n as u64 >= after {
            break;
        }
        if server.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    drop(client.shutdown(Shutdown::Both));
    drop(server.shutdown(Shutdown::Both));
}

#[test]
fn an_upload_that_is_cut_off_arrives() {
    let Some(registry) = Registry::start("cut") else { return };
    let store = Store::open(registry.store("a")).unwrap();
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let layer: Vec<u8> = (0..1_000_000).map(|_| next()).collect();
    let layer = store.put_bytes(media_type::OCI_LAYER, &layer).unwrap();
    let mut config = ImageConfig::new(&Platform::host());
    config.add_layer(&layer.digest, serde_json::json!({}));
    let image = store.add_image(&config, vec![layer]).unwrap();
    store.tag(&Reference::parse("x:1").unwrap(), &image.descriptor).unwrap();
    drop(store);
    // In the first piece, in the middle of a later one, and near a border of two.
    for (n, after) in [50_000, 550_000, 401_500].into_iter().enumerate() {
        let proxy = cutting_proxy(registry.address.clone(), after);
        let mut push = Command::new(env!("CARGO_BIN_EXE_imgtool"));
        push.env_clear().env("HOME", &registry.dir).env("DAVIT_STORE", registry.store("a"));
        push.args(["push", "--uncompressed", "--jobs", "1", "--chunk-size", "200000", "x:1"]);
        let output = push.arg(format!("{proxy}/cut{n}:1")).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        assert!(said.contains("; trying again in "), "nothing was cut off: {said}");
        let found = skopeo_digest(&format!("docker://{}/cut{n}:1", registry.address));
        assert_eq!(found, image.descriptor.digest.to_string());
    }
}

#[test]
fn what_is_attached_is_found_without_the_referrers_api() {
    let Some(registry) = Registry::start("attach") else { return };
    fill(&registry.store("a"));
    let name = format!("{}/x:1", registry.address);
    registry.imgtool("a", &["push", "x:1", &name]);
    let file = registry.dir.join("config.yml").display().to_string();
    let said = registry.imgtool("a", &["attach", "--artifact-type", "x/conf", &name, &file]);
    let digest = digest_of(&said);
    assert_eq!(registry.imgtool("a", &["discover", &name]), format!("{digest}  x/conf\n"));
    let out = registry.dir.join("out");
    std::fs::create_dir(&out).unwrap();
    let from = format!("{}/x@{digest}", registry.address);
    registry.imgtool("a", &["artifact", "pull", "-o", out.to_str().unwrap(), &from]);
    let pulled = std::fs::read(out.join("config.yml")).unwrap();
    assert_eq!(pulled, std::fs::read(&file).unwrap());
    // skopeo sees the manifest as it is.
    assert_eq!(skopeo_raw_digest(&format!("docker://{from}")), digest);
}

/// The digest of the bytes that skopeo gets.
fn skopeo_raw_digest(what: &str) -> String {
    let args = ["inspect", "--raw", "--tls-verify=false", what];
    let raw = output(Command::new("skopeo").args(args));
    imgtool::digest::Digest::sha256(raw.as_bytes()).to_string()
}
