//! `mounts` and `linux.rootfsPropagation`: mount(8)'s words as the kernel's numbers.

use super::mount_options::Options;
use super::namespaces::{IdRange, Kind, Namespaces};
use crate::error::{Error, Result};
use crate::sys::mount::MountAttr;
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
    /// What is done about symbolic links.
    pub links: Links,
    /// The shift of the ids that own its files.
    pub idmap: Option<Idmap>,
    /// Attributes of the mount itself.
    pub attributes: MountAttr,
    /// Attributes of the mount and of all below it (`rro` and its kin).
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
    Remount {
        /// New options of its file system.
        data: Vec<(String, Option<String>)>,
    },
}

/// What is done about symbolic links at the two ends of a bind mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Links {
    /// A source that is a link is made anew at the destination (`copy-symlink`).
    pub copy: bool,
    /// A source that is a link is mounted itself (`src-nofollow`).
    pub keep_source: bool,
    /// A destination that is a link is mounted over (`dest-nofollow`).
    pub keep_destination: bool,
}

/// An id-mapped mount (mount_setattr(2), MOUNT_ATTR_IDMAP).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Idmap {
    /// With the mounts below (`ridmap`).
    pub recursive: bool,
    /// The maps for users and groups: inside is the owner on disk, outside the one on the host.
    /// None: those of the container's user namespace.
    pub maps: Option<(Vec<IdRange>, Vec<IdRange>)>,
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

    /// `shared`, `slave`, `private`, `unbindable`, each also with an `r` in front.
    pub fn named(name: &str) -> Option<Self> {
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
    /// but the host none of the container's (`rslave`); in a mount namespace that is `shared` with
    /// others nothing of theirs is to appear below it by itself (`rprivate`).
    pub fn of_rootfs(given: Option<&str>, shared: bool) -> Result<Self> {
        match given {
            None | Some("") if shared => Ok(Self { kind: libc::MS_PRIVATE, recursive: true }),
            Some(name @ ("slave" | "rslave")) if shared => Err(Error::new(format!(
                "config.json: linux.rootfsPropagation: {name:?} needs a new \"mount\" in linux.namespaces: in the namespace that the mounts come from there is nothing to be a slave of"
            ))),
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
    /// Is it to be, or to stay, in a peer group?
    pub fn is_shared(&self) -> bool {
        self.propagation.iter().any(|p| p.kind == libc::MS_SHARED)
    }

    /// Checks one entry of `mounts`. `label` is the option and the SELinux context that file
    /// systems get.
    pub fn new(
        spec: &oci_spec::runtime::Mount,
        bundle: &Path,
        namespaces: &Namespaces,
        label: Option<(&str, &str)>,
    ) -> Result<Self> {
        let destination = clean(spec.destination())?;
        let given = spec.options().clone().unwrap_or_default();
        let options = Options::parse(&given, namespaces)?;
        let fstype = spec.typ().as_deref().unwrap_or_default();
        let source = options.source(spec, fstype, bundle, label)?;
        if destination == Path::new("/") && !matches!(source, Source::Remount { .. }) {
            return Err(Error::new(
                "destination: \"/\" is the root file system, given by root.path",
            ));
        }
        let links = options.links;
        if links != Links::default() && !matches!(source, Source::Bind { .. }) {
            return Err(Error::new(
                "options: \"copy-symlink\", \"src-nofollow\" and \"dest-nofollow\" mean something to a bind mount alone",
            ));
        }
        Ok(Self {
            destination,
            idmap: idmap(spec, options.idmap, &source, namespaces)?,
            source,
            copy_up: options.copy_up,
            links,
            attributes: options.attributes,
            recursive: options.recursive,
            propagation: options.propagation,
            options: given,
        })
    }
}

/// Brings together the option and the properties that ask for an id-mapped mount.
fn idmap(
    spec: &oci_spec::runtime::Mount,
    option: Option<Idmap>,
    source: &Source,
    namespaces: &Namespaces,
) -> Result<Option<Idmap>> {
    let ranges = |given: &Option<Vec<_>>, name: &str| super::namespaces::id_ranges(given, name);
    let uids = ranges(spec.uid_mappings(), "uidMappings")?;
    let gids = ranges(spec.gid_mappings(), "gidMappings")?;
    let maps = match (uids.is_empty(), gids.is_empty()) {
        (true, true) => None,
        (false, false) => Some((uids, gids)),
        _ => return Err(Error::new("uidMappings and gidMappings: give both, or neither")),
    };
    let idmap = match (option, maps) {
        (None, None) => return Ok(None),
        (None, maps) => Idmap { recursive: false, maps },
        (Some(Idmap { maps: Some(_), .. }), Some(_)) => {
            return Err(Error::new("options: \"idmap=\" contradicts uidMappings and gidMappings"));
        }
        (Some(option), maps) => Idmap { recursive: option.recursive, maps: option.maps.or(maps) },
    };
    if idmap.maps.is_none() && !namespaces.has(Kind::User) {
        return Err(Error::new(
            "options: \"idmap\" needs uidMappings and gidMappings, or a user namespace in linux.namespaces",
        ));
    }
    match source {
        Source::Bind { .. } | Source::Filesystem { .. } => Ok(Some(idmap)),
        _ => Err(Error::new("idmap: means nothing to a remount or to cgroups")),
    }
}

/// An absolute path without `.`, `..` and doubled slashes. A relative one counts from `/`, as the
/// specification's older versions allow.
pub(super) fn clean(path: &Path) -> Result<PathBuf> {
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

#[cfg(test)]
mod tests {
    use super::*;

    use crate::sys::mount::attr;

    fn plan(json: &str) -> Result<Mount> {
        let namespaces = Namespaces::default();
        Mount::new(&serde_json::from_str(json).unwrap(), Path::new("/b"), &namespaces, None)
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
            (r#"{"destination":"/x","type":"tmpfs","options":["dest-nofollow"]}"#, "dest-nofollow"),
            (r#"{"destination":"/x","type":"cgroup","options":["size=1"]}"#, "size"),
            (r#"{"destination":"/x","source":"/","options":["bind","idmap=uids=1"]}"#, "uids"),
            (r#"{"destination":"/x","source":"/","options":["bind","idmap=names=1"]}"#, "names"),
            (
                r#"{"destination":"/x","source":"/","options":["bind"],"uidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
                "gidMappings",
            ),
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
    fn maps_are_read_as_crun_reads_them() {
        let json = r#"{"destination":"/x","source":"/","options":["bind","ridmap=uids=0-1-10#10-11-5;gids=0-100-10"]}"#;
        let idmap = plan(json).unwrap().idmap.unwrap();
        assert!(idmap.recursive);
        let range = |inside, outside, count| IdRange { inside, outside, count };
        let maps = (vec![range(0, 1, 10), range(10, 11, 5)], vec![range(0, 100, 10)]);
        assert_eq!(idmap.maps, Some(maps));
    }

    #[test]
    fn relative_maps_count_from_the_containers() {
        let namespaces: Namespaces = Namespaces::new(
            &serde_json::from_str(
                r#"{"namespaces":[{"type":"user"}],"uidMappings":[{"containerID":0,"hostID":1000,"size":99}],"gidMappings":[{"containerID":0,"hostID":2000,"size":99}]}"#,
            )
            .unwrap(),
        )
        .unwrap();
        let json = r#"{"destination":"/x","source":"/","options":["bind","idmap=uids=@5-3-10;gids=@5-3-10"]}"#;
        let mount =
            Mount::new(&serde_json::from_str(json).unwrap(), Path::new("/b"), &namespaces, None);
        let (uids, gids) = mount.unwrap().idmap.unwrap().maps.unwrap();
        assert_eq!((uids[0].outside, gids[0].outside), (1003, 2003));
    }
}
