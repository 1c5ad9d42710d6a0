//! The command line: what is common to all verbs, and which verbs there are.
//!
//! Parsing does no I/O. A verb is a file in `verb/` with its `Args` and its `run`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

use crate::Result;
use crate::store::{self, Store};
use crate::verb::{
    append, attach, catalog, commit, completions, config, copy, delete, diff, digest, export,
    flatten, gc, history, import, inspect, load, login, ls, man, mount, pull, push, rebase, rm,
    save, search, tag, tags, tree, umount, unpack, verify,
};

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let commit = option_env!("DAVIT_COMMIT").unwrap_or("unknown");
    format!("version {}\ncommit: {commit}", env!("CARGO_PKG_VERSION"))
});

/// Move container images between registries, archives and a local store.
#[derive(Debug, Parser)]
#[command(name = "imgtool", version = VERSION.as_str(), disable_help_subcommand = true)]
pub struct Cli {
    /// What is common to all verbs.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options that every verb takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Globals {
    /// Directory of the store, an OCI image layout [default: $DAVIT_STORE, else
    /// /var/lib/davit/store for root, ~/.local/share/davit/store for others]
    #[arg(long, value_name = "DIR", global = true)]
    pub store: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

impl Globals {
    /// Opens the store that the options, or else the environment, name.
    pub fn open_store(&self) -> Result<Store> {
        match &self.store {
            Some(path) => Store::open(path),
            None => Store::open(store::default_root()?),
        }
    }
}

/// All verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    // Registries and archives.
    /// Pull an image from a registry
    Pull(pull::Args),
    /// Push an image to a registry
    Push(push::Args),
    /// Copy an image between registries, layouts, archives and the store
    Copy(Box<copy::Args>),
    /// Show the digest that a name has in a registry
    Digest(digest::Args),
    /// List the tags of a repository in a registry
    #[command(visible_alias = "list-tags")]
    Tags(tags::Args),
    /// Delete an image or a tag from a registry
    Delete(delete::Args),
    /// List the repositories of a registry
    Catalog(catalog::Args),
    /// Look for images in a registry
    Search(search::Args),
    /// Attach files to an image in a registry
    Attach(attach::Args),
    /// List what refers to an image in a registry: signatures, attestations, attached files
    Discover(attach::DiscoverArgs),
    /// Move files to and from a registry
    Artifact(attach::ArtifactArgs),
    /// Check credentials for a registry and keep them
    Login(login::Args),
    /// Forget credentials for a registry
    Logout(login::LogoutArgs),
    /// Load images from an archive: docker-archive or oci-archive
    Load(load::Args),
    /// Save images as an archive that is a docker-archive and an oci-archive
    Save(save::Args),
    /// Make an image of an archive of a root file system
    Import(Box<import::Args>),
    /// Write an image's root file system as one archive
    Export(export::Args),

    // The store.
    /// List the images in the store
    Ls(ls::Args),
    /// Give an image more names
    Tag(tag::Args),
    /// Remove images from the store
    Rm(rm::Args),
    /// Remove from the store what no image uses
    Gc(gc::Args),
    /// Show an image's manifest and configuration
    Inspect(inspect::Args),
    /// Show how an image came to be
    History(history::Args),
    /// Show an image's parts, their sizes, and what shares them
    Tree(tree::Args),
    /// Verify everything in the store
    #[command(visible_alias = "fsck")]
    Verify(verify::Args),

    // New images of old ones.
    /// Change an image's settings
    Config(Box<config::Args>),
    /// Put layers on top of an image
    Append(append::Args),
    /// Make one layer of all layers of an image
    Flatten(flatten::Args),
    /// Put an image on another base
    Rebase(rebase::Args),

    // Bundles.
    /// Unpack an image into a bundle that an OCI runtime can run
    Unpack(Box<unpack::Args>),
    /// Mount a bundle's root file system again, after a reboot
    Mount(mount::Args),
    /// Unmount a bundle's root file system
    Umount(umount::Args),
    /// Write what was changed in a bundle, as a layer, to standard output; or list what is
    /// different in two images
    Diff(diff::Args),
    /// Make a new image of a bundle's image and changes
    Commit(commit::Args),

    // The program itself.
    /// Write a completion script for a shell to standard output
    Completions(completions::Args),
    /// Write the manual pages into a directory
    Man(man::Args),
}

/// Does what the command line says.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let globals = &cli.globals;
    match cli.verb {
        Verb::Pull(args) => pull::run(args, globals)?,
        Verb::Push(args) => push::run(args, globals)?,
        Verb::Copy(args) => copy::run(*args, globals)?,
        Verb::Digest(args) => digest::run(args, globals)?,
        Verb::Tags(args) => tags::run(args, globals)?,
        Verb::Delete(args) => delete::run(args, globals)?,
        Verb::Catalog(args) => catalog::run(args, globals)?,
        Verb::Search(args) => search::run(args, globals)?,
        Verb::Attach(args) => attach::run(args, globals)?,
        Verb::Discover(args) => attach::discover(args, globals)?,
        Verb::Artifact(args) => attach::artifact(args, globals)?,
        Verb::Login(args) => login::run(args, globals)?,
        Verb::Logout(args) => login::logout(args, globals)?,
        Verb::Load(args) => load::run(args, globals)?,
        Verb::Save(args) => save::run(args, globals)?,
        Verb::Import(args) => import::run(*args, globals)?,
        Verb::Export(args) => export::run(args, globals)?,

        Verb::Ls(args) => ls::run(args, globals)?,
        Verb::Tag(args) => tag::run(args, globals)?,
        Verb::Rm(args) => rm::run(args, globals)?,
        Verb::Gc(args) => gc::run(args, globals)?,
        Verb::Inspect(args) => inspect::run(args, globals)?,
        Verb::History(args) => history::run(args, globals)?,
        Verb::Tree(args) => tree::run(args, globals)?,
        Verb::Verify(args) => verify::run(args, globals)?,

        Verb::Config(args) => config::run(*args, globals)?,
        Verb::Append(args) => append::run(args, globals)?,
        Verb::Flatten(args) => flatten::run(args, globals)?,
        Verb::Rebase(args) => rebase::run(args, globals)?,

        Verb::Unpack(args) => unpack::run(*args, globals)?,
        Verb::Mount(args) => mount::run(args)?,
        Verb::Umount(args) => umount::run(args)?,
        Verb::Diff(args) => diff::run(args, globals)?,
        Verb::Commit(args) => commit::run(args, globals)?,

        Verb::Completions(args) => completions::run(args)?,
        Verb::Man(args) => man::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn definitions_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
