//! A registry on loopback that can be made to lie, to break off and to refuse.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imgtool::digest::Digest;

/// What a client asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| &**v)
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.target.contains(part)
    }
}

/// What the server answers.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Break off after this many bytes of the body.
    pub cut: Option<usize>,
    /// Do not say how long the body is.
    pub no_length: bool,
    /// Then be silent for so long before the connection is closed.
    pub stall: Option<Duration>,
}

impl Reply {
    pub fn new(status: u16) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            cut: None,
            no_length: false,
            stall: None,
        }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Reply {
        self.body = body.into();
        self
    }
}

type Handler = dyn Fn(&Request) -> Option<Reply> + Send + Sync;

/// A running server; it ends with the value.
pub struct Server {
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
    stop: Arc<Mutex<bool>>,
    /// A request body is read no further than this; then the connection is closed, once.
    pub break_body_at: Arc<Mutex<Option<usize>>>,
}

impl Server {
    /// Serves with this handler; where it says `None`, the connection is closed without answer.
    pub fn start(handler: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            address: listener.local_addr().unwrap(),
            log: Arc::default(),
            stop: Arc::default(),
            break_body_at: Arc::default(),
        };
        let (log, stop, cut) =
            (server.log.clone(), server.stop.clone(), server.break_body_at.clone());
        let handler: Arc<Handler> = Arc::new(handler);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if *stop.lock().unwrap() {
                    break;
                }
                let (handler, log, cut) = (handler.clone(), log.clone(), cut.clone());
                std::thread::spawn(move || drop(serve(stream.unwrap(), &*handler, &log, &cut)));
            }
        });
        server
    }

    /// All requests so far that match.
    pub fn requests(&self, method: &str, part: &str) -> Vec<Request> {
        self.log.lock().unwrap().iter().filter(|r| r.is(method, part)).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        *self.stop.lock().unwrap() = true;
        drop(TcpStream::connect(self.address));
    }
}

fn serve(
    stream: TcpStream,
    handler: &Handler,
    log: &Mutex<Vec<Request>>,
    break_body_at: &Mutex<Option<usize>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = read_head(&mut reader)?;
    let len: usize = request.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    let limit = if len > 0 { break_body_at.lock().unwrap().take() } else { None };
    reader.take(limit.unwrap_or(len).min(len) as u64).read_to_end(&mut request.body)?;
    log.lock().unwrap().push(request.clone());
    let reply = handler(&request);
    match reply {
        Some(reply) if limit.is_none() => write_reply(stream, &reply, request.method == "HEAD"),
        _ => Ok(()),
    }
}

fn read_head(reader: &mut impl BufRead) -> std::io::Result<Request> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
            None => return Ok(Request { method, target, headers, body: Vec::new() }),
        }
    }
}

fn write_reply(mut stream: TcpStream, reply: &Reply, head: bool) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !reply.no_length {
        text += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    stream.write_all(text.as_bytes())?;
    stream.write_all(b"\r\n")?;
    if !head {
        let end = reply.cut.unwrap_or(reply.body.len());
        stream.write_all(&reply.body[..end])?;
    }
    stream.flush()?;
    if let Some(time) = reply.stall {
        std::thread::sleep(time);
    }
    Ok(())
}

/// An honest registry in memory, for handlers to build on.
#[derive(Default)]
pub struct Model {
    pub manifests: Mutex<HashMap<String, (String, Vec<u8>)>>,
    pub blobs: Mutex<HashMap<String, Vec<u8>>>,
    uploads: Mutex<HashMap<String, Vec<u8>>>,
}

impl Model {
    pub fn add_blob(&self, bytes: &[u8]) -> String {
        let digest = Digest::sha256(bytes).to_string();
        self.blobs.lock().unwrap().insert(digest.clone(), bytes.to_vec());
        digest
    }

    /// Adds a manifest under a name and under its digest.
    pub fn add_manifest(&self, name: &str, media_type: &str, bytes: &[u8]) -> String {
        let digest = Digest::sha256(bytes).to_string();
        let mut manifests = self.manifests.lock().unwrap();
        for key in [name, &digest] {
            manifests.insert(key.to_owned(), (media_type.to_owned(), bytes.to_vec()));
        }
        digest
    }

    /// Answers as the distribution specification says, for any repository.
    pub fn serve(&self, request: &Request) -> Option<Reply> {
        let path = request.path().to_owned();
        let last = path.rsplit('/').next().unwrap_or_default();
        Some(match &*request.method {
            "GET" if path == "/v2/" => Reply::new(200),
            "GET" | "HEAD" if path.contains("/manifests/") => self.manifest(last),
            "PUT" if path.contains("/manifests/") => {
                let media_type = request.header("content-type").unwrap_or_default();
                let digest = self.add_manifest(last, media_type, &request.body);
                Reply::new(201).header("Docker-Content-Digest", digest)
            }
            "DELETE" if path.contains("/manifests/") => self.delete(last),
            "GET" if path.ends_with("/tags/list") => self.tags(&path),
            "GET" if path.contains("/referrers/") => Reply::new(404),
            "POST" => self.begin(request),
            _ if path.contains("/blobs/uploads/") => self.upload(request, last),
            "GET" | "HEAD" if path.contains("/blobs/") => self.blob(last, request.header("range")),
            _ => Reply::new(405),
        })
    }

    fn manifest(&self, key: &str) -> Reply {
        match self.manifests.lock().unwrap().get(key) {
            Some((media_type, bytes)) => Reply::new(200)
                .header("Content-Type", media_type)
                .header("Docker-Content-Digest", Digest::sha256(bytes).to_string())
                .body(bytes.clone()),
            None => Reply::new(404)
                .body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
        }
    }

    fn blob(&self, digest: &str, range: Option<&str>) -> Reply {
        let blobs = self.blobs.lock().unwrap();
        let Some(bytes) = blobs.get(digest) else { return Reply::new(404) };
        let range = range.and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
        match range {
            None => Reply::new(200).body(bytes.clone()),
            Some((start, end)) => {
                let start: usize = start.parse().unwrap();
                let end = end.parse().map_or(bytes.len(), |last: usize| last + 1);
                let range = format!("bytes {start}-{}/{}", end - 1, bytes.len());
                Reply::new(206).header("Content-Range", range).body(&bytes[start..end])
            }
        }
    }

    fn delete(&self, key: &str) -> Reply {
        match self.manifests.lock().unwrap().remove(key) {
            Some(_) => Reply::new(202),
            None => Reply::new(404),
        }
    }

    fn tags(&self, path: &str) -> Reply {
        let manifests = self.manifests.lock().unwrap();
        let mut tags: Vec<&String> = manifests.keys().filter(|k| !k.contains(':')).collect();
        tags.sort();
        let name = path.trim_start_matches("/v2/").trim_end_matches("/tags/list");
        Reply::new(200).body(serde_json::json!({"name": name, "tags": tags}).to_string())
    }

    /// Mounts what it has from wherever it is asked to.
    fn begin(&self, request: &Request) -> Reply {
        let query = request.target.split_once('?').map_or("", |(_, q)| q).replace("%3A", ":");
        let wanted = query.split('&').find_map(|p| p.strip_prefix("mount="));
        let has = |digest: &str| self.blobs.lock().unwrap().contains_key(digest);
        if wanted.is_some_and(has) && query.contains("from=") {
            return Reply::new(201);
        }
        let mut uploads = self.uploads.lock().unwrap();
        let id = format!("u{}", uploads.len());
        uploads.insert(id.clone(), Vec::new());
        Reply::new(202).header("Location", format!("/v2/x/blobs/uploads/{id}?_state=s"))
    }

    fn upload(&self, request: &Request, id: &str) -> Reply {
        let mut uploads = self.uploads.lock().unwrap();
        let Some(bytes) = uploads.get_mut(id) else { return Reply::new(404) };
        let location = format!("/v2/x/blobs/uploads/{id}?_state=s");
        let range = format!("0-{}", bytes.len().saturating_sub(1));
        match &*request.method {
            "GET" => Reply::new(204).header("Location", location).header("Range", range),
            "PATCH" => {
                let expected = format!("{}-", bytes.len());
                if request.header("content-range").is_some_and(|r| !r.starts_with(&expected)) {
                    return Reply::new(416);
                }
                bytes.extend(&request.body);
                Reply::new(202).header("Location", location)
            }
            "PUT" => {
                let wanted = request.target.split("digest=").nth(1).unwrap().replace("%3A", ":");
                let found = self.add_blob(bytes);
                if found == wanted { Reply::new(201) } else { Reply::new(400) }
            }
            _ => Reply::new(405),
        }
    }
}
