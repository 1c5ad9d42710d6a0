//! The options of `checkpoint` and `restore`.

use clap::Args;
use std::path::PathBuf;

/// What the two share.
#[derive(Debug, Args)]
pub struct Common {
    /// Directory of the images [default: checkpoint]
    #[arg(long, value_name = "DIR")]
    pub image_path: Option<PathBuf>,
    /// Directory for CRIU's log [default: that of the images]
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,
    /// Allow established TCP connections
    #[arg(long)]
    pub tcp_established: bool,
    /// Allow unix sockets whose other end is outside
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Allow a session and a terminal that are the caller's
    #[arg(long)]
    pub shell_job: bool,
    /// Leave memory behind, and fetch it when it is touched
    #[arg(long)]
    pub lazy_pages: bool,
    /// Allow file locks
    #[arg(long)]
    pub file_locks: bool,
    /// What becomes of control groups: soft, full, strict or ignore [default: soft]
    #[arg(long, value_name = "MODE")]
    pub manage_cgroups_mode: Option<String>,
    /// Leave out the content of a namespace: network
    #[arg(long, value_name = "NAMESPACE")]
    pub empty_ns: Vec<String>,
    /// Drop from earlier images what later ones have
    #[arg(long)]
    pub auto_dedup: bool,
}

/// `checkpoint`.
#[derive(Debug, Args)]
pub struct Checkpoint {
    /// What it shares with its sibling
    #[command(flatten)]
    pub common: Common,
    /// Images made before, as seen from --image-path
    #[arg(long, value_name = "DIR")]
    pub parent_path: Option<PathBuf>,
    /// Let the processes go on
    #[arg(long)]
    pub leave_running: bool,
    /// Leave out TCP connections that are not yet accepted
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// Descriptor to write a byte to when lazy pages are served
    #[arg(long, value_name = "FD")]
    pub status_fd: Option<i32>,
    /// Send the memory to a page server
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page_server: Option<String>,
    /// Write the memory alone, and let the processes go on
    #[arg(long)]
    pub pre_dump: bool,
    /// Allow open files that have no name, by giving them one
    #[arg(long)]
    pub link_remap: bool,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// `restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// What it shares with its sibling
    #[command(flatten)]
    pub common: Common,
    /// Directory of the bundle
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Socket that receives the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// File to write the pid of the first process to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Return when the program runs
    #[arg(long, short)]
    pub detach: bool,
    /// Do not become the parent of the container's orphans
    #[arg(long)]
    pub no_subreaper: bool,
    /// Do not use pivot_root (not possible: CRIU knows nothing else)
    #[arg(long)]
    pub no_pivot: bool,
    /// Close TCP connections instead of restoring them
    #[arg(long)]
    pub tcp_close: bool,
    /// LSM label of the processes, as KIND:LABEL
    #[arg(long, value_name = "PROFILE")]
    pub lsm_profile: Option<String>,
    /// LSM context of the mounts
    #[arg(long, value_name = "CONTEXT")]
    pub lsm_mount_context: Option<String>,
    /// Put N pipes of ours in the place of those that were descriptors 3 and up
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}
