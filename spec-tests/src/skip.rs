//! Skipping by name and with a reason, never silently.
//!
//! The test harness of Rust knows no run-time skip and swallows the output of a passing test, so
//! the line goes to the process's stderr directly; `spec-tests/tally` counts it.

use std::io::Write;

/// Ends the calling test as skipped, with a reason that the summary shows.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        $crate::report_skip(&format!($($reason)+));
        return;
    }};
}

/// Ends the calling test as skipped where the runtime under test is one that is known to differ.
///
/// ```text
/// differs!(case, ["crun"], "crun does not check it");
/// ```
///
/// `spec-tests/attacks`, which compares the runtimes, sets `DIFFERENCES=1` to see the difference.
#[macro_export]
macro_rules! differs {
    ($case:expr, [$($name:literal),+], $reason:literal) => {
        if [$($name),+].iter().any(|name| $case.runtime_is(name))
            && std::env::var_os("DIFFERENCES").is_none()
        {
            $crate::skip!($reason);
        }
    };
}

/// Prints the one line that [`skip!`] leaves: `SKIP test_name: reason`.
pub fn report_skip(reason: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("unnamed");
    // One write, so that lines of parallel tests do not mix. A closed stderr loses the line only.
    let _ = std::io::stderr().write_all(format!("SKIP {name}: {reason}\n").as_bytes());
}
