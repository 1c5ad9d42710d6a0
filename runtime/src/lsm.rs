//! AppArmor and SELinux labels of the process.
//!
//! They are written through the host's /proc, before the container's root is entered: a /proc that
//! the image provides could swallow them.

use crate::error::{Context, Error, Result};
use crate::plan::process::Process;
use crate::sys::fs;
use std::path::Path;

/// Sets the labels that take effect at the next execve(2).
pub fn apply(process: &Process) -> Result<()> {
    if let Some(profile) = &process.apparmor {
        apparmor(profile).wrap(|| format!("process.apparmorProfile: {profile:?}"))?;
    }
    if let Some(label) = &process.selinux {
        selinux(label).wrap(|| format!("process.selinuxLabel: {label:?}"))?;
    }
    Ok(())
}

/// Is AppArmor enabled on this host?
pub fn has_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|s| s.starts_with(b"Y"))
}

/// Is SELinux enabled on this host?
pub fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

fn apparmor(profile: &str) -> Result<()> {
    if !has_apparmor() {
        return Err(Error::new("AppArmor is not enabled on this host"));
    }
    let text = format!("exec {profile}");
    // The directory of AppArmor's own exists from Linux 5.8 on.
    match write("/proc/thread-self/attr/apparmor/exec", &text) {
        Err(e) if e.errno() == Some(libc::ENOENT) => write("/proc/thread-self/attr/exec", &text),
        other => other,
    }
}

fn selinux(label: &str) -> Result<()> {
    if !has_selinux() {
        return Err(Error::new("SELinux is not enabled on this host"));
    }
    write("/proc/thread-self/attr/exec", label)
}

fn write(path: &str, text: &str) -> Result<()> {
    // podman recognises a refused label by the file's name between backticks.
    fs::openat(fs::CWD, Path::new(path), libc::O_WRONLY, 0)
        .and_then(|file| fs::write_once(&file, text.as_bytes()))
        .wrap(|| format!("write to `{path}`"))
}
