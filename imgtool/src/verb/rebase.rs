//! `imgtool rebase`: an image on another base.

use crate::cli::Globals;
use crate::edit;
use crate::platform::Platform;
use crate::verb::target::Target;
use crate::{Context, Result};

/// Annotations that tell what an image was built on (image-spec, annotations.md).
const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// Arguments of `rebase`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to make of which image.
    #[command(flatten)]
    target: Target,
    /// The image that it stands on, by name or digest
    #[arg(long, value_name = "IMAGE")]
    old_base: String,
    /// The image to put in its place
    #[arg(long, value_name = "IMAGE")]
    new_base: String,
}

/// Makes the image and prints its digest.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let platform = args.target.platform.clone().unwrap_or_else(Platform::host);
    args.target.make(globals, "rebase", |store, image| {
        let base = |text: &str| {
            let (name, entry) = store.find(text)?;
            Ok::<_, crate::Error>((name, store.image(&entry, &platform)?))
        };
        let (_, old) = base(&args.old_base).wrap(|| "old base")?;
        let (name, new) = base(&args.new_base).wrap(|| "new base")?;
        let mut draft = edit::rebase(store, image, &old, &new)?;
        draft.annotate(BASE_NAME, name.map(|n| n.to_string()).as_deref());
        draft.annotate(BASE_DIGEST, Some(&new.descriptor.digest.to_string()));
        draft.finish()
    })
}
