//! COPY, ADD and WORKDIR: layers written without a container.

use std::rc::Rc;

use imgtool::bundle::user::Accounts;
use imgtool::descriptor::{Descriptor, media_type};

use super::{Builder, State};
use crate::cache::{Key, Record};
use crate::dockerignore::Ignore;
use crate::error::{Context, Error, Result};
use crate::files::collect::{self, Origin, Source};
use crate::files::mode::Mode;
use crate::files::stage::{Layout, Look};
use crate::files::tree::Tree;
use crate::steps::{Step, Transfer};

impl Builder<'_> {
    /// Executes WORKDIR: the directory belongs to `user`. One that exists makes no layer.
    pub(super) fn workdir(
        &mut self,
        path: &str,
        user: Option<&str>,
        step: &Step,
        label: &str,
        state: &State,
    ) -> Result<Record> {
        let mut key = self.key("workdir", state);
        key.field("path", path);
        key.optional("user", user);
        self.cached(key, step, label, |builder| {
            let base = builder.view(state)?;
            let owner = user.map(|user| owner(user, &base)).transpose()?;
            let mut layout = Layout::new(Some(&base), builder.look(owner, None));
            layout.directory(path)?;
            builder.store_layout(layout)
        })
    }

    /// Executes COPY or ADD.
    pub(super) fn transfer(
        &mut self,
        transfer: &Transfer,
        step: &Step,
        label: &str,
        state: &State,
    ) -> Result<Record> {
        let mode = transfer.chmod.as_deref().map(Mode::parse).transpose().map_err(Error::new)?;
        let platform = state.config.platform();
        let from = match &transfer.from {
            Some(source) => Some(self.source(source, &platform)?),
            None => None,
        };
        let tree = match &from {
            Some(state) => Rc::new(self.view(state)?),
            None => Rc::clone(&self.context.tree),
        };
        let sources = self.gather(transfer, &tree)?;
        let key = self.transfer_key(transfer, &sources, state);
        self.cached(key, step, label, |builder| {
            let base = builder.view(state)?;
            let owner = transfer.chown.as_deref().map(|text| chown(text, &base)).transpose()?;
            let below = (!transfer.link).then_some(&base);
            let mut layout = Layout::new(below, builder.look(owner, mode));
            builder.lay_out(&mut layout, transfer, &tree, &sources)?;
            builder.store_layout(layout)
        })
    }

    /// Everything that the sources name, hashed.
    fn gather(&self, transfer: &Transfer, tree: &Tree) -> Result<Vec<Source>> {
        let none = Ignore::default();
        let origin = match &transfer.from {
            Some(_) => {
                Origin { tree, name: "the source image", ignore: &none, keep_identity: true }
            }
            None => Origin {
                tree,
                name: "the build context",
                ignore: &self.context.ignore,
                keep_identity: false,
            },
        };
        let exclude = Ignore::of_patterns(&transfer.exclude).wrap(|| "--exclude")?;
        let mut sources = Vec::new();
        for pattern in &transfer.sources {
            let found = origin.gather(pattern, &exclude)?;
            if found.is_empty() {
                self.log.warn(&format!("{pattern:?} matches nothing in {}", origin.name));
            }
            sources.extend(found);
        }
        collect::hash(tree, &mut sources)?;
        Ok(sources)
    }

    fn transfer_key(&self, transfer: &Transfer, sources: &[Source], state: &State) -> Key {
        let mut key = self.key("transfer", state);
        key.field("destination", &transfer.destination);
        key.optional("chown", transfer.chown.as_deref());
        key.optional("chmod", transfer.chmod.as_deref());
        key.field("link", transfer.link.to_string());
        key.field("unpack", transfer.unpack.to_string());
        key.field("identity", transfer.from.is_some().to_string());
        key.field("several", transfer.is_several(sources).to_string());
        key.field("sources", sources.len().to_string());
        for source in sources {
            key.field("name", source.name.as_encoded_bytes());
            key.field("items", source.items.len().to_string());
            for item in &source.items {
                collect::identify(item, |value| key.field("item", value));
                let link = link_of(source, item.inode);
                key.field("link", link.map(|index| index.to_string()).unwrap_or_default());
            }
        }
        for file in &transfer.files {
            key.field("file", &file.name);
            key.field("content", &file.content);
        }
        key
    }

    fn lay_out(
        &self,
        layout: &mut Layout<'_>,
        transfer: &Transfer,
        tree: &Rc<Tree>,
        sources: &[Source],
    ) -> Result<()> {
        let destination = &transfer.destination;
        if transfer.is_several(sources)
            && !destination.ends_with('/')
            && !layout.is_dir(destination)?
        {
            return Err(Error::new(format!(
                "several sources need a directory to go to: end {destination} with a /"
            )));
        }
        if destination.ends_with('/') {
            layout.directory(destination)?;
        }
        for source in sources {
            let unpacked = match transfer.unpack && !source.is_dir() {
                true => self.unpack(tree, source)?,
                false => None,
            };
            let what = || format!("{:?}", source.name);
            match unpacked {
                Some((tree, contents)) => {
                    layout.directory(destination).wrap(what)?;
                    layout.set_keep_time(true);
                    layout.place(&tree, &contents, destination).wrap(what)?;
                    layout.set_keep_time(false);
                }
                None => layout.place(tree, source, destination).wrap(what)?,
            }
        }
        for file in &transfer.files {
            layout.inline(&file.name, &file.content, destination)?;
        }
        Ok(())
    }

    pub(super) fn look(&self, owner: Option<(u32, u32)>, mode: Option<Mode>) -> Look {
        Look { owner, mode, time: self.options.epoch, keep_time: false }
    }

    /// Stores the layer, if it changes anything.
    fn store_layout(&self, layout: Layout<'_>) -> Result<Option<Descriptor>> {
        if !layout.is_changed() {
            return Ok(None);
        }
        let mut blob = self.store.add_blob()?;
        layout.write(std::io::BufWriter::new(&mut blob))?;
        let (digest, size) = blob.commit()?;
        Ok(Some(Descriptor::new(media_type::OCI_LAYER, digest, size)))
    }
}

impl Transfer {
    /// Are there several things to copy, directly or through a wildcard?
    fn is_several(&self, sources: &[Source]) -> bool {
        sources.len().max(self.sources.len()) + self.files.len() > 1
    }
}

/// Which earlier item of the source is another name of the same file.
fn link_of(source: &Source, inode: Option<(u64, u64)>) -> Option<usize> {
    let inode = inode?;
    source.items.iter().position(|item| item.inode == Some(inode))
}

/// `--chown=USER[:GROUP]`: a number alone is also the group's; a name brings its own group.
fn chown(text: &str, root: &Tree) -> Result<(u32, u32)> {
    match text.parse::<u32>() {
        Ok(id) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok((id, id)),
        _ => owner(text, root).wrap(|| format!("--chown={text}")),
    }
}

/// The ids of `USER[:GROUP]` by the passwd and group files of `root`.
fn owner(text: &str, root: &Tree) -> Result<(u32, u32)> {
    let user = Accounts::read(root.root())?.resolve(text, &[])?;
    Ok((user.uid, user.gid))
}
