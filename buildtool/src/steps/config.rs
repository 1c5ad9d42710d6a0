//! Instructions which only change the image's configuration.

use serde_json::{Map, Value, json};

use super::Resolver;
use crate::parse::{CommandLine, Healthcheck, Kind};

type History = Result<String, String>;

impl Resolver<'_> {
    /// Applies `kind` and returns its history text.
    pub(super) fn configure(&mut self, kind: &Kind) -> History {
        match kind {
            Kind::Arg(pairs) => self.arg(pairs),
            Kind::Env(pairs) => self.env(pairs),
            Kind::Label(pairs) => self.label(pairs),
            Kind::User(user) => self.set_user(user),
            Kind::Expose(ports) => self.expose(ports),
            Kind::Volume(paths) => self.volume(paths),
            Kind::Cmd(command) => Ok(self.cmd(command)),
            Kind::Entrypoint(command) => Ok(self.entrypoint(command)),
            Kind::Shell(argv) => {
                self.config.set_shell(Some(argv));
                Ok(format!("SHELL {}", json!(argv)))
            }
            Kind::StopSignal(signal) => self.stop_signal(signal),
            Kind::Healthcheck(check) => Ok(self.healthcheck(check)),
            Kind::Onbuild(text) => {
                let mut triggers = self.config.onbuild();
                triggers.push(text.clone());
                self.config.set_onbuild(&triggers);
                Ok(format!("ONBUILD {text}"))
            }
            Kind::Maintainer(name) => {
                self.config.set_top("author", json!(name));
                Ok(format!("MAINTAINER {name}"))
            }
            Kind::From(_) | Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_) => {
                Err("not an instruction of a stage's configuration".into())
            }
        }
    }

    fn arg(&mut self, pairs: &[(String, Option<String>)]) -> History {
        let lexer = self.plan.lexer();
        let mut text = String::from("ARG");
        for (name, default) in pairs {
            let value = self.scope.declare(&self.plan.globals, name, default.as_deref(), &lexer)?;
            text += &match value {
                Some(value) => format!(" {name}={value}"),
                None => format!(" {name}"),
            };
        }
        Ok(text)
    }

    /// All values of one ENV are expanded before any of them is set.
    fn env(&mut self, pairs: &[(String, String)]) -> History {
        let expanded = self.pairs(pairs)?;
        for (name, value) in &expanded {
            if name.is_empty() || name.contains('=') {
                return Err(format!("ENV name {name:?} is not a variable name"));
            }
            self.scope.set_env(name, value);
        }
        self.config.set_env(&self.scope.image_env());
        Ok(listed("ENV", &expanded))
    }

    fn label(&mut self, pairs: &[(String, String)]) -> History {
        let expanded = self.pairs(pairs)?;
        for (name, value) in &expanded {
            self.config.set_label(name, value);
        }
        Ok(listed("LABEL", &expanded))
    }

    fn pairs(&self, pairs: &[(String, String)]) -> Result<Vec<(String, String)>, String> {
        pairs.iter().map(|(name, value)| Ok((self.expand(name)?, self.expand(value)?))).collect()
    }

    fn set_user(&mut self, user: &str) -> History {
        let user = self.expand(user)?;
        if user.is_empty() {
            return Err("USER is empty after expansion".into());
        }
        self.config.set_user(&user);
        Ok(format!("USER {user}"))
    }

    fn expose(&mut self, ports: &[String]) -> History {
        let mut words = Vec::new();
        for text in ports {
            words.extend(self.plan.lexer().expand(text, &self.scope)?.words);
        }
        let mut ports = Vec::new();
        for word in words {
            ports.extend(parse_port(&word)?);
        }
        ports.sort();
        ports.iter().for_each(|port| self.config.add_exposed_port(port));
        Ok(format!("EXPOSE {}", ports.join(" ")))
    }

    fn volume(&mut self, paths: &[String]) -> History {
        let mut listed = Vec::new();
        for path in paths {
            let path = self.expand(path)?;
            if path.is_empty() {
                return Err("VOLUME is empty after expansion".into());
            }
            self.config.add_volume(&path);
            listed.push(path);
        }
        Ok(format!("VOLUME {}", json!(listed)))
    }

    fn cmd(&mut self, command: &CommandLine) -> String {
        let argv = self.argv(command);
        self.config.set_cmd(Some(&argv));
        self.cmd_is_set = true;
        format!("CMD {}", json!(argv))
    }

    /// ENTRYPOINT drops a CMD that came with the base image.
    fn entrypoint(&mut self, command: &CommandLine) -> String {
        let argv = self.argv(command);
        self.config.set_entrypoint((!argv.is_empty()).then_some(argv.as_slice()));
        if !self.cmd_is_set {
            self.config.set_cmd(None);
        }
        format!("ENTRYPOINT {}", json!(argv))
    }

    fn stop_signal(&mut self, signal: &str) -> History {
        let signal = self.expand(signal)?;
        if !is_signal(&signal) {
            return Err(format!(
                "invalid signal {signal:?}: expected a name such as SIGTERM or a number"
            ));
        }
        self.config.set_stop_signal(&signal);
        Ok(format!("STOPSIGNAL {signal}"))
    }

    fn healthcheck(&mut self, check: &Healthcheck) -> String {
        let mut fields = Map::new();
        fields.insert("Test".into(), json!(check.test));
        let durations = [
            ("Interval", check.interval),
            ("Timeout", check.timeout),
            ("StartPeriod", check.start_period),
            ("StartInterval", check.start_interval),
        ];
        for (name, duration) in durations {
            if let Some(duration) = duration {
                fields.insert(name.into(), json!(duration.as_nanos() as u64));
            }
        }
        if let Some(retries) = check.retries.filter(|retries| *retries > 0) {
            fields.insert("Retries".into(), json!(retries));
        }
        let fields = Value::Object(fields);
        let text = format!("HEALTHCHECK {fields}");
        self.config.set_healthcheck(Some(fields));
        text
    }
}

fn listed(name: &str, pairs: &[(String, String)]) -> String {
    pairs.iter().fold(name.to_owned(), |text, (key, value)| format!("{text} {key}={value}"))
}

/// `80`, `80/udp`, `8000-8002/tcp`: each port with its protocol.
fn parse_port(text: &str) -> Result<Vec<String>, String> {
    let invalid =
        || format!("invalid port {text:?}: expected PORT, PORT/tcp, PORT/udp or FIRST-LAST");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!(
            "invalid protocol {protocol:?} in {text:?}: expected tcp, udp or sctp"
        ));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => {
            Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
        }
        _ => Err(invalid()),
    }
}

const SIGNALS: &[&str] = &[
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV",
    "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN",
    "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "POLL", "PWR", "SYS", "RTMIN",
    "RTMAX",
];

fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |base: &str, sign: char| {
        name.strip_prefix(base)
            .and_then(|rest| rest.strip_prefix(sign))
            .and_then(|n| n.parse::<u8>().ok())
            .is_some_and(|n| n <= 30)
    };
    SIGNALS.contains(&name) || offset("RTMIN", '+') || offset("RTMAX", '-')
}
