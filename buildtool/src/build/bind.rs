//! `RUN --mount`: what each mount shows, how it enters the cache key, and how it is mounted.
//!
//! Nothing that a command writes through a mount enters the layer: what it writes to a bind is
//! thrown away, what it writes to a cache stays in the cache.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use imgtool::digest::Digest;
use imgtool::layer::{self, Options};
use imgtool::overlay::{self, Layers};
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{UnmountFlags, unmount};
use serde_json::{Value, json};

use super::view::required;
use super::{Builder, State};
use crate::cache::Key;
use crate::dockerignore::Ignore;
use crate::error::{Context, Error, Result};
use crate::files::collect::{self, Origin, Source};
use crate::files::stage::Layout;
use crate::files::tree::Tree;
use crate::parse::mount::{MountSpec, MountType, Sharing};
use crate::steps::Mount;

/// What a bind shows.
enum Shown {
    Nothing,
    Context(Vec<Source>),
    State(State),
}

/// A mount of which the sources are known.
pub(super) struct Prepared {
    spec: MountSpec,
    shown: Shown,
}

/// A mounted file system of this build; unmounted when dropped.
pub(super) struct Mounted(pub(super) PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // It goes away with the mount namespace in any case.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Mounts ready for a runtime, and what must live while it runs.
#[derive(Default)]
pub(super) struct Ready {
    /// Entries for config.json.
    pub(super) mounts: Vec<Value>,
    /// Variables from secrets.
    pub(super) env: Vec<String>,
    mounted: Vec<Mounted>,
    locks: Vec<File>,
}

impl Ready {
    fn bind(&mut self, source: &Path, target: &str, read_only: bool) {
        let access = if read_only { "ro" } else { "rw" };
        let options = json!(["rbind", "rprivate", "nosuid", "nodev", access]);
        self.mounts.push(json!({
            "destination": target, "type": "bind", "source": source, "options": options,
        }));
    }
}

impl Builder<'_> {
    /// Finds what `mounts` show.
    pub(super) fn prepare(&mut self, mounts: &[Mount], state: &State) -> Result<Vec<Prepared>> {
        let mut prepared = Vec::new();
        for mount in mounts {
            let shown = match (mount.spec.kind, &mount.from) {
                (MountType::Bind, Some(source)) => {
                    Shown::State(self.source(source, &state.config.platform())?)
                }
                (MountType::Bind, None) => Shown::Context(self.context_sources(&mount.spec)?),
                (MountType::Cache, Some(_)) => {
                    return Err(Error::new(
                        "RUN --mount=type=cache,from= is not supported by this version",
                    ));
                }
                _ => Shown::Nothing,
            };
            prepared.push(Prepared { spec: mount.spec.clone(), shown });
        }
        Ok(prepared)
    }

    fn context_sources(&self, spec: &MountSpec) -> Result<Vec<Source>> {
        let tree = &self.context.tree;
        let origin = Origin {
            tree,
            name: "the build context",
            ignore: &self.context.ignore,
            keep_identity: false,
        };
        let source = spec.source.as_deref().unwrap_or("/").replace(['*', '?', '['], "\\$0");
        let mut sources = origin.gather(&source, &Ignore::default())?;
        collect::hash(tree, &mut sources)?;
        Ok(sources)
    }

    /// Mounts what can be mounted here, and lists it all for the runtime.
    pub(super) fn ready(&self, prepared: &[Prepared]) -> Result<Ready> {
        let mut ready = Ready::default();
        for mount in prepared {
            let what = || {
                format!("--mount={:?},target={}", mount.spec.kind, mount.target()).to_lowercase()
            };
            match mount.spec.kind {
                MountType::Bind => self.bind(mount, &mut ready).wrap(what)?,
                MountType::Cache => self.cache_mount(&mount.spec, &mut ready).wrap(what)?,
                MountType::Tmpfs => ready.mounts.push(tmpfs(&mount.spec, mount.target())),
                MountType::Secret => self.secret(&mount.spec, &mut ready).wrap(what)?,
            }
        }
        Ok(ready)
    }

    fn bind(&self, mount: &Prepared, ready: &mut Ready) -> Result<()> {
        let directory = self.workspace.directory("bind")?;
        let source = match &mount.shown {
            Shown::Nothing => return Err(Error::new("nothing to bind")),
            Shown::Context(sources) => {
                self.copy_context(sources, &directory)?;
                directory.join("source")
            }
            Shown::State(state) => {
                let (root, mounted) = self.scratch_overlay(state, &directory)?;
                ready.mounted.push(mounted);
                let inside = mount.spec.source.as_deref().unwrap_or("/");
                let found = Tree::open(&root)?.find(Path::new(inside.trim_start_matches('/')))?;
                if found.stat.is_none() {
                    return Err(Error::new(format!("{inside:?} not found in the source image")));
                }
                root.join(found.path)
            }
        };
        ready.bind(&source, mount.target(), mount.spec.read_only);
        Ok(())
    }

    /// Copies what the context shows, so that `.dockerignore` counts and writes are thrown away.
    fn copy_context(&self, sources: &[Source], directory: &Path) -> Result<()> {
        let mut layout = Layout::new(None, self.look(None, None));
        let tree: &Rc<Tree> = &self.context.tree;
        sources.iter().try_for_each(|source| layout.place(tree, source, "/source"))?;
        let archive = directory.join("archive");
        layout.write(std::io::BufWriter::new(File::create(&archive)?))?;
        let root = File::open(directory)?;
        layer::apply(File::open(&archive)?, root.as_fd(), &Options::default())?;
        Ok(fs::remove_file(&archive)?)
    }

    /// An overlay of `state` that can be written to, in vain.
    fn scratch_overlay(&self, state: &State, directory: &Path) -> Result<(PathBuf, Mounted)> {
        let [upper, work, root] = ["upper", "work", "root"].map(|name| directory.join(name));
        for path in [&upper, &work, &root] {
            fs::create_dir(path)?;
        }
        let lowers = self.lowers(state)?;
        let space = imgtool::snapshot::space();
        let layers = Layers { lowers: &lowers, upper: Some((&upper, &work)), space };
        required(overlay::mount(layers, &root)?)?;
        let mounted = Mounted(root.clone());
        Ok((root, mounted))
    }

    /// A cache mount is named by a hash, so that no id leads out of the directory.
    fn cache_mount(&self, spec: &MountSpec, ready: &mut Ready) -> Result<()> {
        let target = spec.target.as_deref().unwrap_or_default();
        let id = Digest::sha256(spec.id.as_deref().unwrap_or(target).as_bytes());
        let mut path = self.cache.mounts()?.join(id.hex());
        fs::create_dir_all(&path)?;
        let lock = File::open(&path)?;
        match spec.sharing {
            Sharing::Shared => {}
            Sharing::Locked => flock(&lock, FlockOperation::LockExclusive)?,
            Sharing::Private if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() => {
                path = self.workspace.directory("cache")?;
            }
            Sharing::Private => {}
        }
        ready.locks.push(lock);
        let data = path.join("data");
        if !data.exists() {
            fs::create_dir_all(&data)?;
            chown(&data, Some(spec.uid.unwrap_or(0)), Some(spec.gid.unwrap_or(0)))?;
            fs::set_permissions(&data, fs::Permissions::from_mode(spec.mode.unwrap_or(0o755)))?;
        }
        ready.bind(&data, target, spec.read_only);
        Ok(())
    }

    fn secret(&self, spec: &MountSpec, ready: &mut Ready) -> Result<()> {
        let named = spec.id.as_deref().or(spec.source.as_deref());
        let base = |target: &str| target.rsplit('/').next().unwrap_or_default().to_owned();
        let id = named.map(str::to_owned).or(spec.target.as_deref().map(base)).unwrap_or_default();
        let Some(secret) = self.options.secrets.iter().find(|secret| secret.id == id) else {
            return match spec.required {
                true => Err(Error::new(format!(
                    "secret {id} is required: give it with --secret id={id},src=FILE"
                ))),
                false => Ok(()),
            };
        };
        let value = secret.read()?;
        if let Some(variable) = &spec.env {
            let text = String::from_utf8(value.clone())
                .map_err(|_| Error::new(format!("secret {id} is not text")))?;
            ready.env.push(format!("{variable}={text}"));
            if spec.target.is_none() {
                return Ok(());
            }
        }
        let path = self.workspace.directory("secret")?.join("value");
        fs::write(&path, value)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(spec.mode.unwrap_or(0o400)))?;
        chown(&path, Some(spec.uid.unwrap_or(0)), Some(spec.gid.unwrap_or(0)))?;
        let target = spec.target.clone().unwrap_or_else(|| format!("/run/secrets/{id}"));
        ready.bind(&path, &target, true);
        Ok(())
    }
}

impl Prepared {
    fn target(&self) -> &str {
        self.spec.target.as_deref().unwrap_or_default()
    }

    /// Adds what the command can see through this mount. Caches and secrets are not part of it.
    pub(super) fn identify(&self, key: &mut Key) {
        let spec = &self.spec;
        key.field("mount", format!("{:?}", spec.kind));
        key.field("target", self.target());
        key.field("read-only", spec.read_only.to_string());
        key.field("env", spec.env.as_deref().unwrap_or_default());
        key.field("size", format!("{:?}", spec.size));
        match &self.shown {
            Shown::Nothing => {}
            Shown::Context(sources) => {
                for item in sources.iter().flat_map(|source| &source.items) {
                    collect::identify(item, |value| key.field("item", value));
                }
            }
            Shown::State(state) => {
                let layers: Vec<String> =
                    state.config.diff_ids().iter().map(ToString::to_string).collect();
                key.list("from", &layers);
                key.field("source", spec.source.as_deref().unwrap_or_default());
            }
        }
    }
}

fn tmpfs(spec: &MountSpec, target: &str) -> Value {
    let mut options = vec!["nosuid".to_owned(), "nodev".to_owned()];
    if let Some(size) = spec.size {
        options.push(format!("size={size}"));
    }
    json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options})
}
