//! The monitor's side of attach: many clients, each with a bounded queue.
//!
//! A client that only watches and cannot keep up is told so and dropped; the container,
//! the log and the other clients never notice. The foreground client is the exception, on
//! purpose: what `shim run … | gzip` prints must be complete, so while its queue is not
//! empty the monitor reads nothing more from the container.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::log::Stream;
use crate::protocol::{Hello, PACKET, ToClient, ToMonitor};

/// Bytes that wait in memory for one client, after the kernel's socket buffer is full.
const QUEUE: usize = 64 << 10;
/// Clients at one time: bounds descriptors as well as memory.
const CLIENTS: usize = 32;

/// Who is attached.
#[derive(Debug, Default)]
pub struct Clients {
    list: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    hello: Option<Hello>,
    queue: VecDeque<Vec<u8>>,
    queued: usize,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    /// Gets what is queued and is then disconnected.
    Leaving,
    Gone,
}

/// What a client asks of the monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Bytes for stdin.
    Stdin(Vec<u8>),
    /// Stdin ends.
    StdinEnd,
    /// Rows and columns.
    Resize(u16, u16),
}

impl Clients {
    /// Accepts everybody who waits, and reads their first messages, so that a client that
    /// connected before the container was started misses nothing.
    pub fn accept(&mut self, listener: BorrowedFd<'_>) {
        use rustix::net::{SocketFlags, accept_with};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(socket) = accept_with(listener, flags) {
            let mut client = Client::new(socket);
            if self.list.len() >= CLIENTS {
                client.part("too many clients are attached");
                client.flush();
                continue;
            }
            self.list.push(client);
        }
    }

    /// The descriptors to poll, in a fixed order, and what for. Input is not read while
    /// the container's stdin is full.
    pub fn interests(&self, stdin_full: bool) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.list.iter().map(move |client| {
            let mut flags = PollFlags::empty();
            if !stdin_full {
                flags |= PollFlags::IN;
            }
            if !client.queue.is_empty() {
                flags |= PollFlags::OUT;
            }
            (client.socket.as_fd(), flags)
        })
    }

    /// Serves the clients according to poll's answers, which come in the order of
    /// `interests`; clients accepted since have none yet. Returns what they ask for.
    pub fn serve(&mut self, ready: &[PollFlags], buffer: &mut [u8]) -> Vec<Request> {
        let mut requests = Vec::new();
        for (n, client) in self.list.iter_mut().enumerate() {
            // Newcomers are read at once, for their hello.
            let ready = ready.get(n).copied().unwrap_or(PollFlags::IN);
            if ready.contains(PollFlags::OUT) {
                client.flush();
            }
            if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                client.receive(buffer, &mut requests);
            }
        }
        self.list.retain(|client| client.fate != Fate::Gone);
        requests
    }

    /// Whether the container must wait for a foreground client to take its output.
    pub fn are_behind(&self) -> bool {
        let behind = |client: &Client| client.is_foreground() && !client.queue.is_empty();
        self.list.iter().any(behind)
    }

    /// Whether anybody has still to take something.
    pub fn have_queues(&self) -> bool {
        self.list.iter().any(|client| !client.queue.is_empty())
    }

    /// Gives a chunk of output to everybody who wants it.
    pub fn output(&mut self, stream: Stream, chunk: &[u8]) {
        if self.list.is_empty() {
            return;
        }
        let packet = match stream {
            Stream::Stdout => ToClient::Stdout(chunk),
            Stream::Stderr => ToClient::Stderr(chunk),
        }
        .encode();
        for client in &mut self.list {
            if client.hello.is_some_and(|hello| hello.output) {
                client.send(&packet);
            }
        }
    }

    /// Tells those who only wait for the end that it has come; the others still have
    /// output to take first.
    pub fn announce(&mut self, code: u8) {
        let wants_output = |client: &Client| client.hello.is_none_or(|hello| hello.output);
        self.say_goodbye(code, |client| !wants_output(client));
    }

    /// Tells everybody how it ended, and that this is all.
    pub fn farewell(&mut self, code: u8) {
        self.say_goodbye(code, |_| true);
    }

    fn say_goodbye(&mut self, code: u8, to: impl Fn(&Client) -> bool) {
        let packet = ToClient::Exit(code).encode();
        for client in self.list.iter_mut().filter(|client| to(client)) {
            client.send(&packet);
            if client.fate == Fate::Stays {
                client.fate = Fate::Leaving;
            }
        }
        self.list.retain(|client| !client.is_done());
    }
}

impl Client {
    fn new(socket: OwnedFd) -> Self {
        Self { socket, hello: None, queue: VecDeque::new(), queued: 0, fate: Fate::Stays }
    }

    fn is_foreground(&self) -> bool {
        self.hello.is_some_and(|hello| hello.foreground)
    }

    fn is_done(&self) -> bool {
        self.fate == Fate::Gone || (self.fate == Fate::Leaving && self.queue.is_empty())
    }

    fn send(&mut self, packet: &[u8]) {
        if self.fate != Fate::Stays {
            return;
        }
        if self.queue.is_empty() && self.push(packet) {
            return;
        }
        if self.fate == Fate::Gone {
            return;
        }
        if !self.is_foreground() && self.queued + packet.len() > QUEUE {
            return self
                .part("too slow: the container's output outran this client (shim logs has it)");
        }
        self.queued += packet.len();
        self.queue.push_back(packet.to_owned());
    }

    /// Frees the queue and leaves one last word in it.
    fn part(&mut self, why: &str) {
        let packet = ToClient::Notice(&format!("disconnected: {why}")).encode();
        self.queued = packet.len();
        self.queue = VecDeque::from([packet]);
        self.fate = Fate::Leaving;
    }

    fn flush(&mut self) {
        while let Some(packet) = self.queue.pop_front() {
            if !self.push(&packet) {
                self.queue.push_front(packet);
                break;
            }
            self.queued -= packet.len();
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        if self.fate == Fate::Gone || self.is_done() {
            self.fate = Fate::Gone;
        }
    }

    /// Sends one packet if the socket takes it now.
    fn push(&mut self, packet: &[u8]) -> bool {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::send(&self.socket, packet, flags) {
            Ok(_) => return true,
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => {}
            Err(_) => self.fate = Fate::Gone,
        }
        false
    }

    /// Reads at most a few packets, so that no client starves the others.
    fn receive(&mut self, buffer: &mut [u8], requests: &mut Vec<Request>) {
        for _ in 0..4 {
            match rustix::net::recv(&self.socket, &mut buffer[..PACKET], RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::CONNRESET | Errno::NOTCONN) => {
                    return self.vanish(requests);
                }
                Ok((length, _)) => self.obey(&buffer[..length.min(PACKET)], requests),
                Err(_) => return,
            }
        }
    }

    fn obey(&mut self, packet: &[u8], requests: &mut Vec<Request>) {
        match ToMonitor::decode(packet) {
            Some(ToMonitor::Hello(hello)) => self.hello = Some(hello),
            Some(ToMonitor::Stdin(bytes)) => requests.push(Request::Stdin(bytes.to_owned())),
            Some(ToMonitor::StdinEnd) => requests.push(Request::StdinEnd),
            Some(ToMonitor::Resize(rows, columns)) => {
                requests.push(Request::Resize(rows, columns));
            }
            Some(ToMonitor::Detach) => self.fate = Fate::Gone,
            None => self.part("it sent something that is no message"),
        }
    }

    fn vanish(&mut self, requests: &mut Vec<Request>) {
        if self.fate != Fate::Gone && self.is_foreground() {
            requests.push(Request::StdinEnd);
        }
        self.fate = Fate::Gone;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair(hello: Hello) -> (Clients, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let mut clients = Clients::default();
        clients.list.push(Client::new(ours));
        rustix::net::send(&theirs, &ToMonitor::Hello(hello).encode(), SendFlags::empty()).unwrap();
        assert!(clients.serve(&[], &mut [0; PACKET]).is_empty());
        (clients, theirs)
    }

    fn drain(socket: &OwnedFd) -> Vec<Vec<u8>> {
        let mut buffer = [0; PACKET];
        let mut packets = Vec::new();
        while let Ok((length, _)) = rustix::net::recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
            if length == 0 {
                break;
            }
            packets.push(buffer[..length].to_vec());
        }
        packets
    }

    const WATCHER: Hello = Hello { output: true, foreground: false };
    const FOREGROUND: Hello = Hello { output: true, foreground: true };

    #[test]
    fn a_stalled_watcher_is_dropped_with_a_notice_and_bounded_memory() {
        let (mut clients, theirs) = pair(WATCHER);
        for _ in 0..1000 {
            clients.output(Stream::Stdout, &[b'x'; 8192]);
            assert!(clients.list[0].queued <= QUEUE);
            assert!(!clients.are_behind());
        }
        let mut packets = drain(&theirs);
        clients.serve(&[PollFlags::OUT], &mut [0; PACKET]);
        packets.extend(drain(&theirs));
        let last = ToClient::decode(packets.last().unwrap()).unwrap();
        assert!(matches!(last, ToClient::Notice(text) if text.contains("too slow")));
        assert!(clients.list.is_empty());
    }

    #[test]
    fn a_foreground_client_holds_the_container_back_and_loses_nothing() {
        let (mut clients, theirs) = pair(FOREGROUND);
        let (mut sent, mut seen) = (0, 0);
        while sent < 500 {
            while !clients.are_behind() {
                clients.output(Stream::Stderr, &[b'x'; 8192]);
                sent += 1;
            }
            seen += drain(&theirs).len();
            clients.serve(&[PollFlags::OUT], &mut [0; PACKET]);
        }
        seen += drain(&theirs).len();
        assert_eq!(sent, seen);
    }

    #[test]
    fn leaving_without_a_word_ends_stdin_and_detaching_does_not() {
        for (detach, expected) in [(false, vec![Request::StdinEnd]), (true, vec![])] {
            let (mut clients, theirs) = pair(FOREGROUND);
            if detach {
                let packet = ToMonitor::Detach.encode();
                rustix::net::send(&theirs, &packet, SendFlags::empty()).unwrap();
            }
            drop(theirs);
            assert_eq!(clients.serve(&[PollFlags::IN], &mut [0; PACKET]), expected);
            assert!(clients.list.is_empty());
        }
    }

    #[test]
    fn garbage_is_answered_and_the_end_is_told() {
        let (mut clients, theirs) = pair(WATCHER);
        clients.farewell(7);
        assert_eq!(drain(&theirs), [ToClient::Exit(7).encode()]);

        let (mut clients, theirs) = pair(WATCHER);
        rustix::net::send(&theirs, b"\xffrubbish", SendFlags::empty()).unwrap();
        clients.serve(&[PollFlags::IN], &mut [0; PACKET]);
        clients.serve(&[PollFlags::OUT], &mut [0; PACKET]);
        let packets = drain(&theirs);
        let text = String::from_utf8_lossy(&packets[0]);
        assert!(text.contains("no message"), "{text}");
    }
}
