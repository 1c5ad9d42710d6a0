//! Seccomp (config-linux.md#seccomp).

use serde_json::{Value, json};
use spec_tests::{Bundle, Case};

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
fn exec_is_filtered_too() {
    let case = Case::new();
    let action = json!({ "action": "SCMP_ACT_ERRNO" });
    let bundle = filtered(&case, &["mkdir", "mkdirat"], action).args(["sleep", "100"]);
    case.start(&bundle);
    let outcome = case.exec(&bundle, [], ["mkdir", "/tmp/x"]);
    assert!(outcome.code() == 1 && outcome.stderr.contains("not permitted"), "{outcome}");
}
