//! `shim run`: a new container, from a bundle or an image.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::bundle::BundleConfig;
use crate::cli::{Global, Run};
use crate::client::{Session, catch_signals};
use crate::container::{Config, Container, Lock};
use crate::detach::DetachKeys;
use crate::error::{Context, Error, Result};
use crate::launch::{FOREGROUND, launch};
use crate::{bundle, id, image, places};

/// Runs a container; returns the exit code for `shim run`: the container's, or 0 when it
/// was left running.
///
/// # Errors
/// When it could not be started; then nothing is left of it.
pub fn run(global: &Global, args: Run) -> Result<u8> {
    let keys = DetachKeys::parse(&args.detach_keys)?;
    check_terminal(&args)?;
    let root = places::state_dir(global.state.as_deref())?;
    let signals = match args.detach {
        true => None,
        false => Some(catch_signals(true)?),
    };
    let (container, lock) = prepare(&root, &args)?;
    let launched = launch(&container, lock, !args.detach, true);
    let launched = launched.wrap_with(|| format!("run {}", container.config.name))?;
    let Some(signals) = signals else {
        let _ = writeln!(std::io::stdout(), "{}", container.config.id);
        return Ok(0);
    };
    let mut session = Session::new(&container, FOREGROUND, keys, signals);
    let code = launched.stay(&container, &mut session)?;
    Ok(code.unwrap_or(0))
}

fn check_terminal(args: &Run) -> Result<()> {
    let ours = rustix::termios::isatty(rustix::stdio::stdin());
    if args.tty && args.interactive && !args.detach && !ours {
        return Err(Error::new(
            "-i -t: our stdin is not a terminal (leave -t away to feed the container from a pipe)",
        ));
    }
    Ok(())
}

/// Makes the container's directory and its bundle. Whatever fails leaves nothing.
fn prepare(root: &Path, args: &Run) -> Result<(Container, Lock)> {
    let source = bundle::recognise(&args.source)?;
    let config = configure(root, args, source.as_deref())?;
    let (mut container, lock) = Container::create(root, config)?;
    let filled = match source {
        Some(source) => from_bundle(&mut container, args, &source),
        None => from_image(&mut container, args),
    };
    match filled.and_then(|()| container.save()) {
        Ok(()) => Ok((container, lock)),
        Err(error) => {
            // The first failure is the one to tell; what remains is removable by `shim rm`.
            let _ = container.discard();
            Err(error)
        }
    }
}

fn configure(root: &Path, args: &Run, source: Option<&Path>) -> Result<Config> {
    let id = id::random()?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => id::short(&id).to_owned(),
    };
    id::check_name(&name)?;
    if source.is_some() && !args.settings.0.is_empty() {
        let setting = args.settings.0[0].to_string_lossy();
        return Err(Error::new(format!(
            "{setting}: applies to images only; a bundle's settings are in its config.json"
        )));
    }
    let text = args.source.to_str();
    let text = text.ok_or_else(|| Error::new(format!("image {:?}: is not UTF-8", args.source)))?;
    let dir = root.join(&id);
    let imgtool = || places::sibling("imgtool", args.imgtool.as_deref());
    Ok(Config {
        name,
        image: source.is_none().then(|| text.to_owned()),
        origin: source.map(Path::to_owned),
        bundle: dir.join("bundle"),
        command: Vec::new(),
        created: jiff::Timestamp::now(),
        tty: args.tty,
        stdin: args.interactive,
        remove: args.rm,
        log: log_file(args.log.as_deref(), &dir)?,
        runtime: places::sibling("runtime", args.runtime.as_deref())?,
        runtime_args: args.runtime_arg.clone(),
        runtime_timeout: args.runtime_timeout,
        imgtool: if source.is_none() { Some(imgtool()?) } else { None },
        id,
    })
}

fn log_file(asked: Option<&Path>, dir: &Path) -> Result<Option<PathBuf>> {
    match asked {
        None => Ok(Some(dir.join("log"))),
        Some(path) if path == Path::new("none") => Ok(None),
        Some(path) => {
            let path = std::path::absolute(path).wrap("find the working directory")?;
            // Opened here for the message's sake: the monitor is far from the user's eyes.
            crate::log::k8s_file::K8sFile::probe(&path)
                .wrap_with(|| format!("open the log {}", path.display()))?;
            Ok(Some(path))
        }
    }
}

fn from_bundle(container: &mut Container, args: &Run, source: &Path) -> Result<()> {
    let mut config = BundleConfig::read(source)?;
    match config.adjust(args.tty, &args.command)? {
        true => config.write_to(&container.config.bundle)?,
        false => container.config.bundle = source.to_owned(),
    }
    container.config.command = config.args();
    Ok(())
}

fn from_image(container: &mut Container, args: &Run) -> Result<()> {
    let bundle = container.config.bundle.clone();
    if let (Some(imgtool), Some(image)) = (&container.config.imgtool, &container.config.image) {
        image::unpack(imgtool, &args.settings.0, image, &bundle, &args.command)?;
    }
    let mut config = BundleConfig::read(&bundle)?;
    let none: &[OsString] = &[];
    if config.adjust(args.tty, none)? {
        config.write_back()?;
    }
    container.config.command = config.args();
    Ok(())
}
