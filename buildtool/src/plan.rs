//! A Dockerfile's stages, what each is based on, and which of them a build needs.
//!
//! Everything here follows from the text and the command line alone. What depends on the base
//! images (their environment, their ONBUILD triggers) is `steps`.

use std::collections::BTreeMap;

use imgtool::platform::Platform;
use imgtool::reference::Reference;

use crate::error::{Error, Result};
use crate::expand::Lexer;
use crate::parse::{Directives, Dockerfile, From, Instruction, Kind, Place, suggest};
use crate::scope::Globals;

/// Where a stage begins, or where COPY takes its files from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nothing at all.
    Scratch,
    /// An image.
    Image(Reference),
    /// An earlier stage.
    Stage(usize),
}

/// One stage.
#[derive(Debug)]
pub struct Stage {
    /// `AS name`.
    pub name: Option<String>,
    /// What it is based on.
    pub base: Source,
    /// The platform of the base image.
    pub platform: Platform,
    /// Its instructions after FROM.
    pub instructions: Vec<Instruction>,
    /// Where its FROM stands.
    pub place: Place,
    /// Its FROM as written.
    pub source: String,
}

/// What a build will do.
#[derive(Debug)]
pub struct Plan {
    /// The file's name, for messages.
    pub file: String,
    /// The file's directives.
    pub directives: Directives,
    /// All stages in the file's order.
    pub stages: Vec<Stage>,
    /// The stage that becomes the image.
    pub target: usize,
    /// Variables which all stages share.
    pub globals: Globals,
    /// What deserves a word to the user.
    pub warnings: Vec<String>,
}

/// What the command line says about the plan.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--target`: a stage's name or index.
    pub target: Option<String>,
    /// `--platform`.
    pub platform: Option<Platform>,
}

/// Plans a build of `file`.
pub fn plan(file: Dockerfile, options: &Options) -> Result<Plan> {
    let host = Platform::host();
    let target = options.platform.clone().unwrap_or_else(|| host.clone());
    let mut plan = Plan {
        globals: Globals::new(options.build_args.clone(), &host, &target),
        file: file.name,
        directives: file.directives,
        stages: Vec::new(),
        target: 0,
        warnings: file.warnings,
    };
    for instruction in file.instructions {
        plan.add(instruction, &target)?;
    }
    if plan.stages.is_empty() {
        return Err(Error::new(format!(
            "{}:1:1: no build stage: a Dockerfile needs a FROM",
            plan.file
        )));
    }
    plan.target = plan.find_target(options.target.as_deref())?;
    plan.check_sources()?;
    Ok(plan)
}

impl Plan {
    /// An error at `place` of the Dockerfile.
    pub fn error(&self, place: Place, message: impl std::fmt::Display) -> Error {
        Error::new(format!("{}:{place}: {message}", self.file))
    }

    /// The lexer of this file's arguments.
    pub fn lexer(&self) -> Lexer {
        Lexer::new(self.directives.escape)
    }

    fn add(&mut self, instruction: Instruction, target: &Platform) -> Result<()> {
        let lexer = self.lexer();
        let place = instruction.place;
        match (&instruction.kind, self.stages.last_mut()) {
            (Kind::From(from), _) => {
                let stage = self.stage(from, &instruction, target)?;
                self.stages.push(stage);
            }
            (_, Some(stage)) => stage.instructions.push(instruction),
            (Kind::Arg(pairs), None) => {
                for (name, default) in pairs {
                    let declared = self.globals.declare(name, default.as_deref(), &lexer);
                    declared.map_err(|problem| self.error(place, problem))?;
                }
            }
            (_, None) => {
                return Err(self
                    .error(place, "no build stage yet: only ARG may stand before the first FROM"));
            }
        }
        Ok(())
    }

    fn stage(
        &mut self,
        from: &From,
        instruction: &Instruction,
        target: &Platform,
    ) -> Result<Stage> {
        let place = instruction.place;
        let expand = |text: &str| {
            let expanded = self.lexer().text(text, &self.globals);
            expanded.map_err(|problem| self.error(place, problem))
        };
        let image = expand(&from.image)?;
        if image.is_empty() {
            let message = format!("base name ({}) should not be blank", from.image);
            return Err(self.error(place, message));
        }
        let platform = match &from.platform {
            None => target.clone(),
            Some(text) => {
                Platform::parse(&expand(text)?).map_err(|error| self.error(place, error))?
            }
        };
        let stage = Stage {
            base: self.base(&image).map_err(|problem| self.error(place, problem))?,
            name: from.name.clone(),
            platform,
            instructions: Vec::new(),
            place,
            source: instruction.source.clone(),
        };
        if let Some(name) = &from.name
            && self.stages.iter().any(|stage| stage.name.as_ref() == Some(name))
        {
            self.warnings.push(format!(
                "{}:{place}: duplicate stage name {name:?}: the latest one counts",
                self.file
            ));
        }
        Ok(stage)
    }

    fn base(&self, name: &str) -> std::result::Result<Source, String> {
        if name == "scratch" {
            return Ok(Source::Scratch);
        }
        match self.named(name, self.stages.len()) {
            Some(index) => Ok(Source::Stage(index)),
            None => image(name),
        }
    }

    /// The latest stage called `name` among the first `before`.
    fn named(&self, name: &str, before: usize) -> Option<usize> {
        let name = name.to_lowercase();
        (0..before).rev().find(|index| self.stages[*index].name.as_deref() == Some(&name))
    }

    /// What `--from=name` means in stage `stage`: a stage's name or index, else an image. The
    /// error does not say where.
    pub fn source(&self, name: &str, stage: usize) -> std::result::Result<Source, String> {
        if let Some(index) = self.named(name, stage) {
            return Ok(Source::Stage(index));
        }
        match name.parse::<usize>() {
            Ok(index) if index < stage => return Ok(Source::Stage(index)),
            Ok(index) => {
                return Err(format!(
                    "--from={index}: no stage of that index stands before this one"
                ));
            }
            Err(_) => {}
        }
        match self.named(name, self.stages.len()) {
            Some(_) => Err(format!("--from={name}: the stage needs to be defined before this one")),
            None => image(name),
        }
    }

    fn find_target(&self, name: Option<&str>) -> Result<usize> {
        let Some(name) = name else {
            return Ok(self.stages.len() - 1);
        };
        if let Some(index) = self.named(name, self.stages.len()) {
            return Ok(index);
        }
        match name.parse::<usize>() {
            Ok(index) if index < self.stages.len() => Ok(index),
            _ => {
                let names: Vec<&str> =
                    self.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
                let message = format!("{}: target stage {name:?} could not be found", self.file);
                Err(Error::new(suggest::append(message, name, &names)))
            }
        }
    }

    /// Every `--from` in the file must mean something, also in stages that are not needed.
    fn check_sources(&self) -> Result<()> {
        for (index, stage) in self.stages.iter().enumerate() {
            for instruction in &stage.instructions {
                for name in froms(&instruction.kind) {
                    let source = self.source(name, index);
                    source.map_err(|problem| self.error(instruction.place, problem))?;
                }
            }
        }
        Ok(())
    }

    /// Which stages the target needs. (ONBUILD triggers of base images may add more.)
    pub fn needed(&self) -> Vec<bool> {
        let mut needed = vec![false; self.stages.len()];
        needed[self.target] = true;
        for index in (0..=self.target).rev() {
            if !needed[index] {
                continue;
            }
            for source in self.sources_of(index) {
                if let Source::Stage(source) = source {
                    needed[source] = true;
                }
            }
        }
        needed
    }

    fn sources_of(&self, index: usize) -> Vec<Source> {
        let stage = &self.stages[index];
        let copied = stage.instructions.iter().flat_map(|instruction| {
            let names = froms(&instruction.kind).into_iter();
            names.filter_map(|name| self.source(name, index).ok())
        });
        std::iter::once(stage.base.clone()).chain(copied).collect()
    }
}

fn image(name: &str) -> std::result::Result<Source, String> {
    Reference::parse(name).map(Source::Image).map_err(|error| error.to_string())
}

/// The `--from` names of one instruction.
fn froms(kind: &Kind) -> Vec<&str> {
    match kind {
        Kind::Copy(transfer) => transfer.from.as_deref().into_iter().collect(),
        Kind::Run(run) => run.mounts.iter().filter_map(|mount| mount.from.as_deref()).collect(),
        _ => Vec::new(),
    }
}
