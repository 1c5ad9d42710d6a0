//! Where a finished image goes: the store, an archive, or a flat root file system.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use imgtool::archive::{self, Format};
use imgtool::descriptor::Descriptor;
use imgtool::layer::{self, Options};
use imgtool::output::Stdout;
use imgtool::platform::Platform;
use imgtool::reference::Reference;
use imgtool::store::Store;

use crate::dockerignore::Ignore;
use crate::error::{Context, Error, Result};
use crate::files::collect::Origin;
use crate::files::stage::{Layout, Look};
use crate::files::tree::Tree;
use crate::parse::suggest;

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An OCI image layout in a tar.
    Oci,
    /// A docker-archive.
    Docker,
    /// The root file system as a tar.
    Tar,
    /// The root file system as a directory.
    Local,
}

/// What to write where; `None` is stdout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What.
    pub kind: Kind,
    /// Where.
    pub destination: Option<PathBuf>,
}

/// Parses the value of `--output`.
pub fn parse(text: &str) -> std::result::Result<Output, String> {
    if text == "-" {
        return Ok(Output { kind: Kind::Tar, destination: None });
    }
    if !text.contains('=') {
        return Ok(Output { kind: Kind::Local, destination: Some(text.into()) });
    }
    let (mut kind, mut destination) = (None, None);
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("type", value)) => kind = Some(parse_kind(value)?),
            Some(("dest" | "d", value)) if !value.is_empty() => destination = Some(value),
            _ => return Err(format!("unexpected {field:?}: expected type=TYPE,dest=PATH")),
        }
    }
    let kind = kind.ok_or("no type: expected type=oci|docker|tar|local,dest=PATH")?;
    let destination = destination.filter(|path| *path != "-").map(PathBuf::from);
    match (kind, &destination) {
        (Kind::Local, None) => Err("type=local needs dest=DIRECTORY".into()),
        _ => Ok(Output { kind, destination }),
    }
}

fn parse_kind(text: &str) -> std::result::Result<Kind, String> {
    match text {
        "oci" => Ok(Kind::Oci),
        "docker" => Ok(Kind::Docker),
        "tar" => Ok(Kind::Tar),
        "local" => Ok(Kind::Local),
        other => {
            let message = format!("unsupported output type {other:?}");
            Err(suggest::append(message, other, &["oci", "docker", "tar", "local"]))
        }
    }
}

impl Output {
    /// Does the result itself go to stdout?
    pub fn is_stdout(&self) -> bool {
        self.destination.is_none()
    }

    /// Refuses what can be refused before anything is built.
    pub fn check(&self) -> Result<()> {
        match (&self.destination, self.kind) {
            (None, _) if io::stdout().is_terminal() => Err(Error::usage(
                "refusing to write an archive to a terminal: use dest=FILE or a pipe",
            )),
            (Some(path), Kind::Local) if path.exists() && !path.is_dir() => {
                Err(Error::usage(format!("--output: {} is not a directory", path.display())))
            }
            (Some(path), kind) if kind != Kind::Local && path.is_dir() => {
                Err(Error::usage(format!("--output: {} is a directory", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// Writes the image as an archive.
    pub fn archive(
        &self,
        store: &Store,
        names: &[Reference],
        image: &Descriptor,
        platform: &Platform,
    ) -> Result<()> {
        let format = if self.kind == Kind::Docker { Format::Docker } else { Format::Oci };
        let mut images: Vec<_> =
            names.iter().map(|name| (Some(name.clone()), image.clone())).collect();
        if images.is_empty() {
            images.push((None, image.clone()));
        }
        self.write(|out| {
            archive::save(store, &images, format, platform, out)?;
            Ok(())
        })
    }

    /// Writes the root file system `tree`.
    pub fn rootfs(&self, tree: &Rc<Tree>) -> Result<()> {
        match (&self.destination, self.kind) {
            (Some(directory), Kind::Local) => local(tree, directory),
            _ => self.write(|out| flat(tree, out)),
        }
    }

    /// Has `fill` write to the destination; a file appears complete or not at all.
    fn write(&self, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let Some(path) = &self.destination else {
            let mut out = Stdout::for_archive()?;
            fill(&mut out)?;
            return Ok(out.finish()?);
        };
        let what = || format!("write {}", path.display());
        let mut temporary = path.clone().into_os_string();
        temporary.push(format!(".{}", crate::cache::unique()));
        let temporary = PathBuf::from(temporary);
        let written = (|| {
            let mut out = BufWriter::new(File::create_new(&temporary)?);
            fill(&mut out)?;
            out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            Ok(fs::rename(&temporary, path)?)
        })();
        if written.is_err() {
            // Best effort: the failure itself is what matters.
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(|error: Error| error.wrap(what()))
    }
}

/// The whole tree as a tar, sorted, with its own owners and times.
fn flat(tree: &Rc<Tree>, out: &mut dyn Write) -> Result<()> {
    let none = Ignore::default();
    let origin = Origin { tree, name: "the image", ignore: &none, keep_identity: true };
    let look = Look { owner: None, mode: None, time: i64::MAX, keep_time: true };
    let mut layout = Layout::new(None, look);
    for source in origin.gather("/", &none)? {
        layout.place(tree, &source, "/")?;
    }
    layout.write(out)
}

fn local(tree: &Rc<Tree>, directory: &Path) -> Result<()> {
    let what = || format!("write the root file system to {}", directory.display());
    fs::create_dir_all(directory).wrap(what)?;
    let root = File::open(directory).wrap(what)?;
    let (reader, writer) = io::pipe().wrap(what)?;
    std::thread::scope(|scope| {
        let root = root.as_fd();
        let unpacked = scope.spawn(move || layer::apply(reader, root, &Options::default()));
        let mut writer = BufWriter::new(writer);
        let written = flat(tree, &mut writer);
        drop(writer);
        let unpacked = unpacked.join().map_err(|_| Error::new("the unpacking thread panicked"))?;
        unpacked.wrap(what)?;
        written.wrap(what)
    })
}
