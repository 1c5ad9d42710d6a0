//! An agent that answers for a container's seccomp filter (config-linux.md, The Container Process
//! State; seccomp_unotify(2)).

#![allow(unsafe_code, reason = "the two requests of seccomp_unotify(2) have no safe wrapper")]

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::ioctl::{Updater, ioctl, opcode};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;

/// `struct seccomp_notif` of linux/seccomp.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Notice {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    arch: u32,
    pointer: u64,
    args: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Reply {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const RECEIVE: u32 = opcode::read_write::<Notice>(b'!', 0);
const SEND: u32 = opcode::read_write::<Reply>(b'!', 1);
/// The call goes on as if there were no filter.
const CONTINUE: u32 = 1;

/// What the agent makes of a call that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The call fails with this error number.
    Error(i32),
    /// The call returns this.
    Value(i64),
    /// The kernel carries the call out.
    Continue,
}

/// A socket at which listeners arrive; every call that they tell of gets the same answer.
#[derive(Debug)]
pub struct Agent {
    path: PathBuf,
    arrived: Receiver<Value>,
}

impl Agent {
    /// Binds `agent.sock` in `dir` and answers in the background, as long as the test runs.
    pub fn bind(dir: &Path, answer: Answer) -> Agent {
        Agent::bind_slow(dir, answer, Duration::ZERO)
    }

    /// As [`Agent::bind`], but each call waits this long for its answer.
    pub fn bind_slow(dir: &Path, answer: Answer, delay: Duration) -> Agent {
        let path = dir.join("agent.sock");
        let socket = UnixListener::bind(&path).expect("bind the agent's socket");
        let (sender, arrived) = channel();
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                receive(&stream, answer, delay, &sender);
            }
        });
        Agent { path, arrived }
    }

    /// What to put into `linux.seccomp.listenerPath`.
    pub fn path(&self) -> &str {
        self.path.to_str().expect("a UTF-8 path")
    }

    /// The state that came with the next listener.
    ///
    /// # Panics
    /// When none comes within ten seconds.
    pub fn told(&self) -> Value {
        self.arrived.recv_timeout(Duration::from_secs(10)).expect("no listener has arrived")
    }
}

fn receive(stream: &UnixStream, answer: Answer, delay: Duration, sender: &Sender<Value>) {
    let mut text = vec![0u8; 1 << 16];
    let mut fds: Vec<OwnedFd> = Vec::new();
    let mut length = 0;
    // The text may come in parts; the descriptor comes with the first. Some runtimes keep the
    // connection, others make one that they never use.
    let state: Value = loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut rest = [IoSliceMut::new(&mut text[length..])];
        let got = recvmsg(stream, &mut rest, &mut control, RecvFlags::CMSG_CLOEXEC)
            .expect("receive the listener");
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(sent) = message {
                fds.extend(sent);
            }
        }
        if got.bytes == 0 {
            assert_eq!(length, 0, "the state is not whole");
            return;
        }
        length += got.bytes;
        if let Ok(state) = serde_json::from_slice(&text[..length]) {
            break state;
        }
    };
    assert_eq!(fds.len(), 1, "one descriptor for one name: {state}");
    let listener = fds.remove(0);
    std::thread::spawn(move || serve(&listener, answer, delay));
    let _ = sender.send(state);
}

/// Answers until the last process of the filter is gone.
fn serve(listener: &OwnedFd, answer: Answer, delay: Duration) {
    loop {
        let mut notice = Notice::default();
        // SAFETY: the request fills a structure of the type that its number was made from.
        let got = unsafe { ioctl(listener, Updater::<RECEIVE, _>::new(&mut notice)) };
        match got {
            Ok(()) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        }
        std::thread::sleep(delay);
        let mut reply = Reply { id: notice.id, ..Reply::default() };
        match answer {
            Answer::Error(number) => reply.error = -number,
            Answer::Value(value) => reply.value = value,
            Answer::Continue => reply.flags = CONTINUE,
        }
        // SAFETY: the request reads a structure of the type that its number was made from.
        // The process may have been killed meanwhile, which is no failure.
        let _ = unsafe { ioctl(listener, Updater::<SEND, _>::new(&mut reply)) };
    }
}
