//! `buildtool build`: from the command line to a finished image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use imgtool::image::{Image, format_time};
use imgtool::store::{self, Store};
use serde_json::json;

use crate::build::{self, Builder, Context as BuildContext, DEFAULT_EPOCH, State};
use crate::cache::Cache;
use crate::cli::Build;
use crate::dockerignore::Ignore;
use crate::error::{Context, Error, Result};
use crate::files::tree::Tree;
use crate::log::Log;
use crate::output::Kind;
use crate::plan::{self, Plan};
use crate::sandbox;
use crate::workspace::Workspace;
use crate::{parse, sibling};

/// Builds, as the first process of the build's own namespaces.
pub fn run(args: &Build, store: Option<&Path>) -> Result<()> {
    if let Some(output) = &args.output {
        output.check()?;
    }
    let log = Log::new(args.progress, args.quiet);
    let plan = plan(args)?;
    warn(&plan, &log);
    let context = context(args)?;
    let options = options(args)?;
    sandbox::enter()?;
    let root = match store {
        Some(path) => path.to_owned(),
        None => store::default_root()?,
    };
    let store = Store::open(root)?;
    let cache = Cache::open(&store)?;
    let workspace = Workspace::create(&store)?;
    let mut builder = Builder {
        plan: &plan,
        store: &store,
        cache: &cache,
        options: &options,
        workspace: &workspace,
        log: &log,
        context: &context,
        done: plan.stages.iter().map(|_| None).collect(),
    };
    // What a signal broke is not what the user wants to hear about.
    let stage = builder.build().map_err(|error| sandbox::check_stopped().err().unwrap_or(error))?;
    sandbox::check_stopped()?;
    let unused = plan.globals.unconsumed();
    if !unused.is_empty() {
        log.warn(&format!("one or more build-args were not consumed: {}", unused.join(", ")));
    }
    finish(args, &builder, &stage.state)
}

/// Reads and plans the Dockerfile.
fn plan(args: &Build) -> Result<Plan> {
    let (name, bytes) = dockerfile(args)?;
    let options = plan::Options {
        build_args: build_args(&args.build_arg),
        target: args.target.clone(),
        platform: args.platform.clone(),
    };
    plan::plan(parse::parse(&name, &bytes)?, &options)
}

fn warn(plan: &Plan, log: &Log) {
    if let Some(syntax) = &plan.directives.syntax {
        log.note(&format!(
            "# syntax={syntax} is noted: this program's own front end reads the file"
        ));
    }
    plan.warnings.iter().for_each(|warning| log.warn(warning));
}

/// The Dockerfile's path, unless it comes from stdin.
fn dockerfile_path(args: &Build) -> Option<PathBuf> {
    match &args.file {
        Some(path) if path.as_os_str() == "-" => None,
        Some(path) => Some(path.clone()),
        None => Some(args.context.join("Dockerfile")),
    }
}

fn dockerfile(args: &Build) -> Result<(String, Vec<u8>)> {
    let path = dockerfile_path(args);
    let name = match &path {
        None => "Dockerfile".to_owned(),
        Some(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
    };
    let what = || match &path {
        None => "read the Dockerfile from stdin".to_owned(),
        Some(path) => format!("read the Dockerfile {}", path.display()),
    };
    let mut bytes = Vec::new();
    let read = match &path {
        None => std::io::stdin().take(parse::MAX_SIZE + 1).read_to_end(&mut bytes),
        Some(path) => {
            File::open(path).and_then(|file| file.take(parse::MAX_SIZE + 1).read_to_end(&mut bytes))
        }
    };
    read.wrap(what)?;
    if bytes.len() as u64 > parse::MAX_SIZE {
        return Err(Error::new(format!("it is larger than {} bytes", parse::MAX_SIZE)).wrap(what()));
    }
    Ok((name, bytes))
}

/// `NAME=VALUE`, or `NAME` with its value from the environment if it has one.
fn build_args(given: &[String]) -> BTreeMap<String, String> {
    let value = |text: &String| match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((text.clone(), std::env::var(text).ok()?)),
    };
    given.iter().filter_map(value).collect()
}

fn context(args: &Build) -> Result<BuildContext> {
    let what = || format!("build context {}", args.context.display());
    let tree = Tree::open(&args.context).wrap(what)?;
    let mut ignore = Ignore::default();
    for path in ignore_files(args) {
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                ignore = Ignore::parse(&path.display().to_string(), &text)?;
                break;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::from(error).wrap(format!("read {}", path.display()))),
        }
    }
    Ok(BuildContext { tree: Rc::new(tree), ignore })
}

/// Where ignore rules may be: beside the Dockerfile under its name, then in the context.
fn ignore_files(args: &Build) -> Vec<PathBuf> {
    let beside = dockerfile_path(args).map(|path| {
        let mut name = path.into_os_string();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    beside.into_iter().chain([args.context.join(".dockerignore")]).collect()
}

fn options(args: &Build) -> Result<build::Options> {
    let given = build_args(&args.build_arg).remove("SOURCE_DATE_EPOCH");
    let epoch =
        given.or_else(|| std::env::var("SOURCE_DATE_EPOCH").ok()).filter(|text| !text.is_empty());
    let epoch = match epoch {
        None => DEFAULT_EPOCH,
        Some(text) => {
            text.parse().ok().filter(|seconds| format_time(*seconds).is_ok()).ok_or_else(|| {
                Error::usage(format!("SOURCE_DATE_EPOCH={text:?}: expected seconds since 1970"))
            })?
        }
    };
    Ok(build::Options {
        no_cache: args.no_cache,
        pull: args.pull,
        network: args.network,
        secrets: args.secret.clone(),
        runtime: sibling::find(args.runtime.as_deref(), "runtime")?,
        imgtool: sibling::find(args.imgtool.as_deref(), "imgtool")?,
        epoch,
    })
}

/// Writes the image where it is wanted, and says which it is.
fn finish(args: &Build, builder: &Builder<'_>, state: &State) -> Result<()> {
    let image = store_image(args, builder, state)?;
    let id = image.manifest.config.digest.to_string();
    match &args.output {
        None => {
            for name in &args.tag {
                builder.store.tag(name, &image.descriptor)?;
                builder.log.note(&format!("named {name}"));
            }
            if args.tag.is_empty() {
                builder.store.keep(&image.descriptor)?;
            }
        }
        Some(output) if matches!(output.kind, Kind::Oci | Kind::Docker) => {
            output.archive(
                builder.store,
                &args.tag,
                &image.descriptor,
                &state.config.platform(),
            )?;
        }
        Some(output) => output.rootfs(&Rc::new(builder.view(state)?))?,
    }
    if let Some(path) = &args.iidfile {
        std::fs::write(path, &id).wrap(|| format!("write {}", path.display()))?;
    }
    match &args.output {
        Some(output) if output.is_stdout() => Ok(()),
        _ => Ok(imgtool::output::print(&format!("{id}\n"))?),
    }
}

/// Completes the configuration and stores it with its manifest.
fn store_image(args: &Build, builder: &Builder<'_>, state: &State) -> Result<Image> {
    let mut config = state.config.clone();
    for (name, value) in &args.label {
        config.set_label(name, value);
    }
    config.set_top("created", json!(format_time(builder.options.epoch)?));
    Ok(builder.store.add_image(&config, state.layers.clone())?)
}
