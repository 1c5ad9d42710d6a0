//! A container's terminal: the socket over which the runtime hands us the pty's master,
//! and what is set on that master.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::termios::{OptionalActions, OutputModes};

/// Longest path that a Unix socket can have (unix(7): 108 bytes with the final NUL).
const LONGEST: usize = 107;

/// Where the runtime connects; the path is removed when this is dropped.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
    own_dir: Option<PathBuf>,
}

impl ConsoleSocket {
    /// Listens in `dir`, or in a private directory under $TMPDIR when that path would be
    /// too long for a socket.
    ///
    /// # Errors
    /// Those of bind(2).
    pub fn bind(dir: &Path, id: &str) -> io::Result<Self> {
        let mut path = dir.join("console");
        let mut own_dir = None;
        if path.as_os_str().len() > LONGEST {
            use std::os::unix::fs::DirBuilderExt;
            let short = std::env::temp_dir().join(format!("davit-{}", crate::id::short(id)));
            std::fs::DirBuilder::new().mode(0o700).create(&short)?;
            path = short.join("console");
            own_dir = Some(short);
        }
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path, own_dir })
    }

    /// The value for the runtime's `--console-socket`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the master from a runtime that has sent it (runc sends before `create`
    /// returns, so there is nothing to wait for).
    ///
    /// # Errors
    /// When nobody connected, or no terminal came.
    pub fn receive(&self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        let mut byte = [0u8; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        rustix::net::recvmsg(
            stream.as_fd(),
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        )?;
        let mut received = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let master = received.by_ref().flatten().next();
        let master = master.ok_or_else(|| io::Error::other("it sent no descriptor"))?;
        rustix::termios::tcgetattr(&master)
            .map_err(|_| io::Error::other("what it sent is no terminal"))?;
        Ok(master)
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        if let Some(dir) = &self.own_dir {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// Newlines become carriage return and newline, as conmon forces it: logs and clients in
/// raw mode both rely on it.
///
/// # Errors
/// Those of tcsetattr(3).
pub fn set_onlcr(master: &OwnedFd) -> io::Result<()> {
    let mut modes = rustix::termios::tcgetattr(master)?;
    modes.output_modes |= OutputModes::ONLCR;
    rustix::termios::tcsetattr(master, OptionalActions::Now, &modes)?;
    Ok(())
}
