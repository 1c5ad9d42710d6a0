//! Images, by executing imgtool: `unpack` makes a bundle, `mount` and `umount` are
//! idempotent (also after a reboot).

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Result};

/// Makes `bundle` from `image`. imgtool's progress and complaints go to our stderr.
///
/// # Errors
/// When imgtool cannot be executed or fails.
pub fn unpack(
    imgtool: &Path,
    settings: &[OsString],
    image: &str,
    bundle: &Path,
    command: &[OsString],
) -> Result<()> {
    let mut unpack = Command::new(imgtool);
    unpack.arg("unpack").args(settings).arg(image).arg(bundle);
    unpack.args(command).stdin(Stdio::null()).stdout(Stdio::null());
    let status = unpack.status().wrap_with(|| format!("execute {}", imgtool.display()))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(_) => Err(Error::reported(format!("unpack image {image}"))),
        None => Err(Error::new(status.to_string()).wrap(format!("unpack image {image}"))),
    }
}

/// Mounts a bundle's rootfs again.
///
/// # Errors
/// When imgtool fails, with its own words.
pub fn mount(imgtool: &Path, bundle: &Path) -> Result<()> {
    quietly(imgtool, "mount", bundle)
}

/// Unmounts a bundle's rootfs. A bundle that is not there needs nothing.
///
/// # Errors
/// When imgtool fails, with its own words.
pub fn umount(imgtool: &Path, bundle: &Path) -> Result<()> {
    match bundle.exists() {
        true => quietly(imgtool, "umount", bundle),
        false => Ok(()),
    }
}

fn quietly(imgtool: &Path, verb: &str, bundle: &Path) -> Result<()> {
    let args: [&OsStr; 2] = [verb.as_ref(), bundle.as_os_str()];
    let mut command = Command::new(imgtool);
    command.args(args).stdin(Stdio::null());
    crate::sys::unblock_signals(&mut command);
    let output = command.output().wrap_with(|| format!("execute {}", imgtool.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    let why = match said.is_empty() {
        true => output.status.to_string(),
        false => said.to_owned(),
    };
    Err(Error::new(why).wrap(format!("{verb} bundle {}", bundle.display())))
}
