//! A stage's instructions with every variable expanded: what is left to do, and what it does to
//! the image's configuration.
//!
//! ENV, WORKDIR, USER and SHELL change how later instructions read, and only instructions change
//! them. So a whole stage is resolved before anything is executed, from the configuration of its
//! base alone: nothing here touches a file.

mod config;
mod transfer;

use imgtool::image::ImageConfig;

use crate::error::Result;
use crate::expand::{Env, Lexer};
use crate::parse::mount::MountSpec;
use crate::parse::{self, CommandLine, Instruction, Kind, Network, Place};
use crate::plan::{Plan, Source};
use crate::scope::Scope;

pub use transfer::{Inline, Transfer};

/// The search path of processes whose image sets none.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a stage starts from.
#[derive(Debug, Clone)]
pub struct Base {
    /// The configuration of the base.
    pub config: ImageConfig,
    /// The variables of the base, when it is a stage.
    pub scope: Scope,
}

/// A stage, resolved.
#[derive(Debug)]
pub struct Resolved {
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// The configuration after all steps; layers and history are still those of the base.
    pub config: ImageConfig,
    /// The variables at the end, for stages based on this one.
    pub scope: Scope,
}

/// One step.
#[derive(Debug)]
pub struct Step {
    /// Where its instruction stands.
    pub place: Place,
    /// The instruction on one line, for the log.
    pub title: String,
    /// The history entry's `created_by`.
    pub created_by: String,
    /// What to do.
    pub action: Action,
}

/// What a step does to the file system.
#[derive(Debug)]
pub enum Action {
    /// Nothing: it only changed the configuration.
    Configure,
    /// Executes a command.
    Run(Run),
    /// Copies files.
    Transfer(Transfer),
    /// Creates a directory, owned by `user`.
    Workdir {
        /// Absolute and clean.
        path: String,
        /// `USER` at this point.
        user: Option<String>,
    },
}

/// A command to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The whole argument vector, shell included.
    pub argv: Vec<String>,
    /// ENV, then ARGs that ENV does not override.
    pub env: Vec<String>,
    /// Proxy variables: in the environment, not in the cache key.
    pub proxies: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// `USER`, if any.
    pub user: Option<String>,
    /// `--network=`.
    pub network: Option<Network>,
    /// `--mount=` with the sources resolved.
    pub mounts: Vec<Mount>,
    /// A script from a here-document with `#!`: file name and content.
    pub script: Option<Inline>,
}

/// A `--mount`, expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The mount; its `target` is absolute.
    pub spec: MountSpec,
    /// What `from=` means; `None` is the build context.
    pub from: Option<Source>,
}

/// Resolves the stage `index` of `plan` on `base`.
pub fn resolve(plan: &Plan, index: usize, base: Base) -> Result<Resolved> {
    let stage = &plan.stages[index];
    let mut resolver = Resolver {
        plan,
        stage: index,
        config: base.config,
        scope: base.scope,
        cmd_is_set: false,
        steps: Vec::new(),
    };
    let env = resolver.config.env();
    resolver.scope.set_image_env(&env).map_err(|problem| plan.error(stage.place, problem))?;
    let triggers = resolver.config.onbuild();
    resolver.config.set_onbuild(&[]);
    for text in triggers {
        let trigger = parse::trigger(&plan.file, stage.place, &text)?;
        resolver.instruction(&trigger, "ONBUILD ")?;
    }
    for instruction in &stage.instructions {
        resolver.instruction(instruction, "")?;
    }
    Ok(Resolved { steps: resolver.steps, config: resolver.config, scope: resolver.scope })
}

struct Resolver<'a> {
    plan: &'a Plan,
    stage: usize,
    config: ImageConfig,
    scope: Scope,
    cmd_is_set: bool,
    steps: Vec<Step>,
}

/// What an instruction comes to: its history text and its action.
type Effect = std::result::Result<(String, Action), String>;

impl Resolver<'_> {
    fn instruction(&mut self, instruction: &Instruction, prefix: &str) -> Result<()> {
        let place = instruction.place;
        let effect = self.effect(&instruction.kind);
        let (created_by, action) = effect.map_err(|problem| self.plan.error(place, problem))?;
        self.steps.push(Step {
            place,
            title: format!("{prefix}{}", one_line(&instruction.source)),
            created_by,
            action,
        });
        Ok(())
    }

    fn effect(&mut self, kind: &Kind) -> Effect {
        match kind {
            Kind::Run(run) => self.run(run),
            Kind::Copy(transfer) => self.transfer(transfer, false),
            Kind::Add(transfer) => self.transfer(transfer, true),
            Kind::Workdir(path) => self.workdir(path),
            settings => Ok((self.configure(settings)?, Action::Configure)),
        }
    }

    fn expand(&self, text: &str) -> std::result::Result<String, String> {
        self.plan.lexer().text(text, &self.scope)
    }

    fn user(&self) -> Option<String> {
        self.config.user().map(str::to_owned)
    }

    fn cwd(&self) -> String {
        self.config.working_dir().unwrap_or("/").to_owned()
    }

    fn workdir(&mut self, path: &str) -> Effect {
        let path = self.expand(path)?;
        if path.is_empty() {
            return Err("WORKDIR is empty after expansion".into());
        }
        let path = absolute(&self.cwd(), &path);
        self.config.set_working_dir(&path);
        let user = self.user();
        Ok((format!("WORKDIR {path}"), Action::Workdir { path, user }))
    }

    /// The argument vector of a command line: shell form goes through SHELL.
    fn argv(&self, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(argv) => argv.clone(),
            CommandLine::Shell(text) => self.through_shell(text),
        }
    }

    fn through_shell(&self, text: &str) -> Vec<String> {
        let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
        let mut argv =
            self.config.shell().filter(|shell| !shell.is_empty()).unwrap_or_else(default);
        argv.push(text.to_owned());
        argv
    }

    fn run(&mut self, run: &parse::Run) -> Effect {
        let (argv, script) = self.script(run)?;
        let mut env = self.scope.image_env();
        env.extend(self.scope.run_args());
        if self.scope.get("PATH").is_none() {
            env.push(DEFAULT_PATH.to_owned());
        }
        let mounts: std::result::Result<Vec<_>, String> =
            run.mounts.iter().map(|spec| self.mount(spec)).collect();
        let args = self.scope.run_args();
        let noted = match args.len() {
            0 => String::new(),
            n => format!("|{n} {} ", args.join(" ")),
        };
        let created_by = format!("RUN {noted}{}", argv.join(" "));
        let action = Run {
            argv,
            env,
            proxies: self.plan.globals.proxies(),
            cwd: self.cwd(),
            user: self.user(),
            network: run.network,
            mounts: mounts?,
            script,
        };
        Ok((created_by, Action::Run(action)))
    }

    /// The command with its here-documents: one that is the whole command is the script itself,
    /// others are put back for the shell to read.
    fn script(
        &self,
        run: &parse::Run,
    ) -> std::result::Result<(Vec<String>, Option<Inline>), String> {
        let (CommandLine::Shell(text), Some(first)) = (&run.command, run.heredocs.first()) else {
            return Ok((self.argv(&run.command), None));
        };
        if parse::heredoc::parse(text).is_none() {
            let mut text = text.clone();
            for document in &run.heredocs {
                text += &format!("\n{}{}", document.body, document.name);
            }
            return Ok((self.through_shell(&text), None));
        }
        let content = first.content();
        if !content.starts_with("#!") {
            return Ok((self.through_shell(&content), None));
        }
        if first.name.contains('/') || first.name.starts_with('.') {
            return Err(format!("a script's delimiter can not be a path: {:?}", first.name));
        }
        let script = Inline { name: first.name.clone(), content };
        Ok((vec![format!("{SCRIPT_DIR}/{}", script.name)], Some(script)))
    }

    fn mount(&self, spec: &MountSpec) -> std::result::Result<Mount, String> {
        let mut spec = spec.clone();
        let fields = [&mut spec.source, &mut spec.target, &mut spec.id, &mut spec.env];
        for text in fields.into_iter().flatten() {
            *text = self.expand(text)?;
        }
        spec.target = spec.target.map(|target| absolute(&self.cwd(), &target));
        if spec.target.as_deref() == Some("/") {
            return Err("a mount can not cover the whole root: target is /".into());
        }
        Ok(Mount { from: self.from(spec.from.as_deref())?, spec })
    }

    fn from(&self, name: Option<&str>) -> std::result::Result<Option<Source>, String> {
        name.map(|name| self.plan.source(name, self.stage)).transpose()
    }
}

/// Where scripts of here-documents are mounted.
pub const SCRIPT_DIR: &str = "/dev/pipes";

/// The lexer of here-document bodies: quotes are text, and `\` always escapes.
fn body_lexer() -> Lexer {
    Lexer { ignore_quotes: true, ..Lexer::new('\\') }
}

/// `path` below `cwd`, absolute and lexically clean.
pub fn absolute(cwd: &str, path: &str) -> String {
    let whole = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{cwd}/{path}"),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn one_line(source: &str) -> String {
    source.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::absolute;

    #[test]
    fn paths_become_absolute_and_clean() {
        for (cwd, path, expected) in [
            ("/", "a", "/a"),
            ("/a", "b/../c/./d", "/a/c/d"),
            ("/a", "/x//y/", "/x/y"),
            ("/", "../..", "/"),
        ] {
            assert_eq!(absolute(cwd, path), expected);
        }
    }
}
