//! The instructions of a Dockerfile as types.

use std::time::Duration;

use super::Place;
use super::heredoc::Heredoc;
use super::mount::MountSpec;

/// One instruction and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// What it asks for.
    pub kind: Kind,
    /// Where it begins.
    pub place: Place,
    /// The instruction as written, continuation lines joined.
    pub source: String,
}

/// A command line in its shell or exec form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// Text for the shell of SHELL.
    Shell(String),
    /// A JSON array: executed as it is.
    Exec(Vec<String>),
}

/// `COPY` and `ADD`: sources, destination, flags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transfer {
    /// `--from=`: a stage name, a stage index, or an image.
    pub from: Option<String>,
    /// `--chown=USER[:GROUP]`.
    pub chown: Option<String>,
    /// `--chmod=MODE`, octal or symbolic.
    pub chmod: Option<String>,
    /// `--exclude=PATTERN`, each.
    pub exclude: Vec<String>,
    /// `--link`: the layer does not depend on what lies below it.
    pub link: bool,
    /// `--unpack=BOOL` of ADD.
    pub unpack: Option<bool>,
    /// Source paths, wildcards included.
    pub sources: Vec<String>,
    /// Here-documents, each one a file to create.
    pub files: Vec<Heredoc>,
    /// The destination as written.
    pub destination: String,
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: CommandLine,
    /// Here-documents of the shell form.
    pub heredocs: Vec<Heredoc>,
    /// `--mount=`, each.
    pub mounts: Vec<MountSpec>,
    /// `--network=`.
    pub network: Option<Network>,
}

/// `RUN --network=` and `build --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// The network of whoever runs the build.
    Host,
    /// A new network namespace with nothing but a loopback.
    None,
}

/// `HEALTHCHECK`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    pub test: Vec<String>,
    /// `--interval`.
    pub interval: Option<Duration>,
    /// `--timeout`.
    pub timeout: Option<Duration>,
    /// `--start-period`.
    pub start_period: Option<Duration>,
    /// `--start-interval`.
    pub start_interval: Option<Duration>,
    /// `--retries`.
    pub retries: Option<u32>,
}

/// `FROM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// `scratch`, an image, or an earlier stage; may hold variables.
    pub image: String,
    /// `AS name`, in lower case.
    pub name: Option<String>,
    /// `--platform=`.
    pub platform: Option<String>,
}

/// What an instruction asks for. Strings are as written: variables are expanded by the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `FROM image [AS name]`.
    From(From),
    /// `ARG name[=default] …`.
    Arg(Vec<(String, Option<String>)>),
    /// `ENV name=value …`.
    Env(Vec<(String, String)>),
    /// `LABEL name=value …`.
    Label(Vec<(String, String)>),
    /// `RUN …`.
    Run(Run),
    /// `COPY …`.
    Copy(Transfer),
    /// `ADD …`.
    Add(Transfer),
    /// `WORKDIR path`.
    Workdir(String),
    /// `USER name[:group]`.
    User(String),
    /// `EXPOSE port[/proto] …`.
    Expose(Vec<String>),
    /// `VOLUME path …`.
    Volume(Vec<String>),
    /// `CMD …`.
    Cmd(CommandLine),
    /// `ENTRYPOINT …`.
    Entrypoint(CommandLine),
    /// `SHELL ["program", …]`.
    Shell(Vec<String>),
    /// `STOPSIGNAL signal`.
    StopSignal(String),
    /// `HEALTHCHECK …`.
    Healthcheck(Healthcheck),
    /// `ONBUILD instruction`: the trigger's text, here-documents included.
    Onbuild(String),
    /// `MAINTAINER name`.
    Maintainer(String),
}
