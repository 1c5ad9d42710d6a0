//! Copies an image from one place to another without changing a byte of its manifests.
//!
//! Whatever is not a registry is an OCI image layout here: the store, a directory, or a temporary
//! one for an archive. Between registries blobs are streamed, or mounted if the registry is one
//! and the same; nothing of them touches the disk.

mod place;
mod tree;

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::archive::{self, Format};
use crate::descriptor::Descriptor;
use crate::digest::{Algorithm, Digest};
use crate::image::{Document, ImageConfig, MAX_DOCUMENT, Manifest};
use crate::output;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::{self, BlobSource, Options, Remote, UploadOptions, Uploads};
use crate::store::Store;
use crate::{Context, Error, Result};

pub use place::Place;
pub use tree::{Selection, Tree};

/// How to copy.
#[derive(Debug)]
pub struct CopyOptions {
    /// What to take of an index.
    pub what: Selection,
    /// How to talk to the source's registry.
    pub from: Options,
    /// How to talk to the destination's.
    pub to: Options,
    /// How to move blobs.
    pub uploads: UploadOptions,
}

/// What was copied.
#[derive(Debug)]
pub struct Copied {
    /// What the destination stands for now.
    pub descriptor: Descriptor,
    /// The index of which only this was taken.
    pub index: Option<Descriptor>,
}

/// Copies the image at `from` to `to`. `open_store` opens the store, if that is one of them.
///
/// The destination's name comes last, so it never stands for something incomplete. A
/// docker-archive has no manifest, so only configuration and layers stay what they were there.
pub fn copy(
    from: &Place,
    to: &Place,
    how: &CopyOptions,
    open_store: &dyn Fn() -> Result<Store>,
    progress: &Progress,
) -> Result<Copied> {
    let context = || format!("read {from}");
    let source = Source::open(from, &how.from, open_store, progress).wrap(context)?;
    let root = source.root().wrap(context)?;
    let tree = Tree::choose(root, &how.what, |d| source.document(d)).wrap(context)?;
    check_platform(&source, &tree, &how.what).wrap(context)?;
    let context = || format!("write {to}");
    let destination = Destination::open(to, how, open_store, progress).wrap(context)?;
    destination.take(&source, &tree, how).wrap(context)?;
    Ok(Copied { descriptor: tree.root.0, index: tree.index })
}

/// A lone image is taken whatever it is for, unless a platform was asked for.
fn check_platform(source: &Source, tree: &Tree, what: &Selection) -> Result<()> {
    let wanted = match what {
        Selection::One(platform) => std::slice::from_ref(platform),
        Selection::Some(platforms) => platforms,
        Selection::All | Selection::Host => return Ok(()),
    };
    let Document::Manifest(manifest) = &tree.root.1 else { return Ok(()) };
    if !registry::is_image(manifest) {
        return Ok(());
    }
    let found = source.config(manifest)?.platform();
    match wanted.iter().find(|w| w.rank(&found).is_none()) {
        Some(wanted) => {
            Err(Error::not_found(format!("no image for {wanted}; there is only one, for {found}")))
        }
        None => Ok(()),
    }
}

/// Where an image comes from.
#[derive(Debug)]
pub enum Source {
    /// A repository, and what is meant in it.
    Registry(Box<Remote>, Reference),
    /// A layout, which may be temporary, and its entry.
    Layout(Store, Box<Descriptor>, Option<Staging>),
}

impl Source {
    /// Opens a place for reading. `open_store` opens the store, if that is the place.
    pub fn open(
        place: &Place,
        options: &Options,
        open_store: &dyn Fn() -> Result<Store>,
        progress: &Progress,
    ) -> Result<Source> {
        match place {
            Place::Registry(name) => {
                let remote = Remote::reading(name, options, progress)?;
                Ok(Source::Registry(Box::new(remote), name.clone()))
            }
            Place::Store(image) => {
                let store = open_store()?;
                let (_, entry) = store.find(image)?;
                Ok(Source::Layout(store, Box::new(entry), None))
            }
            Place::Layout(dir, label) => {
                let store = Store::open(dir)?;
                let entry = store.labelled(label.as_deref())?;
                Ok(Source::Layout(store, Box::new(entry), None))
            }
            Place::OciArchive(path, label) => {
                let name = label.as_ref().map(|l| Reference::parse(l)).transpose()?;
                Source::load(path, name.as_ref())
            }
            Place::DockerArchive(path, name) => Source::load(path, name.as_ref()),
        }
    }

    /// Unpacks an archive into a temporary layout.
    fn load(path: &Path, name: Option<&Reference>) -> Result<Source> {
        let file = File::open(path).wrap(|| format!("open {}", path.display()))?;
        let staging = Staging::new()?;
        let store = Store::open(&staging.0)?;
        let loaded = archive::load(&store, file)?;
        let found = match name {
            Some(name) => loaded.iter().find(|l| l.name.as_ref() == Some(name)),
            None => loaded.first(),
        };
        let names = || {
            let all: Vec<String> =
                loaded.iter().filter_map(|l| l.name.as_ref()).map(Reference::familiar).collect();
            all.join(", ")
        };
        match (found, name) {
            (None, Some(name)) => Err(Error::not_found(format!(
                "no image \"{}\" in it; there are: {}",
                name.familiar(),
                names()
            ))),
            (None, None) => Err(Error::not_found("no image in it")),
            (Some(found), None)
                if loaded.iter().any(|l| l.descriptor.digest != found.descriptor.digest) =>
            {
                Err(Error::new(format!("it has several images, so say which: {}", names())))
            }
            (Some(found), _) => {
                Ok(Source::Layout(store, Box::new(found.descriptor.clone()), Some(staging)))
            }
        }
    }

    /// What its name stands for.
    pub fn root(&self) -> Result<(Descriptor, Document)> {
        match self {
            Source::Registry(remote, name) => remote.named(name),
            Source::Layout(store, entry, _) => Ok((entry.bare(), store.document(entry)?)),
        }
    }

    /// A document that another one names.
    pub fn document(&self, at: &Descriptor) -> Result<Document> {
        match self {
            Source::Registry(remote, _) => remote.document(at),
            Source::Layout(store, ..) if !store.has_blob(at) => Err(Error::not_found(
                "the image is not there; without --all, only those are taken that --platform names",
            )),
            Source::Layout(store, ..) => store.document(at),
        }
    }

    /// Reads an image's configuration, verified.
    pub fn config(&self, manifest: &Manifest) -> Result<ImageConfig> {
        let config = &manifest.config;
        if config.size > MAX_DOCUMENT {
            return Err(Error::new(format!("its configuration has {} bytes", config.size)));
        }
        let mut bytes = Vec::new();
        self.blobs().open(config, 0, config.size)?.read_to_end(&mut bytes)?;
        match Digest::sha256(&bytes) {
            found if config.digest.algorithm() == Algorithm::Sha256 && found != config.digest => {
                Err(Error::new(format!("blob {}: its content is {found}", config.digest)))
            }
            _ => ImageConfig::parse(&bytes).wrap(|| config.digest.to_string()),
        }
    }

    fn blobs(&self) -> &dyn BlobSource {
        match self {
            Source::Registry(remote, _) => &**remote,
            Source::Layout(store, ..) => store,
        }
    }
}

/// Where an image goes.
enum Destination {
    Registry(Box<Remote>, Reference),
    Store(Store, Reference),
    Layout(Store, Option<String>),
    OciArchive(PathBuf, Option<String>, Staging),
    DockerArchive(PathBuf, Option<Reference>, Staging),
}

impl Destination {
    fn open(
        place: &Place,
        how: &CopyOptions,
        open_store: &dyn Fn() -> Result<Store>,
        progress: &Progress,
    ) -> Result<Destination> {
        match place {
            Place::Registry(name) => {
                let remote = Remote::writing(name, &how.to, progress)?;
                Ok(Destination::Registry(Box::new(remote), name.clone()))
            }
            Place::Store(name) => {
                let name = Reference::parse(name)?;
                if name.digest().is_some() {
                    return Err(Error::usage(format!("{name}: a name in the store has no digest")));
                }
                Ok(Destination::Store(open_store()?, name))
            }
            Place::Layout(dir, label) => Ok(Destination::Layout(Store::open(dir)?, label.clone())),
            Place::OciArchive(path, label) => {
                Ok(Destination::OciArchive(path.clone(), label.clone(), Staging::new()?))
            }
            Place::DockerArchive(path, name) => {
                Ok(Destination::DockerArchive(path.clone(), name.clone(), Staging::new()?))
            }
        }
    }

    fn take(&self, source: &Source, tree: &Tree, how: &CopyOptions) -> Result<()> {
        match self {
            Destination::Registry(remote, name) => send(source, tree, remote, name, how),
            Destination::Store(store, name) => {
                fill(source, tree, store, how)?;
                store.tag(name, &tree.root.0)
            }
            Destination::Layout(store, label) => {
                fill(source, tree, store, how)?;
                store.label(label.as_deref(), &tree.root.0)
            }
            Destination::OciArchive(path, label, staging) => {
                let store = Store::open(&staging.0)?;
                fill(source, tree, &store, how)?;
                store.label(label.as_deref(), &tree.root.0)?;
                let entry = store.labelled(label.as_deref())?;
                output::to_file(path, |out| archive::save_entry(&store, &entry, out).map(drop))
            }
            Destination::DockerArchive(path, name, staging) => {
                let store = Store::open(&staging.0)?;
                fill(source, tree, &store, how)?;
                let images = [(name.clone(), tree.root.0.clone())];
                let host = Platform::host();
                output::to_file(path, |out| {
                    archive::save(&store, &images, Format::Docker, &host, out).map(drop)
                })
            }
        }
    }
}

/// Into a registry: blobs, then what names them, then the name.
fn send(
    source: &Source,
    tree: &Tree,
    remote: &Remote,
    name: &Reference,
    how: &CopyOptions,
) -> Result<()> {
    let all = |manifests: &mut dyn Iterator<Item = &Manifest>| {
        manifests.flat_map(Manifest::blobs).map(|d| d.digest.clone()).collect::<HashSet<_>>()
    };
    let sibling = match source {
        Source::Registry(from, _) => from.sibling_of(remote),
        Source::Layout(..) => None,
    };
    let siblings = sibling.map(|path| (path.to_owned(), all(&mut tree.manifests())));
    let siblings = siblings.into_iter().collect();
    let uploads = Uploads { remote, source: source.blobs(), siblings, how: how.uploads };
    uploads.send(tree.manifests())?;
    for (descriptor, document) in &tree.children {
        remote.put_manifest(&descriptor.digest.to_string(), descriptor, document.bytes())?;
    }
    let (descriptor, document) = &tree.root;
    match name.digest() {
        Some(digest) if *digest != descriptor.digest => {
            Err(Error::new(format!("{name}: what is copied has the digest {}", descriptor.digest)))
        }
        _ => remote.put_manifest(&name.target(), descriptor, document.bytes()),
    }
}

/// Into a layout: everything but the name.
fn fill(source: &Source, tree: &Tree, store: &Store, how: &CopyOptions) -> Result<()> {
    match source {
        Source::Registry(remote, _) => {
            registry::pull_blobs(remote, store, tree.manifests(), how.uploads.jobs)?;
        }
        Source::Layout(from, ..) => {
            let mut seen = HashSet::new();
            let wanted: VecDeque<&Descriptor> = tree
                .manifests()
                .flat_map(Manifest::blobs)
                .filter(|d| seen.insert(d.digest.clone()))
                // A foreign layer may stay where it is.
                .filter(|d| d.urls.is_empty() || from.has_blob(d))
                .collect();
            registry::in_parallel(how.uploads.jobs, wanted, |blob| match store.has_blob(blob) {
                true => Ok(()),
                false => store.put_reader(blob, from.open_blob(blob)?),
            })?;
        }
    }
    for (descriptor, document) in tree.children.iter().chain([&tree.root]) {
        store.put_reader(descriptor, document.bytes())?;
    }
    Ok(())
}

/// A directory for a temporary layout, in `$TMPDIR` or else `/var/tmp`, which goes away with the
/// value.
#[derive(Debug)]
pub struct Staging(PathBuf);

impl Staging {
    fn new() -> Result<Staging> {
        use std::os::unix::fs::DirBuilderExt;
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let parent = std::env::var_os("TMPDIR").filter(|v| !v.is_empty());
        let parent = parent.map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let dir = parent.join(format!("imgtool-copy-{}-{n}", std::process::id()));
            match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => return Ok(Staging(dir)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(Error::from(e).wrap(format!("create {}", dir.display()))),
            }
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Nobody to tell, and nothing to be done.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
