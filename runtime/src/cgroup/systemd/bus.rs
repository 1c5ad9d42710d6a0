//! A client of the D-Bus message bus that never waits without a deadline.
//!
//! Messages are made and read by the crate `rustbus`; the connection is our own, because the
//! crate's waits for ever while it authenticates, announces the wrong user from inside a user
//! namespace, and leaves its socket open across execve(2) (docs/dependencies.md).

use crate::error::{Context, Error, Result};
use crate::sys::socket;
use rustbus::message_builder::{MarshalledMessage, MessageBuilder, MessageType};
use rustbus::params::{Base, Param};
use rustbus::wire::{marshal, unmarshal};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A value that a message carries.
pub type Value = Param<'static, 'static>;

/// How long one call may take: what the D-Bus libraries take by default.
const CALL: Duration = Duration::from_secs(25);
/// No message of systemd's is longer; D-Bus itself allows 128 MiB.
const LIMIT: usize = 1 << 20;

/// A message bus, as the state file remembers it: who deletes a container may have another
/// environment than who made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bus {
    /// The user's own, not the system's.
    pub user: bool,
    /// Its address (D-Bus specification, Server Addresses).
    pub address: String,
}

impl Bus {
    /// The system's bus.
    pub fn system() -> Self {
        let own = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").ok().filter(|a| !a.is_empty());
        let address = own.unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".into());
        Self { user: false, address }
    }

    /// The bus of the user's own systemd; `uid` is the user outside of our user namespace.
    pub fn of_user(uid: u32) -> Self {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address = set("DBUS_SESSION_BUS_ADDRESS").unwrap_or_else(|| {
            let own = set("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{uid}"));
            format!("unix:path={own}/bus")
        });
        Self { user: true, address }
    }

    /// Socket names in the address, in order; an abstract one begins with a NUL byte.
    fn sockets(&self) -> Vec<Vec<u8>> {
        let one = |address: &str| {
            let pairs = address.strip_prefix("unix:")?.split(',');
            pairs.filter_map(|pair| pair.split_once('=')).find_map(|(key, value)| match key {
                "path" => Some(unescape(value)),
                "abstract" => Some([vec![0], unescape(value)].concat()),
                _ => None,
            })
        };
        self.address.split(';').filter_map(one).collect()
    }
}

impl std::fmt::Display for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whose = if self.user { "user" } else { "system" };
        write!(f, "the {whose} bus ({})", self.address)
    }
}

/// `%41` is `A`.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) if *first == b'%' => {
                out.push(byte);
                rest = &after[2..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// What a call can fail with, other than on the way.
#[derive(Debug)]
pub struct Refused {
    /// The error's D-Bus name.
    pub name: String,
    /// It as ours, with the call that it answers.
    pub error: Error,
}

/// A connection.
#[derive(Debug)]
pub struct Connection<'a> {
    bus: &'a Bus,
    stream: UnixStream,
    serial: u32,
    /// Signals that came while an answer was awaited.
    signals: VecDeque<Signal>,
}

/// A signal: its name, and its text and number arguments as text.
#[derive(Debug)]
pub struct Signal {
    /// The member.
    pub name: String,
    /// The arguments.
    pub arguments: Vec<String>,
}

impl<'a> Connection<'a> {
    /// Connects, authenticates as who we are, and says hello.
    pub fn open(bus: &'a Bus) -> Result<Self> {
        let deadline = Deadline::new(bus, "Hello", CALL);
        let sockets = bus.sockets();
        let first = sockets.first().ok_or_else(|| {
            Error::new(format!("{bus}: the address names no unix socket, by path or abstract"))
        })?;
        let stream = connect(first, &deadline).map_err(|e| {
            let hint = match bus.user {
                true => "; is a session of the user's running (loginctl enable-linger)?",
                false => "; does systemd run on this host?",
            };
            e.wrap(format!("connect to {bus}{hint}"))
        })?;
        let mut made = Self { bus, stream, serial: 0, signals: VecDeque::new() };
        made.authenticate(&deadline)?;
        made.call_by(&deadline, BUS, "Hello", &[])?.map_err(|refused| refused.error)?;
        Ok(made)
    }

    /// EXTERNAL with no name: we are who the kernel says that we are, also in a user namespace,
    /// where our user id is not the one by which the bus knows us.
    fn authenticate(&mut self, deadline: &Deadline<'_>) -> Result<()> {
        self.write(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n", deadline)?;
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n") || said.iter().filter(|b| **b == b'\n').count() < 2 {
            let mut byte = [0u8; 1];
            self.read(&mut byte, deadline)?;
            said.push(byte[0]);
            if said.len() > 4096 || said.starts_with(b"REJECTED") || said.starts_with(b"ERROR") {
                break;
            }
        }
        let text = String::from_utf8_lossy(&said).into_owned();
        match text.lines().last() {
            Some(last) if last.starts_with("OK ") => Ok(()),
            _ => Err(Error::new(format!("{} does not let us in: {:?}", self.bus, text.trim()))),
        }
    }

    /// Calls a method and waits for the answer, of which the arguments are returned.
    pub fn call(&mut self, to: To, method: &str, arguments: &[Value]) -> Answer {
        let bus = self.bus;
        self.call_by(&Deadline::new(bus, method, CALL), to, method, arguments)
    }

    fn call_by(
        &mut self,
        deadline: &Deadline<'_>,
        to: To,
        method: &str,
        arguments: &[Value],
    ) -> Answer {
        let mut message = MessageBuilder::new()
            .call(method)
            .with_interface(to.interface)
            .on(to.object)
            .at(to.destination)
            .build();
        let odd = |e: &dyn std::fmt::Display| Error::new(format!("make the call {method}: {e}"));
        message.body.push_old_params(arguments).map_err(|e| odd(&e))?;
        self.serial += 1;
        let mut bytes = Vec::new();
        marshal::marshal(&message, self.serial, &mut bytes).map_err(|e| odd(&e))?;
        bytes.extend(message.get_buf());
        self.write(&bytes, deadline)?;
        loop {
            let message = self.receive(deadline)?;
            let ours = message.dynheader.response_serial == Some(self.serial);
            match message.typ {
                MessageType::Signal => self.signals.push_back(signal(message)),
                MessageType::Reply if ours => return Ok(Ok(texts(message))),
                MessageType::Error if ours => {
                    let name = message.dynheader.error_name.clone().unwrap_or_default();
                    let said = texts(message).into_iter().next().unwrap_or_default();
                    let error = Error::new(format!("{method} on {}: {said} ({name})", self.bus));
                    return Ok(Err(Refused { name, error }));
                }
                _ => {}
            }
        }
    }

    /// A deadline for [`Self::signal`]; `what` is told if it passes.
    pub fn deadline<'d>(&self, what: &'d str, limit: Duration) -> Deadline<'d>
    where
        'a: 'd,
    {
        Deadline::new(self.bus, what, limit)
    }

    /// The next signal.
    pub fn signal(&mut self, deadline: &Deadline<'_>) -> Result<Signal> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Ok(signal);
            }
            let message = self.receive(deadline)?;
            if message.typ == MessageType::Signal {
                return Ok(signal(message));
            }
        }
    }

    /// Reads one message, neither less nor more.
    fn receive(&mut self, deadline: &Deadline<'_>) -> Result<MarshalledMessage> {
        const FIXED: usize = 16;
        let odd =
            |e: &dyn std::fmt::Display| Error::new(format!("a message of {}: {e}", deadline.bus));
        let mut bytes = vec![0u8; FIXED];
        self.read(&mut bytes, deadline)?;
        let (used, header) = unmarshal::unmarshal_header(&bytes, 0).map_err(|e| odd(&e))?;
        let (_, fields) = rustbus::wire::util::parse_u32(&bytes[used..], header.byteorder)
            .map_err(|e| odd(&e))?;
        let length = (FIXED + fields as usize).next_multiple_of(8) + header.body_len as usize;
        if length > LIMIT {
            return Err(odd(&format!("it is {length} bytes long")));
        }
        bytes.resize(length, 0);
        self.read(&mut bytes[FIXED..], deadline)?;
        let (more, dynamic) =
            unmarshal::unmarshal_dynamic_header(&header, &bytes, used).map_err(|e| odd(&e))?;
        let (_, message) = unmarshal::unmarshal_next_message(&header, dynamic, &bytes, used + more)
            .map_err(|e| odd(&e))?;
        Ok(message)
    }

    fn read(&mut self, buffer: &mut [u8], deadline: &Deadline<'_>) -> Result<()> {
        let mut have = 0;
        while have < buffer.len() {
            self.stream.set_read_timeout(Some(deadline.left()?)).wrap(|| "set a timeout")?;
            match self.stream.read(&mut buffer[have..]) {
                Ok(0) => return Err(Error::new(format!("{} has closed the connection", self.bus))),
                Ok(n) => have += n,
                Err(e) if retry(&e) => {}
                Err(e) => return Err(e).wrap(|| format!("read from {}", self.bus)),
            }
        }
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8], deadline: &Deadline<'_>) -> Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(deadline.left()?)).wrap(|| "set a timeout")?;
            match self.stream.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if retry(&e) => {}
                Err(e) => return Err(e).wrap(|| format!("write to {}", self.bus)),
            }
        }
        Ok(())
    }
}

/// The answer to a call: what went wrong on the way, then what the other side refused.
pub type Answer = Result<std::result::Result<Vec<String>, Refused>>;

/// Whom a call is for.
#[derive(Debug, Clone, Copy)]
pub struct To {
    /// Name on the bus.
    pub destination: &'static str,
    /// Object path.
    pub object: &'static str,
    /// Interface.
    pub interface: &'static str,
}

/// The bus itself.
pub const BUS: To = To {
    destination: "org.freedesktop.DBus",
    object: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

/// What is waited for, where, and until when.
pub struct Deadline<'a> {
    bus: &'a Bus,
    what: &'a str,
    limit: Duration,
    end: Instant,
}

impl<'a> Deadline<'a> {
    fn new(bus: &'a Bus, what: &'a str, limit: Duration) -> Self {
        Self { bus, what, limit, end: Instant::now() + limit }
    }

    /// How long is left; an error once nothing is.
    fn left(&self) -> Result<Duration> {
        match self.end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(Error::new(format!(
                "{}: no answer from {} within {}s",
                self.what,
                self.bus,
                self.limit.as_secs()
            ))),
            left => Ok(left),
        }
    }
}

fn retry(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Connects, and tries again while the bus has no time to accept us (EAGAIN).
fn connect(name: &[u8], deadline: &Deadline<'_>) -> Result<UnixStream> {
    loop {
        let left = deadline.left()?;
        match socket::connect_within(name, left) {
            Err(e) if matches!(e.errno(), Some(libc::EAGAIN | libc::EINTR)) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other.map(UnixStream::from),
        }
    }
}

fn signal(message: MarshalledMessage) -> Signal {
    let name = message.dynheader.member.clone().unwrap_or_default();
    Signal { name, arguments: texts(message) }
}

/// The arguments that are texts or numbers, as texts; a variant's is what it holds.
fn texts(message: MarshalledMessage) -> Vec<String> {
    let parameters = message.unmarshall_all().map(|m| m.params).unwrap_or_default();
    parameters.iter().map(text).collect()
}

fn text(value: &Param<'_, '_>) -> String {
    match value {
        Param::Base(Base::String(s) | Base::ObjectPath(s) | Base::Signature(s)) => s.clone(),
        Param::Base(Base::Uint32(n)) => n.to_string(),
        Param::Base(Base::Uint64(n)) => n.to_string(),
        Param::Base(Base::Boolean(b)) => b.to_string(),
        Param::Container(rustbus::params::Container::Variant(inner)) => text(&inner.value),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus(address: &str) -> Bus {
        Bus { user: false, address: address.into() }
    }

    #[test]
    fn addresses_are_lists_with_escapes() {
        let two = bus("tcp:host=x;unix:guid=1,path=/run/a%20b;unix:abstract=c");
        assert_eq!(two.sockets(), [b"/run/a b".to_vec(), b"\0c".to_vec()]);
        let e = Connection::open(&bus("tcp:host=x")).unwrap_err().to_string();
        assert!(e.contains("tcp:host=x") && e.contains("no unix socket"), "{e}");
    }

    #[test]
    fn a_bus_that_is_not_there_is_named() {
        let e = Connection::open(&bus("unix:path=/no/such/bus")).unwrap_err().to_string();
        assert!(e.contains("the system bus (unix:path=/no/such/bus)"), "{e}");
        assert!(e.contains("does systemd run on this host?") && e.contains("ENOENT"), "{e}");
    }

    /// A bus that answers `script` to whatever it is told.
    fn server(script: &'static [u8]) -> (std::path::PathBuf, std::thread::JoinHandle<()>) {
        use std::os::unix::net::UnixListener;
        let name = format!("davit-bus-{}-{}", std::process::id(), script.len());
        let path = std::env::temp_dir().join(name);
        drop(std::fs::remove_file(&path));
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(script).unwrap();
            drop(stream.read(&mut [0u8; 64]));
        });
        (path, thread)
    }

    #[test]
    fn a_bus_that_rejects_us_or_goes_away_is_an_error() {
        let (path, thread) = server(b"REJECTED EXTERNAL\r\n");
        let e = Connection::open(&bus(&format!("unix:path={}", path.display()))).unwrap_err();
        assert!(e.to_string().contains("does not let us in"), "{e}");
        thread.join().unwrap();
        std::fs::remove_file(path).unwrap();
        let (path, thread) = server(b"DATA\r\n");
        let e = Connection::open(&bus(&format!("unix:path={}", path.display()))).unwrap_err();
        assert!(e.to_string().contains("closed"), "{e}");
        thread.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_deadline_names_the_call_the_bus_and_the_time() {
        let bus = bus("unix:path=/b");
        let past = Deadline::new(&bus, "StartTransientUnit", Duration::ZERO);
        let e = past.left().unwrap_err().to_string();
        assert_eq!(e, "StartTransientUnit: no answer from the system bus (unix:path=/b) within 0s");
    }
}
