//! bpf(2), as far as device rules on cgroup v2 need it.

use super::{check, check_fd};
use crate::error::Result;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// One eBPF instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    /// Operation.
    pub code: u8,
    /// Destination register in the low four bits, source in the high four.
    pub registers: u8,
    /// Jump distance or memory offset.
    pub offset: i16,
    /// Immediate operand.
    pub immediate: i32,
}

/// Loads a BPF_PROG_TYPE_CGROUP_DEVICE program.
pub fn load_device_program(program: &[Insn]) -> Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buffer: u64,
        kernel_version: u32,
        flags: u32,
    }
    let license = c"Apache-2.0";
    let attr = Attr {
        kind: 15,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Attr::default()
    };
    // SAFETY: the structure has the size that is passed and points to live memory; 5 is
    // BPF_PROG_LOAD.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, 5, &attr, size_of::<Attr>()) };
    check_fd(fd, || format!("bpf(PROG_LOAD, CGROUP_DEVICE, {} instructions)", program.len()))
}

/// Attaches a program to the cgroup directory `cgroup`, beside any that its parents have.
pub fn attach_device_program(cgroup: impl AsFd, program: impl AsFd) -> Result<()> {
    #[repr(C)]
    struct Attr {
        target: u32,
        program: u32,
        attach_type: u32,
        flags: u32,
    }
    let raw = cgroup.as_fd().as_raw_fd();
    let attr = Attr {
        target: raw as u32,
        program: program.as_fd().as_raw_fd() as u32,
        attach_type: 6,
        flags: 2, // BPF_F_ALLOW_MULTI
    };
    // SAFETY: the structure has the size that is passed; 8 is BPF_PROG_ATTACH.
    let r = unsafe { libc::syscall(libc::SYS_bpf, 8, &attr, size_of::<Attr>()) };
    check(r, || format!("bpf(PROG_ATTACH, cgroup {raw}, CGROUP_DEVICE)")).map(drop)
}
