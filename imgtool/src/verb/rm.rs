//! `imgtool rm`: forgets images, and frees what only they used.

use crate::Result;
use crate::cli::Globals;
use crate::descriptor::Descriptor;
use crate::error::Kind;
use crate::reference::Reference;
use crate::store::Store;

/// Arguments of `rm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not complain about images that are not there
    #[arg(long, short)]
    force: bool,
    /// The images: a name removes that name, a digest all names of its image
    #[arg(required = true)]
    images: Vec<String>,
}

/// Removes the images; if any is missing, none is removed.
///
/// Blobs are freed at once unless somebody else uses the store; then the next `rm` or `gc` does.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let store = globals.open_store()?;
    let mut doomed = Vec::new();
    for text in &args.images {
        match store.find(text) {
            Ok((name, descriptor)) => doomed.push((text, name, descriptor)),
            Err(e) if args.force && e.kind() == Kind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    for (text, name, descriptor) in &doomed {
        remove(&store, text, name.as_ref(), descriptor)?;
    }
    if !doomed.is_empty() {
        store.collect(false)?;
    }
    Ok(())
}

fn remove(store: &Store, text: &str, name: Option<&Reference>, image: &Descriptor) -> Result<()> {
    let by_name = name.filter(|n| Reference::parse(text).is_ok_and(|given| given == **n));
    match by_name {
        Some(name) if store.untag(name)? => Ok(()),
        _ => store.untag_digest(&image.digest),
    }
}
