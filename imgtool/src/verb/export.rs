//! `imgtool export`: an image's root file system as one flat archive.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::cli::Globals;
use crate::output::{Stdout, to_file};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::{Context, Result, edit};

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The archive to write [default: standard output, unless that is a terminal]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Which image of a multi-platform index [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// The image, by name or digest
    image: String,
}

/// Exports it. If it fails, no file is left.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let store = globals.open_store()?;
    let (_, entry) = store.find(&args.image)?;
    let image = store.image(&entry, &args.platform.unwrap_or_else(Platform::host))?;
    let bar = Progress::on_terminal(globals.quiet).bar("export", None);
    let write = |out: &mut dyn Write| edit::export(&store, &image, bar.writer(out)).map(drop);
    let result = match args.output.filter(|p| p != Path::new("-")) {
        None => {
            let mut out = Stdout::for_archive()?;
            write(&mut out).and_then(|()| out.finish())
        }
        Some(path) => to_file(&path, write),
    };
    bar.clear();
    result.wrap(|| format!("export {}", args.image))
}
