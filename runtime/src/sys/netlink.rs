//! Requests to the kernel's network configuration (netlink(7), rtnetlink(7)).

use super::{check, check_fd, errno, failed};
use crate::error::{Error, Result};
use std::os::fd::{AsRawFd, OwnedFd};

/// Length of a message's header (struct nlmsghdr).
const HEADER: usize = 16;
/// No answer of the kernel is longer (NLMSG_GOODSIZE, and what dumps use).
const LONGEST: usize = 64 * 1024;

/// One answer: what follows the header.
pub type Answer = Vec<u8>;

/// A socket for requests about the network namespace in which it was opened.
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens the socket.
    pub fn open() -> Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        let fd = check_fd(fd.into(), || "socket(AF_NETLINK, NETLINK_ROUTE)".into())?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends a request, and returns all answers; `call` renders it for an error.
    pub fn request(
        &mut self,
        kind: u16,
        flags: i32,
        body: &[u8],
        call: impl Fn() -> String,
    ) -> Result<Vec<Answer>> {
        self.sequence += 1;
        let length = u32::try_from(HEADER + body.len())
            .map_err(|_| Error::new(format!("{}: the message is too long", call())))?;
        let flags = (flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        message.extend(body);
        let raw = self.fd.as_raw_fd();
        // SAFETY: the buffer is readable for the length that is passed.
        let sent = unsafe { libc::send(raw, message.as_ptr().cast(), message.len(), 0) };
        check(sent, &call)?;
        self.answers(call)
    }

    fn answers(&self, call: impl Fn() -> String) -> Result<Vec<Answer>> {
        let mut all = Vec::new();
        loop {
            let datagram = self.receive()?;
            let mut rest = datagram.as_slice();
            while let Some((kind, sequence, body, next)) = split(rest)? {
                rest = next;
                if sequence != self.sequence {
                    continue;
                }
                match i32::from(kind) {
                    libc::NLMSG_ERROR => {
                        return match number(body) {
                            Some(0) => Ok(all),
                            Some(errno) => Err(failed(-errno, call)),
                            None => Err(Error::new(format!("{}: garbled answer", call()))),
                        };
                    }
                    libc::NLMSG_DONE => return Ok(all),
                    _ => all.push(body.to_vec()),
                }
            }
        }
    }

    fn receive(&self) -> Result<Vec<u8>> {
        let raw = self.fd.as_raw_fd();
        let mut buffer = vec![0u8; LONGEST];
        loop {
            // SAFETY: the buffer is writable for the length that is passed.
            let n = unsafe {
                libc::recv(raw, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_TRUNC)
            };
            if n == -1 && errno() == libc::EINTR {
                continue;
            }
            let n = check(n, || format!("recv({raw})"))? as usize;
            if n > LONGEST {
                return Err(failed(libc::EMSGSIZE, || format!("recv({raw}) of {n} bytes")));
            }
            buffer.truncate(n);
            return Ok(buffer);
        }
    }
}

type Split<'a> = (u16, u32, &'a [u8], &'a [u8]);

/// The first message of a datagram: kind, sequence number, body, and what follows.
fn split(data: &[u8]) -> Result<Option<Split<'_>>> {
    let short = || Error::new("netlink: a message is shorter than it says");
    if data.is_empty() {
        return Ok(None);
    }
    let header = data.get(..HEADER).ok_or_else(short)?;
    let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let kind = u16::from_ne_bytes(header[4..6].try_into().expect("two bytes"));
    let length = word(0) as usize;
    let body = data.get(HEADER..length).ok_or_else(short)?;
    let next = length.next_multiple_of(4).min(data.len());
    Ok(Some((kind, word(8), body, &data[next..])))
}

fn number(body: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(body.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked() {
        let mut message = Vec::new();
        message.extend(20u32.to_ne_bytes());
        message.extend([2, 0, 0, 0]);
        message.extend(7u32.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        assert!(split(&message).is_err());
        message.extend((-19i32).to_ne_bytes());
        let (kind, sequence, body, rest) = split(&message).unwrap().unwrap();
        assert_eq!((kind, sequence, number(body), rest.len()), (2, 7, Some(-19), 0));
        assert!(split(&[1, 2, 3]).is_err());
    }
}
