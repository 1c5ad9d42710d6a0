//! `mounts`, `linux.devices`, `linux.rootfsPropagation`: mount(8)'s words as the kernel's numbers.

use crate::error::{Error, Result};
use crate::sys::mount::{MountAttr, attr};
use oci_spec::runtime::{Linux, LinuxDeviceType};
use serde::Serialize;
use std::path::{Component, Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, Serialize)]
pub struct Mount {
    /// Absolute path inside, without `.` and `..`.
    pub destination: PathBuf,
    /// What is mounted.
    pub source: Source,
    /// A tmpfs begins with what the directory below it holds (`tmpcopyup`).
    pub copy_up: bool,
    /// Attributes of the mount itself.
    #[serde(skip)]
    pub attributes: MountAttr,
    /// Attributes of the mount and of all below it (`rro` and its kin).
    #[serde(skip)]
    pub recursive: MountAttr,
    /// Propagation, in the order given.
    pub propagation: Vec<Propagation>,
    /// The options as they were given.
    pub options: Vec<String>,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A file system of its own.
    Filesystem {
        /// Its type.
        fstype: String,
        /// The device or name shown in mountinfo.
        source: String,
        /// Its own options: key, and value if there is one.
        data: Vec<(String, Option<String>)>,
    },
    /// A directory or file of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// With the mounts below it.
        recursive: bool,
    },
    /// The container's view of its control groups.
    Cgroup,
    /// A mount made earlier, whose attributes change.
    Remount,
}

/// A change of propagation (mount_namespaces(7), shared subtrees).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Propagation {
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE; 0 changes nothing.
    pub kind: u64,
    /// With the mounts below.
    pub recursive: bool,
}

impl Propagation {
    /// No change.
    pub const NONE: Self = Self { kind: 0, recursive: false };

    fn named(name: &str) -> Option<Self> {
        let (bare, recursive) = match name.strip_prefix('r') {
            Some(bare) => (bare, true),
            None => (name, false),
        };
        let kind = match bare {
            "shared" => libc::MS_SHARED,
            "slave" => libc::MS_SLAVE,
            "private" => libc::MS_PRIVATE,
            "unbindable" => libc::MS_UNBINDABLE,
            _ => return None,
        };
        Some(Self { kind, recursive })
    }

    /// `linux.rootfsPropagation`. Without it the container sees the host's later mounts
    /// but the host none of the container's (`rslave`).
    pub fn of_rootfs(given: Option<&str>) -> Result<Self> {
        match given {
            None | Some("") => Ok(Self { kind: libc::MS_SLAVE, recursive: true }),
            Some(name) => Self::named(name).ok_or_else(|| {
                Error::new(format!(
                    "config.json: linux.rootfsPropagation: {name:?} is not one of shared, slave, private, unbindable (or r…)"
                ))
            }),
        }
    }
}

impl Mount {
    /// Checks one entry of `mounts`.
    pub fn new(
        spec: &oci_spec::runtime::Mount,
        bundle: &Path,
        label: Option<&str>,
    ) -> Result<Self> {
        if spec.uid_mappings().as_ref().is_some_and(|m| !m.is_empty())
            || spec.gid_mappings().as_ref().is_some_and(|m| !m.is_empty())
        {
            return Err(Error::new(
                "uidMappings/gidMappings: idmapped mounts are not supported by this version",
            ));
        }
        let destination = clean(spec.destination())?;
        let given = spec.options().clone().unwrap_or_default();
        let options = Options::parse(&given)?;
        let fstype = spec.typ().as_deref().unwrap_or_default();
        let source = options.source(spec, fstype, bundle, label)?;
        if destination == Path::new("/") && source != Source::Remount {
            return Err(Error::new(
                "destination: \"/\" is the root file system, given by root.path",
            ));
        }
        Ok(Self {
            destination,
            source,
            copy_up: options.copy_up,
            attributes: options.attributes,
            recursive: options.recursive,
            propagation: options.propagation,
            options: given,
        })
    }
}

/// An absolute path without `.`, `..` and doubled slashes. A relative one counts from `/`, as the
/// specification's older versions allow.
fn clean(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().is_empty() {
        return Err(Error::new("destination: is empty"));
    }
    let mut all = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => all.push(name),
            Component::ParentDir => {
                all.pop();
            }
            _ => {}
        }
    }
    Ok(all)
}

/// The options of one mount, sorted by what they are.
#[derive(Default)]
struct Options {
    attributes: MountAttr,
    recursive: MountAttr,
    propagation: Vec<Propagation>,
    bind: Option<bool>,
    remount: bool,
    copy_up: bool,
    readonly: bool,
    data: Vec<(String, Option<String>)>,
}

impl Options {
    fn parse(given: &[String]) -> Result<Self> {
        let mut all = Self::default();
        for (i, option) in given.iter().enumerate() {
            all.take(option).map_err(|e| e.wrap(format!("options[{i}]")))?;
        }
        Ok(all)
    }

    fn take(&mut self, option: &str) -> Result<()> {
        if let Some((bits, set)) = attribute(option) {
            change(&mut self.attributes, bits, set);
            if bits == attr::RDONLY {
                self.readonly = set;
            }
            return Ok(());
        }
        if let Some((bits, set)) = option.strip_prefix('r').and_then(attribute) {
            change(&mut self.recursive, bits, set);
            return Ok(());
        }
        if let Some(propagation) = Propagation::named(option) {
            self.propagation.push(propagation);
            return Ok(());
        }
        match option {
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "remount" => self.remount = true,
            "defaults" | "" => {}
            // The kernel has no name for these; they are the absence of another option.
            "async" => self.data.retain(|(key, _)| key != "sync"),
            "nomand" => self.data.retain(|(key, _)| key != "mand"),
            "nolazytime" => self.data.retain(|(key, _)| key != "lazytime"),
            "loud" => self.data.retain(|(key, _)| key != "silent"),
            "tmpcopyup" => self.copy_up = true,
            "idmap" | "ridmap" | "copy-symlink" | "src-nofollow" | "dest-nofollow" => {
                return Err(Error::new(format!("{option:?} is not supported by this version")));
            }
            _ if option.starts_with("idmap=") || option.starts_with("ridmap=") => {
                return Err(Error::new(format!("{option:?} is not supported by this version")));
            }
            other => self.data.push(match other.split_once('=') {
                Some((key, value)) => (key.into(), Some(value.into())),
                None => (other.into(), None),
            }),
        }
        Ok(())
    }

    fn source(
        &self,
        spec: &oci_spec::runtime::Mount,
        fstype: &str,
        bundle: &Path,
        label: Option<&str>,
    ) -> Result<Source> {
        if self.copy_up && (fstype != "tmpfs" || self.bind.is_some() || self.remount) {
            return Err(Error::new("options: \"tmpcopyup\" means something to a tmpfs alone"));
        }
        if self.remount {
            return Ok(Source::Remount);
        }
        if self.bind.is_some() || fstype == "bind" || fstype == "rbind" {
            return self.bind_source(spec, fstype, bundle);
        }
        match fstype {
            "" | "none" => Err(Error::new("type: is missing (only a bind mount needs none)")),
            "cgroup" | "cgroup2" => Ok(Source::Cgroup),
            _ => {
                let mut data = self.data.clone();
                // A superblock that is filled first is made read-only by its mount alone.
                if self.readonly && !self.copy_up {
                    data.push(("ro".into(), None));
                }
                if let (Some(label), true) = (label, takes_label(fstype)) {
                    data.push(("context".into(), Some(label.into())));
                }
                let source = spec.source().as_ref().map(|s| s.to_string_lossy().into_owned());
                Ok(Source::Filesystem {
                    fstype: fstype.into(),
                    source: source.unwrap_or_else(|| fstype.into()),
                    data,
                })
            }
        }
    }

    fn bind_source(
        &self,
        spec: &oci_spec::runtime::Mount,
        fstype: &str,
        bundle: &Path,
    ) -> Result<Source> {
        // A bind mount shares its superblock with the host's mount, so it cannot have options of
        // a file system. runc ignores some; here each is refused by name.
        if let Some((key, _)) = self.data.iter().find(|(key, _)| key != "silent") {
            return Err(Error::new(format!(
                "options: {key:?} is unknown, or means nothing to a bind mount"
            )));
        }
        let source = spec.source().as_ref().filter(|s| !s.as_os_str().is_empty());
        let source = source.ok_or_else(|| Error::new("source: is missing for a bind mount"))?;
        let recursive = self.bind.unwrap_or(fstype == "rbind");
        Ok(Source::Bind { source: bundle.join(source), recursive })
    }
}

/// File systems that take SELinux's `context=` option.
fn takes_label(fstype: &str) -> bool {
    !matches!(fstype, "proc" | "sysfs" | "mqueue")
}

/// The attribute that `name` sets (`true`) or clears.
fn attribute(name: &str) -> Option<(u64, bool)> {
    Some(match name {
        "ro" => (attr::RDONLY, true),
        "rw" => (attr::RDONLY, false),
        "nosuid" => (attr::NOSUID, true),
        "suid" => (attr::NOSUID, false),
        "nodev" => (attr::NODEV, true),
        "dev" => (attr::NODEV, false),
        "noexec" => (attr::NOEXEC, true),
        "exec" => (attr::NOEXEC, false),
        "nodiratime" => (attr::NODIRATIME, true),
        "diratime" => (attr::NODIRATIME, false),
        "nosymfollow" => (attr::NOSYMFOLLOW, true),
        "symfollow" => (attr::NOSYMFOLLOW, false),
        "noatime" => (attr::NOATIME, true),
        "strictatime" => (attr::STRICTATIME, true),
        // relatime is the kernel's default, and what remains when another one is taken away.
        "relatime" => (0, true),
        "atime" | "norelatime" | "nostrictatime" => (0, false),
        _ => return None,
    })
}

fn change(attributes: &mut MountAttr, bits: u64, set: bool) {
    if bits & attr::ATIME_FIELD != 0 || bits == 0 {
        // Of the access time modes exactly one holds, and the kernel wants the field cleared.
        attributes.clear |= attr::ATIME_FIELD;
        attributes.set = attributes.set & !attr::ATIME_FIELD | bits;
    } else if set {
        attributes.set |= bits;
        attributes.clear &= !bits;
    } else {
        attributes.clear |= bits;
        attributes.set &= !bits;
    }
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Absolute path inside.
    pub path: PathBuf,
    /// S_IFCHR, S_IFBLK or S_IFIFO with the permissions.
    pub mode: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Owner inside.
    pub uid: u32,
    /// Group inside.
    pub gid: u32,
}

/// The devices that every Linux container has (config-linux.md, Default Devices).
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The default devices and those of `linux.devices`, which win. None where `/dev` is a bind mount:
/// then it is somebody else's directory.
pub fn devices(linux: &Linux, mounts: &[Mount]) -> Result<Vec<Device>> {
    let bound = mounts
        .iter()
        .any(|m| m.destination == Path::new("/dev") && matches!(m.source, Source::Bind { .. }));
    let mut all: Vec<Device> = Vec::new();
    if !bound {
        all.extend(DEFAULT.iter().map(|(path, major, minor)| Device {
            path: path.into(),
            mode: libc::S_IFCHR | 0o666,
            major: *major,
            minor: *minor,
            uid: 0,
            gid: 0,
        }));
    }
    for (i, device) in linux.devices().iter().flatten().enumerate() {
        let device =
            self::device(device).map_err(|e| e.wrap(format!("config.json: linux.devices[{i}]")))?;
        match all.iter_mut().find(|d| d.path == device.path) {
            Some(old) => *old = device,
            None => all.push(device),
        }
    }
    Ok(all)
}

fn device(spec: &oci_spec::runtime::LinuxDevice) -> Result<Device> {
    let kind = match spec.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => return Err(Error::new("type: \"a\" is no device node")),
    };
    if !spec.path().is_absolute() {
        return Err(Error::new(format!("path: {:?} is not absolute", spec.path())));
    }
    let number = |n: i64, what: &str| {
        u32::try_from(n).map_err(|_| Error::new(format!("{what}: {n} is not a device number")))
    };
    Ok(Device {
        path: clean(spec.path())?,
        mode: kind | spec.file_mode().unwrap_or(0o666) & 0o7777,
        major: number(spec.major(), "major")?,
        minor: number(spec.minor(), "minor")?,
        uid: spec.uid().unwrap_or(0),
        gid: spec.gid().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<Mount> {
        Mount::new(&serde_json::from_str(json).unwrap(), Path::new("/b"), None)
    }

    #[test]
    fn options_are_sorted() {
        let m = plan(
            r#"{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","ro"]}"#,
        )
        .unwrap();
        assert_eq!(m.attributes.set, attr::NOSUID | attr::STRICTATIME | attr::RDONLY);
        let Source::Filesystem { data, .. } = m.source else { panic!("not a file system") };
        assert_eq!(data, [("mode".into(), Some("755".into())), ("ro".to_string(), None)]);
    }

    #[test]
    fn a_later_option_wins() {
        let m =
            plan(r#"{"destination":"/x","type":"bind","source":"/","options":["ro","rw","rro"]}"#);
        let m = m.unwrap();
        assert_eq!(m.attributes.set & attr::RDONLY, 0);
        assert_eq!(m.attributes.clear & attr::RDONLY, attr::RDONLY);
        assert_eq!(m.recursive.set, attr::RDONLY);
    }

    #[test]
    fn a_bind_source_counts_from_the_bundle() {
        let m = plan(r#"{"destination":"/x","source":"data","options":["rbind"]}"#).unwrap();
        assert_eq!(m.source, Source::Bind { source: "/b/data".into(), recursive: true });
    }

    #[test]
    fn nothing_is_ignored() {
        for (json, part) in [
            (r#"{"destination":"/x","source":"/","options":["bind","idmap"]}"#, "idmap"),
            (r#"{"destination":"/x","source":"/","options":["bind","nonsense"]}"#, "nonsense"),
            (r#"{"destination":"/x","type":"proc","options":["tmpcopyup"]}"#, "tmpcopyup"),
            (r#"{"destination":"/","type":"tmpfs"}"#, "root.path"),
            (r#"{"destination":"/x"}"#, "type"),
        ] {
            let e = plan(json).unwrap_err().to_string();
            assert!(e.contains(part), "{json}: {e}");
        }
    }

    #[test]
    fn destinations_stay_inside() {
        assert_eq!(clean(Path::new("../../etc/./x/..")).unwrap(), Path::new("/etc"));
    }

    #[test]
    fn a_device_of_the_configuration_replaces_the_default() {
        let json =
            r#"{"devices":[{"path":"/dev/null","type":"c","major":1,"minor":3,"fileMode":384}]}"#;
        let all = devices(&serde_json::from_str(json).unwrap(), &[]).unwrap();
        assert_eq!(all.len(), 6);
        assert_eq!(all[0].mode & 0o777, 0o600);
    }
}
