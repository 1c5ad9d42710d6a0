//! RUN: a command in a container whose changes become a layer.
//!
//! The root is an overlay: the snapshots of what lies below, and above them the upper directory,
//! which becomes the layer. A mount point that the image lacks (`/proc`, `/etc/resolv.conf`, a
//! secret's) is created there by the runtime; being empty, it is told from the command's own
//! work and left out.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use imgtool::bundle::settings::{Network as Net, Settings};
use imgtool::descriptor::{Descriptor, media_type};
use imgtool::image::ImageConfig;
use imgtool::layer::{self, DiffOptions};
use imgtool::overlay::{self, Layers};
use imgtool::snapshot::Snapshots;
use serde_json::{Value, json};

use super::bind::{Mounted, Prepared, Ready};
use super::view::required;
use super::{Builder, State};
use crate::cache::Record;
use crate::error::{Context, Error, Result};
use crate::files::tree::{Tree, bytes};
use crate::log::Log;
use crate::parse::Network;
use crate::sandbox;
use crate::steps::{Run, SCRIPT_DIR, Step};

/// The directories of one RUN, which are also the runtime's bundle.
struct Bundle {
    path: PathBuf,
    upper: PathBuf,
    work: PathBuf,
    root: PathBuf,
}

impl Builder<'_> {
    /// Executes RUN.
    pub(super) fn run(
        &mut self,
        run: &Run,
        step: &Step,
        label: &str,
        state: &State,
    ) -> Result<Record> {
        let mounts = self.prepare(&run.mounts, state)?;
        let network = run.network.unwrap_or(self.options.network);
        let mut key = self.key("run", state);
        key.list("argv", &run.argv);
        key.list("env", &run.env);
        key.field("cwd", &run.cwd);
        key.optional("user", run.user.as_deref());
        key.field("network", format!("{network:?}"));
        key.optional("script", run.script.as_ref().map(|script| script.content.as_str()));
        mounts.iter().for_each(|mount| mount.identify(&mut key));
        self.cached(key, step, label, |builder| builder.execute(run, network, &mounts, state))
    }

    fn execute(
        &self,
        run: &Run,
        network: Network,
        mounts: &[Prepared],
        state: &State,
    ) -> Result<Option<Descriptor>> {
        let bundle = Bundle::create(self.workspace.directory("run")?)?;
        let lowers = self.lowers(state)?;
        let view = Tree::of(self.mounted(lowers.clone())?);
        let mut ready = self.ready(mounts)?;
        let name = self.workspace.container();
        let mut spec = container(run, network, &ready, state, &view)?;
        if let Some(script) = &run.script {
            let path = bundle.path.join("script");
            write_executable(&path, &script.content)?;
            let target = format!("{SCRIPT_DIR}/{}", script.name);
            ready.mounts.push(json!({
                "destination": target, "type": "bind", "source": path, "options": ["bind", "ro", "nosuid", "nodev"],
            }));
        }
        append(&mut spec, std::mem::take(&mut ready.mounts))?;
        spec["linux"]["cgroupsPath"] = json!(format!("/{name}"));
        let stubs = stubs(&spec, &view)?;
        if let Some(like) = Snapshots::root_like(&lowers)? {
            layer::copy_attributes(like, &bundle.upper)?;
        }
        let space = imgtool::snapshot::space();
        let layers = Layers { lowers: &lowers, upper: Some((&bundle.upper, &bundle.work)), space };
        required(overlay::mount(layers, &bundle.root)?)?;
        let mounted = Mounted(bundle.root.clone());
        fs::write(bundle.path.join("config.json"), spec.to_string())
            .wrap(|| "write config.json")?;
        self.start(&bundle.path, &name)?;
        drop(mounted);
        drop(ready);
        self.layer_of(&bundle.upper, &lowers, stubs)
    }

    /// Executes the runtime and waits. Its output is the step's.
    fn start(&self, bundle: &Path, name: &str) -> Result<()> {
        let runtime = &self.options.runtime;
        let mut child = sandbox::command(runtime)
            .arg("--root")
            .arg(self.workspace.state())
            .args(["run", "--bundle"])
            .arg(bundle)
            .arg(name)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .wrap(|| format!("start the runtime {}", runtime.display()))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        std::thread::scope(|scope| {
            scope.spawn(|| stdout.map(|pipe| relay(pipe, self.log)));
            if let Some(pipe) = stderr {
                relay(pipe, self.log);
            }
        });
        let status = child.wait().wrap(|| "wait for the runtime")?;
        sandbox::check_stopped()?;
        match status.code() {
            Some(0) => Ok(()),
            Some(code) => Err(Error::new(format!("exit code {code}"))),
            None => {
                Err(Error::new(format!("the runtime {} was killed: {status}", runtime.display())))
            }
        }
    }

    /// The layer of what changed, if anything did.
    fn layer_of(
        &self,
        upper: &Path,
        lowers: &[PathBuf],
        stubs: Vec<Vec<u8>>,
    ) -> Result<Option<Descriptor>> {
        let options = DiffOptions {
            space: imgtool::snapshot::space(),
            max_mtime: Some(self.options.epoch),
            stubs,
            root: Snapshots::root_like(lowers)?.map(Path::to_owned),
            ownership: imgtool::snapshot::ownership(),
        };
        let mut blob = self.store.add_blob()?;
        layer::from_upper(upper, lowers, &mut blob, &options).wrap(|| "make the layer")?;
        if blob.size() <= EMPTY_ARCHIVE {
            return Ok(None);
        }
        let (digest, size) = blob.commit()?;
        Ok(Some(Descriptor::new(media_type::OCI_LAYER, digest, size)))
    }
}

/// Bytes of an archive without members: its end marker.
const EMPTY_ARCHIVE: u64 = 1024;

impl Bundle {
    fn create(path: PathBuf) -> Result<Self> {
        let [upper, work, root] = ["upper", "work", "rootfs"].map(|name| path.join(name));
        for directory in [&upper, &work, &root] {
            fs::create_dir(directory).wrap(|| format!("create {}", directory.display()))?;
        }
        Ok(Self { path, upper, work, root })
    }
}

/// config.json of the container, without the mounts of `--mount`.
fn container(
    run: &Run,
    network: Network,
    ready: &Ready,
    state: &State,
    view: &Tree,
) -> Result<Value> {
    let mut image = ImageConfig::new(&state.config.platform());
    let env: Vec<String> =
        [&run.env, &run.proxies, &ready.env].into_iter().flatten().cloned().collect();
    image.set_env(&env);
    image.set_user(run.user.as_deref().unwrap_or_default());
    image.set_working_dir(&run.cwd);
    let settings = Settings {
        network: match network {
            Network::Host => Net::Host,
            Network::None => Net::None,
        },
        ..Settings::default()
    };
    Ok(imgtool::bundle::config(&image, view.root(), &settings, &run.argv, "buildtool")?)
}

fn append(spec: &mut Value, mounts: Vec<Value>) -> Result<()> {
    let list = spec["mounts"].as_array_mut();
    list.ok_or_else(|| Error::new("config.json without mounts"))?.extend(mounts);
    Ok(())
}

/// The mount points that `view` lacks, and the directories which lead to them: what the runtime
/// will create. Links are followed, as the runtime follows them.
fn stubs(spec: &Value, view: &Tree) -> Result<Vec<Vec<u8>>> {
    let mounts = spec["mounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut missing = Vec::new();
    for mount in mounts {
        let target = mount["destination"].as_str().unwrap_or_default().trim_start_matches('/');
        let found = view.find(Path::new(target))?;
        for path in found.path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            if view.stat(path)?.is_none() {
                missing.push(bytes(path).to_vec());
            }
        }
    }
    Ok(missing)
}

fn write_executable(path: &Path, content: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, content).wrap(|| "write the script")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).wrap(|| "write the script")
}

/// Hands each line of `pipe` to the log, until its end.
fn relay(pipe: impl Read, log: &Log) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
        let text = String::from_utf8_lossy(&line);
        log.output(text.trim_end_matches(['\n', '\r']));
        line.clear();
    }
}
