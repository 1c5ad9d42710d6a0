//! Attacks that runtimes have fallen to: a hostile root, image or configuration tries each, and the
//! test looks at what the attacker did *not* get. The names are those of the CVEs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use spec_tests::{Bundle, Case, differs, runtime, skip};

/// A directory of the host that no container may reach.
fn outside(case: &Case) -> PathBuf {
    let dir = case.dir().join("outside");
    fs::create_dir(&dir).expect("make a directory outside");
    fs::write(dir.join("secret"), "of the host").expect("write");
    dir
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("read a directory").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// A bundle without a file system of its own at /dev: the image's /dev is what counts.
fn without_dev_mount(case: &Case) -> Bundle {
    let mut bundle = case.bundle().writable();
    let mounts = bundle.config["mounts"].as_array_mut().expect("an array");
    mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|d| d.starts_with("/dev")));
    bundle
}

#[test]
fn cve_2019_5736_the_runtimes_program_stays_as_it_is() {
    let case = Case::new();
    // A private copy is attacked, lest a runtime that falls for it breaks the machine.
    let program = case.dir().join("victim");
    fs::copy(runtime(), &program).expect("copy the runtime");
    let before = fs::read(&program).expect("read the copy");
    let bundle = case
        .bundle()
        .file("/bin/evil", "#!/proc/self/exe\n")
        .capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"])
        // Whatever executes here is opened for writing as soon as its owner lets go of it.
        .sh("while :; do for p in /proc/[0-9]*; do \
             [ $p = /proc/1 ] || { echo EVIL > $p/exe; } 2>/dev/null; done; done");
    let evil = bundle.rootfs().join("bin/evil");
    fs::set_permissions(evil, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    bundle.write();
    let call = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("--root").arg(case.root()).args(args).stdin(std::process::Stdio::null());
        case.outcome(command)
    };
    let dir = bundle.dir.to_str().expect("UTF-8");
    call(&["run", "--detach", "--bundle", dir, &bundle.id]).success();
    for _ in 0..10 {
        for entry in ["/proc/self/exe", "/bin/evil"] {
            // How it ends does not matter; nothing of what it reads may be the attacker's.
            call(&["exec", &bundle.id, entry]);
        }
    }
    call(&["delete", "--force", &bundle.id]).success();
    assert!(fs::read(&program).expect("read the copy") == before, "the runtime was overwritten");
}

#[test]
fn cve_2024_21626_no_working_directory_outside() {
    let case = Case::new();
    let dir = outside(&case);
    let marker = format!("../../../../../../../../..{}/secret", dir.display());
    for fd in 3..16 {
        let bundle =
            case.bundle().set("/process/cwd", format!("/proc/self/fd/{fd}")).args(["cat", &marker]);
        let outcome = case.run(&bundle);
        assert!(!outcome.stdout.contains("of the host"), "descriptor {fd}: {outcome}");
    }
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    for fd in 3..16 {
        let cwd = format!("/proc/self/fd/{fd}");
        let outcome = case.exec(&bundle, ["--cwd", &cwd], ["cat", &marker]);
        assert!(!outcome.stdout.contains("of the host"), "exec, descriptor {fd}: {outcome}");
    }
}

#[test]
fn cve_2026_41579_a_dev_that_is_a_link_leads_nowhere() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "the versions before that CVE make devices on the host");
    let dir = outside(&case);
    let bundle = without_dev_mount(&case).args(["true"]);
    fs::remove_dir(bundle.rootfs().join("dev")).expect("remove dev");
    symlink(&dir, bundle.rootfs().join("dev")).expect("make the link");
    case.run(&bundle);
    assert_eq!(names(&dir), ["secret"], "something was made outside");
}

#[test]
fn a_mount_target_below_a_link_stays_inside() {
    let case = Case::new();
    let dir = outside(&case);
    let bundle = case.bundle().writable().mount("/link/inner", "tmpfs", "tmpfs", &["size=1m"]);
    symlink(&dir, bundle.rootfs().join("link")).expect("make the link");
    case.run(&bundle.sh("touch /link/inner/file"));
    assert_eq!(names(&dir), ["secret"], "something was made outside");
}

#[test]
fn cve_2024_45310_a_target_with_dots_stays_inside() {
    let case = Case::new();
    let dir = outside(&case);
    let target = format!("/a/../../../../../../..{}/made", dir.display());
    let bundle = case.bundle().writable().mount(&target, "tmpfs", "tmpfs", &["size=1m"]);
    case.run(&bundle);
    assert_eq!(names(&dir), ["secret"], "something was made outside");
}

#[test]
fn cve_2025_31133_a_null_device_that_is_none_masks_nothing_else() {
    let case = Case::new();
    differs!(case, ["runc"], "runc before 1.2.8 binds whatever is at /dev/null");
    let bundle = without_dev_mount(&case)
        .file("/etc/masked", "to be hidden")
        .file("/dev/null", "the attacker's")
        .push("/linux/maskedPaths", "/etc/masked")
        .sh("cat /etc/masked; echo attack > /etc/masked");
    let outcome = case.run(&bundle);
    assert!(!outcome.stdout.contains("hidden"), "{outcome}");
    assert!(!outcome.stdout.contains("attacker"), "{outcome}");
    let null = fs::read_to_string(bundle.rootfs().join("dev/null"));
    assert!(!null.is_ok_and(|text| text.contains("attack\n")), "written through the mask");
}

#[test]
fn cve_2019_19921_proc_is_no_place_for_mounts() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 mounts anywhere");
    let dir = outside(&case);
    let source = dir.to_str().expect("UTF-8");
    for target in ["/proc/sys", "/proc/self/attr", "/proc/1"] {
        let bundle = case.bundle().mount(target, "bind", source, &["bind"]);
        let outcome = case.run(&bundle);
        assert_ne!(outcome.code(), 0, "{target}: {outcome}");
        case.assert_gone(&bundle);
    }
}

#[test]
fn cve_2019_16884_proc_that_is_no_procfs_is_refused() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "they write attributes only where an LSM is asked for");
    // A directory of the image with files of the names that a runtime writes to.
    let mut bundle = case.bundle().writable().file("/proc/sys/net/ipv4/ip_forward", "");
    let mounts = bundle.config["mounts"].as_array_mut().expect("an array");
    mounts.retain(|mount| mount["destination"] != "/proc");
    let bundle = bundle.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    case.run(&bundle.args(["true"]));
    let text = bundle_file(&case, "proc/sys/net/ipv4/ip_forward");
    assert_eq!(text, "", "the sysctl went into the image's own file");
}

/// A file of the first bundle's root.
fn bundle_file(case: &Case, path: &str) -> String {
    let name = case.dir().file_name().expect("a name").to_string_lossy().into_owned();
    let root = case.dir().join(format!("{name}-0/rootfs"));
    fs::read_to_string(root.join(path)).expect("read a file of the root")
}

#[test]
fn cve_2016_9962_the_runtime_cannot_be_traced_from_inside() {
    let case = Case::new();
    // While exec enters, every process inside tries to read the newcomer's descriptors.
    let bundle = case
        .bundle()
        .capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"])
        .sh("while :; do for p in /proc/[0-9]*; do \
         for f in $p/fd/*; do readlink $f; done; done; done 2>/dev/null | grep -v '^/dev\\|pipe:'");
    let started = case.start(&bundle);
    for _ in 0..10 {
        case.exec(&bundle, [], ["true"]).success();
    }
    let seen = started.stdout_now();
    let root = case.root().display().to_string();
    let leaked = seen.lines().find(|line| line.contains(&root));
    assert_eq!(leaked, None, "a descriptor of the runtime's state was seen inside");
}

#[test]
fn cve_2022_29162_no_inheritable_capabilities() {
    let case = Case::new();
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    let flags = ["--cap", "CAP_NET_RAW"];
    let outcome = case.exec(&bundle, flags, ["cat", "/proc/self/status"]);
    if outcome.code() != 0 {
        skip!("exec --cap beyond the bounding set is refused");
    }
    assert_eq!(outcome.field("CapInh"), "0000000000000000");
}
