//! From a locked container to a started one: the CLI's side of the reaper.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use crate::client::{Outcome, Session};
use crate::container::{Container, Lock};
use crate::error::{Context, Error, Result};
use crate::orders::{Orders, REAPER};
use crate::protocol::Hello;
use crate::runtime::Runtime;
use crate::{client, exit, reaper, socket};

/// A container that runs.
#[derive(Debug)]
pub struct Launched {
    report: Report,
    attached: Option<OwnedFd>,
}

/// What the reaper says (see `reaper.rs`), until everything is tidied up.
#[derive(Debug)]
struct Report(BufReader<File>);

enum News {
    Started,
    Failed(Error),
    Warning(String),
    Exit(u8),
    End,
}

impl Container {
    /// The runtime that this container was created with.
    pub fn runtime(&self) -> Runtime {
        Runtime {
            path: self.config.runtime.clone(),
            args: self.config.runtime_args.iter().map(Into::into).collect(),
            deadline: Duration::from_secs(self.config.runtime_timeout),
            log: self.dir().join(format!("runtime-{}.log", std::process::id())),
            oom_score_adj: "0".to_owned(),
        }
    }
}

/// Starts a reaper, which starts the container, and waits until it runs. With `foreground`
/// the caller is attached before the first byte of output. `fresh`: leave nothing behind
/// when that fails.
///
/// # Errors
/// The reaper's, with the exit code that `run` must have.
pub fn launch(
    container: &Container,
    lock: Lock,
    foreground: bool,
    fresh: bool,
) -> Result<Launched> {
    let dir = container.dir();
    let listener = socket::listen(&dir).wrap_with(|| format!("listen in {}", dir.display()))?;
    let attached = match foreground {
        true => Some(socket::connect(&dir, FOREGROUND).wrap("attach to the new container")?),
        false => None,
    };
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).wrap("pipe")?;
    let lock = OwnedFd::from(lock.0);
    let config = &container.config;
    let orders = Orders {
        id: config.id.clone(),
        root: container.root.clone(),
        bundle: config.bundle.clone(),
        runtime: config.runtime.clone(),
        runtime_args: config.runtime_args.iter().map(Into::into).collect(),
        deadline: Duration::from_secs(config.runtime_timeout),
        imgtool: config.imgtool.clone(),
        log: config.log.clone(),
        tty: config.tty,
        stdin: config.stdin,
        remove: config.remove,
        fresh,
        lock_fd: lock.as_raw_fd(),
        attach_fd: listener.as_raw_fd(),
        report_fd: write.as_raw_fd(),
    };
    let mut command = Command::new("/proc/self/exe");
    std::os::unix::process::CommandExt::arg0(&mut command, "shim");
    command.arg(REAPER).args(orders.to_args()).current_dir("/");
    reaper::spawn_with(&mut command, &[&lock, &listener, &write]).wrap("start the reaper")?;
    drop((lock, listener, write));
    let mut report = Report(BufReader::new(File::from(read)));
    report.await_start()?;
    Ok(Launched { report, attached })
}

/// How `shim run` attaches.
pub const FOREGROUND: Hello = Hello { output: true, foreground: true };

impl Launched {
    /// Stays with the container to its end, or until the user detaches (`None`).
    ///
    /// # Errors
    /// Those of the session; also when nobody can tell how the container ended.
    pub fn stay(mut self, container: &Container, session: &mut Session) -> Result<Option<u8>> {
        let Some(attached) = self.attached.take() else {
            return Ok(None);
        };
        let outcome = session.run(attached)?;
        if outcome == Outcome::Detached {
            return Ok(None);
        }
        let told = self.report.await_end();
        let code = match outcome {
            Outcome::Exited(code) => Some(code),
            _ => told.or_else(|| recorded(container)),
        };
        code.map(Some).ok_or_else(|| nobody_knows(container))
    }
}

/// The code in a container's directory.
pub fn recorded(container: &Container) -> Option<u8> {
    let read = exit::read(&container.dir()).ok().flatten();
    read.map(|(code, _)| code)
}

/// The error for a container whose reaper was killed before it ended.
pub fn nobody_knows(container: &Container) -> Error {
    Error::new(format!(
        "container {}: its reaper was killed, so how it ended is not known",
        container.config.name
    ))
}

impl Report {
    fn next(&mut self) -> News {
        let mut line = String::new();
        if !matches!(self.0.read_line(&mut line), Ok(1..)) {
            return News::End;
        }
        let line = line.trim_end();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "started" => News::Started,
            "exit" => rest.parse().map_or(News::End, News::Exit),
            "failed" => {
                let (code, message) = rest.split_once(' ').unwrap_or(("", rest));
                let error = Error::new(message);
                News::Failed(match code.parse() {
                    Ok(code) => error.with_code(code),
                    Err(_) => error,
                })
            }
            _ => News::Warning(rest.to_owned()),
        }
    }

    fn await_start(&mut self) -> Result<()> {
        loop {
            match self.next() {
                News::Started => return Ok(()),
                News::Failed(error) => return Err(error),
                News::Warning(text) => client::warn(&text),
                News::Exit(_) => {}
                News::End => return Err(Error::new("the container's reaper died at once")),
            }
        }
    }

    /// Reads to the end of the tidying up; the exit code, if it was told.
    fn await_end(&mut self) -> Option<u8> {
        let mut told = None;
        loop {
            match self.next() {
                News::Exit(code) => told = Some(code),
                News::Warning(text) => client::warn(&text),
                News::End => return told,
                News::Started | News::Failed(_) => {}
            }
        }
    }
}
