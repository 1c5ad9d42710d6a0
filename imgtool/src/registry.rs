//! A client of the OCI distribution API (distribution-spec 1.1).
//!
//! What a registry says is never believed: manifests are checked against the digest and media
//! type by which they were asked for, blobs against digest and size while they arrive. Credentials
//! go to the registry and to the token service that it names over TLS, never along a redirect.

mod artifact;
mod auth;
mod certs;
mod credentials;
mod dns;
mod download;
mod http;
mod list;
mod login;
mod mirrors;
mod pull;
mod push;
mod remote;
mod retry;
mod search;
mod toml;
mod upload;

use std::path::PathBuf;

use ureq::http::{Method, StatusCode, Uri};

use self::auth::{Auth, Scope};
use self::http::{Http, Outgoing, Response};
use self::retry::Failure;
use crate::{Error, Result};

pub use artifact::{Artifact, TITLE, type_of};
pub use list::catalog;
pub use login::{credential_key, host, log_in, log_out, logged_in};
pub use pull::{PullOptions, pull, pull_blobs};
pub(crate) use pull::{in_parallel, is_image};
pub use push::{PushOptions, push};
pub use remote::{BlobSource, Remote};
pub use search::{Found, search};
pub use upload::{UploadOptions, Uploads};

/// How to talk to a registry.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Talk plain HTTP, as is done anyway with a registry on this machine that speaks no TLS
    #[arg(long)]
    pub plain_http: bool,
    /// Accept any certificate, and fall back to plain HTTP
    #[arg(long, conflicts_with = "plain_http")]
    pub insecure: bool,
    /// Trust the certificate authorities in this PEM file too
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Take this registry's authorities (*.crt) and our certificate and key (*.cert, *.key) from
    /// this directory [default: certs.d/HOST[:PORT] in ~/.config/containers, /etc/containers and
    /// /etc/docker]
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// Read mirrors and the like from this file only [default: $CONTAINERS_REGISTRIES_CONF, else
    /// registries.conf in ~/.config/containers or /etc/containers]
    #[arg(long, value_name = "FILE")]
    pub registries_conf: Option<PathBuf>,
    /// Give up on a connection that is silent for so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u16).range(1..))]
    pub timeout: u16,
    /// Read credentials from this file only [default: $REGISTRY_AUTH_FILE, else the auth.json of
    /// containers, else ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
}

impl Default for Options {
    /// As if nothing was said on the command line.
    fn default() -> Options {
        Options {
            plain_http: false,
            insecure: false,
            cacert: None,
            cert_dir: None,
            registries_conf: None,
            timeout: 60,
            authfile: None,
        }
    }
}

/// How much to transfer at a time.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Jobs {
    /// How many blobs to transfer at a time
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u8).range(1..=32))]
    jobs: u8,
}

impl Jobs {
    /// The number, at least 1.
    pub fn count(self) -> usize {
        self.jobs.into()
    }
}

/// In what pieces to upload.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Pieces {
    /// Send larger blobs in pieces of so many bytes, of which a broken upload repeats only one
    #[arg(long, value_name = "BYTES", default_value = "67108864", value_parser = clap::value_parser!(u64).range(1..))]
    chunk_size: u64,
}

impl UploadOptions {
    /// What the command line says.
    pub fn new(jobs: Jobs, pieces: Pieces) -> UploadOptions {
        UploadOptions { jobs: jobs.count(), chunk: pieces.chunk_size }
    }
}

/// How many redirects a request may take.
const MAX_REDIRECTS: usize = 8;

/// A connection to one registry, for the repository that a reference names.
#[derive(Debug)]
struct Registry {
    http: Http,
    /// `https://host[:port]` without a path.
    base: Uri,
    auth: Auth,
}

impl Registry {
    /// Finds out how the registry of this domain is spoken to.
    fn connect(domain: &str, options: &Options) -> Result<Registry> {
        let host = match domain {
            // Docker's registry has another name than its images.
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let http = Http::new(domain, host, options)?;
        let local = http::is_loopback(host);
        let scheme = match (options.plain_http, options.insecure, local) {
            (true, _, _) => "http",
            (false, false, false) => "https",
            (false, insecure, local) => http.probe(host, local && !insecure)?,
        };
        let base = http::parse_url(&format!("{scheme}://{host}"))?;
        let auth = Auth::new(domain, options, scheme == "http" || options.insecure)?;
        Ok(Registry { http, base, auth })
    }

    /// The URL of something below `/v2/`.
    fn url(&self, path: &str) -> Result<Uri> {
        let base = self.base.to_string();
        http::parse_url(&format!("{}/v2/{path}", base.trim_end_matches('/')))
    }

    /// Sends a request, answering one challenge. Credentials go to the registry's own origin only.
    ///
    /// Statuses that may pass are transient failures; a second 401 is final; any other is the
    /// caller's to judge.
    fn send(&self, request: &Outgoing<'_>, scope: &Scope) -> Result<Response, Failure> {
        if !http::same_origin(&request.url, &self.base) {
            return self.http.exchange(request, None).and_then(retry::check_status);
        }
        let known = self.auth.cached(scope);
        let response = self.http.exchange(request, known.as_deref())?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return retry::check_status(response);
        }
        let answer = self.auth.answer(&self.http, &response, scope, known.as_deref())?;
        let response = self.http.exchange(request, Some(&answer))?;
        match response.status() {
            StatusCode::UNAUTHORIZED => Err(response.into_error("access denied").into()),
            _ => retry::check_status(response),
        }
    }

    /// Sends a request without a body, following redirects, but never from https to http.
    fn get(&self, mut request: Outgoing<'_>, scope: &Scope) -> Result<Response, Failure> {
        for _ in 0..MAX_REDIRECTS {
            let response = self.send(&request, scope)?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            request.url = response.location()?;
        }
        Err(Error::new(format!("{}: too many redirects", http::display(&request.url))).into())
    }

    /// A request for something below `/v2/`.
    fn request<'a>(&self, method: Method, path: &str) -> Result<Outgoing<'a>> {
        Ok(Outgoing::new(method, self.url(path)?))
    }
}
