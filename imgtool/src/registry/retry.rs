//! What is worth another try, and how long to wait for it.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::time::Duration;

use super::http::Response;
use crate::{Error, Result};

/// How often something is tried.
const ATTEMPTS: u32 = 5;
/// What is worth to be tried as often again, in bytes.
const PROGRESS: u64 = 4 << 20;
/// The wait after the first failure; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(300);
/// The longest wait, also if the registry asks for a longer one.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A failure, and whether it may pass.
#[derive(Debug)]
pub(super) enum Failure {
    /// Trying again would fail again.
    Final(Error),
    /// It may pass; `after` is how long the registry asks to wait.
    Transient { error: Error, after: Option<Duration> },
}

impl Failure {
    /// It may pass.
    pub(super) fn transient(error: Error) -> Failure {
        Failure::Transient { error, after: None }
    }

    pub(super) fn into_error(self) -> Error {
        match self {
            Failure::Final(error) | Failure::Transient { error, .. } => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Final(error)
    }
}

/// Runs `attempt` until it succeeds, fails for good, or has failed often enough. `notice` hears of
/// every failure that is followed by another attempt.
pub(super) fn retry<T>(
    notice: impl Fn(&str),
    attempt: impl FnMut() -> Result<T, Failure>,
) -> Result<T> {
    retry_from(notice, &Cell::new(0), attempt)
}

/// As [`retry`], but attempts count from the last one that moved `reached`, in bytes, by at least
/// [`PROGRESS`]: a transfer that takes hours may break more often than a request.
pub(super) fn retry_from<T>(
    notice: impl Fn(&str),
    reached: &Cell<u64>,
    mut attempt: impl FnMut() -> Result<T, Failure>,
) -> Result<T> {
    let (mut wait, mut n, mut before) = (FIRST_WAIT, 0, reached.get());
    loop {
        let result = attempt();
        if reached.get() >= before.saturating_add(PROGRESS) {
            (wait, n, before) = (FIRST_WAIT, 0, reached.get());
        }
        n += 1;
        match result {
            Ok(value) => return Ok(value),
            Err(Failure::Transient { error, after }) if n < ATTEMPTS => {
                let pause = after.unwrap_or(wait + jitter(wait)).min(MAX_WAIT);
                notice(&format!("{error}; trying again in {:.1} s", pause.as_secs_f64()));
                std::thread::sleep(pause);
                wait *= 2;
            }
            Err(Failure::Transient { error, .. }) => {
                return Err(error.wrap(format!("gave up after {n} attempts")));
            }
            Err(Failure::Final(error)) => return Err(error),
        }
    }
}

/// Up to a quarter of the wait, so that many clients do not come back together.
fn jitter(wait: Duration) -> Duration {
    let random = RandomState::new().hash_one(0);
    wait.mul_f64((random % 1000) as f64 / 4000.0)
}

/// Turns the statuses that may pass into failures.
pub(super) fn check_status(response: Response) -> Result<Response, Failure> {
    match response.status().as_u16() {
        408 | 429 | 500 | 502 | 503 | 504 => {
            let after = response.header("retry-after").and_then(|v| v.trim().parse().ok());
            let error = response.into_error("");
            Err(Failure::Transient { error, after: after.map(Duration::from_secs) })
        }
        _ => Ok(response),
    }
}

/// What a failed exchange means. A refused connection or an unknown name will not get better.
pub(super) fn transport_failure(e: ureq::Error, what: &str) -> Failure {
    let error = match e {
        ureq::Error::Io(e) if is_final(&e) => {
            return Failure::Final(Error::new(with_hint(Error::from(e).to_string())).wrap(what));
        }
        ureq::Error::Io(e) => Error::from(e),
        ureq::Error::Timeout(t) => Error::new(format!("timed out: {t}")),
        ureq::Error::Protocol(_) | ureq::Error::ConnectionFailed => Error::new(e.to_string()),
        other => return Failure::Final(Error::new(with_hint(other.to_string())).wrap(what)),
    };
    Failure::transient(error.wrap(what))
}

/// What to do about a certificate that nobody vouches for.
fn with_hint(message: String) -> String {
    match message.contains("invalid peer certificate") {
        true => format!("{message} (trust its authority by --cacert FILE, or none by --insecure)"),
        false => message,
    }
}

fn is_final(e: &io::Error) -> bool {
    use io::ErrorKind as K;
    let ours = e.get_ref().is_some_and(|inner| inner.is::<Error>());
    let tls = e.get_ref().is_some_and(|inner| inner.is::<ureq::Error>());
    ours || tls
        || matches!(
            e.kind(),
            K::ConnectionRefused
                | K::NotFound
                | K::NetworkUnreachable
                | K::HostUnreachable
                | K::InvalidData
        )
}

/// A read that failed: final if the error is ours (wrong content, a full disk).
pub(super) fn read_failure(e: io::Error, what: &str) -> Failure {
    match e.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        true => Failure::Final(Error::from(e)),
        false => super::http::broken(e, what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_again_only_what_may_pass() {
        let count = Cell::new(0);
        let result = retry(
            |_| {},
            || {
                count.set(count.get() + 1);
                match count.get() {
                    1 => Err(Failure::Transient {
                        error: Error::new("x"),
                        after: Some(Duration::ZERO),
                    }),
                    n => Ok(n),
                }
            },
        );
        assert_eq!(result.unwrap(), 2);

        let result: Result<()> = retry(|_| {}, || Err(Error::new("final").into()));
        assert_eq!(result.unwrap_err().to_string(), "final");

        count.set(0);
        let result: Result<()> = retry(
            |_| {},
            || {
                count.set(count.get() + 1);
                Err(Failure::Transient { error: Error::new("busy"), after: Some(Duration::ZERO) })
            },
        );
        assert_eq!(result.unwrap_err().to_string(), "gave up after 5 attempts: busy");
        assert_eq!(count.get(), 5);
    }

    #[test]
    fn what_gets_on_is_tried_longer() {
        let (reached, count) = (Cell::new(0), Cell::new(0));
        let attempt = || -> Result<(), Failure> {
            count.set(count.get() + 1);
            reached.set(reached.get() + if count.get() <= 8 { PROGRESS } else { PROGRESS / 100 });
            Err(Failure::Transient { error: Error::new("cut"), after: Some(Duration::ZERO) })
        };
        assert!(retry_from(|_| {}, &reached, attempt).is_err());
        assert_eq!(count.get(), 8 + 4);
    }
}
