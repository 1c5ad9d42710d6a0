//! What parent and child say to each other while a container or a process in it is made.
//!
//! One packet socket joins them; each message is one packet: a tag, then the text if there is one.
//! A packet of no bytes means that the other side is gone.

use crate::error::{Context, Error, Kind, Result};
use crate::sys::{process, socket};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

/// What the child says, in this order; a message that nothing asks for is left out.
#[derive(Debug)]
pub enum FromChild {
    /// The helper that joins namespaces has made the real child: its pid, and a pidfd comes along.
    Made(i32),
    /// In a new user namespace: its id maps have to be written.
    NeedsMaps,
    /// The mount namespace is as planned, and pivot_root comes next: time for the hooks that run
    /// on the host.
    Mounted,
    /// The mount of this number in the plan, or else the root file system, needs what only the
    /// parent can open.
    NeedsMount(Option<usize>),
    /// The terminal's master comes along.
    Console,
    /// Its resource limits can be set only with the parent's privileges.
    NeedsLimits,
    /// The system call filter is in force; this is the number of its listener's descriptor.
    Listener(i32),
    /// Everything is done but the start.
    Ready,
    /// It failed and ends.
    Failed(Error),
}

/// What the parent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToChild {
    /// It is in the control groups that systemd has made.
    Placed,
    /// The id maps are written.
    Mapped,
    /// What a mount needs comes along.
    Lent,
    /// The hooks have run.
    HooksDone,
    /// The limits are set.
    Limited,
    /// The agent has the listener.
    Listening,
    /// The state is saved: the child may wait for its start.
    Saved,
    /// The program may start at once (`run`).
    Start,
}

/// No message is longer; errors are cut to fit.
const LIMIT: usize = 16 * 1024;

impl FromChild {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Made(pid) => format!("P{pid}").into_bytes(),
            Self::NeedsMaps => b"U".into(),
            Self::NeedsMount(Some(number)) => format!("B{number}").into_bytes(),
            Self::NeedsMount(None) => b"B".into(),
            Self::Mounted => b"M".into(),
            Self::Console => b"C".into(),
            Self::NeedsLimits => b"L".into(),
            Self::Listener(number) => format!("N{number}").into_bytes(),
            Self::Ready => b"R".into(),
            Self::Failed(error) => {
                let errno = error.errno().unwrap_or(0);
                let mut text = format!("E{errno} {error}").into_bytes();
                text.truncate(LIMIT);
                text
            }
        }
    }

    fn decode(data: &[u8]) -> Result<Self> {
        let rest = || String::from_utf8_lossy(&data[1..]).into_owned();
        Ok(match data.first() {
            None => return Err(Error::new("the container's first process ended unexpectedly")),
            Some(b'P') => Self::Made(rest().parse().map_err(|_| garbled(data))?),
            Some(b'U') => Self::NeedsMaps,
            Some(b'B') if data.len() == 1 => Self::NeedsMount(None),
            Some(b'B') => Self::NeedsMount(Some(rest().parse().map_err(|_| garbled(data))?)),
            Some(b'M') => Self::Mounted,
            Some(b'C') => Self::Console,
            Some(b'L') => Self::NeedsLimits,
            Some(b'N') => Self::Listener(rest().parse().map_err(|_| garbled(data))?),
            Some(b'R') => Self::Ready,
            Some(b'E') => {
                let text = rest();
                let (errno, message) = text.split_once(' ').ok_or_else(|| garbled(data))?;
                let kind = match errno.parse() {
                    Ok(0) | Err(_) => Kind::Other,
                    Ok(errno) => Kind::Errno(errno),
                };
                Self::Failed(Error::of(kind, message))
            }
            Some(_) => return Err(garbled(data)),
        })
    }
}

fn garbled(data: &[u8]) -> Error {
    Error::new(format!("unexpected message {:?}", String::from_utf8_lossy(data)))
}

/// The parent's end.
pub struct Parent {
    socket: OwnedFd,
    /// Messages that overtook [`FromChild::Made`], which another process sends.
    early: RefCell<VecDeque<Heard>>,
}

/// A message, and the descriptor that came with it.
pub type Heard = (FromChild, Option<OwnedFd>);

/// The child's end.
pub struct Child(pub OwnedFd);

/// A connected pair.
pub fn pair() -> Result<(Parent, Child)> {
    let (a, b) = socket::pair().wrap(|| "make the socket between parent and child")?;
    Ok((Parent { socket: a, early: RefCell::default() }, Child(b)))
}

impl Parent {
    /// Sends one message.
    pub fn say(&self, message: ToChild) -> Result<()> {
        self.say_with(message, None)
    }

    /// Sends the mount, or what it needs, that the child asked for.
    pub fn lend(&self, fd: BorrowedFd<'_>) -> Result<()> {
        self.say_with(ToChild::Lent, Some(fd))
    }

    fn say_with(&self, message: ToChild, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let tag = match message {
            ToChild::Placed => b"p",
            ToChild::Mapped => b"m",
            ToChild::Lent => b"b",
            ToChild::HooksDone => b"h",
            ToChild::Limited => b"l",
            ToChild::Listening => b"n",
            ToChild::Saved => b"s",
            ToChild::Start => b"g",
        };
        socket::send(&self.socket, tag, fd).map_err(|error| match error.errno() {
            // It is gone; its last words say why.
            Some(libc::EPIPE) => self.last_words(),
            _ => error,
        })
    }

    /// Waits for the helper's end, and takes its word: the pid of the child that it made, and a
    /// pidfd.
    ///
    /// The child itself may be heard before; what it says is kept for [`Self::hear`]. The wait comes
    /// first: of a helper that was killed there is no word to wait for, and a child that it had made
    /// holds the line open.
    pub fn hear_made(&self, helper: i32) -> Result<(i32, OwnedFd)> {
        process::waitpid(helper, 0)?;
        loop {
            let heard = socket::receive_now(&self.socket, LIMIT);
            match understand(heard.wrap(|| "hear of the child, whose maker has ended")?)? {
                (FromChild::Made(pid), Some(pidfd)) => return Ok((pid, pidfd)),
                other => self.early.borrow_mut().push_back(other),
            }
        }
    }

    /// Waits for the next message; a child's failure becomes our error.
    pub fn hear(&self) -> Result<Heard> {
        let early = self.early.borrow_mut().pop_front();
        early.map_or_else(|| self.next(), Ok)
    }

    /// Why the child has ended: what it said of it, or that it said nothing.
    pub fn last_words(&self) -> Error {
        loop {
            // What it said before is of no use any more; at the latest, its end is an error.
            if let Err(error) = self.next() {
                return error;
            }
        }
    }

    fn next(&self) -> Result<Heard> {
        understand(self.receive()?)
    }

    /// One message. A child that ended without having read all of ours is reported as ECONNRESET
    /// before its own last words, which are still to be had (unix(7)).
    fn receive(&self) -> Result<(Vec<u8>, Option<OwnedFd>)> {
        match socket::receive(&self.socket, LIMIT) {
            Err(e) if e.errno() == Some(libc::ECONNRESET) => socket::receive(&self.socket, LIMIT),
            other => other,
        }
    }

    /// Waits until the program runs: execve(2) closes the child's end.
    pub fn hear_exec(&self) -> Result<()> {
        let (data, _) = self.receive()?;
        if data.is_empty() {
            return Ok(());
        }
        match FromChild::decode(&data)? {
            FromChild::Failed(error) => Err(error),
            other => Err(Error::new(format!("unexpected message {other:?} after the start"))),
        }
    }
}

/// A child's failure becomes our error.
fn understand((data, fd): (Vec<u8>, Option<OwnedFd>)) -> Result<Heard> {
    match FromChild::decode(&data)? {
        FromChild::Failed(error) => Err(error),
        message => Ok((message, fd)),
    }
}

impl Child {
    /// Sends one message.
    pub fn say(&self, message: &FromChild, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        socket::send(&self.0, &message.encode(), fd)
    }

    /// Tells of the listener, and waits until the agent has it. The filter is in force, and any call
    /// but these two may wait for the agent: no memory is asked for, which might be such a call.
    pub fn hand_over(&self, listener: BorrowedFd<'_>) -> Result<()> {
        let mut text = [0u8; 12];
        let mut rest = &mut text[..];
        write!(rest, "N{}", listener.as_raw_fd()).map_err(|e| Error::new(e.to_string()))?;
        let unused = rest.len();
        socket::send(&self.0, &text[..text.len() - unused], None)?;
        let mut answer = [0u8; 1];
        match socket::receive_byte(&self.0, &mut answer)? {
            1 if answer == *b"n" => Ok(()),
            _ => Err(Error::new("the runtime ended before it took the listener")),
        }
    }

    /// Waits for the message `expected`. A parent that is gone, or says something else, is an error.
    pub fn await_message(&self, expected: ToChild) -> Result<()> {
        self.await_any(expected).map(drop)
    }

    /// Asks for what the mount of this number in the plan, or else the root file system, needs, and
    /// waits for it.
    pub fn borrow_mount(&self, number: Option<usize>) -> Result<OwnedFd> {
        self.say(&FromChild::NeedsMount(number), None)?;
        self.await_any(ToChild::Lent)?.ok_or_else(|| Error::new("heard Lent without a descriptor"))
    }

    fn await_any(&self, expected: ToChild) -> Result<Option<OwnedFd>> {
        let (data, fd) = socket::receive(&self.0, 16)?;
        let heard = match data.as_slice() {
            b"p" => ToChild::Placed,
            b"m" => ToChild::Mapped,
            b"b" => ToChild::Lent,
            b"h" => ToChild::HooksDone,
            b"l" => ToChild::Limited,
            b"n" => ToChild::Listening,
            b"s" => ToChild::Saved,
            b"g" => ToChild::Start,
            _ => return Err(Error::new("the runtime ended before the container was made")),
        };
        match heard == expected {
            true => Ok(fd),
            false => Err(Error::new(format!("heard {heard:?} instead of {expected:?}"))),
        }
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_pass() {
        let (parent, child) = pair().unwrap();
        child.say(&FromChild::Made(7), Some(child.as_fd())).unwrap();
        let (message, fd) = parent.hear().unwrap();
        assert!(matches!(message, FromChild::Made(7)) && fd.is_some());
        parent.say(ToChild::Saved).unwrap();
        child.await_message(ToChild::Saved).unwrap();
    }

    #[test]
    fn a_listener_is_handed_over() {
        let (parent, child) = pair().unwrap();
        parent.say(ToChild::Listening).unwrap();
        child.hand_over(child.as_fd()).unwrap();
        let number = child.as_fd().as_raw_fd();
        assert!(matches!(parent.hear().unwrap(), (FromChild::Listener(n), None) if n == number));
        drop(parent);
        assert!(child.hand_over(child.as_fd()).is_err());
    }

    #[test]
    fn a_failure_keeps_its_errno_and_its_words() {
        let (parent, child) = pair().unwrap();
        let error = Error::of(Kind::Errno(libc::EPERM), "mknod: operation not permitted (EPERM)");
        child.say(&FromChild::Failed(error), None).unwrap();
        let error = parent.hear().unwrap_err();
        assert_eq!(error.errno(), Some(libc::EPERM));
        assert!(error.to_string().starts_with("mknod"));
    }

    #[test]
    fn last_words_are_heard_behind_a_reset() {
        let (parent, child) = pair().unwrap();
        parent.say(ToChild::Saved).unwrap();
        child.say(&FromChild::Ready, None).unwrap();
        child.say(&FromChild::Failed(Error::new("why")), None).unwrap();
        drop(child);
        assert_eq!(parent.last_words().to_string(), "why");
    }

    #[test]
    fn a_child_that_is_gone_is_an_error_before_the_start_and_success_after() {
        let (parent, child) = pair().unwrap();
        drop(child);
        assert!(parent.hear().is_err());
        assert!(parent.hear_exec().is_ok());
    }
}
