//! Which devices the container may use: files on cgroup v1, an eBPF program on v2.
//!
//! A later rule wins over an earlier one, and what no rule names is denied.

use crate::error::{Context, Error, Result};
use crate::sys::{bpf, fs};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use serde::Serialize;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Allow or deny.
    pub allow: bool,
    /// `a` for all, `b` for block, `c` for character devices.
    pub kind: char,
    /// Major number; any if none.
    pub major: Option<u32>,
    /// Minor number; any if none.
    pub minor: Option<u32>,
    /// Of read, write and mknod: a subset of `rwm`.
    pub access: String,
}

impl Rule {
    fn new(allow: bool, kind: char, major: Option<u32>, minor: Option<u32>, access: &str) -> Self {
        Self { allow, kind, major, minor, access: access.into() }
    }

    /// The rules in force: those of `linux.resources.devices`, then what every container needs (its
    /// default devices and terminals, and making nodes without using them). A node listed in
    /// `linux.devices` is made, but may be used only if a rule says so, as in runc.
    pub fn all(rules: Option<&[LinuxDeviceCgroup]>) -> Result<Vec<Self>> {
        let mut all = vec![Self::new(false, 'a', None, None, "rwm")];
        for (i, rule) in rules.unwrap_or_default().iter().enumerate() {
            let rule = Self::from_spec(rule)
                .map_err(|e| e.wrap(format!("config.json: linux.resources.devices[{i}]")))?;
            if all.last() != Some(&rule) {
                all.push(rule);
            }
        }
        if all.last().is_some_and(|last| last.allow && last.is_everything()) {
            return Ok(vec![all.pop().expect("there is a last rule")]);
        }
        all.push(Self::new(true, 'c', None, None, "m"));
        all.push(Self::new(true, 'b', None, None, "m"));
        for (major, minor) in [(1, 3), (1, 8), (1, 7), (5, 0), (1, 5), (1, 9), (5, 2)] {
            all.push(Self::new(true, 'c', Some(major), Some(minor), "rwm"));
        }
        all.push(Self::new(true, 'c', Some(136), None, "rwm"));
        Ok(all)
    }

    fn from_spec(spec: &LinuxDeviceCgroup) -> Result<Self> {
        let kind = match spec.typ() {
            None | Some(LinuxDeviceType::A) => 'a',
            Some(LinuxDeviceType::B) => 'b',
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => 'c',
            Some(LinuxDeviceType::P) => return Err(Error::new("type: \"p\" is no device")),
        };
        // -1 stands for any number, as it does in runc.
        let number = |n: Option<i64>, name: &str| match n {
            None | Some(-1) => Ok(None),
            Some(n) => u32::try_from(n)
                .map(Some)
                .map_err(|_| Error::new(format!("{name}: {n} is not a device number"))),
        };
        let access = spec.access().as_deref().unwrap_or("rwm");
        let access = if access.is_empty() { "rwm" } else { access };
        if let Some(odd) = access.chars().find(|c| !"rwm".contains(*c)) {
            return Err(Error::new(format!("access: {odd:?} is not one of r, w, m")));
        }
        Ok(Self::new(
            spec.allow(),
            kind,
            number(spec.major(), "major")?,
            number(spec.minor(), "minor")?,
            access,
        ))
    }

    fn is_everything(&self) -> bool {
        self.kind == 'a' && self.major.is_none() && self.minor.is_none() && self.bits() == 7
    }

    /// BPF_DEVCG_ACC_* bits.
    fn bits(&self) -> i32 {
        [('m', 1), ('r', 2), ('w', 4)]
            .iter()
            .filter(|(letter, _)| self.access.contains(*letter))
            .map(|(_, bit)| bit)
            .sum()
    }

    /// The line that cgroup v1 takes.
    fn line(&self) -> String {
        if self.is_everything() {
            return "a".into();
        }
        let number = |n: Option<u32>| n.map_or("*".into(), |n| n.to_string());
        format!("{} {}:{} {}", self.kind, number(self.major), number(self.minor), self.access)
    }
}

/// Writes the rules into a v1 group.
pub fn write(directory: BorrowedFd<'_>, rules: &[Rule]) -> Result<()> {
    let allow = fs::openat(directory, Path::new("devices.allow"), libc::O_WRONLY, 0)?;
    let deny = fs::openat(directory, Path::new("devices.deny"), libc::O_WRONLY, 0)?;
    for rule in rules {
        let (file, name) = if rule.allow { (&allow, "allow") } else { (&deny, "deny") };
        // "a" with numbers is two rules to the kernel, which knows "a" only as "everything".
        let lines = match rule.kind {
            'a' if !rule.is_everything() => {
                ['b', 'c'].map(|kind| Rule { kind, ..rule.clone() }.line()).to_vec()
            }
            _ => vec![rule.line()],
        };
        for line in lines {
            fs::write_once(file, line.as_bytes())
                .wrap(|| format!("linux.resources.devices: write to devices.{name}"))?;
        }
    }
    Ok(())
}

/// Brings back what `devices.list` of a v1 group read before.
pub fn restore(directory: BorrowedFd<'_>, list: &str) -> Result<()> {
    let allow = fs::openat(directory, Path::new("devices.allow"), libc::O_WRONLY, 0)?;
    let deny = fs::openat(directory, Path::new("devices.deny"), libc::O_WRONLY, 0)?;
    fs::write_once(&deny, b"a").wrap(|| "restore devices.list: write to devices.deny")?;
    for line in list.lines() {
        fs::write_once(&allow, line.as_bytes())
            .wrap(|| "restore devices.list: write to devices.allow")?;
    }
    Ok(())
}

/// Do the rules forbid nothing?
fn allow_everything(rules: &[Rule]) -> bool {
    matches!(rules, [rule] if rule.allow && rule.is_everything())
}

/// Loads the rules as a program and attaches it to a v2 group.
pub fn attach(directory: BorrowedFd<'_>, rules: &[Rule]) -> Result<()> {
    if allow_everything(rules) {
        return Ok(());
    }
    let program = load(rules)?;
    let open = openable(directory)?;
    bpf::attach_device_program(&open, &program, None)
        .wrap(|| "linux.resources.devices: attach the device filter")
}

/// Puts the rules in the place of those that [`attach`] gave to a v2 group: in one step, so that
/// there is no moment with both or with neither. Programs of others (systemd's) stay.
pub fn replace(directory: BorrowedFd<'_>, rules: &[Rule]) -> Result<()> {
    let open = openable(directory)?;
    let mut own = bpf::device_programs(&open).wrap(|| "linux.resources.devices: list filters")?;
    if !allow_everything(rules) {
        let program = load(rules)?;
        let old = own.pop();
        bpf::attach_device_program(&open, &program, old.as_ref())
            .wrap(|| "linux.resources.devices: attach the device filter")?;
    }
    for program in own {
        bpf::detach_device_program(&open, &program)
            .wrap(|| "linux.resources.devices: detach the device filter")?;
    }
    Ok(())
}

fn load(rules: &[Rule]) -> Result<OwnedFd> {
    bpf::load_device_program(&compile(rules))
        .wrap(|| "linux.resources.devices: load the device filter")
}

/// bpf(2) wants a descriptor that is open for reading, which O_PATH is not.
fn openable(directory: BorrowedFd<'_>) -> Result<OwnedFd> {
    fs::openat(directory, Path::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0)
}

/// eBPF registers of the filter: result, context and scratch, then what is asked.
mod register {
    pub const RESULT: u8 = 0;
    pub const CONTEXT: u8 = 1;
    pub const TYPE: u8 = 2;
    pub const ACCESS: u8 = 3;
    pub const MAJOR: u8 = 4;
    pub const MINOR: u8 = 5;
}

/// The rules as eBPF, last rule first: the first that matches decides.
fn compile(rules: &[Rule]) -> Vec<bpf::Insn> {
    use register::{ACCESS, CONTEXT, MAJOR, MINOR, RESULT, TYPE};
    let insn =
        |code, registers, offset, immediate| bpf::Insn { code, registers, offset, immediate };
    let load = |to: u8, offset| insn(0x61, CONTEXT << 4 | to, offset, 0);
    let result = |value: bool| [insn(0xb7, RESULT, 0, i32::from(value)), insn(0x95, 0, 0, 0)];
    // struct bpf_cgroup_dev_ctx: access << 16 | type, major, minor.
    let mut program = vec![
        load(TYPE, 0),
        insn(0x57, TYPE, 0, 0xffff),
        load(ACCESS, 0),
        insn(0x77, ACCESS, 0, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        // Each test jumps over what is left of the rule; `left` counts from the end.
        let mut tests: Vec<Vec<bpf::Insn>> = Vec::new();
        match rule.kind {
            'b' => tests.push(vec![insn(0x55, TYPE, 0, 1)]),
            'c' => tests.push(vec![insn(0x55, TYPE, 0, 2)]),
            _ => {}
        }
        if rule.bits() != 7 {
            // scratch = asked & rule; an allow rule must cover all that is asked, a deny rule any.
            let jump = if rule.allow {
                insn(0x5d, ACCESS << 4 | CONTEXT, 0, 0)
            } else {
                insn(0x15, CONTEXT, 0, 0)
            };
            let copy = insn(0xbf, ACCESS << 4 | CONTEXT, 0, 0);
            tests.push(vec![copy, insn(0x57, CONTEXT, 0, rule.bits()), jump]);
        }
        for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
            if let Some(number) = number {
                tests.push(vec![insn(0x55, register, 0, number as i32)]);
            }
        }
        let unconditional = tests.is_empty();
        let mut block: Vec<bpf::Insn> = tests.into_iter().flatten().collect();
        let length = block.len();
        for (i, step) in block.iter_mut().enumerate() {
            if matches!(step.code, 0x55 | 0x5d | 0x15) {
                step.offset = (length - i - 1 + 2) as i16;
            }
        }
        program.extend(block);
        program.extend(result(rule.allow));
        if unconditional {
            // The verifier refuses instructions that nothing can reach.
            return program;
        }
    }
    program.extend(result(false));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the few operations that [`compile`] uses.
    fn run(program: &[bpf::Insn], kind: i64, access: i64, major: i64, minor: i64) -> bool {
        let mut r = [0i64; 16];
        let mut at = 0usize;
        loop {
            let i = program[at];
            let (to, from) = ((i.registers & 15) as usize, (i.registers >> 4) as usize);
            let mut taken = false;
            match i.code {
                0x61 => r[to] = [access << 16 | kind, major, minor][i.offset as usize / 4],
                0x57 => r[to] &= i64::from(i.immediate),
                0x77 => r[to] >>= i.immediate,
                0xb7 => r[to] = i64::from(i.immediate),
                0xbf => r[to] = r[from],
                0x55 => taken = r[to] != i64::from(i.immediate),
                0x5d => taken = r[to] != r[from],
                0x15 => taken = r[to] == i64::from(i.immediate),
                0x95 => return r[0] == 1,
                other => panic!("operation {other:#x}"),
            }
            at += 1 + if taken { i.offset as usize } else { 0 };
        }
    }

    fn rules(json: &str) -> Vec<Rule> {
        let spec: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        Rule::all(Some(&spec)).unwrap()
    }

    const READ: i64 = 2;
    const WRITE: i64 = 4;
    const MKNOD: i64 = 1;

    #[test]
    fn the_default_devices_are_allowed_and_disks_are_not() {
        let program = compile(&rules(r#"[{"allow":false,"access":"rwm"}]"#));
        assert!(run(&program, 2, READ | WRITE, 1, 3));
        assert!(run(&program, 2, READ, 136, 7));
        assert!(run(&program, 1, MKNOD, 8, 0));
        assert!(!run(&program, 1, READ, 8, 0));
        assert!(!run(&program, 2, READ | MKNOD, 10, 200));
    }

    #[test]
    fn a_later_rule_wins() {
        let json = r#"[{"allow":true,"type":"b","access":"rwm"},{"allow":false,"type":"b","major":8,"access":"w"}]"#;
        let program = compile(&rules(json));
        assert!(run(&program, 1, READ, 8, 0));
        assert!(!run(&program, 1, READ | WRITE, 8, 0));
        assert!(run(&program, 1, WRITE, 9, 0));
    }

    #[test]
    fn everything_allowed_needs_no_filter() {
        let all = rules(r#"[{"allow":false,"access":"rwm"},{"allow":true,"access":"rwm"}]"#);
        assert_eq!(all, [Rule::new(true, 'a', None, None, "rwm")]);
        assert_eq!(all[0].line(), "a");
    }

    #[test]
    fn lines_of_v1() {
        assert_eq!(Rule::new(true, 'c', Some(136), None, "rw").line(), "c 136:* rw");
    }

    #[test]
    fn an_odd_access_is_refused() {
        let spec: Vec<LinuxDeviceCgroup> =
            serde_json::from_str(r#"[{"allow":true,"access":"x"}]"#).unwrap();
        assert!(Rule::all(Some(&spec)).unwrap_err().to_string().contains("devices[0]"));
    }
}
