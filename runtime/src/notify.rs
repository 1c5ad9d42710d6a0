//! The proxy between a container's sd_notify(3) and the socket of whoever waits for it.
//!
//! With `$NOTIFY_SOCKET` set, `create` and `run` show the container a directory of the state at
//! /run/notify, and `start` and `run` listen there on a socket of their own. The caller's socket
//! itself would be of no use inside: systemd takes word only from processes that it knows. So
//! whatever the program says is said again from here, `READY=` followed by `MAINPID=` with the pid
//! that counts on the host: that of the container's first process, or, while `run` waits in the
//! foreground, its own.

use crate::container::Container;
use crate::error::{Context, Error, Result};
use crate::plan::Plan;
use crate::plan::mounts::Mount;
use crate::sys::{fs, signal, socket};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The directory of the socket, in the state directory.
const DIRECTORY: &str = "notify";
/// Where the container finds that directory.
const INSIDE: &str = "/run/notify";
/// The socket in it.
const SOCKET: &str = "notify.sock";
/// How long the host may take to acknowledge what it was told.
const PATIENCE: Duration = Duration::from_secs(5);
/// No message of sd_notify(3) is longer: it is one packet with a few short lines.
const LIMIT: usize = 16 * 1024;

/// The caller's `$NOTIFY_SOCKET`, if it is set.
fn host() -> Option<std::ffi::OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())
}

/// Plans the mount and the variable by which the container finds its socket.
pub fn plan(plan: &mut Plan, state: &Path) -> Result<()> {
    if host().is_none() {
        return Ok(());
    }
    let mount = serde_json::json!({
        "destination": INSIDE,
        "type": "bind",
        "source": state.join(DIRECTORY),
        "options": ["bind", "nosuid", "nodev", "noexec", "ro"],
    });
    let mount = serde_json::from_value(mount).map_err(|e| Error::new(e.to_string()))?;
    plan.rootfs.mounts.push(Mount::new(&mount, &plan.bundle, &plan.namespaces, None)?);
    plan.process.env.retain(|entry| !entry.starts_with("NOTIFY_SOCKET="));
    plan.process.env.push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
    Ok(())
}

/// Makes the directory that [`plan`] mounts.
pub fn prepare(container: &Container) -> Result<()> {
    match host() {
        None => Ok(()),
        Some(_) => fs::mkdirat(&container.directory, Path::new(DIRECTORY), 0o755),
    }
}

/// The container's socket, and the caller's.
pub struct Proxy {
    inside: UnixDatagram,
    host: UnixDatagram,
}

impl Proxy {
    /// Listens for the container; `None` if the caller waits for no word.
    pub fn listen(container: &Container) -> Result<Option<Self>> {
        let Some(name) = host() else { return Ok(None) };
        if !fs::exists(&container.directory, Path::new(DIRECTORY))? {
            return Ok(None);
        }
        // By its descriptor, because the path may be too long for a socket's address.
        let path = format!("/proc/self/fd/{}/{DIRECTORY}", container.directory.as_raw_fd());
        let path = PathBuf::from(path).join(SOCKET);
        let inside = UnixDatagram::bind(&path)
            .and_then(|socket| {
                // Whoever the program is in the container, it may speak.
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
                Ok(socket)
            })
            .wrap(|| "listen at the container's NOTIFY_SOCKET")?;
        Ok(Some(Self { inside, host: connect(&name)? }))
    }

    /// Passes on what the program says until it is ready or has ended.
    pub fn until_ready(&self, init: &OwnedFd, main_pid: i32) -> Result<()> {
        self.pass_on(init, main_pid, true)
    }

    /// Passes on what the program says until it has ended.
    pub fn until_end(&self, init: &OwnedFd, main_pid: i32) -> Result<()> {
        self.pass_on(init, main_pid, false)
    }

    fn pass_on(&self, init: &OwnedFd, main_pid: i32, only_until_ready: bool) -> Result<()> {
        loop {
            let fds = [(self.inside.as_fd(), libc::POLLIN), (init.as_fd(), libc::POLLIN)];
            let ready = signal::poll(&fds, None)?;
            if ready[0] & libc::POLLIN != 0 {
                if self.one(main_pid)? && only_until_ready {
                    return Ok(());
                }
            } else if ready[1] != 0 {
                return Ok(());
            }
        }
    }

    /// Passes one message on; was the program ready with it?
    fn one(&self, main_pid: i32) -> Result<bool> {
        let (data, _) = socket::receive(&self.inside, LIMIT)?;
        let text = String::from_utf8_lossy(&data);
        // Pids of the container mean nothing here, and its barrier is not the host's.
        let ours = ["MAINPID=", "MAINPIDFDID=", "BARRIER="];
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.is_empty() && !ours.iter().any(|word| line.starts_with(word)))
            .collect();
        if lines.is_empty() {
            return Ok(false);
        }
        let ready = lines.iter().any(|line| line.starts_with("READY="));
        self.say(&(lines.join("\n") + "\n"))?;
        if ready {
            self.say(&format!("MAINPID={main_pid}\n"))?;
            self.await_acknowledgement()?;
        }
        Ok(ready)
    }

    fn say(&self, text: &str) -> Result<()> {
        socket::send(&self.host, text.as_bytes(), None).wrap(|| "tell NOTIFY_SOCKET")
    }

    /// sd_notify_barrier(3): systemd closes the pipe when it has read all that came before. We may
    /// end then, and be forgotten with our pid.
    fn await_acknowledgement(&self) -> Result<()> {
        let (ours, theirs) = std::io::pipe().wrap(|| "make the pipe of the barrier")?;
        socket::send(&self.host, b"BARRIER=1", Some(theirs.as_fd()))
            .wrap(|| "tell NOTIFY_SOCKET")?;
        drop(theirs);
        // Somebody who does not know barriers, and keeps what he is sent, costs this time.
        signal::poll(&[(ours.as_fd(), libc::POLLIN)], Some(PATIENCE)).map(drop)
    }
}

fn connect(name: &std::ffi::OsStr) -> Result<UnixDatagram> {
    let bytes = name.as_encoded_bytes();
    let address = match bytes.split_first() {
        Some((b'@', rest)) => SocketAddr::from_abstract_name(rest),
        _ => SocketAddr::from_pathname(name),
    };
    let socket = UnixDatagram::unbound();
    address
        .and_then(|address| {
            let socket = socket?;
            socket.connect_addr(&address)?;
            Ok(socket)
        })
        .wrap(|| format!("connect to NOTIFY_SOCKET {name:?}"))
}
