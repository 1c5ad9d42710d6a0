//! From names to numbers: what each call of each ABI gets, as ranges of call numbers.

use oci_spec::runtime::{Arch, LinuxSeccompOperator};

use super::Error;
use super::arch::{Abi, X32_BIT};
use super::profile::{ENOSYS, Profile};
use super::rule::{Compare, Rule, Verdict, settle};
use super::table::Row;

/// What libseccomp answers to calls of an ABI that the profile does not name.
pub(super) const BAD_ARCHITECTURE: u32 = 0; // SECCOMP_RET_KILL_THREAD
const RETURN_ENOSYS: u32 = 0x0005_0000 | ENOSYS;

/// The number that a tracer puts in place of a call to skip it.
const SKIPPED: u32 = u32::MAX;

/// All calls of one audit token.
#[derive(Debug)]
pub(super) struct Table {
    pub audit: u32,
    /// From each number to the next one, all with the same answer; the first number is 0.
    pub ranges: Vec<(u32, Leaf)>,
}

/// The answer to one range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    Return(u32),
    /// Asks the arguments of a call of this ABI.
    Ask(&'static Abi, Vec<Rule>),
}

/// One table for each audit token, the native one first.
pub(super) fn tables(profile: &Profile) -> Result<Vec<Table>, Error> {
    let mut tables: Vec<Table> = Vec::with_capacity(profile.abis.len());
    for abi in &profile.abis {
        if tables.iter().any(|table| table.audit == abi.audit) {
            continue;
        }
        let ranges = if abi.audit == Arch::ScmpArchX86_64 as u32 {
            both_of_x86_64(profile)?
        } else {
            let mut ranges = Ranges::default();
            Calls::of(profile, abi)?.write(profile, &mut ranges, 0, u32::MAX);
            ranges
        };
        tables.push(Table { audit: abi.audit, ranges: ranges.0 });
    }
    Ok(tables)
}

/// X86_64 and X32 share an audit token, and bit 30 tells them apart. runc asks for that bit alone,
/// libseccomp whether the number is below it; hence what numbers from 2^31 get.
fn both_of_x86_64(profile: &Profile) -> Result<Ranges, Error> {
    let find = |arch| profile.abis.iter().find(|abi| abi.arch == arch);
    let calls = |arch| find(arch).map(|abi| Calls::of(profile, abi)).transpose();
    let (wide, x32) = (calls(Arch::ScmpArchX86_64)?, calls(Arch::ScmpArchX32)?);
    let mut ranges = Ranges::default();
    // libseccomp sorts out foreign numbers only where it knows of one kind.
    let other = if x32.is_some() { profile.default } else { BAD_ARCHITECTURE };
    for (half, start) in [(&wide, 0), (&x32, X32_BIT)] {
        match half {
            Some(calls) => calls.write(profile, &mut ranges, start, start + (X32_BIT - 1)),
            None => ranges.push(start, Leaf::Return(BAD_ARCHITECTURE)),
        }
    }
    for (half, start) in [(&wide, 2 * X32_BIT), (&x32, 3 * X32_BIT)] {
        let newer = half.as_ref().and_then(|calls| calls.newer(profile));
        ranges.push(start, Leaf::Return(newer.unwrap_or(other)));
    }
    if x32.is_none() {
        ranges.push(SKIPPED, Leaf::Return(profile.default));
    }
    Ok(ranges)
}

/// The calls of one ABI that have rules.
struct Calls {
    /// By number.
    verdicts: Vec<(u32, Leaf)>,
    /// The largest number that the profile names, if any is above 0.
    newest: Option<u32>,
    /// Number 0 stands for all large numbers that the kernel does not know (s390's `setup`).
    zero_is_unknown: bool,
}

/// A rule on a call: number, rule, which sub-call of a multiplexer it is about (0: none). Sorted by
/// number, and for one number in the profile's order.
type Entry = (u32, usize, u32);

impl Calls {
    fn of(profile: &Profile, abi: &'static Abi) -> Result<Calls, Error> {
        let mut entries: Vec<Entry> = Vec::with_capacity(profile.calls.len());
        let mut newest = 0;
        for call in &profile.calls {
            let number = abi.number(&call.row);
            let through = if abi.multiplexed { multiplexer(call.row.name()) } else { None };
            if through.is_none() {
                newest = newest.max(number.unwrap_or(0));
            }
            for rule in call.rules.clone() {
                let through = through
                    .and_then(|(name, sub)| Some((abi.number(&Row::find(name)?)?, rule, sub)));
                entries.extend(through);
                entries.extend(number.map(|number| (number, rule, 0)));
            }
        }
        entries.sort_unstable();
        let verdicts = entries
            .chunk_by(|a, b| a.0 == b.0)
            .map(|entries| Ok((entries[0].0, verdict(profile, abi, entries)?)))
            .collect::<Result<_, Error>>()?;
        Ok(Calls {
            verdicts,
            newest: (newest > 0).then_some(newest),
            zero_is_unknown: matches!(abi.arch, Arch::ScmpArchS390 | Arch::ScmpArchS390x),
        })
    }

    /// What calls get that are newer than the profile, if not the default.
    fn newer(&self, profile: &Profile) -> Option<u32> {
        (profile.newer_get_enosys && self.newest.is_some()).then_some(RETURN_ENOSYS)
    }

    /// Appends the answers to the numbers from `first` to `last`.
    fn write(&self, profile: &Profile, ranges: &mut Ranges, first: u32, last: u32) {
        let newer = self.newer(profile);
        let newest = self.newest.filter(|_| newer.is_some()).unwrap_or(last);
        ranges.push(first, Leaf::Return(profile.default));
        if let Some(newer) = newer.filter(|_| self.zero_is_unknown) {
            ranges.push(0, Leaf::Return(newer));
            ranges.push(1, Leaf::Return(profile.default));
        }
        let known = self.verdicts.iter().filter(|(number, _)| *number <= newest);
        for (number, leaf) in known {
            if *number == 0 && self.zero_is_unknown && newer.is_some() {
                continue;
            }
            ranges.push(*number, leaf.clone());
            if *number < last {
                ranges.push(number + 1, Leaf::Return(profile.default));
            }
        }
        if let Some(newer) = newer.filter(|_| newest < last) {
            ranges.push(newest + 1, Leaf::Return(newer));
        }
    }
}

/// Settles what one call gets.
fn verdict(profile: &Profile, abi: &'static Abi, entries: &[Entry]) -> Result<Leaf, Error> {
    // Most calls have one rule, and no arguments.
    if let [(_, rule, 0)] = entries
        && profile.rules[*rule].compares.is_empty()
    {
        return Ok(Leaf::Return(profile.rules[*rule].action));
    }
    let rules = entries.iter().map(|(_, rule, sub)| {
        let mut rule = profile.rules[*rule].seen_by(abi);
        if *sub != 0 {
            through_multiplexer(&mut rule, *sub);
        }
        rule
    });
    match settle(rules) {
        Ok(Verdict::Always(action)) => Ok(Leaf::Return(action)),
        Ok(Verdict::First(rules)) => Ok(Leaf::Ask(abi, rules)),
        Err(conflict) => {
            let problem = format!(
                "for call {} of {} this takes back what linux.seccomp.syscalls[{}] says of some of \
                 its arguments; give one action to the same arguments",
                entries[0].0, abi.arch, conflict.earlier
            );
            Err(Error::new(format_args!(".syscalls[{}]", conflict.later), problem))
        }
    }
}

/// A multiplexer's first argument is the sub-call, in the place of whatever was asked of it.
fn through_multiplexer(rule: &mut Rule, sub: u32) {
    rule.compares.retain(|compare| compare.arg != 0);
    let op = LinuxSeccompOperator::ScmpCmpEq;
    let compare = Compare { arg: 0, op, value: u64::from(sub), mask: u64::MAX };
    rule.compares.insert(0, compare);
}

/// The multiplexer by which older ABIs make a call, and the sub-call's number there
/// (`SYS_*` of linux/net.h, linux/ipc.h).
fn multiplexer(name: &str) -> Option<(&'static str, u32)> {
    const SOCKET: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u32); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    if let Some(at) = SOCKET.iter().position(|known| *known == name) {
        return Some(("socketcall", at as u32 + 1));
    }
    IPC.iter().find(|(known, _)| *known == name).map(|(_, sub)| ("ipc", *sub))
}

/// Ranges in ascending order, neighbours with the same answer joined.
#[derive(Default)]
struct Ranges(Vec<(u32, Leaf)>);

impl Ranges {
    fn push(&mut self, start: u32, leaf: Leaf) {
        if self.0.last().is_some_and(|last| last.0 == start) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|last| last.1 != leaf) {
            self.0.push((start, leaf));
        }
    }
}
