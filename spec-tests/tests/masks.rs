//! Masked and read-only paths (config-linux.md#masked-paths, #readonly-paths).

use serde_json::json;
use spec_tests::{Case, differs};

#[test]
fn a_masked_file_reads_as_empty() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .file("/etc/secret", "text")
        .push("/linux/maskedPaths", "/etc/secret")
        .sh("cat /etc/secret; echo end");
    case.run(&bundle).quiet_success().prints("end");
}

#[test]
fn a_masked_directory_is_empty_and_closed() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .writable()
        .file("/etc/secrets/one", "text")
        .push("/linux/maskedPaths", "/etc/secrets")
        .sh("ls -A /etc/secrets; touch /etc/secrets/new");
    let outcome = case.run(&bundle);
    assert_eq!(outcome.stdout, "");
    assert!(outcome.code() != 0 && outcome.stderr.contains("Read-only"), "{outcome}");
}

/// A superblock for each of them costs a machine with many cores seconds (kubernetes#138512).
#[test]
fn masked_directories_share_one_file_system() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc 1.1 and crun 1.8 mount a tmpfs for each");
    let mut bundle = case.bundle();
    for name in ["one", "two", "three"] {
        bundle = bundle.file(&format!("/etc/{name}/file"), "text");
        bundle = bundle.push("/linux/maskedPaths", format!("/etc/{name}"));
    }
    let outcome = case.run(&bundle.sh("cd /etc; stat -c %d . one two three; ls one two three"));
    let lines: Vec<_> = outcome.quiet_success().stdout.lines().collect();
    assert_ne!(lines[0], lines[1], "{outcome}");
    assert!(lines[1] == lines[2] && lines[2] == lines[3], "{outcome}");
    assert!(!outcome.stdout.contains("file"), "{outcome}");
}

#[test]
fn the_default_masks_hide_what_they_name() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .sh("for p in keys timer_list; do wc -c < /proc/$p; done; ls -A /sys/firmware | wc -l");
    case.run(&bundle).quiet_success().prints("0\n0\n0");
}

#[test]
fn a_readonly_path_refuses_writes() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .writable()
        .file("/etc/kept/file", "text")
        .push("/linux/readonlyPaths", "/etc/kept")
        .sh("cat /etc/kept/file; echo x > /etc/kept/file");
    let outcome = case.run(&bundle);
    assert_eq!(outcome.stdout, "text");
    assert!(outcome.code() != 0 && outcome.stderr.contains("Read-only"), "{outcome}");
}

#[test]
fn proc_sys_is_read_only() {
    let case = Case::new();
    let bundle = case.bundle().sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
    let outcome = case.run(&bundle);
    assert!(outcome.code() != 0 && outcome.stderr.contains("Read-only"), "{outcome}");
}

#[test]
fn a_path_that_is_missing_is_passed_over() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .push("/linux/maskedPaths", "/proc/no-such-file")
        .push("/linux/readonlyPaths", "/proc/no-such-file-either")
        .args(["echo", "ran"]);
    case.run(&bundle).quiet_success().prints("ran");
}

#[test]
fn without_masks_nothing_is_hidden() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .args(["cat", "/proc/self/mountinfo"]);
    let outcome = case.run(&bundle);
    assert!(!outcome.quiet_success().stdout.contains(" /proc/"), "{outcome}");
}
