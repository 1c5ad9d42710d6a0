//! The last steps of both child scripts: from a process with the runtime's privileges to one with
//! the container's, and on to its program.
//!
//! The types make the order fixed where a wrong one is a hole: [`Confined`] can be had only by
//! giving up privileges, and only it can execute the program.

use crate::caps;
use crate::error::{Context, Error, Result};
use crate::plan::process::Process;
use crate::plan::seccomp::Seccomp;
use crate::rootfs;
use crate::seccomp::{FLAG_WAIT_KILLABLE_RECV, Filter};
use crate::sync::{Child, FromChild, ToChild};
use crate::sys::{self, fs, process, signal};
use crate::{rlimits, scheduling, user};
use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// Where a program is looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process that has the container's privileges and no more.
pub struct Confined {
    program: PathBuf,
    argv: Vec<CString>,
    envp: Vec<CString>,
    /// With no_new_privs the filter goes in last of all.
    filter: Option<Filter>,
    /// The first descriptor to be closed by execve(2); `None` where that has been arranged.
    cloexec_from: Option<u32>,
}

/// Gives up everything that the plan does not grant.
pub fn confine(
    process: &Process,
    seccomp: Option<&Seccomp>,
    preserve_fds: u32,
    sync: &Child,
) -> Result<Confined> {
    scheduling::apply(process)?;
    limit(process, sync)?;
    if let Some(mask) = process.umask {
        process::umask(mask);
    }
    let mut capabilities = process.capabilities;
    capabilities.limit_to(caps::held()?);
    caps::drop_bounding(capabilities.bounding)?;
    let mut cloexec_from = Some(3 + preserve_fds);
    // A directory that only root may enter is entered now, one that only the user may, later.
    let entered = rootfs::change_directory(&process.cwd);
    if process.no_new_privileges {
        process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).wrap(|| "process.noNewPrivileges")?;
    } else if let Some(seccomp) = seccomp {
        // Without no_new_privs a filter needs CAP_SYS_ADMIN, so our own next calls must pass it:
        // what an older profile does not know comes before. All that we open is close-on-exec.
        cloexec_from.take().map(fs::cloexec_from).transpose()?;
        install(&seccomp.filter, sync)?;
    }
    user::switch(process)?;
    caps::apply(&capabilities).wrap(|| "process.capabilities")?;
    if entered.is_err() {
        rootfs::change_directory(&process.cwd)?;
    }
    let program = find_program(&process.args[0], &process.env)?;
    let strings =
        |all: &[String]| all.iter().map(|s| sys::cstring(s.as_str())).collect::<Result<Vec<_>>>();
    let mut env = process.env.clone();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", user::home(process.uid)));
    }
    let late = match seccomp.filter(|_| process.no_new_privileges) {
        // Whoever starts the program may be another process than our parent, who is here to take
        // the listener now.
        Some(seccomp) if seccomp.filter.notify => {
            cloexec_from.take().map(fs::cloexec_from).transpose()?;
            install(&seccomp.filter, sync)?;
            None
        }
        other => other.map(|seccomp| seccomp.filter.clone()),
    };
    Ok(Confined {
        program,
        argv: strings(&process.args)?,
        envp: strings(&env)?,
        filter: late,
        cloexec_from,
    })
}

/// Sets the limits ourselves, or has the parent do it: raising one takes a capability that the
/// root of a user namespace does not have.
fn limit(process: &Process, sync: &Child) -> Result<()> {
    match rlimits::apply(0, &process.rlimits) {
        Err(e) if e.errno() == Some(libc::EPERM) => {
            sync.say(&FromChild::NeedsLimits, None)?;
            sync.await_message(ToChild::Limited)
        }
        other => other,
    }
}

/// Puts the filter in force; where it has a listener, the agent holds it when this returns.
fn install(filter: &Filter, sync: &Child) -> Result<()> {
    let listener = process::install_seccomp(&filter.program, filter.flags)
        .map_err(|e| explain(filter, e).wrap("linux.seccomp"))?;
    match listener {
        Some(listener) => sync.hand_over(listener.as_fd()).wrap(|| "linux.seccomp.listenerPath"),
        None => Ok(()),
    }
}

/// What the kernel may be too old for, if it calls the flags invalid.
fn explain(filter: &Filter, error: Error) -> Error {
    let killable = filter.flags & FLAG_WAIT_KILLABLE_RECV != 0;
    match error.errno() {
        Some(libc::EINVAL) if killable => {
            error.wrap("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs Linux 5.19")
        }
        Some(libc::EINVAL) if filter.notify => error.wrap("SCMP_ACT_NOTIFY needs Linux 5.0"),
        Some(libc::EBUSY) if filter.notify => {
            error.wrap("an outer filter has a listener, and the kernel takes only one")
        }
        _ => error,
    }
}

impl Confined {
    /// Executes the program; returns only when that fails.
    ///
    /// Every signal is given its default disposition first: what the caller or Rust's start-up
    /// ignores would stay ignored. After this nothing of the runtime is left but stdio and what
    /// `--preserve-fds` names.
    pub fn execute(self) -> Result<Infallible> {
        signal::default_dispositions();
        signal::unblock_all()?;
        self.cloexec_from.map(fs::cloexec_from).transpose()?;
        if let Some(filter) = &self.filter {
            // It has no listener: those are installed earlier.
            process::install_seccomp(&filter.program, filter.flags).wrap(|| "linux.seccomp")?;
        }
        process::execve(&self.program, &self.argv, &self.envp).map_err(|e| match e.errno() {
            Some(libc::E2BIG) => e.wrap(
                "process.args and process.env: together they exceed what execve(2) takes: 128 KiB for one, a quarter of RLIMIT_STACK for all",
            ),
            _ => e.wrap("process.args"),
        })
    }
}

/// The program that `name` means to the confined process, as execvp(3) would look for it.
///
/// The messages are those by which engines tell "not found" (exit code 127) from "not executable"
/// (126).
fn find_program(name: &str, env: &[String]) -> Result<PathBuf> {
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(e) => Err(e.wrap(format!("exec: {name:?}")).wrap("process.args")),
        };
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut refused = None;
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = Path::new(directory).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(e) if e.errno() == Some(libc::EACCES) => refused = Some((candidate, e)),
            Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => {}
            // As in execvp(3), what was not looked at is not passed over.
            Err(e) => return Err(e.wrap(format!("exec: {candidate:?}")).wrap("process.args")),
        }
    }
    Err(match refused {
        Some((candidate, e)) => e.wrap(format!("exec: {candidate:?}")).wrap("process.args"),
        None => {
            Error::new(format!("process.args: exec: {name:?}: executable file not found in $PATH"))
        }
    })
}

fn executable(path: &Path) -> Result<()> {
    // A filter that is in force already may know faccessat(2) and not yet faccessat2(2), which asks
    // with the capabilities that a user other than root has been granted.
    match fs::accessat_real(fs::CWD, path, libc::X_OK) {
        Err(e) if e.errno() == Some(libc::EACCES) => fs::accessat(fs::CWD, path, libc::X_OK)?,
        // No answer about a file: the filter's. execve(2) will tell.
        Err(e) if matches!(e.errno(), Some(libc::EPERM | libc::ENOSYS)) => {}
        other => other?,
    }
    // A directory is "executable" too.
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            Err(sys::failed(libc::EACCES, || format!("{path:?} is a directory")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let env = ["PATH=/nowhere:/bin:/usr/bin".to_string()];
        assert_eq!(find_program("sh", &env).unwrap(), Path::new("/bin/sh"));
        let e = find_program("no-such-program", &env).unwrap_err().to_string();
        assert!(e.contains("executable file not found in $PATH"), "{e}");
        let e = find_program("/no/such", &env).unwrap_err().to_string();
        assert!(e.contains("no such file or directory"), "{e}");
    }

    #[test]
    fn a_directory_is_no_program() {
        let e = find_program("/usr", &[]).unwrap_err().to_string();
        assert!(e.contains("is a directory") && e.contains("permission denied"), "{e}");
    }
}
