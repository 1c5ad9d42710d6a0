//! Black-box tests of the four programs, and of any OCI runtime.
//!
//! Nothing here imports a program under test: each is an executable, met at its argv, files
//! and exit code. So the same tests judge another runtime, which keeps them honest:
//!
//! ```text
//! cargo test -p spec-tests                    # the `runtime` in the target directory
//! RUNTIME=runc cargo test -p spec-tests       # a reference implementation
//! ```
//!
//! A test opens a [`Case`] (its own state root, cgroup directory and scratch directory), makes a
//! [`Bundle`] in it, drives the runtime and judges the [`Outcome`]. When the case goes out of
//! scope it deletes what is left and then looks for leaks: mounts, cgroups, processes, state.
//!
//! A test that cannot run says so by [`skip!`], by name and with the reason; `make test` counts
//! those lines. Tests of a spec section are in `tests/<section>.rs`, tests with a real engine
//! in `clients/<engine>.rs`.

pub mod agent;
mod bundle;
mod case;
pub mod cgroup;
mod command;
mod config;
pub mod console;
pub mod criu;
pub mod daemon;
pub mod features;
pub mod image;
#[cfg(target_arch = "x86_64")]
pub mod inject;
mod leak;
pub mod limits;
pub mod nested;
mod program;
pub mod registry;
pub mod shape;
mod skip;
pub mod terminal;
mod tools;
pub mod user_namespace;

pub use bundle::{Bundle, busybox};
pub use case::Case;
pub use command::{Outcome, under_emulation, wait_until};
pub use config::default_config;
pub use program::{Program, find, find_program, runtime};
pub use skip::report_skip;
pub use tools::Tools;
