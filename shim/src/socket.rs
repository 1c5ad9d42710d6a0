//! The attach socket of a container, reached by a path that is short enough for unix(7)
//! however long its directory's path is.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::protocol::{Hello, ToMonitor};

/// Listens in a container's directory, replacing what an earlier run left.
///
/// # Errors
/// Those of socket(2), bind(2) and listen(2).
pub fn listen(dir: &Path) -> io::Result<OwnedFd> {
    let _ = std::fs::remove_file(dir.join("attach"));
    let socket = seqpacket()?;
    with_address(dir, |address| {
        rustix::net::bind(&socket, address)?;
        rustix::net::listen(&socket, 64)
    })?;
    Ok(socket)
}

/// Connects and introduces itself. The hello is queued before this returns, so that a
/// monitor which is only then started knows the client before it reads any output.
///
/// # Errors
/// `ECONNREFUSED` when neither reaper nor monitor live; others of connect(2).
pub fn connect(dir: &Path, hello: Hello) -> io::Result<OwnedFd> {
    let socket = seqpacket()?;
    with_address(dir, |address| rustix::net::connect(&socket, address))?;
    let packet = ToMonitor::Hello(hello).encode();
    rustix::net::send(&socket, &packet, SendFlags::NOSIGNAL)?;
    Ok(socket)
}

fn seqpacket() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
}

fn with_address(
    dir: &Path,
    act: impl FnOnce(&SocketAddrUnix) -> rustix::io::Result<()>,
) -> io::Result<()> {
    let handle = File::open(dir)?;
    let path = format!("/proc/self/fd/{}/attach", handle.as_raw_fd());
    Ok(act(&SocketAddrUnix::new(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_length_will_do() {
        let dir = std::env::temp_dir()
            .join(format!("shim-socket-{}", std::process::id()))
            .join("x".repeat(200));
        std::fs::create_dir_all(&dir).unwrap();
        let hello = Hello { output: true, foreground: true };
        assert!(connect(&dir, hello).is_err());
        let _listener = listen(&dir).unwrap();
        connect(&dir, hello).unwrap();
        let _again = listen(&dir).unwrap();
        std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
    }
}
