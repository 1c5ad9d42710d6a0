//! Mounts (config.md#mounts, config-linux.md#default-filesystems).

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use spec_tests::{Bundle, Case, Outcome, differs};

/// A line of the container's mount table.
#[derive(Debug)]
struct Mount {
    options: Vec<String>,
    kind: String,
    super_options: Vec<String>,
}

impl Mount {
    fn has(&self, option: &str) -> bool {
        self.options.iter().chain(&self.super_options).any(|have| have == option)
    }
}

/// The uppermost mount at `target` in output of `cat /proc/self/mountinfo`.
#[track_caller]
fn mount_at(outcome: &Outcome, target: &str) -> Mount {
    let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let line = outcome.stdout.lines().rev().find(|line| line.split(' ').nth(4) == Some(target));
    let line = line.unwrap_or_else(|| panic!("nothing is mounted at {target}: {outcome}"));
    let (left, right) = line.split_once(" - ").expect("a separator");
    let right: Vec<_> = right.split(' ').collect();
    Mount {
        options: words(left.split(' ').nth(5).expect("mount options")),
        kind: right[0].to_owned(),
        super_options: words(right[2]),
    }
}

/// The container's mount table.
#[track_caller]
fn table(case: &Case, bundle: Bundle) -> Outcome {
    let outcome = case.run(&bundle.args(["cat", "/proc/self/mountinfo"]));
    outcome.quiet_success();
    outcome
}

#[test]
fn the_default_mounts_are_there_with_their_options() {
    let case = Case::new();
    let table = table(&case, case.bundle());
    let expected: [(&str, &str, &[&str]); 6] = [
        ("/proc", "proc", &["rw"]),
        ("/dev", "tmpfs", &["rw", "nosuid", "size=65536k", "mode=755"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec", "gid=5", "mode=620", "ptmxmode=666"]),
        ("/dev/shm", "tmpfs", &["nosuid", "nodev", "noexec", "size=65536k"]),
        ("/dev/mqueue", "mqueue", &["nosuid", "nodev", "noexec"]),
        ("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"]),
    ];
    for (target, kind, options) in expected {
        let mount = mount_at(&table, target);
        assert_eq!(mount.kind, kind, "{target}: {mount:?}");
        for option in options {
            assert!(mount.has(option), "{target} lacks {option}: {mount:?}");
        }
    }
}

#[test]
fn the_cgroup_mount_shows_the_containers_own_cgroup() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .sh("test -e /sys/fs/cgroup/cgroup.procs && cat /sys/fs/cgroup/cgroup.procs || \
         cat /sys/fs/cgroup/pids/cgroup.procs");
    // Only processes of the pid namespace have a number here; init is one, the rest would be 0.
    let outcome = case.run(&bundle);
    let pids: Vec<_> = outcome.quiet_success().stdout.lines().collect();
    assert!(pids.contains(&"1") && !pids.contains(&"0"), "{outcome}");
}

#[test]
fn the_cgroup_mount_is_read_only() {
    let case = Case::new();
    let table = table(&case, case.bundle());
    let mounts = table.stdout.lines().filter_map(|line| line.split(' ').nth(4));
    let targets = mounts.filter(|target| target.starts_with("/sys/fs/cgroup"));
    // On a v1 host the hierarchies lie in an empty tmpfs, which some leave writable.
    let targets: Vec<_> =
        targets.filter(|target| mount_at(&table, target).kind.starts_with("cgroup")).collect();
    assert!(!targets.is_empty(), "{table}");
    for target in targets {
        assert!(mount_at(&table, target).options.contains(&"ro".to_owned()), "{target}");
    }
}

#[test]
fn mounts_come_in_the_order_listed() {
    let case = Case::new();
    let first = case.dir().join("first");
    let second = case.dir().join("second");
    for (dir, name) in [(&first, "one"), (&second, "two")] {
        fs::create_dir_all(dir.join("inner")).expect("make a source");
        fs::write(dir.join(name), "").expect("write");
    }
    let bundle = case
        .bundle()
        .writable()
        .mount("/m", "bind", first.to_str().expect("UTF-8"), &["bind"])
        .mount("/m/inner", "bind", second.to_str().expect("UTF-8"), &["bind"])
        .sh("ls /m /m/inner | tr '\\n' ' '");
    case.run(&bundle).quiet_success().prints("/m: inner one  /m/inner: inner two");
}

#[test]
fn a_bind_mount_shows_its_source_both_ways() {
    let case = Case::new();
    let source = case.dir().join("source");
    fs::create_dir(&source).expect("make the source");
    let bundle = case
        .bundle()
        .writable()
        .mount("/data", "bind", source.to_str().expect("UTF-8"), &["rbind"])
        .sh("echo from-inside > /data/file");
    case.run(&bundle).quiet_success();
    assert_eq!(fs::read_to_string(source.join("file")).expect("it exists"), "from-inside\n");
}

#[test]
fn a_relative_bind_source_is_relative_to_the_bundle() {
    let case = Case::new();
    let bundle = case.bundle().writable().mount("/data", "bind", "share", &["rbind"]);
    fs::create_dir(bundle.dir.join("share")).expect("make the source");
    fs::write(bundle.dir.join("share/file"), "shared").expect("write");
    case.run(&bundle.args(["cat", "/data/file"])).quiet_success().prints("shared");
}

#[test]
fn bind_needs_no_type_but_the_option() {
    let case = Case::new();
    let source = case.dir().join("file");
    fs::write(&source, "bound").expect("write");
    let bundle = case
        .bundle()
        .writable()
        .mount("/a/b/file", "none", source.to_str().expect("UTF-8"), &["bind"])
        .args(["cat", "/a/b/file"]);
    case.run(&bundle).quiet_success().prints("bound");
}

#[test]
fn a_readonly_bind_refuses_writes() {
    let case = Case::new();
    let source = case.dir().join("source");
    fs::create_dir(&source).expect("make the source");
    let bundle = case
        .bundle()
        .writable()
        .mount("/data", "bind", source.to_str().expect("UTF-8"), &["rbind", "ro"])
        .sh("echo x > /data/file");
    let outcome = case.run(&bundle);
    assert!(outcome.code() == 1 && outcome.stderr.contains("Read-only"), "{outcome}");
    assert!(!source.join("file").exists());
}

#[test]
fn bind_options_change_the_new_mount_alone() {
    let case = Case::new();
    let source = case.dir().join("source");
    fs::create_dir(&source).expect("make the source");
    let bundle = case.bundle().writable().mount(
        "/data",
        "bind",
        source.to_str().expect("UTF-8"),
        &["rbind", "nosuid", "nodev", "noexec", "noatime"],
    );
    let mount = mount_at(&table(&case, bundle), "/data");
    for option in ["nosuid", "nodev", "noexec", "noatime"] {
        assert!(mount.has(option), "{option}: {mount:?}");
    }
}

#[test]
fn a_tmpfs_takes_flags_and_data() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .writable()
        .mount("/t", "tmpfs", "tmpfs", &["noexec", "size=2m", "mode=1700", "nr_inodes=10"])
        .sh("cat /proc/self/mountinfo; stat -c %a /t >&2");
    let outcome = case.run(&bundle);
    let mount = mount_at(outcome.success(), "/t");
    for option in ["noexec", "size=2048k", "mode=1700", "nr_inodes=10"] {
        assert!(mount.has(option), "{option}: {mount:?}");
    }
    assert_eq!(outcome.stderr.trim(), "1700");
}

#[test]
fn a_bind_mount_may_carry_the_options_of_a_tmpfs() {
    let case = Case::new();
    let bundle = case.bundle().mount("/t", "bind", "/etc", &["bind", "ro", "mode=755", "size=1k"]);
    case.run(&bundle.args(["test", "-r", "/t/passwd"])).quiet_success();
    let bundle = case.bundle().mount("/t", "bind", "/etc", &["bind", "no-such-option"]);
    if case.runtime_is("runtime") {
        case.run(&bundle).fails_with("no-such-option");
    }
}

#[test]
fn a_tmpfs_with_tmpcopyup_keeps_what_was_below() {
    let case = Case::new();
    if case.runtime_is("crun") && case.runtime(["--version"]).stdout.contains(" 1.8") {
        spec_tests::skip!("crun 1.8 copies the directory into itself here");
    }
    let bundle = case
        .bundle()
        .file("/var/kept", "copied up")
        .mount("/var", "tmpfs", "tmpfs", &["tmpcopyup"])
        .sh("cat /var/kept && echo x > /var/new");
    case.run(&bundle).quiet_success().prints("copied up");
    assert!(!bundle.rootfs().join("var/new").exists());
}

#[test]
fn propagation_of_a_mount_is_as_asked() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 leaves the mount private");
    let source = case.dir().join("source");
    fs::create_dir(&source).expect("make the source");
    let fields = |kind: &str| {
        let source = source.to_str().expect("UTF-8");
        let bundle = case.bundle().writable().mount("/data", "bind", source, &["rbind", kind]);
        let table = table(&case, bundle);
        let line = table.stdout.lines().find(|line| line.split(' ').nth(4) == Some("/data"));
        let line = line.expect("the mount").to_owned();
        line.split(' ').skip(6).take_while(|field| *field != "-").collect::<Vec<_>>().join(" ")
    };
    assert_eq!(fields("rprivate"), "");
    assert!(fields("rshared").contains("shared:"));
}

#[test]
fn missing_targets_are_made() {
    let case = Case::new();
    let file = case.dir().join("file");
    fs::write(&file, "").expect("write");
    let bundle = case
        .bundle()
        .writable()
        .mount("/deep/dir", "tmpfs", "tmpfs", &[])
        .mount("/deep/file", "bind", file.to_str().expect("UTF-8"), &["bind"])
        .sh("test -d /deep/dir && test -f /deep/file && echo both");
    case.run(&bundle).quiet_success().prints("both");
}

#[test]
fn a_target_through_an_absolute_symlink_stays_inside() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 refuses a dangling symlink");
    let outside = case.dir().join("outside");
    fs::create_dir(&outside).expect("make a directory");
    let bundle = case.bundle().writable().mount("/link", "tmpfs", "tmpfs", &["size=1m"]);
    symlink(&outside, bundle.rootfs().join("link")).expect("make the link");
    let outcome = case.run(&bundle.sh("echo x > /link/file && cat /proc/self/mountinfo"));
    outcome.quiet_success();
    assert!(!outside.join("file").exists(), "the mount went outside the root");
}

#[test]
fn a_proc_target_that_is_a_symlink_is_refused() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 follows it inside the root");
    let bundle = case.bundle();
    fs::remove_dir(bundle.rootfs().join("proc")).expect("remove proc");
    fs::create_dir(bundle.rootfs().join("elsewhere")).expect("make a directory");
    symlink("elsewhere", bundle.rootfs().join("proc")).expect("make the link");
    let outcome = case.run(&bundle);
    assert_ne!(outcome.code(), 0, "{outcome}");
    case.assert_gone(&bundle);
}

#[test]
fn an_overlay_is_mounted_as_any_file_system() {
    let case = Case::new();
    for name in ["lower", "upper", "work"] {
        fs::create_dir(case.dir().join(name)).expect("make a directory");
    }
    fs::write(case.dir().join("lower/file"), "from the lower").expect("write");
    let option = |key: &str, dir: &str| format!("{key}={}", case.dir().join(dir).display());
    let (lower, upper, work) =
        (option("lowerdir", "lower"), option("upperdir", "upper"), option("workdir", "work"));
    let bundle = case
        .bundle()
        .writable()
        .mount("/o", "overlay", "overlay", &[&lower, &upper, &work])
        .sh("cat /o/file; echo new > /o/new");
    case.run(&bundle).quiet_success().prints("from the lower");
    assert!(case.dir().join("upper/new").exists());
}

#[test]
fn a_failing_mount_leaves_nothing() {
    let case = Case::new();
    differs!(case, ["crun"], "crun names the target without its slash");
    let bundle = case.bundle().writable().mount("/x", "nosuchfs", "none", &[]);
    case.run(&bundle).fails_with("/x");
    case.assert_gone(&bundle);
}

#[test]
fn mounts_of_the_container_do_not_reach_the_host() {
    let case = Case::new();
    let bundle = case.bundle().writable().mount("/deep", "tmpfs", "tmpfs", &[]);
    let bundle = bundle.args(["sleep", "100"]);
    bundle.write();
    // As on a host of systemd: everything is shared. A host for this test alone, so that a runtime
    // that lets its mounts out does it nowhere else.
    let script = "mount --make-rshared / && \"$@\" && cat /proc/self/mountinfo";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]);
    let runtime = case.command();
    command.arg(runtime.get_program()).args(runtime.get_args());
    command.args(["run", "--detach", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
    command.stdin(std::process::Stdio::null());
    let outcome = case.outcome(command);
    outcome.quiet_success().prints_part(" shared:");
    let dir = bundle.dir.to_str().expect("UTF-8");
    assert!(!outcome.stdout.contains(dir), "a mount of the container is visible: {outcome}");
}

#[test]
fn the_bundle_may_lie_in_a_directory_closed_to_others() {
    let case = Case::new();
    let bundle = case.bundle().args(["echo", "ran"]);
    fs::set_permissions(&bundle.dir, fs::Permissions::from_mode(0o700)).expect("chmod");
    case.run(&bundle).quiet_success().prints("ran");
}

/// Linux sorts mountinfo by the number of a mount since 6.8, and by the time of mounting before.
#[test]
fn mounts_are_numbered_in_the_order_listed() {
    let case = Case::new();
    let source = case.dir().to_str().expect("UTF-8").to_owned();
    let bundle = case
        .bundle()
        .mount("/a", "tmpfs", "tmpfs", &[])
        .mount("/b", "bind", &source, &["bind"])
        .mount("/c", "tmpfs", "tmpfs", &[])
        .mount("/d", "bind", &source, &["rbind", "rprivate"])
        .mount("/e", "tmpfs", "tmpfs", &[])
        .args(["cut", "-d ", "-f5", "/proc/self/mountinfo"]);
    let outcome = case.run(&bundle);
    let ours: Vec<_> = outcome.quiet_success().stdout.lines().filter(|at| at.len() == 2).collect();
    assert_eq!(ours, ["/a", "/b", "/c", "/d", "/e"], "{outcome}");
}
