//! What attach clients and a container's monitor say to each other, over a SEQPACKET
//! socket: one message per packet, its first byte names it. Lengths never lie, and a
//! message is never split, so there is no parser to confuse.

use rustix::termios::Winsize;

/// Most bytes of output or input in one message. Output messages have conmon's shape
/// (type byte 2 or 3, then at most 8192 bytes), so one server can serve its clients too.
pub const CHUNK: usize = 8192;
/// The largest packet.
pub const PACKET: usize = CHUNK + 1;

/// From the monitor to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToClient<'a> {
    /// Output of the container's stdout, or of its terminal.
    Stdout(&'a [u8]),
    /// Output of the container's stderr.
    Stderr(&'a [u8]),
    /// A line for the user from the monitor itself.
    Notice(&'a str),
    /// The container has ended, and all its output came before this.
    Exit(u8),
}

/// From a client to the monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToMonitor<'a> {
    /// The first message: how the client wants to be treated.
    Hello(Hello),
    /// Bytes for the container's stdin or terminal.
    Stdin(&'a [u8]),
    /// Stdin has ended.
    StdinEnd,
    /// The client's terminal has this many rows and columns.
    Resize(u16, u16),
    /// The client leaves on purpose; the container's stdin stays as it is.
    Detach,
}

/// How a client wants to be treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// It wants the container's output, and not only its end.
    pub output: bool,
    /// It is the container's foreground: it gets every byte, so the container waits for
    /// it as it would for any pipe; and when it goes without detaching, stdin ends.
    pub foreground: bool,
}

const STDOUT: u8 = 2;
const STDERR: u8 = 3;
const NOTICE: u8 = 4;
const EXIT: u8 = 5;

const HELLO: u8 = 16;
const STDIN: u8 = 17;
const STDIN_END: u8 = 18;
const RESIZE: u8 = 19;
const DETACH: u8 = 20;

impl<'a> ToClient<'a> {
    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Stdout(bytes) => packet(STDOUT, bytes),
            Self::Stderr(bytes) => packet(STDERR, bytes),
            Self::Notice(text) => packet(NOTICE, text.as_bytes()),
            Self::Exit(code) => packet(EXIT, &[*code]),
        }
    }

    /// Reads a packet; `None` when it is none of ours.
    pub fn decode(packet: &'a [u8]) -> Option<Self> {
        let (kind, body) = packet.split_first()?;
        match (*kind, body) {
            (STDOUT, bytes) => Some(Self::Stdout(bytes)),
            (STDERR, bytes) => Some(Self::Stderr(bytes)),
            (NOTICE, text) => std::str::from_utf8(text).ok().map(Self::Notice),
            (EXIT, [code]) => Some(Self::Exit(*code)),
            _ => None,
        }
    }
}

impl<'a> ToMonitor<'a> {
    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => packet(HELLO, &[hello.output.into(), hello.foreground.into()]),
            Self::Stdin(bytes) => packet(STDIN, bytes),
            Self::StdinEnd => packet(STDIN_END, &[]),
            Self::Resize(rows, columns) => {
                let ([a, b], [c, d]) = (rows.to_be_bytes(), columns.to_be_bytes());
                packet(RESIZE, &[a, b, c, d])
            }
            Self::Detach => packet(DETACH, &[]),
        }
    }

    /// Reads a packet; `None` when it is none of ours.
    pub fn decode(packet: &'a [u8]) -> Option<Self> {
        let (kind, body) = packet.split_first()?;
        match (*kind, body) {
            (HELLO, [output, foreground]) => {
                Some(Self::Hello(Hello { output: *output != 0, foreground: *foreground != 0 }))
            }
            (STDIN, bytes) => Some(Self::Stdin(bytes)),
            (STDIN_END, []) => Some(Self::StdinEnd),
            (RESIZE, [a, b, c, d]) => {
                Some(Self::Resize(u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
            }
            (DETACH, []) => Some(Self::Detach),
            _ => None,
        }
    }
}

/// A window size in the shape that the kernel wants.
pub fn winsize(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(1 + body.len());
    packet.push(kind);
    packet.extend_from_slice(body);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire_and_garbage_does_not() {
        let hello = Hello { output: true, foreground: false };
        for message in [
            ToMonitor::Hello(hello),
            ToMonitor::Stdin(b"x\0y"),
            ToMonitor::StdinEnd,
            ToMonitor::Resize(24, 300),
            ToMonitor::Detach,
        ] {
            assert_eq!(ToMonitor::decode(&message.encode()), Some(message));
        }
        for message in [
            ToClient::Stdout(b"out"),
            ToClient::Stderr(b""),
            ToClient::Notice("slow"),
            ToClient::Exit(137),
        ] {
            assert_eq!(ToClient::decode(&message.encode()), Some(message));
        }
        for garbage in [&b""[..], &[RESIZE, 1], &[HELLO], &[255, 1], &[DETACH, 0]] {
            assert_eq!(ToMonitor::decode(garbage), None);
        }
        for garbage in [&b""[..], &[EXIT], &[EXIT, 1, 2], &[NOTICE, 0xff], &[0]] {
            assert_eq!(ToClient::decode(garbage), None);
        }
    }
}
