//! The receiving end of `--console-socket`: a terminal that arrives as a file descriptor.

use std::fs::File;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// A socket on which a runtime delivers the master side of a container's terminal.
#[derive(Debug)]
pub struct ConsoleSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ConsoleSocket {
    /// Binds `console.sock` in `dir`.
    pub fn bind(dir: &Path) -> ConsoleSocket {
        let path = dir.join("console.sock");
        let listener = UnixListener::bind(&path).expect("bind the console socket");
        ConsoleSocket { path, listener }
    }

    /// What to pass as `--console-socket`.
    pub fn path(&self) -> &str {
        self.path.to_str().expect("a UTF-8 path")
    }

    /// Takes the terminal that a runtime has sent; call it once the runtime has returned.
    ///
    /// # Panics
    /// When nothing, or no single descriptor, was sent.
    pub fn accept(&self) -> File {
        self.listener.set_nonblocking(true).expect("make the socket non-blocking");
        let (stream, _) = self.listener.accept().expect("no runtime has connected");
        stream.set_nonblocking(false).expect("make the stream blocking");
        let mut text = [0u8; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        recvmsg(&stream, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .expect("receive the console");
        let mut fds: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(sent) = message {
                fds.extend(sent);
            }
        }
        assert_eq!(fds.len(), 1, "exactly one descriptor is sent");
        File::from(fds.remove(0))
    }
}

/// All that a terminal prints until its other side is closed.
pub fn read_all(mut console: File) -> String {
    let mut text = Vec::new();
    let mut chunk = [0u8; 4096];
    // A closed slave reads as EIO on Linux.
    while let Ok(n @ 1..) = console.read(&mut chunk) {
        text.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8_lossy(&text).into_owned()
}
