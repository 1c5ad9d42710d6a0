//! Lists that come in pages: the tags of a repository, and the repositories of a registry
//! (distribution-spec, "Listing Tags"; `_catalog` is Docker's and not every registry has it).

use std::collections::HashSet;

use serde_json::Value;
use ureq::http::{Method, StatusCode, Uri};

use super::auth::Scope;
use super::http::{self, Outgoing, Response};
use super::remote::{Remote, no_such};
use super::retry::{Failure, retry};
use super::{Options, Registry};
use crate::progress::Progress;
use crate::{Error, Result};

/// The largest page, in bytes. Some registries send all tags in one.
const MAX_PAGE: u64 = 32 << 20;
/// How many pages are followed.
const MAX_PAGES: usize = 100_000;

impl Remote {
    /// All tags, in the registry's order.
    pub fn tags(&self) -> Result<Vec<String>> {
        let path = self.path("tags/list?n=1000");
        let first = self.registry.url(&path)?;
        pages(&self.registry, first, &self.scope, &self.progress, "tags", |r| {
            no_such("repository", r)
        })
    }
}

/// All repositories of a registry that it lets us see.
pub fn catalog(domain: &str, options: &Options, progress: &Progress) -> Result<Vec<String>> {
    let registry = Registry::connect(domain, options)?;
    let first = registry.url("_catalog?n=1000")?;
    pages(&registry, first, &Scope::catalog(), progress, "repositories", |r| {
        let hint = match r.status().as_u16() {
            404 | 405 | 501 => "the registry does not list its repositories",
            _ => "",
        };
        r.into_error(hint).into()
    })
}

/// Follows `Link: <URL>; rel="next"` through all pages, and collects the texts of a list.
fn pages(
    registry: &Registry,
    first: Uri,
    scope: &Scope,
    progress: &Progress,
    key: &str,
    explain: impl Fn(Response) -> Failure,
) -> Result<Vec<String>> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut next = Some(first);
    while let Some(url) = next {
        if seen.len() >= MAX_PAGES || !seen.insert(url.to_string()) {
            return Err(Error::new(format!("{}: its pages have no end", http::display(&url))));
        }
        let (page, link) = retry(
            |e| progress.line(e),
            || {
                let response = registry.get(Outgoing::new(Method::GET, url.clone()), scope)?;
                if response.status() != StatusCode::OK {
                    return Err(explain(response));
                }
                let link = next_page(&response, &url)?;
                Ok((response.into_bytes(MAX_PAGE)?, link))
            },
        )?;
        found.extend(texts(&page, key).ok_or_else(|| {
            Error::new(format!("{}: the answer has no list \"{key}\"", http::display(&url)))
        })?);
        next = link;
    }
    Ok(found)
}

/// The URL of the next page, which must be the same registry's.
pub(super) fn next_page(response: &Response, at: &Uri) -> Result<Option<Uri>> {
    let links = response.headers("link").join(", ");
    let Some(target) = next_link(&links) else { return Ok(None) };
    let url = http::join(at, target)?;
    match http::same_origin(&url, at) {
        true => Ok(Some(url)),
        false => Err(Error::new(format!(
            "{}: refusing to read the next page from {}",
            response.what(),
            http::display(&url)
        ))),
    }
}

/// The target of a `next` link (RFC 8288, section 3).
fn next_link(header: &str) -> Option<&str> {
    header.split('<').skip(1).find_map(|link| {
        let (target, params) = link.split_once('>')?;
        let is_next = |p: &str| {
            let (key, value) = p.split_once('=').unwrap_or((p, ""));
            let value = value.trim().trim_end_matches(',').trim().trim_matches('"');
            key.trim().eq_ignore_ascii_case("rel") && value.eq_ignore_ascii_case("next")
        };
        params.split(';').any(is_next).then_some(target)
    })
}

/// The texts of a list; `null`, as Go writes an empty one, is a list too.
fn texts(page: &[u8], key: &str) -> Option<Vec<String>> {
    let json: Value = serde_json::from_slice(page).ok()?;
    match json.get(key)? {
        Value::Null => Some(Vec::new()),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_next_link() {
        for (header, target) in [
            ("</v2/_catalog?last=b&n=2>; rel=\"next\"", Some("/v2/_catalog?last=b&n=2")),
            ("</a>; rel=prev, </b>; title=x; rel=next", Some("/b")),
            ("</a>; REL=\"Next\"", Some("/a")),
            ("</a>; rel=prev", None),
            ("", None),
        ] {
            assert_eq!(next_link(header), target, "{header}");
        }
    }

    #[test]
    fn lists_are_lists_of_texts() {
        assert_eq!(texts(br#"{"tags":["a","b"]}"#, "tags").unwrap(), ["a", "b"]);
        assert_eq!(texts(br#"{"tags":null}"#, "tags").unwrap(), [""; 0]);
        assert_eq!(texts(br#"{"tags":[1]}"#, "tags"), None);
        assert_eq!(texts(br#"{"name":"x"}"#, "tags"), None);
        assert_eq!(texts(b"<html>", "tags"), None);
    }
}
