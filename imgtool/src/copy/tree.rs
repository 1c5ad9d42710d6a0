//! What of an image is copied: all of an index, one of its images, or some of them.

use std::collections::HashSet;

use crate::descriptor::Descriptor;
use crate::image::{Document, Index, Manifest};
use crate::platform::Platform;
use crate::{Context, Error, Result};

/// What to take of a multi-platform index.
#[derive(Clone, Debug)]
pub enum Selection {
    /// The index and all of its images.
    All,
    /// This machine's image, or a lone image of whatever platform.
    Host,
    /// The image for this platform, and no other.
    One(Platform),
    /// A new index of the images for these platforms.
    Some(Vec<Platform>),
}

/// Documents to copy: what they name comes before them.
#[derive(Debug)]
pub struct Tree {
    /// What the destination's name will stand for.
    pub root: (Descriptor, Document),
    /// The index of which the root is a part, or from which it was made.
    pub index: Option<Descriptor>,
    /// The documents below the root, innermost first.
    pub children: Vec<(Descriptor, Document)>,
}

/// How deep indexes may nest.
const MAX_NESTING: usize = 4;

impl Tree {
    /// Chooses, and fetches every document that is chosen.
    pub fn choose(
        root: (Descriptor, Document),
        what: &Selection,
        fetch: impl Fn(&Descriptor) -> Result<Document>,
    ) -> Result<Tree> {
        let index = match &root.1 {
            Document::Manifest(_) => return Ok(Tree { root, index: None, children: Vec::new() }),
            Document::Index(index) => index.clone(),
        };
        let from = Some(root.0.bare());
        let host = Platform::host();
        let root = match what {
            Selection::All => root,
            Selection::Host => innermost(&index, &host, &fetch)?,
            Selection::One(platform) => innermost(&index, platform, &fetch)?,
            Selection::Some(platforms) => filtered(root.0, &index, platforms)?,
        };
        let mut children = Vec::new();
        if let Document::Index(index) = &root.1 {
            collect(index, &fetch, &mut children, &mut HashSet::new(), 0)?;
        }
        let index = from.filter(|from| from.digest != root.0.digest);
        Ok(Tree { root, index, children })
    }

    /// All manifests.
    pub fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        let documents = self.children.iter().chain([&self.root]);
        documents.filter_map(|(_, document)| match document {
            Document::Manifest(manifest) => Some(&**manifest),
            Document::Index(_) => None,
        })
    }
}

/// The manifest for a platform, through indexes in the index.
fn innermost(
    index: &Index,
    platform: &Platform,
    fetch: &impl Fn(&Descriptor) -> Result<Document>,
) -> Result<(Descriptor, Document)> {
    let mut index = index.clone();
    for _ in 0..MAX_NESTING {
        let chosen = index.select(platform)?;
        match fetch(chosen)? {
            Document::Index(inner) => index = inner,
            manifest => return Ok((chosen.bare(), manifest)),
        }
    }
    Err(Error::new("indexes nested too deeply"))
}

fn filtered(
    whole: Descriptor,
    index: &Index,
    platforms: &[Platform],
) -> Result<(Descriptor, Document)> {
    let chosen: Vec<&Descriptor> =
        platforms.iter().map(|p| index.select(p)).collect::<Result<_>>()?;
    if index.manifests.iter().all(|d| chosen.iter().any(|c| c.digest == d.digest)) {
        return Ok((whole, Document::Index(index.clone())));
    }
    let index = index.only(&chosen)?;
    Ok((index.descriptor(), Document::Index(index)))
}

fn collect(
    index: &Index,
    fetch: &impl Fn(&Descriptor) -> Result<Document>,
    found: &mut Vec<(Descriptor, Document)>,
    seen: &mut HashSet<crate::digest::Digest>,
    depth: usize,
) -> Result<()> {
    if depth >= MAX_NESTING {
        return Err(Error::new("indexes nested too deeply"));
    }
    for entry in
        index.manifests.iter().filter(|e| seen.insert(e.digest.clone())).collect::<Vec<_>>()
    {
        let document = fetch(entry).wrap(|| format!("entry {} of the index", entry.digest))?;
        if let Document::Index(inner) = &document {
            collect(inner, fetch, found, seen, depth + 1)?;
        }
        found.push((entry.bare(), document));
    }
    Ok(())
}
