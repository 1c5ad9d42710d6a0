//! `config.json` + bundle + host -> [`Plan`]: every default and every check, and nothing done yet.
//!
//! The plan is what the parent and the child execute, and what `runtime plan` prints. It is made
//! before the clone, because parsing and compiling are cheap there and dear in the child. It
//! checks syntax only: what a path inside the root file system leads to is decided once, on a
//! descriptor, where the path is used, since an answer from here could be made untrue meanwhile.

pub mod annotations;
pub mod devices;
pub mod document;
pub mod hooks;
mod mount_options;
pub mod mounts;
pub mod namespaces;
pub mod net_devices;
pub mod process;
pub mod rdt;
pub mod seccomp;
pub mod show;

use crate::cgroup::plan::{CgroupPlan, Cgroups, cgroups_path};
use crate::cgroup::systemd;
use crate::cgroup::systemd::bus::Bus;
use crate::error::{Context, Error, Result};
use annotations::Annotations;
use devices::Device;
use hooks::Hooks;
use mounts::{Mount, Propagation, Source};
use namespaces::{Kind, Namespaces};
use net_devices::NetDevice;
use oci_spec::runtime::{Linux, Spec};
use process::Process;
use rdt::Rdt;
use seccomp::Seccomp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the command line adds to the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// `--no-pivot`: move the root file system over `/` instead of pivot_root(2).
    pub no_pivot: bool,
    /// `--no-new-keyring`: keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// `--preserve-fds`, with `$LISTEN_FDS` added: descriptors from 3 on that the process gets.
    pub preserve_fds: u32,
    /// `$LISTEN_FDS` alone: what the process is told (sd_listen_fds(3)).
    pub listen_fds: u32,
    /// Whether control groups are made.
    pub cgroups: Cgroups,
    /// `--systemd-cgroup`: which systemd makes them, if one does.
    pub systemd: Option<Systemd>,
}

/// Which systemd makes the control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Systemd {
    /// The system's.
    System,
    /// That of the user with this id, as it is outside of our user namespace.
    User(u32),
}

/// Everything that is to be done to make the container.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// The `ociVersion` of the configuration.
    pub oci_version: String,
    /// The bundle's directory, absolute.
    pub bundle: PathBuf,
    /// Namespaces to make and to join, and id mappings.
    pub namespaces: Namespaces,
    /// The root file system and what is mounted in it, in order.
    pub rootfs: Rootfs,
    /// The control group and its limits.
    pub cgroup: CgroupPlan,
    /// UTS host name.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Kernel parameters, by their name with dots.
    pub sysctl: BTreeMap<String, String>,
    /// The program and what it may do.
    pub process: Process,
    /// The compiled system call filter.
    pub seccomp: Option<Seccomp>,
    /// Programs to run around the container's life.
    pub hooks: Hooks,
    /// Class of cache and memory bandwidth.
    pub rdt: Option<Rdt>,
    /// Network devices that are moved into the container.
    pub net_devices: Vec<NetDevice>,
    /// The configuration's annotations, for `state` and the hooks.
    pub annotations: BTreeMap<String, String>,
    /// Those of them that the runtime itself heeds.
    pub heeded: Annotations,
    /// Whether the container gets a session keyring of its own.
    pub new_keyring: bool,
    /// How many descriptors from 3 on the process inherits.
    pub preserve_fds: u32,
    /// Features that this kernel or caller lacks, and what is done instead.
    pub fallbacks: Vec<String>,
}

/// Whose mount namespace the container's mounts are made in.
///
/// In one that others use, too, they all lie below one mount of the root file system on itself, which
/// nobody else's mounts are touched by; chroot(2) stands in for pivot_root(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MountedIn {
    /// The container's own.
    Own,
    /// The runtime's, since `linux.namespaces` has no `mount`.
    Callers,
    /// The one that is joined by path.
    Joined,
}

impl MountedIn {
    fn new(namespaces: &Namespaces, root: &Path) -> Result<Self> {
        let found = match (namespaces.makes(Kind::Mount), namespaces.joins(Kind::Mount)) {
            (true, _) => return Ok(Self::Own),
            (_, true) => Self::Joined,
            _ => Self::Callers,
        };
        let alone = namespaces.makes(Kind::User)
            || (namespaces.joins(Kind::User) && found == Self::Callers);
        if alone {
            return Err(Error::new(
                "config.json: linux.namespaces has \"user\", but no \"mount\" to go with it: the root of a user namespace cannot mount in a mount namespace that belongs to another one (mount_namespaces(7))",
            ));
        }
        if root == Path::new("/") {
            return Err(Error::new(
                "config.json: root.path is \"/\": in a mount namespace that others use, nothing can be mounted over it without being in their way",
            ));
        }
        Ok(found)
    }

    /// Do others use it, too?
    pub fn is_shared(self) -> bool {
        self != Self::Own
    }
}

/// The root file system.
#[derive(Debug, Serialize)]
pub struct Rootfs {
    /// Absolute path on the host.
    pub path: PathBuf,
    /// Remounted read-only at the end.
    pub readonly: bool,
    /// Whose mount namespace all of this is made in.
    pub mounted_in: MountedIn,
    /// Propagation of the container's whole tree.
    pub propagation: Propagation,
    /// Mounts in order.
    pub mounts: Vec<Mount>,
    /// Device nodes made in addition, when `/dev` is not the host's.
    pub devices: Vec<Device>,
    /// Paths hidden from the container.
    pub masked: Vec<PathBuf>,
    /// Paths made read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// Context for tmpfs and its kin (SELinux).
    pub mount_label: Option<String>,
}

impl Plan {
    /// Reads `config.json` of `bundle`, or the file `config` instead, and plans the container.
    ///
    /// # Errors
    /// The file cannot be read or parsed, or asks for something that is not supported; the message
    /// holds the JSON path.
    pub fn load(bundle: &Path, config: Option<&Path>, options: Options) -> Result<(Self, Vec<u8>)> {
        let bundle = std::fs::canonicalize(bundle).wrap(|| format!("open bundle {bundle:?}"))?;
        let (spec, text) = match config {
            Some(file) => document::read(file)?,
            None => document::read(&bundle.join("config.json"))?,
        };
        let plan = Self::new(bundle, spec, options)?;
        Ok((plan, text))
    }

    /// Plans the container that `spec` describes.
    pub fn new(bundle: PathBuf, spec: Spec, options: Options) -> Result<Self> {
        check_version(spec.version())?;
        refuse_other_platforms(&spec)?;
        let empty = empty_linux();
        let linux = spec.linux().as_ref().unwrap_or(&empty);
        let annotations: BTreeMap<String, String> =
            spec.annotations().clone().unwrap_or_default().into_iter().collect();
        let heeded = Annotations::new(&annotations)?;
        let mut fallbacks = Vec::new();
        let namespaces = Namespaces::new(linux)?;
        let rootfs = Rootfs::new(&bundle, &spec, linux, &namespaces, &heeded, options)?;
        let process = spec.process().as_ref().ok_or_else(|| {
            Error::new("config.json: process is missing; `start` needs a program to run")
        })?;
        let process =
            Process::new(process, linux, &heeded, options).wrap(|| "config.json: process")?;
        let seccomp = Seccomp::new(linux, spec.annotations().as_ref())?;
        let systemd = systemd_wanted(linux, &annotations, options)?;
        let own = namespaces.has(Kind::Cgroup);
        let cgroup = CgroupPlan::new(linux, own, options.cgroups, systemd, &mut fallbacks)?;
        check_uts(&spec, &namespaces)?;
        if namespaces.has(Kind::User) && linux.devices().as_ref().is_some_and(|d| !d.is_empty()) {
            fallbacks.push(
                "linux.devices: a user namespace makes no devices; the host's are mounted, with the host's owner and mode".into(),
            );
        }
        Ok(Self {
            oci_version: spec.version().clone(),
            sysctl: sysctls(linux, &namespaces)?,
            rootfs,
            cgroup,
            hostname: spec.hostname().clone().filter(|h| !h.is_empty()),
            domainname: spec.domainname().clone().filter(|d| !d.is_empty()),
            process,
            seccomp,
            hooks: Hooks::new(spec.hooks().as_ref())?,
            rdt: linux.intel_rdt().as_ref().map(read_rdt).transpose()?,
            net_devices: net_devices::net_devices(linux, &namespaces)?,
            annotations,
            heeded,
            new_keyring: !options.no_new_keyring,
            preserve_fds: options.preserve_fds,
            namespaces,
            bundle,
            fallbacks,
        })
    }
}

/// What is asked of systemd, if it makes the control groups.
fn systemd_wanted(
    linux: &Linux,
    annotations: &BTreeMap<String, String>,
    options: Options,
) -> Result<Option<systemd::Wanted>> {
    let bus = match options.systemd {
        None => return Ok(None),
        Some(_) if options.cgroups == Cgroups::None => return Ok(None),
        Some(Systemd::System) => Bus::system(),
        Some(Systemd::User(uid)) => Bus::of_user(uid),
    };
    systemd::Wanted::new(cgroups_path(linux), annotations, bus).map(Some)
}

/// An error for a property of the specification that this version does not honour.
pub fn unsupported(path: &str, why: &str) -> Error {
    Error::new(format!("config.json: {path} is not supported: {why}"))
}

fn check_version(version: &str) -> Result<()> {
    let mut parts = version.split(['.', '-', '+']);
    let number = |part: Option<&str>| part.and_then(|p| p.parse::<u32>().ok());
    match (number(parts.next()), number(parts.next()), number(parts.next())) {
        (Some(1), Some(_), Some(_)) => Ok(()),
        (Some(_), Some(_), Some(_)) => Err(Error::new(format!(
            "config.json: ociVersion {version:?} is not supported: this runtime implements 1.x"
        ))),
        _ => Err(Error::new(format!(
            "config.json: ociVersion {version:?} is not a version (SemVer 2.0.0, such as \"1.3.0\")"
        ))),
    }
}

fn refuse_other_platforms(spec: &Spec) -> Result<()> {
    let other = [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("vm", spec.vm().is_some()),
        ("zos", spec.zos().is_some()),
        (
            "process.commandLine",
            spec.process().as_ref().is_some_and(|p| p.command_line().is_some()),
        ),
        (
            "process.user.username",
            spec.process()
                .as_ref()
                .and_then(|p| p.user().username().as_ref())
                .is_some_and(|name| !name.is_empty()),
        ),
    ];
    match other.iter().find(|(_, set)| *set) {
        Some((name, _)) => Err(unsupported(name, "this runtime makes Linux containers")),
        None => Ok(()),
    }
}

fn read_rdt(spec: &oci_spec::runtime::LinuxIntelRdt) -> Result<Rdt> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").wrap(|| "read our mounts")?;
    Rdt::new(spec, &mounts)
}

/// The host's cgroups where they come along with its /sys: to a user namespace without a cgroup
/// namespace they are read-only, whose root may own more of them than the container's
/// (CVE-2023-25809).
fn cgroups_of_the_host(namespaces: &Namespaces, mounts: &[Mount]) -> Option<PathBuf> {
    let comes_along = |mount: &&Mount| {
        mount.destination == Path::new("/sys")
            && matches!(mount.source, Source::Bind { recursive: true, .. })
    };
    let shared = namespaces.has(Kind::User) && !namespaces.has(Kind::Cgroup);
    mounts.iter().find(comes_along).filter(|_| shared).map(|_| "/sys/fs/cgroup".into())
}

/// What a configuration without a `linux` object has: oci-spec's own default is a full container.
pub fn empty_linux() -> Linux {
    serde_json::from_slice(b"{}").expect("every property of linux is optional")
}

fn check_uts(spec: &Spec, namespaces: &Namespaces) -> Result<()> {
    let named = [("hostname", spec.hostname()), ("domainname", spec.domainname())];
    for (what, value) in named {
        if value.as_ref().is_some_and(|v| !v.is_empty()) && !namespaces.has(Kind::Uts) {
            return Err(Error::new(format!(
                "config.json: {what} is set, but linux.namespaces has no \"uts\": it would rename the host"
            )));
        }
    }
    Ok(())
}

/// `linux.sysctl`, refusing what is not the container's own.
fn sysctls(linux: &Linux, namespaces: &Namespaces) -> Result<BTreeMap<String, String>> {
    let all: BTreeMap<String, String> =
        linux.sysctl().clone().unwrap_or_default().into_iter().collect();
    for key in all.keys() {
        check_sysctl(key, namespaces)
            .map_err(|why| Error::new(format!("config.json: linux.sysctl[{key:?}]: {why}")))?;
    }
    Ok(all)
}

/// A kernel parameter may be set only where a namespace of the container holds it (sysctl is
/// otherwise the host's).
fn check_sysctl(key: &str, namespaces: &Namespaces) -> std::result::Result<(), String> {
    let dotted = key.replace('/', ".");
    if dotted.split('.').any(|part| part.is_empty()) {
        return Err("is not the name of a kernel parameter".into());
    }
    const IPC: &[&str] = &[
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let needed = if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        Kind::Ipc
    } else if dotted.starts_with("net.") {
        Kind::Network
    } else if dotted == "kernel.hostname" {
        return Err("use hostname instead".into());
    } else if dotted == "kernel.domainname" {
        Kind::Uts
    } else if dotted.starts_with("user.") {
        Kind::User
    } else {
        return Err("is not in any namespace: it would change the host".into());
    };
    if namespaces.has(needed) {
        Ok(())
    } else {
        Err(format!(
            "needs a {:?} namespace of the container's own in linux.namespaces",
            needed.name()
        ))
    }
}

impl Rootfs {
    fn new(
        bundle: &Path,
        spec: &Spec,
        linux: &Linux,
        namespaces: &Namespaces,
        heeded: &Annotations,
        options: Options,
    ) -> Result<Self> {
        let root = spec
            .root()
            .as_ref()
            .ok_or_else(|| Error::new("config.json: root is missing (required on Linux)"))?;
        let path = bundle.join(root.path());
        let path = std::fs::canonicalize(&path)
            .wrap(|| format!("config.json: root.path: open root file system {path:?}"))?;
        let found = std::fs::metadata(&path)
            .wrap(|| format!("config.json: root.path: look at {path:?}"))?;
        if !found.is_dir() {
            return Err(Error::new(format!(
                "config.json: root.path: {path:?}: not a directory (ENOTDIR)"
            )));
        }
        let mounted_in = MountedIn::new(namespaces, &path)?;
        let mount_label = linux.mount_label().clone().filter(|label| !label.is_empty());
        let label = mount_label.as_deref().map(|label| (heeded.mount_context(), label));
        let mut mounts = Vec::new();
        for (i, mount) in spec.mounts().iter().flatten().enumerate() {
            mounts.push(
                Mount::new(mount, bundle, namespaces, label)
                    .map_err(|e| e.wrap(format!("config.json: mounts[{i}]")))?,
            );
        }
        let devices = devices::devices(linux, &mounts)?;
        let list = |paths: &Option<Vec<String>>, name: &str| -> Result<Vec<PathBuf>> {
            let absolute = |p: &String| match p.starts_with('/') {
                true => Ok(PathBuf::from(p)),
                false => {
                    Err(Error::new(format!("config.json: linux.{name}: {p:?} is not absolute")))
                }
            };
            paths.iter().flatten().map(absolute).collect()
        };
        let mut readonly_paths = list(linux.readonly_paths(), "readonlyPaths")?;
        readonly_paths.extend(cgroups_of_the_host(namespaces, &mounts));
        Ok(Self {
            path,
            readonly: root.readonly().unwrap_or(false),
            mounted_in,
            propagation: Propagation::of_rootfs(
                linux.rootfs_propagation().as_deref(),
                mounted_in.is_shared(),
            )?,
            mounts,
            devices,
            masked: list(linux.masked_paths(), "maskedPaths")?,
            readonly_paths,
            no_pivot: options.no_pivot,
            mount_label,
        })
    }
}
