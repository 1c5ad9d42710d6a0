//! From the parsed command line to the verb.

mod criu;

use crate::cgroup::plan::Cgroups;
use crate::cli::{self, Cli, Verb};
use crate::container::{self, ContainerId};
use crate::error::{Context, Error, Kind, Result};
use crate::log::{Format, Level, Log};
use crate::plan::{Options, Plan, show};
use crate::sys::regex::Regex;
use crate::{
    checkpoint, create, delete, events, exec, features, kill, list, pause, procfs, ps, restore,
    rootless, run, spec, start, state, update,
};
use clap::CommandFactory as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The log that the command line asks for.
pub fn log(cli: &Cli) -> Log {
    let format = match cli.log_format {
        cli::LogFormat::Text => Format::Text,
        cli::LogFormat::Json => Format::Json,
    };
    let level = match (cli.debug, cli.log_level) {
        (true, _) | (_, cli::LogLevel::Debug) => Level::Debug,
        (_, cli::LogLevel::Warning) => Level::Warning,
        (_, cli::LogLevel::Error) => Level::Error,
    };
    Log::new(cli.log.clone(), format, level)
}

/// Where states are kept: `--root`, or below /run, or below the user's own runtime directory.
fn root(cli: &Cli) -> PathBuf {
    match (&cli.root, std::env::var_os("XDG_RUNTIME_DIR")) {
        (Some(root), _) => root.clone(),
        // sudo keeps the variable, and root's containers are the system's all the same.
        (None, Some(own)) if rootless::acts_for_user() => PathBuf::from(own).join("davit"),
        (None, _) => "/run/davit".into(),
    }
}

/// Carries out the verb; returns the exit code.
pub fn run(cli: Cli, program: &str, log: &Log) -> Result<i32> {
    if cli.version {
        print(&version(program))?;
        return Ok(0);
    }
    let root = &root(&cli);
    let options = Options { cgroups: cgroups(&cli), systemd: systemd(&cli), ..Options::default() };
    let Some(verb) = cli.verb else {
        return Err(Error::of(Kind::Usage, "name what to do, such as `run`; --help lists all"));
    };
    match verb {
        Verb::Create(args) => {
            create::create(&request(root, args.make, options, true)?, log)?;
        }
        Verb::Run(args) => {
            let mode =
                run::Mode { detach: args.detach, keep: args.keep, no_subreaper: args.no_subreaper };
            return run::run(&request(root, args.make, options, args.detach)?.started(), mode, log);
        }
        Verb::Exec(args) => {
            return exec::exec(&exec_request(root, *args, options)?, log);
        }
        Verb::Start(args) => start::start(root, &id(&args)?, log)?,
        Verb::Kill(args) => {
            let signal = kill::parse_signal(&args.signal)?;
            for_each(root, &args.id, args.regex, |id| kill::kill(root, id, signal, args.all))?;
        }
        Verb::Delete(args) => {
            for_each(root, &args.id, args.regex, |id| delete::delete(root, id, args.force, log))?;
        }
        Verb::State(args) => print(&state::state(root, &id(&args)?)?)?,
        Verb::List(args) => print(&list::list(root, list_format(&args), log)?)?,
        Verb::Ps(args) => {
            let json = args.format == cli::Format::Json;
            print(&ps::ps(root, &ContainerId::new(&args.id)?, json, &args.options)?)?;
        }
        Verb::Pause(args) => pause::pause(root, &id(&args)?)?,
        Verb::Resume(args) => pause::resume(root, &id(&args)?)?,
        Verb::Events(args) => events::run(root, &args)?,
        Verb::Update(args) => update::run(root, &args)?,
        Verb::Spec(args) => {
            let file = args.file.unwrap_or_else(|| args.bundle.join("config.json"));
            spec::spec(&file, args.rootless)?;
        }
        Verb::Checkpoint(args) => {
            let (id, wanted) = criu::checkpoint(*args)?;
            checkpoint::checkpoint(root, &id, &wanted, log)?;
        }
        Verb::Restore(args) => {
            return restore::restore(&criu::restore(root, *args, options)?, log);
        }
        Verb::Features => {
            let text = serde_json::to_string_pretty(&features::features())
                .map_err(|e| Error::new(e.to_string()))?;
            print(&(text + "\n"))?;
        }
        Verb::Plan(args) => print(&plan(&args, options)?)?,
        Verb::Mounts { .. } => {
            return Err(Error::new(
                "mounts is not supported: the mounts of a container that exists do not change; name them in config.json before `create`",
            ));
        }
        Verb::Completions { shell } => completions(shell)?,
        Verb::Man { directory } => man(&directory)?,
    }
    Ok(0)
}

fn cgroups(cli: &Cli) -> Cgroups {
    let user = crate::sys::process::euid() != 0;
    match (cli.cgroup_manager, cli.rootless) {
        (cli::CgroupManager::Disabled, _) => Cgroups::None,
        (_, cli::Rootless::True) => Cgroups::IfAllowed,
        (_, cli::Rootless::Auto) if user => Cgroups::IfAllowed,
        (_, cli::Rootless::Auto) => Cgroups::Auto,
        (_, cli::Rootless::False) => Cgroups::Required,
    }
}

/// Does it to the container of that name, or to all that a regular expression matches. One that
/// fails does not keep the others from their turn.
fn for_each(
    root: &Path,
    name: &str,
    regex: bool,
    act: impl Fn(&ContainerId) -> Result<()>,
) -> Result<()> {
    if !regex {
        return act(&ContainerId::new(name)?);
    }
    let pattern = Regex::new(name).wrap(|| format!("--regex {name:?}"))?;
    let ids = container::all(root)?.into_iter().filter(|id| pattern.matches(id.as_str()));
    let failed: Vec<Error> = ids.filter_map(|id| act(&id).err()).collect();
    let mut failed = failed.into_iter();
    let Some(first) = failed.next() else { return Ok(()) };
    Err(failed.fold(first, |all, error| all.wrap(format!("{error}; and"))))
}

/// Which systemd is to make the groups: the user's own, where we act for a user.
fn systemd(cli: &Cli) -> Option<crate::plan::Systemd> {
    use crate::plan::Systemd;
    if !cli.systemd_cgroup && cli.cgroup_manager != cli::CgroupManager::Systemd {
        return None;
    }
    let user = match cli.rootless {
        cli::Rootless::True => true,
        cli::Rootless::False => false,
        cli::Rootless::Auto => rootless::acts_for_user(),
    };
    Some(if user { Systemd::User(rootless::outer_uid()) } else { Systemd::System })
}

fn id(args: &cli::Id) -> Result<ContainerId> {
    ContainerId::new(&args.id)
}

/// Descriptors that systemd or another caller hands over (sd_listen_fds(3)).
fn inherited(options: Options, preserve_fds: u32) -> Options {
    let listen_fds = std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    Options { listen_fds, preserve_fds: preserve_fds + listen_fds, ..options }
}

fn request(
    root: &Path,
    make: cli::Make,
    options: Options,
    detaches: bool,
) -> Result<create::Request<'_>> {
    let options = Options {
        no_pivot: make.no_pivot,
        no_new_keyring: make.no_new_keyring,
        ..inherited(options, make.preserve_fds)
    };
    Ok(create::Request {
        root,
        id: ContainerId::new(&make.id)?,
        bundle: make.bundle,
        config: make.config,
        pid_file: make.pid_file,
        console_socket: make.console_socket,
        pidfd_socket: make.pidfd_socket,
        options,
        starts: false,
        foreground: !detaches,
    })
}

fn exec_request(root: &Path, args: cli::Exec, options: Options) -> Result<exec::Request<'_>> {
    if args.process.is_none() && args.command.is_empty() {
        return Err(Error::new("exec: name a command, or a file by --process"));
    }
    let wanted = exec::Wanted {
        file: args.process,
        args: args.command,
        cwd: args.cwd,
        env: args.env,
        user: args.user,
        additional_gids: args.additional_gids,
        capabilities: args.cap,
        terminal: args.tty,
        no_new_privileges: args.no_new_privs.then_some(true),
        apparmor: args.apparmor,
        label: args.process_label,
    };
    Ok(exec::Request {
        root,
        id: ContainerId::new(&args.id)?,
        wanted,
        detach: args.detach,
        pid_file: args.pid_file,
        console_socket: args.console_socket,
        pidfd_socket: args.pidfd_socket,
        ignore_paused: args.ignore_paused,
        cgroups: args.cgroup,
        options: inherited(options, args.preserve_fds),
    })
}

fn list_format(args: &cli::List) -> list::Format {
    match (args.quiet, args.format) {
        (true, _) => list::Format::Quiet,
        (false, cli::Format::Json) => list::Format::Json,
        (false, cli::Format::Table) => list::Format::Table,
    }
}

fn plan(args: &cli::Plan, options: Options) -> Result<String> {
    let (mut plan, _) = Plan::load(&args.bundle, None, options)?;
    // Whether the kernel lets us have one of our own is known only by trying.
    let proc = procfs::for_plan(&plan)?;
    plan.fallbacks.extend(proc.as_ref().and_then(procfs::Proc::fallback).map(str::to_owned));
    match args.format {
        cli::PlanFormat::Text => show::text(&plan, &args.id),
        cli::PlanFormat::Json => show::json(&plan, &args.id),
    }
}

/// Prints to stdout; a reader that has gone away is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.wrap(|| "write to stdout"),
    }
}

/// What `--version` prints. Callers look for `runc version` in the first line only of a program
/// of that name.
pub fn version(program: &str) -> String {
    let name = if program == "runc" { "runc" } else { "runtime" };
    format!(
        "{name} version {}\ncommit: {}\nspec: {}\n",
        crate::VERSION,
        crate::COMMIT,
        crate::SPEC_VERSION
    )
}

fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut text = Vec::new();
    let name = program_name();
    clap_complete::generate(shell, &mut Cli::command(), name, &mut text);
    print(&String::from_utf8_lossy(&text))
}

fn man(directory: &Path) -> Result<()> {
    let command = Cli::command().name(&*program_name().leak()).version(crate::VERSION);
    clap_mangen::generate_to(command, directory)
        .wrap(|| format!("write manual pages into {}", directory.display()))
}

/// The name under which we are installed, with its prefix.
fn program_name() -> String {
    let argv0 = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&argv0).file_name().and_then(|n| n.to_str()).unwrap_or("runtime");
    name.to_string()
}
