//! Groups that systemd makes and keeps: the container's processes live in a scope, a unit without
//! a program of its own (systemd.scope(5)), below a slice.
//!
//! The order is another one than with the cgroup file systems, because a scope is refused without
//! a process: clone, `StartTransientUnit` with the child's pid, wait for the job, read from
//! /proc/PID/cgroup where systemd has put it, write what systemd has no property for, and only
//! then let the child go on.

pub mod bus;
pub mod gvariant;
pub mod place;
pub mod properties;
pub mod unit;

use crate::error::{Context, Error, Result};
use bus::Bus;
use properties::Property;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use unit::Unit;

/// What the configuration asks of systemd.
#[derive(Debug, Serialize)]
pub struct Wanted {
    /// The slice that holds the scope.
    pub slice: String,
    /// Begins the scope's name.
    pub prefix: String,
    /// Ends it; the container's name if none is given.
    pub name: Option<String>,
    /// Where the systemd is reached that makes the scope.
    pub bus: Bus,
    /// Group below the scope in which the limits are set (`run.oci.systemd.subgroup`).
    pub subgroup: Option<PathBuf>,
    /// Group below that in which the program is, and which is its own to divide
    /// (`run.oci.delegate-cgroup`).
    pub delegated: Option<PathBuf>,
    /// Properties that annotations give the scope.
    pub properties: Vec<Property>,
}

impl Wanted {
    /// Reads `linux.cgroupsPath`, of the form `slice:prefix:name`, and the annotations.
    pub fn new(
        path: Option<&Path>,
        annotations: &BTreeMap<String, String>,
        bus: Bus,
    ) -> Result<Self> {
        if annotations.contains_key("run.oci.systemd.force_cgroup_v1") {
            return Err(Error::new(
                "config.json: annotations: run.oci.systemd.force_cgroup_v1 is not supported: mount a cgroup v1 hierarchy by mounts",
            ));
        }
        let default = if bus.user { "user.slice" } else { "system.slice" };
        let text = path.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        let (slice, prefix, name) = split(&text)?;
        let slice = if slice.is_empty() { default.into() } else { slice };
        expand_slice(&slice).wrap(|| format!("config.json: linux.cgroupsPath: {text:?}"))?;
        let subgroup = subgroup(annotations, "run.oci.systemd.subgroup")?;
        let delegated = subgroup_delegated(annotations, subgroup.is_some())?;
        let properties = properties::from_annotations(annotations)?;
        Ok(Self { slice, prefix, name, bus, subgroup, delegated, properties })
    }

    /// The scope of the container `id`.
    pub fn unit(&self, id: &str) -> Unit {
        let name = self.name.as_deref().unwrap_or(id);
        let name = match self.prefix.as_str() {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        Unit { name, slice: self.slice.clone(), bus: self.bus.clone() }
    }

    /// Where the scope will be below a hierarchy's mount point, as far as can be told before: the
    /// user's own systemd has its place below the system's, which `own` (our group) shows.
    pub fn expected(&self, own: &Path, id: &str) -> PathBuf {
        let slices = expand_slice(&self.slice).unwrap_or_default();
        let below = if self.bus.user { manager(own) } else { PathBuf::new() };
        below.join(slices).join(self.unit(id).name)
    }
}

/// The group of the user's systemd that our group `own` is in: up to `user@UID.service`.
fn manager(own: &Path) -> PathBuf {
    let parts: Vec<Component<'_>> =
        own.components().filter(|c| matches!(c, Component::Normal(_))).collect();
    let is_manager = |part: &Component<'_>| {
        let name = part.as_os_str().to_string_lossy();
        name.starts_with("user@") && name.ends_with(".service")
    };
    let end = parts.iter().position(is_manager).map_or(0, |at| at + 1);
    parts[..end].iter().collect()
}

/// `slice:prefix:name`; nothing at all means the default of each.
fn split(text: &str) -> Result<(String, String, Option<String>)> {
    if text.is_empty() {
        return Ok((String::new(), "davit".into(), None));
    }
    let wrong = |why: &str| {
        Err(Error::new(format!(
            "config.json: linux.cgroupsPath: {text:?}: {why} (expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups)"
        )))
    };
    let parts: Vec<&str> = text.split(':').collect();
    let [slice, prefix, name] = parts.as_slice() else {
        return wrong("it is not three parts");
    };
    if name.is_empty() {
        return wrong("the name is empty");
    }
    if name.ends_with(".slice") {
        return wrong("the name is that of a slice, which holds units, not processes");
    }
    let odd = |c: char| !c.is_ascii_alphanumeric() && !":-_.\\@".contains(c);
    match [*prefix, *name].iter().find(|part| part.contains(odd)) {
        Some(part) => wrong(&format!("{part:?} has a character that no unit's name may have")),
        // systemd allows 255, with its suffix.
        None if prefix.len() + name.len() > 240 => wrong("the unit's name would be too long"),
        None => Ok((slice.to_string(), prefix.to_string(), Some(name.to_string()))),
    }
}

/// `a-b.slice` lies in `a.slice` (systemd.slice(5)): the path below the root slice, `-.slice`.
pub fn expand_slice(slice: &str) -> Result<PathBuf> {
    let wrong = || Error::new(format!("{slice:?} is no slice's name (systemd.slice(5))"));
    let name = slice.strip_suffix(".slice").ok_or_else(wrong)?;
    if name == "-" {
        return Ok(PathBuf::new());
    }
    if name.contains('/') || name.split('-').any(str::is_empty) {
        return Err(wrong());
    }
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    Ok(ends.map(|end| format!("{}.slice", &name[..end])).collect())
}

/// The name of a group that an annotation gives; an empty one means none.
fn subgroup(annotations: &BTreeMap<String, String>, key: &str) -> Result<Option<PathBuf>> {
    let Some(name) = annotations.get(key).filter(|name| !name.is_empty()) else { return Ok(None) };
    match name.contains('/') || matches!(name.as_str(), "." | "..") {
        true => Err(Error::new(format!(
            "config.json: annotations: {key}: {name:?} is not the name of one directory"
        ))),
        false => Ok(Some(name.into())),
    }
}

fn subgroup_delegated(
    annotations: &BTreeMap<String, String>,
    below: bool,
) -> Result<Option<PathBuf>> {
    const KEY: &str = "run.oci.delegate-cgroup";
    match subgroup(annotations, KEY)? {
        Some(_) if !below => Err(Error::new(format!(
            "config.json: annotations: {KEY} needs run.oci.systemd.subgroup, in which the limits stay"
        ))),
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(path: &str, annotations: &[(&str, &str)]) -> Result<Wanted> {
        let all = annotations.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let bus = Bus { user: false, address: "unix:path=/b".into() };
        let path = (!path.is_empty()).then(|| Path::new(path));
        Wanted::new(path, &all, bus)
    }

    #[test]
    fn slices_are_nested_by_their_names() {
        assert_eq!(
            expand_slice("a-b-c.slice").unwrap(),
            Path::new("a.slice/a-b.slice/a-b-c.slice")
        );
        assert_eq!(expand_slice("system.slice").unwrap(), Path::new("system.slice"));
        assert_eq!(expand_slice("-.slice").unwrap(), Path::new(""));
        for bad in ["", "a", ".slice", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice"] {
            assert!(expand_slice(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_scopes_name_and_place_follow_from_the_path() {
        let given = wanted("a-b.slice:docker:c1", &[]).unwrap();
        assert_eq!(given.unit("id").name, "docker-c1.scope");
        let place = given.expected(Path::new("/x"), "id");
        assert_eq!(place, Path::new("a.slice/a-b.slice/docker-c1.scope"));
        assert_eq!(wanted("::c", &[]).unwrap().unit("id").name, "c.scope");
        let default = wanted("", &[]).unwrap();
        assert_eq!(
            default.expected(Path::new("/x"), "id"),
            Path::new("system.slice/davit-id.scope")
        );
    }

    #[test]
    fn the_users_systemd_is_found_in_our_own_group() {
        let own = Path::new("/user.slice/user-7.slice/user@7.service/app.slice/x.scope");
        assert_eq!(manager(own), Path::new("user.slice/user-7.slice/user@7.service"));
        assert_eq!(manager(Path::new("/init.scope")), Path::new(""));
    }

    #[test]
    fn paths_of_another_form_are_refused() {
        for bad in ["/a/b", "a:b", "a.slice:b:", "a:b:c", "a.slice:b:c.slice", "a.slice:b/x:c"] {
            let e = wanted(bad, &[]).unwrap_err().to_string();
            assert!(e.contains("linux.cgroupsPath"), "{bad}: {e}");
        }
    }

    #[test]
    fn annotations_are_honoured_or_refused_by_name() {
        let both = [("run.oci.systemd.subgroup", "limits"), ("run.oci.delegate-cgroup", "own")];
        let given = wanted("", &both).unwrap();
        assert_eq!(given.subgroup.as_deref(), Some(Path::new("limits")));
        assert_eq!(given.delegated.as_deref(), Some(Path::new("own")));
        for (key, value) in [
            ("run.oci.systemd.force_cgroup_v1", "/sys/fs/cgroup"),
            ("run.oci.systemd.subgroup", "../x"),
            ("run.oci.delegate-cgroup", "alone"),
            ("org.systemd.property.TasksMax", "many"),
        ] {
            let e = wanted("", &[(key, value)]).unwrap_err().to_string();
            assert!(e.contains(key), "{key}: {e}");
        }
    }
}
