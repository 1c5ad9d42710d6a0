//! What verbs that make an image of an image have in common: which one, and what it is called.

use crate::cli::Globals;
use crate::descriptor::{Descriptor, media_type};
use crate::image::Image;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::Store;
use crate::verb::tag::parse_name;
use crate::{Context, Error, Result};

/// Arguments of these verbs.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// A name for the new image; it may be repeated [default: the old one's, which stands for the
    /// new one then]
    #[arg(long, short, value_name = "NAME")]
    tag: Vec<String>,
    /// Which image of a multi-platform index [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<Platform>,
    /// The image, by name or digest
    image: String,
}

impl Target {
    /// Makes a new image of the old one by `make`, names it and prints its digest. If it fails, no
    /// name has changed.
    pub fn make(
        &self,
        globals: &Globals,
        verb: &str,
        make: impl FnOnce(&Store, &Image) -> Result<Descriptor>,
    ) -> Result<()> {
        let tags: Vec<Reference> = self.tag.iter().map(|t| parse_name(t)).collect::<Result<_>>()?;
        let store = globals.open_store()?;
        let (name, entry) = store.find(&self.image)?;
        let tags = match (tags.is_empty(), name) {
            (false, _) => tags,
            (true, Some(name)) if media_type::is_manifest(&entry.media_type) => vec![name],
            (true, Some(name)) => {
                return Err(Error::usage(format!(
                    "{} is an index of several images; name the new one: -t NAME",
                    name.familiar()
                )));
            }
            (true, None) => {
                return Err(Error::usage("the image has no name; name the new one: -t NAME"));
            }
        };
        let image = store.image(&entry, &self.platform.clone().unwrap_or_else(Platform::host))?;
        let made = make(&store, &image).wrap(|| format!("{verb} {}", self.image))?;
        for name in &tags {
            // A digest in a name would be the old image's.
            store.tag(name, &made)?;
        }
        crate::output::print(&format!("{}\n", made.digest))
    }
}
