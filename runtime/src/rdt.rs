//! Classes of cache and memory bandwidth: directories of the resctrl file system
//! (config-linux.md, IntelRdt; the kernel's Documentation/filesystems/resctrl.rst).

use crate::error::{Context, Error, Result};
use crate::plan::rdt::Rdt;
use serde_json::{Map, Value};
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

/// Gives the class of a container other schemata (`update`); `lines` name their resource.
pub fn change(plan: &Rdt, id: &str, lines: &[String]) -> Result<()> {
    let file = Groups::new(plan, id).class.join("schemata");
    // The kernel takes or refuses each line by itself; "\n" ends one.
    lines.iter().try_for_each(|line| write(&file, &format!("{line}\n")))
}

/// What is known of a container's class, in the words of runc's `events`: the schemata, those of the
/// default class, what the hardware has, and, with a monitoring group, what was used of it.
pub fn statistics(plan: &Rdt, id: &str) -> Map<String, Value> {
    let groups = Groups::new(plan, id);
    let mut all = Map::new();
    let resources = [
        ("L3", "l3_cache", &["cbm_mask", "min_cbm_bits", "num_closids"][..]),
        ("MB", "mem_bw", &["bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids"][..]),
    ];
    for (resource, name, files) in resources {
        for (directory, suffix) in [(&groups.class, ""), (&plan.root, "_root")] {
            if let Some(line) = schema(directory, resource) {
                all.insert(format!("{name}_schema{suffix}"), line.into());
            }
        }
        let info = plan.root.join("info").join(resource);
        let known: Map<_, _> = files.iter().filter_map(|file| entry(&info, file)).collect();
        if !known.is_empty() {
            all.insert(format!("{name}_info"), known.into());
        }
    }
    if let Some(monitor) = &groups.monitor {
        for (key, files) in [
            ("mbm_stats", &["mbm_total_bytes", "mbm_local_bytes"][..]),
            ("cmt_stats", &["llc_occupancy"]),
        ] {
            let used = monitored(monitor, files);
            if !used.is_empty() {
                all.insert(key.into(), used.into());
            }
        }
    }
    all
}

/// The line of `schemata` that is about the resource.
fn schema(directory: &Path, resource: &str) -> Option<String> {
    let text = std::fs::read_to_string(directory.join("schemata")).ok()?;
    let of = |line: &&str| line.split_once(':').is_some_and(|(name, _)| name.trim() == resource);
    text.lines().find(of).map(|line| line.trim().to_string())
}

/// A file as a JSON member: a number, or a text as a mask is one.
fn entry(directory: &Path, file: &str) -> Option<(String, Value)> {
    let text = std::fs::read_to_string(directory.join(file)).ok()?;
    let text = text.trim();
    let value = match text.parse::<u64>() {
        Ok(number) if !file.ends_with("mask") => number.into(),
        _ => text.into(),
    };
    Some((file.to_string(), value))
}

/// The files of each L3 domain of a monitoring group, in the order of the domains.
fn monitored(monitor: &Path, files: &[&str]) -> Vec<Value> {
    let entries = std::fs::read_dir(monitor.join("mon_data")).into_iter().flatten().flatten();
    let mut domains: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    domains.sort();
    let used =
        |domain: &PathBuf| files.iter().filter_map(|f| entry(domain, f)).collect::<Map<_, _>>();
    domains.iter().map(used).filter(|one| !one.is_empty()).map(Value::from).collect()
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
    fn a_class_is_changed_and_told_of() {
        let fake = Fake::new("change");
        let mut plan = fake.plan(Some("gold"), &[], &[]);
        plan.monitoring = true;
        let domain = fake.0.join("gold/mon_groups/c1/mon_data/mon_L3_00");
        fs::create_dir_all(&domain).unwrap();
        fs::write(domain.join("llc_occupancy"), "4096\n").unwrap();
        fs::create_dir_all(fake.0.join("info/L3")).unwrap();
        fs::write(fake.0.join("info/L3/cbm_mask"), "100\n").unwrap();
        fs::write(fake.0.join("info/L3/num_closids"), "16\n").unwrap();
        fs::write(fake.0.join("gold/schemata"), "").unwrap();
        change(&plan, "c1", &["L3:0=f;1=f".into()]).unwrap();
        assert_eq!(fake.read("gold/schemata"), "L3:0=f;1=f\n");
        let wanted = serde_json::json!({
            "l3_cache_schema": "L3:0=f;1=f",
            "l3_cache_schema_root": "L3:0=0ff;1=0ff",
            "l3_cache_info": { "cbm_mask": "100", "num_closids": 16 },
            "mem_bw_schema_root": "MB:0=100;1=100",
            "cmt_stats": [{ "llc_occupancy": 4096 }],
        });
        assert_eq!(Value::from(statistics(&plan, "c1")), wanted);
        let e = change(&fake.plan(Some("none"), &[], &[]), "c1", &["L3:0=f".into()]);
        assert!(e.unwrap_err().to_string().contains("none/schemata"));
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
