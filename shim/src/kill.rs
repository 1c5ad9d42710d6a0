//! `shim kill`: a signal for containers.

use crate::cli::{Global, Kill};
use crate::container::Container;
use crate::error::{Error, Result, code};
use crate::{places, stop};

/// Sends the signal to each container and prints its name.
///
/// # Errors
/// For containers that do not exist or do not run.
pub fn kill(global: &Global, args: &Kill) -> Result<u8> {
    let root = places::state_dir(global.state.as_deref())?;
    let signal = number(&args.signal)?;
    stop::for_each(&args.names.names, |name| {
        let container = Container::find(&root, name)?;
        if !stop::is_running(&container) {
            return Err(Error::new(format!("container {name}: it is not running")));
        }
        container.runtime().kill(&container.config.id, signal)
    })
}

const NAMES: [(&str, i32); 31] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The number of a signal: `KILL`, `SIGKILL`, `kill` or `9`.
///
/// # Errors
/// For anything else.
pub fn number(text: &str) -> Result<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = NAMES.iter().find(|(known, _)| *known == name);
    let by_number = || text.parse().ok().filter(|number| (1..=64).contains(number));
    by_name.map(|(_, number)| *number).or_else(by_number).ok_or_else(|| {
        Error::new(format!("signal {text:?}: neither a name nor a number from 1 to 64"))
            .with_code(code::USAGE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for text in ["KILL", "sigkill", "9", "SIGKILL"] {
            assert_eq!(number(text).unwrap(), 9);
        }
        for text in ["", "SIG", "0", "65", "-9", "KILLL"] {
            assert!(number(text).is_err(), "{text}");
        }
    }
}
