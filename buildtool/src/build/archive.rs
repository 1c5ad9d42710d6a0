//! Archives that ADD unpacks: tar, plain or compressed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use imgtool::layer::{self, Options};

use super::Builder;
use crate::dockerignore::Ignore;
use crate::error::{Context, Error, Result};
use crate::files::collect::{self, Origin, Source};
use crate::files::tree::Tree;

/// How an archive is packed, by its first bytes (never by its name).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    /// What the layer code reads itself: tar, also under gzip or zstd.
    Native,
    /// What this program unpacks, as dockerd does with xz.
    Filter(&'static str),
}

fn packing(start: &[u8]) -> Option<Packing> {
    match start {
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::Native),
        [b'B', b'Z', b'h', ..] => Some(Packing::Filter("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Packing::Filter("xz")),
        block if is_tar(block) => Some(Packing::Native),
        _ => None,
    }
}

/// Does the block carry a tar header's checksum?
fn is_tar(block: &[u8]) -> bool {
    let Some(block) = block.get(..512) else { return false };
    let field = String::from_utf8_lossy(&block[148..156]);
    let Ok(stated) = u64::from_str_radix(field.trim_matches(['\0', ' ']), 8) else { return false };
    let summed: u64 = block
        .iter()
        .enumerate()
        .map(|(i, byte)| match i {
            148..156 => 32,
            _ => u64::from(*byte),
        })
        .sum();
    stated == summed
}

/// The first bytes of what `reader` yields, at most `count`.
fn start_of(reader: &mut impl Read, count: u64) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    reader.take(count).read_to_end(&mut start)?;
    Ok(start)
}

impl Builder<'_> {
    /// The contents of `source` if it is a tar archive, else `None`.
    pub(super) fn unpack(
        &self,
        tree: &Tree,
        source: &Source,
    ) -> Result<Option<(Rc<Tree>, Source)>> {
        let Some(item) = source.items.first() else { return Ok(None) };
        if item.digest.is_none() {
            return Ok(None);
        }
        let mut file = tree.file(&item.path)?;
        let Some(packing) = packing(&start_of(&mut file, 512)?) else { return Ok(None) };
        file.seek(SeekFrom::Start(0))?;
        if !holds_tar(&mut file, packing)? {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(0))?;
        let directory = self.workspace.directory("archive")?;
        let root = File::open(&directory).wrap(|| format!("open {}", directory.display()))?;
        let what = || format!("unpack {:?}", source.name);
        match packing {
            Packing::Native => {
                drop(layer::apply(file, root.as_fd(), &Options::default()).wrap(what)?)
            }
            Packing::Filter(program) => {
                let mut filter = filter(program, file)?;
                let output = filter.stdout.take().ok_or_else(|| Error::new("no pipe"))?;
                layer::apply(output, root.as_fd(), &Options::default()).wrap(what)?;
                let status = filter.wait().wrap(what)?;
                if !status.success() {
                    return Err(Error::new(format!("{program} failed: {status}")).wrap(what()));
                }
            }
        }
        let tree = Rc::new(Tree::open(&directory)?);
        let none = Ignore::default();
        let origin =
            Origin { tree: &tree, name: "the archive", ignore: &none, keep_identity: true };
        let mut sources = origin.gather("/", &none)?;
        collect::hash(&tree, &mut sources)?;
        Ok(sources.pop().map(|contents| (tree, contents)))
    }
}

/// Is there a tar archive under the compression? (A gzipped file that is none is just a file.)
fn holds_tar(file: &mut File, packing: Packing) -> Result<bool> {
    let start = match packing {
        Packing::Native => match layer::decoder(file) {
            Ok(mut decoded) => start_of(&mut decoded, 512).unwrap_or_default(),
            Err(_) => return Ok(false),
        },
        Packing::Filter(program) => {
            let mut filter = filter(program, file.try_clone()?)?;
            let start = match &mut filter.stdout {
                Some(output) => start_of(output, 512)?,
                None => Vec::new(),
            };
            drop(filter.stdout.take());
            // It was not read to its end, so how it exits says nothing.
            filter.wait()?;
            start
        }
    };
    Ok(is_tar(&start))
}

/// `program -dc` on `input`.
fn filter(program: &'static str, input: File) -> Result<Child> {
    Command::new(program)
        .arg("-dc")
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .wrap(|| format!("the archive is compressed with {program}: execute {program}"))
}
