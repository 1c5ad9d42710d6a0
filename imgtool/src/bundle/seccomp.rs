//! The default seccomp profile, as `linux.seccomp` of config.json.
//!
//! The facts are dockerd's (releases 20.10 to 29, documented in its "Seccomp security profiles"):
//! which system calls pass, and on which architecture, kernel or capability the rest depends. They
//! are kept as rules, since the right profile depends on the capabilities of each container. A
//! name that a kernel does not know is harmless: runtimes pass over it.
//!
//! A profile file (`--security-opt seccomp=FILE`) may have dockerd's shape, with `archMap`,
//! `includes` and `excludes`, or be a plain `linux.seccomp`.

use serde_json::{Map, Value, json};

use crate::{Context, Error, Result};

/// What a rule is compared with.
pub(crate) struct Target<'a> {
    /// `std::env::consts::ARCH`.
    pub(crate) arch: &'a str,
    /// Kernel version.
    pub(crate) kernel: (u32, u32),
    /// Capabilities in the bounding set.
    pub(crate) caps: &'a [String],
}

/// When a rule holds.
enum When {
    Always,
    Kernel(u32, u32),
    Arch(&'static [&'static str]),
    Cap(&'static str),
}

/// An argument comparison: index, value, operator.
type Arg = (u32, u64, &'static str);

/// System calls, a condition on their arguments, and when the rule holds at all.
struct Rule(When, &'static [Arg], &'static str);

const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// CLONE_NEW{CGROUP,UTS,IPC,USER,PID,NET,NS}: namespaces that `clone` must not make.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

const RULES: &[Rule] = &[
    Rule(When::Always, &[], BASE),
    // Everything but AF_ALG (38: the kernel's crypto) and AF_VSOCK (40: the way to the hypervisor).
    Rule(When::Always, &[(0, 38, "SCMP_CMP_LT")], "socket"),
    Rule(When::Always, &[(0, 39, "SCMP_CMP_EQ")], "socket"),
    Rule(When::Always, &[(0, 40, "SCMP_CMP_GT")], "socket"),
    // PER_LINUX, PER_LINUX32, each with UNAME26, and the query.
    Rule(When::Always, &[(0, 0x0, "SCMP_CMP_EQ")], "personality"),
    Rule(When::Always, &[(0, 0x8, "SCMP_CMP_EQ")], "personality"),
    Rule(When::Always, &[(0, 0x2_0000, "SCMP_CMP_EQ")], "personality"),
    Rule(When::Always, &[(0, 0x2_0008, "SCMP_CMP_EQ")], "personality"),
    Rule(When::Always, &[(0, 0xffff_ffff, "SCMP_CMP_EQ")], "personality"),
    // Before 4.8 ptrace could change a call after seccomp had looked at it.
    Rule(When::Kernel(4, 8), &[], "process_vm_readv process_vm_writev ptrace"),
    Rule(When::Arch(&["powerpc64"]), &[], "sync_file_range2 swapcontext"),
    Rule(
        When::Arch(&["arm", "aarch64"]),
        &[],
        "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    ),
    Rule(When::Arch(&["x86_64"]), &[], "arch_prctl"),
    Rule(When::Arch(&["x86_64", "x86"]), &[], "modify_ldt"),
    Rule(When::Arch(&["s390x"]), &[], "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
    Rule(When::Arch(&["riscv64"]), &[], "riscv_flush_icache"),
    Rule(When::Cap("CAP_DAC_READ_SEARCH"), &[], "open_by_handle_at"),
    Rule(When::Cap("CAP_SYS_ADMIN"), &[], ADMIN),
    Rule(When::Cap("CAP_SYS_BOOT"), &[], "reboot"),
    Rule(When::Cap("CAP_SYS_CHROOT"), &[], "chroot"),
    Rule(When::Cap("CAP_SYS_MODULE"), &[], "delete_module finit_module init_module"),
    Rule(When::Cap("CAP_SYS_PACCT"), &[], "acct"),
    Rule(
        When::Cap("CAP_SYS_PTRACE"),
        &[],
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    Rule(When::Cap("CAP_SYS_RAWIO"), &[], "ioperm iopl"),
    Rule(When::Cap("CAP_SYS_TIME"), &[], "clock_settime clock_settime64 settimeofday stime"),
    Rule(When::Cap("CAP_SYS_TTY_CONFIG"), &[], "vhangup"),
    Rule(
        When::Cap("CAP_SYS_NICE"),
        &[],
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    Rule(When::Cap("CAP_SYSLOG"), &[], "syslog"),
    Rule(When::Cap("CAP_BPF"), &[], "bpf"),
    Rule(When::Cap("CAP_PERFMON"), &[], "perf_event_open"),
];

const ADMIN: &str = "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie
    lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree
    perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2
    unshare";

const BASE: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown
    chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod
    fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr
    flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
    ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
    get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid
    geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid
    getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit
    getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr
    getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel
    io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl
    ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
    listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise
    map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat
    mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget
    msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat
    _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc
    pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64
    process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink
    readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr
    removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid
    setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid
    setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd
    signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64
    statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat
    uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write
    writev";

/// The default profile.
pub(crate) fn default_profile(target: &Target<'_>) -> Value {
    let mut calls: Vec<Value> =
        RULES.iter().filter(|rule| rule.0.holds(target)).map(Rule::to_json).collect();
    if !(When::Cap("CAP_SYS_ADMIN").holds(target)) {
        // clone's flags are its second argument on s390.
        let flags = u32::from(target.arch == "s390x");
        calls.push(json!({"names": ["clone"], "action": ALLOW, "args": [{
            "index": flags, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ",
        }]}));
        // clone3's flags are out of seccomp's reach: say "not here", and libc takes clone.
        calls.push(json!({"names": ["clone3"], "action": ERRNO, "errnoRet": ENOSYS}));
    }
    json!({
        "defaultAction": ERRNO,
        "defaultErrnoRet": EPERM,
        "architectures": architectures(target.arch),
        "syscalls": calls,
    })
}

impl When {
    fn holds(&self, target: &Target<'_>) -> bool {
        match self {
            When::Always => true,
            When::Kernel(major, minor) => target.kernel >= (*major, *minor),
            When::Arch(arches) => arches.contains(&target.arch),
            When::Cap(cap) => target.caps.iter().any(|c| c == cap),
        }
    }
}

impl Rule {
    fn to_json(&self) -> Value {
        let mut rule = Map::new();
        rule.insert("names".into(), self.2.split_whitespace().collect());
        rule.insert("action".into(), json!(ALLOW));
        let args: Vec<Value> = self.1.iter().map(arg_to_json).collect();
        if !args.is_empty() {
            rule.insert("args".into(), Value::Array(args));
        }
        Value::Object(rule)
    }
}

fn arg_to_json((index, value, op): &Arg) -> Value {
    json!({"index": index, "value": value, "op": op})
}

/// The native architecture, and the ones whose programs it also runs.
fn architectures(arch: &str) -> &'static [&'static str] {
    match arch {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "riscv64" => &["SCMP_ARCH_RISCV64"],
        "s390x" => &["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
        "powerpc64" => &["SCMP_ARCH_PPC64LE"],
        "loongarch64" => &["SCMP_ARCH_LOONGARCH64"],
        "x86" => &["SCMP_ARCH_X86"],
        "arm" => &["SCMP_ARCH_ARM"],
        _ => &[], // Runtimes take the native one.
    }
}

/// A profile as a file has it, resolved for this container.
pub(crate) fn parse_profile(bytes: &[u8], target: &Target<'_>) -> Result<Value> {
    let mut profile: Map<String, Value> =
        serde_json::from_slice(bytes).wrap(|| "parse the seccomp profile")?;
    if !profile.get("defaultAction").is_some_and(Value::is_string) {
        return Err(Error::new("the seccomp profile has no defaultAction"));
    }
    if let Some(map) = profile.shift_remove("archMap").filter(|map| !map.is_null()) {
        let native = architectures(target.arch).first().copied().unwrap_or_default();
        let entries = map.as_array().into_iter().flatten();
        let entry = entries.into_iter().find(|e| e["architecture"] == native);
        let sub = entry.and_then(|e| e["subArchitectures"].as_array()).cloned();
        let all = [vec![json!(native)], sub.unwrap_or_default()].concat();
        profile.insert("architectures".into(), Value::Array(all));
    }
    if let Some(calls) = profile.get_mut("syscalls").and_then(Value::as_array_mut) {
        calls.retain(|call| applies(call, target));
        calls.iter_mut().for_each(tidy);
    }
    Ok(Value::Object(profile))
}

/// Whether a rule in dockerd's shape holds: all of `includes`, none of `excludes`.
fn applies(call: &Value, target: &Target<'_>) -> bool {
    let list = |part: &str, key: &str| -> Vec<String> {
        let items = call[part][key].as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let has_cap = |cap: &String| target.caps.contains(cap);
    let arch = go_arch(target.arch).to_owned();
    let arches = list("includes", "arches");
    let kernel = |part: &str| parse_kernel(call[part]["minKernel"].as_str().unwrap_or_default());
    (arches.is_empty() || arches.contains(&arch))
        && list("includes", "caps").iter().all(has_cap)
        && kernel("includes").is_none_or(|least| target.kernel >= least)
        && !list("excludes", "arches").contains(&arch)
        && !list("excludes", "caps").iter().any(has_cap)
        && kernel("excludes").is_none_or(|least| target.kernel < least)
}

/// Leaves only what runtime-spec knows.
fn tidy(call: &mut Value) {
    let Some(call) = call.as_object_mut() else { return };
    if let Some(name) = call.shift_remove("name").filter(|name| name.is_string()) {
        call.entry("names").or_insert_with(|| json!([name]));
    }
    let known = |key: &str| matches!(key, "names" | "action" | "errnoRet" | "args");
    call.retain(|key, value| known(key) && !value.is_null());
}

/// `4.8`, or the first two numbers of `uname -r`.
pub(crate) fn parse_kernel(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(profile: &Value) -> Vec<&str> {
        let calls = profile["syscalls"].as_array().unwrap().iter();
        let allowed = calls.filter(|call| call["action"] == ALLOW);
        allowed.flat_map(|c| c["names"].as_array().unwrap()).map(|n| n.as_str().unwrap()).collect()
    }

    #[test]
    fn capabilities_open_calls() {
        let none = Target { arch: "x86_64", kernel: (6, 1), caps: &[] };
        let profile = default_profile(&none);
        for call in
            ["mount", "unshare", "reboot", "chroot", "io_uring_setup", "keyctl", "kexec_load"]
        {
            assert!(!names(&profile).contains(&call), "{call}");
        }
        assert!(names(&profile).contains(&"arch_prctl") && names(&profile).contains(&"ptrace"));
        let caps = ["CAP_SYS_ADMIN".to_owned()];
        let admin = default_profile(&Target { caps: &caps, ..none });
        assert!(names(&admin).contains(&"mount") && names(&admin).contains(&"clone3"));
        assert!(!admin["syscalls"].as_array().unwrap().iter().any(|c| c["action"] == ERRNO));
    }

    #[test]
    fn each_architecture_has_its_own() {
        let arm = default_profile(&Target { arch: "aarch64", kernel: (6, 1), caps: &[] });
        assert_eq!(arm["architectures"], json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]));
        assert!(!names(&arm).contains(&"arch_prctl") && names(&arm).contains(&"set_tls"));
        let old = default_profile(&Target { arch: "aarch64", kernel: (4, 4), caps: &[] });
        assert!(!names(&old).contains(&"ptrace"));
    }

    #[test]
    fn profiles_in_dockerds_shape_are_resolved() {
        let text = br#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":
            "SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],"syscalls":[
            {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"name":"read","action":"SCMP_ACT_ALLOW","args":null,"comment":"x"},
            {"names":["a"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"9.0"}},
            {"names":["b"],"action":"SCMP_ACT_ALLOW","excludes":{"arches":["amd64"]}}]}"#;
        let target = Target { arch: "x86_64", kernel: (6, 1), caps: &[] };
        let profile = parse_profile(text, &target).unwrap();
        assert_eq!(profile["architectures"], json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]));
        assert_eq!(profile["syscalls"], json!([{"action": ALLOW, "names": ["read"]}]));
        assert!(parse_profile(b"{}", &target).is_err());
    }
}
