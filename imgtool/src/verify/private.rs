//! What is ours alone, below `davit/`: the map of compressed layers, temporary files, snapshots.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde_json::Value;

use crate::Result;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::store::{Store, partial};

use super::{Begun, Damage, Leftover, Report, names};

pub(super) fn check(store: &Store, report: &mut Report) -> Result<()> {
    compressed(store, report)?;
    temporary(store, report)?;
    for space in ["trusted", "user"] {
        snapshots(store, &Path::new("davit/snapshots").join(space), report)?;
    }
    Ok(())
}

fn compressed(store: &Store, report: &mut Report) -> Result<()> {
    let dir = Path::new("davit/compressed");
    for name in names(&store.root().join(dir))? {
        let what = dir.join(&name);
        let id = Digest::parse(&format!("sha256:{}", name.display()));
        let bytes = std::fs::read(store.root().join(&what))?;
        match (id, serde_json::from_slice::<Descriptor>(&bytes)) {
            (Err(_), _) => leftover(report, what, "not the name of a layer"),
            (_, Err(e)) => damage(report, what, format!("no descriptor: {e}"), true),
            (Ok(_), Ok(blob)) if !store.has_blob(&blob) => {
                leftover(report, what, "the compressed layer is not there");
            }
            _ => (),
        }
    }
    Ok(())
}

/// Files whose writers are gone hold no lock. Those of a download wait for whoever continues it.
fn temporary(store: &Store, report: &mut Report) -> Result<()> {
    let dir = Path::new("davit/tmp");
    for name in names(&store.root().join(dir))? {
        let what = dir.join(&name);
        let path = store.root().join(&what);
        if !is_unlocked(&path) {
            continue;
        }
        match (partial::blob_of(&name.to_string_lossy()), path.symlink_metadata()) {
            (Some(blob), Ok(meta)) if meta.is_file() => {
                report.begun.push(Begun { what, blob, bytes: meta.len() });
            }
            _ => leftover(report, what, "half written by a process that is gone"),
        }
    }
    Ok(())
}

fn is_unlocked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| {
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
    })
}

fn snapshots(store: &Store, dir: &Path, report: &mut Report) -> Result<()> {
    for name in names(&store.root().join(dir))? {
        let what = dir.join(&name);
        let name = name.to_string_lossy();
        let lock = |key: &str| store.root().join(dir).join(format!("{key}.lock"));
        match name.rsplit_once('.') {
            Some((key, "tmp")) if is_unlocked(&lock(key)) || !lock(key).exists() => {
                leftover(report, what, "half unpacked by a process that is gone");
            }
            Some((_, "tmp" | "lock" | "leans")) => (),
            None if name == "empty" => (),
            _ => match snapshot(&store.root().join(&what), &name) {
                Ok(()) => (),
                // A bundle may be mounted on it: not ours to remove.
                Err(why) => damage(report, what, why, false),
            },
        }
    }
    Ok(())
}

/// A finished snapshot names the layer that it is, and has a tree. (Its files are not read: a mount
/// does not read them either before somebody asks for them.)
fn snapshot(path: &Path, name: &str) -> std::result::Result<(), String> {
    let bytes = std::fs::read(path.join("info.json")).map_err(|e| format!("info.json: {e}"))?;
    let info: Value = serde_json::from_slice(&bytes).map_err(|e| format!("info.json: {e}"))?;
    let id = info.get("diff_id").and_then(Value::as_str).unwrap_or_default();
    let id = Digest::parse(id).map_err(|e| format!("info.json: {e}"))?;
    let key = format!("{}-{}", id.algorithm().name(), id.hex());
    if !name.starts_with("chain-") && name != key {
        return Err(format!("it is of layer {id}, but its name says another"));
    }
    match path.join("fs").symlink_metadata() {
        Ok(meta) if meta.is_dir() => Ok(()),
        _ => Err("it has no tree".to_owned()),
    }
}

fn damage(report: &mut Report, what: PathBuf, why: String, removable: bool) {
    report.damage.push(Damage { what, why, used_by: Default::default(), removable });
}

fn leftover(report: &mut Report, what: PathBuf, why: &str) {
    report.leftovers.push(Leftover { what, why: why.to_owned() });
}
