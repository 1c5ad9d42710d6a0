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

/// By this name our programs are told from those of others on the same group (Linux 4.15).
const NAME: [u8; 16] = *b"davit_devices\0\0\0";
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;

/// One call: the structure is what the kernel reads, and for some commands writes.
fn call<T>(command: i32, attr: &mut T) -> libc::c_long {
    // SAFETY: the structure lives, is writable, and has the size that is passed; pointers inside
    // it lead to live memory of the caller's for as long as the call takes.
    unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) }
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
        name: [u8; 16],
    }
    let license = c"Apache-2.0";
    let mut attr = Attr {
        kind: 15,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        name: NAME,
        ..Attr::default()
    };
    let fd = call(5, &mut attr);
    check_fd(fd, || format!("bpf(PROG_LOAD, CGROUP_DEVICE, {} instructions)", program.len()))
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

fn number(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd() as u32
}

/// Attaches a program to the cgroup directory `cgroup`, beside any that its parents have, and in
/// the place of `old` if that is given (Linux 5.6).
pub fn attach_device_program(
    cgroup: impl AsFd,
    program: impl AsFd,
    old: Option<&OwnedFd>,
) -> Result<()> {
    let target = number(cgroup);
    let mut attr = Attach {
        target,
        program: number(program),
        attach_type: CGROUP_DEVICE,
        flags: ALLOW_MULTI | if old.is_some() { REPLACE } else { 0 },
        replaced: old.map_or(0, number),
    };
    let how = if old.is_some() { "REPLACE" } else { "ALLOW_MULTI" };
    check(call(8, &mut attr), || format!("bpf(PROG_ATTACH, cgroup {target}, CGROUP_DEVICE, {how})"))
        .map(drop)
}

/// Takes a program off the cgroup.
pub fn detach_device_program(cgroup: impl AsFd, program: impl AsFd) -> Result<()> {
    let target = number(cgroup);
    let program = number(program);
    let mut attr = Attach { target, program, attach_type: CGROUP_DEVICE, flags: 0, replaced: 0 };
    check(call(9, &mut attr), || format!("bpf(PROG_DETACH, cgroup {target}, CGROUP_DEVICE)"))
        .map(drop)
}

/// The programs of ours that are attached to the cgroup itself.
pub fn device_programs(cgroup: impl AsFd) -> Result<Vec<OwnedFd>> {
    #[repr(C)]
    struct Query {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        _padding: u32,
    }
    let target = number(cgroup);
    // The kernel allows 64 on one group.
    let mut ids = [0u32; 64];
    let mut attr = Query {
        target,
        attach_type: CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        _padding: 0,
    };
    let r = call(16, &mut attr);
    check(r, || format!("bpf(PROG_QUERY, cgroup {target}, CGROUP_DEVICE)"))?;
    let mut own = Vec::new();
    for id in &ids[..attr.count as usize] {
        let program = by_id(*id)?;
        if name(&program)? == NAME {
            own.push(program);
        }
    }
    Ok(own)
}

fn by_id(id: u32) -> Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    check_fd(call(13, &mut attr), || format!("bpf(PROG_GET_FD_BY_ID, {id})"))
}

/// `name` of the program's `struct bpf_prog_info`, which has it at byte 64.
fn name(program: &OwnedFd) -> Result<[u8; 16]> {
    #[repr(C)]
    struct Info {
        program: u32,
        length: u32,
        info: u64,
    }
    let mut info = [0u64; 10];
    let mut attr = Info {
        program: number(program),
        length: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    let r = call(15, &mut attr);
    check(r, || format!("bpf(OBJ_GET_INFO_BY_FD, {})", attr.program))?;
    let mut name = [0; 16];
    name[..8].copy_from_slice(&info[8].to_ne_bytes());
    name[8..].copy_from_slice(&info[9].to_ne_bytes());
    Ok(name)
}
