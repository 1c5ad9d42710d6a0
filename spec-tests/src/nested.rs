//! The runtime inside one of its own containers, where the kernel allows it less.

use serde_json::json;

use crate::{Bundle, Case, Outcome, runtime};

/// A container in which the runtime itself can run: every capability, and the test's directory at
/// its own place.
pub fn outer(case: &Case) -> Bundle {
    let dir = case.dir().to_str().expect("UTF-8");
    let names = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_ADMIN",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_ADMIN",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_RESOURCE",
    ];
    let names = names.map(|name| format!("CAP_{name}"));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let program = runtime().to_str().expect("UTF-8");
    case.bundle()
        .writable()
        .set("/process/noNewPrivileges", false)
        .capabilities(&names)
        .mount(dir, "bind", dir, &["rbind", "rw"])
        .mount("/bin/inner-runtime", "bind", program, &["bind", "ro"])
}

/// A container as an engine asks for it that knows that it is in one: the /proc that is there.
pub fn inner(case: &Case) -> Bundle {
    let mut bundle = case.bundle().without_namespace("pid").without_namespace("ipc");
    bundle.config["mounts"] = json!([
        { "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind", "rw"] },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] },
    ]);
    let linux = bundle.config["linux"].as_object_mut().expect("an object");
    for key in ["maskedPaths", "readonlyPaths", "resources", "cgroupsPath"] {
        linux.remove(key);
    }
    let process = bundle.config["process"].as_object_mut().expect("an object");
    process.remove("rlimits");
    bundle
}

/// `VERB` of the runtime inside, after `prepare`, in a user namespace of the outer container: what
/// hides parts of /proc cannot be taken away there, and a fresh procfs would show them.
pub fn nested(case: &Case, outer: Bundle, inner: &Bundle, prepare: &str, verb: &str) -> Outcome {
    inner.write();
    let (root, dir) = (case.dir().join("inner-root"), inner.dir.display().to_string());
    let id =
        if verb == "plan" { format!("{dir} ") } else { format!("--bundle {dir} {}", inner.id) };
    let script = format!(
        "exec busybox unshare -U -r -m sh -c '{prepare} exec inner-runtime --root {} --cgroup-manager=disabled --debug {verb} {id}'",
        root.display()
    );
    case.run(&outer.sh(&script))
}
