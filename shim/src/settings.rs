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

#[rustfmt::skip]
const SETTINGS: &[Setting] = &[
    ("env", Some('e'), Some("KEY[=VALUE]"), "Set an environment variable; KEY alone passes on our own"),
    ("env-file", None, Some("FILE"), "Read environment variables from a file"),
    ("user", Some('u'), Some("USER[:GROUP]"), "User, and group if another than the user's own"),
    ("group-add", None, Some("GROUP"), "Add a supplementary group"),
    ("workdir", Some('w'), Some("DIR"), "Working directory"),
    ("entrypoint", None, Some("PROGRAM"), "Run this instead of the image's entry point"),
    ("hostname", Some('h'), Some("NAME"), "Host name"),
    ("volume", Some('v'), Some("[SRC:]DST[:OPTIONS]"), "Bind a host directory or file"),
    ("mount", None, Some("KEY=VALUE,…"), "The same, spelled out"),
    ("tmpfs", None, Some("DST[:OPTIONS]"), "Mount a tmpfs"),
    ("read-only", None, None, "Make the root file system read-only"),
    ("shm-size", None, Some("BYTES"), "Size of /dev/shm"),
    ("device", None, Some("HOST[:PATH][:rwm]"), "Pass in a device"),
    ("memory", Some('m'), Some("BYTES"), "Memory limit"),
    ("memory-swap", None, Some("BYTES"), "Limit of memory and swap together, or -1"),
    ("memory-reservation", None, Some("BYTES"), "Soft memory limit"),
    ("cpus", None, Some("NUMBER"), "Number of CPUs' worth of time"),
    ("cpu-shares", Some('c'), Some("WEIGHT"), "Relative CPU weight"),
    ("cpuset-cpus", None, Some("LIST"), "CPUs to run on"),
    ("cpuset-mems", None, Some("LIST"), "Memory nodes to use"),
    ("pids-limit", None, Some("NUMBER"), "Most processes, or -1"),
    ("ulimit", None, Some("NAME=SOFT[:HARD]"), "Resource limit of the process"),
    ("oom-score-adj", None, Some("SCORE"), "Preference of the out-of-memory killer"),
    ("cap-add", None, Some("CAP"), "Add a capability, or ALL"),
    ("cap-drop", None, Some("CAP"), "Drop a capability, or ALL"),
    ("privileged", None, None, "Every capability and device, nothing masked"),
    ("security-opt", None, Some("OPTION"), "no-new-privileges, seccomp=FILE, …"),
    ("sysctl", None, Some("KEY=VALUE"), "Kernel parameter of the container's namespaces"),
    ("network", None, Some("MODE"), "Network: none or host"),
    ("pid", None, Some("MODE"), "Process ids: private or host"),
    ("ipc", None, Some("MODE"), "System V and POSIX IPC: private, host or none"),
    ("uts", None, Some("MODE"), "Host and domain name: private or host"),
    ("cgroupns", None, Some("MODE"), "Cgroup namespace: private or host"),
    ("label", Some('l'), Some("KEY[=VALUE]"), "Add a label, as an annotation"),
    ("annotation", None, Some("KEY=VALUE"), "Add an annotation"),
    ("platform", None, Some("OS/ARCH"), "Which image of a multi-platform index"),
    ("copy", None, None, "Make a full copy instead of an overlay"),
    ("store", None, Some("DIR"), "imgtool's store"),
];

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        let heading = "Settings of an image (see imgtool-unpack(1))";
        SETTINGS.iter().fold(command, |command, (name, short, value, help)| {
            let mut arg = Arg::new(*name).long(*name).help(*help).help_heading(heading);
            if let Some(short) = short {
                arg = arg.short(*short);
            }
            if *name == "network" {
                arg = arg.visible_alias("net");
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Verb};

    #[test]
    fn settings_reach_imgtool_as_they_were_typed() {
        let line = "shim run -e A=1 --env B -h box -m 64m --privileged --net host \
                    --memory-swap -1 -it img sh -c x -e y";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Some(Verb::Run(run)) = cli.verb else { panic!("not run") };
        assert_eq!(
            run.settings.0,
            [
                "--env=A=1",
                "--env=B",
                "--hostname=box",
                "--memory=64m",
                "--memory-swap=-1",
                "--privileged",
                "--network=host"
            ]
        );
        assert!(run.interactive && run.tty);
        assert_eq!(run.source, "img");
        assert_eq!(run.command, ["sh", "-c", "x", "-e", "y"]);
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
