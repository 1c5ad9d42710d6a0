//! Runs and supervises containers, without a daemon.
//!
//! `shim run` makes a container's directory ([`container`]), has imgtool make a bundle when
//! it was given an image ([`image`]), and starts a [`reaper`] ([`launch`]). The reaper
//! drives the OCI [`runtime`], becomes the parent of the container's process, and starts
//! the [`monitor`]:
//!
//! ```text
//! shim run ──────────────┐ attach socket: output, input, size, exit   (client, protocol)
//!   └ reaper ┬ monitor ──┘ stdio ⇄ log, clients                        (monitor, log, attach)
//!            └ init        the container's process; its code, durable  (exit)
//! ```
//!
//! Reaper and monitor can each be killed without taking the container along: the monitor is
//! replaced, and after the reaper's death the monitor records the exit code where the kernel
//! allows that. All other verbs read the container's directory, speak to the monitor over
//! its socket, or call the runtime. Nothing is shared but files, sockets and exit codes.

pub mod cli;
pub mod settings;

pub mod attach_to;
pub mod generate;
pub mod kill;
pub mod logs;
pub mod ps;
pub mod rm;
pub mod run;
pub mod start;
pub mod stop;
pub mod wait;

pub mod container;
pub mod exit;
pub mod id;
pub mod places;
pub mod process;

pub mod bundle;
pub mod console;
pub mod image;
pub mod launch;
pub mod orders;
pub mod reaper;
pub mod runtime;

pub mod attach;
pub mod log;
pub mod monitor;
pub mod protocol;
pub mod socket;

pub mod client;
pub mod detach;
pub mod terminal;

pub mod error;
pub mod personality;
pub mod sys;

/// Carries out one verb; returns the exit code.
///
/// # Errors
/// The verb's.
pub fn dispatch(global: &cli::Global, verb: cli::Verb) -> error::Result<u8> {
    use cli::Verb;
    match verb {
        Verb::Run(args) => run::run(global, *args),
        Verb::Start(args) => start::start(global, &args),
        Verb::Ps(args) => ps::ps(global, &args),
        Verb::Logs(args) => logs::logs(global, &args),
        Verb::Attach(args) => attach_to::attach(global, &args),
        Verb::Wait(args) => wait::wait(global, &args),
        Verb::Stop(args) => stop::stop(global, &args),
        Verb::Kill(args) => kill::kill(global, &args),
        Verb::Rm(args) => rm::rm(global, &args),
        Verb::Completions { shell } => generate::completions(&shell),
        Verb::Man { dir } => generate::man(&dir),
    }
}
