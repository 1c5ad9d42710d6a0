//! AppArmor and SELinux labels of the process.
//!
//! They are written through a procfs that nobody else can reach: a /proc that the image provides
//! could swallow them.

use crate::error::{Context, Error, Result};
use crate::plan::Rootfs;
use crate::plan::process::Process;
use crate::procfs::{self, Proc};
use std::path::Path;

/// Sets the labels that take effect at the next execve(2).
pub fn apply(process: &Process, proc: Option<&Proc>) -> Result<()> {
    if let Some(profile) = &process.apparmor {
        apparmor(profile, proc).wrap(|| format!("process.apparmorProfile: {profile:?}"))?;
    }
    if let Some(label) = &process.selinux {
        selinux(label, proc).wrap(|| format!("process.selinuxLabel: {label:?}"))?;
    }
    Ok(())
}

/// Refuses a label for mounts where nothing would heed it: the file systems' own words for that
/// tell of an unknown option.
pub fn check_mount_label(plan: &Rootfs) -> Result<()> {
    match &plan.mount_label {
        Some(label) if !has_selinux() => Err(Error::new(format!(
            "config.json: linux.mountLabel: {label:?}: SELinux is not enabled on this host"
        ))),
        _ => Ok(()),
    }
}

/// Is AppArmor enabled on this host?
pub fn has_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|s| s.starts_with(b"Y"))
}

/// Is SELinux enabled on this host?
pub fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

fn apparmor(profile: &str, proc: Option<&Proc>) -> Result<()> {
    if !has_apparmor() {
        return Err(Error::new(
            "config provided but apparmor not supported: AppArmor is not enabled on this host",
        ));
    }
    let text = format!("exec {profile}");
    // The directory of AppArmor's own exists from Linux 5.8 on.
    let proc = procfs::given(proc)?;
    match write(proc, "thread-self/attr/apparmor/exec", &text) {
        Err(e) if e.errno() == Some(libc::ENOENT) => write(proc, "thread-self/attr/exec", &text),
        other => other,
    }
}

fn selinux(label: &str, proc: Option<&Proc>) -> Result<()> {
    if !has_selinux() {
        return Err(Error::new(
            "selinux label is specified in config, but selinux is disabled or not supported: SELinux is not enabled on this host",
        ));
    }
    write(procfs::given(proc)?, "thread-self/attr/exec", label)
}

fn write(proc: &Proc, path: &str, text: &str) -> Result<()> {
    // podman recognises a refused label by the file's name between backticks.
    proc.write(path, text.as_bytes()).wrap(|| format!("write to `/proc/{path}`"))
}
