//! A user without privilege: id maps by newuidmap and newgidmap, no control groups.
//!
//! The user exists for the tests alone, in files that a private mount namespace puts over /etc.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use spec_tests::{Bundle, Case, Outcome, differs, find_program, runtime, skip};

/// The user, and the first of the ids that /etc/subuid and /etc/subgid give it.
const USER: u32 = 61_234;
const FIRST: u32 = 700_000;

/// Ends the test where no user can be played.
macro_rules! user {
    () => {
        if !rustix::process::geteuid().is_root() {
            skip!("only root can play a user of the tests' own");
        }
        for tool in ["newuidmap", "newgidmap", "setpriv", "unshare"] {
            if let Err(reason) = find_program(tool) {
                skip!("{reason}");
            }
        }
    };
}

/// A bundle without what only root can do, whose ids are mapped by `uids` and `gids`.
fn bundle(case: &Case, uids: Value, gids: Value) -> Bundle {
    let mut bundle = case
        .bundle()
        .namespace("user", None)
        .set("/linux/uidMappings", uids)
        .set("/linux/gidMappings", gids)
        .set("/linux/cgroupsPath", json!(null))
        .set("/linux/resources", json!({}));
    // The group of terminals need not be mapped.
    for mount in bundle.config["mounts"].as_array_mut().expect("mounts") {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| !option.as_str().is_some_and(|o| o.starts_with("gid=")));
        }
    }
    for path in [case.dir(), &bundle.dir, &bundle.rootfs()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    let root = case.dir().join("root");
    fs::create_dir_all(&root).expect("make the state root");
    chown(&root, Some(USER), Some(USER)).expect("give it to the user");
    bundle
}

fn range(inside: u32, outside: u32, count: u32) -> Value {
    json!({ "containerID": inside, "hostID": outside, "size": count })
}

/// Two ranges: root is the user, all others are subordinate ids.
fn two_ranges() -> Value {
    json!([range(0, USER, 1), range(1, FIRST, 1000)])
}

/// Runs the runtime as the user, whose subordinate ids are `subids`.
#[track_caller]
fn as_user(case: &Case, bundle: &Bundle, subids: &str, flags: &[&str], verb: &[&str]) -> Outcome {
    bundle.write();
    let file = |name: &str, text: String| {
        let path = case.dir().join(name);
        fs::write(&path, text).expect("write a file for /etc");
        path
    };
    let home = format!("tester:x:{USER}:{USER}::/:/bin/sh\n");
    let passwd = file("passwd", fs::read_to_string("/etc/passwd").expect("read") + &home);
    let subids = file("subids", subids.into());
    let script = r#"
        mount --bind "$1" /etc/passwd && shift || exit 99
        for f in /etc/subuid /etc/subgid; do
            [ -e $f ] || exit 98
            mount --bind "$1" $f || exit 99
        done
        shift
        id=$1; shift
        exec setpriv --reuid "$id" --regid "$id" --clear-groups -- "$@"
    "#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.arg(passwd).arg(subids).arg(USER.to_string());
    command.stdin(std::process::Stdio::null()).env_remove("XDG_RUNTIME_DIR");
    command.arg(runtime()).arg("--root").arg(case.root()).args(flags).args(verb);
    command.arg("--bundle").arg(&bundle.dir).arg(&bundle.id).current_dir("/");
    case.outcome(command)
}

fn granted() -> String {
    format!("tester:{FIRST}:1000\n")
}

fn lines(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn the_users_own_id_needs_no_helper() {
    user!();
    let case = Case::new();
    let own = json!([range(0, USER, 1)]);
    let script = "id -u; cat /proc/self/uid_map /proc/self/setgroups";
    let bundle = bundle(&case, own.clone(), own).sh(script);
    // No subordinate ids at all.
    let outcome = as_user(&case, &bundle, "", &[], &["run"]);
    let user = USER.to_string();
    outcome.quiet_success();
    let expected = vec![vec!["0"], vec!["0", user.as_str(), "1"], vec!["deny"]];
    assert_eq!(lines(&outcome.stdout), expected, "{outcome}");
}

#[test]
fn several_ranges_are_mapped_by_the_helpers() {
    user!();
    let case = Case::new();
    let script = "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id -G";
    let bundle = bundle(&case, two_ranges(), two_ranges()).sh(script);
    let outcome = as_user(&case, &bundle, &granted(), &[], &["run"]);
    outcome.quiet_success();
    let (user, first) = (USER.to_string(), FIRST.to_string());
    let map = [vec!["0", user.as_str(), "1"], vec!["1", first.as_str(), "1000"]];
    let found = lines(&outcome.stdout);
    assert_eq!(found[..2], map, "{outcome}");
    assert_eq!(found[2..4], map, "{outcome}");
    // The helper may map groups without giving up setgroups(2).
    assert_eq!(found[4..], [vec!["allow"], vec!["0"]], "{outcome}");
}

#[test]
fn another_user_inside_gets_groups_and_stdio() {
    user!();
    let case = Case::new();
    differs!(case, ["runc"], "runc sets no additional groups for a caller other than root");
    let user = json!({ "uid": 5, "gid": 6, "additionalGids": [7] });
    let bundle = bundle(&case, two_ranges(), two_ranges())
        .set("/process/user", user)
        .sh("id -u; id -G; echo again > /dev/stderr; cat /proc/self/gid_map | wc -l");
    let outcome = as_user(&case, &bundle, &granted(), &[], &["run"]);
    outcome.success().prints_part("5\n6 7\n");
}

#[test]
fn ids_that_were_not_granted_are_a_clear_error() {
    user!();
    let case = Case::new();
    let taken = json!([range(0, USER, 1), range(1, 900_000, 1000)]);
    for (subids, uids) in [(granted(), taken), (String::new(), two_ranges())] {
        let bundle = bundle(&case, uids.clone(), uids).args(["true"]);
        let outcome = as_user(&case, &bundle, &subids, &[], &["run"]);
        assert_ne!(outcome.code(), 0, "{outcome}");
        // Either helper may be the first that is called.
        let helpers = ["newuidmap", "newgidmap"];
        assert!(helpers.iter().any(|helper| outcome.stderr.contains(helper)), "{outcome}");
        if !case.runtime_is("runc") && !case.runtime_is("crun") {
            outcome.fails_with("/etc/subuid").fails_with("uidMappings");
        }
    }
}

#[test]
fn limits_without_a_cgroup_are_an_error_and_none_are_not() {
    user!();
    let case = Case::new();
    differs!(case, ["runc", "crun"], "what they make of a missing cgroup differs by version");
    let own = json!([range(0, USER, 1)]);
    let limited = bundle(&case, own.clone(), own.clone())
        .set("/linux/resources/pids", json!({ "limit": 7 }))
        .args(["true"]);
    let outcome = as_user(&case, &limited, "", &[], &["run"]);
    outcome.fails_with("cgroup");
    // Asked not to make any, it has none to limit.
    let free = bundle(&case, own.clone(), own).args(["echo", "free"]);
    let flags = ["--cgroup-manager", "disabled"];
    as_user(&case, &free, "", &flags, &["run"]).quiet_success().prints("free");
    let outcome = as_user(&case, &free, "", &["--rootless", "false"], &["run"]);
    outcome.fails_with("cgroup");
    as_user(&case, &free, "", &["--rootless", "true"], &["run"]).quiet_success().prints("free");
}

#[test]
fn nothing_is_left_of_a_users_container() {
    user!();
    let case = Case::new();
    let bundle = bundle(&case, two_ranges(), two_ranges()).sh("exit 9");
    as_user(&case, &bundle, &granted(), &[], &["run"]).exits(9);
    assert!(!Path::new(&case.root().join(&bundle.id)).exists());
    case.assert_gone(&bundle);
}
