//! Unix sockets that carry descriptors (unix(7), SCM_RIGHTS), and the loopback device.

use super::{again, check, check_fd, cstring, errno, failed};
use crate::error::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// socketpair(2) of type SOCK_SEQPACKET: messages keep their boundaries.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the array has room for two descriptors, which are ours on success.
    unsafe {
        let r = libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr());
        check(r, || "socketpair(AF_UNIX, SOCK_SEQPACKET)".into())?;
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// Connects to the stream socket at `path`.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    connect_to(path.as_os_str().as_bytes(), None)
}

/// Connects to the stream socket `name`, a path or (with a leading NUL byte) an abstract name.
///
/// # Errors
/// EAGAIN: the listener has not accepted the connection within `limit`.
pub fn connect_within(name: &[u8], limit: Duration) -> Result<OwnedFd> {
    connect_to(name, Some(limit))
}

fn connect_to(name: &[u8], limit: Option<Duration>) -> Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    let fd = check_fd(fd.into(), || "socket(AF_UNIX)".into())?;
    if let Some(limit) = limit {
        limit_sending(&fd, limit)?;
    }
    // SAFETY: all-zero is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let shown = || String::from_utf8_lossy(name).replace('\0', "@");
    if name.len() >= address.sun_path.len() {
        return Err(Error::new(format!(
            "the socket path {:?} is longer than {} bytes (unix(7)); give a shorter one",
            shown(),
            address.sun_path.len() - 1
        )));
    }
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    // An abstract name is as long as the address says; a path ends at its NUL byte.
    let end = if name.first() == Some(&0) { name.len() } else { name.len() + 1 };
    let size = (std::mem::offset_of!(libc::sockaddr_un, sun_path) + end) as libc::socklen_t;
    // SAFETY: the address is initialised and no shorter than the size that is passed.
    let r = again(|| unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), size) });
    check(r, || format!("connect({:?})", shown()))?;
    Ok(fd)
}

/// SO_SNDTIMEO (socket(7)), which limits connect(2), too.
fn limit_sending(socket: &OwnedFd, limit: Duration) -> Result<()> {
    let time = libc::timeval {
        tv_sec: limit.as_secs() as libc::time_t,
        // Never zero, which would mean "without end".
        tv_usec: libc::suseconds_t::from(limit.subsec_micros().max(1)),
    };
    let size = size_of::<libc::timeval>() as libc::socklen_t;
    let option = libc::SO_SNDTIMEO;
    // SAFETY: the option takes a timeval, whose address and size are passed.
    let r = unsafe {
        let value = (&raw const time).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, size)
    };
    check(r, || format!("setsockopt(SO_SNDTIMEO, {limit:?})")).map(drop)
}

/// Room for the control message of one descriptor, aligned as cmsghdr is.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// sendmsg(2): one message, with a descriptor if one is given. No SIGPIPE.
pub fn send(socket: impl AsFd, data: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
    send_some(socket, data, fd).map(drop)
}

/// As [`send`], on a stream, which may take less than all: says how much it took.
pub fn send_some(socket: impl AsFd, data: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<usize> {
    let raw = socket.as_fd().as_raw_fd();
    let mut control = Control([0; 64]);
    let mut iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut iov;
    message.msg_iovlen = 1;
    if let Some(fd) = fd {
        message.msg_control = (&raw mut control).cast();
        // SAFETY: the control buffer is aligned and larger than CMSG_SPACE of one descriptor.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(4) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(4) as _;
            libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd.as_raw_fd());
        }
    }
    loop {
        // SAFETY: the message points to live buffers.
        let n = unsafe { libc::sendmsg(raw, &message, libc::MSG_NOSIGNAL) };
        if n != -1 || errno() != libc::EINTR {
            let n = check(n, || format!("sendmsg({raw}, {} bytes)", data.len()))?;
            return Ok(n as usize);
        }
    }
}

/// recvmsg(2): one message of at most `limit` bytes and the descriptor that came with it.
///
/// No bytes means that the other side is gone. A longer message is an error, never cut.
pub fn receive(socket: impl AsFd, limit: usize) -> Result<(Vec<u8>, Option<OwnedFd>)> {
    receive_with(socket, limit, 0)
}

/// As [`receive`], with the error EAGAIN where no message is there yet.
pub fn receive_now(socket: impl AsFd, limit: usize) -> Result<(Vec<u8>, Option<OwnedFd>)> {
    receive_with(socket, limit, libc::MSG_DONTWAIT)
}

fn receive_with(socket: impl AsFd, limit: usize, flags: i32) -> Result<(Vec<u8>, Option<OwnedFd>)> {
    let raw = socket.as_fd().as_raw_fd();
    let mut data = vec![0u8; limit];
    let mut control = Control([0; 64]);
    let mut iov = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut iov;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    let n = loop {
        // SAFETY: the message points to live, writable buffers.
        let n = unsafe { libc::recvmsg(raw, &mut message, libc::MSG_CMSG_CLOEXEC | flags) };
        if n != -1 || errno() != libc::EINTR {
            break check(n, || format!("recvmsg({raw})"))?;
        }
    };
    let mut fd = None;
    // SAFETY: the kernel filled the control buffer; a header that it returns is inside it, and
    // the descriptor in an SCM_RIGHTS message is new and ours.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        if !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS {
            let number = libc::CMSG_DATA(header).cast::<i32>().read_unaligned();
            fd = Some(OwnedFd::from_raw_fd(number));
        }
    }
    if message.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(failed(libc::EMSGSIZE, || format!("recvmsg({raw}, {limit} bytes)")));
    }
    data.truncate(n as usize);
    Ok((data, fd))
}

/// recvmsg(2) of one byte, by that call alone; 0: the other side is gone.
pub fn receive_byte(socket: impl AsFd, byte: &mut [u8; 1]) -> Result<usize> {
    let raw = socket.as_fd().as_raw_fd();
    let mut iov = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut iov;
    message.msg_iovlen = 1;
    loop {
        // SAFETY: the message points to one live, writable byte.
        let n = unsafe { libc::recvmsg(raw, &mut message, 0) };
        if n != -1 || errno() != libc::EINTR {
            return check(n, || format!("recvmsg({raw}, 1 byte)")).map(|n| n as usize);
        }
    }
}

/// Sets the interface `name` of this network namespace up (netdevice(7), SIOCSIFFLAGS).
pub fn set_interface_up(name: &str) -> Result<()> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    let fd = check_fd(fd.into(), || "socket(AF_INET, SOCK_DGRAM)".into())?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let c = cstring(name)?;
    for (to, from) in request.ifr_name.iter_mut().zip(c.as_bytes()) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads the name and the flags of the structure.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) };
    check(r, || format!("ioctl(SIOCSIFFLAGS, {name:?}, IFF_UP)")).map(drop)
}
