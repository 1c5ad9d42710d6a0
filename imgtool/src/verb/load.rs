//! `imgtool load`: images from an archive.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use crate::archive::{self, Loaded};
use crate::cli::Globals;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::verb::tag::parse_name;
use crate::{Context, Error, Result};

/// Arguments of `load`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The archive
    #[arg(long, short, value_name = "FILE", conflicts_with = "file")]
    input: Option<PathBuf>,
    /// A name for the archive's only image, in addition to its own
    #[arg(long, short, value_name = "NAME")]
    tag: Vec<String>,
    /// The archive: docker-archive or oci-archive, plain, gzip or zstd; - or nothing for
    /// standard input
    file: Option<PathBuf>,
}

/// Loads the images and says their names. If it fails, nothing of the archive stays.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let tags: Vec<Reference> = args.tag.iter().map(|t| parse_name(t)).collect::<Result<_>>()?;
    let path = args.input.or(args.file).filter(|p| p != Path::new("-"));
    let what = path.as_ref().map_or("standard input".to_owned(), |p| p.display().to_string());
    let (reader, size) = open(path.as_deref())?;
    let bar = Progress::on_terminal(globals.quiet).bar("load", size);

    let store = globals.open_store()?;
    let result = archive::load(&store, bar.reader(reader))
        .and_then(|loaded| name_the_only(&tags, loaded, |n, l| store.tag(n, &l.descriptor)));
    let loaded = match result {
        Ok(loaded) => loaded,
        Err(e) => {
            // The first error is the one to tell.
            drop(store.collect(false));
            return Err(e.wrap(format!("load {what}")));
        }
    };
    bar.clear();
    let line = |l: &Loaded| match &l.name {
        Some(name) => format!("Loaded image: {}\n", name.familiar()),
        None => format!("Loaded image ID: {}\n", l.descriptor.digest),
    };
    crate::output::print(&loaded.iter().map(line).collect::<String>())
}

pub(super) fn open(path: Option<&Path>) -> Result<(Box<dyn Read + Send>, Option<u64>)> {
    match path {
        Some(path) => {
            let context = || format!("open {}", path.display());
            let file = File::open(path).wrap(context)?;
            let meta = file.metadata().wrap(context)?;
            if meta.is_dir() {
                return Err(Error::new("is a directory, not an archive").wrap(context()));
            }
            Ok((Box::new(file), Some(meta.len()).filter(|_| meta.is_file())))
        }
        None if io::stdin().is_terminal() => {
            Err(Error::usage("no archive: name a FILE, or redirect standard input"))
        }
        None => Ok((Box::new(io::stdin()), None)),
    }
}

/// Adds names to a lone image.
fn name_the_only(
    tags: &[Reference],
    mut loaded: Vec<Loaded>,
    tag: impl Fn(&Reference, &Loaded) -> Result<()>,
) -> Result<Vec<Loaded>> {
    if tags.is_empty() {
        return Ok(loaded);
    }
    let Some(first) = loaded.first().map(|l| l.descriptor.clone()) else { return Ok(loaded) };
    if loaded.iter().any(|l| l.descriptor.digest != first.digest) {
        return Err(Error::new("--tag needs an archive of one image, and this one has several"));
    }
    for name in tags {
        let more = Loaded { name: Some(name.clone()), descriptor: first.clone() };
        tag(name, &more)?;
        loaded.push(more);
    }
    Ok(loaded)
}
