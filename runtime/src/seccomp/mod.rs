//! Compiles the profile `linux.seccomp` of `config.json` to a classic BPF program.
//!
//! The meaning is that of runc with libseccomp, which every profile in use was written against: which
//! rules count, which of two that overlap wins, what an unknown name does, what a call gets that is
//! newer than the profile. The program is another: libseccomp compares the call's number with one
//! number after another, in the better case after a search that ends at four; runc puts a second
//! program in front. Here each ABI is one function from call numbers to answers, cut into ranges with
//! the same answer, and the program is a balanced search among these ranges.
//!
//! ```text
//! linux.seccomp --profile.rs--> rules, calls --calls.rs--> ranges of numbers --tree.rs--> program
//!                               (all ABIs)                 (one audit token)
//! ```
//!
//! Everything here is pure: no system call, no file, no `unsafe`. The parent compiles before the
//! clone, the child installs.

mod arch;
mod bpf;
mod calls;
mod profile;
mod rule;
#[rustfmt::skip]
mod syscalls;
mod table;
mod tree;

use std::fmt;

use oci_spec::runtime::{Arch, LinuxSeccomp};

pub use arch::native;
pub use bpf::{Answer, Insn, MAX_INSTRUCTIONS, simulate};
use profile::Profile;

/// Calls by which a process whose filter is in force tells its parent of the listener, and hears
/// that the agent has it: were one of them to wait for the agent, nobody would ever answer.
pub const HANDSHAKE: [&str; 3] = ["sendmsg", "recvmsg", "socketcall"];

/// `SECCOMP_FILTER_FLAG_LOG` of `linux/seccomp.h`.
pub const FLAG_LOG: u32 = 1 << 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW` (Linux 4.17).
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` (Linux 5.0).
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` (Linux 5.19).
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// `SECCOMP_RET_USER_NOTIF`.
const RETURN_NOTIFY: u32 = 0x7fc0_0000;

/// A compiled profile, ready for `seccomp(SECCOMP_SET_MODE_FILTER, flags, program)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The program, at most [`MAX_INSTRUCTIONS`] long.
    pub program: Vec<Insn>,
    /// `SECCOMP_FILTER_FLAG_*`. Without the flag `TSYNC`: who installs has one thread.
    pub flags: u32,
    /// Some call waits for a listener: installing returns a descriptor (`FLAG_NEW_LISTENER` is set).
    pub notify: bool,
    /// What the filter does, in words.
    pub summary: Summary,
}

/// What `runtime plan` shows of a filter, and `--debug` adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The ABIs that it knows, the native one first; calls of all others kill the thread.
    pub architectures: Vec<Arch>,
    /// What calls get that no rule names.
    pub default_action: String,
    /// How many known names each action was given to, arguments aside, in the profile's order.
    pub actions: Vec<(String, usize)>,
    /// Calls newer than the newest one that the profile names get `ENOSYS` (never what the default
    /// action says), so that programs try an older one.
    pub newer_get_enosys: bool,
    /// Length of the program.
    pub instructions: usize,
    /// Names in the profile that no architecture has: ignored.
    pub unknown: Vec<String>,
}

impl Filter {
    /// A program that was compiled elsewhere, as the bytes of an array of `struct sock_filter`.
    ///
    /// # Errors
    /// What it cannot be a filter for, in words: the kernel itself checks it when it is installed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Filter, String> {
        let (instructions, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(format!("{} bytes are no multiple of 8, an instruction", bytes.len()));
        }
        if instructions.is_empty() {
            return Err("no instruction".into());
        }
        if instructions.len() > MAX_INSTRUCTIONS {
            let n = instructions.len();
            return Err(format!("{n} instructions, and the kernel takes {MAX_INSTRUCTIONS}"));
        }
        let program: Vec<Insn> = instructions.iter().map(Insn::from_bytes).collect();
        if program.iter().any(|insn| insn.returns(RETURN_NOTIFY)) {
            return Err("returns SECCOMP_RET_USER_NOTIF, and a raw program has no listener".into());
        }
        let summary = Summary {
            architectures: Vec::new(),
            default_action: "a program of the configuration's own".into(),
            actions: Vec::new(),
            newer_get_enosys: false,
            instructions: program.len(),
            unknown: Vec::new(),
        };
        Ok(Filter { program, flags: 0, notify: false, summary })
    }
}

/// Why a profile cannot be compiled: where in `config.json`, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    path: String,
    problem: String,
}

impl Error {
    fn new(path: impl fmt::Display, problem: impl Into<String>) -> Error {
        Error { path: format!("linux.seccomp{path}"), problem: problem.into() }
    }

    /// The JSON path of what is wrong, such as `linux.seccomp.syscalls[3].args[0].index`.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

impl std::error::Error for Error {}

/// Compiles `profile` for a kernel whose own ABI is `native` ([`native()`], but for tests).
///
/// # Errors
/// Names the place in `config.json` of whatever the kernel, libseccomp or the runtime-spec
/// (config-linux.md, section Seccomp) would refuse.
pub fn compile(profile: &LinuxSeccomp, native: Arch) -> Result<Filter, Error> {
    let profile = Profile::read(profile, native)?;
    let tables = calls::tables(&profile)?;
    let program = tree::program(&profile, &tables);
    if program.len() > MAX_INSTRUCTIONS {
        let problem = format!(
            "compiles to {} instructions, and the kernel takes {MAX_INSTRUCTIONS}: \
             name fewer calls or compare fewer arguments",
            program.len()
        );
        return Err(Error::new("", problem));
    }
    let summary = Summary {
        architectures: profile.abis.iter().map(|abi| abi.arch).collect(),
        default_action: profile.default_name(),
        actions: profile.actions(),
        newer_get_enosys: profile.newer_get_enosys,
        instructions: program.len(),
        unknown: profile.unknown.clone(),
    };
    Ok(Filter { program, flags: profile.flags, notify: profile.notify, summary })
}

#[cfg(test)]
mod tests;
