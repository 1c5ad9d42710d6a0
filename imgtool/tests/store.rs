//! Verbs that work on a store alone, run as a user runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use imgtool::descriptor::media_type;
use imgtool::digest::Digest;
use imgtool::image::{Image, ImageConfig};
use imgtool::platform::Platform;
use imgtool::reference::Reference;
use imgtool::store::Store;
use serde_json::{Value, json};

/// A directory with a store in it.
struct Area(PathBuf);

impl Area {
    fn new(name: &str) -> Area {
        let dir = format!("imgtool-store-{name}-{}", std::process::id());
        let area = Area(std::env::temp_dir().join(dir));
        drop(std::fs::remove_dir_all(&area.0));
        std::fs::create_dir_all(&area.0).unwrap();
        area
    }

    fn store(&self) -> Store {
        Store::open(self.0.join("store")).unwrap()
    }

    /// An image of these layers, which are tar archives made by a script.
    fn image(&self, name: &str, layers: &[&str]) -> Image {
        let store = self.store();
        let mut config = ImageConfig::new(&Platform::host());
        let mut blobs = Vec::new();
        for (i, script) in layers.iter().enumerate() {
            drop(std::fs::remove_dir_all(self.0.join("tree")));
            self.sh(&format!("mkdir tree; cd tree; {script}\ntar --sort=name -cf ../layer.tar *"));
            let bytes = std::fs::read(self.0.join("layer.tar")).unwrap();
            config.add_layer(&Digest::sha256(&bytes), json!({"created_by": format!("layer {i}")}));
            blobs.push(store.put_bytes(media_type::OCI_LAYER, &bytes).unwrap());
        }
        let image = store.add_image(&config, blobs).unwrap();
        store.tag(&Reference::parse(name).unwrap(), &image.descriptor).unwrap();
        image
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.0)
            .env("IMGTOOL", env!("CARGO_BIN_EXE_imgtool"))
            .env("DAVIT_STORE", self.0.join("store"))
            .env_remove("SOURCE_DATE_EPOCH");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_imgtool")).arg("--quiet").args(args).output().unwrap()
    }

    /// What it prints; it must succeed and say nothing on standard error.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// Its error line and its output; it must fail with this code.
    fn fails(&self, code: i32, args: &[&str]) -> (String, String) {
        let output = self.run(args);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stdout}{stderr}");
        assert_eq!(stderr.lines().count(), if code == 1 { 1 } else { stderr.lines().count() });
        (stderr, stdout)
    }

    /// Runs a script here; `imgtool` is ours.
    fn sh(&self, script: &str) -> String {
        let script = format!("imgtool() {{ \"$IMGTOOL\" --quiet \"$@\"; }}\n{script}");
        let output = self.command("sh").args(["-ec", &script]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}\n{stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn overwrite(path: &Path) {
    let len = std::fs::metadata(path).unwrap().len() as usize;
    std::fs::write(path, vec![b'x'; len]).unwrap();
}

#[test]
fn verify_names_damage_and_repairs_it() {
    let area = Area::new("verify");
    let image = area.image("a", &["echo 1 > f"]);
    area.image("b", &["echo 2 > f"]);
    assert!(area.ok(&["verify"]).ends_with("0 damaged, 0 left over\n"));
    assert_eq!(area.json(&["fsck", "--json"])["damage"], json!([]));

    let layer = &image.manifest.layers[0];
    overwrite(&area.store().blob_path(&layer.digest));
    let (error, listed) = area.fails(1, &["verify"]);
    assert!(error.contains("1 damaged: --repair removes it, then pull or load again: a:latest"));
    let line = format!("damaged: blobs/sha256/{}: its content has another", layer.digest.hex());
    assert!(listed.starts_with(&line) && listed.contains("(used by a:latest)"), "{listed}");

    let (error, listed) = area.fails(1, &["verify", "--repair"]);
    assert!(error.ends_with("pull or load again: a:latest\n"), "{error}");
    assert!(listed.contains("removed: blobs/sha256/"), "{listed}");
    let (_, listed) = area.fails(1, &["verify", "--json"]);
    let report: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(report["damage"][0]["why"], "it is missing");
    assert_eq!(report["pullAgain"], json!(["a:latest"]));
    // Here again, it is whole again.
    area.image("a", &["echo 1 > f"]);
    area.ok(&["verify"]);
}
