//! Classes of cache and memory bandwidth: directories of the resctrl file system
//! (config-linux.md, IntelRdt; the kernel's Documentation/filesystems/resctrl.rst).

use crate::error::{Context, Error, Result};
use crate::plan::rdt::Rdt;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The directories of one container.
#[derive(Debug)]
pub struct Groups {
    class: PathBuf,
    monitor: Option<PathBuf>,
    /// The class was not there, and its name is the container's own.
    owns_class: bool,
}

impl Groups {
    /// Where the groups are to be.
    pub fn new(plan: &Rdt, id: &str) -> Self {
        let name = plan.class.as_deref().unwrap_or(Path::new(id));
        let class = match name.as_os_str().is_empty() {
            true => plan.root.clone(),
            false => plan.root.join(name),
        };
        let monitor = plan.monitoring.then(|| class.join("mon_groups").join(id));
        let owns_class = plan.class.is_none() && !class.exists();
        Self { class, monitor, owns_class }
    }

    /// What is to be removed with the container, in this order.
    pub fn own(&self) -> Vec<PathBuf> {
        self.monitor.iter().chain(self.owns_class.then_some(&self.class)).cloned().collect()
    }

    /// Makes what is missing, and writes the schemata.
    pub fn make(&self, plan: &Rdt) -> Result<()> {
        let wanted = || plan.caches.iter().chain(&plan.schemata);
        if self.class.is_dir() {
            let path = self.class.join("schemata");
            let have =
                std::fs::read_to_string(&path).wrap(|| format!("read {}", path.display()))?;
            if let Some(line) = plan.caches.iter().find(|line| !matches(&have, line)) {
                return Err(Error::new(format!(
                    "linux.intelRdt.closID: the class {} exists and has other schemata than {line:?}",
                    self.class.display()
                )));
            }
        } else if plan.class.is_some() && wanted().next().is_none() {
            return Err(Error::new(format!(
                "linux.intelRdt.closID: the class {} does not exist, and without schemata none is made",
                self.class.display()
            )));
        } else {
            make(&self.class)?;
        }
        for line in wanted() {
            write(&self.class.join("schemata"), &format!("{line}\n"))
                .wrap(|| "linux.intelRdt.schemata")?;
        }
        match &self.monitor {
            Some(monitor) => make(monitor).wrap(|| "linux.intelRdt.enableMonitoring"),
            None => Ok(()),
        }
    }

    /// Puts the process into them; what it forks later is born there.
    pub fn enter(&self, pid: i32) -> Result<()> {
        for group in [Some(&self.class), self.monitor.as_ref()].into_iter().flatten() {
            write(&group.join("tasks"), &pid.to_string()).wrap(|| "linux.intelRdt")?;
        }
        Ok(())
    }
}

/// Removes groups; those that are gone already are no error.
pub fn remove(groups: &[PathBuf]) -> Result<()> {
    for group in groups {
        match std::fs::remove_dir(group) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => other.wrap(|| format!("remove {}", group.display()))?,
        }
    }
    Ok(())
}

fn make(group: &Path) -> Result<()> {
    std::fs::create_dir(group).map_err(|e| {
        let full = e.raw_os_error() == Some(libc::ENOSPC);
        let hint = if full { " (the processor has no further group)" } else { "" };
        let failed: Result<()> =
            Err(e).wrap(|| format!("linux.intelRdt: make {}{hint}", group.display()));
        failed.expect_err("it was an error")
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let file = std::fs::File::options().write(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .wrap(|| format!("write {:?} to {}", text.trim_end(), path.display()))
}

/// Does the text of a `schemata` file say what `line` says?
fn matches(text: &str, line: &str) -> bool {
    let have: BTreeMap<_, _> = text.lines().filter_map(parse).collect();
    match parse(line) {
        None => false,
        Some((resource, wanted)) => have
            .get(&resource)
            .is_some_and(|have| wanted.iter().all(|(cache, value)| have.get(cache) == Some(value))),
    }
}

type Schema = (String, BTreeMap<String, String>);

/// `L3:0=0ff;1=0ff` as the resource and what it says of each cache, leading zeroes left out.
fn parse(line: &str) -> Option<Schema> {
    let (resource, values) = line.trim().split_once(':')?;
    let one = |pair: &str| {
        let (cache, value) = pair.split_once('=')?;
        let value = value.trim().trim_start_matches("0x").trim_start_matches('0');
        Some((cache.trim().to_string(), value.to_ascii_lowercase()))
    };
    let values = values.split(';').filter(|p| !p.is_empty()).map(one).collect::<Option<_>>()?;
    Some((resource.trim().to_string(), values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A directory that looks like a resctrl file system with one class.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("resctrl-{name}-{}", std::process::id()));
            fs::create_dir_all(root.join("gold/mon_groups")).unwrap();
            for file in ["schemata", "tasks", "gold/schemata", "gold/tasks"] {
                fs::write(root.join(file), "    MB:0=100;1=100\n    L3:0=0ff;1=0ff\n").unwrap();
            }
            Self(root)
        }

        fn plan(&self, class: Option<&str>, caches: &[&str], schemata: &[&str]) -> Rdt {
            let owned = |lines: &[&str]| lines.iter().map(|l| l.to_string()).collect();
            Rdt {
                root: self.0.clone(),
                class: class.map(PathBuf::from),
                caches: owned(caches),
                schemata: owned(schemata),
                monitoring: false,
            }
        }

        fn read(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).unwrap()
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_class_that_exists_is_entered_and_stays() {
        let fake = Fake::new("enter");
        let plan = fake.plan(Some("gold"), &["L3:0=ff;1=FF"], &["MB:0=050"]);
        let groups = Groups::new(&plan, "c1");
        groups.make(&plan).unwrap();
        groups.enter(4242).unwrap();
        assert!(fake.read("gold/tasks").starts_with("4242"));
        assert!(fake.read("gold/schemata").starts_with("MB:0=050\n"));
        assert!(groups.own().is_empty());
    }

    #[test]
    fn a_class_with_other_schemata_is_refused() {
        let fake = Fake::new("other");
        let plan = fake.plan(Some("gold"), &["L3:0=f"], &[]);
        let e = Groups::new(&plan, "c1").make(&plan).unwrap_err().to_string();
        assert!(e.contains("closID") && e.contains("L3:0=f"), "{e}");
    }

    #[test]
    fn a_missing_class_is_made_for_schemata_alone() {
        let fake = Fake::new("missing");
        let plan = fake.plan(Some("silver"), &[], &[]);
        let e = Groups::new(&plan, "c1").make(&plan).unwrap_err().to_string();
        assert!(e.contains("does not exist"), "{e}");
        let plan = fake.plan(Some("silver"), &[], &["L3:0=f"]);
        // On a real one the file comes with the directory.
        let e = Groups::new(&plan, "c1").make(&plan).unwrap_err().to_string();
        assert!(fake.0.join("silver").is_dir() && e.contains("schemata"), "{e}");
    }

    #[test]
    fn the_containers_own_class_and_monitor_are_removed() {
        let fake = Fake::new("own");
        let mut plan = fake.plan(None, &[], &[]);
        let groups = Groups::new(&plan, "c1");
        groups.make(&plan).unwrap();
        assert_eq!(groups.own(), [fake.0.join("c1")]);
        remove(&groups.own()).unwrap();
        remove(&groups.own()).unwrap();
        assert!(!fake.0.join("c1").exists());
        plan.monitoring = true;
        plan.class = Some("gold".into());
        let groups = Groups::new(&plan, "c1");
        groups.make(&plan).unwrap();
        assert_eq!(groups.own(), [fake.0.join("gold/mon_groups/c1")]);
        assert!(fake.0.join("gold/mon_groups/c1").is_dir());
    }

    #[test]
    fn the_default_class_is_the_root() {
        let fake = Fake::new("root");
        let plan = fake.plan(Some(""), &[], &[]);
        let groups = Groups::new(&plan, "c1");
        groups.make(&plan).unwrap();
        groups.enter(7).unwrap();
        assert!(fake.read("tasks").starts_with('7'));
    }
}
