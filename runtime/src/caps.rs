//! Capabilities (capabilities(7)): names, masks, and giving them up.

use crate::error::{Context, Error, Result};
use crate::sys::process as sys;
use oci_spec::runtime::LinuxCapabilities;
use serde::{Serialize, Serializer};

/// Names without `CAP_`, in the order of their numbers (linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The names of all capabilities that this version knows, with `CAP_`.
pub fn names() -> impl Iterator<Item = String> {
    NAMES.iter().map(|n| format!("CAP_{n}"))
}

/// A set of capabilities as a bit mask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Set(pub u64);

impl Set {
    /// The capability `name`, with or without `CAP_`, in any case.
    pub fn named(name: &str) -> Result<Self> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match NAMES.iter().position(|n| *n == bare) {
            Some(bit) => Ok(Self(1 << bit)),
            None => Err(Error::new(format!("unknown capability {name:?} (see capabilities(7))"))),
        }
    }

    /// The names in the set, with `CAP_`.
    pub fn names(self) -> Vec<String> {
        let held = |bit: &usize| self.0 & (1 << bit) != 0;
        (0..NAMES.len()).filter(held).map(|bit| format!("CAP_{}", NAMES[bit])).collect()
    }

    fn from_spec(set: &Option<oci_spec::runtime::Capabilities>) -> Result<Self> {
        set.iter().flatten().try_fold(Self(0), |all, capability| {
            Ok(Self(all.0 | Self::named(&capability.to_string())?.0))
        })
    }
}

impl Serialize for Set {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

/// The five sets of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// The limit of what execve(2) can give.
    pub bounding: Set,
    /// In force.
    pub effective: Set,
    /// Kept across execve(2) of files that have inheritable capabilities.
    pub inheritable: Set,
    /// May be put in force.
    pub permitted: Set,
    /// Kept across execve(2) of ordinary files.
    pub ambient: Set,
}

impl Capabilities {
    /// The sets of a configuration. Without a `capabilities` object there are none.
    ///
    /// Ambient capabilities are cut to those both permitted and inheritable, as the kernel demands
    /// (prctl(2), PR_CAP_AMBIENT_RAISE).
    pub fn new(spec: Option<&LinuxCapabilities>) -> Result<Self> {
        let Some(spec) = spec else { return Ok(Self::default()) };
        let mut sets = Self {
            bounding: Set::from_spec(spec.bounding())?,
            effective: Set::from_spec(spec.effective())?,
            inheritable: Set::from_spec(spec.inheritable())?,
            permitted: Set::from_spec(spec.permitted())?,
            ambient: Set::from_spec(spec.ambient())?,
        };
        sets.normalise();
        Ok(sets)
    }

    fn normalise(&mut self) {
        self.effective.0 &= self.permitted.0;
        self.ambient.0 &= self.permitted.0 & self.inheritable.0;
    }

    /// Adds one capability to all sets but the inheritable and ambient ones (`exec --cap`).
    pub fn add(&mut self, capability: Set) {
        for set in [&mut self.bounding, &mut self.effective, &mut self.permitted] {
            set.0 |= capability.0;
        }
    }

    /// Cuts the sets to what the process `held` can give, as the specification demands of
    /// capabilities that cannot be granted; returns the names of those that are missing.
    pub fn limit_to(&mut self, held: Set) -> Vec<String> {
        let wanted = self.bounding.0 | self.permitted.0 | self.inheritable.0;
        for set in [&mut self.bounding, &mut self.inheritable, &mut self.permitted] {
            set.0 &= held.0;
        }
        self.normalise();
        Set(wanted & !held.0).names()
    }
}

/// What this process could give to a child.
pub fn held() -> Result<Set> {
    Ok(Set(sys::capget()?.1))
}

/// Drops everything outside `bounding`; needs CAP_SETPCAP, so it comes before [`apply`].
///
/// The first number that the kernel does not know (EINVAL) ends it: nobody has to be asked for the
/// last one.
pub fn drop_bounding(bounding: Set) -> Result<()> {
    for bit in (0..64).filter(|bit| bounding.0 & (1 << bit) == 0) {
        match sys::prctl(libc::PR_CAPBSET_DROP, bit, 0) {
            Err(e) if e.errno() == Some(libc::EINVAL) => break,
            other => other.wrap(|| "drop capabilities from the bounding set")?,
        };
    }
    Ok(())
}

/// Sets the effective, permitted, inheritable and ambient sets.
pub fn apply(sets: &Capabilities) -> Result<()> {
    sys::capset(sets.effective.0, sets.permitted.0, sets.inheritable.0)
        .wrap(|| "set capabilities")?;
    const CLEAR_ALL: u64 = 4;
    const RAISE: u64 = 2;
    sys::prctl(libc::PR_CAP_AMBIENT, CLEAR_ALL, 0).wrap(|| "clear ambient capabilities")?;
    for bit in (0..64).filter(|bit| sets.ambient.0 & (1 << bit) != 0) {
        sys::prctl(libc::PR_CAP_AMBIENT, RAISE, bit).wrap(|| "raise an ambient capability")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_agree() {
        assert_eq!(Set::named("cap_sys_admin").unwrap().0, 1 << 21);
        assert_eq!(Set::named("CHECKPOINT_RESTORE").unwrap().0, 1 << 40);
        assert!(Set::named("CAP_NONSENSE").is_err());
    }

    #[test]
    fn every_capability_of_the_parser_is_known() {
        for name in names() {
            let json = format!("{{\"bounding\":[\"{name}\"]}}");
            let spec: LinuxCapabilities = serde_json::from_str(&json).unwrap();
            assert_eq!(Set::from_spec(spec.bounding()).unwrap().names(), [name]);
        }
    }

    #[test]
    fn ambient_needs_inheritable() {
        let json = r#"{"permitted":["CAP_KILL"],"ambient":["CAP_KILL"]}"#;
        let sets = Capabilities::new(Some(&serde_json::from_str(json).unwrap())).unwrap();
        assert_eq!(sets.ambient, Set(0));
    }

    #[test]
    fn what_cannot_be_granted_is_named() {
        let json = r#"{"permitted":["CAP_KILL","CAP_BPF"],"bounding":["CAP_BPF"]}"#;
        let mut sets = Capabilities::new(Some(&serde_json::from_str(json).unwrap())).unwrap();
        assert_eq!(sets.limit_to(Set::named("KILL").unwrap()), ["CAP_BPF"]);
        assert_eq!(sets.bounding, Set(0));
    }
}
