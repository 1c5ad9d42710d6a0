//! Bundles from end to end: unpack, change, diff, commit, and the same tree again. The mounts are
//! made in a private mount namespace, so these need root.

use std::path::{Path, PathBuf};
use std::process::Command;

use imgtool::descriptor::media_type;
use imgtool::image::ImageConfig;
use imgtool::platform::Platform;
use imgtool::reference::Reference;
use imgtool::store::Store;
use serde_json::json;

/// A directory with a store in it that has the image `base`, of one layer.
struct Area(PathBuf);

impl Area {
    fn new(name: &str) -> Area {
        let dir = format!("imgtool-bundle-{name}-{}", std::process::id());
        let area = Area(std::env::temp_dir().join(dir));
        drop(std::fs::remove_dir_all(&area.0));
        std::fs::create_dir_all(&area.0).unwrap();
        area.sh(
            "mkdir -p tree/etc tree/dir/sub tree/gone tree/kept && cd tree && echo 1 > etc/file &&
             echo 1 > dir/sub/a && echo 1 > gone/x && echo 1 > kept/y && ln etc/file etc/link &&
             echo app:x:7:8::/home/app: > etc/passwd && chmod 751 . && tar -cf ../layer.tar .",
        );
        area.add_image();
        area
    }

    fn add_image(&self) {
        let store = Store::open(self.0.join("store")).unwrap();
        let layer = std::fs::read(self.0.join("layer.tar")).unwrap();
        let layer = store.put_bytes(media_type::OCI_LAYER, &layer).unwrap();
        let mut config = ImageConfig::new(&Platform::host());
        config.set_cmd(Some(&["/bin/true".to_owned()]));
        config.set_user("app");
        config.add_volume("/kept");
        config.add_layer(&layer.digest, json!({"created_by": "test"}));
        let image = store.add_image(&config, vec![layer]).unwrap();
        store.tag(&Reference::parse("base").unwrap(), &image.descriptor).unwrap();
    }

    /// Runs a script here, in a mount namespace of its own; `imgtool` is ours.
    fn sh(&self, script: &str) -> String {
        let output = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-ec"])
            .arg(format!("imgtool() {{ \"$IMGTOOL\" --quiet \"$@\"; }}\n{script}"))
            .current_dir(&self.0)
            .env("IMGTOOL", env!("CARGO_BIN_EXE_imgtool"))
            .env("DAVIT_STORE", self.0.join("store"))
            .env_remove("SOURCE_DATE_EPOCH")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{script}\n{stdout}\n{stderr}");
        String::from_utf8(output.stdout).unwrap() + &stderr
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

const CHANGE: &str = "
    cd b/rootfs; rm -r gone; rm -r dir; echo file > dir; echo 2 >> etc/file; chmod 700 kept
    mkdir -p new/deep; echo 3 > new/deep/f; ln -s nowhere etc/dangling; cd ../..";

/// Names, types, modes, owners, sizes, times and contents. Not link counts: overlay shows those of
/// the lower layer.
const DESCRIBE: &str = "describe() { (cd $1/rootfs && find . -type d -printf '%P d %m %U:%G\\n' -o \
    -printf '%P %y %m %U:%G %s %T@ %l\\n' | sort; find . -type f | sort | xargs cat); }\n";

#[test]
fn changes_survive_commit_by_overlay_and_by_copy() {
    if !is_root() {
        return;
    }
    for how in ["", "--copy"] {
        let area = Area::new(&format!("commit{how}"));
        let listed = area.sh(&format!(
            "{DESCRIBE} imgtool unpack {how} base b; {CHANGE}
             imgtool diff b > layer; imgtool diff b | cmp - layer
             imgtool commit -a me -m why b changed
             imgtool unpack changed o; imgtool unpack --copy changed c
             describe b > want; describe o | cmp - want; describe c | cmp - want
             tar -tf layer; imgtool umount b; imgtool umount b; imgtool mount b; imgtool mount b
             describe b | cmp - want"
        ));
        let expected = "dir\netc/\netc/dangling\netc/file\netc/link\n.wh.gone\nkept/\nnew/\n\
                        new/deep/\nnew/deep/f\n";
        // An overlay breaks the link to what it copies up; there only the file itself changed.
        let expected =
            if how.is_empty() { expected.replace("etc/link\n", "") } else { expected.into() };
        assert_eq!(listed, expected, "{how}");
    }
}

#[test]
fn a_failed_unpack_leaves_nothing() {
    if !is_root() {
        return;
    }
    let area = Area::new("fail");
    let said = area.sh("mkdir empty full; touch full/x
         for b in new empty; do for how in '' --copy; do
           ! imgtool unpack $how -u nobody base $b; done; done
         ! imgtool unpack base full; ! imgtool unpack base no/such
         ! test -e new; test -z \"$(ls -A empty)\"; ! grep -F $PWD /proc/self/mounts");
    assert_eq!(said.matches("no user nobody").count(), 4, "{said}");
    assert!(said.contains("not empty"), "{said}");
    assert!(said.lines().all(|line| line.starts_with("imgtool: unpack base: ")), "{said}");
}

#[test]
fn overlay_on_overlay_becomes_a_copy() {
    if !is_root() {
        return;
    }
    let area = Area::new("nested");
    area.sh("mkdir l u w m; mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m
         imgtool unpack base m/b; test -f m/b/rootfs/etc/file; grep -q copy m/b/davit.json
         $IMGTOOL unpack base m/c 2>&1 | grep -q 'so the layers are copied: '");
}

#[test]
fn config_follows_image_and_settings() {
    let area = Area::new("config");
    let text = area.sh("imgtool unpack --copy -e A=b base b /bin/x -y; cat b/config.json");
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let process = &config["process"];
    assert_eq!(process["user"], json!({"uid": 7, "gid": 8}));
    assert_eq!(process["args"], json!(["/bin/x", "-y"]));
    let env = process["env"].as_array().unwrap();
    assert!(env.contains(&json!("A=b")) && env.contains(&json!("HOME=/home/app")));
    let mounts = config["mounts"].as_array().unwrap();
    let volume = mounts.iter().find(|m| m["destination"] == "/kept").unwrap();
    // A new volume starts with what the image has there.
    let source = Path::new(volume["source"].as_str().unwrap());
    assert_eq!(std::fs::read_to_string(source.join("y")).unwrap(), "1\n");
}
