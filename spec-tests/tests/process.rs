//! Process (config.md#process): what the program sees of itself, read back from the inside.

use serde_json::json;
use spec_tests::{Case, differs, skip};

/// Runs `script` and returns the trimmed stdout of its success.
#[track_caller]
fn inside(case: &Case, bundle: spec_tests::Bundle, script: &str) -> String {
    let outcome = case.run(&bundle.sh(script));
    outcome.quiet_success().stdout.trim().to_owned()
}

/// The value of a field of /proc/self/status inside.
#[track_caller]
fn status_field(case: &Case, bundle: spec_tests::Bundle, name: &str) -> String {
    let bundle = bundle.args(["cat", "/proc/self/status"]);
    let value = case.run(&bundle).quiet_success().field(name).to_owned();
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A mask of capabilities as /proc prints it.
fn mask(bits: &[u32]) -> String {
    format!("{:016x}", bits.iter().fold(0u64, |mask, bit| mask | 1 << bit))
}

const AUDIT_WRITE: u32 = 29;
const KILL: u32 = 5;
const NET_BIND_SERVICE: u32 = 10;

#[test]
fn args_reach_the_program_unchanged() {
    let case = Case::new();
    let args = ["printf", "%s|", "a b", "", "$HOME", "\"quoted\"", "ünï", "new\nline"];
    let outcome = case.run(&case.bundle().args(args));
    assert_eq!(outcome.quiet_success().stdout, "a b||$HOME|\"quoted\"|ünï|new\nline|");
}

#[test]
fn the_program_is_found_on_the_path_of_its_environment() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .file("/elsewhere/tool", "#!/bin/sh\necho found\n")
        .set("/process/env", json!(["PATH=/nowhere:/elsewhere"]))
        .args(["tool"]);
    let tool = bundle.rootfs().join("elsewhere/tool");
    std::fs::set_permissions(tool, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("make it executable");
    case.run(&bundle).quiet_success().prints("found");
}

#[test]
fn the_environment_is_exactly_the_configured_one() {
    let case = Case::new();
    let env = json!(["PATH=/bin", "A=1", "EMPTY=", "WITH=an=equals sign"]);
    let bundle = case.bundle().set("/process/env", env).args(["env"]);
    let outcome = case.run(&bundle);
    let mut seen: Vec<_> = outcome.quiet_success().stdout.lines().collect();
    // runc and crun add HOME from the passwd file when it is missing; callers rely on it.
    seen.retain(|line| *line != "HOME=/root");
    seen.sort_unstable();
    assert_eq!(seen, ["A=1", "EMPTY=", "PATH=/bin", "WITH=an=equals sign"]);
}

#[test]
fn home_comes_from_the_containers_passwd() {
    let case = Case::new();
    let bundle = case.bundle().set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    assert_eq!(inside(&case, bundle, "echo $HOME"), "/tmp");
}

#[test]
fn cwd_is_entered_and_made_when_missing() {
    let case = Case::new();
    let bundle = case.bundle().set("/process/cwd", "/etc");
    assert_eq!(inside(&case, bundle, "pwd"), "/etc");
    let bundle = case.bundle().writable().set("/process/cwd", "/new/dir");
    assert_eq!(inside(&case, bundle, "pwd"), "/new/dir");
}

#[test]
fn user_and_group_are_set() {
    let case = Case::new();
    let user = json!({ "uid": 1234, "gid": 5678 });
    let bundle = || case.bundle().set("/process/user", user.clone());
    assert_eq!(status_field(&case, bundle(), "Uid"), "1234 1234 1234 1234");
    assert_eq!(status_field(&case, bundle(), "Gid"), "5678 5678 5678 5678");
    assert_eq!(status_field(&case, bundle(), "Groups"), "");
}

#[test]
fn additional_groups_are_set() {
    let case = Case::new();
    let user = json!({ "uid": 1, "gid": 2, "additionalGids": [30, 40] });
    let bundle = case.bundle().set("/process/user", user);
    assert_eq!(status_field(&case, bundle, "Groups"), "30 40");
}

#[test]
fn umask_is_set() {
    let case = Case::new();
    assert_eq!(inside(&case, case.bundle(), "umask"), "0022");
    let bundle = case.bundle().set("/process/user/umask", 0o077);
    assert_eq!(inside(&case, bundle, "umask"), "0077");
    let bundle = case.bundle().set("/process/user/umask", 0);
    assert_eq!(inside(&case, bundle, "umask"), "0000");
}

#[test]
fn rlimits_are_set() {
    let case = Case::new();
    let limits = json!([
        { "type": "RLIMIT_NOFILE", "soft": 200, "hard": 300 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        { "type": "RLIMIT_STACK", "soft": 1048576, "hard": 2097152 },
    ]);
    let bundle = case.bundle().set("/process/rlimits", limits).args(["cat", "/proc/self/limits"]);
    let outcome = case.run(&bundle);
    let limit = |name: &str| {
        let row = outcome.stdout.lines().find_map(|line| line.strip_prefix(name));
        let row = row.unwrap_or_else(|| panic!("no limit {name:?}: {outcome}"));
        row.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(limit("Max open files"), ["200", "300"]);
    assert_eq!(limit("Max core file size"), ["0", "0"]);
    assert_eq!(limit("Max stack size"), ["1048576", "2097152"]);
}

#[test]
fn an_rlimit_given_twice_is_refused() {
    let case = Case::new();
    if case.runtime_is("runc") || case.runtime_is("crun") {
        skip!("runc and crun take the last, against \"MUST generate an error\"");
    }
    let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 100 });
    let bundle = case.bundle().push("/process/rlimits", limit);
    case.run(&bundle).fails_with("RLIMIT_NOFILE");
    case.assert_gone(&bundle);
}

#[test]
fn no_new_privileges_is_set_and_left_alone() {
    let case = Case::new();
    assert_eq!(status_field(&case, case.bundle(), "NoNewPrivs"), "1");
    let bundle = case.bundle().set("/process/noNewPrivileges", false);
    assert_eq!(status_field(&case, bundle, "NoNewPrivs"), "0");
}

#[test]
fn the_default_capabilities_are_set() {
    let case = Case::new();
    let outcome = case.run(&case.bundle().args(["cat", "/proc/self/status"]));
    let expected = mask(&[AUDIT_WRITE, KILL, NET_BIND_SERVICE]);
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(outcome.field(set), expected, "{set}");
    }
}

#[test]
fn each_capability_set_is_its_own() {
    let case = Case::new();
    let sets = json!({
        "bounding": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
        "permitted": ["CAP_KILL", "CAP_NET_BIND_SERVICE"],
        "effective": ["CAP_KILL"],
        "inheritable": ["CAP_KILL"],
        "ambient": ["CAP_KILL"],
    });
    // As another user than root, whose permitted set execve would fill from the bounding set.
    let bundle = case
        .bundle()
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        .set("/process/capabilities", sets)
        .args(["cat", "/proc/self/status"]);
    let outcome = case.run(&bundle);
    outcome.quiet_success();
    assert_eq!(outcome.field("CapBnd"), mask(&[AUDIT_WRITE, KILL, NET_BIND_SERVICE]));
    assert_eq!(outcome.field("CapAmb"), mask(&[KILL]));
    assert_eq!(outcome.field("CapInh"), mask(&[KILL]));
    assert_eq!(outcome.field("CapPrm"), mask(&[KILL]));
    assert_eq!(outcome.field("CapEff"), mask(&[KILL]));
}

#[test]
fn inheritable_capabilities_are_empty_unless_asked_for() {
    let case = Case::new();
    assert_eq!(status_field(&case, case.bundle(), "CapInh"), mask(&[]));
}

#[test]
fn no_capabilities_means_none() {
    let case = Case::new();
    for none in [json!({}), json!(null)] {
        let bundle = case.bundle().set("/process/capabilities", none);
        let outcome = case.run(&bundle.args(["cat", "/proc/self/status"]));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(outcome.field(set), mask(&[]), "{set}");
        }
    }
}

#[test]
fn another_user_has_no_capabilities_without_ambient_ones() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        .set("/process/capabilities/ambient", json!([]))
        .args(["cat", "/proc/self/status"]);
    let outcome = case.run(&bundle);
    assert_eq!(outcome.field("CapEff"), mask(&[]));
    assert_eq!(outcome.field("CapPrm"), mask(&[]));
}

#[test]
fn oom_score_adj_is_set() {
    let case = Case::new();
    let bundle = case.bundle().set("/process/oomScoreAdj", 321);
    assert_eq!(inside(&case, bundle, "cat /proc/self/oom_score_adj"), "321");
}

#[test]
fn signals_are_in_their_default_state() {
    let case = Case::new();
    assert_eq!(status_field(&case, case.bundle(), "SigBlk"), mask(&[]));
    let ignored = status_field(&case, case.bundle(), "SigIgn");
    // Signals 32 and 33 are glibc's own: its posix_spawn leaves them ignored in our child, and
    // a runtime may pass that on.
    let ignored = u64::from_str_radix(&ignored, 16).expect("a mask") & !(0b11 << 31);
    assert_eq!(ignored, 0, "ignored: {ignored:x}");
}

#[test]
fn no_descriptor_leaks_into_the_program() {
    let case = Case::new();
    // 3 is the directory that ls itself has open.
    assert_eq!(inside(&case, case.bundle(), "ls /proc/self/fd | tr '\\n' ' '"), "0 1 2 3");
}

#[test]
fn the_program_is_the_leader_of_a_session() {
    let case = Case::new();
    let bundle = case.bundle().args(["cat", "/proc/self/stat"]);
    let outcome = case.run(&bundle);
    let words: Vec<_> = outcome.quiet_success().stdout.split_whitespace().collect();
    // pid, …, pgrp, session (proc_pid_stat(5), fields 1, 5 and 6)
    assert_eq!((words[0], words[4], words[5]), ("1", "1", "1"));
}

#[test]
fn preserved_descriptors_are_passed_on() {
    let case = Case::new();
    let bundle = case.bundle().sh("cat <&3");
    bundle.write();
    std::fs::write(case.dir().join("three"), "through descriptor 3\n").expect("write");
    let mut runtime = case.command();
    runtime.args(["run", "--preserve-fds", "1", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
    // The shell opens descriptor 3 without close-on-exec, then becomes the runtime.
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "exec 3<\"$0\"; exec \"$@\""]).arg(case.dir().join("three"));
    shell.arg(runtime.get_program()).args(runtime.get_args());
    case.outcome(shell).quiet_success().prints("through descriptor 3");
}

#[test]
fn home_is_the_root_for_a_user_that_passwd_does_not_know() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 sets no HOME for such a user");
    let bundle = case.bundle().set("/process/user", json!({ "uid": 4321, "gid": 1 }));
    assert_eq!(inside(&case, bundle, "echo $HOME"), "/");
    let env = json!(["PATH=/bin", "HOME=/given"]);
    assert_eq!(inside(&case, case.bundle().set("/process/env", env), "echo $HOME"), "/given");
}

#[test]
fn a_program_is_found_without_a_path_in_the_environment() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc 1.1 looks in its own PATH, crun 1.8 in none");
    let bundle = case.bundle().set("/process/env", json!([])).args(["echo", "found"]);
    case.run(&bundle).quiet_success().prints("found");
}

#[test]
fn an_environment_larger_than_the_kernel_takes_is_named() {
    let case = Case::new();
    // One string may have 128 KiB, all together a quarter of the stack's limit: 2 MiB by default.
    let one = json!(["PATH=/bin", format!("BIG={}", "x".repeat(200 * 1024))]);
    let many: Vec<_> =
        (0..40).map(|i| json!(format!("BIG{i}={}", "x".repeat(100 * 1024)))).collect();
    for env in [one, json!(many)] {
        let bundle = case.bundle().set("/process/env", env).args(["/bin/true"]);
        let outcome = case.run(&bundle);
        outcome.fails_with("argument list too long");
        if case.runtime_is("runtime") {
            outcome.fails_with("process.env").fails_with("E2BIG");
        }
        case.assert_gone(&bundle);
    }
}

#[test]
fn an_environment_of_two_mebibytes_is_passed_on() {
    let case = Case::new();
    let stack = json!([{ "type": "RLIMIT_STACK", "soft": 64 << 20, "hard": 64 << 20 }]);
    let mut env: Vec<_> =
        (0..21).map(|i| json!(format!("BIG{i}={}", "x".repeat(100 * 1024)))).collect();
    env.push(json!("PATH=/bin"));
    let bundle = case.bundle().set("/process/env", env).set("/process/rlimits", stack);
    let bytes = inside(&case, bundle, "cat /proc/self/environ | wc -c");
    assert!(bytes.parse::<usize>().expect("a number") > 2 << 20, "{bytes}");
}

/// A bundle for user 1000 whose working directory belongs to `owner` and is closed to all others.
fn closed_cwd(case: &Case, owner: u32, capabilities: &[&str]) -> spec_tests::Bundle {
    use std::os::unix::fs::{PermissionsExt, chown};
    let bundle = case
        .bundle()
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        .set("/process/cwd", "/closed")
        .capabilities(capabilities)
        .args(["pwd"]);
    let dir = bundle.rootfs().join("closed");
    std::fs::create_dir(&dir).expect("make the directory");
    chown(&dir, Some(owner), Some(owner)).expect("chown");
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).expect("chmod");
    bundle
}

#[test]
fn a_cwd_that_only_the_user_or_only_root_may_enter_is_entered() {
    let case = Case::new();
    case.run(&closed_cwd(&case, 1000, &[])).quiet_success().prints("/closed");
    case.run(&closed_cwd(&case, 0, &[])).quiet_success().prints("/closed");
    // Someone else's is entered by root's privilege, too.
    case.run(&closed_cwd(&case, 7, &["CAP_DAC_OVERRIDE"])).quiet_success().prints("/closed");
}

#[test]
fn stdio_belongs_to_the_user() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        .sh("stat -L -c %u /proc/self/fd/1 && echo again > /dev/stdout");
    let outcome = case.run(&bundle);
    outcome.quiet_success();
    assert!(outcome.stdout.contains("again"), "{outcome}");
}

#[test]
fn the_session_keyring_is_the_containers_own() {
    let case = Case::new();
    let keys = |flags: &[&str]| {
        let bundle = case.bundle().set("/linux/maskedPaths", json!([]));
        let bundle = bundle.args(["cat", "/proc/keys"]);
        bundle.write();
        let mut command = case.command();
        command.arg("run").args(flags).arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
        let outcome = case.outcome(command);
        (outcome.code() == 0).then_some((outcome.stdout, format!("_ses.{}", bundle.id)))
    };
    let Some((own, name)) = keys(&[]) else { skip!("this kernel has no /proc/keys") };
    // crun names it by the container alone.
    let name = if case.runtime_is("crun") { name.replace("_ses.", "") } else { name };
    assert!(own.contains(&name), "{name} is not among\n{own}");
    let (kept, name) = keys(&["--no-new-keyring"]).expect("as before");
    assert!(!kept.contains(&name), "{kept}");
}

#[test]
fn an_oom_score_below_the_callers_is_set_or_named() {
    let case = Case::new();
    let bundle = case.bundle().set("/process/oomScoreAdj", -500);
    let outcome = case.run(&bundle.args(["cat", "/proc/self/oom_score_adj"]));
    match outcome.code() {
        0 => drop(outcome.quiet_success().prints("-500")),
        _ if case.runtime_is("runtime") => {
            outcome.fails_with("process.oomScoreAdj").fails_with("CAP_SYS_RESOURCE");
        }
        _ => {}
    }
    differs!(case, ["runc", "crun"], "other words");
    let bundle = case.bundle().set("/process/oomScoreAdj", 1001);
    case.run(&bundle).fails_with("oomScoreAdj");
}

#[test]
fn labels_without_their_module_are_refused_by_name() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "crun 1.8 ignores AppArmor's; other words");
    let has = |path: &str| std::fs::read_to_string(path).is_ok_and(|text| !text.starts_with('N'));
    if !has("/sys/module/apparmor/parameters/enabled") {
        let bundle = case.bundle().set("/process/apparmorProfile", "some-profile");
        case.run(&bundle).fails_with("process.apparmorProfile").fails_with("not supported");
        case.assert_gone(&bundle);
    }
    if !has("/sys/fs/selinux/enforce") {
        let bundle = case.bundle().set("/process/selinuxLabel", "a:b:c:s0");
        case.run(&bundle).fails_with("process.selinuxLabel").fails_with("selinux is disabled");
        case.assert_gone(&bundle);
    }
}
