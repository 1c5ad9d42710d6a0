//! Devices (config-linux.md#devices, #default-devices) and the device rules of the cgroup.

use serde_json::json;
use spec_tests::{Case, differs, user_namespace};

#[test]
fn the_default_devices_are_there() {
    let case = Case::new();
    let bundle = case.bundle().sh(
        "for d in null zero full random urandom tty; do stat -c '%n %t:%T %a %F' /dev/$d; done",
    );
    let outcome = case.run(&bundle);
    let expected = [
        "/dev/null 1:3 666 character special file",
        "/dev/zero 1:5 666 character special file",
        "/dev/full 1:7 666 character special file",
        "/dev/random 1:8 666 character special file",
        "/dev/urandom 1:9 666 character special file",
        "/dev/tty 5:0 666 character special file",
    ];
    assert_eq!(outcome.quiet_success().stdout.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn the_default_devices_work() {
    let case = Case::new();
    let bundle = case.bundle().sh(
        "echo x > /dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c; \
         echo x > /dev/full",
    );
    let outcome = case.run(&bundle);
    assert_eq!(outcome.stdout, "4\n4\n", "{outcome}");
    assert!(outcome.stderr.contains("No space left on device"), "{outcome}");
}

#[test]
fn the_default_links_are_there() {
    let case = Case::new();
    let bundle =
        case.bundle().sh("for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done");
    let outcome = case.run(&bundle);
    let links: Vec<_> = outcome.quiet_success().stdout.lines().collect();
    assert_eq!(
        links[..4],
        ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"]
    );
    assert!(["pts/ptmx", "/dev/pts/ptmx"].contains(&links[4]), "{outcome}");
}

#[test]
fn a_listed_device_is_made() {
    let case = Case::new();
    let device = json!({
        "path": "/dev/sub/mine", "type": "c", "major": 1, "minor": 3,
        "fileMode": 0o640, "uid": 7, "gid": 8,
    });
    let bundle = case
        .bundle()
        .push("/linux/devices", device)
        .sh("stat -c '%t:%T %a %u:%g %F' /dev/sub/mine");
    case.run(&bundle).quiet_success().prints("1:3 640 7:8 character special file");
}

#[test]
fn a_listed_fifo_is_made() {
    let case = Case::new();
    let device = json!({ "path": "/dev/pipe", "type": "p", "fileMode": 0o600 });
    let bundle = case.bundle().push("/linux/devices", device).sh("stat -c '%a %F' /dev/pipe");
    case.run(&bundle).quiet_success().prints("600 fifo");
}

#[test]
fn a_device_that_is_not_allowed_cannot_be_opened() {
    let case = Case::new();
    // /dev/kmsg: any root may open it, unless the cgroup's rules forbid.
    let device = json!({ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11 });
    let bundle = case
        .bundle()
        .push("/linux/devices", device.clone())
        .capabilities(&["CAP_SYSLOG", "CAP_SYS_ADMIN"])
        .sh("exec 3</dev/kmsg");
    let outcome = case.run(&bundle);
    assert!(outcome.code() != 0 && outcome.stderr.contains("not permitted"), "{outcome}");
    let rule = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" });
    let bundle = case
        .bundle()
        .push("/linux/devices", device)
        .push("/linux/resources/devices", rule)
        .capabilities(&["CAP_SYSLOG", "CAP_SYS_ADMIN"])
        .sh("exec 3</dev/kmsg && echo open");
    case.run(&bundle).quiet_success().prints("open");
}

#[test]
fn a_default_device_cannot_be_made_elsewhere_without_mknod() {
    let case = Case::new();
    let bundle = case.bundle().sh("mknod /dev/other c 1 3");
    let outcome = case.run(&bundle);
    assert!(outcome.code() != 0 && outcome.stderr.contains("not permitted"), "{outcome}");
}

#[test]
fn a_device_in_a_user_namespace_is_the_hosts() {
    let case = Case::new();
    let fuse = json!({ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11 });
    let bundle = user_namespace::mapped(&case)
        .push("/linux/devices", fuse)
        .sh("stat -c %t:%T /dev/kmsg && grep -c ' /dev/kmsg ' /proc/self/mountinfo");
    case.run(&bundle).quiet_success().prints("1:b\n1");
}

#[test]
fn a_fifo_is_made_in_a_user_namespace_too() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "these mount the host's, which is not there");
    let fifo = json!({ "path": "/dev/pipe", "type": "p", "fileMode": 0o640, "uid": 3 });
    let bundle = user_namespace::mapped(&case).push("/linux/devices", fifo);
    case.run(&bundle.sh("stat -c '%a %u %F' /dev/pipe")).quiet_success().prints("640 3 fifo");
}

#[test]
fn a_device_that_the_host_lacks_is_named_in_a_user_namespace() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 makes a node there that nobody can open");
    let device = json!({ "path": "/dev/no-such", "type": "c", "major": 1, "minor": 3 });
    let bundle = user_namespace::mapped(&case).push("/linux/devices", device);
    case.run(&bundle).fails_with("/dev/no-such");
    case.assert_gone(&bundle);
    differs!(case, ["runc"], "runc mounts whatever is there");
    let device = json!({ "path": "/dev/zero", "type": "c", "major": 1, "minor": 3 });
    let bundle = user_namespace::mapped(&case).push("/linux/devices", device);
    case.run(&bundle).fails_with("/dev/zero").fails_with("1:3");
    case.assert_gone(&bundle);
}

#[test]
fn the_mode_of_a_device_is_not_masked() {
    let case = Case::new();
    let device = json!({
        "path": "/dev/open", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666,
    });
    let bundle =
        case.bundle().push("/linux/devices", device).args(["stat", "-c", "%a", "/dev/open"]);
    bundle.write();
    let mut runtime = case.command();
    runtime.arg("run").arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "umask 077; exec \"$0\" \"$@\""]);
    shell.arg(runtime.get_program()).args(runtime.get_args());
    case.outcome(shell).quiet_success().prints("666");
}

#[test]
fn a_device_replaces_what_the_image_has_only_if_it_is_the_same() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "these overwrite or keep it");
    let device = json!({ "path": "/etc/device", "type": "c", "major": 1, "minor": 3 });
    let bundle = case.bundle().file("/etc/device", "a file").push("/linux/devices", device);
    case.run(&bundle).fails_with("/etc/device").fails_with("another file");
    case.assert_gone(&bundle);
}

/// `run` where cgroup v2 is all that there is: on a hybrid host, in a mount namespace that shows
/// its v2 tree alone.
fn run_on_v2(case: &Case, bundle: &spec_tests::Bundle) -> Option<spec_tests::Outcome> {
    use spec_tests::cgroup::{Layout, is_hybrid, layout};
    let command = match layout() {
        Layout::V2 => case.command(),
        Layout::V1 if is_hybrid() => {
            let view = concat!(env!("CARGO_MANIFEST_DIR"), "/v2-view");
            let mut command = std::process::Command::new(view);
            command.arg(spec_tests::runtime()).arg("--root").arg(case.root());
            command.stdin(std::process::Stdio::null());
            command
        }
        Layout::V1 => return None,
    };
    bundle.write();
    let mut command = command;
    command.arg("run").arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    Some(case.outcome(command))
}

#[test]
fn device_rules_hold_on_v2() {
    let case = Case::new();
    let node = json!({ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11 });
    let bundle = |rules: &[serde_json::Value], script: &str| {
        let bundle = case
            .bundle()
            .push("/linux/devices", node.clone())
            .capabilities(&["CAP_SYSLOG", "CAP_SYS_ADMIN"]);
        rules
            .iter()
            .fold(bundle, |b, rule| b.push("/linux/resources/devices", rule.clone()))
            .sh(script)
    };
    let kmsg = |allow: bool, access: &str| json!({ "allow": allow, "type": "c", "major": 1, "minor": 11, "access": access });
    let Some(outcome) = run_on_v2(&case, &bundle(&[], "exec 3</dev/kmsg")) else {
        spec_tests::skip!("no cgroup v2 tree on this host");
    };
    assert!(outcome.code() != 0 && outcome.stderr.contains("not permitted"), "{outcome}");
    let read = bundle(&[kmsg(true, "r")], "exec 3</dev/kmsg && echo open; exec 4>/dev/kmsg");
    let outcome = run_on_v2(&case, &read).expect("there is one");
    assert!(outcome.code() != 0 && outcome.stdout == "open\n", "{outcome}");
    let later = bundle(&[kmsg(true, "rw"), kmsg(false, "r")], "exec 3</dev/kmsg");
    assert_ne!(run_on_v2(&case, &later).expect("there is one").code(), 0);
    let default = bundle(&[], "echo x > /dev/null && head -c 1 /dev/zero | wc -c");
    run_on_v2(&case, &default).expect("there is one").quiet_success().prints("1");
}
