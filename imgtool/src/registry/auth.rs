//! Answers to a registry's challenge: Basic, or Bearer with a token from the service that the
//! challenge names (Docker token authentication, distribution/docs/spec/auth).

use std::collections::HashMap;
use std::io::Read;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use ureq::http::header::CONTENT_TYPE;
use ureq::http::{Method, StatusCode, Uri};

use super::Options;
use super::credentials::{self, Credentials};
use super::http::{self, Http, MAX_ANSWER, Outgoing, Response};
use super::retry::{Failure, check_status};
use crate::{Context, Error, Result};

/// How long a token lasts if its service does not say (token specification, `expires_in`).
const DEFAULT_LIFE: u64 = 60;
/// A token is not used in its last seconds.
const MARGIN: u64 = 5;

/// What is to be done: `repository:NAME:pull[,push]`, several separated by spaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scope(String);

impl Scope {
    pub(super) fn pull(repository: &str) -> Scope {
        Scope(format!("repository:{repository}:pull"))
    }

    pub(super) fn push(repository: &str) -> Scope {
        Scope(format!("repository:{repository}:pull,push"))
    }

    /// Everything, which to delete is part of.
    pub(super) fn delete(repository: &str) -> Scope {
        Scope(format!("repository:{repository}:*"))
    }

    /// No more than to be known.
    pub(super) fn nothing() -> Scope {
        Scope(String::new())
    }

    /// The list of all repositories.
    pub(super) fn catalog() -> Scope {
        Scope("registry:catalog:*".into())
    }

    /// Adds the right to read another repository.
    pub(super) fn and_pull(&self, repository: &str) -> Scope {
        Scope(format!("{} repository:{repository}:pull", self.0))
    }
}

/// The credentials for a registry and the tokens got by them.
#[derive(Debug)]
pub(super) struct Auth {
    domain: String,
    options: Options,
    /// Whether a token service may be spoken to without TLS.
    realm_may_be_http: bool,
    answers: Mutex<HashMap<Scope, Answer>>,
    /// Held while a token is fetched, so that each is fetched once, whoever needs it.
    asking: Mutex<()>,
    /// The only credentials to use, if they are not those of the files.
    given: Option<Credentials>,
}

/// The value of an Authorization header, and when it ends.
#[derive(Clone)]
struct Answer {
    header: String,
    until: Option<Instant>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer(secret)")
    }
}

impl Auth {
    pub(super) fn new(domain: &str, options: &Options, realm_may_be_http: bool) -> Result<Auth> {
        Ok(Auth {
            domain: domain.to_owned(),
            options: options.clone(),
            realm_may_be_http,
            answers: Mutex::default(),
            asking: Mutex::default(),
            given: None,
        })
    }

    /// Uses these credentials instead of those in the files.
    pub(super) fn use_only(&mut self, credentials: Credentials) {
        self.given = Some(credentials);
    }

    /// The answer that worked for this scope before, if it still holds.
    pub(super) fn cached(&self, scope: &Scope) -> Option<String> {
        let answers = self.answers.lock().expect("no thread panics with the lock");
        let answer = answers.get(scope)?;
        answer.until.is_none_or(|t| Instant::now() < t).then(|| answer.header.clone())
    }

    /// Answers the challenge of a 401 to a request that had this answer, or none. What another
    /// thread has been given meanwhile is used.
    pub(super) fn answer(
        &self,
        http: &Http,
        denied: &Response,
        scope: &Scope,
        refused: Option<&str>,
    ) -> Result<String, Failure> {
        let _one_at_a_time = self.asking.lock().expect("no thread panics with the lock");
        if let Some(newer) = self.cached(scope).filter(|c| Some(&**c) != refused) {
            return Ok(newer);
        }
        let challenge =
            Challenge::choose(&denied.headers("www-authenticate")).ok_or_else(|| {
                Error::new(format!("{}: 401 without a challenge that we know", denied.what()))
            })?;
        let credentials = match &self.given {
            Some(given) => Some(given.clone()),
            None => credentials::find(
                &self.domain,
                repository_of(scope),
                self.options.authfile.as_deref(),
            )?,
        };
        let answer = match challenge {
            Challenge::Basic => Answer { header: self.basic(credentials.as_ref())?, until: None },
            Challenge::Bearer { realm, service } => {
                let realm = self.check_realm(&realm)?;
                self.fetch_token(http, &realm, service.as_deref(), scope, credentials.as_ref())?
            }
        };
        let header = answer.header.clone();
        self.answers.lock().expect("no thread panics with the lock").insert(scope.clone(), answer);
        Ok(header)
    }

    fn basic(&self, credentials: Option<&Credentials>) -> Result<String> {
        match credentials {
            Some(Credentials::Password { user, password }) => Ok(basic(user, password)),
            _ => Err(Error::new(format!(
                "{} wants a user and a password; none are in the credential files; imgtool login writes them",
                self.domain
            ))),
        }
    }

    /// A token service gets our password: TLS, unless the registry itself has none.
    fn check_realm(&self, realm: &str) -> Result<Uri> {
        let url = http::parse_url(realm).wrap(|| "token service")?;
        let local = url.authority().is_some_and(|a| http::is_loopback(a.as_str()));
        match url.scheme_str() {
            Some("http") if !(self.realm_may_be_http && (local || self.options_allow_http())) => {
                Err(Error::new(format!(
                    "refusing to ask the token service {} without TLS",
                    http::display(&url)
                )))
            }
            _ => Ok(url),
        }
    }

    fn options_allow_http(&self) -> bool {
        self.options.plain_http || self.options.insecure
    }

    fn fetch_token(
        &self,
        http: &Http,
        realm: &Uri,
        service: Option<&str>,
        scope: &Scope,
        credentials: Option<&Credentials>,
    ) -> Result<Answer, Failure> {
        let form = form(service, scope);
        let response = match credentials {
            Some(Credentials::Identity(token)) => {
                let token = http::encode(token);
                let form = format!(
                    "{form}&client_id=imgtool&grant_type=refresh_token&refresh_token={token}"
                );
                let open = || Ok((Box::new(form.as_bytes()) as Box<dyn Read>, form.len() as u64));
                let request = Outgoing::new(Method::POST, realm.clone())
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(&open);
                http.exchange(&request, None)?
            }
            Some(Credentials::Password { user, password }) => {
                let request = Outgoing::new(Method::GET, http::with_query(realm, &form)?);
                http.exchange(&request, Some(&basic(user, password)))?
            }
            None => {
                http.exchange(&Outgoing::new(Method::GET, http::with_query(realm, &form)?), None)?
            }
        };
        match check_status(response)? {
            r if r.status() == StatusCode::OK => parse_token(&r.into_bytes(MAX_ANSWER)?),
            r => Err(r.into_error("no token").into()),
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// The repository that the first part of a scope is about.
fn repository_of(scope: &Scope) -> &str {
    scope.0.split(':').nth(1).unwrap_or_default()
}

fn form(service: Option<&str>, scope: &Scope) -> String {
    let service = service.map(|s| format!("service={}", http::encode(s)));
    let scopes = scope.0.split(' ').filter(|s| !s.is_empty());
    let scopes = scopes.map(|s| format!("scope={}", http::encode(s)));
    service.into_iter().chain(scopes).collect::<Vec<_>>().join("&")
}

fn parse_token(body: &[u8]) -> Result<Answer, Failure> {
    #[derive(Deserialize)]
    struct Token {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
    }
    let answer: Token = serde_json::from_slice(body).wrap(|| "the token service's answer")?;
    let token = answer.token.or(answer.access_token).filter(|t| !t.is_empty());
    let token = token.ok_or_else(|| Error::new("the token service's answer has no token"))?;
    let life = answer.expires_in.unwrap_or(DEFAULT_LIFE).clamp(MARGIN, 86400) - MARGIN;
    let until = Some(Instant::now() + Duration::from_secs(life));
    Ok(Answer { header: format!("Bearer {token}"), until })
}

/// What a 401 asks for (RFC 9110, section 11.6.1).
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// The best of all challenges: Bearer before Basic.
    fn choose(headers: &[&str]) -> Option<Challenge> {
        let all: Vec<Challenge> = headers.iter().flat_map(|h| parse_challenges(h)).collect();
        let bearer = all.iter().position(|c| matches!(c, Challenge::Bearer { .. }));
        all.into_iter().nth(bearer.unwrap_or(0))
    }
}

/// Parses `Scheme k="v", k=v, Scheme2 ...`.
fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut scheme = String::new();
    let mut params: HashMap<String, String> = HashMap::new();
    for part in split_unquoted(header) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let key =
            match key.trim().rsplit_once(' ').or((value.is_empty()).then_some((key.trim(), ""))) {
                Some((new_scheme, key)) => {
                    found.extend(to_challenge(&scheme, &mut params));
                    scheme = new_scheme.trim().to_ascii_lowercase();
                    key
                }
                None => key.trim(),
            };
        params.insert(key.to_ascii_lowercase(), unquote(value.trim()));
    }
    found.extend(to_challenge(&scheme, &mut params));
    found
}

fn to_challenge(scheme: &str, params: &mut HashMap<String, String>) -> Option<Challenge> {
    let mut params = std::mem::take(params);
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: params.remove("realm")?,
            service: params.remove("service"),
        }),
        _ => None,
    }
}

/// Splits at commas that are not in quotes.
fn split_unquoted(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unquote(text: &str) -> String {
    match text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
        Some(inner) => {
            let mut chars = inner.chars();
            let next = |c: char, chars: &mut std::str::Chars<'_>| {
                if c == '\\' { chars.next() } else { Some(c) }
            };
            let mut out = String::new();
            while let Some(c) = chars.next().and_then(|c| next(c, &mut chars)) {
                out.push(c);
            }
            out
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) }
    }

    #[test]
    fn parses_challenges() {
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull,push""#;
        let want = bearer("https://auth.docker.io/token", Some("registry.docker.io"));
        assert_eq!(Challenge::choose(&[docker]), Some(want));
        assert_eq!(Challenge::choose(&["Basic realm=\"x, y\""]), Some(Challenge::Basic));
        assert_eq!(Challenge::choose(&["basic"]), Some(Challenge::Basic));
        let both = ["Basic realm=\"x\"", "bearer realm=\"https://r/\""];
        assert_eq!(Challenge::choose(&both), Some(bearer("https://r/", None)));
        let one_line = "Basic realm=\"x\", Bearer realm=\"https://r/\", service=s";
        assert_eq!(Challenge::choose(&[one_line]), Some(bearer("https://r/", Some("s"))));
        assert_eq!(Challenge::choose(&["Negotiate"]), None);
        assert_eq!(Challenge::choose(&["Bearer scope=\"x\""]), None);
        assert_eq!(Challenge::choose(&[]), None);
    }

    #[test]
    fn quotes_can_be_escaped() {
        assert_eq!(unquote(r#""a\"b""#), "a\"b");
        assert_eq!(unquote("plain"), "plain");
    }

    #[test]
    fn a_realm_needs_tls_unless_the_registry_has_none() {
        let realm = |may_be_http, options: Options, url| {
            Auth::new("r.io", &options, may_be_http).unwrap().check_realm(url).is_ok()
        };
        assert!(realm(false, Options::default(), "https://auth.io/t"));
        assert!(!realm(false, Options::default(), "http://auth.io/t"));
        assert!(!realm(false, Options::default(), "http://127.0.0.1/t"));
        assert!(!realm(true, Options::default(), "http://auth.io/t"));
        assert!(realm(true, Options::default(), "http://127.0.0.1/t"));
        let plain = Options { plain_http: true, ..Options::default() };
        assert!(realm(true, plain, "http://auth.io/t"));
        assert!(!realm(true, Options::default(), "file:///etc/passwd"));
    }

    #[test]
    fn forms_name_service_and_scopes() {
        let scope = Scope::push("a/b").and_pull("c");
        assert_eq!(
            form(Some("x y"), &scope),
            "service=x%20y&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%3Apull"
        );
        assert_eq!(repository_of(&scope), "a/b");
    }

    #[test]
    fn tokens_have_a_life() {
        let answer = parse_token(br#"{"access_token":"t","expires_in":300}"#).unwrap();
        assert_eq!(answer.header, "Bearer t");
        assert!(answer.until.unwrap() > Instant::now() + Duration::from_secs(280));
        assert!(parse_token(b"{}").is_err());
    }
}
