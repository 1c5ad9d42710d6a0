//! What is known of system calls by their number.

use nix::errno::Errno;
use nix::libc;

macro_rules! names {
    ($($id:ident $name:literal)*) => {
        /// The names of the calls that runtimes make.
        const NAMES: &[(i64, &str)] = &[$((libc::$id, $name)),*];
    };
}

names! {
    SYS_read "read" SYS_write "write" SYS_open "open" SYS_close "close" SYS_stat "stat"
    SYS_fstat "fstat" SYS_lstat "lstat" SYS_poll "poll" SYS_lseek "lseek" SYS_mmap "mmap"
    SYS_mprotect "mprotect" SYS_munmap "munmap" SYS_brk "brk" SYS_rt_sigaction "rt_sigaction"
    SYS_rt_sigprocmask "rt_sigprocmask" SYS_ioctl "ioctl" SYS_pread64 "pread64" SYS_writev "writev"
    SYS_access "access" SYS_dup "dup" SYS_dup2 "dup2" SYS_dup3 "dup3" SYS_nanosleep "nanosleep"
    SYS_clock_nanosleep "clock_nanosleep" SYS_getpid "getpid" SYS_sendfile "sendfile"
    SYS_socket "socket" SYS_connect "connect" SYS_sendto "sendto" SYS_sendmsg "sendmsg"
    SYS_recvmsg "recvmsg" SYS_socketpair "socketpair" SYS_clone "clone" SYS_fork "fork"
    SYS_vfork "vfork" SYS_execve "execve" SYS_execveat "execveat" SYS_exit "exit"
    SYS_exit_group "exit_group" SYS_wait4 "wait4" SYS_waitid "waitid" SYS_kill "kill"
    SYS_fcntl "fcntl" SYS_flock "flock" SYS_getdents64 "getdents64" SYS_getcwd "getcwd"
    SYS_chdir "chdir" SYS_fchdir "fchdir" SYS_rename "rename" SYS_renameat "renameat"
    SYS_renameat2 "renameat2" SYS_mkdir "mkdir" SYS_mkdirat "mkdirat" SYS_rmdir "rmdir"
    SYS_unlink "unlink" SYS_unlinkat "unlinkat" SYS_symlinkat "symlinkat" SYS_linkat "linkat"
    SYS_readlink "readlink" SYS_readlinkat "readlinkat" SYS_fchmod "fchmod" SYS_fchmodat "fchmodat"
    SYS_fchown "fchown" SYS_fchownat "fchownat" SYS_umask "umask" SYS_gettid "gettid"
    SYS_geteuid "geteuid" SYS_getegid "getegid" SYS_getuid "getuid" SYS_getgid "getgid"
    SYS_setsid "setsid" SYS_setgroups "setgroups" SYS_setresuid "setresuid"
    SYS_setresgid "setresgid" SYS_capget "capget" SYS_capset "capset" SYS_sigaltstack "sigaltstack"
    SYS_statfs "statfs" SYS_fstatfs "fstatfs" SYS_prctl "prctl" SYS_arch_prctl "arch_prctl"
    SYS_pivot_root "pivot_root" SYS_mount "mount" SYS_umount2 "umount2"
    SYS_sethostname "sethostname" SYS_setdomainname "setdomainname" SYS_futex "futex"
    SYS_sched_getaffinity "sched_getaffinity" SYS_sched_setaffinity "sched_setaffinity"
    SYS_set_tid_address "set_tid_address" SYS_set_robust_list "set_robust_list" SYS_openat "openat"
    SYS_mknodat "mknodat" SYS_newfstatat "newfstatat" SYS_unshare "unshare" SYS_setns "setns"
    SYS_prlimit64 "prlimit64" SYS_getrandom "getrandom" SYS_memfd_create "memfd_create"
    SYS_statx "statx" SYS_rseq "rseq" SYS_pidfd_send_signal "pidfd_send_signal"
    SYS_pidfd_open "pidfd_open" SYS_clone3 "clone3" SYS_close_range "close_range"
    SYS_openat2 "openat2" SYS_faccessat "faccessat" SYS_faccessat2 "faccessat2"
    SYS_open_tree "open_tree" SYS_move_mount "move_mount" SYS_fsopen "fsopen"
    SYS_fsconfig "fsconfig" SYS_fsmount "fsmount" SYS_mount_setattr "mount_setattr"
    SYS_keyctl "keyctl" SYS_seccomp "seccomp" SYS_bpf "bpf" SYS_signalfd4 "signalfd4"
    SYS_rt_sigtimedwait "rt_sigtimedwait" SYS_pipe2 "pipe2" SYS_bind "bind" SYS_mremap "mremap"
    SYS_madvise "madvise" SYS_sched_yield "sched_yield" SYS_rt_sigreturn "rt_sigreturn"
    SYS_getppid "getppid" SYS_personality "personality" SYS_mknod "mknod" SYS_recvfrom "recvfrom" SYS_chmod "chmod"
    SYS_sync "sync" SYS_restart_syscall "restart_syscall"
    SYS_ppoll "ppoll" SYS_chroot "chroot" SYS_sched_setscheduler "sched_setscheduler"
    SYS_sched_setattr "sched_setattr" SYS_ioprio_set "ioprio_set" SYS_ftruncate "ftruncate"
    SYS_getxattr "getxattr" SYS_set_mempolicy "set_mempolicy" SYS_pidfd_getfd "pidfd_getfd"
    SYS_name_to_handle_at "name_to_handle_at" SYS_fsync "fsync" SYS_fdatasync "fdatasync"
}

/// The name of a call, or its number.
pub fn name(call: i64) -> String {
    let found = NAMES.iter().find(|(number, _)| *number == call);
    found.map_or_else(|| format!("call {call}"), |(_, name)| (*name).to_owned())
}

/// The errors that a call is made to fail with; none for calls that cannot fail (their manual
/// pages say so), and the one that it can have for a request of memory.
pub fn errors(call: i64) -> &'static [Errno] {
    const ALL: &[Errno] = &[
        Errno::EIO,
        Errno::ENOMEM,
        Errno::ENOSPC,
        Errno::EPERM,
        Errno::EINTR,
        Errno::EAGAIN,
        Errno::ENOSYS,
    ];
    const INFALLIBLE: &[i64] = &[
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_rt_sigreturn,
        libc::SYS_restart_syscall,
        libc::SYS_getpid,
        libc::SYS_getppid,
        libc::SYS_gettid,
        libc::SYS_getuid,
        libc::SYS_geteuid,
        libc::SYS_getgid,
        libc::SYS_getegid,
        libc::SYS_umask,
        libc::SYS_sched_yield,
        libc::SYS_set_tid_address,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_arch_prctl,
        // Linux answers with the old break rather than an error (brk(2), NOTES).
        libc::SYS_brk,
        // Without the vDSO's clock, as under emulation, these are calls; Linux knows both clocks.
        libc::SYS_clock_gettime,
        libc::SYS_gettimeofday,
    ];
    match call {
        // The others are those of late writes on network file systems (close(2), NOTES); Rust's library
        // takes them for impossible where it reads directories.
        libc::SYS_close => &[Errno::EINTR],
        call if INFALLIBLE.contains(&call) => &[],
        call if takes_memory(call) => &[Errno::ENOMEM],
        _ => ALL,
    }
}

/// Is its failure the business of Rust's library, which then ends the program in its own words?
pub fn is_the_librarys(call: i64) -> bool {
    takes_memory(call) || [libc::SYS_getrandom, libc::SYS_recvfrom].contains(&call)
}

/// Is it made by the allocator?
fn takes_memory(call: i64) -> bool {
    [libc::SYS_brk, libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mprotect, libc::SYS_mremap]
        .contains(&call)
        || call == libc::SYS_madvise
}

/// What an error may call it: by its name, by that of the C library's function, or by what it is for
/// where Rust's library made it as a part of something larger, whose error has the errno alone:
/// the removal of a tree, the reading of a directory, the resolving of a path, the start of a program.
pub fn words(call: i64) -> Vec<String> {
    let more: &[&str] = match call {
        libc::SYS_openat | libc::SYS_open => &["open", "read", "write", "look at", "remove"],
        libc::SYS_newfstatat | libc::SYS_statx | libc::SYS_fstat => {
            &["stat", "open", "read", "remove", "count our threads"]
        }
        libc::SYS_read | libc::SYS_pread64 => &["look at"],
        libc::SYS_getdents64 | libc::SYS_fcntl => &["read", "remove"],
        libc::SYS_mkdirat | libc::SYS_mkdir => &["make"],
        libc::SYS_unlinkat | libc::SYS_unlink | libc::SYS_rmdir => &["remove"],
        libc::SYS_readlink | libc::SYS_readlinkat => &["open"],
        libc::SYS_execve => &["exec"],
        libc::SYS_fstatfs => &["fstatvfs"],
        libc::SYS_wait4 | libc::SYS_waitid => &["wait"],
        libc::SYS_rt_sigtimedwait => &["sigwaitinfo"],
        _ => &[],
    };
    let started = ["run /", "run newuidmap", "run newgidmap"];
    // The C library's name lacks what tells the kernel's versions apart: rt_, 2, 64.
    let bare = name(call).trim_start_matches("rt_").trim_end_matches(char::is_numeric).to_owned();
    more.iter().chain(&started).map(|word| (*word).to_owned()).chain([bare]).collect()
}

/// May a signal interrupt it (signal(7), EINTR), so that it has to be made again?
pub fn is_interruptible(call: i64) -> bool {
    [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_openat,
        libc::SYS_flock,
        libc::SYS_wait4,
        libc::SYS_waitid,
        libc::SYS_poll,
        libc::SYS_sendmsg,
        libc::SYS_recvmsg,
        libc::SYS_connect,
        libc::SYS_rt_sigtimedwait,
    ]
    .contains(&call)
}
