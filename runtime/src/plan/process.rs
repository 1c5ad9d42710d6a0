//! `process`, and those properties of `linux` that hold for the process: what `exec` needs too.

use super::Options;
use super::annotations::Annotations;
use crate::caps::Capabilities;
use crate::error::{Error, Result};
use crate::sys::sched::SchedAttr;
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxPersonalityDomain, MemoryPolicyFlagType, MemoryPolicyModeType,
    PosixRlimitType, Scheduler,
};
use serde::Serialize;
use std::collections::HashMap;
use std::path::PathBuf;

/// A program and what it may do.
#[derive(Debug, Clone, Serialize)]
pub struct Process {
    /// argv.
    pub args: Vec<String>,
    /// `NAME=value`, each name once.
    pub env: Vec<String>,
    /// Absolute path inside.
    pub cwd: PathBuf,
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Additional group ids inside.
    pub groups: Vec<u32>,
    /// The caller's groups stay instead (`run.oci.keep_original_groups`).
    pub keep_groups: bool,
    /// File creation mask; the runtime's own if none.
    pub umask: Option<u32>,
    /// The five capability sets.
    pub capabilities: Capabilities,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// /proc/PID/oom_score_adj, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Stdio is a new terminal.
    pub terminal: bool,
    /// Its size: rows, columns.
    pub console_size: Option<(u16, u16)>,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// SELinux context.
    pub selinux: Option<String>,
    /// sched_setattr(2).
    pub scheduler: Option<SchedAttr>,
    /// ioprio_set(2): class and priority.
    pub io_priority: Option<(i32, i32)>,
    /// personality(2).
    pub personality: Option<u64>,
    /// set_mempolicy(2): mode with flags, and the node mask.
    pub memory_policy: Option<(i32, Vec<u64>)>,
    /// CPUs before a process of `exec` enters the container's cgroup, and once it is in there.
    pub affinity: (Option<Vec<u64>>, Option<Vec<u64>>),
}

/// One resource limit (getrlimit(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rlimit {
    /// `RLIMIT_…`.
    pub name: String,
    /// Its number.
    #[serde(skip)]
    pub resource: u32,
    /// In force.
    pub soft: u64,
    /// The highest that the soft one can be raised to.
    pub hard: u64,
}

impl Process {
    /// Checks `process`.
    pub fn new(
        process: &oci_spec::runtime::Process,
        linux: &Linux,
        heeded: &Annotations,
        options: Options,
    ) -> Result<Self> {
        let args = process.args().clone().unwrap_or_default();
        if args.first().is_none_or(String::is_empty) {
            return Err(Error::new("args: is empty; name the program to run"));
        }
        if !process.cwd().is_absolute() {
            return Err(Error::new(format!("cwd: {:?} is not an absolute path", process.cwd())));
        }
        let user = process.user();
        let mut ids = vec![("uid", user.uid()), ("gid", user.gid())];
        ids.extend(user.additional_gids().iter().flatten().map(|gid| ("additionalGids", *gid)));
        if let Some((what, id)) = ids.into_iter().find(|(_, id)| *id == u32::MAX) {
            // To setresuid(2) and its kin it means "stay who you are": root.
            return Err(Error::new(format!("user.{what}: {id} is no id (credentials(7))")));
        }
        let terminal = process.terminal().unwrap_or(false);
        Ok(Self {
            args,
            env: environment(process.env().as_deref().unwrap_or_default(), options.listen_fds)?,
            cwd: process.cwd().clone(),
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            keep_groups: heeded.keep_groups,
            umask: umask(user.umask())?,
            capabilities: Capabilities::new(process.capabilities().as_ref())
                .map_err(|e| e.wrap("capabilities"))?,
            rlimits: rlimits(process)?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: oom_score_adj(process.oom_score_adj())?,
            terminal,
            console_size: console_size(process)?,
            apparmor: process.apparmor_profile().clone().filter(|p| !p.is_empty()),
            selinux: process.selinux_label().clone().filter(|l| !l.is_empty()),
            scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
            io_priority: process.io_priority().as_ref().map(|io| {
                let class = match io.class() {
                    IOPriorityClass::IoprioClassRt => 1,
                    IOPriorityClass::IoprioClassBe => 2,
                    IOPriorityClass::IoprioClassIdle => 3,
                };
                (class, io.priority() as i32)
            }),
            personality: personality(linux)?,
            memory_policy: memory_policy(linux)?,
            affinity: affinity(process)?,
        })
    }
}

/// Each variable once, the last one winning, in the order of first appearance.
///
/// An entry without `=` is refused: passed on, it would be invisible to getenv(3), and a
/// caller that looks it up in its own environment leaks the host's.
pub fn environment(env: &[String], listen_fds: u32) -> Result<Vec<String>> {
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(env.len());
    let mut all: Vec<String> = Vec::with_capacity(env.len() + 2);
    for (i, entry) in env.iter().enumerate() {
        let name = match entry.split_once('=') {
            Some((name, _)) if !name.is_empty() => name,
            _ => return Err(Error::new(format!("env[{i}]: {entry:?} is not NAME=value"))),
        };
        if entry.contains('\0') {
            return Err(Error::new(format!("env[{i}]: {entry:?} contains a NUL byte")));
        }
        match places.get(name) {
            Some(&place) => all[place].clone_from(entry),
            None => {
                places.insert(name, all.len());
                all.push(entry.clone());
            }
        }
    }
    if listen_fds > 0 {
        all.push(format!("LISTEN_FDS={listen_fds}"));
        all.push("LISTEN_PID=1".into());
    }
    Ok(all)
}

/// Rows and columns, which the kernel counts in 16 bits (struct winsize).
fn console_size(process: &oci_spec::runtime::Process) -> Result<Option<(u16, u16)>> {
    let Some(size) = process.console_size() else { return Ok(None) };
    let cut = |n: u64, name: &str| {
        u16::try_from(n)
            .map_err(|_| Error::new(format!("consoleSize.{name}: {n} is larger than 65535")))
    };
    Ok(Some((cut(size.height(), "height")?, cut(size.width(), "width")?)))
}

fn umask(mask: Option<u32>) -> Result<Option<u32>> {
    match mask {
        Some(mask) if mask > 0o777 => {
            Err(Error::new(format!("user.umask: {mask:#o} is larger than 0o777")))
        }
        mask => Ok(mask),
    }
}

fn oom_score_adj(value: Option<i32>) -> Result<Option<i32>> {
    match value {
        Some(value) if !(-1000..=1000).contains(&value) => {
            Err(Error::new(format!("oomScoreAdj: {value} is not between -1000 and 1000")))
        }
        value => Ok(value),
    }
}

fn rlimits(process: &oci_spec::runtime::Process) -> Result<Vec<Rlimit>> {
    let mut all: Vec<Rlimit> = Vec::new();
    for (i, limit) in process.rlimits().iter().flatten().enumerate() {
        let (name, resource) = rlimit_number(limit.typ());
        let wrong = |why: String| Error::new(format!("rlimits[{i}]: {name}: {why}"));
        if all.iter().any(|l| l.resource == resource) {
            return Err(wrong("appears twice".into()));
        }
        if limit.soft() > limit.hard() {
            return Err(wrong(format!("soft {} is above hard {}", limit.soft(), limit.hard())));
        }
        all.push(Rlimit { name: name.into(), resource, soft: limit.soft(), hard: limit.hard() });
    }
    Ok(all)
}

fn rlimit_number(kind: PosixRlimitType) -> (&'static str, u32) {
    use PosixRlimitType as T;
    let (name, number) = match kind {
        T::RlimitCpu => ("RLIMIT_CPU", libc::RLIMIT_CPU),
        T::RlimitFsize => ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
        T::RlimitData => ("RLIMIT_DATA", libc::RLIMIT_DATA),
        T::RlimitStack => ("RLIMIT_STACK", libc::RLIMIT_STACK),
        T::RlimitCore => ("RLIMIT_CORE", libc::RLIMIT_CORE),
        T::RlimitRss => ("RLIMIT_RSS", libc::RLIMIT_RSS),
        T::RlimitNproc => ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
        T::RlimitNofile => ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
        T::RlimitMemlock => ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
        T::RlimitAs => ("RLIMIT_AS", libc::RLIMIT_AS),
        T::RlimitLocks => ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
        T::RlimitSigpending => ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
        T::RlimitMsgqueue => ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
        T::RlimitNice => ("RLIMIT_NICE", libc::RLIMIT_NICE),
        T::RlimitRtprio => ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
        T::RlimitRttime => ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
    };
    #[allow(clippy::unnecessary_cast)] // the constants' type differs between C libraries
    (name, number as u32)
}

fn scheduler(spec: &Scheduler) -> Result<SchedAttr> {
    use oci_spec::runtime::{LinuxSchedulerFlag as F, LinuxSchedulerPolicy as P};
    let policy = match spec.policy() {
        P::SchedOther => 0,
        P::SchedFifo => 1,
        P::SchedRr => 2,
        P::SchedBatch => 3,
        P::SchedIso => {
            return Err(Error::new("scheduler.policy: Linux does not implement SCHED_ISO"));
        }
        P::SchedIdle => 5,
        P::SchedDeadline => 6,
    };
    let flags = spec.flags().iter().flatten().fold(0, |all, flag| {
        all | match flag {
            F::SchedResetOnFork => 0x01,
            F::SchedFlagReclaim => 0x02,
            F::SchedFlagDLOverrun => 0x04,
            F::SchedFlagKeepPolicy => 0x08,
            F::SchedFlagKeepParams => 0x10,
            F::SchedFlagUtilClampMin => 0x20,
            F::SchedFlagUtilClampMax => 0x40,
        }
    });
    Ok(SchedAttr {
        policy,
        flags,
        nice: spec.nice().unwrap_or(0),
        priority: u32::try_from(spec.priority().unwrap_or(0))
            .map_err(|_| Error::new("scheduler.priority: is negative"))?,
        runtime: spec.runtime().unwrap_or(0),
        deadline: spec.deadline().unwrap_or(0),
        period: spec.period().unwrap_or(0),
        ..SchedAttr::default()
    })
}

fn personality(linux: &Linux) -> Result<Option<u64>> {
    let Some(personality) = linux.personality() else { return Ok(None) };
    if personality.flags().as_ref().is_some_and(|f| !f.is_empty()) {
        return Err(super::unsupported(
            "linux.personality.flags",
            "the specification defines no flag",
        ));
    }
    Ok(Some(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

fn memory_policy(linux: &Linux) -> Result<Option<(i32, Vec<u64>)>> {
    use MemoryPolicyModeType as M;
    let Some(policy) = linux.memory_policy() else { return Ok(None) };
    let mode = match policy.mode() {
        M::MpolDefault => 0,
        M::MpolPreferred => 1,
        M::MpolBind => 2,
        M::MpolInterleave => 3,
        M::MpolLocal => 4,
        M::MpolPreferredMany => 5,
        M::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().fold(0, |all, flag| {
        all | match flag {
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        }
    });
    let nodes = match policy.nodes().as_deref() {
        None | Some("") => Vec::new(),
        Some(list) => bit_list(list).map_err(|e| e.wrap("linux.memoryPolicy.nodes"))?,
    };
    Ok(Some((mode | flags, nodes)))
}

type Affinity = (Option<Vec<u64>>, Option<Vec<u64>>);

fn affinity(process: &oci_spec::runtime::Process) -> Result<Affinity> {
    let Some(affinity) = process.exec_cpu_affinity() else { return Ok((None, None)) };
    let parse = |list: &Option<String>, name: &str| match list.as_deref() {
        None | Some("") => Ok(None),
        Some(list) => {
            bit_list(list).map(Some).map_err(|e| e.wrap(format!("execCPUAffinity.{name}")))
        }
    };
    Ok((parse(affinity.initial(), "initial")?, parse(affinity.cpu_affinity_final(), "final")?))
}

/// A list of numbers and ranges such as `0-3,7` as a bit mask in 64-bit words (cpuset(7)).
pub fn bit_list(list: &str) -> Result<Vec<u64>> {
    let wrong = || Error::new(format!("{list:?} is not a list such as \"0-3,7\""));
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.parse().map_err(|_| wrong())?;
        let last: usize = last.parse().map_err(|_| wrong())?;
        if first > last || last >= 8192 {
            return Err(wrong());
        }
        for bit in first..=last {
            if mask.len() <= bit / 64 {
                mask.resize(bit / 64 + 1, 0);
            }
            mask[bit / 64] |= 1 << (bit % 64);
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<Process> {
        let linux = serde_json::from_str("{}").unwrap();
        let heeded = Annotations::default();
        Process::new(&serde_json::from_str(json).unwrap(), &linux, &heeded, Options::default())
    }

    #[test]
    fn the_last_of_equal_variables_wins() {
        let env = ["A=1", "B=2", "A=3"].map(String::from);
        assert_eq!(environment(&env, 0).unwrap(), ["A=3", "B=2"]);
        assert!(environment(&["X".into()], 0).unwrap_err().to_string().contains("env[0]"));
    }

    #[test]
    fn activation_descriptors_are_announced() {
        assert_eq!(environment(&[], 2).unwrap(), ["LISTEN_FDS=2", "LISTEN_PID=1"]);
    }

    #[test]
    fn errors_name_the_property() {
        let user = r#""user":{"uid":0,"gid":0}"#;
        for (json, part) in [
            (format!(r#"{{{user},"cwd":"/","args":[]}}"#), "args"),
            (format!(r#"{{{user},"cwd":"x","args":["a"]}}"#), "cwd"),
            (format!(r#"{{{user},"cwd":"/","args":["a"],"oomScoreAdj":1001}}"#), "oomScoreAdj"),
            (
                format!(
                    r#"{{{user},"cwd":"/","args":["a"],"consoleSize":{{"height":65536,"width":1}}}}"#
                ),
                "consoleSize.height",
            ),
            (
                format!(
                    r#"{{{user},"cwd":"/","args":["a"],"rlimits":[{{"type":"RLIMIT_CPU","soft":2,"hard":1}}]}}"#
                ),
                "rlimits[0]",
            ),
        ] {
            let e = plan(&json).unwrap_err().to_string();
            assert!(e.contains(part), "{json}: {e}");
        }
    }

    #[test]
    fn lists_become_masks() {
        assert_eq!(bit_list("0-2,65").unwrap(), [7, 2]);
        assert!(bit_list("3-1").is_err());
        assert!(bit_list("a").is_err());
    }
}
