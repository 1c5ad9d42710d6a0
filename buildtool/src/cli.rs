//! The command line. Parsing does no I/O.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand};
use imgtool::platform::Platform;
use imgtool::reference::Reference;

use crate::log::Progress;
use crate::output::Output;
use crate::parse::Network;

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let commit = option_env!("DAVIT_COMMIT").unwrap_or("unknown");
    format!("version {}\ncommit: {commit}", env!("CARGO_PKG_VERSION"))
});

/// Build container images from Dockerfiles.
#[derive(Debug, Parser)]
#[command(name = "buildtool", version = VERSION.as_str(), disable_help_subcommand = true)]
pub struct Cli {
    /// Directory of the store, an OCI image layout [default: $DAVIT_STORE, else
    /// /var/lib/davit/store for root, ~/.local/share/davit/store for others]
    #[arg(long, value_name = "DIR", global = true)]
    pub store: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// All verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Build an image from a Dockerfile and the files of a directory
    Build(Box<Build>),
    /// Write a completion script for a shell to stdout
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write man pages into a directory
    Man {
        /// The directory
        dir: PathBuf,
    },
}

/// Arguments of `build`.
#[derive(Debug, Clone, Args)]
pub struct Build {
    /// Name the image; may be repeated
    #[arg(short, long, value_name = "NAME", value_parser = Reference::parse)]
    pub tag: Vec<Reference>,
    /// The Dockerfile; - reads it from stdin [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Set an ARG; without =VALUE it comes from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// Build this stage, by name or number
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Execute every step, whatever the cache holds
    #[arg(long)]
    pub no_cache: bool,
    /// Pull base images also when the store has them
    #[arg(long)]
    pub pull: bool,
    /// Network of RUN: host, or none
    #[arg(long, value_name = "MODE", default_value = "host", value_parser = network)]
    pub network: Network,
    /// Platform of the base images and of the result
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = Platform::parse)]
    pub platform: Option<Platform>,
    /// Add a label to the image
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub label: Vec<(String, String)>,
    /// A secret for RUN --mount=type=secret: id=NAME,src=FILE or id=NAME,env=VARIABLE
    #[arg(long, value_name = "SPEC", value_parser = crate::build::secret::parse)]
    pub secret: Vec<crate::build::secret::Secret>,
    /// Where the result goes instead of the store: type=oci|docker|tar|local,dest=PATH (- is
    /// stdout); a bare - is a tar of the root file system, a bare PATH a directory
    #[arg(short, long, value_name = "SPEC", value_parser = crate::output::parse)]
    pub output: Option<Output>,
    /// Write the image ID to a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Print nothing but the image ID
    #[arg(short, long)]
    pub quiet: bool,
    /// OCI runtime that executes RUN [default: runtime beside this program, else on PATH]
    #[arg(long, value_name = "PROGRAM")]
    pub runtime: Option<PathBuf>,
    /// Program that pulls base images [default: imgtool beside this program, else on PATH]
    #[arg(long, value_name = "PROGRAM")]
    pub imgtool: Option<PathBuf>,
    /// How to show progress
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: Progress,
    /// Directory with the files that COPY and ADD may name
    #[arg(value_name = "CONTEXT")]
    pub context: PathBuf,
}

fn network(text: &str) -> Result<Network, String> {
    match text {
        "host" | "default" => Ok(Network::Host),
        "none" => Ok(Network::None),
        _ => Err("expected host or none".into()),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        None if !text.is_empty() => Ok((text.to_owned(), String::new())),
        _ => Err("expected NAME=VALUE".into()),
    }
}
