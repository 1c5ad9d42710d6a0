//! Executes a plan: stage by stage, step by step, each one's layer from the cache or made anew.
//!
//! A stage is built when something needs it, so what nothing needs is never built. Every layer
//! enters the store before the next step begins, and the next step sees it as it was stored:
//! a build that found it in the cache and one that made it go on from the same tree.

mod archive;
mod base;
mod bind;
mod run;
pub mod secret;
mod transfer;
mod view;

use std::path::PathBuf;
use std::rc::Rc;

use imgtool::descriptor::Descriptor;
use imgtool::image::{ImageConfig, format_time};
use imgtool::platform::Platform;
use imgtool::store::Store;
use serde_json::json;

use crate::cache::{Cache, Key, Record};
use crate::dockerignore::Ignore;
use crate::error::{Context as _, Result};
use crate::files::tree::Tree;
use crate::log::Log;
use crate::parse::Network;
use crate::plan::{Plan, Source};
use crate::sandbox::check_stopped;
use crate::scope::Scope;
use crate::steps::{self, Action, Base, DEFAULT_PATH, Step};
use crate::workspace::Workspace;

/// The time of everything that a build makes, unless `SOURCE_DATE_EPOCH` says otherwise:
/// 1980-01-01, the earliest that zip archives can express.
pub const DEFAULT_EPOCH: i64 = 315_532_800;

/// The configuration of `FROM scratch`: nothing but a search path.
pub fn scratch(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig::new(platform);
    config.set_env(&[DEFAULT_PATH.to_owned()]);
    config
}

/// How to build.
pub struct Options {
    /// Execute every step.
    pub no_cache: bool,
    /// Pull base images also when the store has them.
    pub pull: bool,
    /// Network of RUN.
    pub network: Network,
    /// Secrets for RUN.
    pub secrets: Vec<secret::Secret>,
    /// The OCI runtime.
    pub runtime: PathBuf,
    /// The program that pulls images.
    pub imgtool: PathBuf,
    /// The time of everything new.
    pub epoch: i64,
}

/// The build context.
pub struct Context {
    /// Its directory.
    pub tree: Rc<Tree>,
    /// Its `.dockerignore`.
    pub ignore: Ignore,
}

/// A file system in the making, or made: an image without a manifest.
#[derive(Debug, Clone)]
pub struct State {
    /// Its configuration, with the diffIDs of `layers`.
    pub config: ImageConfig,
    /// Its layers, bottom first.
    pub layers: Vec<Descriptor>,
}

/// A finished stage.
#[derive(Debug)]
pub struct Stage {
    /// What it made.
    pub state: State,
    scope: Scope,
}

/// One build at work.
pub struct Builder<'a> {
    /// What to build.
    pub plan: &'a Plan,
    /// Where layers and images are.
    pub store: &'a Store,
    /// What earlier builds made.
    pub cache: &'a Cache,
    /// How to build.
    pub options: &'a Options,
    /// Where to work.
    pub workspace: &'a Workspace,
    /// Whom to tell.
    pub log: &'a Log,
    /// The files of COPY and ADD.
    pub context: &'a Context,
    /// The stages built so far.
    pub done: Vec<Option<Rc<Stage>>>,
}

impl Builder<'_> {
    /// Builds the target stage.
    pub fn build(&mut self) -> Result<Rc<Stage>> {
        self.stage(self.plan.target)
    }

    /// Builds the stage `index`, unless that is done.
    fn stage(&mut self, index: usize) -> Result<Rc<Stage>> {
        if let Some(done) = &self.done[index] {
            return Ok(Rc::clone(done));
        }
        let stage = &self.plan.stages[index];
        let base = self.base(index)?;
        let resolved =
            steps::resolve(self.plan, index, Base { config: base.0.config, scope: base.1 })?;
        let total = 1 + resolved
            .steps
            .iter()
            .filter(|step| !matches!(step.action, Action::Configure))
            .count();
        let name = stage.name.clone().unwrap_or_else(|| format!("stage-{index}"));
        let title = match &stage.base {
            Source::Scratch => "FROM scratch".to_owned(),
            Source::Image(reference) => format!("FROM {}", reference.familiar()),
            Source::Stage(_) => stage.source.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        self.log.cached(&format!("{name} 1/{total}"), &title);
        let mut state = State { config: resolved.config, layers: base.0.layers };
        let mut number = 1;
        for step in &resolved.steps {
            number += usize::from(!matches!(step.action, Action::Configure));
            let label = format!("{name} {number}/{total}");
            let record = self.step(step, &label, &state).map_err(|error| {
                let place = format!("{}:{}: {}", self.plan.file, step.place, step.title);
                error.wrap(place)
            })?;
            self.commit(&mut state, step, record)?;
        }
        let done = Rc::new(Stage { state, scope: resolved.scope });
        self.done[index] = Some(Rc::clone(&done));
        Ok(done)
    }

    /// What the stage `index` starts from.
    fn base(&mut self, index: usize) -> Result<(State, Scope)> {
        let stage = &self.plan.stages[index];
        match &stage.base {
            Source::Stage(base) => {
                let base = self.stage(*base)?;
                Ok((base.state.clone(), base.scope.clone()))
            }
            source => {
                let state = self.source(source, &stage.platform);
                let state = state
                    .wrap(|| format!("{}:{}: {}", self.plan.file, stage.place, stage.source))?;
                Ok((state, Scope::default()))
            }
        }
    }

    /// The file system that `source` names.
    fn source(&mut self, source: &Source, platform: &Platform) -> Result<State> {
        match source {
            Source::Scratch => Ok(State { config: scratch(platform), layers: Vec::new() }),
            Source::Stage(index) => Ok(self.stage(*index)?.state.clone()),
            Source::Image(reference) => self.image(reference, platform),
        }
    }

    /// Executes one step, or finds that it was executed before.
    fn step(&mut self, step: &Step, label: &str, state: &State) -> Result<Record> {
        check_stopped()?;
        match &step.action {
            Action::Configure => Ok(Record { layer: None }),
            Action::Run(run) => self.run(run, step, label, state),
            Action::Transfer(transfer) => self.transfer(transfer, step, label, state),
            Action::Workdir { path, user } => {
                self.workdir(path, user.as_deref(), step, label, state)
            }
        }
    }

    /// The record under `key`, or else what `make` makes, which is then recorded.
    fn cached(
        &mut self,
        key: Key,
        step: &Step,
        label: &str,
        make: impl FnOnce(&mut Self) -> Result<Option<Descriptor>>,
    ) -> Result<Record> {
        let key = key.finish();
        if !self.options.no_cache
            && let Some(record) = self.cache.get(&key, self.store)
        {
            self.log.cached(label, &step.title);
            return Ok(record);
        }
        self.log.begin(label, &step.title);
        let made = make(self);
        match &made {
            Ok(_) => self.log.end(),
            Err(_) => self.log.failed(),
        }
        let record = Record { layer: made? };
        self.cache.put(&key, &record)?;
        Ok(record)
    }

    /// A key with the fields of every step: what lies below, the platform, the time.
    fn key(&self, kind: &str, state: &State) -> Key {
        let mut key = Key::new(kind);
        let layers: Vec<String> = state.config.diff_ids().iter().map(ToString::to_string).collect();
        key.list("layer", &layers);
        key.field("platform", state.config.platform().to_string());
        key.field("epoch", self.options.epoch.to_string());
        key
    }

    /// Adds a step's layer and history to `state`.
    fn commit(&self, state: &mut State, step: &Step, record: Record) -> Result<()> {
        let mut history = json!({
            "created": format_time(self.options.epoch)?,
            "created_by": step.created_by,
            "comment": "davit",
        });
        match record.layer {
            Some(layer) => {
                state.config.add_layer(&layer.digest, history);
                state.layers.push(layer);
            }
            None => {
                history["empty_layer"] = json!(true);
                state.config.add_history(history);
            }
        }
        Ok(())
    }
}
