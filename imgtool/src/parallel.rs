//! Work on all processors.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::Result;

/// As many threads as the process may use processors.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does this to each item, with so many threads at a time; the results are in the order of the
/// items. After an error nothing more is begun, and the first in that order is returned.
pub(crate) fn try_map<T: Sync, R: Send + Sync>(
    threads: usize,
    items: &[T],
    each: impl Fn(usize, &T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let results: Vec<OnceLock<Result<R>>> = items.iter().map(|_| OnceLock::new()).collect();
    run(threads, items.len(), &|i| {
        let result = each(i, &items[i]);
        let ok = result.is_ok();
        // Nobody else has this index.
        drop(results[i].set(result));
        ok
    });
    results.into_iter().filter_map(OnceLock::into_inner).collect()
}

/// Calls with each number below `count`, until a call says to stop.
fn run(threads: usize, count: usize, each: &(dyn Fn(usize) -> bool + Sync)) {
    let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        while !stopped.load(Ordering::Relaxed) {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                break;
            }
            if !each(i) {
                stopped.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            // Without more threads, this one does it all.
            let Ok(_) = std::thread::Builder::new().spawn_scoped(scope, work) else { break };
        }
        work();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn all_is_done_once_and_in_order() {
        for threads in [0, 1, 2, 9] {
            let items: Vec<usize> = (0..100).collect();
            let results = try_map(threads, &items, |i, item| Ok((i, item * 2))).unwrap();
            assert!(results.iter().enumerate().all(|(at, r)| *r == (at, at * 2)));
            assert_eq!(results.len(), 100);
        }
        assert!(try_map(4, &[(); 0], |_, _| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn an_error_ends_it_and_the_first_counts() {
        for threads in [1, 3] {
            let calls = AtomicUsize::new(0);
            let e = try_map(threads, &[(); 1000], |i, ()| {
                calls.fetch_add(1, Ordering::Relaxed);
                match i {
                    7.. => Err(Error::new(format!("item {i}"))),
                    _ => Ok(()),
                }
            });
            assert_eq!(e.unwrap_err().to_string(), "item 7");
            assert!(calls.into_inner() < 900);
        }
    }
}
