//! Id-mapped mounts (config.md#mounts: uidMappings, gidMappings, `idmap`, `ridmap`), and sources of
//! mounts that the container's root could not reach by itself.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use spec_tests::{Bundle, Case, differs, skip, user_namespace};

/// The outcome, unless the kernel cannot map the ids of that file system.
macro_rules! or_skip {
    ($outcome:expr) => {{
        let outcome = $outcome;
        if outcome.stderr.contains("no id-mapped mounts") {
            skip!("this kernel does not map the ids of this file system");
        }
        outcome
    }};
}

fn map(inside: u32, outside: u32, size: u32) -> Value {
    json!([{ "containerID": inside, "hostID": outside, "size": size }])
}

/// A directory of the host with a file of its root's.
fn source(case: &Case) -> PathBuf {
    let dir = case.dir().join("source");
    fs::create_dir(&dir).expect("make the source");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("chmod");
    fs::write(dir.join("file"), "content").expect("write");
    dir
}

/// A bind mount of `source` at /data with these options and maps.
fn bound(bundle: Bundle, source: &Path, options: &[&str], maps: Option<Value>) -> Bundle {
    let mut mount = json!({
        "destination": "/data", "type": "bind", "source": source, "options": options,
    });
    if let Some(maps) = maps {
        mount["uidMappings"] = maps.clone();
        mount["gidMappings"] = maps;
    }
    let target = bundle.rootfs().join("data");
    fs::create_dir(&target).expect("make the target");
    bundle.push("/mounts", mount)
}

#[test]
fn owners_are_shown_as_mapped() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc since 1.2 and crun since 1.9 have it without userns");
    let source = source(&case);
    for options in [["bind"].as_slice(), &["bind", "idmap"], &["rbind", "ridmap"]] {
        let bundle = bound(case.bundle(), &source, options, Some(map(0, 1234, 10)));
        let outcome = or_skip!(case.run(&bundle.sh("stat -c %u:%g /data/file")));
        outcome.quiet_success().prints("1234:1234");
    }
}

#[test]
fn what_is_written_belongs_to_the_owner_on_disk() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc since 1.2 and crun since 1.9 have it without userns");
    let source = source(&case);
    chown(&source, Some(5), Some(5)).expect("chown");
    let bundle = bound(case.bundle(), &source, &["bind"], Some(map(5, 0, 1)));
    let bundle = bundle.sh("echo x > /data/new && stat -c %u /data/new");
    or_skip!(case.run(&bundle)).quiet_success().prints("0");
    assert_eq!(fs::metadata(source.join("new")).expect("it exists").uid(), 5);
}

#[test]
fn the_containers_own_maps_serve_where_none_are_given() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc 1.1 has no id-mapped mounts; crun 1.8 wants maps");
    let source = source(&case);
    let bundle = bound(user_namespace::mapped(&case), &source, &["bind", "idmap"], None);
    let bundle = bundle.sh("stat -c %u:%g /data/file && echo x > /data/new");
    or_skip!(case.run(&bundle)).quiet_success().prints("0:0");
    assert_eq!(fs::metadata(source.join("new")).expect("it exists").uid(), 0);
}

#[test]
fn crun_s_option_takes_maps() {
    let case = Case::new();
    differs!(case, ["runc"], "an option of crun's");
    let source = source(&case);
    chown(source.join("file"), Some(3), Some(4)).expect("chown");
    let option = "idmap=uids=0-10-2#3-30-1;gids=4-40-1";
    let bundle = bound(case.bundle(), &source, &["bind", option], None);
    or_skip!(case.run(&bundle.sh("stat -c %u:%g /data/file"))).quiet_success().prints("30:40");
}

#[test]
fn crun_s_relative_maps_count_inside_the_container() {
    let case = Case::new();
    differs!(case, ["runc"], "an option of crun's");
    let source = source(&case);
    let option = "idmap=uids=@0-7-1;gids=@0-8-1";
    let bundle = bound(user_namespace::mapped(&case), &source, &["bind", option], None);
    or_skip!(case.run(&bundle.sh("stat -c %u:%g /data/file"))).quiet_success().prints("7:8");
}

#[test]
fn a_file_system_of_its_own_is_mapped_too() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc maps bind mounts alone; crun 1.8 fails");
    let bundle = case
        .bundle()
        .writable()
        .mount("/t", "tmpfs", "tmpfs", &["idmap=uids=0-77-1;gids=0-78-1", "mode=755"])
        .sh("stat -c %u:%g /t");
    or_skip!(case.run(&bundle)).quiet_success().prints("77:78");
}

#[test]
fn ridmap_reaches_the_mounts_below() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc since 1.2, crun since 1.9");
    let source = source(&case);
    let below = source.join("below");
    fs::create_dir(&below).expect("make a directory");
    let setup = format!("mount -t tmpfs none {0} && touch {0}/file", below.display());
    for (option, owners) in [("ridmap", "55 55"), ("idmap", "55 0")] {
        let bundle = bound(case.bundle(), &source, &["rbind", option], Some(map(0, 55, 1)));
        let bundle = bundle.sh("stat -c %u /data/file /data/below/file | tr '\\n' ' '");
        or_skip!(case.run_after(&setup, &bundle)).quiet_success().prints(owners);
    }
}

#[test]
fn maps_that_cannot_be_are_refused_by_name() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "other words");
    let source = source(&case);
    for (options, maps, word) in [
        (["bind", "idmap"], None, "uidMappings"),
        (["bind", "idmap=uids=0-0-1"], None, "gids"),
        (["bind", "idmap=uids=@0-0-1;gids=@0-0-1"], None, "the container has no id 0"),
        (["bind", "idmap=uids=0-0-1;gids=0-0-1"], Some(map(0, 1, 1)), "contradicts"),
        (["bind", "ro"], Some(map(0, 1, 0)), "size"),
    ] {
        let bundle = bound(case.bundle(), &source, &options, maps);
        let outcome = case.run(&bundle);
        outcome.fails_with("mounts[").fails_with(word);
        case.assert_gone(&bundle);
    }
}

#[test]
fn a_file_system_without_the_feature_is_named() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "other words");
    let bundle = bound(case.bundle(), Path::new("/proc/sys"), &["bind"], Some(map(0, 1, 1)));
    case.run(&bundle).fails_with("/data").fails_with("id-mapped");
    case.assert_gone(&bundle);
}

#[test]
fn a_source_behind_a_closed_directory_is_mounted() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc 1.1 and crun 1.8 cannot reach it");
    let closed = case.dir().join("closed");
    fs::create_dir(&closed).expect("make a directory");
    fs::create_dir(closed.join("inner")).expect("make a directory");
    fs::write(closed.join("inner/file"), "reached").expect("write");
    chown(&closed, Some(1000), Some(1000)).expect("chown");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("chmod");
    let bundle = bound(user_namespace::mapped(&case), &closed.join("inner"), &["rbind"], None);
    case.run(&bundle.args(["cat", "/data/file"])).quiet_success().prints("reached");
}
