//! An OCI runtime: executes a bundle's `config.json`.
//!
//! The modules, in the order in which a container lives:
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`], [`usage`], [`dispatch`], [`log`], [`rootless`] | the command line, and how the end is reported |
//! | [`seal`] | running from a copy that a container cannot write to |
//! | [`plan`] | `config.json` becomes everything that is to be done |
//! | [`container`] | the state directory |
//! | [`cgroup`], [`rdt`] | control groups; classes of cache and memory bandwidth |
//! | [`create`], [`init`], [`sync`], [`pid_file`] | the parent's and the first process's script, and their talk |
//! | [`procfs`] | the only /proc that is written to |
//! | [`namespaces`], [`idmap`], [`net_devices`], [`rootfs`], [`hooks`] | what the first process walks through |
//! | [`confine`], [`user`], [`caps`], [`rlimits`], [`scheduling`], [`lsm`], [`seccomp`] | its privileges |
//! | [`listener`] | who answers for the system call filter |
//! | [`start`], [`run`], [`supervise`], [`notify`] | the program runs |
//! | [`exec`], [`join`] | another program beside it |
//! | [`state`], [`list`], [`ps`], [`events`], [`kill`], [`pause`], [`update`], [`delete`] | looking at it, changing it, and its end |
//! | [`checkpoint`], [`restore`], [`criu`] | into files, and back |
//! | [`spec`], [`features`] | what can be asked for |
//! | [`sys`] | the kernel's calls, and the only `unsafe` |

pub mod birth;
pub mod caps;
pub mod cgroup;
pub mod checkpoint;
pub mod cli;
pub mod confine;
pub mod container;
pub mod create;
pub mod criu;
pub mod delete;
pub mod directory;
pub mod dispatch;
pub mod errno;
pub mod error;
pub mod events;
pub mod exec;
pub mod features;
pub mod half;
pub mod hooks;
pub mod idmap;
pub mod init;
pub mod join;
pub mod kill;
pub mod list;
pub mod listener;
pub mod log;
pub mod lsm;
pub mod namespaces;
pub mod net_devices;
pub mod notify;
pub mod pause;
pub mod pid_file;
pub mod plan;
pub mod procfs;
pub mod ps;
pub mod rdt;
pub mod restore;
pub mod rlimits;
pub mod root_mount;
pub mod rootfs;
pub mod rootless;
pub mod run;
pub mod scheduling;
pub mod seal;
pub mod seccomp;
pub mod spec;
pub mod start;
pub mod state;
pub mod supervise;
pub mod sync;
pub mod sys;
pub mod update;
pub mod usage;
pub mod user;

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from.
pub const COMMIT: &str = match option_env!("DAVIT_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// The newest version of the runtime specification that is implemented.
pub const SPEC_VERSION: &str = "1.3.0";
