//! Bundles: an image as a directory that an OCI runtime can run.
//!
//! `config.json` follows image-spec's conversion.md and docker run's settings ([`spec`]); `rootfs`
//! is an overlay of the image's layers, shared with every other bundle, or a full copy;
//! `davit.json` remembers which, so that the bundle can be mounted again after a reboot, and its
//! changes be told from its image.
//!
//! ```text
//! BUNDLE/config.json   runtime-spec
//! BUNDLE/rootfs/       mount point of the overlay, or the tree itself
//! BUNDLE/davit.json    this module's metadata
//! BUNDLE/overlay/      upper and work directory (0700), of an overlay
//! BUNDLE/index         what every file was like when unpacked, of a copy
//! BUNDLE/volumes/N/    anonymous volumes
//! ```

pub mod caps;
mod changes;
mod devices;
pub mod host;
mod mounts;
pub mod parse;
mod rootfs;
pub mod seccomp;
pub mod settings;
pub(crate) mod spec;
#[cfg(test)]
mod tests;
pub mod user;
mod volumes;

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::image::{Image, ImageConfig};
use crate::layer::XattrSpace;
use crate::progress::Progress;
use crate::store::Store;
use crate::{Context, Error, Result};

use devices::Devices;
use host::Host;
use parse::Security;
use settings::Settings;
use spec::Inputs;
use user::Accounts;

pub use changes::{diff, source_date_epoch};
pub use rootfs::{mount, umount};

/// What davit.json holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Version of this format: 1.
    pub version: u32,
    /// The store that the image is in, an absolute path.
    pub store: PathBuf,
    /// The image's name, as it was asked for.
    pub name: String,
    /// The image's manifest.
    pub manifest: Descriptor,
    /// diffIDs of the image's layers, bottom first.
    pub layers: Vec<Digest>,
    /// How the root file system came to be.
    pub rootfs: Rootfs,
}

/// How the root file system came to be.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Rootfs {
    /// An overlay of snapshots in the store.
    Overlay {
        /// Snapshot directories, topmost first, relative to the store.
        lowers: Vec<PathBuf>,
        /// Overlay's attributes are `user.overlay.*`.
        userxattr: bool,
    },
    /// A full copy.
    Copy,
}

impl Metadata {
    /// Reads BUNDLE/davit.json.
    pub fn read(bundle: &Path) -> Result<Metadata> {
        let path = bundle.join("davit.json");
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let bundle = bundle.display();
                return Err(Error::not_found(format!(
                    "{bundle}: no davit.json: this is no bundle that imgtool unpacked"
                )));
            }
            bytes => bytes.wrap(|| format!("read {}", path.display()))?,
        };
        let metadata: Metadata =
            serde_json::from_slice(&bytes).wrap(|| format!("parse {}", path.display()))?;
        match metadata.version {
            1 => Ok(metadata),
            v => Err(Error::new(format!("{}: version {v} is not known", path.display()))),
        }
    }
}

impl Rootfs {
    /// The name space of the overlay's attributes.
    pub fn space(&self) -> XattrSpace {
        match self {
            Rootfs::Overlay { userxattr: true, .. } => XattrSpace::User,
            _ => XattrSpace::Trusted,
        }
    }
}

/// What is to be unpacked, and how.
pub struct Request<'a> {
    /// Where the image is.
    pub store: &'a Store,
    /// The image.
    pub image: &'a Image,
    /// The name it was asked for by.
    pub name: &'a str,
    /// Where to: a directory that does not exist, or is empty.
    pub bundle: &'a Path,
    /// docker run's settings.
    pub settings: &'a Settings,
    /// Command line; empty for the image's own.
    pub command: &'a [String],
    /// Make a full copy even where overlay works.
    pub copy: bool,
    /// Shows the layers as they are unpacked.
    pub progress: &'a Progress,
    /// Told what the user should know: that a copy had to be made, and why.
    pub notices: &'a Progress,
}

/// Unpacks an image. On failure nothing is left behind: no mount, and no file that was not there.
pub fn unpack(request: &Request<'_>) -> Result<()> {
    let host = Host::detect()?;
    let devices = Devices::resolve(request.settings)?;
    let env = environment(request.settings)?;
    let seccomp_file = seccomp_file(request.settings)?;
    let bundle = Place::new(request.bundle)?;
    let rootfs = rootfs::make(request, &bundle.path)?;
    let root_path = bundle.path.join("rootfs");
    let root = File::open(&root_path).wrap(|| format!("open {}", root_path.display()))?;
    let wanted = request.settings.user.as_deref().or(request.image.config.user());
    let user = Accounts::read(root.as_fd())?
        .resolve(wanted.unwrap_or_default(), &request.settings.group_add)?;
    if host.rootless.as_ref().is_some_and(|rootless| !spec::is_mapped(rootless, &user)) {
        return Err(Error::new(format!(
            "user {}:{} is outside the ids that /etc/subuid and /etc/subgid give us",
            user.uid, user.gid
        )));
    }
    let mounts = volumes::resolve(request, &bundle.path, root.as_fd())?;
    let config = spec::make(Inputs {
        image: &request.image.config,
        settings: request.settings,
        command: request.command,
        host: &host,
        user: &user,
        env: &env,
        mounts,
        devices: &devices,
        seccomp_file: seccomp_file.as_deref(),
        hostname: &hostname(&bundle.path),
    })?;
    let cwd = config["process"]["cwd"].as_str().unwrap_or("/");
    crate::layer::make_dirs(root.as_fd(), cwd.as_bytes())
        .wrap(|| format!("make the working directory {cwd}"))?;
    drop(root);
    rootfs::finish(&rootfs, &bundle.path)?;
    write_json(&bundle.path.join("config.json"), &config)?;
    write_json(&bundle.path.join("davit.json"), &metadata(request, rootfs)?)?;
    bundle.keep();
    Ok(())
}

/// config.json for a root that the caller provides: what [`unpack`] would write for `image` and
/// `command`, without volumes. Users are looked up in `root`.
pub fn config(
    image: &ImageConfig,
    root: BorrowedFd<'_>,
    settings: &Settings,
    command: &[String],
    hostname: &str,
) -> Result<serde_json::Value> {
    let wanted = settings.user.as_deref().or(image.user()).unwrap_or_default();
    spec::make(Inputs {
        image,
        settings,
        command,
        host: &Host::detect()?,
        user: &Accounts::read(root)?.resolve(wanted, &settings.group_add)?,
        env: &environment(settings)?,
        mounts: Vec::new(),
        devices: &Devices::resolve(settings)?,
        seccomp_file: seccomp_file(settings)?.as_deref(),
        hostname,
    })
}

fn metadata(request: &Request<'_>, rootfs: Rootfs) -> Result<Metadata> {
    let store = request.store.root();
    Ok(Metadata {
        version: 1,
        store: std::path::absolute(store).wrap(|| store.display().to_string())?,
        name: request.name.to_owned(),
        manifest: request.image.descriptor.clone(),
        layers: request.image.config.diff_ids().to_vec(),
        rootfs,
    })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    fs::write(path, bytes).wrap(|| format!("write {}", path.display()))
}

/// The bundle's own name where it can be a host's name.
fn hostname(bundle: &Path) -> String {
    let name = bundle.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    parse::hostname(name).unwrap_or_else(|_| "container".to_owned())
}

/// `--env-file` and `-e`, with values: `KEY` alone passes on ours, or nothing if we have none.
fn environment(settings: &Settings) -> Result<Vec<String>> {
    let mut env = Vec::new();
    for path in &settings.env_file {
        let text = fs::read_to_string(path).wrap(|| format!("--env-file {}", path.display()))?;
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = line.split('=').next().unwrap_or_default();
            if key.is_empty() || key.contains(char::is_whitespace) {
                let place = format!("{}:{}", path.display(), number + 1);
                return Err(Error::new(format!("{place}: {key:?} is no variable's name")));
            }
            env.extend(with_value(line));
        }
    }
    for variable in &settings.env {
        if variable.is_empty() || variable.starts_with('=') {
            return Err(Error::usage(format!("--env {variable:?}: KEY or KEY=VALUE")));
        }
        env.extend(with_value(variable));
    }
    Ok(env)
}

fn with_value(variable: &str) -> Option<String> {
    match variable.contains('=') {
        true => Some(variable.to_owned()),
        false => std::env::var(variable).ok().map(|value| format!("{variable}={value}")),
    }
}

fn seccomp_file(settings: &Settings) -> Result<Option<Vec<u8>>> {
    let last = settings.security_opt.iter().rev();
    let mut chosen = last.filter(|o| matches!(o, Security::Seccomp(_) | Security::SeccompOff));
    match chosen.next() {
        Some(Security::Seccomp(path)) => {
            fs::read(path).map(Some).wrap(|| format!("seccomp profile {}", path.display()))
        }
        _ => Ok(None),
    }
}

/// The bundle's directory while it is being filled: emptied again, or removed, on failure.
struct Place {
    path: PathBuf,
    created: bool,
    kept: bool,
}

impl Place {
    fn new(path: &Path) -> Result<Place> {
        let path = std::path::absolute(path).wrap(|| path.display().to_string())?;
        let intent = || format!("bundle {}", path.display());
        let created = match fs::DirBuilder::new().mode(0o711).create(&path) {
            Ok(()) => true,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(Error::from(e).wrap(intent())),
        };
        if !created && fs::read_dir(&path).wrap(intent)?.next().is_some() {
            return Err(Error::new("it exists and is not empty").wrap(intent()));
        }
        // Names in /proc/mounts, and in later runs, are those of the real directory.
        let path = path.canonicalize().wrap(intent)?;
        Ok(Place { path, created, kept: false })
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Place {
    /// Failures are passed over: the error that brought us here is the one to report.
    fn drop(&mut self) {
        if self.kept || crate::overlay::umount(&self.path.join("rootfs")).is_err() {
            return;
        }
        for name in ["rootfs", "overlay", "volumes"] {
            let _ = fs::remove_dir_all(self.path.join(name));
        }
        for name in ["config.json", "davit.json", "index"] {
            let _ = fs::remove_file(self.path.join(name));
        }
        if self.created {
            let _ = fs::remove_dir(&self.path);
        }
    }
}
