//! What a container's two keepers are started with: one argument vector, no clap, no JSON.
//!
//! The reaper and the monitor live as long as the container, so neither may carry a
//! parser's garbage around. The command line that a user sees in ps(1) is the whole
//! truth about what they were told to do.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

/// First argument of the process that reaps a container.
pub const REAPER: &str = "@reaper";
/// First argument of the process that pumps a container's stdio.
pub const MONITOR: &str = "@monitor";

/// Descriptors are passed by number and stay open across exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orders {
    /// The container's id, 64 hex digits; also its name for the runtime.
    pub id: String,
    /// The directory of all containers.
    pub root: PathBuf,
    /// The bundle given to the runtime.
    pub bundle: PathBuf,
    /// The runtime's executable.
    pub runtime: PathBuf,
    /// Arguments before the runtime's verb.
    pub runtime_args: Vec<OsString>,
    /// How long one call of the runtime may take.
    pub deadline: Duration,
    /// Executable that unmounts the bundle when the container goes (image bundles only).
    pub imgtool: Option<PathBuf>,
    /// The file that receives the log; none without.
    pub log: Option<PathBuf>,
    /// The container has a terminal.
    pub tty: bool,
    /// The container's stdin is open.
    pub stdin: bool,
    /// Remove everything when the container has ended.
    pub remove: bool,
    /// Remove everything when the container could not be started.
    pub fresh: bool,
    /// The container's lock, held for as long as its reaper lives.
    pub lock_fd: RawFd,
    /// Listening socket for attach clients.
    pub attach_fd: RawFd,
    /// Where the reaper reports to its parent.
    pub report_fd: RawFd,
}

impl Orders {
    /// The container's own directory.
    pub fn dir(&self) -> PathBuf {
        self.root.join(&self.id)
    }

    /// The arguments that say all this to the reaper.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args = Vec::new();
        let mut put = |key: &str, value: &OsStr| {
            let mut arg = OsString::from(key);
            arg.push("=");
            arg.push(value);
            args.push(arg);
        };
        put("id", self.id.as_ref());
        put("root", self.root.as_os_str());
        put("bundle", self.bundle.as_os_str());
        put("runtime", self.runtime.as_os_str());
        for arg in &self.runtime_args {
            put("runtime-arg", arg);
        }
        put("deadline", self.deadline.as_secs().to_string().as_ref());
        if let Some(imgtool) = &self.imgtool {
            put("imgtool", imgtool.as_os_str());
        }
        if let Some(log) = &self.log {
            put("log", log.as_os_str());
        }
        for (key, on) in [
            ("tty", self.tty),
            ("stdin", self.stdin),
            ("remove", self.remove),
            ("fresh", self.fresh),
        ] {
            if on {
                put(key, "yes".as_ref());
            }
        }
        put("lock", self.lock_fd.to_string().as_ref());
        put("attach", self.attach_fd.to_string().as_ref());
        put("report", self.report_fd.to_string().as_ref());
        args
    }

    /// Reads what `to_args` wrote.
    ///
    /// # Errors
    /// On any key or number that `to_args` does not write.
    pub fn from_args(args: impl Iterator<Item = OsString>) -> Result<Self> {
        let mut orders = Self {
            id: String::new(),
            root: PathBuf::new(),
            bundle: PathBuf::new(),
            runtime: PathBuf::new(),
            runtime_args: Vec::new(),
            deadline: Duration::ZERO,
            imgtool: None,
            log: None,
            tty: false,
            stdin: false,
            remove: false,
            fresh: false,
            lock_fd: -1,
            attach_fd: -1,
            report_fd: -1,
        };
        for arg in args {
            orders.set(&arg)?;
        }
        if orders.id.is_empty() || orders.root.as_os_str().is_empty() {
            return Err(Error::new("internal arguments: no container named"));
        }
        Ok(orders)
    }

    fn set(&mut self, arg: &OsStr) -> Result<()> {
        let (key, value) = split(arg)?;
        match key {
            b"id" => self.id = text(value),
            b"root" => self.root = value.into(),
            b"bundle" => self.bundle = value.into(),
            b"runtime" => self.runtime = value.into(),
            b"runtime-arg" => self.runtime_args.push(value),
            b"deadline" => self.deadline = Duration::from_secs(number(&value)?),
            b"imgtool" => self.imgtool = Some(value.into()),
            b"log" => self.log = Some(value.into()),
            b"tty" => self.tty = true,
            b"stdin" => self.stdin = true,
            b"remove" => self.remove = true,
            b"fresh" => self.fresh = true,
            b"lock" => self.lock_fd = number(&value)?,
            b"attach" => self.attach_fd = number(&value)?,
            b"report" => self.report_fd = number(&value)?,
            _ => return Err(unknown(arg)),
        }
        Ok(())
    }
}

/// Splits `key=value`.
///
/// # Errors
/// When there is no `=`.
pub fn split(arg: &OsStr) -> Result<(&[u8], OsString)> {
    let bytes = arg.as_bytes();
    let at = bytes.iter().position(|b| *b == b'=');
    let at = at.ok_or_else(|| unknown(arg))?;
    Ok((&bytes[..at], OsString::from_vec(bytes[at + 1..].to_vec())))
}

/// Reads a decimal value.
///
/// # Errors
/// When it is none.
pub fn number<T: std::str::FromStr>(value: &OsStr) -> Result<T> {
    let parsed = value.to_str().and_then(|v| v.parse().ok());
    parsed.ok_or_else(|| unknown(value))
}

/// The error for an argument that no parent of ours writes.
pub fn unknown(arg: &OsStr) -> Error {
    Error::new(format!("internal argument {arg:?}: not understood"))
}

fn text(value: OsString) -> String {
    value.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_carry_everything() {
        let orders = Orders {
            id: "ab".repeat(32),
            root: "/var/lib/x".into(),
            bundle: OsString::from_vec(b"/b/\xff=\n".to_vec()).into(),
            runtime: "/bin/runc".into(),
            runtime_args: vec!["--root".into(), "/r".into()],
            deadline: Duration::from_secs(7),
            imgtool: Some("/bin/imgtool".into()),
            log: Some("/dev/full".into()),
            tty: true,
            stdin: false,
            remove: true,
            fresh: false,
            lock_fd: 3,
            attach_fd: 4,
            report_fd: 5,
        };
        let args = orders.to_args().into_iter();
        assert_eq!(Orders::from_args(args).unwrap(), orders);
        assert!(Orders::from_args(["id".into()].into_iter()).is_err());
        assert!(Orders::from_args(["id=x".into(), "y=z".into()].into_iter()).is_err());
    }
}
