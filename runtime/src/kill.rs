//! `kill`: sends a signal to a container's first process, or to all of its processes.

use crate::container::{Container, ContainerId, Status};
use crate::error::{Context, Error, Result};
use crate::sys::process;
use std::path::Path;

/// Signals by name, without `SIG`, as on x86, Arm, RISC-V and most others (signal(7)).
const NAMES: [(&str, i32); 34] = [
    ("ABRT", libc::SIGABRT),
    ("ALRM", libc::SIGALRM),
    ("BUS", libc::SIGBUS),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("FPE", libc::SIGFPE),
    ("HUP", libc::SIGHUP),
    ("ILL", libc::SIGILL),
    ("INT", libc::SIGINT),
    ("IO", libc::SIGIO),
    ("IOT", libc::SIGABRT),
    ("KILL", libc::SIGKILL),
    ("PIPE", libc::SIGPIPE),
    ("POLL", libc::SIGIO),
    ("PROF", libc::SIGPROF),
    ("PWR", libc::SIGPWR),
    ("QUIT", libc::SIGQUIT),
    ("SEGV", libc::SIGSEGV),
    ("STKFLT", libc::SIGSTKFLT),
    ("STOP", libc::SIGSTOP),
    ("SYS", libc::SIGSYS),
    ("TERM", libc::SIGTERM),
    ("TRAP", libc::SIGTRAP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("VTALRM", libc::SIGVTALRM),
    ("WINCH", libc::SIGWINCH),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
];

/// A signal by number or name: `9`, `KILL`, `sigkill`, `RTMIN+3`, `RTMAX-1`.
pub fn parse_signal(text: &str) -> Result<i32> {
    let unknown = || Error::new(format!("unknown signal {text:?} (see signal(7))"));
    if let Ok(number) = text.parse::<i32>() {
        // 0 asks whether the process exists, which `state` answers.
        return if (1..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(name, _)| *name == bare) {
        return Ok(*number);
    }
    const RTMIN: i32 = 34;
    const RTMAX: i32 = 64;
    let number = match (bare.strip_prefix("RTMIN"), bare.strip_prefix("RTMAX")) {
        (Some(""), _) => RTMIN,
        (_, Some("")) => RTMAX,
        (Some(plus), _) => RTMIN + offset(plus, '+').ok_or_else(unknown)?,
        (_, Some(minus)) => RTMAX - offset(minus, '-').ok_or_else(unknown)?,
        _ => return Err(unknown()),
    };
    if (RTMIN..=RTMAX).contains(&number) { Ok(number) } else { Err(unknown()) }
}

fn offset(text: &str, sign: char) -> Option<i32> {
    text.strip_prefix(sign)?.parse().ok()
}

/// The verb.
pub fn kill(root: &Path, id: &ContainerId, signal: i32, all: bool) -> Result<()> {
    let container = Container::open(root, id)?;
    if all {
        return kill_all(&container, signal);
    }
    // Callers recognise this text and take the container for ended.
    let ended = || Error::new(format!("container not running: {id}"));
    let pidfd = match container.status()? {
        Status::Stopped | Status::Creating => return Err(ended()),
        _ => container.pidfd()?.ok_or_else(ended)?,
    };
    match process::pidfd_kill(&pidfd, signal) {
        Err(e) if e.errno() == Some(libc::ESRCH) => return Err(ended()),
        other => other.wrap(|| format!("signal container {id}"))?,
    }
    if signal == libc::SIGKILL && container.cgroup().frozen()? {
        // A frozen process dies when it thaws.
        container.cgroup().thaw()?;
    }
    Ok(())
}

fn kill_all(container: &Container, signal: i32) -> Result<()> {
    let cgroup = container.cgroup();
    let frozen = cgroup.frozen()?;
    for pid in cgroup.pids()? {
        match process::kill(pid, signal) {
            Err(e) if e.errno() != Some(libc::ESRCH) => {
                return Err(
                    e.wrap(format!("signal process {pid} of container {}", container.record.id))
                );
            }
            _ => {}
        }
    }
    if frozen && signal == libc::SIGKILL { cgroup.thaw() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_many_names() {
        for (text, number) in
            [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)]
        {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for bad in ["0", "65", "-9", "NONSENSE", "RTMIN-1", "RTMIN+40", ""] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }
}
