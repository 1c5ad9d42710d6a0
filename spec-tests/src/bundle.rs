//! A bundle on disk: a root file system of one busybox, and a config.json edited as JSON.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The applets that the tests call inside a container.
const APPLETS: &[&str] = &[
    "awk", "base64", "cat", "chmod", "cut", "dd", "df", "echo", "env", "false", "find", "grep",
    "head", "hostname", "id", "ip", "kill", "ln", "ls", "md5sum", "mkdir", "mknod", "mount", "mv",
    "nproc", "printf", "ps", "pwd", "readlink", "rm", "sh", "sleep", "sort", "stat", "stty",
    "tail", "test", "touch", "tr", "true", "tty", "uname", "wc", "yes",
];

/// An OCI bundle in the scratch directory of a [`crate::Case`], and the id of its one container.
///
/// Built by chaining; what has been set reaches the disk when the case hands it to the runtime.
#[derive(Debug)]
pub struct Bundle {
    /// The container's id, unique on this machine.
    pub id: String,
    /// The bundle directory; `rootfs` and config.json lie in it.
    pub dir: PathBuf,
    /// The configuration, still to be edited.
    pub config: Value,
}

impl Bundle {
    pub(crate) fn make_root(&self) {
        make_root(&self.rootfs());
    }

    /// The container's root directory, seen from the host.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Sets `process.args`.
    pub fn args<const N: usize>(self, args: [&str; N]) -> Bundle {
        self.set("/process/args", json!(args.as_slice()))
    }

    /// Sets `process.args` to a shell that runs `script`.
    pub fn sh(self, script: &str) -> Bundle {
        self.args(["sh", "-c", script])
    }

    /// Sets the value at a JSON pointer, making missing objects on the way.
    ///
    /// # Panics
    /// When the pointer leads through something that is no object, or past the end of an array.
    #[track_caller]
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Bundle {
        *slot(&mut self.config, pointer) = value.into();
        self
    }

    /// Appends a value to the array at a JSON pointer, which need not exist yet.
    #[track_caller]
    pub fn push(mut self, pointer: &str, value: impl Into<Value>) -> Bundle {
        let target = slot(&mut self.config, pointer);
        if target.is_null() {
            *target = json!([]);
        }
        target.as_array_mut().expect("the pointer leads to an array").push(value.into());
        self
    }

    /// Appends a mount.
    pub fn mount(self, destination: &str, kind: &str, source: &str, options: &[&str]) -> Bundle {
        self.push(
            "/mounts",
            json!({
                "destination": destination, "type": kind, "source": source, "options": options,
            }),
        )
    }

    /// Asks for one more namespace, new or (with `path`) joined; an earlier entry is replaced.
    pub fn namespace(mut self, kind: &str, path: Option<&Path>) -> Bundle {
        let list = slot(&mut self.config, "/linux/namespaces").as_array_mut().expect("an array");
        list.retain(|entry| entry["type"] != kind);
        list.push(match path {
            Some(path) => json!({ "type": kind, "path": path }),
            None => json!({ "type": kind }),
        });
        self
    }

    /// Removes a namespace, so that the container shares the host's.
    pub fn without_namespace(mut self, kind: &str) -> Bundle {
        let list = slot(&mut self.config, "/linux/namespaces").as_array_mut().expect("an array");
        list.retain(|entry| entry["type"] != kind);
        self
    }

    /// Asks for exactly these capabilities, in all sets but the inheritable one.
    pub fn capabilities(mut self, names: &[&str]) -> Bundle {
        for set in ["bounding", "effective", "permitted", "ambient"] {
            self.config["process"]["capabilities"][set] = json!(names);
        }
        self
    }

    /// Makes the root file system writable.
    pub fn writable(self) -> Bundle {
        self.set("/root/readonly", false)
    }

    /// Writes a file into the root file system, with its directories.
    pub fn file(self, path: &str, content: &str) -> Bundle {
        let path = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a path inside the root")).expect("make dirs");
        fs::write(path, content).expect("write into the root");
        self
    }

    /// Writes config.json; the case does it before each verb that reads the bundle.
    pub fn write(&self) {
        let text = serde_json::to_vec_pretty(&self.config).expect("render config.json");
        fs::write(self.dir.join("config.json"), text).expect("write config.json");
    }
}

fn slot<'a>(config: &'a mut Value, pointer: &str) -> &'a mut Value {
    let mut target = config;
    for key in pointer.trim_start_matches('/').split('/') {
        if target.is_null() {
            *target = json!({});
        }
        target = match target {
            Value::Array(list) => &mut list[key.parse::<usize>().expect("an array index")],
            other => &mut other[key],
        };
    }
    target
}

/// Where the host's static busybox is.
///
/// # Panics
/// When there is none; the message names the package.
pub fn busybox() -> PathBuf {
    let found = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists());
    PathBuf::from(found.expect("busybox is missing: apt-get install busybox-static"))
}

/// A root file system of busybox, its applets, and the few files that programs expect.
pub(crate) fn make_root(root: &Path) {
    for dir in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"] {
        fs::create_dir_all(root.join(dir)).expect("make the root's directories");
    }
    fs::copy(busybox(), root.join("bin/busybox")).expect("copy busybox");
    for applet in APPLETS {
        let _ = symlink("busybox", root.join("bin").join(applet));
    }
    let accounts = "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000:guest:/tmp:/bin/sh\n";
    fs::write(root.join("etc/passwd"), accounts).expect("write passwd");
    fs::write(root.join("etc/group"), "root:x:0:\nguest:x:1000:\nextra:x:2000:guest\n")
        .expect("write group");
}
