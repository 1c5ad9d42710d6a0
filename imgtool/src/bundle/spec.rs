//! config.json: image-spec's conversion.md, then docker run's settings, over dockerd's defaults.
//!
//! A pure function of what was already looked up, so that every rule is testable without a host.

use serde_json::{Map, Value, json};

use crate::image::ImageConfig;
use crate::{Error, Result};

use super::caps;
use super::devices::Devices;
use super::host::{Host, Rootless};
use super::mounts;
use super::parse::Security;
use super::seccomp::{self, Target};
use super::settings::{Ipc, Network, Settings, Space};
use super::user::User;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Everything that config.json is made from.
pub(crate) struct Inputs<'a> {
    pub(crate) image: &'a ImageConfig,
    pub(crate) settings: &'a Settings,
    /// Command line after the bundle; empty: the image's own.
    pub(crate) command: &'a [String],
    pub(crate) host: &'a Host,
    pub(crate) user: &'a User,
    /// Variables of `--env-file`, then `-e`, values filled in.
    pub(crate) env: &'a [String],
    /// Mounts of the user and of the image's volumes, in runtime-spec's form.
    pub(crate) mounts: Vec<Value>,
    pub(crate) devices: &'a Devices,
    /// The profile file of `seccomp=FILE`.
    pub(crate) seccomp_file: Option<&'a [u8]>,
    /// Host name where none is asked for.
    pub(crate) hostname: &'a str,
}

/// Makes config.json.
pub(crate) fn make(inputs: Inputs<'_>) -> Result<Value> {
    let settings = inputs.settings;
    let caps =
        caps::grant(&settings.cap_add, &settings.cap_drop, settings.privileged, inputs.host.caps);
    let mut spec = Map::new();
    spec.insert("ociVersion".into(), json!("1.0.2"));
    spec.insert("process".into(), process(&inputs, &caps)?);
    spec.insert("root".into(), json!({"path": "rootfs", "readonly": settings.read_only}));
    if settings.uts == Space::Private {
        spec.insert("hostname".into(), json!(hostname(&inputs)));
    }
    spec.insert("mounts".into(), Value::Array(mounts::all(settings, inputs.host, &inputs.mounts)));
    spec.insert("annotations".into(), annotations(&inputs));
    spec.insert("linux".into(), linux(&inputs, &caps)?);
    Ok(Value::Object(spec))
}

fn hostname<'a>(inputs: &'a Inputs<'_>) -> &'a str {
    inputs.settings.hostname.as_deref().unwrap_or(inputs.hostname)
}

fn process(inputs: &Inputs<'_>, caps: &[String]) -> Result<Value> {
    let settings = inputs.settings;
    let user = inputs.user;
    let mut process = Map::new();
    process.insert("terminal".into(), json!(settings.tty));
    let mut who = json!({"uid": user.uid, "gid": user.gid});
    if !user.groups.is_empty() {
        who["additionalGids"] = json!(user.groups);
    }
    process.insert("user".into(), who);
    process.insert("args".into(), json!(args(inputs)?));
    process.insert("env".into(), json!(environment(inputs)?));
    process.insert("cwd".into(), json!(cwd(inputs)?));
    process.insert("capabilities".into(), capabilities(user.uid, caps));
    if !settings.ulimit.is_empty() {
        let limit =
            |l: &super::parse::Ulimit| json!({"type": l.name, "hard": l.hard, "soft": l.soft});
        process.insert("rlimits".into(), settings.ulimit.iter().map(limit).collect());
    }
    let no_new = settings.security_opt.iter().rev().find_map(|o| match o {
        Security::NoNewPrivileges(on) => Some(*on),
        _ => None,
    });
    process.insert("noNewPrivileges".into(), json!(no_new.unwrap_or(false)));
    if let Some(score) = settings.oom_score_adj {
        process.insert("oomScoreAdj".into(), json!(score));
    }
    let apparmor = settings.security_opt.iter().rev().find_map(|o| match o {
        Security::AppArmor(profile) => Some(profile.as_str()),
        _ => None,
    });
    if let Some(profile) = apparmor.filter(|p| *p != "unconfined") {
        process.insert("apparmorProfile".into(), json!(profile));
    }
    Ok(Value::Object(process))
}

/// Entry point and command; a new entry point, or a command of the user's, drops the image's Cmd.
fn args(inputs: &Inputs<'_>) -> Result<Vec<String>> {
    let (mut args, own_cmd) = match inputs.settings.entrypoint.as_deref() {
        Some("") => (Vec::new(), false),
        Some(program) => (vec![program.to_owned()], false),
        None => (inputs.image.entrypoint().unwrap_or_default(), true),
    };
    match inputs.command {
        [] if own_cmd => args.extend(inputs.image.cmd().unwrap_or_default()),
        command => args.extend_from_slice(command),
    }
    match args.first() {
        None => Err(Error::usage(
            "the image names no command: give one after BUNDLE, or use --entrypoint",
        )),
        Some(program) if program.is_empty() => {
            Err(Error::new("the image's command begins with an empty string"))
        }
        Some(_) if args.iter().any(|a| a.contains('\0')) => {
            Err(Error::new("the command holds a NUL"))
        }
        Some(_) => Ok(args),
    }
}

/// dockerd's order: defaults, the image's, the user's; a later one takes the earlier one's place.
fn environment(inputs: &Inputs<'_>) -> Result<Vec<String>> {
    let mut env = vec![PATH.to_owned()];
    if inputs.settings.uts == Space::Private {
        env.push(format!("HOSTNAME={}", hostname(inputs)));
    }
    if inputs.settings.tty {
        env.push("TERM=xterm".to_owned());
    }
    for variable in inputs.image.env() {
        if !variable.contains('=') || variable.starts_with('=') || variable.contains('\0') {
            return Err(Error::new(format!("the image's Env holds {variable:?}, not KEY=VALUE")));
        }
        set(&mut env, &variable);
    }
    inputs.env.iter().for_each(|variable| set(&mut env, variable));
    if !env.iter().any(|v| v.starts_with("HOME=")) {
        env.push(format!("HOME={}", inputs.user.home));
    }
    Ok(env)
}

fn set(env: &mut Vec<String>, variable: &str) {
    let key = &variable[..=variable.find('=').unwrap_or(variable.len() - 1)];
    match env.iter_mut().find(|v| v.starts_with(key)) {
        Some(old) => *old = variable.to_owned(),
        None => env.push(variable.to_owned()),
    }
}

fn cwd(inputs: &Inputs<'_>) -> Result<String> {
    let cwd = inputs.settings.workdir.as_deref().or(inputs.image.working_dir()).unwrap_or("/");
    match (cwd.starts_with('/'), inputs.settings.workdir.is_some()) {
        (true, _) => Ok(cwd.to_owned()),
        (false, true) => Err(Error::usage(format!("--workdir {cwd}: not an absolute path"))),
        (false, false) => Ok(format!("/{cwd}")),
    }
}

/// Root gets the set; any other user can only regain it through a set-uid program.
fn capabilities(uid: u32, caps: &[String]) -> Value {
    match uid {
        0 => json!({"bounding": caps, "effective": caps, "permitted": caps}),
        _ => json!({"bounding": caps}),
    }
}

/// conversion.md, "Annotation Fields"; labels override what is derived, settings override both.
fn annotations(inputs: &Inputs<'_>) -> Value {
    let (image, settings) = (inputs.image, inputs.settings);
    let platform = image.platform();
    let mut all = Map::new();
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            all.insert(format!("org.opencontainers.image.{key}"), json!(value));
        }
    };
    add("os", &platform.os);
    add("architecture", &platform.architecture);
    add("variant", platform.variant.as_deref().unwrap_or_default());
    add("os.version", platform.os_version.as_deref().unwrap_or_default());
    add("os.features", &platform.os_features.join(","));
    add("author", image.top("author").unwrap_or_default());
    add("created", image.top("created").unwrap_or_default());
    add("stopSignal", image.stop_signal().unwrap_or_default());
    add("exposedPorts", &image.exposed_ports().join(","));
    let given = settings.label.iter().chain(&settings.annotation).cloned();
    for (key, value) in image.labels().into_iter().chain(given).filter(|(key, _)| !key.is_empty()) {
        all.insert(key, json!(value));
    }
    Value::Object(all)
}

fn linux(inputs: &Inputs<'_>, caps: &[String]) -> Result<Value> {
    let (settings, host) = (inputs.settings, inputs.host);
    let mut linux = Map::new();
    linux.insert("namespaces".into(), namespaces(settings, host));
    if let Some(rootless) = &host.rootless {
        linux.insert("uidMappings".into(), mapping(rootless.uid, &rootless.subuids));
        linux.insert("gidMappings".into(), mapping(rootless.gid, &rootless.subgids));
    }
    let resources = resources(settings, host, inputs.devices)?;
    linux.insert("resources".into(), resources);
    linux.insert("devices".into(), Value::Array(inputs.devices.nodes.clone()));
    let sysctl = sysctls(settings, host);
    if !sysctl.is_empty() {
        linux.insert("sysctl".into(), Value::Object(sysctl));
    }
    let open = settings.privileged || settings.security_opt.contains(&Security::SystemPathsOpen);
    if !open {
        linux.insert("maskedPaths".into(), json!(MASKED));
        linux.insert("readonlyPaths".into(), json!(READ_ONLY));
    }
    if let Some(profile) = seccomp_profile(inputs, caps)? {
        linux.insert("seccomp".into(), profile);
    }
    if let Some(propagation) = mounts::root_propagation(&inputs.mounts) {
        linux.insert("rootfsPropagation".into(), json!(propagation));
    }
    Ok(Value::Object(linux))
}

fn namespaces(settings: &Settings, host: &Host) -> Value {
    // On v1 a cgroup namespace would show the container nothing of its limits' file tree.
    let cgroupns = match settings.cgroupns {
        Some(space) => space == Space::Private,
        None => host.cgroup2 && !settings.privileged,
    };
    let wanted = [
        ("mount", true),
        ("network", settings.network == Network::None),
        ("uts", settings.uts == Space::Private),
        ("pid", settings.pid == Space::Private),
        ("ipc", settings.ipc != Ipc::Host),
        ("cgroup", cgroupns),
        ("user", host.rootless.is_some()),
    ];
    wanted.iter().filter(|(_, on)| *on).map(|(kind, _)| json!({"type": kind})).collect()
}

/// Ourselves as root, the subordinate ids behind.
fn mapping(own: u32, ranges: &[(u32, u32)]) -> Value {
    let mut maps = vec![json!({"containerID": 0, "hostID": own, "size": 1})];
    let mut next = 1u32;
    for (first, count) in ranges {
        maps.push(json!({"containerID": next, "hostID": first, "size": count}));
        next = next.saturating_add(*count);
    }
    Value::Array(maps)
}

fn resources(settings: &Settings, host: &Host, devices: &Devices) -> Result<Value> {
    let mut resources = Map::new();
    if host.rootless.is_none() {
        resources.insert("devices".into(), Value::Array(devices.rules.clone()));
    }
    let memory = memory(settings)?;
    if !memory.is_empty() {
        resources.insert("memory".into(), Value::Object(memory));
    }
    let mut cpu = Map::new();
    if let Some(quota) = settings.cpus {
        cpu.insert("quota".into(), json!(quota));
        cpu.insert("period".into(), json!(100_000));
    }
    let mut add = |key: &str, value: Option<Value>| value.map(|v| cpu.insert(key.into(), v));
    add("shares", settings.cpu_shares.map(|n| json!(n)));
    add("cpus", settings.cpuset_cpus.as_ref().map(|list| json!(list)));
    add("mems", settings.cpuset_mems.as_ref().map(|list| json!(list)));
    if !cpu.is_empty() {
        resources.insert("cpu".into(), Value::Object(cpu));
    }
    if let Some(limit) = settings.pids_limit.filter(|limit| *limit != 0) {
        resources.insert("pids".into(), json!({"limit": limit.max(-1)}));
    }
    Ok(Value::Object(resources))
}

/// dockerd's rules: at least 6 MiB, and as much swap as memory unless said otherwise.
fn memory(settings: &Settings) -> Result<Map<String, Value>> {
    let mut memory = Map::new();
    if let Some(limit) = settings.memory {
        if limit < 6 << 20 {
            return Err(Error::usage("--memory: the least that works is 6m"));
        }
        memory.insert("limit".into(), json!(limit));
    }
    match (settings.memory, settings.memory_swap) {
        (None, Some(swap)) if swap > 0 => {
            return Err(Error::usage("--memory-swap: set --memory as well"));
        }
        (Some(limit), Some(swap)) if swap > 0 && (swap as u64) < limit => {
            return Err(Error::usage(
                "--memory-swap is memory and swap together: not below --memory",
            ));
        }
        (Some(limit), None | Some(0)) => {
            memory.insert("swap".into(), json!(limit.saturating_mul(2).min(i64::MAX as u64)));
        }
        (_, Some(swap)) if swap != 0 => drop(memory.insert("swap".into(), json!(swap))),
        _ => (),
    }
    if let Some(soft) = settings.memory_reservation {
        memory.insert("reservation".into(), json!(soft));
    }
    Ok(memory)
}

fn sysctls(settings: &Settings, host: &Host) -> Map<String, Value> {
    let mut sysctl = Map::new();
    if settings.network == Network::None {
        for (key, value) in &host.net_sysctls {
            sysctl.insert((*key).to_owned(), json!(value));
        }
    }
    for (key, value) in &settings.sysctl {
        sysctl.insert(key.clone(), json!(value));
    }
    sysctl
}

fn seccomp_profile(inputs: &Inputs<'_>, caps: &[String]) -> Result<Option<Value>> {
    let host: &Host = inputs.host;
    let target = Target { arch: host.arch, kernel: host.kernel, caps };
    if let Some(file) = inputs.seccomp_file {
        return seccomp::parse_profile(file, &target).map(Some);
    }
    let off = inputs.settings.security_opt.contains(&Security::SeccompOff);
    Ok((!off && !inputs.settings.privileged).then(|| seccomp::default_profile(&target)))
}

/// Whether the mapping covers an id, so that a process can have it.
pub(crate) fn is_mapped(rootless: &Rootless, user: &User) -> bool {
    let reach = |ranges: &[(u32, u32)]| ranges.iter().map(|(_, n)| u64::from(*n)).sum::<u64>();
    u64::from(user.uid) <= reach(&rootless.subuids)
        && u64::from(user.gid) <= reach(&rootless.subgids)
}
