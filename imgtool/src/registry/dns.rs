//! Host names to addresses, without the C library.
//!
//! A static program must not call `getaddrinfo`: glibc would load the modules that
//! `nsswitch.conf` names into it, from whatever system it runs on. So this asks `/etc/hosts`, then
//! the servers of `/etc/resolv.conf` (resolv.conf(5): nameserver, search, domain, and the options
//! ndots, timeout, attempts), as musl does: a stub resolver (RFC 1034, section 5.3.1) over UDP
//! with TCP for long answers.

use crate::order;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How many addresses are tried.
const MAX_ADDRESSES: usize = 16;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;

/// Resolves the hosts of URLs.
#[derive(Debug)]
pub(super) struct StubResolver;

impl Resolver for StubResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default();
        let default_port = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        let port = uri.port_u16().unwrap_or(default_port);
        let mut found = self.empty();
        for address in look_up(host)?.into_iter().take(MAX_ADDRESSES) {
            found.push(SocketAddr::new(address, port));
        }
        Ok(found)
    }
}

/// At least one address, or an error that says why there is none.
fn look_up(host: &str) -> io::Result<Vec<IpAddr>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let found = from_hosts(&hosts, host);
    if !found.is_empty() {
        return Ok(found);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    ResolvConf::parse(&conf).resolve(host)
}

fn from_hosts(hosts: &str, name: &str) -> Vec<IpAddr> {
    let lines = hosts.lines().map(|l| l.split('#').next().unwrap_or_default());
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|w| w.eq_ignore_ascii_case(name)).then_some(address)
    };
    sorted(lines.filter_map(address).collect())
}

/// IPv4 first: a host without a way into IPv6 would only wait for a time-out.
fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    order::sort_by(&mut addresses, |a, b| a.is_ipv6().cmp(&b.is_ipv6()));
    addresses.dedup();
    addresses
}

/// What resolv.conf(5) says.
#[derive(Debug, PartialEq, Eq)]
struct ResolvConf {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    timeout: Duration,
    attempts: u32,
}

impl ResolvConf {
    fn parse(text: &str) -> ResolvConf {
        let mut conf = ResolvConf {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(server)),
                Some("search" | "domain") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|w| conf.option(w)),
                _ => {}
            }
        }
        conf.servers.truncate(3);
        if conf.servers.is_empty() {
            conf.servers.push((Ipv4Addr::LOCALHOST, 53).into());
        }
        conf
    }

    fn option(&mut self, word: &str) {
        let (key, value) = word.split_once(':').unwrap_or((word, ""));
        let number = value.parse::<u64>();
        match (key, number) {
            ("ndots", Ok(n)) => self.ndots = n.min(15) as usize,
            ("timeout", Ok(n)) => self.timeout = Duration::from_secs(n.clamp(1, 30)),
            ("attempts", Ok(n)) => self.attempts = n.clamp(1, 5) as u32,
            _ => {}
        }
    }

    fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut last = no_such_host(host);
        for name in self.names(host) {
            match self.resolve_name(&name) {
                Ok(found) => return Ok(found),
                // Keep looking in other domains, unless nobody can answer at all.
                Err(e) if e.kind() == io::ErrorKind::NotFound => last = no_such_host(host),
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::new(last.kind(), format!("{last}; asked {}", self.servers_text())))
    }

    /// The names to ask for, in order (resolv.conf(5), ndots).
    fn names(&self, host: &str) -> Vec<String> {
        if let Some(absolute) = host.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut names: Vec<String> =
            self.search.iter().map(|d| format!("{host}.{}", d.trim_matches('.'))).collect();
        let dots = host.matches('.').count();
        names.insert(if dots >= self.ndots { 0 } else { names.len() }, host.to_owned());
        names
    }

    fn servers_text(&self) -> String {
        self.servers.iter().map(|s| s.ip().to_string()).collect::<Vec<_>>().join(", ")
    }

    fn resolve_name(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut found = self.ask(name, TYPE_A)?;
        // A server that fails on AAAA must not hide an address that works.
        match self.ask(name, TYPE_AAAA) {
            Ok(more) => found.extend(more),
            Err(e) if found.is_empty() => return Err(e),
            Err(_) => {}
        }
        if found.is_empty() { Err(no_such_host(name)) } else { Ok(sorted(found)) }
    }

    /// Asks each server in turn, as often as configured. No record of the type is no error.
    fn ask(&self, name: &str, kind: u16) -> io::Result<Vec<IpAddr>> {
        let mut last = io::Error::other("no name server");
        for _ in 0..self.attempts {
            for server in &self.servers {
                match self.ask_server(*server, name, kind) {
                    Ok(found) => return Ok(found),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                    Err(e) => last = e,
                }
            }
        }
        let why = last.to_string();
        let why = why.split(" (os error").next().unwrap_or(&why);
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("cannot resolve {name}: name server {}: {why}", self.servers_text()),
        ))
    }

    fn ask_server(&self, server: SocketAddr, name: &str, kind: u16) -> io::Result<Vec<IpAddr>> {
        let query = encode_query(name, kind)?;
        let local: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local)?;
        // Connected: the kernel drops what comes from elsewhere.
        socket.connect(server)?;
        socket.set_read_timeout(Some(self.timeout))?;
        socket.send(&query)?;
        let mut buf = [0; 4096];
        loop {
            let n = socket.recv(&mut buf)?;
            match parse_answer(&buf[..n], &query, kind)? {
                Answer::Foreign => {}
                Answer::Found(found) => return Ok(found),
                Answer::Truncated => return self.ask_by_tcp(server, &query, kind),
            }
        }
    }

    fn ask_by_tcp(&self, server: SocketAddr, query: &[u8], kind: u16) -> io::Result<Vec<IpAddr>> {
        let mut stream = TcpStream::connect_timeout(&server, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        let mut message = (query.len() as u16).to_be_bytes().to_vec();
        message.extend(query);
        stream.write_all(&message)?;
        let mut len = [0; 2];
        stream.read_exact(&mut len)?;
        let mut answer = vec![0; u16::from_be_bytes(len).into()];
        stream.read_exact(&mut answer)?;
        match parse_answer(&answer, query, kind)? {
            Answer::Found(found) => Ok(found),
            _ => Err(malformed()),
        }
    }
}

fn server(text: &str) -> Option<SocketAddr> {
    let address: IpAddr = text.split('%').next()?.parse().ok()?;
    Some(SocketAddr::new(address, 53))
}

fn no_such_host(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("cannot resolve {name}: no such host"))
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed answer")
}

/// A query for one name (RFC 1035, section 4.1) with a random id, recursion desired.
fn encode_query(name: &str, kind: u16) -> io::Result<Vec<u8>> {
    let id = (RandomState::new().hash_one(name) as u16).to_be_bytes();
    let mut query = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        match label.len() {
            1..=63 => query.push(label.len() as u8),
            _ => return Err(no_such_host(name)),
        }
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend(CLASS_IN.to_be_bytes());
    if name.len() > 253 { Err(no_such_host(name)) } else { Ok(query) }
}

enum Answer {
    /// Not an answer to our query.
    Foreign,
    Truncated,
    Found(Vec<IpAddr>),
}

/// The addresses of an answer, whose aliases the server has followed.
fn parse_answer(answer: &[u8], query: &[u8], kind: u16) -> io::Result<Answer> {
    let (Some(header), Some(question)) = (answer.get(..12), answer.get(12..query.len())) else {
        return Ok(Answer::Foreign);
    };
    let is_response = header[2] & 0x80 != 0;
    if header[..2] != query[..2] || !is_response || !question.eq_ignore_ascii_case(&query[12..]) {
        return Ok(Answer::Foreign);
    }
    match header[3] & 0x0f {
        0 => {}
        3 => return Err(io::ErrorKind::NotFound.into()),
        code => return Err(io::Error::other(format!("answered with error {code}"))),
    }
    if header[2] & 0x02 != 0 {
        return Ok(Answer::Truncated);
    }
    let count = u16::from_be_bytes([header[6], header[7]]);
    let mut rest = &answer[query.len()..];
    let mut found = Vec::new();
    for _ in 0..count {
        let (record, tail) = split_record(rest).ok_or_else(malformed)?;
        if record.kind == kind && record.class == CLASS_IN {
            found.extend(to_address(record.data));
        }
        rest = tail;
    }
    Ok(Answer::Found(found))
}

/// A resource record (RFC 1035, section 4.1.3).
struct Record<'a> {
    kind: u16,
    class: u16,
    data: &'a [u8],
}

/// The first record, and what follows it.
fn split_record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let bytes = skip_name(bytes)?;
    let number = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let end = 10 + usize::from(number(8)?);
    let data = bytes.get(10..end)?;
    Some((Record { kind: number(0)?, class: number(2)?, data }, &bytes[end..]))
}

/// A name ends with a zero label or with a pointer (RFC 1035, section 4.1.4).
fn skip_name(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        match *bytes.first()? {
            0 => return Some(&bytes[1..]),
            len if len >= 0xc0 => return bytes.get(2..),
            len if len < 0x40 => bytes = bytes.get(1 + usize::from(len)..)?,
            _ => return None,
        }
    }
}

fn to_address(data: &[u8]) -> Option<IpAddr> {
    match data.len() {
        4 => Some(<[u8; 4]>::try_from(data).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(data).ok()?.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hosts() {
        let hosts =
            "127.0.0.1 localhost\n::1 R.io # x r2.io\n10.0.0.1\tr.IO alias\nnonsense r.io\n";
        let r: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(from_hosts(hosts, "r.io"), r);
        assert!(from_hosts(hosts, "r2.io").is_empty());
    }

    #[test]
    fn reads_resolv_conf() {
        let conf = ResolvConf::parse(
            "# x\nnameserver 10.0.0.1\nnameserver ::1\nnameserver zz\ndomain old\nsearch a.b c\noptions ndots:2 timeout:1 rotate\n",
        );
        assert_eq!(
            conf.servers,
            [SocketAddr::from(([10, 0, 0, 1], 53)), "[::1]:53".parse().unwrap()]
        );
        assert_eq!((conf.ndots, conf.timeout, conf.attempts), (2, Duration::from_secs(1), 2));
        assert_eq!(conf.names("r.io"), ["r.io.a.b", "r.io.c", "r.io"]);
        assert_eq!(conf.names("x.r.io"), ["x.r.io", "x.r.io.a.b", "x.r.io.c"]);
        assert_eq!(conf.names("r."), ["r"]);
        assert_eq!(ResolvConf::parse("").servers, [SocketAddr::from(([127, 0, 0, 1], 53))]);
    }

    /// Answers one query: an alias, then an address.
    fn answer_to(query: &[u8]) -> Vec<u8> {
        let mut answer = query.to_vec();
        answer[2] |= 0x80;
        answer[7] = 2;
        answer.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 3, 1, b'x', 0]);
        answer.extend([1, b'x', 0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 1, 2, 3]);
        answer
    }

    #[test]
    fn finds_addresses_behind_aliases() {
        let query = encode_query("r.io", TYPE_A).unwrap();
        match parse_answer(&answer_to(&query), &query, TYPE_A).unwrap() {
            Answer::Found(found) => assert_eq!(found, [IpAddr::from([10, 1, 2, 3])]),
            _ => panic!("no answer"),
        }
    }

    #[test]
    fn survives_any_damage() {
        let query = encode_query("r.io", TYPE_A).unwrap();
        let good = answer_to(&query);
        for len in 0..good.len() {
            drop(parse_answer(&good[..len], &query, TYPE_A));
        }
        for at in 0..good.len() {
            for value in [0, 0x3f, 0x40, 0x80, 0xc0, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                drop(parse_answer(&bad, &query, TYPE_A));
            }
        }
        let mut other_id = good;
        other_id[0] ^= 1;
        assert!(matches!(parse_answer(&other_id, &query, TYPE_A), Ok(Answer::Foreign)));
    }

    #[test]
    fn asks_a_server_and_understands_no() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut buf = [0; 512];
            for i in 0..4 {
                let (n, from) = server.recv_from(&mut buf).unwrap();
                let query = &buf[..n];
                let is_a = query[n - 3] == TYPE_A as u8;
                let mut answer = if is_a { answer_to(query) } else { query.to_vec() };
                answer[2] |= 0x80;
                if i >= 2 {
                    answer[3] = 3;
                }
                server.send_to(&answer, from).unwrap();
            }
        });
        let mut conf = ResolvConf::parse("");
        conf.servers = vec![address];
        assert_eq!(conf.resolve("r.io").unwrap(), [IpAddr::from([10, 1, 2, 3])]);
        let e = conf.resolve("nope.io").unwrap_err().to_string();
        assert_eq!(e, "cannot resolve nope.io: no such host; asked 127.0.0.1");
        thread.join().unwrap();
    }

    #[test]
    fn impossible_names_are_refused() {
        for name in ["", "a..b", ".", &"a".repeat(64), &["abc"; 70].join(".")] {
            assert!(encode_query(name, TYPE_A).is_err(), "{name}");
        }
    }
}
