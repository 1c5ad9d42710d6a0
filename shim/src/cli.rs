//! The command line. Parsing does no input or output.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::detach;
use crate::error::code;
use crate::settings::Settings;

/// Runs containers without a daemon and keeps their output and their exit codes.
#[derive(Debug, Parser)]
#[command(name = "shim", disable_version_flag = true, arg_required_else_help = true)]
pub struct Cli {
    /// Settings of every verb.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// Print version and commit
    #[arg(short = 'V', long)]
    pub version: bool,
}

/// Settings of every verb.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Directory of all containers [default: /var/lib/davit/containers; not root:
    /// $XDG_DATA_HOME/davit/containers]
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a command in a new container
    Run(Box<Run>),
    /// Start containers that have ended
    Start(Start),
    /// List containers
    Ps(Ps),
    /// Show what a container has printed
    Logs(Logs),
    /// Connect to a running container's input and output
    Attach(Attach),
    /// Wait until containers end and print their exit codes
    Wait(Names),
    /// Stop containers: SIGTERM, then SIGKILL
    Stop(Stop),
    /// Send a signal to containers
    Kill(Kill),
    /// Remove containers
    Rm(Rm),
    /// Write a completion script to stdout
    Completions {
        /// The shell
        #[arg(value_parser = ["bash", "zsh", "fish"])]
        shell: String,
    },
    /// Write the manual pages into a directory
    Man {
        /// The directory, which must exist
        dir: PathBuf,
    },
}

impl Verb {
    /// The exit code of a failure: verbs that pass a container's code on have their own.
    pub fn failure_code(&self) -> u8 {
        match self {
            Self::Run(_) | Self::Attach(_) => code::OURS,
            Self::Start(start) if start.attach => code::OURS,
            _ => code::FAILURE,
        }
    }
}

/// `shim run`. As with docker, -h is the host name here.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Run {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
    /// Return once the container runs, and print its id
    #[arg(short, long)]
    pub detach: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Keep the container's stdin open, and pass ours to it
    #[arg(short, long)]
    pub interactive: bool,
    /// Name of the container [default: the beginning of its id]
    #[arg(long)]
    pub name: Option<String>,
    /// Remove the container when it has ended
    #[arg(long)]
    pub rm: bool,
    /// Log file in CRI format, or `none` [default: in the container's directory]
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Keys that detach from a terminal
    #[arg(long, value_name = "KEYS", default_value = detach::DEFAULT)]
    pub detach_keys: String,
    /// OCI runtime [default: the `runtime` beside this program, else on PATH]
    #[arg(long, value_name = "PATH")]
    pub runtime: Option<PathBuf>,
    /// Argument for the runtime, before its verb (repeatable)
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub runtime_arg: Vec<String>,
    /// Seconds that one call of the runtime may take
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    pub runtime_timeout: u64,
    /// imgtool [default: the one beside this program, else on PATH]
    #[arg(long, value_name = "PATH")]
    pub imgtool: Option<PathBuf>,
    /// Settings for `imgtool unpack`.
    #[command(flatten)]
    pub settings: Settings,
    /// A bundle (a directory with a config.json), or else an image
    #[arg(value_name = "BUNDLE|IMAGE")]
    pub source: OsString,
    /// The command, in place of the bundle's or image's own
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// `shim start`.
#[derive(Debug, Args)]
pub struct Start {
    /// Stay in the foreground (one container)
    #[arg(short, long)]
    pub attach: bool,
    /// Keys that detach from a terminal
    #[arg(long, value_name = "KEYS", default_value = detach::DEFAULT)]
    pub detach_keys: String,
    /// Which containers.
    #[command(flatten)]
    pub names: Names,
}

/// `shim ps`.
#[derive(Debug, Args)]
pub struct Ps {
    /// Show containers that do not run, too
    #[arg(short, long)]
    pub all: bool,
    /// Print everything known, as a JSON array
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `shim logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Go on until the container ends
    #[arg(short, long)]
    pub follow: bool,
    /// Show this many lines from the end
    #[arg(short = 'n', long, value_name = "LINES")]
    pub tail: Option<usize>,
    /// Show lines since a time (RFC 3339) or for a duration (90s, 10m, 2h, 1d)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Put each line's time in front
    #[arg(short, long)]
    pub timestamps: bool,
    /// Which container
    pub name: String,
}

/// `shim attach`.
#[derive(Debug, Args)]
pub struct Attach {
    /// Keys that detach from a terminal
    #[arg(long, value_name = "KEYS", default_value = detach::DEFAULT)]
    pub detach_keys: String,
    /// Do not pass our stdin to the container
    #[arg(long)]
    pub no_stdin: bool,
    /// Do not pass signals to the container: Ctrl-C ends this command, not the container
    #[arg(long)]
    pub no_signals: bool,
    /// Which container
    pub name: String,
}

/// One or more containers.
#[derive(Debug, Args)]
pub struct Names {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub names: Vec<String>,
}

/// `shim stop`.
#[derive(Debug, Args)]
pub struct Stop {
    /// Seconds between SIGTERM and SIGKILL
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    pub time: u64,
    /// Which containers.
    #[command(flatten)]
    pub names: Names,
}

/// `shim kill`.
#[derive(Debug, Args)]
pub struct Kill {
    /// Name or number
    #[arg(short, long, default_value = "KILL")]
    pub signal: String,
    /// Which containers.
    #[command(flatten)]
    pub names: Names,
}

/// `shim rm`.
#[derive(Debug, Args)]
pub struct Rm {
    /// Kill what still runs
    #[arg(short, long)]
    pub force: bool,
    /// Which containers.
    #[command(flatten)]
    pub names: Names,
}
