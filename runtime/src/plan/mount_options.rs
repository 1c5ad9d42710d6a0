//! The options of one mount, sorted by what they are: attributes, propagation, what the runtime
//! does itself, and what is left to the file system.

use super::mounts::{Idmap, Links, Propagation, Source};
use super::namespaces::{IdRange, Namespaces};
use crate::error::{Error, Result};
use crate::sys::mount::{MountAttr, attr};
use std::path::Path;

/// The options of one mount, sorted by what they are.
#[derive(Default)]
pub(super) struct Options {
    pub attributes: MountAttr,
    pub recursive: MountAttr,
    pub propagation: Vec<Propagation>,
    pub copy_up: bool,
    pub links: Links,
    pub idmap: Option<Idmap>,
    bind: Option<bool>,
    remount: bool,
    readonly: bool,
    data: Vec<(String, Option<String>)>,
}

impl Options {
    /// Sorts the options as given; `namespaces` are what relative id maps count from.
    pub fn parse(given: &[String], namespaces: &Namespaces) -> Result<Self> {
        let mut all = Self::default();
        for (i, option) in given.iter().enumerate() {
            all.take(option, namespaces).map_err(|e| e.wrap(format!("options[{i}]")))?;
        }
        Ok(all)
    }

    fn take(&mut self, option: &str, namespaces: &Namespaces) -> Result<()> {
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
            "copy-symlink" => self.links.copy = true,
            "src-nofollow" => self.links.keep_source = true,
            "dest-nofollow" => self.links.keep_destination = true,
            "idmap" | "ridmap" => {
                self.idmap = Some(Idmap { recursive: option == "ridmap", maps: None });
            }
            _ if option.starts_with("idmap=") || option.starts_with("ridmap=") => {
                let (name, maps) = option.split_once('=').unwrap_or((option, ""));
                let maps = Some(id_maps(maps, namespaces)?);
                self.idmap = Some(Idmap { recursive: name == "ridmap", maps });
            }
            other => self.data.push(match other.split_once('=') {
                Some((key, value)) => (key.into(), Some(value.into())),
                None => (other.into(), None),
            }),
        }
        Ok(())
    }

    /// What the mount shows.
    pub fn source(
        &self,
        spec: &oci_spec::runtime::Mount,
        fstype: &str,
        bundle: &Path,
        label: Option<(&str, &str)>,
    ) -> Result<Source> {
        if self.copy_up && (fstype != "tmpfs" || self.bind.is_some() || self.remount) {
            return Err(Error::new("options: \"tmpcopyup\" means something to a tmpfs alone"));
        }
        if self.remount {
            return Ok(Source::Remount { data: self.data.clone() });
        }
        if self.bind.is_some() || fstype == "bind" || fstype == "rbind" {
            return self.bind_source(spec, fstype, bundle);
        }
        match fstype {
            "" | "none" => Err(Error::new("type: is missing (only a bind mount needs none)")),
            "cgroup" | "cgroup2" => match self.data.first() {
                None => Ok(Source::Cgroup),
                Some((key, _)) => Err(Error::new(format!(
                    "options: {key:?} is unknown, or means nothing to the container's view of its cgroups"
                ))),
            },
            _ => {
                let mut data = self.data.clone();
                // A superblock that is filled first is made read-only by its mount alone.
                if self.readonly && !self.copy_up {
                    data.push(("ro".into(), None));
                }
                if let (Some((option, label)), true) = (label, takes_label(fstype)) {
                    data.push((option.into(), Some(label.into())));
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
        // A bind mount shares its superblock with the host's mount, so the kernel cannot give it
        // options of a file system ("the data argument is ignored", mount(2)). What a tmpfs would
        // take is let pass, since callers turn one into the other and keep the line; a word that
        // is nobody's option is refused by name.
        let known = |key: &str| key == "silent" || TMPFS_OPTIONS.contains(&key);
        if let Some((key, _)) = self.data.iter().find(|(key, _)| !known(key)) {
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

/// What tmpfs(5) can be told about its superblock.
const TMPFS_OPTIONS: [&str; 8] =
    ["mode", "size", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol"];

/// crun's `uids=FROM-TO-COUNT#...;gids=...`: an owner on disk, the one on the host that it is
/// shown as, and how many follow. After `@`, the second counts inside the container.
fn id_maps(text: &str, namespaces: &Namespaces) -> Result<(Vec<IdRange>, Vec<IdRange>)> {
    let (mut uids, mut gids) = (Vec::new(), Vec::new());
    for part in text.split(';').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("uids", list)) => uids = id_ranges(list, &namespaces.uid_map)?,
            Some(("gids", list)) => gids = id_ranges(list, &namespaces.gid_map)?,
            _ => return Err(Error::new(format!("idmap: {part:?} is neither uids=… nor gids=…"))),
        }
    }
    match (uids.is_empty(), gids.is_empty()) {
        (false, false) => Ok((uids, gids)),
        (true, _) => Err(Error::new("idmap: uids= is missing or empty")),
        (_, true) => Err(Error::new("idmap: gids= is missing or empty")),
    }
}

fn id_ranges(list: &str, container: &[IdRange]) -> Result<Vec<IdRange>> {
    let one = |text: &str| {
        let bare = text.strip_prefix('@');
        let numbers: Vec<Option<u32>> =
            bare.unwrap_or(text).split('-').map(|n| n.parse().ok()).collect();
        let [Some(inside), Some(outside), Some(count @ 1..)] = numbers[..] else {
            return Err(Error::new(format!(
                "idmap: {text:?} is not of the form uids=FROM-TO-COUNT"
            )));
        };
        let outside = match bare {
            None => outside,
            Some(_) => Namespaces::outside(container, outside).ok_or_else(|| {
                Error::new(format!("idmap: {text:?}: the container has no id {outside}"))
            })?,
        };
        Ok(IdRange { inside, outside, count })
    };
    list.split('#').map(one).collect()
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
