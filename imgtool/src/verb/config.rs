//! `imgtool config`: an image with other settings.

use serde_json::json;

use crate::cli::Globals;
use crate::edit::{self, Draft};
use crate::error::Kind;
use crate::image::ImageConfig;
use crate::platform::Platform;
use crate::verb::target::Target;
use crate::{Error, Result};

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to make of which image.
    #[command(flatten)]
    target: Target,
    /// A comment for the image's history
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// Add no entry to the image's history
    #[arg(long)]
    no_history: bool,
    /// What changes.
    #[command(flatten, next_help_heading = "Settings")]
    edits: Edits,
}

/// Makes the image and prints its digest.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    if args.edits == Edits::default() {
        return Err(Error::usage("nothing to change: name a setting, such as --env KEY=VALUE"));
    }
    args.target.make(globals, "config", |store, image| {
        let mut draft = Draft::of(store, image)?;
        args.edits.apply(&mut draft)?;
        let created = edit::now()?;
        if args.edits.created.is_none() {
            draft.config.set_top("created", json!(created));
        }
        if !args.no_history {
            let by = "imgtool config";
            let mut entry = json!({"created": created, "created_by": by, "empty_layer": true});
            if let Some(message) = &args.message {
                entry["comment"] = json!(message);
            }
            draft.config.add_history(entry);
        }
        draft.finish()
    })
}

/// Changes of an image's settings. What is removed goes before what is added.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Edits {
    /// Set a variable of the environment
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Remove a variable
    #[arg(long, value_name = "KEY")]
    pub env_rm: Vec<String>,
    /// Set a label
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Remove a label
    #[arg(long, value_name = "KEY")]
    pub label_rm: Vec<String>,
    /// Set the command: a JSON list, or a line for the shell; an empty one removes it
    #[arg(long, value_name = "CMD")]
    pub cmd: Option<String>,
    /// Set the entry point, written like a command
    #[arg(long, value_name = "CMD")]
    pub entrypoint: Option<String>,
    /// Set the user; an empty one removes it, here and below
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Set the working directory
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Set the signal that stops the container
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Add an exposed port
    #[arg(long, value_name = "PORT[/PROTO]")]
    pub expose: Vec<String>,
    /// Remove an exposed port
    #[arg(long, value_name = "PORT[/PROTO]")]
    pub expose_rm: Vec<String>,
    /// Add a volume
    #[arg(long, value_name = "PATH")]
    pub volume: Vec<String>,
    /// Remove a volume
    #[arg(long, value_name = "PATH")]
    pub volume_rm: Vec<String>,
    /// Set the author
    #[arg(long, value_name = "NAME")]
    pub author: Option<String>,
    /// Set the time of creation, as RFC 3339 has it
    #[arg(long, value_name = "TIME")]
    pub created: Option<String>,
    /// Set the operating system
    #[arg(long, value_name = "OS")]
    pub os: Option<String>,
    /// Set the processor architecture
    #[arg(long, value_name = "ARCH")]
    pub architecture: Option<String>,
    /// Set an annotation of the manifest
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
    /// Remove an annotation
    #[arg(long, value_name = "KEY")]
    pub annotation_rm: Vec<String>,
    /// Change what an instruction of a Dockerfile says: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL,
    /// STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(long, short, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
}

impl Edits {
    /// Makes the changes.
    pub fn apply(&self, draft: &mut Draft<'_>) -> Result<()> {
        self.remove(draft)?;
        let config = &mut draft.config;
        for text in &self.env {
            set_env(config, text)?;
        }
        for text in &self.label {
            let (key, value) = pair("--label", text)?;
            config.set_label(key, value);
        }
        for port in &self.expose {
            config.add_exposed_port(&port_of(port)?);
        }
        self.volume.iter().try_for_each(|path| add_volume(config, path))?;
        if let Some(text) = &self.cmd {
            config.set_cmd(argv(text)?.as_deref());
        }
        if let Some(text) = &self.entrypoint {
            config.set_entrypoint(argv(text)?.as_deref());
        }
        self.texts(config)?;
        self.change.iter().try_for_each(|line| {
            instruction(config, line).map_err(|e| Error::usage(format!("--change {line:?}: {e}")))
        })?;
        for text in &self.annotation {
            let (key, value) = pair("--annotation", text)?;
            draft.annotate(key, Some(value));
        }
        Ok(())
    }

    /// That something to be removed is not there is an error: most likely it is misspelt.
    fn remove(&self, draft: &mut Draft<'_>) -> Result<()> {
        let config = &mut draft.config;
        let gone = |what: &str, key: &str| Error::new(format!("{what} {key}: the image has none"));
        for key in &self.env_rm {
            let env = config.env();
            let kept: Vec<String> = env.iter().filter(|v| name_of(v) != key).cloned().collect();
            if kept.len() == env.len() {
                return Err(gone("--env-rm", key));
            }
            config.set_env(&kept);
        }
        let ports = self.expose_rm.iter().map(|p| port_of(p)).collect::<Result<Vec<_>>>()?;
        for (flag, field, keys) in [
            ("--label-rm", "Labels", &self.label_rm),
            ("--expose-rm", "ExposedPorts", &ports),
            ("--volume-rm", "Volumes", &self.volume_rm),
        ] {
            for key in keys {
                if !config.remove_in(field, key) {
                    return Err(gone(flag, key));
                }
            }
        }
        self.annotation_rm.iter().for_each(|key| draft.annotate(key, None));
        Ok(())
    }

    fn texts(&self, config: &mut ImageConfig) -> Result<()> {
        if let Some(user) = &self.user {
            config.set_user(user);
        }
        if let Some(dir) = &self.workdir {
            set_workdir(config, dir)?;
        }
        if let Some(signal) = &self.stop_signal {
            config.set_stop_signal(signal);
        }
        if let Some(time) = &self.created {
            let utc = crate::time::normalize(time)
                .map_err(|e| Error::usage(format!("--created {time}: {e}")))?;
            config.set_top("created", json!(utc));
        }
        for (key, value) in
            [("author", &self.author), ("os", &self.os), ("architecture", &self.architecture)]
        {
            if let Some(value) = value {
                config.set_top(key, json!(value));
            }
        }
        if self.os.is_some() || self.architecture.is_some() {
            let platform = config.platform();
            Platform::parse(&format!("{}/{}", platform.os, platform.architecture))
                .map_err(|e| Error::with_kind(Kind::Usage, e.to_string()))?;
        }
        Ok(())
    }
}

fn name_of(variable: &str) -> &str {
    variable.split('=').next().unwrap_or_default()
}

fn pair<'t>(flag: &str, text: &'t str) -> Result<(&'t str, &'t str)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key, value)),
        _ => Err(Error::usage(format!("{flag} {text:?}: KEY=VALUE"))),
    }
}

/// Replaces a variable where it stands, or adds it at the end.
fn set_env(config: &mut ImageConfig, text: &str) -> Result<()> {
    let (key, _) = pair("--env", text)?;
    let mut env = config.env();
    match env.iter_mut().find(|v| name_of(v) == key) {
        Some(old) => *old = text.to_owned(),
        None => env.push(text.to_owned()),
    }
    config.set_env(&env);
    Ok(())
}

/// `80` or `80/tcp` as image-spec has it: `80/tcp`.
fn port_of(text: &str) -> Result<String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let known = matches!(protocol, "tcp" | "udp" | "sctp");
    match port.parse::<u16>() {
        Ok(1..) if known => Ok(format!("{port}/{protocol}")),
        _ => Err(Error::usage(format!("port {text:?}: PORT, PORT/tcp, PORT/udp or PORT/sctp"))),
    }
}

fn add_volume(config: &mut ImageConfig, path: &str) -> Result<()> {
    if !path.starts_with('/') {
        return Err(Error::usage(format!("volume {path:?}: an absolute path")));
    }
    config.add_volume(path);
    Ok(())
}

fn set_workdir(config: &mut ImageConfig, dir: &str) -> Result<()> {
    if !dir.is_empty() && !dir.starts_with('/') {
        return Err(Error::usage(format!("working directory {dir:?}: an absolute path")));
    }
    config.set_working_dir(dir);
    Ok(())
}

/// A command: a JSON list of its words, or a line for the shell.
fn argv(text: &str) -> Result<Option<Vec<String>>> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if !text.starts_with('[') {
        return Ok(Some(vec!["/bin/sh".into(), "-c".into(), text.to_owned()]));
    }
    serde_json::from_str(text)
        .map(Some)
        .map_err(|e| Error::usage(format!("{text}: not a JSON list of strings: {e}")))
}

/// One instruction, as in a Dockerfile, in the forms that need no shell to read.
fn instruction(config: &mut ImageConfig, line: &str) -> Result<()> {
    let line = line.trim();
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    if rest.is_empty() {
        return Err(Error::new("an instruction and what it says"));
    }
    match &name.to_ascii_uppercase()[..] {
        "CMD" => config.set_cmd(argv(rest)?.as_deref()),
        "ENTRYPOINT" => config.set_entrypoint(argv(rest)?.as_deref()),
        "USER" => config.set_user(rest),
        "WORKDIR" => set_workdir(config, rest)?,
        "STOPSIGNAL" => config.set_stop_signal(rest),
        "ENV" => match rest.split_once(char::is_whitespace) {
            // The old form: the first word is the name, the rest of the line the value.
            Some((key, value)) if !key.contains('=') => {
                set_env(config, &format!("{key}={}", value.trim()))?;
            }
            _ => words(rest)?.iter().try_for_each(|w| set_env(config, w))?,
        },
        "LABEL" => words(rest)?.iter().try_for_each(|word| {
            let (key, value) = pair("LABEL", word)?;
            config.set_label(key, value);
            Ok::<_, Error>(())
        })?,
        "EXPOSE" => words(rest)?.iter().try_for_each(|word| {
            config.add_exposed_port(&port_of(word)?);
            Ok::<_, Error>(())
        })?,
        "VOLUME" if rest.starts_with('[') => {
            let paths = argv(rest)?.unwrap_or_default();
            paths.iter().try_for_each(|path| add_volume(config, path))?;
        }
        "VOLUME" => words(rest)?.iter().try_for_each(|path| add_volume(config, path))?,
        _ => return Err(Error::new(format!("{name} is none of those that can be changed"))),
    }
    Ok(())
}

/// Words apart by blanks; quotes hold one together, a backslash takes the next character as it is.
fn words(text: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('\\', None | Some('"')) => {
                let next = chars.next().ok_or_else(|| Error::new("a backslash at the end"))?;
                word.get_or_insert_default().push(next);
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    match quote {
        Some(q) => Err(Error::new(format!("a {q} is never closed"))),
        None => {
            words.extend(word);
            Ok(words)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn changed(line: &str) -> Result<Value> {
        let mut config = ImageConfig::new(&Platform::host());
        config.set_env(&["A=1".to_owned(), "B=2".to_owned()]);
        instruction(&mut config, line)?;
        Ok(config.as_json()["config"].clone())
    }

    #[test]
    fn instructions_change_what_they_say() {
        for (line, field, value) in [
            ("CMD [\"a\", \"b c\"]", "Cmd", json!(["a", "b c"])),
            ("cmd a b", "Cmd", json!(["/bin/sh", "-c", "a b"])),
            ("ENTRYPOINT [\"/x\"]", "Entrypoint", json!(["/x"])),
            ("ENV A=3 C=\"4 5\"", "Env", json!(["A=3", "B=2", "C=4 5"])),
            ("ENV A 3 4", "Env", json!(["A=3 4", "B=2"])),
            ("LABEL x='y z' q=", "Labels", json!({"x": "y z", "q": ""})),
            ("EXPOSE 80 53/udp", "ExposedPorts", json!({"80/tcp": {}, "53/udp": {}})),
            ("VOLUME /a /b", "Volumes", json!({"/a": {}, "/b": {}})),
            ("VOLUME [\"/a b\"]", "Volumes", json!({"/a b": {}})),
            ("USER 7:8", "User", json!("7:8")),
            ("WORKDIR /w", "WorkingDir", json!("/w")),
            ("STOPSIGNAL SIGINT", "StopSignal", json!("SIGINT")),
        ] {
            assert_eq!(changed(line).unwrap()[field], value, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_changed_is_refused() {
        for line in [
            "RUN x",
            "CMD",
            "",
            "EXPOSE 0",
            "EXPOSE 80/x",
            "EXPOSE 70000",
            "VOLUME a",
            "WORKDIR a",
            "ENV =x",
            "LABEL x",
            "CMD [1]",
            "CMD [",
            "ENV A=\"x",
            "LABEL a=b\\",
        ] {
            assert!(changed(line).is_err(), "{line}");
        }
    }
}
