//! The command line: runc's, so that its callers need not know the difference.
//!
//! Parsing does no I/O; what it yields is turned into requests by `dispatch.rs`.

pub mod criu;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// Executes containers from OCI bundles.
#[derive(Debug, Parser)]
#[command(name = "runtime", disable_version_flag = true, arg_required_else_help = true)]
// As with Go's flags, the last of several wins: podman says --leave-running twice.
#[command(args_override_self = true)]
pub struct Cli {
    /// Directory for the state of containers; it should be on a tmpfs
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Where the log goes instead of stderr: a file, journald:IDENTIFIER or syslog:IDENTIFIER
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Format of the log
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Log what is done, and which fallbacks are taken: --log-level=debug
    #[arg(long)]
    pub debug: bool,
    /// What is logged: this, and what is worse
    #[arg(long, value_name = "LEVEL", default_value = "warning")]
    pub log_level: LogLevel,
    /// Have systemd make the control groups, as --cgroup-manager systemd does
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// How control groups are made
    #[arg(long, value_name = "MANAGER", default_value = "cgroupfs")]
    pub cgroup_manager: CgroupManager,
    /// Run without a control group where permission to make one is missing
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub rootless: Rootless,
    /// Print the version
    #[arg(long, short = 'v', short_alias = 'V')]
    pub version: bool,
    /// What to do
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// key="value"
    Text,
    /// One object a line
    Json,
}

/// `--log-level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What ends the program
    Error,
    /// What the specification wants said
    #[value(alias = "warn", alias = "info")]
    Warning,
    /// What is done, and which fallbacks are taken
    #[value(alias = "trace")]
    Debug,
}

/// `--cgroup-manager`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CgroupManager {
    /// Directories in the cgroup file systems
    Cgroupfs,
    /// Scopes of systemd
    Systemd,
    /// None
    Disabled,
}

/// `--rootless`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    /// Always
    True,
    /// Never
    False,
    /// When not run by root
    Auto,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a container; `start` then runs its program
    Create(Create),
    /// Run the program of a container that was made
    Start(Id),
    /// Make a container and run its program
    Run(Run),
    /// Run another program in a running container
    Exec(Box<Exec>),
    /// Send a signal to a container
    Kill(Kill),
    /// Remove what is left of a container
    Delete(Delete),
    /// Print the state of a container as JSON
    State(Id),
    /// List the containers
    List(List),
    /// List the processes of a container
    Ps(Ps),
    /// Stop the processes of a container where they are
    Pause(Id),
    /// Let the processes of a paused container go on
    Resume(Id),
    /// Print what a container uses, and when it runs out of memory
    Events(crate::events::Args),
    /// Change the limits of a container
    Update(Box<crate::update::Args>),
    /// Write a running container into files, by CRIU
    Checkpoint(Box<criu::Checkpoint>),
    /// Make a container anew from the files of a checkpoint
    Restore(Box<criu::Restore>),
    /// Write a config.json to start from
    Spec(Spec),
    /// Print what this runtime implements, as JSON
    Features,
    /// Show what `create` would do, without doing it
    Plan(Plan),
    /// crun's change of the mounts of a running container: refused
    #[command(hide = true)]
    Mounts {
        /// Whatever follows
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Print a completion script for a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory
        directory: PathBuf,
    },
}

/// A container's name alone.
#[derive(Debug, Args)]
pub struct Id {
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// What `create` and `run` share.
#[derive(Debug, Args)]
pub struct Make {
    /// Directory of the bundle
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Configuration, if it is not the bundle's config.json
    #[arg(long, short = 'f', value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Socket that receives the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Socket that receives a pidfd of the first process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// File to write the pid of the first process to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Do not use pivot_root, for a root file system on a ramdisk
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Pass N descriptors from 3 on, in addition to $LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// `create`.
#[derive(Debug, Args)]
pub struct Create {
    /// What it shares with its sibling
    #[command(flatten)]
    pub make: Make,
    /// crun's callers pass it; `create` becomes nobody's subreaper in any case
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
}

/// `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// What it shares with its sibling
    #[command(flatten)]
    pub make: Make,
    /// Return when the program runs
    #[arg(long, short)]
    pub detach: bool,
    /// Keep the state after the program has ended
    #[arg(long)]
    pub keep: bool,
    /// Do not become the parent of the container's orphans
    #[arg(long)]
    pub no_subreaper: bool,
}

/// `exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// Socket that receives the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Socket that receives a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Set an environment variable
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Allocate a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// User id, and group id
    #[arg(long, short, value_name = "UID[:GID]", value_parser = user)]
    pub user: Option<(u32, Option<u32>)>,
    /// Group ids in addition
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// File with the process as JSON
    #[arg(long, short, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Return when the program runs
    #[arg(long, short)]
    pub detach: bool,
    /// File to write the pid of the process to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// Forbid the process to gain privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// Add a capability
    #[arg(long, short, value_name = "CAP")]
    pub cap: Vec<String>,
    /// Pass N descriptors from 3 on, in addition to $LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Existing group below the container's control group
    #[arg(long, value_name = "[CONTROLLERS:]PATH")]
    pub cgroup: Vec<String>,
    /// Allow it in a paused container
    #[arg(long)]
    pub ignore_paused: bool,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// Program and arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// `kill`.
#[derive(Debug, Args)]
pub struct Kill {
    /// Send it to all processes of the container
    #[arg(long, short)]
    pub all: bool,
    /// CONTAINER is an extended regular expression: all containers that match
    #[arg(long, short)]
    pub regex: bool,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// Number or name
    #[arg(value_name = "SIGNAL", default_value = "TERM", allow_hyphen_values = true)]
    pub signal: String,
}

/// `delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// Kill it first if it runs; succeed if it does not exist
    #[arg(long, short)]
    pub force: bool,
    /// CONTAINER is an extended regular expression: all containers that match
    #[arg(long, short)]
    pub regex: bool,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// How things are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns
    Table,
    /// JSON
    Json,
}

/// `list`.
#[derive(Debug, Args)]
pub struct List {
    /// Columns or JSON
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
    /// Names alone
    #[arg(long, short)]
    pub quiet: bool,
}

/// `ps`.
#[derive(Debug, Args)]
pub struct Ps {
    /// Columns or JSON
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// Options of ps(1)
    #[arg(value_name = "OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

/// `spec`.
#[derive(Debug, Args)]
pub struct Spec {
    /// Directory to write it into
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// File to write, if it is not config.json in that directory
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// For a user without privilege
    #[arg(long)]
    pub rootless: bool,
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// For people or for programs
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub format: PlanFormat,
    /// Name that the container would have
    #[arg(long, value_name = "CONTAINER", default_value = "ID")]
    pub id: String,
    /// Directory of the bundle
    #[arg(value_name = "BUNDLE", default_value = ".")]
    pub bundle: PathBuf,
}

/// `UID[:GID]`, digits only: anything else would be taken for somebody.
fn user(text: &str) -> Result<(u32, Option<u32>), String> {
    let number = |part: &str| match part.bytes().all(|b| b.is_ascii_digit()) {
        // To setresuid(2) and its kin this number means "stay who you are".
        true if part.parse() == Ok(u32::MAX) => {
            Err(format!("{part:?} is no id of a user or group"))
        }
        true => part.parse::<u32>().map_err(|e| format!("{part:?}: {e}")),
        false => Err(format!("{part:?} is not a number")),
    };
    match text.split_once(':') {
        None => Ok((number(text)?, None)),
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
    }
}

/// Go's flag syntax, which runc's callers use: a long option may have a single dash
/// (containerd: `restore … -no-subreaper`). Rewrites those before the first positional argument
/// of the verb; what follows belongs to the container's command. A switch may be given a value,
/// too (`--tty=false`).
pub fn normalise(mut args: Vec<OsString>) -> Vec<OsString> {
    let special = |word: &OsString| match word.as_encoded_bytes() {
        [b'-', b'-', rest @ ..] => rest.contains(&b'='),
        [b'-', _, _, ..] => true,
        _ => false,
    };
    if !args.iter().any(special) {
        return args;
    }
    let command = &Cli::command();
    let mut scope = command;
    let mut at = 1;
    while let Some(word) = args.get(at).and_then(|a| a.to_str()).map(String::from) {
        if word == "--" {
            break;
        }
        let Some(bare) = word.strip_prefix('-').filter(|bare| !bare.is_empty()) else {
            match scope.find_subcommand(&word) {
                Some(verb) if std::ptr::eq(scope, command) => scope = verb,
                _ => break,
            }
            at += 1;
            continue;
        };
        let name = bare.trim_start_matches('-').split('=').next().unwrap_or_default();
        let known = scope.get_arguments().find(|a| a.get_long() == Some(name));
        let long = known.is_some() && name.len() > 1;
        if long && !bare.starts_with('-') {
            args[at] = format!("-{word}").into();
        }
        match known.map(|a| a.get_action().takes_values()).zip(word.split_once('=')) {
            Some((false, (_, "true" | "t" | "T" | "TRUE" | "True" | "1"))) if long => {
                args[at] = format!("--{name}").into();
            }
            Some((false, (_, "false" | "f" | "F" | "FALSE" | "False" | "0"))) if long => {
                args.remove(at);
                continue;
            }
            _ => {}
        }
        let short = bare.chars().next().filter(|_| bare.len() == 1);
        let found = known
            .or_else(|| scope.get_arguments().find(|a| short.is_some() && a.get_short() == short));
        let takes_value = found.is_some_and(|a| a.get_action().takes_values());
        at += if takes_value && !word.contains('=') { 2 } else { 1 };
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn single_dashes_are_gos() {
        for (given, wanted) in [
            ("runtime run -no-subreaper -b /b c", "runtime run --no-subreaper -b /b c"),
            ("runtime -root /r state c", "runtime --root /r state c"),
            ("runtime exec -d c sh -detach", "runtime exec -d c sh -detach"),
            ("runtime create -bundle=/b c", "runtime create --bundle=/b c"),
            ("runtime exec -e X=-cwd -cwd / c ls", "runtime exec -e X=-cwd --cwd / c ls"),
            ("runtime run --detach=true -keep=false c", "runtime run --detach c"),
            (
                "runtime exec --tty=false --env A=true c x --tty=false",
                "runtime exec --env A=true c x --tty=false",
            ),
            ("runtime exec --env=true c", "runtime exec --env=true c"),
        ] {
            assert_eq!(normalise(words(given)), words(wanted));
        }
    }

    #[test]
    fn users_are_numbers() {
        assert_eq!(user("1:2"), Ok((1, Some(2))));
        for bad in ["root", "1:", ":1", "-1", "4294967295", "4294967296", "+1"] {
            assert!(user(bad).is_err() || bad.is_empty(), "{bad}");
        }
    }
}
