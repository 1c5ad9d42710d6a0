//! One HTTP exchange at a time: TLS, proxies, time limits and readable failures. Redirects,
//! authorisation and repetition are decided elsewhere.

use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, LOCATION};
use ureq::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, uri};
use ureq::tls::{Certificate, ClientCert, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Proxy, SendBody};

use super::certs::{self, HostCerts};
use super::dns::StubResolver;
use super::retry::Failure;
use super::{Options, retry};
use crate::{Error, Result};

/// The largest answer that is read into memory beside manifests, in bytes.
pub(super) const MAX_ANSWER: u64 = 1 << 20;

/// Opens the body of a request anew for each attempt, and tells its size.
pub(super) type OpenBody<'a> = &'a dyn Fn() -> Result<(Box<dyn Read + 'a>, u64)>;

/// A request that can be sent again.
pub(super) struct Outgoing<'a> {
    pub(super) method: Method,
    pub(super) url: Uri,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Option<OpenBody<'a>>,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(method: Method, url: Uri) -> Outgoing<'a> {
        Outgoing { method, url, headers: Vec::new(), body: None }
    }

    #[must_use]
    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Outgoing<'a> {
        self.headers.push((name, value.into()));
        self
    }

    #[must_use]
    pub(super) fn body(mut self, body: OpenBody<'a>) -> Outgoing<'a> {
        self.body = Some(body);
        self
    }
}

/// An answer whose body is still to be read.
pub(super) struct Response {
    what: String,
    url: Uri,
    inner: ureq::http::Response<ureq::Body>,
}

impl Response {
    pub(super) fn status(&self) -> StatusCode {
        self.inner.status()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    pub(super) fn headers(&self, name: &str) -> Vec<&str> {
        self.inner.headers().get_all(name).iter().filter_map(|v| v.to_str().ok()).collect()
    }

    /// What was asked, for messages: `GET https://host/v2/...`.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// Where it points, which must not be less safe than where it came from.
    pub(super) fn location(&self) -> Result<Uri> {
        let fail = |why: String| Error::new(format!("{}: {why}", self.what));
        let target = self.header(LOCATION.as_str()).ok_or_else(|| fail("no Location".into()))?;
        let next = join(&self.url, target).map_err(|e| fail(e.to_string()))?;
        if self.url.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
            return Err(fail(format!("refusing to be sent from https to {}", display(&next))));
        }
        Ok(next)
    }

    /// The body as a stream; a failure of the connection is an error of the read.
    pub(super) fn into_reader(self) -> impl Read {
        // No limit of ours: each caller counts.
        self.inner.into_body().into_with_config().limit(u64::MAX).reader()
    }

    /// The whole body, at most `limit` bytes.
    pub(super) fn into_bytes(self, limit: u64) -> Result<Vec<u8>, Failure> {
        let what = self.what.clone();
        let mut bytes = Vec::new();
        self.into_reader()
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Failure::transient(Error::from(e).wrap(what.clone())))?;
        match bytes.len() as u64 > limit {
            true => {
                Err(Error::new(format!("{what}: the answer is larger than {limit} bytes")).into())
            }
            false => Ok(bytes),
        }
    }

    /// The answer as an error, with what the registry says about it.
    pub(super) fn into_error(self, why: &str) -> Error {
        let status = self.status();
        let what = self.what.clone();
        let said = self.into_bytes(MAX_ANSWER).map(|b| said(&b)).unwrap_or_default();
        let why = if why.is_empty() { String::new() } else { format!("{why}: ") };
        Error::new(format!("{what}: {why}{status}{said}"))
    }
}

/// The codes and messages in an error body (distribution-spec, "Error Codes").
fn said(body: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |e: &serde_json::Value, key: &str| e[key].as_str().unwrap_or_default().to_owned();
    let errors = json["errors"].as_array().into_iter().flatten();
    errors
        .map(|e| format!(", {} {}", text(e, "code"), text(e, "message")).trim_end().to_owned())
        .collect()
}

/// Sends requests.
#[derive(Debug)]
pub(super) struct Http {
    agent: Agent,
    /// The registry, if it has certificates of its own, and what knows them.
    own: Option<(uri::Authority, Agent)>,
    http_proxy: Option<Proxy>,
    https_proxy: Option<Proxy>,
}

impl Http {
    /// For a registry on this `HOST[:PORT]`, whose images are known as those of `domain`.
    pub(super) fn new(domain: &str, host: &str, options: &Options) -> Result<Http> {
        let mut authorities = certs::authorities(options)?;
        let HostCerts { authorities: more, client } = certs::of_host(domain, options)?;
        let general = agent(&authorities, None, options);
        let own = match more.is_empty() && client.is_none() {
            true => None,
            false => {
                let host = host.parse().map_err(|e| Error::new(format!("\"{host}\": {e}")))?;
                authorities.extend(more);
                Some((host, agent(&authorities, client, options)))
            }
        };
        Ok(Http {
            agent: general,
            own,
            http_proxy: proxy_from_env(&["http_proxy", "all_proxy", "ALL_PROXY"])?,
            https_proxy: proxy_from_env(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])?,
        })
    }

    /// Sends a request once.
    pub(super) fn exchange(
        &self,
        request: &Outgoing<'_>,
        authorization: Option<&str>,
    ) -> Result<Response, Failure> {
        let what = format!("{} {}", request.method, display(&request.url));
        let mut builder =
            ureq::http::Request::builder().method(request.method.clone()).uri(request.url.clone());
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        if let Some(value) = authorization {
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| Error::new(format!("{what}: credentials with control characters")))?;
            value.set_sensitive(true);
            builder = builder.header(AUTHORIZATION, value);
        }
        let failed = |e: ureq::Error| retry::transport_failure(e, &what);
        let invalid = |e: ureq::http::Error| Error::new(e.to_string()).wrap(what.clone());
        let result = match request.body {
            None => self.run(&request.url, builder.body(SendBody::none()).map_err(invalid)?),
            Some(open) => {
                let (mut reader, size) = open()?;
                let body = SendBody::from_reader(&mut *reader);
                let request_ = builder.header(CONTENT_LENGTH, size).body(body).map_err(invalid)?;
                self.run(&request.url, request_)
            }
        };
        Ok(Response { url: request.url.clone(), inner: result.map_err(failed)?, what })
    }

    fn run(
        &self,
        url: &Uri,
        request: ureq::http::Request<SendBody<'_>>,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let proxy = match url.scheme_str() {
            _ if url.authority().is_some_and(|a| is_loopback(a.as_str())) => None,
            Some("https") => self.https_proxy.clone(),
            _ => self.http_proxy.clone(),
        };
        let agent = match &self.own {
            Some((host, agent)) if url.authority() == Some(host) => agent,
            _ => &self.agent,
        };
        agent.run(agent.configure_request(request).proxy(proxy).build())
    }

    /// Which scheme a registry on this machine, or one that need not be safe, answers to.
    pub(super) fn probe(&self, host: &str, http_first: bool) -> Result<&'static str> {
        let order = if http_first { ["http", "https"] } else { ["https", "http"] };
        let mut first_error = None;
        for scheme in order {
            let url = parse_url(&format!("{scheme}://{host}/v2/"))?;
            match self.exchange(&Outgoing::new(Method::GET, url), None) {
                // What a TLS server written in Go says to plain HTTP.
                Ok(r) if scheme == "http" && r.status() == StatusCode::BAD_REQUEST => {}
                Ok(_) => return Ok(scheme),
                Err(e) => drop(first_error.get_or_insert(e.into_error())),
            }
        }
        Err(first_error.unwrap_or_else(|| Error::new(format!("{host}: no registry answers"))))
    }
}

fn agent(
    authorities: &[Certificate<'static>],
    client: Option<ClientCert>,
    options: &Options,
) -> Agent {
    let silence = Duration::from_secs(options.timeout.into());
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(authorities))
        .client_cert(client)
        .disable_verification(options.insecure)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .tls_config(tls)
        .user_agent(concat!("imgtool/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(Duration::from_secs(30)))
        .timeout_connect(Some(Duration::from_secs(30)))
        // A registry may think about what it was sent before it answers.
        .timeout_recv_response(Some(5 * silence))
        .timeout_per_read(Some(silence))
        .timeout_per_write(Some(silence))
        .build();
    Agent::with_parts(config, DefaultConnector::default(), StubResolver)
}

/// The proxy that the first of these variables names, with the exceptions of `no_proxy`.
fn proxy_from_env(names: &[&str]) -> Result<Option<Proxy>> {
    let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let Some((name, url)) = names.iter().find_map(|n| Some((n, var(n)?))) else {
        return Ok(None);
    };
    let bad = |e: ureq::Error| Error::new(format!("the proxy in ${name} is invalid: {e}"));
    let given = Proxy::new(&url).map_err(bad)?;
    let mut builder = Proxy::builder(given.protocol()).host(given.host()).port(given.port());
    if let (Some(user), Some(password)) = (given.username(), given.password()) {
        builder = builder.username(user).password(password);
    }
    if let Some(exceptions) = var("no_proxy").or_else(|| var("NO_PROXY")) {
        builder = builder.no_proxy(&exceptions);
    }
    builder.build().map(Some).map_err(bad)
}

/// Whether `host[:port]` is this machine, where nobody listens on the wire.
pub(super) fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<uri::Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Parses an absolute `http` or `https` URL.
pub(super) fn parse_url(text: &str) -> Result<Uri> {
    let url: Uri = text.parse().map_err(|e| Error::new(format!("invalid URL \"{text}\": {e}")))?;
    let known = matches!(url.scheme_str(), Some("http" | "https"));
    let plain = url.authority().is_some_and(|a| !a.as_str().contains('@'));
    match known && plain {
        true => Ok(url),
        false => Err(Error::new(format!("invalid URL \"{text}\": not http or https and a host"))),
    }
}

/// Resolves a reference from a `Location` (RFC 3986, section 5.2, for what servers send).
pub(super) fn join(base: &Uri, target: &str) -> Result<Uri> {
    let scheme = base.scheme_str().unwrap_or("https");
    let authority = base.authority().map_or("", |a| a.as_str());
    if target.starts_with("http://") || target.starts_with("https://") {
        parse_url(target)
    } else if let Some(rest) = target.strip_prefix("//") {
        parse_url(&format!("{scheme}://{rest}"))
    } else if target.starts_with('/') {
        parse_url(&format!("{scheme}://{authority}{target}"))
    } else if target.starts_with('?') {
        parse_url(&format!("{scheme}://{authority}{}{target}", base.path()))
    } else {
        let dir = base.path().rsplit_once('/').map_or("", |(dir, _)| dir);
        parse_url(&format!("{scheme}://{authority}{dir}/{target}"))
    }
}

/// Adds a query parameter, whose value must need no encoding or be encoded.
pub(super) fn with_query(url: &Uri, query: &str) -> Result<Uri> {
    let text = url.to_string();
    let separator = if url.query().is_some() { '&' } else { '?' };
    parse_url(&format!("{text}{separator}{query}"))
}

/// Percent-encodes a value for a query or a form.
pub(super) fn encode(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    value
        .bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Whether two URLs have scheme, host and port in common.
pub(super) fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port =
        |u: &Uri| u.port_u16().unwrap_or(if u.scheme_str() == Some("http") { 80 } else { 443 });
    let host = |u: &Uri| u.host().unwrap_or_default().to_ascii_lowercase();
    a.scheme() == b.scheme() && host(a) == host(b) && port(a) == port(b)
}

/// A URL for messages, without its query, which may hold a signature.
pub(super) fn display(url: &Uri) -> String {
    let authority = url.authority().map_or("", |a| a.as_str());
    format!("{}://{authority}{}", url.scheme_str().unwrap_or_default(), url.path())
}

/// An I/O error that says what the connection was for.
pub(super) fn broken(e: io::Error, what: &str) -> Failure {
    let silent = e.kind() == io::ErrorKind::TimedOut || e.to_string().starts_with("timeout");
    let error = match silent {
        true => Error::new("timed out: it was silent for too long (--timeout)"),
        false => Error::from(e),
    };
    Failure::transient(error.wrap(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Uri {
        parse_url(text).unwrap()
    }

    #[test]
    fn knows_this_machine() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.8.9.1:1", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["localhost.evil.org", "128.0.0.1", "10.0.0.1:5000", "[::2]", "127.0.0.1.nip.io"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn joins_locations() {
        let base = url("https://r.io:5000/v2/a/blobs/uploads/");
        for (target, joined) in [
            ("/v2/x?y=z", "https://r.io:5000/v2/x?y=z"),
            ("https://s.io/b", "https://s.io/b"),
            ("//s.io/b", "https://s.io/b"),
            ("u1", "https://r.io:5000/v2/a/blobs/uploads/u1"),
            ("?s=1", "https://r.io:5000/v2/a/blobs/uploads/?s=1"),
        ] {
            assert_eq!(join(&base, target).unwrap(), url(joined));
        }
        assert!(join(&base, "https://user:pass@s.io/").is_err());
    }

    #[test]
    fn tells_origins_apart() {
        assert!(same_origin(&url("https://R.io/a"), &url("https://r.io:443/b")));
        for other in
            ["http://r.io/", "https://s.io/", "https://r.io:5000/", "https://r.io.evil.org/"]
        {
            assert!(!same_origin(&url("https://r.io/"), &url(other)), "{other}");
        }
    }

    #[test]
    fn hides_queries_and_encodes() {
        assert_eq!(display(&url("https://r.io/a?sig=secret")), "https://r.io/a");
        assert_eq!(encode("a b&c=d/ä"), "a%20b%26c%3Dd%2F%C3%A4");
        let url = with_query(&url("https://r.io/a?x=1"), "digest=sha256:00").unwrap();
        assert_eq!(url.query(), Some("x=1&digest=sha256:00"));
    }
}
