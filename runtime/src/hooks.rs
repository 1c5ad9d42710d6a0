//! Running hooks (runtime.md, Lifecycle; config.md, POSIX-platform Hooks).

use crate::container::Status;
use crate::error::{Context, Error, Result};
use crate::plan::annotations::Annotations;
use crate::plan::hooks::Hook;
use crate::sys::{fs, process as sys, signal};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a hook reads on its stdin, and what `state` prints, in the specification's names.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    /// Version of the specification that the configuration follows.
    pub oci_version: &'a str,
    /// The container.
    pub id: &'a str,
    /// What it is doing.
    pub status: Status,
    /// Its first process, if there is one.
    #[serde(skip_serializing_if = "is_zero")]
    pub pid: i32,
    /// The bundle.
    pub bundle: &'a Path,
    /// Annotations of the configuration.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
}

/// Where the output of hooks goes; without a file it is kept for the message of a failure.
#[derive(Debug, Default)]
pub struct Output {
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Output {
    /// Opens the files that the annotations name.
    pub fn open(heeded: &Annotations) -> Result<Self> {
        let open = |path: &Option<PathBuf>, name: &str| {
            let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_NOCTTY;
            let open = |path: &PathBuf| fs::openat(fs::CWD, path, flags, 0o600);
            path.as_ref().map(open).transpose().wrap(|| format!("annotations[{name:?}]"))
        };
        Ok(Self {
            stdout: open(&heeded.hooks_stdout, "run.oci.hooks.stdout")?,
            stderr: open(&heeded.hooks_stderr, "run.oci.hooks.stderr")?,
        })
    }

    /// The files.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.stdout.iter().chain(&self.stderr).map(AsFd::as_fd)
    }
}

fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

/// Runs the hooks in order; the first that fails ends it.
pub fn run(kind: &str, hooks: &[Hook], state: &State<'_>, output: &Output) -> Result<()> {
    hooks.iter().enumerate().try_for_each(|(i, hook)| {
        one(hook, state, output).wrap(|| format!("hooks.{kind}[{i}]: run {}", hook.path.display()))
    })
}

/// Runs all hooks whatever becomes of each, and returns what went wrong
/// (poststart and poststop: "the runtime MUST log a warning").
pub fn run_all(kind: &str, hooks: &[Hook], state: &State<'_>, output: &Output) -> Vec<Error> {
    let one = |hook: &Hook| run(kind, std::slice::from_ref(hook), state, output).err();
    hooks.iter().filter_map(one).collect()
}

fn one(hook: &Hook, state: &State<'_>, files: &Output) -> Result<()> {
    let json = serde_json::to_vec(state).map_err(|e| Error::new(e.to_string()))?;
    let mut input = scratch("hook-stdin")?;
    input.write_all(&json).and_then(|()| input.rewind()).wrap(|| "write the hook's stdin")?;
    // Files instead of pipes: nobody has to read while the hook runs, so it cannot block on us.
    let mut output = scratch("hook-output")?;
    let share = |file: &Option<OwnedFd>| match file {
        Some(file) => file.try_clone().map(Stdio::from),
        None => output.try_clone().map(Stdio::from),
    };
    let (stdout, stderr) = share(&files.stdout)
        .and_then(|stdout| Ok((stdout, share(&files.stderr)?)))
        .wrap(|| "duplicate a descriptor")?;
    let mut command = Command::new(&hook.path);
    command.arg0(hook.args.first().map_or(hook.path.as_os_str(), |a| a.as_ref()));
    command.args(hook.args.iter().skip(1)).env_clear();
    command.envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    command.stdin(Stdio::from(input)).stdout(stdout).stderr(stderr);
    signal::unblock_in(&mut command);
    let child = command.spawn().wrap(|| "start it")?;
    let pid = child.id() as i32;
    if let Some(timeout) = hook.timeout {
        let pidfd = sys::pidfd_open(pid)?;
        let ready = signal::poll(&[(pidfd.as_fd(), libc::POLLIN)], Some(timeout))?;
        if ready == [0] {
            sys::pidfd_kill(&pidfd, libc::SIGKILL)?;
            sys::waitpid(pid, 0)?;
            return Err(Error::new(format!("killed after its timeout of {timeout:?}")));
        }
    }
    match sys::waitpid(pid, 0)? {
        Some((_, sys::Ended::Exited(0))) => Ok(()),
        Some((_, ended)) => Err(Error::new(format!("{}{}", how(ended), said(&mut output)?))),
        None => Err(Error::new("its exit status was taken by somebody else")),
    }
}

fn scratch(name: &str) -> Result<std::fs::File> {
    fs::memfd_create(name).map(std::fs::File::from)
}

fn how(ended: sys::Ended) -> String {
    match ended {
        sys::Ended::Exited(code) => format!("exit status {code}"),
        sys::Ended::Killed(signal) => format!("killed by signal {signal}"),
    }
}

/// The end of what the hook printed.
fn said(output: &mut std::fs::File) -> Result<String> {
    let mut text = Vec::new();
    output
        .rewind()
        .and_then(|()| output.read_to_end(&mut text))
        .wrap(|| "read the hook's output")?;
    let tail = &text[text.len().saturating_sub(2000)..];
    let tail = String::from_utf8_lossy(tail);
    match tail.trim() {
        "" => Ok(String::new()),
        words => Ok(format!(", output: {words}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn hook(script: &str, timeout: Option<u64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: ["sh", "-c", script].map(String::from).to_vec(),
            env: vec!["WORD=here".into()],
            timeout: timeout.map(Duration::from_millis),
        }
    }

    fn run_one(script: &str, timeout: Option<u64>) -> Result<()> {
        let annotations = BTreeMap::new();
        let state = State {
            oci_version: "1.0.0",
            id: "x",
            status: Status::Creating,
            pid: 7,
            bundle: Path::new("/b"),
            annotations: &annotations,
        };
        run("prestart", &[hook(script, timeout)], &state, &Output::default())
    }

    #[test]
    fn the_state_is_on_stdin_and_the_environment_is_the_hooks_own() {
        run_one(
            r#"grep -q '"status":"creating","pid":7' && test "$WORD" = here && test -z "$HOME""#,
            None,
        )
        .unwrap();
    }

    #[test]
    fn a_failure_says_what_the_hook_said() {
        let e = run_one("echo no luck >&2; exit 3", None).unwrap_err().to_string();
        assert!(e.contains("hooks.prestart[0]") && e.contains("exit status 3"), "{e}");
        assert!(e.ends_with("output: no luck"), "{e}");
    }

    #[test]
    fn no_signal_is_blocked_in_a_hook() {
        let blocked = std::thread::spawn(|| {
            signal::block_all().unwrap();
            run_one("grep -q '^SigBlk:.0000000000000000' /proc/self/status", None)
        });
        blocked.join().unwrap().unwrap();
    }

    #[test]
    fn a_slow_hook_is_killed() {
        let e = run_one("sleep 10", Some(50)).unwrap_err().to_string();
        assert!(e.contains("timeout"), "{e}");
    }
}
