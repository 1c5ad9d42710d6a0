//! Root (config.md#root) and rootfsPropagation (config-linux.md#rootfs-mount-propagation).

use std::os::unix::fs::symlink;

use serde_json::json;
use spec_tests::nested::{inner, nested, outer};
use spec_tests::{Case, differs};

#[test]
fn the_root_is_the_bundles() {
    let case = Case::new();
    let bundle = case.bundle().file("/marker", "here").args(["cat", "/marker"]);
    case.run(&bundle).quiet_success().prints("here");
}

#[test]
fn the_hosts_root_is_out_of_reach() {
    let case = Case::new();
    // Neither above / nor as the old root is there anything of the host.
    let bundle = case.bundle().sh("ls / /.. /../..; test ! -e /.pivot_root && ls -a / | wc -l");
    let outcome = case.run(&bundle);
    outcome.quiet_success();
    assert!(!outcome.stdout.contains("usr"), "{outcome}");
    // Not one mount of the host is left in the container's table.
    let bundle = case.bundle().args(["cat", "/proc/self/mountinfo"]);
    let outcome = case.run(&bundle);
    let roots = outcome.stdout.lines().filter(|line| line.split(' ').nth(4) == Some("/")).count();
    assert_eq!(roots, 1, "{outcome}");
}

#[test]
fn an_absolute_root_path_is_taken_as_it_is() {
    let case = Case::new();
    let bundle = case.bundle().args(["echo", "absolute"]);
    let root = bundle.rootfs();
    let bundle = bundle.set("/root/path", root.to_str().expect("UTF-8"));
    case.run(&bundle).quiet_success().prints("absolute");
}

#[test]
fn a_root_path_through_a_symlink_is_followed() {
    let case = Case::new();
    differs!(case, ["runc"], "runc refuses a root path that is a symlink");
    let bundle = case.bundle().set("/root/path", "link").args(["echo", "through"]);
    symlink("rootfs", bundle.dir.join("link")).expect("make the link");
    case.run(&bundle).quiet_success().prints("through");
}

#[test]
fn a_readonly_root_refuses_writes() {
    let case = Case::new();
    let bundle = case.bundle().sh("echo x > /file");
    let outcome = case.run(&bundle);
    outcome.exits(1);
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome}");
    assert!(!bundle.rootfs().join("file").exists());
}

#[test]
fn a_writable_root_takes_writes() {
    let case = Case::new();
    let bundle = case.bundle().writable().sh("echo x > /file");
    case.run(&bundle).quiet_success();
    assert!(bundle.rootfs().join("file").exists());
}

/// The optional fields of the root's line in the container's mount table.
#[track_caller]
fn propagation(case: &Case, kind: &str) -> String {
    let mut bundle = case.bundle().args(["cat", "/proc/self/mountinfo"]);
    if !kind.is_empty() {
        bundle = bundle.set("/linux/rootfsPropagation", kind);
    }
    let outcome = case.run(&bundle);
    let line = outcome.quiet_success().stdout.lines().find(|l| l.split(' ').nth(4) == Some("/"));
    let line = line.expect("a root mount");
    let fields = line.split(' ').skip(6).take_while(|field| *field != "-");
    fields.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_root_is_no_shared_mount_by_default() {
    let case = Case::new();
    let fields = propagation(&case, "");
    assert!(!fields.contains("shared:"), "{fields}");
}

#[test]
fn a_private_root_is_private() {
    let case = Case::new();
    assert_eq!(propagation(&case, "private"), "");
}

#[test]
fn a_shared_root_is_shared() {
    let case = Case::new();
    differs!(
        case,
        ["runc"],
        "runc binds the root after it made the parent private, and never shares it again"
    );
    assert!(propagation(&case, "shared").contains("shared:"));
}

#[test]
fn an_unbindable_root_is_unbindable() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc and crun leave it private");
    assert_eq!(propagation(&case, "unbindable"), "unbindable");
}

#[test]
fn where_pivot_root_is_forbidden_no_pivot_serves() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "they need a cgroup, which there is not inside");
    // As on a ramdisk: pivot_root(2) says EINVAL.
    let outer = || {
        let refuse =
            json!([{ "names": ["pivot_root"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22 }]);
        outer(&case)
            .file("/of-the-outer", "")
            .set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": refuse }))
    };
    let inner = inner(&case).sh("ls / /.. /../..; echo ran");
    let refused = nested(&case, outer(), &inner, "", "run");
    refused.fails_with("make the root file system the root").prints("");
    let outcome = nested(&case, outer(), &inner, "", "run --no-pivot");
    outcome.success().prints_part("ran");
    assert!(!outcome.stdout.contains("of-the-outer"), "{outcome}");
}
