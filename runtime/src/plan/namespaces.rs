//! `linux.namespaces`, `linux.uidMappings`, `linux.gidMappings`, `linux.timeOffsets`.

use crate::error::{Error, Result};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The kinds of namespace (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// User and group ids, capabilities.
    User,
    /// Process ids; holds for children only.
    Pid,
    /// Network devices, addresses, ports.
    Network,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// Mounts.
    Mount,
    /// The root of the visible cgroup tree.
    Cgroup,
    /// Boot and monotonic clocks; holds for children only.
    Time,
}

impl Kind {
    /// All kinds, a user namespace first because it must own the others.
    pub const ALL: [Self; 8] = [
        Self::User,
        Self::Pid,
        Self::Network,
        Self::Ipc,
        Self::Uts,
        Self::Mount,
        Self::Cgroup,
        Self::Time,
    ];

    /// The CLONE_NEW* flag.
    pub fn flag(self) -> i32 {
        match self {
            Self::User => libc::CLONE_NEWUSER,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Network => libc::CLONE_NEWNET,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::Time => 0x80,
        }
    }

    /// The name that the specification gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Pid => "pid",
            Self::Network => "network",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Mount => "mount",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    /// The name of its file in /proc/PID/ns.
    pub fn file(self) -> &'static str {
        match self {
            Self::Network => "net",
            Self::Mount => "mnt",
            other => other.name(),
        }
    }

    fn from_spec(kind: LinuxNamespaceType) -> Self {
        match kind {
            LinuxNamespaceType::User => Self::User,
            LinuxNamespaceType::Pid => Self::Pid,
            LinuxNamespaceType::Network => Self::Network,
            LinuxNamespaceType::Ipc => Self::Ipc,
            LinuxNamespaceType::Uts => Self::Uts,
            LinuxNamespaceType::Mount => Self::Mount,
            LinuxNamespaceType::Cgroup => Self::Cgroup,
            LinuxNamespaceType::Time => Self::Time,
        }
    }
}

/// One range of an id mapping (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct IdRange {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// An offset of one clock (time_namespaces(7)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offset {
    /// `monotonic` or `boottime`.
    pub clock: String,
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds, below a thousand million.
    pub nanoseconds: u32,
}

/// Which namespaces to make, which to join.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Namespaces {
    /// Made for the container.
    pub new: Vec<Kind>,
    /// Joined by path, the user namespace first.
    pub join: Vec<(Kind, PathBuf)>,
    /// User ids of a new user namespace.
    pub uid_map: Vec<IdRange>,
    /// Group ids of a new user namespace.
    pub gid_map: Vec<IdRange>,
    /// Clocks of a new time namespace.
    pub offsets: Vec<Offset>,
}

impl Namespaces {
    /// Checks the namespaces of a configuration against each other.
    pub fn new(linux: &Linux) -> Result<Self> {
        let mut all = Self::default();
        for (i, namespace) in linux.namespaces().iter().flatten().enumerate() {
            let kind = Kind::from_spec(namespace.typ());
            let wrong =
                |why: String| Error::new(format!("config.json: linux.namespaces[{i}]: {why}"));
            if all.has(kind) {
                return Err(wrong(format!("{:?} appears twice", kind.name())));
            }
            match namespace.path().as_deref().filter(|p| !p.as_os_str().is_empty()) {
                None => all.new.push(kind),
                Some(path) if path.is_absolute() => all.join.push((kind, path.into())),
                Some(path) => return Err(wrong(format!("path {path:?} is not absolute"))),
            }
        }
        all.join.sort_by_key(|(kind, _)| Kind::ALL.iter().position(|k| k == kind));
        all.new.sort_by_key(|kind| Kind::ALL.iter().position(|k| k == kind));
        all.uid_map = ranges(linux.uid_mappings(), "uidMappings", all.makes(Kind::User))?;
        all.gid_map = ranges(linux.gid_mappings(), "gidMappings", all.makes(Kind::User))?;
        all.offsets = offsets(linux, all.makes(Kind::Time))?;
        Ok(all)
    }

    /// Is the container in a namespace of this kind that is not the runtime's own?
    pub fn has(&self, kind: Kind) -> bool {
        self.makes(kind) || self.joins(kind)
    }

    /// Is a namespace of this kind made?
    pub fn makes(&self, kind: Kind) -> bool {
        self.new.contains(&kind)
    }

    /// Is a namespace of this kind joined?
    pub fn joins(&self, kind: Kind) -> bool {
        self.join.iter().any(|(k, _)| *k == kind)
    }

    /// The path of a namespace that is joined.
    pub fn path(&self, kind: Kind) -> Option<&Path> {
        self.join.iter().find(|(k, _)| *k == kind).map(|(_, path)| path.as_path())
    }

    /// The id outside of the user namespace that stands for `inside`, if it is mapped.
    pub fn outside(map: &[IdRange], inside: u32) -> Option<u32> {
        map.iter()
            .find(|r| inside >= r.inside && u64::from(inside - r.inside) < u64::from(r.count))
            .and_then(|r| r.outside.checked_add(inside - r.inside))
    }
}

/// Id ranges of the property `name`; none of them is empty.
pub(super) fn id_ranges(given: &Option<Vec<LinuxIdMapping>>, name: &str) -> Result<Vec<IdRange>> {
    let range = |(i, m): (usize, &LinuxIdMapping)| match m.size() {
        0 => Err(Error::new(format!("{name}[{i}].size is 0"))),
        count => Ok(IdRange { inside: m.container_id(), outside: m.host_id(), count }),
    };
    given.iter().flatten().enumerate().map(range).collect()
}

fn ranges(given: &Option<Vec<LinuxIdMapping>>, name: &str, owns: bool) -> Result<Vec<IdRange>> {
    let ranges = id_ranges(given, name).map_err(|e| e.wrap("config.json: linux"))?;
    let wrong = |why: &str| Err(Error::new(format!("config.json: linux.{name}: {why}")));
    match (owns, ranges.is_empty()) {
        (true, true) => wrong("a new user namespace needs at least one range"),
        (false, false) => wrong("linux.namespaces has no new \"user\" to apply it to"),
        _ => Ok(ranges),
    }
}

fn offsets(linux: &Linux, owns: bool) -> Result<Vec<Offset>> {
    let mut all = Vec::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let wrong = |why: &str| {
            Err(Error::new(format!("config.json: linux.timeOffsets[{clock:?}]: {why}")))
        };
        if !owns {
            return wrong("linux.namespaces has no new \"time\" to apply it to");
        }
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return wrong("is neither \"monotonic\" nor \"boottime\"");
        }
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds >= 1_000_000_000 {
            return wrong("nanosecs is not below 1000000000");
        }
        let seconds = offset.secs().unwrap_or(0);
        all.push(Offset { clock: clock.clone(), seconds, nanoseconds });
    }
    all.sort_by(|a, b| a.clock.cmp(&b.clock));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<Namespaces> {
        Namespaces::new(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_joined_user_namespace_comes_first() {
        let n =
            plan(r#"{"namespaces":[{"type":"network","path":"/n"},{"type":"user","path":"/u"}]}"#);
        assert_eq!(n.unwrap().join[0].0, Kind::User);
    }

    #[test]
    fn contradictions_are_refused() {
        for (json, part) in [
            (r#"{"namespaces":[{"type":"pid"},{"type":"pid"}]}"#, "twice"),
            (r#"{"namespaces":[{"type":"user"}]}"#, "uidMappings"),
            (r#"{"uidMappings":[{"containerID":0,"hostID":0,"size":1}]}"#, "uidMappings"),
            (r#"{"timeOffsets":{"boottime":{"secs":1}}}"#, "timeOffsets"),
            (r#"{"namespaces":[{"type":"pid","path":"x"}]}"#, "not absolute"),
        ] {
            let e = plan(json).unwrap_err().to_string();
            assert!(e.contains(part), "{json}: {e}");
        }
    }

    #[test]
    fn ids_are_looked_up_in_ranges() {
        let map = [
            IdRange { inside: 0, outside: 1000, count: 1 },
            IdRange { inside: 1, outside: 5000, count: 10 },
        ];
        assert_eq!(Namespaces::outside(&map, 0), Some(1000));
        assert_eq!(Namespaces::outside(&map, 10), Some(5009));
        assert_eq!(Namespaces::outside(&map, 11), None);
    }
}
