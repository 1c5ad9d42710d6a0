//! Which variables are visible where: ARG, ENV, and what every build predefines.
//!
//! * An ARG before the first FROM is global: FROM lines see it, and a stage that repeats
//!   `ARG name` without a default inherits its value.
//! * An ARG in a stage is visible from its line on, and in stages based on that stage.
//! * ENV always overrides an ARG of the same name (Dockerfile reference, "Using ARG variables").
//! * The proxy variables need no ARG. They reach RUN only when given by `--build-arg`, and
//!   neither the history nor the cache key mentions them.
//! * The platform variables (`TARGETARCH` …) are global ARGs with a value.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use imgtool::platform::Platform;

use crate::expand::{Env, Lexer, Problem};

/// Variables that need no ARG, also in lower case.
const PROXIES: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Is `name` one of the predefined proxy variables?
pub fn is_proxy(name: &str) -> bool {
    PROXIES.contains(&name.to_ascii_uppercase().as_str())
}

/// The values that a whole build shares.
#[derive(Debug, Default)]
pub struct Globals {
    /// `--build-arg`.
    given: BTreeMap<String, String>,
    /// Global ARGs, the platform's included.
    values: BTreeMap<String, String>,
    /// Names of `given` which an ARG declared.
    consumed: RefCell<BTreeSet<String>>,
}

impl Env for Globals {
    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

impl Globals {
    /// The predefined values of a build for `target` on `build`, with the `--build-arg`s given.
    pub fn new(given: BTreeMap<String, String>, build: &Platform, target: &Platform) -> Self {
        let mut values = BTreeMap::new();
        for (prefix, platform) in [("BUILD", build), ("TARGET", target)] {
            let variant = platform.variant.clone().unwrap_or_default();
            values.insert(format!("{prefix}PLATFORM"), platform.to_string());
            values.insert(format!("{prefix}OS"), platform.os.clone());
            values.insert(format!("{prefix}ARCH"), platform.architecture.clone());
            values.insert(format!("{prefix}VARIANT"), variant);
        }
        for (name, value) in &mut values {
            if let Some(given) = given.get(name) {
                value.clone_from(given);
            }
        }
        Self { given, values, consumed: RefCell::default() }
    }

    /// Executes a global ARG.
    pub fn declare(
        &mut self,
        name: &str,
        default: Option<&str>,
        lexer: &Lexer,
    ) -> Result<(), Problem> {
        let value = match self.given(name) {
            Some(value) => Some(value),
            None => default.map(|text| lexer.text(text, self)).transpose()?,
        };
        if let Some(value) = value {
            self.values.insert(name.to_owned(), value);
        }
        Ok(())
    }

    /// The `--build-arg` value of `name`, noting that it was asked for.
    fn given(&self, name: &str) -> Option<String> {
        self.consumed.borrow_mut().insert(name.to_owned());
        self.given.get(name).cloned()
    }

    /// `--build-arg`s that no ARG asked for.
    pub fn unconsumed(&self) -> Vec<String> {
        let consumed = self.consumed.borrow();
        let unused = |name: &&String| {
            !consumed.contains(*name)
                && !is_proxy(name)
                && !self.values.contains_key(*name)
                && *name != "SOURCE_DATE_EPOCH"
        };
        self.given.keys().filter(unused).cloned().collect()
    }

    /// The proxy variables given, as `NAME=value`.
    pub fn proxies(&self) -> Vec<String> {
        let proxies = self.given.iter().filter(|(name, _)| is_proxy(name));
        proxies.map(|(name, value)| format!("{name}={value}")).collect()
    }
}

/// The variables of one stage at one line.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// ENV, in the order of first definition.
    env: Vec<(String, String)>,
    /// ARGs in the order of declaration; `None` has no value.
    args: Vec<(String, Option<String>)>,
}

impl Env for Scope {
    fn get(&self, name: &str) -> Option<&str> {
        let find = |pairs: &[(String, String)]| pairs.iter().position(|(key, _)| key == name);
        if let Some(index) = find(&self.env) {
            return Some(&self.env[index].1);
        }
        let arg = self.args.iter().find(|(key, _)| key == name)?;
        arg.1.as_deref()
    }
}

impl Scope {
    /// Replaces ENV by an image's `NAME=value` list. Entries without `=` are refused: a process
    /// given one would take the value from somewhere else.
    pub fn set_image_env(&mut self, env: &[String]) -> Result<(), Problem> {
        let split = |entry: &String| match entry.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(format!(
                "the base image's environment holds {entry:?}, which is not NAME=value"
            )),
        };
        self.env = env.iter().map(split).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// ENV.
    pub fn set_env(&mut self, name: &str, value: &str) {
        match self.env.iter_mut().find(|(key, _)| key == name) {
            Some(entry) => entry.1 = value.to_owned(),
            None => self.env.push((name.to_owned(), value.to_owned())),
        }
    }

    /// ENV as an image configuration lists it.
    pub fn image_env(&self) -> Vec<String> {
        self.env.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// ARG: `--build-arg`, else the default, else the global value. Returns the value.
    pub fn declare(
        &mut self,
        globals: &Globals,
        name: &str,
        default: Option<&str>,
        lexer: &Lexer,
    ) -> Result<Option<String>, Problem> {
        let value = match (globals.given(name), default) {
            (Some(value), _) => Some(value),
            (None, Some(text)) => Some(lexer.text(text, self)?),
            (None, None) => globals.get(name).map(str::to_owned),
        };
        self.args.retain(|(key, _)| key != name);
        self.args.push((name.to_owned(), value.clone()));
        Ok(value)
    }

    /// The ARGs that RUN sees besides ENV, as `NAME=value`.
    pub fn run_args(&self) -> Vec<String> {
        self.args
            .iter()
            .filter(|(name, _)| !self.env.iter().any(|(key, _)| key == name))
            .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)))
            .collect()
    }
}
