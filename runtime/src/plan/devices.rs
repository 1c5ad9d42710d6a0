//! `linux.devices` and the devices that every container has.

use super::mounts::{Mount, Source, clean};
use crate::error::{Error, Result};
use oci_spec::runtime::{Linux, LinuxDeviceType};
use serde::Serialize;
use std::path::{Path, PathBuf};

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

    #[test]
    fn a_device_of_the_configuration_replaces_the_default() {
        let json =
            r#"{"devices":[{"path":"/dev/null","type":"c","major":1,"minor":3,"fileMode":384}]}"#;
        let all = devices(&serde_json::from_str(json).unwrap(), &[]).unwrap();
        assert_eq!(all.len(), 6);
        assert_eq!(all[0].mode & 0o777, 0o600);
    }
}
