//! `linux.netDevices`: network devices of the runtime's namespace that become the container's.

use super::namespaces::{Kind, Namespaces};
use crate::error::{Error, Result};
use oci_spec::runtime::Linux;
use serde::Serialize;

/// Longest name of a device (netdevice(7), IFNAMSIZ without the terminator).
const LONGEST: usize = 15;

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetDevice {
    /// Its name in the runtime's network namespace.
    pub from: String,
    /// Its name in the container's.
    pub to: String,
}

/// Checks `linux.netDevices`; sorted by name.
pub fn net_devices(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<NetDevice>> {
    let mut all = Vec::new();
    for (from, device) in linux.net_devices().iter().flatten() {
        let wrong =
            |why: String| Error::new(format!("config.json: linux.netDevices[{from:?}]{why}"));
        if !namespaces.has(Kind::Network) {
            return Err(wrong(": linux.namespaces has no \"network\" to move it to".into()));
        }
        let to = device.name().clone().filter(|name| !name.is_empty());
        check_name(from).map_err(|why| wrong(format!(": {why}")))?;
        if let Some(name) = &to {
            check_name(name).map_err(|why| wrong(format!(".name: {name:?} {why}")))?;
        }
        all.push(NetDevice { from: from.clone(), to: to.unwrap_or_else(|| from.clone()) });
    }
    all.sort_by(|a: &NetDevice, b: &NetDevice| a.from.cmp(&b.from));
    let doubled = all.iter().enumerate().find(|(i, d)| all[..*i].iter().any(|o| o.to == d.to));
    match doubled {
        Some((_, device)) => Err(Error::new(format!(
            "config.json: linux.netDevices[{:?}].name: {:?} is the name of another one, too",
            device.from, device.to
        ))),
        None => Ok(all),
    }
}

/// What the kernel takes for a name (dev_valid_name).
fn check_name(name: &str) -> std::result::Result<(), String> {
    let bad = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c == '\0';
    match name {
        "" | "." | ".." => Err("is no name for a network device".into()),
        name if name.len() > LONGEST => Err(format!("is longer than {LONGEST} bytes")),
        name if name.contains(bad) => Err("is no name for a network device".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(devices: &str) -> Result<Vec<NetDevice>> {
        let json = format!(r#"{{"namespaces":[{{"type":"network"}}],"netDevices":{devices}}}"#);
        let linux: Linux = serde_json::from_str(&json).unwrap();
        net_devices(&linux, &Namespaces::new(&linux)?)
    }

    #[test]
    fn a_name_is_kept_unless_another_is_given() {
        let all = read(r#"{"eth1":{},"eth0":{"name":"lan"}}"#).unwrap();
        let names: Vec<_> = all.iter().map(|d| (d.from.as_str(), d.to.as_str())).collect();
        assert_eq!(names, [("eth0", "lan"), ("eth1", "eth1")]);
    }

    #[test]
    fn names_that_the_kernel_would_not_take_are_refused() {
        for (devices, part) in [
            (r#"{"eth0":{"name":"sixteen-letters-"}}"#, "longer than 15"),
            (r#"{"a/b":{}}"#, "a/b"),
            (r#"{"eth0":{"name":"a%d"}}"#, "name"),
            (r#"{"eth0":{"name":"eth1"},"eth1":{}}"#, "another one"),
        ] {
            let e = read(devices).unwrap_err().to_string();
            assert!(e.contains(part) && e.contains("linux.netDevices["), "{devices}: {e}");
        }
    }

    #[test]
    fn the_hosts_namespace_is_no_destination() {
        let linux: Linux = serde_json::from_str(r#"{"netDevices":{"eth0":{}}}"#).unwrap();
        let e = net_devices(&linux, &Namespaces::default()).unwrap_err().to_string();
        assert!(e.contains("network"), "{e}");
    }
}
