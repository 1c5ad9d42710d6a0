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
            // The same script makes the same bytes; times before 2010 are meant.
            self.sh(&format!(
                "mkdir tree; cd tree; {script}
                 find . -newermt 2010-01-01 -exec touch -h -d @1500000000.25 {{}} +
                 find . -mindepth 1 -maxdepth 1 -printf '%P\\n' | sort | tar --format=pax --sort=name \\
                     --pax-option=delete=atime,delete=ctime -cf ../layer.tar -T -"
            ));
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

/// Names, types, modes, owners, sizes, times and link counts below `dir`, and contents.
fn describe(area: &Area, dir: &str) -> String {
    area.sh(&format!(
        "cd {dir} && find . -mindepth 1 -printf '%P %y %m %U:%G %T@ %l' \\( -type d -printf '\\n' -o \
         -printf ' %s %n\\n' \\) | sort; find . -type f | sort | xargs -r cat"
    ))
}

const LOWER: &str =
    "mkdir -p a/sub gone d; echo 1 > a/f; ln a/f a/hard; ln -s f a/soft; echo x > gone/x
    echo old > d/old; chmod 4755 a/f; touch -d '2001-02-03 04:05:06.789' a/f; mkfifo pipe
    ln -s a dirlink; touch -d 2002-01-01 a a/sub gone d .";
const UPPER: &str = "mkdir -p a d; touch .wh.gone d/.wh..wh..opq; echo new > d/new; echo 2 > a/g
    printf '%0600d' 7 > a/long; touch -d 2003-01-01 a d";

#[test]
fn export_is_what_the_layers_come_to() {
    let area = Area::new("export");
    area.image("x", &[LOWER, UPPER]);
    area.sh("imgtool export x > flat.tar; imgtool export -o again.tar x; cmp flat.tar again.tar
         mkdir flat; tar -xf flat.tar -C flat");
    let flat = describe(&area, "flat");
    assert!(!flat.contains("gone") && !flat.contains(".wh.") && !flat.contains("d/old"), "{flat}");
    assert!(flat.contains("a/f f 4755") && flat.contains(" 2 2\n"), "{flat}");
    assert!(flat.contains("981173106.7890000000"), "{flat}");
    assert!(flat.contains("pipe p") && flat.contains("dirlink l") && flat.contains("d/new f"));
    // As a tree it is what unpacking makes, if we may unpack.
    if rustix::process::geteuid().is_root() {
        area.sh("unshare -m \"$IMGTOOL\" --quiet unpack --copy x b /bin/true");
        assert_eq!(describe(&area, "b/rootfs"), flat);
    }
}

#[test]
fn what_is_exported_can_be_imported() {
    let area = Area::new("import");
    area.image("x", &[LOWER, UPPER]);
    let digests = area.sh("imgtool export x > flat.tar; gzip -k flat.tar; zstd -q flat.tar
         imgtool import -t plain -e A=b -c 'CMD [\"/bin/x\"]' --expose 80 flat.tar
         imgtool import -t zip flat.tar.gz; imgtool import -t zst - < flat.tar.zst
         imgtool export plain | cmp - flat.tar; imgtool export zip | cmp - flat.tar
         imgtool export zst | cmp - flat.tar; imgtool verify > /dev/null");
    assert_eq!(digests.lines().count(), 3);
    let plain = area.json(&["inspect", "plain"]);
    let config = &plain["config"]["config"];
    assert_eq!(config["Env"], json!(["A=b"]));
    assert_eq!(config["Cmd"], json!(["/bin/x"]));
    assert_eq!(config["ExposedPorts"], json!({"80/tcp": {}}));
    let types = ["plain", "zip", "zst"]
        .map(|n| area.json(&["inspect", n])["layers"][0]["mediaType"].as_str().unwrap().to_owned());
    assert_eq!(
        types,
        [media_type::OCI_LAYER, media_type::OCI_LAYER_GZIP, media_type::OCI_LAYER_ZSTD]
    );
}

#[test]
fn a_bad_archive_is_not_imported_and_leaves_nothing() {
    let area = Area::new("import-bad");
    let before = area.ok(&["verify"]);
    area.sh("head -c 3000 /dev/urandom > rubbish; : > empty; echo x > .wh.; tar -cf wh.tar .wh.
             bzip2 -c wh.tar > wh.tar.bz2");
    for (file, why) in [
        ("rubbish", "malformed checksum"),
        ("empty", "no tar archive"),
        ("wh.tar", "a whiteout name that hides nothing"),
        ("wh.tar.bz2", "bzip2"),
        ("missing", "No such file"),
    ] {
        let (error, _) = area.fails(1, &["import", "-t", "x", file]);
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(area.ok(&["verify"]), before);
    area.fails(2, &["import", "--expose", "x", "wh.tar"]);
}

#[test]
fn times_of_what_is_made_end_at_source_date_epoch() {
    let area = Area::new("epoch");
    area.image("x", &[LOWER, UPPER]);
    let made = |verb: &str| {
        let script = format!("SOURCE_DATE_EPOCH=1000000000 imgtool {verb}");
        (area.sh(&script), area.sh(&script))
    };
    for verb in [
        "flatten -t f x",
        "config -t c -e A=b x",
        "append -t a x layer.tar",
        "import layer.tar",
        "rebase -t r --old-base x --new-base x x",
    ] {
        let (first, second) = made(verb);
        assert_eq!(first, second, "{verb}");
        let text = area.ok(&["inspect", first.trim()]);
        assert!(text.contains("2001-09-09T01:46:40Z"), "{verb}: {text}");
    }
    let times = area.sh("SOURCE_DATE_EPOCH=1000000000 imgtool export x | tar -tvf - --full-time");
    assert!(times.contains("2001-02-03") && times.contains("2001-09-09"), "{times}");
    assert!(!times.contains("2002-01-01") && !times.contains("2003-01-01"), "{times}");
}

#[test]
fn config_changes_what_it_is_told_and_nothing_else() {
    let area = Area::new("config");
    let image = area.image("x", &["echo 1 > f"]);
    area.ok(&[
        "config",
        "x",
        "-e",
        "A=1",
        "-e",
        "B=2",
        "-l",
        "k=v",
        "--cmd",
        "[\"/bin/x\",\"y\"]",
        "--entrypoint",
        "exec z",
        "-u",
        "7:8",
        "-w",
        "/w",
        "--stop-signal",
        "SIGINT",
        "--expose",
        "53/udp",
        "--volume",
        "/v",
        "--author",
        "me",
        "--annotation",
        "org.example=1",
        "--architecture",
        "s390x",
        "--created",
        "2020-01-02T03:04:05Z",
        "-m",
        "why",
    ]);
    let made = area.json(&["inspect", "x"]);
    assert_eq!(
        made["config"]["config"],
        json!({"Env": ["A=1", "B=2"], "Labels": {"k": "v"}, "ExposedPorts": {"53/udp": {}},
            "Volumes": {"/v": {}}, "Cmd": ["/bin/x", "y"],
            "Entrypoint": ["/bin/sh", "-c", "exec z"], "User": "7:8", "WorkingDir": "/w",
            "StopSignal": "SIGINT"})
    );
    assert_eq!(made["config"]["author"], "me");
    assert_eq!(made["config"]["created"], "2020-01-02T03:04:05Z");
    assert_eq!(made["platform"], "linux/s390x");
    assert_eq!(made["layers"][0]["digest"], json!(image.manifest.layers[0].digest));
    let history = area.json(&["history", "--json", "x"]);
    assert_eq!(
        (&history[0]["createdBy"], &history[0]["comment"]),
        (&json!("imgtool config"), &json!("why"))
    );
    assert_eq!(history[0]["layer"], Value::Null);
    assert_eq!(history[1]["layer"], json!(image.manifest.layers[0].digest));
    let raw: Value = serde_json::from_str(&area.ok(&["inspect", "--raw", "x"])).unwrap();
    assert_eq!(raw["annotations"], json!({"org.example": "1"}));

    area.ok(&[
        "config",
        "x",
        "-t",
        "y",
        "--env-rm",
        "A",
        "--label-rm",
        "k",
        "--cmd",
        "",
        "-u",
        "",
        "--expose-rm",
        "53/udp",
        "--volume-rm",
        "/v",
        "--annotation-rm",
        "org.example",
        "--no-history",
        "-e",
        "B=3",
    ]);
    let less = area.json(&["inspect", "y"]);
    let config = less["config"]["config"].as_object().unwrap();
    assert_eq!(
        config.keys().collect::<Vec<_>>(),
        ["Env", "Entrypoint", "WorkingDir", "StopSignal"]
    );
    assert_eq!(config["Env"], json!(["B=3"]));
    assert_eq!(area.json(&["history", "--json", "y"]).as_array().unwrap().len(), 2);
    let raw: Value = serde_json::from_str(&area.ok(&["inspect", "--raw", "y"])).unwrap();
    assert_eq!(raw.get("annotations"), None);
    // x is as it was.
    assert_eq!(area.json(&["inspect", "x"]), made);
}

#[test]
fn config_refuses_what_cannot_be() {
    let area = Area::new("config-bad");
    let image = area.image("x", &["echo 1 > f"]);
    for args in [
        &["config", "x"][..],
        &["config", "x", "-e", "=x"],
        &["config", "x", "--expose", "0"],
        &["config", "x", "-w", "relative"],
        &["config", "x", "--created", "yesterday"],
        &["config", "x", "-c", "RUN x"],
    ] {
        area.fails(2, args);
    }
    let (error, _) = area.fails(1, &["config", "x", "--env-rm", "NO"]);
    assert_eq!(error, "imgtool: config x: --env-rm NO: the image has none\n");
    area.fails(1, &["config", "nope", "-e", "A=b"]);
    let (_, entry) = area.store().find("x").unwrap();
    assert_eq!(entry.digest, image.descriptor.digest);
}

#[test]
fn append_flatten_and_diff_agree() {
    let area = Area::new("append");
    let image = area.image("x", &[LOWER]);
    area.image("up", &[UPPER]);
    area.sh("imgtool append -t y -m more x layer.tar; imgtool flatten -t z y");
    let (y, z) = (area.json(&["inspect", "y"]), area.json(&["inspect", "z"]));
    assert_eq!(y["layers"].as_array().unwrap().len(), 2);
    assert_eq!(y["layers"][0]["digest"], json!(image.manifest.layers[0].digest));
    assert_eq!(z["layers"].as_array().unwrap().len(), 1);
    assert!(area.ok(&["history", "z"]).contains("2 layers of sha256:"));
    assert_eq!(area.ok(&["diff", "y", "z"]), "");
    assert_eq!(
        area.ok(&["diff", "x", "y"]),
        "A /a/g\nA /a/long\nA /d/new\nD /d/old\nD /gone\nD /gone/x\n"
    );
    assert_eq!(area.json(&["diff", "--json", "z", "x"])[0], json!({"path": "/a/g", "change": "D"}));
    area.sh("imgtool export y > y.tar; imgtool export z > z.tar
             imgtool verify > /dev/null");
    let list = |tar: &str| area.sh(&format!("tar -tvf {tar} --full-time | sort"));
    assert_eq!(list("y.tar"), list("z.tar"));
}

#[test]
fn a_flat_layer_can_be_compressed() {
    let area = Area::new("compress");
    area.image("x", &[LOWER, UPPER]);
    let of = |how: &str| {
        area.ok(&["flatten", "--compress", how, "-t", how, "x"]);
        let digest = area.ok(&["flatten", "--compress", how, "-t", how, "x"]);
        // However many processors there are.
        let first = r"sed -n 's/^Cpus_allowed_list:[^0-9]*\([0-9]*\).*/\1/p' /proc/self/status";
        let alone = format!(
            "taskset -pc $({first}) $$ >/dev/null && imgtool flatten --compress {how} -t {how} x"
        );
        let created = area.json(&["inspect", how])["layers"][0].clone();
        area.sh(&alone);
        assert_eq!(area.json(&["inspect", how])["layers"][0], created, "{digest}");
        created
    };
    let (none, gzip, zstd) = (of("none"), of("gzip"), of("zstd"));
    assert_eq!(none["digest"], none["diffID"]);
    for (layer, kind) in [(&gzip, media_type::OCI_LAYER_GZIP), (&zstd, media_type::OCI_LAYER_ZSTD)]
    {
        assert_eq!((&layer["mediaType"], &layer["diffID"]), (&json!(kind), &none["diffID"]));
        assert!(layer["size"].as_u64() < none["size"].as_u64());
    }
    area.ok(&["verify"]);
    assert_eq!(area.ok(&["diff", "none", "zstd"]), "");
}

#[test]
fn rebase_replaces_the_base_and_only_that() {
    let area = Area::new("rebase");
    area.image("old", &["echo 1 > base"]);
    area.image("app", &["echo 1 > base", "echo app > app"]);
    let new = area.image("new", &["echo 2 > base", "echo 3 > more"]);
    area.ok(&["config", "app", "-e", "A=b"]);
    area.ok(&["rebase", "--old-base", "old", "--new-base", "new", "-t", "moved", "app"]);
    let (app, moved) = (area.json(&["inspect", "app"]), area.json(&["inspect", "moved"]));
    let layers: Vec<&Value> =
        moved["layers"].as_array().unwrap().iter().map(|l| &l["digest"]).collect();
    let expected = [
        json!(new.manifest.layers[0].digest),
        json!(new.manifest.layers[1].digest),
        app["layers"][1]["digest"].clone(),
    ];
    assert_eq!(layers, expected.iter().collect::<Vec<_>>());
    assert_eq!(moved["config"]["config"], app["config"]["config"]);
    let by: Vec<Value> = area
        .json(&["history", "--json", "moved"])
        .as_array()
        .unwrap()
        .iter()
        .map(|h| h["createdBy"].clone())
        .collect();
    assert_eq!(by, ["imgtool config", "layer 1", "layer 1", "layer 0"]);
    assert_eq!(
        area.sh("imgtool export moved | tar -xOf - base app more"),
        "app\n2\n3\n".to_owned()
    );
    let raw = area.ok(&["inspect", "--raw", "moved"]);
    assert!(raw.contains("org.opencontainers.image.base.digest"), "{raw}");
    let (error, _) =
        area.fails(1, &["rebase", "--old-base", "new", "--new-base", "old", "-t", "z", "app"]);
    assert!(
        error.contains("the base has 2 layers, of which the image has the lowest 0"),
        "{error}"
    );
}

#[test]
fn tree_shows_what_is_shared() {
    let area = Area::new("tree");
    let image = area.image("x", &["echo 1 > f", "echo 2 > g"]);
    area.image("y", &["echo 1 > f"]);
    let text = area.ok(&["tree", "x"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (4, "x:latest"));
    let shared = format!("    layer {}", image.manifest.layers[0].digest.short());
    assert!(lines[2].starts_with(&shared[2..]) && lines[2].ends_with("also in y:latest"), "{text}");
    assert!(!lines[3].contains("also in"), "{text}");
    let json = area.json(&["tree", "--json", "x"]);
    assert_eq!(json["layers"][0]["sharedWith"], json!(["y:latest"]));
    assert_eq!(json["platform"], json!(Platform::host().to_string()));
}

/// As a user without any privilege: directories that are closed to their own owner, attributes of
/// files that nobody may write, owners that cannot be given; and the way back.
#[test]
fn unpacks_without_privilege_and_keeps_the_owners() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let area = Area::new("rootless");
    area.image(
        "x",
        &[
            "mkdir ro; echo 1 > ro/f; chown -R 1000:5 ro; chmod 444 ro/f; chmod 555 ro; echo 1 > r",
            "mkdir ro; echo 2 > ro/g; chown -R 1000:5 ro; chmod 555 ro",
        ],
    );
    let listed = area.sh(
        "cp \"$IMGTOOL\" tool; mkdir home; chmod 711 .; chown -R 65534:65534 store home; cd home
         as() { env HOME=$PWD setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"; }
         as ../tool --quiet unpack --copy x b /bin/true
         stat -c '%a %u %n' b/rootfs/ro b/rootfs/ro/f b/rootfs/r
         as sh -c 'chmod 644 b/rootfs/ro/f; echo more >> b/rootfs/ro/f; echo new > b/rootfs/new'
         as ../tool diff b | tar --numeric-owner -tvf - | awk '{print $2, $6}'",
    );
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(
        lines[..3],
        ["555 65534 b/rootfs/ro", "444 65534 b/rootfs/ro/f", "644 65534 b/rootfs/r"]
    );
    assert!(lines.contains(&"0/0 new"), "{listed}");
    assert!(lines.contains(&"1000/5 ro/f"), "{listed}");
}
