//! `imgtool save`: images as an archive.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::archive::{self, Format};
use crate::cli::Globals;
use crate::output::{self, Stdout};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::{Context, Error, Result};

/// Arguments of `save`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The archive to write [default: standard output, unless that is a terminal]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What to write
    #[arg(long, value_enum, default_value = "both")]
    format: Format,
    /// Which image of a multi-platform index becomes the docker-archive [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// The images, by name or digest; a last - stands for standard output
    #[arg(required = true)]
    images: Vec<String>,
}

/// Saves the images. If it fails, no file is left.
pub fn run(mut args: Args, globals: &Globals) -> Result<()> {
    if args.images.pop_if(|last| last == "-").is_some() && args.output.is_some() {
        return Err(Error::usage("both -o and - say where to write"));
    }
    if args.images.is_empty() {
        return Err(Error::usage("no image to save"));
    }
    let store = globals.open_store()?;
    let images = args.images.iter().map(|i| store.find(i)).collect::<Result<Vec<_>>>()?;
    let platform = args.platform.unwrap_or_else(Platform::host);
    let bar = Progress::on_terminal(globals.quiet).bar("save", None);
    let write = |out: &mut dyn Write| -> Result<()> {
        archive::save(&store, &images, args.format, &platform, bar.writer(out)).map(drop)
    };
    let result = match args.output.filter(|p| p != Path::new("-")) {
        None => {
            let mut out = Stdout::for_archive()?;
            write(&mut out).and_then(|()| out.finish())
        }
        Some(path) => output::to_file(&path, write).wrap(|| format!("save to {}", path.display())),
    };
    bar.clear();
    result
}
