//! The user's mounts and the image's volumes, as runtime-spec's mounts.

use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::order;
use crate::{Context, Error, Result};

use super::Request;
use super::mounts;
use super::parse::{self, Binding, Source};

/// All of them; directories for volumes are made, and filled from the image where they are new.
pub(super) fn resolve(
    request: &Request<'_>,
    bundle: &Path,
    root: BorrowedFd<'_>,
) -> Result<Vec<Value>> {
    let settings = request.settings;
    let mut bindings: Vec<Binding> =
        settings.volume.iter().chain(&settings.mount).cloned().collect();
    let mut mounts: Vec<Value> =
        settings.tmpfs.iter().map(|t| mounts::tmpfs(&t.target, &t.options)).collect();
    for path in request.image.config.volumes() {
        let volume = parse::volume(&path)
            .map_err(|e| Error::new(format!("the image's volume {path:?}: {e}")))?;
        let given = bindings.iter().any(|b| b.target == volume.target)
            || settings.tmpfs.iter().any(|t| t.target == volume.target);
        if !given {
            bindings.push(volume);
        }
    }
    for (number, binding) in bindings.iter().enumerate() {
        let mount = one(request, bundle, root, number, binding);
        mounts.push(mount.wrap(|| format!("volume at {}", binding.target))?);
    }
    duplicates(&mounts)?;
    Ok(mounts)
}

fn duplicates(mounts: &[Value]) -> Result<()> {
    let mut targets: Vec<&str> = mounts.iter().filter_map(|m| m["destination"].as_str()).collect();
    order::sort(&mut targets);
    match targets.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::usage(format!("two mounts at {}", pair[0]))),
        None => Ok(()),
    }
}

fn one(
    request: &Request<'_>,
    bundle: &Path,
    root: BorrowedFd<'_>,
    number: usize,
    binding: &Binding,
) -> Result<Value> {
    if binding.relabel && Path::new("/sys/fs/selinux/enforce").exists() {
        return Err(Error::new("this host has SELinux, and relabelling (z, Z) is not supported"));
    }
    let source = match &binding.source {
        Source::Tmpfs(options) => {
            let mut options = options.clone();
            if binding.read_only {
                options.push("ro".to_owned());
            }
            return Ok(mounts::tmpfs(&binding.target, &options));
        }
        Source::Host { path, create } => host_path(path, *create)?,
        Source::Named(name) => {
            let volumes = request.store.private_dir("volumes")?;
            volume(&volumes.join(name), root, binding)?
        }
        Source::Anonymous => {
            let volumes = bundle.join("volumes");
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(&volumes)
                .wrap(|| volumes.display().to_string())?;
            volume(&volumes.join(number.to_string()), root, binding)?
        }
    };
    let source = source.to_str().ok_or_else(|| Error::new("its path is not UTF-8"))?;
    let mut options = vec![if binding.recursive { "rbind" } else { "bind" }];
    options.push(if binding.read_only { "ro" } else { "rw" });
    options.push(&binding.propagation);
    Ok(json!({
        "destination": binding.target, "type": "bind", "source": source, "options": options,
    }))
}

fn host_path(path: &str, create: bool) -> Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(path) => Ok(path),
        Err(e) if create && e.kind() == std::io::ErrorKind::NotFound => {
            fs::create_dir_all(path).wrap(|| format!("make {path}"))?;
            fs::canonicalize(path).wrap(|| path.to_owned())
        }
        Err(e) => Err(Error::from(e).wrap(path)),
    }
}

/// The volume's directory; a new one starts with what the image has in its place.
fn volume(dir: &Path, root: BorrowedFd<'_>, binding: &Binding) -> Result<PathBuf> {
    let intent = || dir.display().to_string();
    match fs::DirBuilder::new().mode(0o755).create(dir) {
        Ok(()) if binding.copy => {
            let copied = crate::layer::copy_tree(root, binding.target.as_bytes(), dir);
            if copied.is_err() {
                // The error tells what happened; a half-filled volume must not look like a volume.
                let _ = fs::remove_dir_all(dir);
            }
            copied.wrap(intent)?;
        }
        Ok(()) => (),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => (),
        Err(e) => return Err(Error::from(e).wrap(intent())),
    }
    fs::canonicalize(dir).wrap(intent)
}
