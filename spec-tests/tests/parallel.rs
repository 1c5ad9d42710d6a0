//! Many containers at once: no operation fails, and nothing is left of any.

use std::sync::atomic::{AtomicUsize, Ordering};

use spec_tests::{Bundle, Case, differs};

const CONTAINERS: usize = 200;
const WORKERS: usize = 16;

/// Calls `work` once for each bundle, from several threads.
fn for_each(bundles: &[Bundle], work: impl Fn(&Bundle) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(bundle) = bundles.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(bundle);
                }
            });
        }
    });
}

#[test]
fn two_hundred_are_created_started_and_deleted() {
    let case = Case::new();
    // All of them share one read-only root, as containers of one image do.
    let first = case.bundle();
    let root = first.rootfs().to_str().expect("UTF-8").to_owned();
    let bundles: Vec<Bundle> = (0..CONTAINERS)
        .map(|_| case.bundle_without_root().set("/root/path", root.as_str()))
        .map(|bundle| bundle.args(["sleep", "1000"]))
        .collect();
    for_each(&bundles, |bundle| {
        case.create(bundle).quiet_success();
    });
    for_each(&bundles, |bundle| {
        case.runtime(["start", &bundle.id]).quiet_success();
    });
    let list = case.runtime(["list", "-q"]);
    assert_eq!(list.quiet_success().stdout.lines().count(), CONTAINERS);
    for_each(&bundles, |bundle| {
        case.runtime(["delete", "--force", &bundle.id]).quiet_success();
    });
    case.runtime(["list", "-q"]).quiet_success().prints("");
    // The case itself now looks for every mount, cgroup, process and state file.
}

#[test]
fn one_name_created_by_many_exists_once() {
    let case = Case::new();
    differs!(
        case,
        ["runc", "crun"],
        "runc loses the container to the clean-up of a creator that came late"
    );
    let bundle = case.bundle().args(["sleep", "1000"]);
    bundle.write();
    let created = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut command = case.command();
                command.arg("create").arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
                if case.outcome(command).code() == 0 {
                    created.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(created.into_inner(), 1);
    assert_eq!(case.status(&bundle), "created");
    case.runtime(["delete", "--force", &bundle.id]).quiet_success();
    case.assert_gone(&bundle);
}
