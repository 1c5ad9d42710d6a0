//! User namespace mappings (config-linux.md#user-namespace-mappings).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use serde_json::json;
use spec_tests::user_namespace::{FIRST, mapped};
use spec_tests::{Case, differs};

#[test]
fn the_maps_are_as_configured() {
    let case = Case::new();
    let bundle = mapped(&case).sh("cat /proc/self/uid_map /proc/self/gid_map");
    let outcome = case.run(&bundle);
    for line in outcome.quiet_success().stdout.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["0", "100000", "65536"], "{outcome}");
    }
    assert_eq!(outcome.stdout.lines().count(), 2);
}

#[test]
fn root_inside_is_the_mapped_user_outside() {
    let case = Case::new();
    let bundle = mapped(&case).args(["sleep", "100"]);
    case.start(&bundle);
    let meta = fs::metadata(format!("/proc/{}", case.pid(&bundle))).expect("the init runs");
    assert_eq!((meta.uid(), meta.gid()), (FIRST, FIRST));
    case.exec(&bundle, [], ["id", "-u"]).quiet_success().prints("0");
}

#[test]
fn files_written_inside_belong_to_the_mapped_user() {
    let case = Case::new();
    let bundle = mapped(&case).writable().sh("echo x > /file");
    case.run(&bundle).quiet_success();
    let meta = fs::metadata(bundle.rootfs().join("file")).expect("the file exists");
    assert_eq!((meta.uid(), meta.gid()), (FIRST, FIRST));
}

#[test]
fn another_user_inside_is_mapped_too() {
    let case = Case::new();
    let user = json!({ "uid": 1000, "gid": 2000, "additionalGids": [30] });
    let bundle = mapped(&case).set("/process/user", user).args(["sleep", "100"]);
    case.start(&bundle);
    let pid = case.pid(&bundle);
    let meta = fs::metadata(format!("/proc/{pid}")).expect("the init runs");
    assert_eq!((meta.uid(), meta.gid()), (FIRST + 1000, FIRST + 2000));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read the status");
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).expect("groups");
    assert_eq!(groups.trim(), (FIRST + 30).to_string());
}

#[test]
fn devices_work_under_a_mapping() {
    let case = Case::new();
    let bundle = mapped(&case).sh("echo x > /dev/null && head -c 3 /dev/zero | wc -c");
    case.run(&bundle).quiet_success().prints("3");
}

#[test]
fn a_host_file_of_another_owner_stays_closed() {
    let case = Case::new();
    let secret = case.dir().join("secret");
    fs::write(&secret, "of the host's root").expect("write");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("chmod");
    chown(&secret, Some(0), Some(0)).expect("chown");
    let bundle = mapped(&case);
    let target = bundle.rootfs().join("secret");
    fs::write(&target, "").expect("write");
    let bundle = bundle
        .mount("/secret", "bind", secret.to_str().expect("UTF-8"), &["bind"])
        .args(["cat", "/secret"]);
    let outcome = case.run(&bundle);
    outcome.exits(1);
    assert!(outcome.stderr.contains("Permission denied"), "{outcome}");
}

#[test]
fn the_root_may_lie_below_a_directory_that_the_mapped_user_cannot_search() {
    let case = Case::new();
    // podman's vfs gives its directories to the mapped root, and 4242 stands for anybody else.
    for owner in [FIRST, 0, 4242] {
        if owner != FIRST {
            differs!(case, ["runc", "crun"], "they open it with the rights of the container alone");
        }
        let bundle = mapped(&case);
        let closed = case.dir().join(format!("closed-{owner}"));
        fs::create_dir(&closed).expect("make a directory");
        fs::rename(bundle.rootfs(), closed.join("rootfs")).expect("move the root");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("chmod");
        chown(&closed, Some(owner), Some(owner)).expect("chown");
        let root = closed.join("rootfs").display().to_string();
        let script = "touch /file && stat -c %u /file; grep -c shared: /proc/self/mountinfo";
        let bundle = bundle.set("/root/path", root).writable().sh(script);
        case.run(&bundle).exits(1).prints("0\n0");
        case.assert_gone(&bundle);
    }
}

#[test]
fn a_user_namespace_is_joined_by_path() {
    let case = Case::new();
    if case.runtime_is("runc") && case.runtime(["--version"]).stdout.contains(" 1.1") {
        spec_tests::skip!("runc 1.1 wants mappings for a joined namespace too");
    }
    let first = mapped(&case).args(["sleep", "100"]);
    case.start(&first);
    let path = format!("/proc/{}/ns/user", case.pid(&first));
    let second = mapped(&case)
        .namespace("user", Some(Path::new(&path)))
        .set("/linux/uidMappings", json!(null))
        .set("/linux/gidMappings", json!(null))
        .args(["readlink", "/proc/self/ns/user"]);
    let outcome = case.run(&second);
    let link = fs::read_link(&path).expect("read the first one's namespace");
    outcome.quiet_success().prints(link.to_str().expect("UTF-8"));
}

#[test]
fn a_container_with_mappings_leaves_nothing() {
    let case = Case::new();
    let bundle = mapped(&case).sh("exit 9");
    case.run(&bundle).exits(9);
    case.assert_gone(&bundle);
}
