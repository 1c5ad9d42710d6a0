//! The OCI runtime, driven by argv, files and exit codes alone; every call has a deadline.
//!
//! `create` gets the container's own stdio. What went wrong is read from `--log FILE
//! --log-format json`, which runc, crun and ours write, else from the runtime's stderr.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags};

use crate::error::{Context, Error, Result, code};
use crate::process;

/// An OCI runtime for one container.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// The executable.
    pub path: PathBuf,
    /// Arguments before the verb.
    pub args: Vec<OsString>,
    /// How long one call may take.
    pub deadline: Duration,
    /// Where the runtime writes its log, in JSON lines.
    pub log: PathBuf,
    /// The OOM score for the runtime and, through it, for the container.
    pub oom_score_adj: String,
}

impl Runtime {
    /// A command up to and including its verb.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.args);
        command.arg("--log").arg(&self.log);
        command.args(["--log-format", "json", verb]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // A Ctrl-C at the terminal is ours to translate, not the runtime's to die of.
        command.process_group(0);
        crate::sys::tie_to_us(&mut command, self.oom_score_adj.clone());
        command
    }

    /// Starts a command, with a fresh runtime log.
    ///
    /// # Errors
    /// When the runtime cannot be executed.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let _ = std::fs::remove_file(&self.log);
        command.spawn().wrap_with(|| format!("execute the runtime {}", self.path.display()))
    }

    /// Runs `verb ARGS` to its end.
    ///
    /// # Errors
    /// When it cannot be executed, fails (with the runtime's own words), or is killed
    /// because its deadline passed.
    pub fn call(&self, verb: &str, args: &[&str]) -> Result<()> {
        let mut command = self.command(verb);
        command.args(args).stderr(Stdio::piped());
        let mut child = self.spawn(&mut command)?;
        self.finish(verb, &mut child, None)
    }

    /// Awaits a spawned call and judges it. `stderr` is where it may have complained, when
    /// that is the container's own.
    ///
    /// # Errors
    /// As `call`.
    pub fn finish(
        &self,
        verb: &str,
        child: &mut Child,
        stderr: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let timely = await_child(child, self.deadline)?;
        if !timely {
            let _ = child.kill();
        }
        let status = child.wait().wrap("wait for the runtime")?;
        let name = self.path.display();
        if !timely {
            let _ = std::fs::remove_file(&self.log);
            return Err(Error::new(format!(
                "{name} {verb}: no answer within {} s, killed (--runtime-timeout)",
                self.deadline.as_secs()
            )));
        }
        let said = match status.success() {
            true => None,
            false => Some(self.complaint(child, stderr).unwrap_or_else(|| status.to_string())),
        };
        let _ = std::fs::remove_file(&self.log);
        let Some(said) = said else { return Ok(()) };
        let error = Error::new(&said).wrap(format!("{name} {verb}"));
        Err(match command_failure(&said) {
            Some(code) => error.with_code(code),
            None => error,
        })
    }

    /// The runtime's last error: from its log, else from its captured stderr.
    fn complaint(&self, child: &mut Child, stderr: Option<BorrowedFd<'_>>) -> Option<String> {
        let theirs = || stderr.and_then(|fd| fd.try_clone_to_owned().ok()).map(File::from);
        last_error(&self.log)
            .or_else(|| child.stderr.as_mut().and_then(last_line))
            .or_else(|| theirs().and_then(last_line))
    }

    /// Removes what the runtime keeps of a container, killing what is left of it.
    ///
    /// # Errors
    /// As `call`.
    pub fn delete(&self, id: &str) -> Result<()> {
        self.call("delete", &["--force", id])
    }

    /// Sends a signal to the container's process.
    ///
    /// # Errors
    /// As `call`.
    pub fn kill(&self, id: &str, signal: i32) -> Result<()> {
        self.call("kill", &[id, &signal.to_string()])
    }
}

/// Waits for a child without reaping it; false when `patience` was over first.
fn await_child(child: &Child, patience: Duration) -> Result<bool> {
    let pid = Pid::from_raw(child.id() as i32).ok_or_else(|| Error::new("no such child"))?;
    let pidfd =
        rustix::process::pidfd_open(pid, PidfdFlags::empty()).wrap("pidfd_open of the runtime")?;
    Ok(process::await_end(&pidfd, Some(patience)))
}

/// The message of the last line of level error (or worse) in a JSON log.
pub fn last_error(log: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let text = std::fs::read_to_string(log).ok()?;
    let lines = text.lines().rev();
    let mut parsed = lines.filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let serious = |line: &Line| ["error", "fatal", "panic"].contains(&line.level.as_str());
    parsed.find(serious).map(|line| line.msg)
}

/// The last line with text that a pipe holds now, without waiting for more.
pub fn last_line(pipe: impl Read + std::os::fd::AsFd) -> Option<String> {
    let mut pipe = pipe;
    rustix::io::ioctl_fionbio(&pipe, true).ok()?;
    let mut bytes = Vec::new();
    // EAGAIN ends the reading as well as EOF does: what came before is kept.
    let _ = pipe.by_ref().take(64 << 10).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().chars().take(2000).collect())
}

/// 127 or 126 when a runtime's text says that the command was not found or is not
/// executable; `None` when it complains of something else.
pub fn command_failure(said: &str) -> Option<u8> {
    let said = said.to_lowercase();
    let about_the_command = ["exec: ", "exec(", "execve", "executable", "exec \"", "exec '"];
    if !about_the_command.iter().any(|words| said.contains(words)) {
        return None;
    }
    let any = |signs: &[&str]| signs.iter().any(|sign| said.contains(sign));
    if any(&["not found", "no such file", "enoent"]) {
        return Some(code::NOT_FOUND);
    }
    any(&[
        "permission denied",
        "eacces",
        "exec format error",
        "enoexec",
        "is a directory",
        "eisdir",
    ])
    .then_some(code::NOT_EXECUTABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_words_become_126_and_127() {
        let not_found = [
            "runc create failed: unable to start container process: exec: \"nope\": executable file not found in $PATH",
            "exec: \"/nope\": stat /nope: no such file or directory",
            "executable file `nope` not found in $PATH: No such file or directory",
            "execve(\"/nope\"): ENOENT",
        ];
        for said in not_found {
            assert_eq!(command_failure(said), Some(127), "{said}");
        }
        for said in [
            "unable to start container process: exec: \"/etc\": permission denied",
            "execve(\"/bin/text\"): ENOEXEC",
            "open executable: Permission denied",
        ] {
            assert_eq!(command_failure(said), Some(126), "{said}");
        }
        for said in [
            "error mounting \"/x\" to rootfs at \"/y\": stat /x: no such file or directory",
            "cgroup: permission denied",
        ] {
            assert_eq!(command_failure(said), None, "{said}");
        }
    }

    #[test]
    fn the_last_error_of_a_log_is_found_between_other_lines() {
        let log = std::env::temp_dir().join(format!("shim-rtlog-{}", std::process::id()));
        let lines = "{\"level\":\"error\",\"msg\":\"first\",\"time\":\"t\"}\nnot json\n\
                     {\"level\":\"error\",\"msg\":\"second\"}\n{\"level\":\"warning\",\"msg\":\"w\"}\n";
        std::fs::write(&log, lines).unwrap();
        assert_eq!(last_error(&log).unwrap(), "second");
        std::fs::remove_file(&log).unwrap();
        assert_eq!(last_error(&log), None);
    }
}
