//! What was changed in a bundle since it was unpacked, as a layer.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::layer::{self, DiffOptions};
use crate::order;
use crate::snapshot::{self, Snapshots};
use crate::{Context, Error, Result};

use super::{Metadata, Rootfs, rootfs};

/// Writes the layer of a bundle's changes, uncompressed. The same changes give the same bytes.
///
/// Mount points that a runtime made for the bundle's own mounts are left out as long as they are
/// empty. Nobody should be writing into the bundle meanwhile; whether it is mounted is indifferent.
pub fn diff<W: Write>(bundle: &Path, metadata: &Metadata, writer: W) -> Result<W> {
    let mut options = DiffOptions {
        space: metadata.rootfs.space(),
        max_mtime: source_date_epoch()?,
        stubs: stubs(bundle)?,
        root: None,
        ownership: snapshot::ownership(),
    };
    let done = match &metadata.rootfs {
        Rootfs::Overlay { .. } => {
            let lowers = rootfs::lowers(metadata)?;
            options.root = Snapshots::root_like(&lowers)?.map(PathBuf::from);
            layer::from_upper(&bundle.join("overlay/upper"), &lowers, writer, &options)
        }
        Rootfs::Copy => {
            layer::from_index(&bundle.join("rootfs"), &bundle.join("index"), writer, &options)
        }
    };
    done.wrap(|| format!("changes of {}", bundle.display()))
}

/// `SOURCE_DATE_EPOCH`: no time in what is made may be later.
pub fn source_date_epoch() -> Result<Option<i64>> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Err(_) => Ok(None),
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => match text.parse::<i64>() {
            Ok(seconds) if seconds >= 0 => Ok(Some(seconds)),
            _ => Err(Error::new(format!("SOURCE_DATE_EPOCH={text:?}: not seconds since 1970"))),
        },
    }
}

/// Where config.json mounts things, with the directories above, and what runtimes add themselves.
fn stubs(bundle: &Path) -> Result<Vec<Vec<u8>>> {
    let path = bundle.join("config.json");
    let bytes = std::fs::read(&path).wrap(|| format!("read {}", path.display()))?;
    let config: Value =
        serde_json::from_slice(&bytes).wrap(|| format!("parse {}", path.display()))?;
    let mounts = config["mounts"].as_array().into_iter().flatten();
    let targets = mounts.filter_map(|mount| mount["destination"].as_str());
    let usual = ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/dev/console"];
    let mut stubs = Vec::new();
    for target in targets.chain(usual) {
        let parts: Vec<&str> = target.split('/').filter(|part| !part.is_empty()).collect();
        stubs.extend((1..=parts.len()).map(|n| parts[..n].join("/").into_bytes()));
    }
    order::sort(&mut stubs);
    stubs.dedup();
    Ok(stubs)
}
