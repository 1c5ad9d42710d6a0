//! `linux.seccomp` as data, checked: what is the same for every ABI.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};

use super::arch::Abi;
use super::rule::{Compare, Rule};
use super::table::Row;
use super::{
    Error, FLAG_LOG, FLAG_NEW_LISTENER, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE_RECV, HANDSHAKE,
};

const EPERM: u32 = 1;
/// What calls get that are newer than the profile.
pub(super) const ENOSYS: u32 = 38;
/// The kernel's `MAX_ERRNO`.
const MAX_ERRNO: u32 = 4095;
/// Arguments of a system call.
const ARGUMENTS: usize = 6;

/// A checked profile.
pub(super) struct Profile {
    /// The native ABI, then the others that the profile names, each once.
    pub abis: Vec<&'static Abi>,
    /// `SECCOMP_RET_*` for calls without a rule.
    pub default: u32,
    default_action: Action,
    pub rules: Vec<Rule>,
    /// Every known name, in the profile's order.
    pub calls: Vec<Call>,
    pub flags: u32,
    pub notify: bool,
    pub newer_get_enosys: bool,
    pub unknown: Vec<String>,
    actions: Vec<(Action, u32, usize)>,
}

/// One name of the profile with its rules: a range of [`Profile::rules`], empty where the rules say
/// no more than the default action.
pub(super) struct Call {
    pub row: Row,
    pub rules: std::ops::Range<usize>,
}

impl Profile {
    /// Checks `seccomp` and takes it apart.
    pub fn read(seccomp: &LinuxSeccomp, native: Arch) -> Result<Profile, Error> {
        let errno = seccomp.default_errno_ret();
        let default_action = seccomp.default_action();
        if default_action == Action::ScmpActNotify {
            let problem = "SCMP_ACT_NOTIFY would hold up every call, those that start the \
                           container too; name the calls to be notified in syscalls";
            return Err(Error::new(".defaultAction", problem));
        }
        let syscalls = seccomp.syscalls().as_deref().unwrap_or_default();
        let notify = syscalls.iter().any(|set| set.action() == Action::ScmpActNotify);
        let mut profile = Profile {
            abis: abis(seccomp, native)?,
            default: returned(default_action, errno, ".defaultErrnoRet")?,
            default_action,
            rules: Vec::with_capacity(syscalls.len()),
            calls: Vec::with_capacity(512),
            flags: flags(seccomp, notify)?,
            notify,
            newer_get_enosys: newer_get_enosys(default_action, errno),
            unknown: Vec::new(),
            actions: Vec::new(),
        };
        for (index, set) in syscalls.iter().enumerate() {
            profile.add(index, set)?;
        }
        Ok(profile)
    }

    fn add(&mut self, index: usize, set: &LinuxSyscall) -> Result<(), Error> {
        let at = format_args!(".syscalls[{index}]");
        let action = returned(set.action(), set.errno_ret(), &format!("{at}.errnoRet"))?;
        let args = set.args().as_deref().unwrap_or_default();
        let compares = compares(args, index)?;
        let start = self.rules.len();
        // Saying again what holds by default changes nothing, not even for rules that overlap.
        if action != self.default {
            self.rules.extend(rules(compares, action, index));
        }
        let rules = start..self.rules.len();
        let known = self.calls.len();
        for (at, name) in set.names().iter().enumerate() {
            check_name(name, set.action(), index, at)?;
            match Row::find(name) {
                Some(row) => self.calls.push(Call { row, rules: rules.clone() }),
                None => self.unknown.push(name.clone()),
            }
        }
        self.count(set.action(), action, self.calls.len() - known);
        Ok(())
    }

    fn count(&mut self, action: Action, value: u32, names: usize) {
        match self.actions.iter_mut().find(|(_, known, _)| *known == value) {
            Some((_, _, count)) => *count += names,
            None => self.actions.push((action, value, names)),
        }
    }

    /// Known names given to each action.
    pub fn actions(&self) -> Vec<(String, usize)> {
        self.actions.iter().map(|(action, value, count)| (shown(*action, *value), *count)).collect()
    }

    /// The default action in words.
    pub fn default_name(&self) -> String {
        shown(self.default_action, self.default)
    }
}

/// An action as `runtime plan` shows it: `SCMP_ACT_ERRNO(38)`.
fn shown(action: Action, value: u32) -> String {
    match action {
        Action::ScmpActErrno | Action::ScmpActTrace => format!("{action}({})", value & 0xffff),
        _ => action.to_string(),
    }
}

fn check_name(name: &str, action: Action, index: usize, at: usize) -> Result<(), Error> {
    let path = || format!(".syscalls[{index}].names[{at}]");
    if name.is_empty() {
        return Err(Error::new(path(), "empty: a system call has a name"));
    }
    if action == Action::ScmpActNotify && HANDSHAKE.contains(&name) {
        let problem = format!(
            "SCMP_ACT_NOTIFY on {name} would hold up the process that must first hand over the \
             listener; take {name} out of this rule"
        );
        return Err(Error::new(path(), problem));
    }
    Ok(())
}

/// `SECCOMP_RET_*` of an action, with `errno` in its data where it has any.
fn returned(action: Action, errno: Option<u32>, path: &str) -> Result<u32, Error> {
    let limit = match action {
        Action::ScmpActErrno => MAX_ERRNO,
        Action::ScmpActTrace => 0xffff,
        _ if errno.is_none() => 0,
        _ => {
            return Err(Error::new(path, format!("{action} returns no error number; remove this")));
        }
    };
    match errno {
        Some(number) if number > limit => {
            Err(Error::new(path, format!("{number} is above {limit}, the largest for {action}")))
        }
        _ => Ok(action.as_u32(Some(errno.unwrap_or(EPERM)))),
    }
}

/// Whether calls newer than the newest named one get `ENOSYS`: where the default action is to
/// refuse, and with another error. Programs take `ENOSYS` for an older kernel and `EPERM` for
/// a failure. A tracer, for its part, answers for itself.
fn newer_get_enosys(default: Action, errno: Option<u32>) -> bool {
    use Action::*;
    !matches!(default, ScmpActAllow | ScmpActLog | ScmpActTrace) && errno != Some(ENOSYS)
}

fn flags(seccomp: &LinuxSeccomp, notify: bool) -> Result<u32, Error> {
    let listener = if notify { FLAG_NEW_LISTENER } else { 0 };
    let Some(named) = seccomp.flags() else {
        return Ok(FLAG_SPEC_ALLOW | listener);
    };
    let mut flags = listener;
    for (index, flag) in named.iter().enumerate() {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notify => {
                FLAG_WAIT_KILLABLE_RECV
            }
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                let problem = format!("{flag} is about SCMP_ACT_NOTIFY, which no rule has");
                return Err(Error::new(format_args!(".flags[{index}]"), problem));
            }
        };
    }
    Ok(flags)
}

fn abis(seccomp: &LinuxSeccomp, native: Arch) -> Result<Vec<&'static Abi>, Error> {
    let native = Abi::of(Arch::ScmpArchNative, native);
    let mut abis = vec![native];
    for (index, arch) in seccomp.architectures().iter().flatten().enumerate() {
        let abi = Abi::of(*arch, native.arch);
        if abi.is_big_endian() != native.is_big_endian() {
            let problem = format!(
                "{arch} has another byte order than {}, the native architecture",
                native.arch
            );
            return Err(Error::new(format_args!(".architectures[{index}]"), problem));
        }
        if !abis.contains(&abi) {
            abis.push(abi);
        }
    }
    Ok(abis)
}

fn compares(args: &[LinuxSeccompArg], index: usize) -> Result<Vec<Compare>, Error> {
    args.iter()
        .enumerate()
        .map(|(at, arg)| {
            compare(arg).ok_or_else(|| {
                let problem =
                    format!("{}: a system call has arguments 0 to {}", arg.index(), ARGUMENTS - 1);
                Error::new(format_args!(".syscalls[{index}].args[{at}].index"), problem)
            })
        })
        .collect()
}

/// `None` if there is no such argument. A masked comparison has its mask in `value`.
fn compare(arg: &LinuxSeccompArg) -> Option<Compare> {
    let (value, mask) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (arg.value_two().unwrap_or(0) & arg.value(), arg.value())
        }
        _ => (arg.value(), u64::MAX),
    };
    let index = u8::try_from(arg.index()).ok().filter(|index| usize::from(*index) < ARGUMENTS)?;
    Some(Compare { arg: index, op: arg.op(), value, mask })
}

/// All comparisons must hold; but if two are about one argument, any of them alone suffices.
fn rules(mut compares: Vec<Compare>, action: u32, origin: usize) -> Vec<Rule> {
    let mut seen = [false; ARGUMENTS];
    let twice =
        compares.iter().any(|compare| std::mem::replace(&mut seen[usize::from(compare.arg)], true));
    if twice {
        return compares
            .into_iter()
            .map(|compare| Rule { compares: vec![compare], action, origin })
            .collect();
    }
    compares.sort_by_key(|compare| compare.arg);
    vec![Rule { compares, action, origin }]
}
