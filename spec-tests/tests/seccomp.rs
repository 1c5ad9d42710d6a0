//! Seccomp (config-linux.md#seccomp).

use serde_json::{Value, json};
use spec_tests::{Bundle, Case, differs};

fn architectures() -> Value {
    match std::env::consts::ARCH {
        "aarch64" => json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        _ => json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    }
}

/// A bundle that allows everything but these calls.
fn filtered(case: &Case, names: &[&str], action: Value) -> Bundle {
    let mut rule = action;
    rule["names"] = json!(names);
    case.bundle().set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": architectures(),
            "syscalls": [rule],
        }),
    )
}

#[test]
fn the_filter_is_installed() {
    let case = Case::new();
    let bundle = filtered(&case, &["mkdir"], json!({ "action": "SCMP_ACT_ERRNO" }));
    let outcome = case.run(&bundle.args(["cat", "/proc/self/status"]));
    assert_eq!(outcome.quiet_success().field("Seccomp"), "2");
}

#[test]
fn without_seccomp_there_is_no_filter() {
    let case = Case::new();
    let outcome = case.run(&case.bundle().args(["cat", "/proc/self/status"]));
    assert_eq!(outcome.quiet_success().field("Seccomp"), "0");
}

#[test]
fn errno_is_eperm_by_default() {
    let case = Case::new();
    let action = json!({ "action": "SCMP_ACT_ERRNO" });
    let bundle = filtered(&case, &["mkdir", "mkdirat"], action).sh("mkdir /tmp/x");
    let outcome = case.run(&bundle);
    assert!(outcome.code() == 1 && outcome.stderr.contains("not permitted"), "{outcome}");
}

#[test]
fn errno_is_the_configured_one() {
    let case = Case::new();
    // ENOTEMPTY is no error that mkdir itself knows.
    let action = json!({ "action": "SCMP_ACT_ERRNO", "errnoRet": 39 });
    let bundle = filtered(&case, &["mkdir", "mkdirat"], action).sh("mkdir /tmp/x");
    let outcome = case.run(&bundle);
    assert!(outcome.code() == 1 && outcome.stderr.contains("not empty"), "{outcome}");
}

#[test]
fn kill_ends_the_process_with_sigsys() {
    let case = Case::new();
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS"] {
        let action = json!({ "action": action });
        let bundle = filtered(&case, &["mkdir", "mkdirat"], action).sh("mkdir /tmp/x; echo $?");
        // 128 + SIGSYS
        case.run(&bundle).success().prints_part("159");
    }
}

#[test]
fn arguments_are_compared() {
    let case = Case::new();
    // chmod(path, 0777) is refused, any other mode is not.
    let action = json!({
        "action": "SCMP_ACT_ERRNO",
        "args": [{ "index": 1, "value": 0o777, "op": "SCMP_CMP_EQ" }],
    });
    let bundle = filtered(&case, &["chmod"], action)
        .writable()
        .sh("chmod 700 /tmp && echo taken; chmod 777 /tmp || echo refused");
    let names_chmod = std::env::consts::ARCH == "x86_64";
    if !names_chmod {
        spec_tests::skip!("this architecture has no chmod call");
    }
    let outcome = case.run(&bundle);
    outcome.success().prints("taken\nrefused");
}

#[test]
fn an_unknown_call_is_passed_over() {
    let case = Case::new();
    // As profiles that were written for newer kernels need it.
    let names = ["no_such_system_call", "mkdir", "mkdirat"];
    let bundle = filtered(&case, &names, json!({ "action": "SCMP_ACT_ERRNO" })).sh("mkdir /tmp/x");
    let outcome = case.run(&bundle);
    assert!(outcome.code() == 1 && outcome.stderr.contains("not permitted"), "{outcome}");
}

#[test]
fn the_default_action_counts_for_what_is_not_listed() {
    let case = Case::new();
    // Everything but listening is allowed by name: this container can do all that echo needs.
    let bundle = case.bundle().set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": architectures(),
            "syscalls": [{ "names": ALLOWED, "action": "SCMP_ACT_ALLOW" }],
        }),
    );
    let bundle = bundle.sh("echo ran; mkdir /tmp/x");
    let outcome = case.run(&bundle);
    assert_eq!(outcome.stdout, "ran\n", "{outcome}");
    assert!(outcome.code() != 0 && outcome.stderr.contains("not implemented"), "{outcome}");
}

/// What a static shell, and the last steps of any runtime before it, call.
const ALLOWED: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "capget",
    "capset",
    "chdir",
    "clone",
    "clone3",
    "close",
    "close_range",
    "dup",
    "dup2",
    "dup3",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_wait",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fchdir",
    "fcntl",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getpgrp",
    "getpid",
    "getppid",
    "getrandom",
    "gettid",
    "getuid",
    "ioctl",
    "lseek",
    "lstat",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "nanosleep",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "pipe2",
    "poll",
    "ppoll",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "recvmsg",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "seccomp",
    "sendmsg",
    "sendto",
    "set_robust_list",
    "set_tid_address",
    "setgid",
    "setgroups",
    "setresgid",
    "setresuid",
    "setuid",
    "sigaltstack",
    "stat",
    "statfs",
    "statx",
    "tgkill",
    "uname",
    "wait4",
    "write",
    "writev",
    "recvfrom",
    "epoll_create",
    "eventfd2",
    "setsid",
    "umask",
    "fchown",
    "sched_setaffinity",
    "setsockopt",
    "keyctl",
];

#[test]
fn a_filter_works_without_no_new_privileges() {
    let case = Case::new();
    let action = json!({ "action": "SCMP_ACT_ERRNO" });
    let bundle = filtered(&case, &["mkdir", "mkdirat"], action)
        .set("/process/noNewPrivileges", false)
        .sh("mkdir /tmp/x; grep -c '^Seccomp:.2' /proc/self/status");
    let outcome = case.run(&bundle);
    outcome.success().prints("1");
    assert!(outcome.stderr.contains("not permitted"), "{outcome}");
}

#[test]
fn a_filter_may_refuse_calls_that_are_newer_than_it() {
    let case = Case::new();
    let action = json!({ "action": "SCMP_ACT_ERRNO" });
    // Without no_new_privs the filter is in force for the runtime's own last calls.
    let bundle = filtered(&case, &["faccessat2", "close_range"], action)
        .set("/process/noNewPrivileges", false)
        .args(["/bin/echo", "runs"]);
    case.run(&bundle).quiet_success().prints("runs");
}

#[test]
fn exec_is_filtered_too() {
    let case = Case::new();
    let action = json!({ "action": "SCMP_ACT_ERRNO" });
    let bundle = filtered(&case, &["mkdir", "mkdirat"], action).args(["sleep", "100"]);
    case.start(&bundle);
    let outcome = case.exec(&bundle, [], ["mkdir", "/tmp/x"]);
    assert!(outcome.code() == 1 && outcome.stderr.contains("not permitted"), "{outcome}");
}

#[test]
fn a_call_newer_than_the_profile_is_answered_enosys() {
    let case = Case::new();
    differs!(case, ["crun"], "crun answers what the default action says");
    let mut names: Vec<&str> = ALLOWED.to_vec();
    names.extend(["mkdir", "mkdirat"]);
    names
        .retain(|name| !["clone3", "close_range", "openat2", "faccessat2", "statx"].contains(name));
    // The newest call that is named is older than mount_setattr, which is refused by default with
    // EPERM: busybox takes that for a failure and ENOSYS for an older kernel.
    let profile = |names: &[&str]| {
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures(),
                "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }] })
    };
    let program = compiled(case.dir(), MOUNT_SETATTR);
    let Some(program) = program else { spec_tests::skip!("no C compiler") };
    let with = |names: &[&str]| {
        let bundle = case.bundle().set("/linux/seccomp", profile(names)).args(["/bin/probe"]);
        std::fs::copy(&program, bundle.rootfs().join("bin/probe")).expect("copy");
        case.run(&bundle)
    };
    let all = [ALLOWED, &["mount", "futex_waitv"]].concat();
    with(&all).exits(1);
    names.extend(["close_range", "faccessat2"]);
    with(&names).exits(38);
}

/// Exits with the error number of a call with number 442, mount_setattr.
const MOUNT_SETATTR: &str = "#include <unistd.h>
#include <errno.h>
int main(void) { return syscall(442, -1, 0, 0, 0, 0) ? errno : 0; }";

fn compiled(dir: &std::path::Path, source: &str) -> Option<std::path::PathBuf> {
    let (text, program) = (dir.join("probe.c"), dir.join("probe"));
    std::fs::write(&text, source).expect("write the source");
    let mut cc = std::process::Command::new("cc");
    cc.args(["-static", "-O1", "-o"]).arg(&program).arg(&text);
    cc.status().is_ok_and(|status| status.success()).then_some(program)
}

#[test]
fn an_unknown_call_is_refused_where_an_annotation_asks() {
    let case = Case::new();
    differs!(case, ["runc"], "the annotation is crun's");
    let names = ["no_such_system_call"];
    let bundle = filtered(&case, &names, json!({ "action": "SCMP_ACT_ERRNO" }))
        .set("/annotations", json!({ "run.oci.seccomp_fail_unknown_syscall": "1" }));
    case.run(&bundle).fails_with("no_such_system_call");
    case.assert_gone(&bundle);
}

#[test]
fn a_raw_program_takes_the_profiles_place() {
    let case = Case::new();
    differs!(case, ["runc"], "the annotation is crun's");
    if std::env::consts::ARCH != "x86_64" {
        spec_tests::skip!("the program below is for x86-64");
    }
    // ld nr; jeq mkdir, +0, +1; ret ERRNO(39); ret ALLOW
    let program = "IAAAAAAAAAAVAAABUwAAAAYAAAAnAAUABgAAAAAA/38=";
    let bundle = filtered(&case, &["chdir"], json!({ "action": "SCMP_ACT_KILL" }))
        .set("/annotations", json!({ "run.oci.seccomp_bpf_data": program }))
        .sh("cd / && mkdir /tmp/x");
    let outcome = case.run(&bundle);
    assert!(outcome.code() == 1 && outcome.stderr.contains("not empty"), "{outcome}");
    let bundle = case.bundle().set("/annotations", json!({ "run.oci.seccomp_bpf_data": "AAAA" }));
    let outcome = case.run(&bundle);
    assert_ne!(outcome.code(), 0, "{outcome}");
    case.assert_gone(&bundle);
}

#[test]
fn plugins_are_refused_by_name() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc passes it over; crun may be built without");
    let bundle =
        case.bundle().set("/annotations", json!({ "run.oci.seccomp.plugins": "/lib/plugin.so" }));
    case.run(&bundle).fails_with("run.oci.seccomp.plugins");
}

#[test]
fn flags_that_are_unknown_are_refused_by_name() {
    let case = Case::new();
    differs!(case, ["runc"], "runc 1.1 knows no flags");
    let with = |flags: Value| {
        case.bundle().set(
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": flags,
                    "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }] }),
        )
    };
    let known = ["TSYNC", "LOG", "SPEC_ALLOW"].map(|flag| format!("SECCOMP_FILTER_FLAG_{flag}"));
    case.run(&with(json!(known)).args(["true"])).quiet_success();
    let bundle = with(json!(["SECCOMP_FILTER_FLAG_NO_SUCH"]));
    case.run(&bundle).fails_with("SECCOMP_FILTER_FLAG_NO_SUCH");
    case.assert_gone(&bundle);
}
