//! docker run's settings, as clap reads them. Parsing does no I/O.

use std::path::PathBuf;

use clap::Args;

use super::parse::{self, Binding, DeviceMap, Tmpfs, Ulimit};

/// Settings of the container, named and written as `docker run` has them.
#[derive(Args, Clone, Debug, Default)]
pub struct Settings {
    /// Set an environment variable; KEY alone passes on our own
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,
    /// Read environment variables from a file of such lines
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// User, and group if another than the user's own
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Add a supplementary group
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Run this instead of the image's entry point; an empty one removes it
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Host name
    #[arg(short = 'h', long, value_name = "NAME", value_parser = parse::hostname)]
    pub hostname: Option<String>,
    /// Give the process a terminal
    #[arg(short, long)]
    pub tty: bool,

    /// Bind a host directory or file, or a named volume
    #[arg(short, long, value_name = "[SRC:]DST[:OPTIONS]", value_parser = parse::volume)]
    pub volume: Vec<Binding>,
    /// The same, spelled out: type=bind|volume|tmpfs,source=,target=,readonly,…
    #[arg(long, value_name = "KEY=VALUE,…", value_parser = parse::mount)]
    pub mount: Vec<Binding>,
    /// Mount a tmpfs
    #[arg(long, value_name = "DST[:OPTIONS]", value_parser = parse::tmpfs)]
    pub tmpfs: Vec<Tmpfs>,
    /// Make the root file system read-only
    #[arg(long)]
    pub read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes)]
    pub shm_size: Option<u64>,
    /// Pass in a device, or a directory of them
    #[arg(long, value_name = "HOST[:PATH][:rwm]", value_parser = parse::device)]
    pub device: Vec<DeviceMap>,

    /// Memory limit
    #[arg(short, long, value_name = "BYTES", value_parser = parse::bytes)]
    pub memory: Option<u64>,
    /// Limit of memory and swap together, or -1 for no limit
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes_or_unlimited, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Soft memory limit
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes)]
    pub memory_reservation: Option<u64>,
    /// Number of CPUs' worth of time
    #[arg(long, value_name = "NUMBER", value_parser = parse::cpus)]
    pub cpus: Option<u64>,
    /// Relative CPU weight
    #[arg(short, long, value_name = "WEIGHT")]
    pub cpu_shares: Option<u64>,
    /// CPUs to run on: 0-3,5
    #[arg(long, value_name = "LIST", value_parser = parse::cpu_list)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use: 0,1
    #[arg(long, value_name = "LIST", value_parser = parse::cpu_list)]
    pub cpuset_mems: Option<String>,
    /// Most processes, or -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Resource limit of the process
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = parse::ulimit)]
    pub ulimit: Vec<Ulimit>,
    /// Preference of the out-of-memory killer, -1000 to 1000
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true,
          value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub oom_score_adj: Option<i32>,

    /// Add a capability, or ALL
    #[arg(long, value_name = "CAP", value_parser = super::caps::parse)]
    pub cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAP", value_parser = super::caps::parse)]
    pub cap_drop: Vec<String>,
    /// Every capability and device, nothing masked, no seccomp filter
    #[arg(long)]
    pub privileged: bool,
    /// no-new-privileges, seccomp=unconfined, seccomp=FILE, apparmor=PROFILE, systempaths=unconfined
    #[arg(long, value_name = "OPTION", value_parser = parse::security)]
    pub security_opt: Vec<parse::Security>,
    /// Kernel parameter of the container's namespaces
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::key_value)]
    pub sysctl: Vec<(String, String)>,

    /// Network: none (its own, with only loopback) or host
    #[arg(long, visible_alias = "net", value_name = "MODE", default_value = "none")]
    pub network: Network,
    /// Process ids: private or host
    #[arg(long, value_name = "MODE", default_value = "private")]
    pub pid: Space,
    /// System V and POSIX IPC: private, host, or none (private, without /dev/shm)
    #[arg(long, value_name = "MODE", default_value = "private")]
    pub ipc: Ipc,
    /// Host and domain name: private or host
    #[arg(long, value_name = "MODE", default_value = "private")]
    pub uts: Space,
    /// Cgroup namespace: private or host; private by default on cgroup v2
    #[arg(long, value_name = "MODE")]
    pub cgroupns: Option<Space>,

    /// Add a label, as an annotation of the container
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = parse::key_maybe_value)]
    pub label: Vec<(String, String)>,
    /// Add an annotation
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::key_value)]
    pub annotation: Vec<(String, String)>,
}

/// `--network`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// A namespace of its own.
    #[default]
    None,
    /// The host's, with its resolver and host table.
    Host,
}

/// A namespace of its own, or the host's.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Space {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
}

/// `--ipc`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ipc {
    /// Its own.
    #[default]
    Private,
    /// The host's, with its /dev/shm.
    Host,
    /// Its own, without /dev/shm.
    None,
}
