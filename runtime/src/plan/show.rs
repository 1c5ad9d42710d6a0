//! `plan`: shows what `create` would do, without doing it.

use super::mounts::Source;
use super::{MountedIn, Plan};
use crate::error::{Error, Result};
use crate::seccomp::Filter;
use serde::{Serialize, Serializer};

/// The plan as JSON, for programs.
pub fn json(plan: &Plan, id: &str) -> Result<String> {
    #[derive(Serialize)]
    struct Shown<'a> {
        #[serde(flatten)]
        plan: &'a Plan,
        cgroup_writes: Vec<crate::cgroup::resources::Write>,
        cgroup_paths: Vec<std::path::PathBuf>,
    }
    let shown = Shown { plan, cgroup_writes: plan.cgroup.writes()?, cgroup_paths: paths(plan, id) };
    serde_json::to_string_pretty(&shown).map(|t| t + "\n").map_err(|e| Error::new(e.to_string()))
}

fn paths(plan: &Plan, id: &str) -> Vec<std::path::PathBuf> {
    crate::cgroup::Cgroup::planned(&plan.cgroup, id).into_iter().map(|p| p.path).collect()
}

/// How a filter is shown: its summary, not its program.
pub fn filter<S: Serializer>(
    filter: &Filter,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        architectures: Vec<String>,
        default_action: &'a str,
        actions: &'a [(String, usize)],
        newer_get_enosys: bool,
        flags: u32,
        instructions: usize,
        digest: String,
        unknown: &'a [String],
    }
    let summary = &filter.summary;
    let shown = Shown {
        architectures: summary.architectures.iter().map(|a| format!("{a:?}")).collect(),
        default_action: &summary.default_action,
        actions: &summary.actions,
        newer_get_enosys: summary.newer_get_enosys,
        flags: filter.flags,
        instructions: summary.instructions,
        digest: digest(filter),
        unknown: &summary.unknown,
    };
    shown.serialize(serializer)
}

/// A number that tells two programs apart (FNV-1a); the program itself would fill pages.
fn digest(filter: &Filter) -> String {
    let step = |sum: u64, insn: &crate::seccomp::Insn| {
        let word = u64::from(insn.code) << 48
            | u64::from(insn.jt) << 40
            | u64::from(insn.jf) << 32
            | u64::from(insn.k);
        word.to_le_bytes()
            .iter()
            .fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    };
    format!("{:016x}", filter.program.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// The plan as text, in the order in which it is carried out.
pub fn text(plan: &Plan, id: &str) -> Result<String> {
    let mut out = String::new();
    let mut line = |label: &str, value: String| {
        if !value.is_empty() {
            out.push_str(&format!("{label:<12} {value}\n"));
        }
    };
    line("bundle", plan.bundle.display().to_string());
    for (i, path) in paths(plan, id).iter().enumerate() {
        line(if i == 0 { "cgroup" } else { "" }, path.display().to_string());
    }
    for write in plan.cgroup.writes()? {
        line("limit", format!("{} = {}", write.file, write.value));
    }
    line("devices", devices(plan));
    line("namespaces", namespaces(plan));
    for range in &plan.namespaces.uid_map {
        line("uid map", format!("{} {} {}", range.inside, range.outside, range.count));
    }
    for range in &plan.namespaces.gid_map {
        line("gid map", format!("{} {} {}", range.inside, range.outside, range.count));
    }
    line("hostname", plan.hostname.clone().unwrap_or_default());
    line("domainname", plan.domainname.clone().unwrap_or_default());
    for (name, value) in &plan.sysctl {
        line("sysctl", format!("{name} = {value}"));
    }
    line("root", root(plan));
    for mount in &plan.rootfs.mounts {
        line("mount", describe(mount));
    }
    for device in &plan.rootfs.devices {
        line("device", format!("{} {}:{}", device.path.display(), device.major, device.minor));
    }
    for path in &plan.rootfs.readonly_paths {
        line("read-only", path.display().to_string());
    }
    for path in &plan.rootfs.masked {
        line("masked", path.display().to_string());
    }
    if let Some(rdt) = &plan.rdt {
        let class = rdt.class.as_deref().unwrap_or(std::path::Path::new(id));
        let watched = if rdt.monitoring { ", monitored" } else { "" };
        line("intelRdt", format!("{}{watched}", rdt.root.join(class).display()));
        rdt.caches.iter().chain(&rdt.schemata).for_each(|schema| line("", schema.clone()));
    }
    for device in &plan.net_devices {
        line("net device", format!("{} -> {}", device.from, device.to));
    }
    process(plan, &mut line);
    for fallback in &plan.fallbacks {
        line("fallback", fallback.clone());
    }
    Ok(out)
}

fn devices(plan: &Plan) -> String {
    let rule = |r: &crate::cgroup::devices::Rule| {
        let number = |n: Option<u32>| n.map_or("*".into(), |n| n.to_string());
        let verb = if r.allow { "allow" } else { "deny" };
        format!("{verb} {} {}:{} {}", r.kind, number(r.major), number(r.minor), r.access)
    };
    plan.cgroup.devices.iter().map(rule).collect::<Vec<_>>().join(", ")
}

fn namespaces(plan: &Plan) -> String {
    let new = plan.namespaces.new.iter().map(|k| format!("new {}", k.name()));
    let join =
        plan.namespaces.join.iter().map(|(k, p)| format!("join {} {}", k.name(), p.display()));
    join.chain(new).collect::<Vec<_>>().join(", ")
}

fn root(plan: &Plan) -> String {
    let rootfs = &plan.rootfs;
    let how = match rootfs.mounted_in {
        MountedIn::Own if rootfs.no_pivot => "move over /",
        MountedIn::Own => "pivot_root",
        MountedIn::Callers => "chroot, mounted in the runtime's mount namespace until delete",
        MountedIn::Joined => "chroot, mounted in the joined mount namespace until delete",
    };
    let mode = if rootfs.readonly { "read-only" } else { "writable" };
    format!("{} ({mode}, {how})", rootfs.path.display())
}

fn describe(mount: &super::mounts::Mount) -> String {
    let source = match &mount.source {
        Source::Filesystem { fstype, source, .. } => format!("{fstype} ({source})"),
        Source::Bind { source, recursive: true } => format!("rbind {}", source.display()),
        Source::Bind { source, recursive: false } => format!("bind {}", source.display()),
        Source::Cgroup => "cgroup".into(),
        Source::Remount { .. } => "remount".into(),
    };
    let options = mount.options.join(",");
    format!("{} <- {source} {options}", mount.destination.display()).trim_end().into()
}

fn process(plan: &Plan, line: &mut impl FnMut(&str, String)) {
    let process = &plan.process;
    let hooks = &plan.hooks;
    for (kind, list) in [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ] {
        for hook in list {
            line("hook", format!("{kind}: {}", hook.path.display()));
        }
    }
    line("terminal", if process.terminal { "yes".into() } else { String::new() });
    line("user", format!("{}:{} {:?}", process.uid, process.gid, process.groups));
    let sets = &process.capabilities;
    for (name, set) in [
        ("bounding", sets.bounding),
        ("effective", sets.effective),
        ("permitted", sets.permitted),
        ("inheritable", sets.inheritable),
        ("ambient", sets.ambient),
    ] {
        line(name, set.names().join(" "));
    }
    for limit in &process.rlimits {
        line("rlimit", format!("{} {}:{}", limit.name, limit.soft, limit.hard));
    }
    line("new privs", if process.no_new_privileges { "never".into() } else { "allowed".into() });
    if let Some(planned) = &plan.seccomp {
        seccomp(planned, line);
    }
    line("cwd", process.cwd.display().to_string());
    line("program", process.args.join(" "));
}

fn seccomp(planned: &super::seccomp::Seccomp, line: &mut impl FnMut(&str, String)) {
    let s = &planned.filter.summary;
    let actions = s.actions.iter().map(|(action, n)| format!(", {action} {n}")).collect::<String>();
    let enosys = if s.newer_get_enosys { ", newer calls ENOSYS" } else { "" };
    let shown =
        format!("default {}{actions}{enosys}; {} instructions", s.default_action, s.instructions);
    line("seccomp", shown);
    if !s.unknown.is_empty() {
        line("", format!("unknown, passed over: {}", s.unknown.join(" ")));
    }
    if let Some(listener) = &planned.listener {
        line("", format!("answered at {}", listener.path.display()));
    }
}
