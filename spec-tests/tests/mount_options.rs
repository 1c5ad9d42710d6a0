//! Options of mounts that the runtime itself carries out (config.md, Linux mount options), and those
//! of crun's about symbolic links.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::json;
use spec_tests::{Bundle, Case, Outcome, differs, user_namespace};

/// A source that has a tmpfs mounted below it, by the returned command.
fn nested(case: &Case) -> (PathBuf, String) {
    let source = case.dir().join("source");
    fs::create_dir_all(source.join("below")).expect("make the source");
    let setup = format!("mount -t tmpfs none {}/below", source.display());
    (source, setup)
}

fn bound(bundle: Bundle, source: &Path, options: &[&str]) -> Bundle {
    let source = source.to_str().expect("UTF-8");
    bundle.writable().mount("/data", "bind", source, options)
}

/// The options of the mount at `target` in a mount table, without those of its file system.
#[track_caller]
fn options(outcome: &Outcome, target: &str) -> Vec<String> {
    let line = outcome.stdout.lines().rev().find(|line| line.split(' ').nth(4) == Some(target));
    let line = line.unwrap_or_else(|| panic!("nothing is mounted at {target}: {outcome}"));
    line.split(' ').nth(5).expect("options").split(',').map(str::to_owned).collect()
}

#[test]
fn recursive_options_reach_the_mounts_below_and_plain_ones_do_not() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc since 1.2, crun since 1.9 knows all of them");
    let (source, setup) = nested(&case);
    for (given, seen) in [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnodiratime", "nodiratime"),
        ("rnoatime", "noatime"),
        ("rnosymfollow", "nosymfollow"),
        ("rrelatime", "relatime"),
    ] {
        let table = |option: &str| {
            let bundle = bound(case.bundle(), &source, &["rbind", option]);
            let bundle = bundle.args(["cat", "/proc/self/mountinfo"]);
            let outcome = case.run_after(&setup, &bundle);
            outcome.quiet_success();
            outcome
        };
        let recursive = table(given);
        for target in ["/data", "/data/below"] {
            let have = options(&recursive, target);
            assert!(have.iter().any(|o| o == seen), "{given}: {target} has {have:?}");
        }
        if seen == "relatime" {
            continue; // what every mount has
        }
        let plain = table(&given[1..]);
        assert!(options(&plain, "/data").iter().any(|o| o == seen), "{seen}: {plain}");
        assert!(!options(&plain, "/data/below").iter().any(|o| o == seen), "{seen}: {plain}");
    }
}

#[test]
fn recursive_options_that_take_away_do_so() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc since 1.2, crun since 1.9 knows all of them");
    let (source, setup) = nested(&case);
    let setup = format!("{setup} -o ro,nosuid,nodev,noexec,noatime,nodiratime");
    let given = ["rbind", "rrw", "rsuid", "rdev", "rexec", "rdiratime", "ratime", "rsymfollow"];
    let bundle = bound(case.bundle(), &source, &given).args(["cat", "/proc/self/mountinfo"]);
    let outcome = case.run_after(&setup, &bundle);
    outcome.quiet_success();
    assert_eq!(options(&outcome, "/data/below"), ["rw", "relatime"]);
}

#[test]
fn strictatime_is_a_mode_of_its_own() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc since 1.2, crun since 1.9 knows all of them");
    let (source, setup) = nested(&case);
    let bundle = bound(case.bundle(), &source, &["rbind", "rstrictatime"]);
    let outcome = case.run_after(&setup, &bundle.args(["cat", "/proc/self/mountinfo"]));
    outcome.quiet_success();
    for target in ["/data", "/data/below"] {
        assert_eq!(options(&outcome, target), ["rw"], "{target}: neither relatime nor noatime");
    }
}

#[test]
fn rbind_brings_the_mounts_below_and_bind_does_not() {
    let case = Case::new();
    let (source, setup) = nested(&case);
    let setup = format!("{setup} && touch {}/below/file", source.display());
    for (option, there) in [("rbind", "file"), ("bind", "")] {
        let bundle = bound(case.bundle(), &source, &[option]).args(["ls", "/data/below"]);
        case.run_after(&setup, &bundle).quiet_success().prints(there);
    }
}

#[test]
fn a_remount_changes_flags_and_the_file_systems_options() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc 1.1 and crun 1.8 drop the options of the file system");
    let bundle = case
        .bundle()
        .writable()
        .mount("/t", "tmpfs", "tmpfs", &["size=1m"])
        .mount("/t", "tmpfs", "tmpfs", &["remount", "size=2m", "ro", "nosuid"])
        .args(["grep", " /t ", "/proc/self/mountinfo"]);
    let outcome = case.run(&bundle);
    outcome.quiet_success().prints_part("size=2048k");
    let have = options(&outcome, "/t");
    assert!(have.contains(&"ro".to_owned()) && have.contains(&"nosuid".to_owned()), "{have:?}");
}

#[test]
fn a_remount_of_nothing_is_refused() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "other words");
    let bundle = case.bundle().mount("/nowhere", "tmpfs", "tmpfs", &["remount", "ro"]);
    case.run(&bundle).fails_with("/nowhere").fails_with("nothing is there");
    case.assert_gone(&bundle);
}

#[test]
fn a_flag_that_is_locked_from_outside_stays_and_is_named() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "other words");
    let source = case.dir().join("source");
    fs::create_dir(&source).expect("make the source");
    let setup = format!("mount -t tmpfs -o nosuid,noexec,mode=777 none {}", source.display());
    let make = || {
        let bundle = user_namespace::mapped(&case);
        fs::create_dir(bundle.rootfs().join("data")).expect("make the target");
        bundle
    };
    let bundle = bound(make(), &source, &["bind", "nodev"]);
    let outcome = case.run_after(&setup, &bundle.args(["cat", "/proc/self/mountinfo"]));
    outcome.quiet_success();
    let have = options(&outcome, "/data");
    for option in ["nosuid", "noexec", "nodev"] {
        assert!(have.contains(&option.to_owned()), "{option}: {have:?}");
    }
    let bundle = bound(make(), &source, &["bind", "suid"]);
    case.run_after(&setup, &bundle).fails_with("/data").fails_with("locked");
    case.assert_gone(&bundle);
}

#[test]
fn options_longer_than_fsconfig_takes_are_honoured() {
    let case = Case::new();
    let name = |c: char| c.to_string().repeat(100);
    let mut layers = Vec::new();
    for c in ['a', 'b', 'c'] {
        let layer = case.dir().join(name(c));
        fs::create_dir(&layer).expect("make a layer");
        fs::write(layer.join(c.to_string()), "").expect("write");
        layers.push(layer.display().to_string());
    }
    let option = format!("lowerdir={}", layers.join(":"));
    assert!(option.len() > 300);
    let bundle = case
        .bundle()
        .writable()
        .mount("/o", "overlay", "overlay", &[&option, "nosuid", "rslave"])
        .sh("ls /o | tr '\\n' ' ' && grep ' /o ' /proc/self/mountinfo");
    let outcome = case.run(&bundle);
    outcome.quiet_success().prints_part("a b c");
    assert!(options_line_has(&outcome, "nosuid"), "{outcome}");
}

fn options_line_has(outcome: &Outcome, option: &str) -> bool {
    let line = outcome.stdout.lines().find(|line| line.contains(" /o ")).unwrap_or_default();
    line.contains(option)
}

#[test]
fn options_longer_than_a_page_are_refused_by_name() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "other words");
    let option = format!("lowerdir=/{}", "x".repeat(5000));
    let bundle = case.bundle().writable().mount("/o", "overlay", "overlay", &[&option]);
    case.run(&bundle).fails_with("/o").fails_with("4096");
    case.assert_gone(&bundle);
}

#[test]
fn copy_symlink_makes_the_link_anew() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "an option of crun 1.11");
    let link = case.dir().join("link");
    symlink("/some/where", &link).expect("make the link");
    let bundle = bound(case.bundle(), &link, &["bind", "copy-symlink"]);
    case.run(&bundle.args(["readlink", "/data"])).quiet_success().prints("/some/where");
    // What is there already must be the same.
    let bundle = bound(case.bundle(), &link, &["bind", "copy-symlink"]);
    fs::write(bundle.rootfs().join("data"), "").expect("write");
    case.run(&bundle).fails_with("/data").fails_with("copy-symlink");
    case.assert_gone(&bundle);
}

#[test]
fn copy_symlink_of_no_link_is_a_mount() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "an option of crun 1.11");
    let file = case.dir().join("file");
    fs::write(&file, "no link").expect("write");
    let bundle = bound(case.bundle(), &file, &["bind", "copy-symlink"]);
    case.run(&bundle.args(["cat", "/data"])).quiet_success().prints("no link");
}

#[test]
fn src_nofollow_mounts_the_link_itself() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "an option of crun 1.9");
    let link = case.dir().join("link");
    symlink("/some/where", &link).expect("make the link");
    let bundle = bound(case.bundle(), &link, &["bind", "src-nofollow"]).args(["readlink", "/data"]);
    case.run(&bundle).quiet_success().prints("/some/where");
    assert!(bundle.rootfs().join("data").is_file(), "the image's own file is below the mount");
}

#[test]
fn dest_nofollow_mounts_over_the_link_itself() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "an option of crun 1.9");
    let file = case.dir().join("file");
    fs::write(&file, "over the link\n").expect("write");
    let bundle = bound(case.bundle(), &file, &["bind", "dest-nofollow"]);
    symlink("/bin/busybox", bundle.rootfs().join("data")).expect("make the link");
    let bundle = bundle.sh("cat /data; readlink /data || echo no link");
    case.run(&bundle).quiet_success().prints("over the link\nno link");
}

#[test]
fn a_dangling_link_gets_what_it_points_to() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 refuses a dangling symlink");
    let file = case.dir().join("file");
    fs::write(&file, "resolved").expect("write");
    let bundle = case.bundle().writable().mount(
        "/etc/resolv.conf",
        "bind",
        file.to_str().expect("UTF-8"),
        &["bind"],
    );
    symlink("../run/stub.conf", bundle.rootfs().join("etc/resolv.conf")).expect("make the link");
    let bundle = bundle.sh("cat /etc/resolv.conf /run/stub.conf");
    case.run(&bundle).quiet_success().prints("resolvedresolved");
    assert!(bundle.rootfs().join("run/stub.conf").is_file());
}

#[test]
fn a_file_needs_a_file_and_a_directory_a_directory() {
    let case = Case::new();
    differs!(case, ["crun"], "crun names the target without its slash");
    let file = case.dir().join("file");
    fs::write(&file, "a file").expect("write");
    let over = |source: &Path, target: &str| {
        let source = source.to_str().expect("UTF-8");
        let bundle = case.bundle().mount(target, "bind", source, &["bind"]);
        case.run(&bundle.args(["cat", "/etc/passwd"]))
    };
    over(&file, "/etc/passwd").quiet_success().prints("a file");
    over(&file, "/etc").fails_with("/etc").fails_with("not a directory");
    over(case.dir(), "/etc/passwd").fails_with("/etc/passwd").fails_with("not a directory");
}

#[test]
fn of_two_mounts_at_one_place_the_later_is_seen() {
    let case = Case::new();
    let later = case.dir().join("later");
    fs::create_dir(&later).expect("make a source");
    fs::write(later.join("of-the-later"), "").expect("write");
    let bundle = case
        .bundle()
        .writable()
        .mount("/t", "tmpfs", "tmpfs", &[])
        .mount("/t", "bind", later.to_str().expect("UTF-8"), &["bind"])
        .sh("ls /t; grep -c ' /t ' /proc/self/mountinfo");
    case.run(&bundle).quiet_success().prints("of-the-later\n2");
}

#[test]
fn ten_thousand_mounts_are_made() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "minutes");
    let mut bundle = case.bundle().writable();
    let source = bundle.rootfs().join("bin");
    fs::create_dir(bundle.rootfs().join("m")).expect("make a directory");
    let mounts = bundle.config["mounts"].as_array_mut().expect("mounts");
    mounts.extend((0..10_000).map(|i| {
        serde_json::json!({
            "destination": format!("/m/{i}"), "type": "bind", "source": source,
            "options": ["bind"],
        })
    }));
    bundle.config["process"]["rlimits"] = serde_json::json!([]);
    let bundle = bundle.sh("grep -c ' /m/' /proc/self/mountinfo; ulimit -n");
    bundle.write();
    // The sources need more descriptors than the caller's limit allows, which the program gets.
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -Sn 1000; exec \"$0\" \"$@\""]);
    let mut runtime = case.command();
    runtime.arg("run").arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    shell.arg(runtime.get_program()).args(runtime.get_args());
    case.outcome(shell).quiet_success().prints("10000\n1000");
    case.assert_gone(&bundle);
}

#[test]
fn a_tmpfs_has_the_mode_of_the_directory_that_it_covers() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 leaves it the mode that the kernel gives, 1777");
    let bundle = case.bundle().writable().mount("/covered", "tmpfs", "tmpfs", &[]);
    let covered = bundle.rootfs().join("covered");
    fs::create_dir(&covered).expect("make a directory");
    fs::set_permissions(&covered, fs::Permissions::from_mode(0o1751)).expect("chmod");
    case.run(&bundle.args(["stat", "-c", "%a", "/covered"])).quiet_success().prints("1751");
}

#[test]
fn a_tmpfs_that_covers_nothing_is_for_every_user() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .writable()
        .mount("/none", "tmpfs", "tmpfs", &[])
        .set("/process/user", json!({ "uid": 12, "gid": 34 }))
        .sh("stat -c %a /none; touch /none/file");
    case.run(&bundle).quiet_success().prints("1777");
}

#[test]
fn a_tmpfs_belongs_to_whom_its_options_say() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .writable()
        .mount("/t", "tmpfs", "tmpfs", &["uid=12", "gid=34", "mode=2770"])
        .args(["stat", "-c", "%u:%g %a", "/t"]);
    case.run(&bundle).quiet_success().prints("12:34 2770");
}

/// The fields of the mount table that tell of propagation, for the mount at `target`.
#[track_caller]
fn propagation(outcome: &Outcome, target: &str) -> String {
    let line = outcome.stdout.lines().find(|line| line.split(' ').nth(4) == Some(target));
    let line = line.unwrap_or_else(|| panic!("nothing is mounted at {target}: {outcome}"));
    let fields = line.split(' ').skip(6).take_while(|field| *field != "-");
    let bare = fields.map(|field| field.split(':').next().unwrap_or_default());
    bare.collect::<Vec<_>>().join(" ")
}

#[test]
fn propagation_takes_all_its_forms() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 leaves the mount private");
    let (source, setup) = nested(&case);
    // In a shared tree of its own, so that being a slave shows.
    let setup = format!("mount --make-rshared / && {setup}");
    for (given, top, below) in [
        ("private", "", "master"),
        ("rprivate", "", ""),
        ("slave", "master", "master"),
        ("rslave", "master", "master"),
        ("unbindable", "unbindable", "master"),
        ("runbindable", "unbindable", "unbindable"),
    ] {
        if case.runtime_is("runc") && !given.starts_with('r') {
            continue; // runc makes the mounts below private
        }
        let bundle = bound(case.bundle(), &source, &["rbind", given]);
        let outcome = case.run_after(&setup, &bundle.args(["cat", "/proc/self/mountinfo"]));
        outcome.quiet_success();
        assert_eq!(propagation(&outcome, "/data"), top, "{given}");
        assert_eq!(propagation(&outcome, "/data/below"), below, "{given}");
    }
    for given in ["shared", "rshared"] {
        let bundle = bound(case.bundle(), &source, &["rbind", given]);
        let outcome = case.run_after(&setup, &bundle.args(["cat", "/proc/self/mountinfo"]));
        assert!(propagation(outcome.quiet_success(), "/data").contains("shared"), "{given}");
    }
}

#[test]
fn the_roots_propagation_takes_all_its_forms() {
    let case = Case::new();
    let (_, setup) = nested(&case);
    let setup = format!("mount --make-rshared / && {setup}");
    for (given, seen) in
        [("private", ""), ("slave", "master"), ("shared", "shared"), ("unbindable", "unbindable")]
    {
        if case.runtime_is("crun") && given != "private" {
            continue; // crun 1.8 differs in what of it is kept
        }
        if case.runtime_is("runc") && ["shared", "unbindable"].contains(&given) {
            continue; // runc leaves the root private (root::a_shared_root_is_shared)
        }
        let bundle = case.bundle().set("/linux/rootfsPropagation", given);
        let outcome = case.run_after(&setup, &bundle.args(["cat", "/proc/self/mountinfo"]));
        let have = propagation(outcome.quiet_success(), "/");
        assert!(
            if seen.is_empty() { have.is_empty() } else { have.contains(seen) },
            "{given}: {have}"
        );
    }
}
