//! `shim wait`: until containers end.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::cli::{Global, Names};
use crate::container::{Container, Status};
use crate::error::{Error, Result};
use crate::launch::{nobody_knows, recorded};
use crate::process::timespec;
use crate::protocol::{Hello, PACKET, ToClient};
use crate::{places, process, socket};

/// Prints the exit codes, one per line and in the order asked for.
///
/// # Errors
/// When a container does not exist, or nobody can tell how it ended.
pub fn wait(global: &Global, args: &Names) -> Result<u8> {
    let root = places::state_dir(global.state.as_deref())?;
    let find = |name: &String| Container::find(&root, name);
    let containers = args.names.iter().map(find).collect::<Result<Vec<_>>>()?;
    for container in containers {
        let code = await_code(&container, None)?;
        let code = code.ok_or_else(|| nobody_knows(&container))?;
        if writeln!(std::io::stdout(), "{code}").is_err() {
            return Ok(0);
        }
    }
    Ok(0)
}

/// Waits for a container's end; `None` when `patience` is over first. Hears it from the
/// monitor, because a container with --rm leaves no file to read.
///
/// # Errors
/// When the container ended and nobody can tell how.
pub fn await_code(container: &Container, patience: Option<Duration>) -> Result<Option<u8>> {
    let end = patience.map(|patience| Instant::now() + patience);
    let hello = Hello { output: false, foreground: false };
    loop {
        if let Some(code) = recorded(container) {
            return Ok(Some(code));
        }
        let Ok(socket) = socket::connect(&container.dir(), hello) else {
            return await_unattended(container, end);
        };
        match await_word(&socket, end)? {
            Word::Exit(code) => return Ok(Some(code)),
            Word::Timeout => return Ok(None),
            // This monitor died: the next one will know.
            Word::End => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

enum Word {
    Exit(u8),
    End,
    Timeout,
}

fn await_word(socket: &std::os::fd::OwnedFd, end: Option<Instant>) -> Result<Word> {
    let mut buffer = [0u8; PACKET];
    loop {
        let left = end.map(|end| timespec(end.saturating_duration_since(Instant::now())));
        let mut fds = [PollFd::new(socket, PollFlags::IN)];
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Ok(0) => return Ok(Word::Timeout),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::from(errno).wrap("poll")),
        }
        match rustix::net::recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok((0, _)) | Err(_) => return Ok(Word::End),
            Ok((length, _)) => match ToClient::decode(&buffer[..length.min(PACKET)]) {
                Some(ToClient::Exit(code)) => return Ok(Word::Exit(code)),
                Some(ToClient::Notice(text)) => return Err(Error::new(text)),
                _ => {}
            },
        }
    }
}

/// Nobody listens: the container has ended, or its keepers were killed and it runs on.
fn await_unattended(container: &Container, end: Option<Instant>) -> Result<Option<u8>> {
    if container.status() == Status::Orphaned {
        let init = process::Recorded::read(&container.dir().join("init"));
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if let Some(init) = init.and_then(|init| init.open())
            && !process::await_end(&init, left)
        {
            return Ok(None);
        }
    }
    match recorded(container) {
        Some(code) => Ok(Some(code)),
        None if !is_there(&container.dir()) => Err(Error::new(format!(
            "container {}: it was removed meanwhile",
            container.config.name
        ))),
        None => Err(nobody_knows(container)),
    }
}

fn is_there(dir: &Path) -> bool {
    dir.exists()
}
