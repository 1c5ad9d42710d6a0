//! `imgtool tag`: more names for an image.

use crate::cli::Globals;
use crate::reference::Reference;
use crate::{Error, Result};

/// Arguments of `tag`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image, by name or digest
    image: String,
    /// The new names
    #[arg(required = true)]
    names: Vec<String>,
}

/// Tags the image; if any name is bad, none is given.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let names: Vec<Reference> = args.names.iter().map(|n| parse_name(n)).collect::<Result<_>>()?;
    let store = globals.open_store()?;
    let (_, descriptor) = store.find(&args.image)?;
    names.iter().try_for_each(|name| store.tag(name, &descriptor))
}

/// A name to be given: one with a digest would claim what only content can decide.
pub(super) fn parse_name(text: &str) -> Result<Reference> {
    let name = Reference::parse(text)?;
    match name.digest() {
        Some(_) => {
            Err(Error::new(format!("invalid name \"{text}\": a new name cannot have a digest")))
        }
        None => Ok(name),
    }
}
