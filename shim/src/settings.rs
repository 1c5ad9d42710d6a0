//! docker run's settings that `imgtool unpack` understands, passed on untouched.
//!
//! imgtool owns their meaning and their syntax; this table only says which exist, so that
//! `shim run --help` and the man page can show them.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// Settings in the form in which imgtool gets them: `--name=value` or `--name`.
#[derive(Debug, Clone, Default)]
pub struct Settings(pub Vec<OsString>);

/// Name, short form, placeholder of the value (none: a switch), help.
type Setting = (&'static str, Option<char>, Option<&'static str>, &'static str);

const SETTINGS: &[Setting] = &[
    ("env", Some('e'), Some("K[=V]"), "Set an environment variable"),
    ("env-file", None, Some("FILE"), "Read environment variables from a file"),
    ("user", Some('u'), Some("USER[:GROUP]"), "Run as this user"),
    ("workdir", Some('w'), Some("DIR"), "Working directory"),
    ("volume", Some('v'), Some("SRC:DST[:OPTS]"), "Bind-mount a host path"),
    ("mount", None, Some("SPEC"), "Mount, in docker's long form"),
    ("tmpfs", None, Some("DST[:OPTS]"), "Mount a tmpfs"),
    ("memory", Some('m'), Some("BYTES"), "Memory limit, with suffix k, m or g"),
    ("cpus", None, Some("NUMBER"), "CPU limit"),
    ("pids-limit", None, Some("NUMBER"), "Limit of processes"),
    ("entrypoint", None, Some("COMMAND"), "Replace the image's entrypoint"),
    ("cap-add", None, Some("CAP"), "Add a capability"),
    ("cap-drop", None, Some("CAP"), "Drop a capability"),
    ("hostname", None, Some("NAME"), "Host name in the container"),
    ("network", None, Some("MODE"), "Network: none or host"),
    ("privileged", None, None, "All capabilities and devices, no confinement"),
    ("read-only", None, None, "Read-only root filesystem"),
    ("security-opt", None, Some("OPT"), "Security option"),
    ("ulimit", None, Some("NAME=SOFT[:HARD]"), "Resource limit of the process"),
    ("sysctl", None, Some("KEY=VALUE"), "Kernel parameter of the namespaces"),
    ("platform", None, Some("OS/ARCH"), "Which of a multi-platform image"),
    ("copy", None, None, "Unpack a full copy instead of mounting an overlay"),
];

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        let heading = "Settings of an image (see imgtool-unpack(1))";
        SETTINGS.iter().fold(command, |command, (name, short, value, help)| {
            let mut arg = Arg::new(*name).long(*name).help(*help).help_heading(heading);
            if let Some(short) = short {
                arg = arg.short(*short);
            }
            command.arg(match value {
                Some(value) => arg
                    .value_name(*value)
                    .action(ArgAction::Append)
                    .allow_hyphen_values(true)
                    .value_parser(clap::value_parser!(OsString)),
                None => arg.action(ArgAction::SetTrue),
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut passed = Vec::new();
        for (name, _, value, _) in SETTINGS {
            if value.is_none() {
                if matches.get_flag(name) {
                    passed.push(format!("--{name}").into());
                }
                continue;
            }
            for value in matches.get_many::<OsString>(name).into_iter().flatten() {
                let mut arg = OsString::from(format!("--{name}="));
                arg.push(value);
                passed.push(arg);
            }
        }
        Ok(Self(passed))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
