//! The files of a state: its snapshots, and an overlay of them to read.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use imgtool::descriptor::Descriptor;
use imgtool::image::{Image, Manifest};
use imgtool::overlay::{self, Layers, Outcome};
use imgtool::snapshot::Snapshots;

use super::{Builder, State};
use crate::error::{Error, Result};
use crate::files::tree::Tree;

/// Overlay is what a build stands on; where it does not work there is nothing to fall back to.
pub(super) fn required<T>(outcome: Outcome<T>) -> Result<T> {
    match outcome {
        Outcome::Mounted(value) => Ok(value),
        Outcome::Impossible(why) => Err(Error::new(format!(
            "no overlay on this file system: {why}: put the store on another one with --store"
        ))),
    }
}

impl State {
    /// The state as an image; its manifest is in no store.
    pub fn image(&self) -> Image {
        let config =
            Descriptor::of(imgtool::descriptor::media_type::OCI_CONFIG, &self.config.to_bytes());
        let manifest = Manifest::new(config, self.layers.clone());
        Image { descriptor: manifest.descriptor(), manifest, config: self.config.clone() }
    }
}

impl Builder<'_> {
    /// The directories of `state`'s layers, topmost first.
    pub(super) fn lowers(&self, state: &State) -> Result<Vec<PathBuf>> {
        required(Snapshots::open(self.store)?.ensure(&state.image())?)
    }

    /// The files of `state`, to read. The mount lives as long as the tree.
    pub fn view(&self, state: &State) -> Result<Tree> {
        Ok(Tree::of(self.mounted(self.lowers(state)?)?))
    }

    /// A read-only overlay of `lowers`, mounted nowhere.
    pub(super) fn mounted(&self, mut lowers: Vec<PathBuf>) -> Result<OwnedFd> {
        if lowers.len() == 1 {
            // An overlay without an upper directory needs two layers.
            lowers.push(self.workspace.directory("empty")?);
        }
        let space = imgtool::snapshot::space();
        required(overlay::detached(Layers { lowers: &lowers, upper: None, space })?)
    }
}
