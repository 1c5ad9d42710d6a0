//! Words to typed instructions: one function per instruction.

use std::time::Duration;

use super::flags::{At, Flags, Takes};
use super::heredoc;
use super::instruction::{
    CommandLine, From, Healthcheck, Instruction, Kind, Network, Run, Transfer,
};
use super::lines::Line;
use super::words::{self, Command, Word};
use super::{mount, suggest};

/// The names of all instructions.
pub const NAMES: &[&str] = &[
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

const FROM: &[(&str, Takes)] = &[("platform", Takes::Value)];
const RUN: &[(&str, Takes)] = &[
    ("mount", Takes::Values),
    ("network", Takes::Value),
    ("security", Takes::Unsupported),
    ("device", Takes::Unsupported),
];
const COPY: &[(&str, Takes)] = &[
    ("from", Takes::Value),
    ("chown", Takes::Value),
    ("chmod", Takes::Value),
    ("exclude", Takes::Values),
    ("link", Takes::Bool),
    ("parents", Takes::Unsupported),
];
const ADD: &[(&str, Takes)] = &[
    ("chown", Takes::Value),
    ("chmod", Takes::Value),
    ("exclude", Takes::Values),
    ("unpack", Takes::Bool),
    ("link", Takes::Bool),
    ("keep-git-dir", Takes::Unsupported),
    ("checksum", Takes::Unsupported),
];
const HEALTHCHECK: &[(&str, Takes)] = &[
    ("interval", Takes::Value),
    ("timeout", Takes::Value),
    ("start-period", Takes::Value),
    ("start-interval", Takes::Value),
    ("retries", Takes::Value),
];

/// One instruction at work.
struct Request<'a> {
    name: &'static str,
    line: &'a Line,
    command: Command<'a>,
    escape: char,
}

/// Types one logical line.
pub fn instruction(line: &Line, escape: char) -> Result<Instruction, At> {
    Ok(Instruction {
        kind: kind(line, 0, escape)?,
        place: line.place(0),
        source: line.text.trim_end().to_owned(),
    })
}

/// The instruction that begins at byte `from` of `line`.
fn kind(line: &Line, from: usize, escape: char) -> Result<Kind, At> {
    let command = words::command(&line.text, from, escape);
    let upper = command.name.text.to_ascii_uppercase();
    let Some(name) = NAMES.iter().find(|name| **name == upper) else {
        let message = format!("unknown instruction: {}", command.name.text);
        return Err((command.name.at, suggest::append(message, &upper, NAMES)));
    };
    let request = Request { name, line, command, escape };
    match *name {
        "FROM" => request.from(),
        "ARG" => request.arg(),
        "ENV" => request.pairs().map(Kind::Env),
        "LABEL" => request.pairs().map(Kind::Label),
        "RUN" => request.run(),
        "COPY" => request.transfer(COPY).map(Kind::Copy),
        "ADD" => request.transfer(ADD).map(Kind::Add),
        "WORKDIR" => request.one().map(Kind::Workdir),
        "USER" => request.one().map(Kind::User),
        "STOPSIGNAL" => request.one().map(Kind::StopSignal),
        "MAINTAINER" => request.one().map(Kind::Maintainer),
        "EXPOSE" => request.expose(),
        "VOLUME" => request.volume(),
        "CMD" => request.command_line().map(Kind::Cmd),
        "ENTRYPOINT" => request.command_line().map(Kind::Entrypoint),
        "SHELL" => request.shell(),
        "HEALTHCHECK" => request.healthcheck(),
        _ => request.onbuild(),
    }
}

impl Request<'_> {
    fn flags(&self, table: &[(&'static str, Takes)]) -> Result<Flags, At> {
        Flags::parse(self.name, &self.command.flags, table)
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, At> {
        Err((self.command.rest_at.min(self.line.text.len()), message.into()))
    }

    fn json(&self, rest: &str) -> Result<Option<Vec<String>>, At> {
        words::json(rest).map_err(|message| (self.command.rest_at, message))
    }

    fn at_least_one<T>(&self) -> Result<T, At> {
        self.error(format!("{} requires at least one argument", self.name))
    }

    /// Words at white space, or the strings of a JSON array.
    fn list(&self) -> Result<Vec<Word>, At> {
        let at = self.command.rest_at;
        let json = self.json(self.command.rest)?;
        Ok(match json {
            Some(strings) => strings.into_iter().map(|text| Word { text, at }).collect(),
            None => words::plain(self.command.rest, at),
        })
    }

    fn one(&self) -> Result<String, At> {
        self.flags(&[])?;
        if self.command.rest.is_empty() {
            return self.error(format!("{} requires exactly one argument", self.name));
        }
        Ok(self.command.rest.to_owned())
    }

    fn from(&self) -> Result<Kind, At> {
        let flags = self.flags(FROM)?;
        let words = words::plain(self.command.rest, self.command.rest_at);
        let (image, name) = match words.as_slice() {
            [image] => (image, None),
            [image, keyword, name] if keyword.text.eq_ignore_ascii_case("as") => {
                (image, Some(stage_name(name)?))
            }
            [_, keyword, _] => {
                return Err((keyword.at, format!("expected AS, found {:?}", keyword.text)));
            }
            _ => return self.error("FROM requires either one or three arguments"),
        };
        Ok(Kind::From(From { image: image.text.clone(), name, platform: flags.value("platform") }))
    }

    fn arg(&self) -> Result<Kind, At> {
        self.flags(&[])?;
        let words = words::quoted(self.command.rest, self.command.rest_at, self.escape);
        if words.is_empty() {
            return self.at_least_one();
        }
        let pair = |word: Word| match word.text.split_once('=') {
            Some(("", _)) => Err((word.at, "ARG names can not be blank".to_owned())),
            Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
            None => Ok((word.text, None)),
        };
        words.into_iter().map(pair).collect::<Result<_, _>>().map(Kind::Arg)
    }

    /// `NAME value…`, or `NAME=value NAME=value …`.
    fn pairs(&self) -> Result<Vec<(String, String)>, At> {
        self.flags(&[])?;
        let words = words::quoted(self.command.rest, self.command.rest_at, self.escape);
        let Some(first) = words.first() else {
            return self.at_least_one();
        };
        if !first.text.contains('=') {
            return match self.command.rest.split_once(char::is_whitespace) {
                Some((name, value)) => Ok(vec![(name.to_owned(), value.trim_start().to_owned())]),
                None => self.error(format!("{} must have two arguments", self.name)),
            };
        }
        let pair = |word: Word| match word.text.split_once('=') {
            Some(("", _)) => Err((word.at, format!("{} names can not be blank", self.name))),
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err((
                word.at,
                format!("can't find = in {:?}: it must be of the form name=value", word.text),
            )),
        };
        words.into_iter().map(pair).collect()
    }

    fn run(&self) -> Result<Kind, At> {
        let flags = self.flags(RUN)?;
        let network = match flags.values("network").next() {
            None | Some(("default", _)) => None,
            Some(("host", _)) => Some(Network::Host),
            Some(("none", _)) => Some(Network::None),
            Some((other, at)) => {
                let message = format!("unsupported network mode {other:?}");
                return Err((at, suggest::append(message, other, &["default", "host", "none"])));
            }
        };
        let mounts: Result<Vec<_>, At> = flags
            .values("mount")
            .map(|(text, at)| mount::parse(text).map_err(|message| (at, message)))
            .collect();
        let mounts = mounts?;
        Ok(Kind::Run(Run {
            command: self.words_of_command(self.command.rest)?,
            heredocs: self.line.heredocs.clone(),
            mounts,
            network,
        }))
    }

    fn command_line(&self) -> Result<CommandLine, At> {
        self.flags(&[])?;
        self.words_of_command(self.command.rest)
    }

    fn words_of_command(&self, rest: &str) -> Result<CommandLine, At> {
        match self.json(rest)? {
            Some(words) if words.is_empty() && self.name == "RUN" => self.at_least_one(),
            Some(words) => Ok(CommandLine::Exec(words)),
            None if rest.is_empty() => self.at_least_one(),
            None => Ok(CommandLine::Shell(rest.to_owned())),
        }
    }

    fn transfer(&self, table: &[(&'static str, Takes)]) -> Result<Transfer, At> {
        let flags = self.flags(table)?;
        let mut words = self.list()?;
        let (true, Some(destination)) = (words.len() >= 2, words.pop()) else {
            return self.error(format!(
                "{} requires at least two arguments: sources, then a destination",
                self.name
            ));
        };
        if heredoc::parse(&destination.text).is_some() {
            return Err((
                destination.at,
                format!("{} cannot accept a heredoc as a destination", self.name),
            ));
        }
        let mut transfer = Transfer {
            from: flags.value("from"),
            chown: flags.value("chown"),
            chmod: flags.value("chmod"),
            exclude: flags.values("exclude").map(|(pattern, _)| pattern.to_owned()).collect(),
            link: flags.is_true("link"),
            unpack: flags.value("unpack").map(|value| value == "true"),
            destination: destination.text,
            ..Transfer::default()
        };
        for word in words {
            match self.heredoc(&word) {
                Some(document) => transfer.files.push(document),
                None => transfer.sources.push(self.source(word)?),
            }
        }
        Ok(transfer)
    }

    fn heredoc(&self, word: &Word) -> Option<heredoc::Heredoc> {
        let name = heredoc::parse(&word.text)?.name;
        self.line.heredocs.iter().find(|document| document.name == name).cloned()
    }

    /// A local source; remote ones are refused by name.
    fn source(&self, word: Word) -> Result<String, At> {
        let remote = ["http://", "https://", "git://", "git@", "ssh://"];
        if !remote.iter().any(|scheme| word.text.starts_with(scheme)) {
            return Ok(word.text);
        }
        Err((word.at, match self.name {
            "ADD" => "ADD from a URL or Git repository is not supported by this version: fetch it with RUN".into(),
            _ => format!("source can't be a URL for {}", self.name),
        }))
    }

    fn expose(&self) -> Result<Kind, At> {
        self.flags(&[])?;
        let ports = words::plain(self.command.rest, self.command.rest_at);
        if ports.is_empty() {
            return self.at_least_one();
        }
        Ok(Kind::Expose(ports.into_iter().map(|word| word.text).collect()))
    }

    fn volume(&self) -> Result<Kind, At> {
        self.flags(&[])?;
        let paths: Vec<String> =
            self.list()?.into_iter().map(|word| word.text.trim().to_owned()).collect();
        if paths.is_empty() {
            return self.at_least_one();
        }
        if paths.iter().any(String::is_empty) {
            return self.error("VOLUME specified can not be an empty string");
        }
        Ok(Kind::Volume(paths))
    }

    fn shell(&self) -> Result<Kind, At> {
        self.flags(&[])?;
        match self.json(self.command.rest)? {
            Some(words) if words.is_empty() => self.at_least_one(),
            Some(words) => Ok(Kind::Shell(words)),
            None => self.error("SHELL requires the arguments to be in JSON form: SHELL [\"program\", \"argument\"]"),
        }
    }

    fn healthcheck(&self) -> Result<Kind, At> {
        let rest = self.command.rest;
        let (kind, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        match kind.to_ascii_uppercase().as_str() {
            "" => self.at_least_one(),
            "NONE" => {
                self.flags(&[])?;
                if !arguments.trim().is_empty() {
                    return self.error("HEALTHCHECK NONE takes no arguments");
                }
                let test = vec!["NONE".to_owned()];
                Ok(Kind::Healthcheck(Healthcheck { test, ..Healthcheck::default() }))
            }
            "CMD" => self.health_command(arguments.trim_start()).map(Kind::Healthcheck),
            other => self.error(format!("unknown type {other:?} in HEALTHCHECK (try CMD or NONE)")),
        }
    }

    fn health_command(&self, arguments: &str) -> Result<Healthcheck, At> {
        let flags = self.flags(HEALTHCHECK)?;
        let test = match self.words_of_command(arguments) {
            Ok(CommandLine::Exec(words)) if !words.is_empty() => {
                std::iter::once("CMD".to_owned()).chain(words).collect()
            }
            Ok(CommandLine::Shell(text)) => vec!["CMD-SHELL".to_owned(), text],
            _ => return self.error("missing command after HEALTHCHECK CMD"),
        };
        let time = |name: &'static str| match flags.values(name).next() {
            None => Ok(None),
            Some((text, at)) => interval(name, text).map_err(|message| (at, message)),
        };
        let retries = match flags.values("retries").next() {
            None => None,
            Some((text, at)) => Some(
                text.parse()
                    .map_err(|_| (at, format!("--retries must be a whole number, not {text:?}")))?,
            ),
        };
        Ok(Healthcheck {
            test,
            interval: time("interval")?,
            timeout: time("timeout")?,
            start_period: time("start-period")?,
            start_interval: time("start-interval")?,
            retries,
        })
    }

    fn onbuild(&self) -> Result<Kind, At> {
        self.flags(&[])?;
        if self.command.rest.is_empty() {
            return self.at_least_one();
        }
        match kind(self.line, self.command.rest_at, self.escape)? {
            Kind::Onbuild(_) => {
                return self.error("chaining ONBUILD via ONBUILD ONBUILD isn't allowed");
            }
            Kind::From(_) => return self.error("FROM isn't allowed as an ONBUILD trigger"),
            Kind::Maintainer(_) => {
                return self.error("MAINTAINER isn't allowed as an ONBUILD trigger");
            }
            _ => {}
        }
        let mut text = self.command.rest.to_owned();
        for document in &self.line.heredocs {
            text += &format!("\n{}{}", document.body, document.name);
        }
        Ok(Kind::Onbuild(text))
    }
}

fn stage_name(word: &Word) -> Result<String, At> {
    let name = word.text.to_lowercase();
    let valid = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
    if !valid {
        let message = format!(
            "invalid name for build stage: {:?}, name can't start with a number or contain symbols",
            word.text
        );
        return Err((word.at, message));
    }
    Ok(name)
}

/// A Go duration of at least a millisecond; zero means the default.
fn interval(name: &str, text: &str) -> Result<Option<Duration>, String> {
    let duration = duration(text)
        .ok_or(format!("--{name}: invalid duration {text:?} (examples: 30s, 1m30s, 500ms)"))?;
    if !duration.is_zero() && duration < Duration::from_millis(1) {
        return Err(format!("--{name} cannot be less than 1ms"));
    }
    Ok((!duration.is_zero()).then_some(duration))
}

/// Go's duration grammar without a sign: numbers with fractions, each with its unit.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number * seconds).ok()?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}
