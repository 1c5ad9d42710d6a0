//! Search (`/v1/search`, which Docker Hub and a few others have; it is in no specification), and
//! where there is none, the names of the catalog that contain the words, as podman does.

use serde_json::Value;
use ureq::http::{Method, StatusCode};

use super::auth::Scope;
use super::http::{self, MAX_ANSWER, Outgoing};
use super::list::catalog;
use super::retry::{Failure, retry};
use super::{Options, Registry};
use crate::progress::Progress;
use crate::{Context, Error, Result};

/// A repository that was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name, with the host.
    pub name: String,
    /// What its owner says it is.
    pub description: String,
    /// How many people like it.
    pub stars: u64,
    /// Whether the registry answers for it.
    pub official: bool,
}

/// At most `limit` repositories, best first.
pub fn search(
    domain: &str,
    words: &str,
    limit: u16,
    options: &Options,
    progress: &Progress,
) -> Result<Vec<Found>> {
    let host = if domain == "docker.io" { "index.docker.io" } else { domain };
    let registry = Registry::connect(host, options)?;
    let base = registry.base.to_string();
    let base = base.trim_end_matches('/');
    let url = http::parse_url(&format!("{base}/v1/search?q={}&n={limit}", http::encode(words)))?;
    let answer = retry(
        |e| progress.line(e),
        || -> Result<Option<Vec<u8>>, Failure> {
            let request = Outgoing::new(Method::GET, url.clone());
            let response = registry.get(request, &Scope::catalog())?;
            match response.status() {
                StatusCode::OK => response.into_bytes(MAX_ANSWER).map(Some),
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(None),
                _ => Err(response.into_error("").into()),
            }
        },
    )?;
    let mut found = match answer {
        Some(answer) => parse(domain, &answer).wrap(|| http::display(&url))?,
        None => in_catalog(domain, words, options, progress)?,
    };
    found.truncate(limit.into());
    Ok(found)
}

fn in_catalog(
    domain: &str,
    words: &str,
    options: &Options,
    progress: &Progress,
) -> Result<Vec<Found>> {
    let names = catalog(domain, options, progress).wrap(|| "it has no search")?;
    let matches = |name: &String| words.split_whitespace().all(|w| name.contains(w));
    let found = |name: String| Found {
        name: format!("{domain}/{name}"),
        description: String::new(),
        stars: 0,
        official: false,
    };
    Ok(names.into_iter().filter(matches).map(found).collect())
}

fn parse(domain: &str, answer: &[u8]) -> Result<Vec<Found>> {
    let json: Value = serde_json::from_slice(answer)?;
    let results = json["results"].as_array().ok_or_else(|| Error::new("no \"results\""))?;
    let text = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
    let found = |v: &Value| Found {
        name: format!("{domain}/{}", text(v, "name")),
        description: text(v, "description"),
        stars: v["star_count"].as_u64().unwrap_or(0),
        official: v["is_official"].as_bool().unwrap_or(false),
    };
    Ok(results.iter().map(found).collect())
}
