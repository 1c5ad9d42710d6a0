//! The bundle's root file system: an overlay of shared layers, or a copy.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::layer::{self, Whiteouts, XattrSpace};
use crate::overlay::{self, Layers, Outcome};
use crate::platform::Platform;
use crate::snapshot::{self, Snapshots};
use crate::store::Store;
use crate::{Context, Error, Result};

use super::{Metadata, Request, Rootfs};

/// Makes BUNDLE/rootfs.
pub(super) fn make(request: &Request<'_>, bundle: &Path) -> Result<Rootfs> {
    make_dir(&bundle.join("rootfs"), 0o755)?;
    if !request.copy {
        match overlay(request, bundle)? {
            Outcome::Mounted(rootfs) => return Ok(rootfs),
            Outcome::Impossible(why) => {
                let notice =
                    format!("overlay cannot be used here, so the layers are copied: {why}");
                request.notices.line(&notice);
            }
        }
    }
    copy(request, bundle)?;
    Ok(Rootfs::Copy)
}

fn overlay(request: &Request<'_>, bundle: &Path) -> Result<Outcome<Rootfs>> {
    // An unprivileged user's mount would be gone with the namespace it is made in: with ours.
    if !rustix::process::geteuid().is_root() {
        return Ok(Outcome::Impossible("mounting needs root".to_owned()));
    }
    let snapshots = Snapshots::open(request.store)?.showing(request.progress);
    let lowers = match snapshots.ensure(request.image)? {
        Outcome::Mounted(lowers) => lowers,
        Outcome::Impossible(why) => return Ok(Outcome::Impossible(why)),
    };
    let dir = bundle.join("overlay");
    make_dir(&dir, 0o700)?;
    make_dir(&dir.join("upper"), 0o755)?;
    make_dir(&dir.join("work"), 0o700)?;
    // The root of the merged tree is the upper directory's.
    if let Some(like) = Snapshots::root_like(&lowers)? {
        layer::copy_attributes(like, &dir.join("upper"))?;
    }
    let done = mount_layers(bundle, &lowers, snapshots.space())?;
    if let Outcome::Impossible(why) = done {
        fs::remove_dir_all(&dir).wrap(|| dir.display().to_string())?;
        return Ok(Outcome::Impossible(why));
    }
    let store = request.store.root();
    let lowers = lowers.iter().map(|l| l.strip_prefix(store).unwrap_or(l).to_owned()).collect();
    let userxattr = snapshots.space() == XattrSpace::User;
    Ok(Outcome::Mounted(Rootfs::Overlay { lowers, userxattr }))
}

fn mount_layers(bundle: &Path, lowers: &[PathBuf], space: XattrSpace) -> Result<Outcome<()>> {
    let dir = bundle.join("overlay");
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    overlay::mount(Layers { lowers, upper: Some((&upper, &work)), space }, &bundle.join("rootfs"))
}

fn copy(request: &Request<'_>, bundle: &Path) -> Result<()> {
    let path = bundle.join("rootfs");
    let root = File::open(&path).wrap(|| format!("open {}", path.display()))?;
    for (blob, id) in request.image.layers() {
        let bar = request.progress.bar(id.short(), Some(blob.size));
        let options = layer::Options {
            whiteouts: Whiteouts::Remove,
            ownership: snapshot::ownership(),
            diff_id: Some(id.clone()),
            ..Default::default()
        };
        let applied =
            layer::apply(bar.reader(request.store.open_blob(blob)?), root.as_fd(), &options);
        bar.clear();
        applied.wrap(|| format!("unpack layer {id}"))?;
    }
    Ok(())
}

/// What is left to do when the tree is as it will be handed over.
pub(super) fn finish(rootfs: &Rootfs, bundle: &Path) -> Result<()> {
    match rootfs {
        Rootfs::Overlay { .. } => Ok(()),
        Rootfs::Copy => {
            let root = bundle.join("rootfs");
            let index = bundle.join("index");
            layer::write_index(&root, &index).wrap(|| format!("write {}", index.display()))
        }
    }
}

/// Mounts the root file system of a bundle again, if it is an overlay and not mounted. Idempotent.
pub fn mount(bundle: &Path) -> Result<()> {
    let metadata = Metadata::read(bundle)?;
    let bundle = bundle.canonicalize().wrap(|| bundle.display().to_string())?;
    if metadata.rootfs == Rootfs::Copy || overlay::is_mount_point(&bundle.join("rootfs"))? {
        return Ok(());
    }
    let lowers = lowers(&metadata)?;
    match mount_layers(&bundle, &lowers, metadata.rootfs.space())? {
        Outcome::Mounted(()) => Ok(()),
        Outcome::Impossible(why) => Err(Error::new(format!(
            "mount {}: overlay cannot be used here: {why}",
            bundle.display()
        ))),
    }
}

/// The lower directories of an overlay, topmost first.
pub(super) fn lowers(metadata: &Metadata) -> Result<Vec<PathBuf>> {
    let Rootfs::Overlay { lowers, .. } = &metadata.rootfs else { return Ok(Vec::new()) };
    let lowers: Vec<PathBuf> = lowers.iter().map(|l| metadata.store.join(l)).collect();
    match lowers.iter().all(|lower| lower.exists()) {
        true => Ok(lowers),
        false => extract_again(metadata),
    }
}

/// Snapshots are a cache: what was removed comes back from the store's blobs.
fn extract_again(metadata: &Metadata) -> Result<Vec<PathBuf>> {
    let store = Store::open(&metadata.store)?;
    let image = store
        .image(&metadata.manifest, &Platform::host())
        .wrap(|| format!("extract the layers of {} again", metadata.name))?;
    match Snapshots::open(&store)?.ensure(&image)? {
        Outcome::Mounted(lowers) => Ok(lowers),
        Outcome::Impossible(why) => Err(Error::new(format!("overlay cannot be used here: {why}"))),
    }
}

/// Unmounts the root file system of a bundle, if it is mounted. Idempotent; a copy stays as it is.
pub fn umount(bundle: &Path) -> Result<()> {
    match Metadata::read(bundle)?.rootfs {
        Rootfs::Overlay { .. } => overlay::umount(&bundle.join("rootfs")),
        Rootfs::Copy => Ok(()),
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new().mode(mode).create(path).wrap(|| format!("make {}", path.display()))
}
