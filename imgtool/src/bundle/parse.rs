//! The little languages of docker run's settings: sizes, volumes, mounts, devices, limits.
//!
//! Every parser returns the message for a usage error; clap names the option and the value.

/// A result for clap.
type Parsed<T> = std::result::Result<T, String>;

/// What stands at the source of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path of the host. `create`: make a directory if there is nothing, as `-v` does.
    Host {
        /// The path, relative ones being from the working directory.
        path: String,
        /// Whether to make it.
        create: bool,
    },
    /// A volume that outlives the container.
    Named(String),
    /// A volume of this bundle.
    Anonymous,
    /// A tmpfs, with its options.
    Tmpfs(Vec<String>),
}

/// A mount that the user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// What is mounted.
    pub source: Source,
    /// Absolute path in the container.
    pub target: String,
    /// No writing.
    pub read_only: bool,
    /// `rprivate`, `rslave`, …
    pub propagation: String,
    /// Submounts of the source come along.
    pub recursive: bool,
    /// A new volume starts with what the image has there.
    pub copy: bool,
    /// `z` or `Z`: an SELinux label is wanted.
    pub relabel: bool,
}

/// `--tmpfs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    /// Absolute path in the container.
    pub target: String,
    /// Mount options.
    pub options: Vec<String>,
}

/// `--device`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceMap {
    /// Path on the host.
    pub host: String,
    /// Path in the container.
    pub path: String,
    /// Some of `rwm`.
    pub access: String,
}

/// `--ulimit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// `RLIMIT_NOFILE` and so on.
    pub name: String,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// `--security-opt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// `no-new-privileges`.
    NoNewPrivileges(bool),
    /// `seccomp=unconfined`.
    SeccompOff,
    /// `seccomp=FILE`.
    Seccomp(std::path::PathBuf),
    /// `apparmor=PROFILE`.
    AppArmor(String),
    /// `systempaths=unconfined`: nothing masked or read-only.
    SystemPathsOpen,
}

/// `512`, `64m`, `1.5g`: binary multiples.
pub fn bytes(text: &str) -> Parsed<u64> {
    let lower = text.to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        _ => return Err("a size is a number and b, k, m, g or t".into()),
    };
    let bad = || "a size is a number and b, k, m, g or t".to_owned();
    match number.parse::<u64>() {
        Ok(n) => n.checked_mul(1 << shift).filter(|n| *n <= i64::MAX as u64).ok_or_else(bad),
        Err(_) => match number.parse::<f64>() {
            Ok(n) if n * ((1u64 << shift) as f64) < 9e18 => Ok((n * (1u64 << shift) as f64) as u64),
            _ => Err(bad()),
        },
    }
}

/// A size, or -1.
pub fn bytes_or_unlimited(text: &str) -> Parsed<i64> {
    match text {
        "-1" => Ok(-1),
        _ => bytes(text).map(|n| n as i64),
    }
}

/// CPUs as the quota in a period of 100 ms, in µs.
pub fn cpus(text: &str) -> Parsed<u64> {
    match text.parse::<f64>() {
        Ok(n) if (0.01..=1e6).contains(&n) => Ok((n * 100_000.0).round() as u64),
        _ => Err("a number of CPUs, from 0.01 on".into()),
    }
}

/// `0-3,5`.
pub fn cpu_list(text: &str) -> Parsed<String> {
    let range = |part: &str| match part.split_once('-') {
        Some((a, b)) => matches!((a.parse::<u32>(), b.parse::<u32>()), (Ok(a), Ok(b)) if a <= b),
        None => part.parse::<u32>().is_ok(),
    };
    match text.split(',').all(range) {
        true => Ok(text.to_owned()),
        false => Err("numbers and ranges: 0-3,5".into()),
    }
}

/// A name that sethostname takes.
pub fn hostname(text: &str) -> Parsed<String> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    match !text.is_empty() && text.len() <= 64 && text.bytes().all(ok) {
        true => Ok(text.to_owned()),
        false => Err("at most 64 letters, digits, dots and hyphens".into()),
    }
}

/// `KEY=VALUE`.
pub fn key_value(text: &str) -> Parsed<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE".into()),
    }
}

/// `KEY` or `KEY=VALUE`.
pub fn key_maybe_value(text: &str) -> Parsed<(String, String)> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    match key.is_empty() {
        true => Err("KEY or KEY=VALUE".into()),
        false => Ok((key.to_owned(), value.to_owned())),
    }
}

/// An absolute path below the root, without `.` and `..`.
fn target(text: &str) -> Parsed<String> {
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => (),
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    match text.starts_with('/') && !parts.is_empty() {
        true => Ok(format!("/{}", parts.join("/"))),
        false => Err(format!("{text:?}: the place in the container is an absolute path, not /")),
    }
}

/// `[SRC:]DST[:OPTIONS]`.
pub fn volume(text: &str) -> Parsed<Binding> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, place, options) = match parts[..] {
        [place] => ("", place, ""),
        [source, place] => (source, place, ""),
        [source, place, options] => (source, place, options),
        _ => return Err("[SRC:]DST[:OPTIONS]".into()),
    };
    let source = match source {
        "" if parts.len() == 1 => Source::Anonymous,
        "" => return Err("nothing before the first colon".into()),
        path if path.starts_with(['/', '.']) => {
            Source::Host { path: path.to_owned(), create: true }
        }
        name => Source::Named(volume_name(name)?),
    };
    let mut binding = binding(source, target(place)?);
    options
        .split(',')
        .filter(|o| !o.is_empty())
        .try_for_each(|o| volume_option(&mut binding, o))?;
    Ok(binding)
}

fn binding(source: Source, target: String) -> Binding {
    let propagation = "rprivate".to_owned();
    let (read_only, recursive, copy, relabel) = (false, true, true, false);
    Binding { source, target, read_only, propagation, recursive, copy, relabel }
}

fn volume_option(binding: &mut Binding, option: &str) -> Parsed<()> {
    match option {
        "ro" => binding.read_only = true,
        "rw" => binding.read_only = false,
        "z" | "Z" => binding.relabel = true,
        "nocopy" => binding.copy = false,
        "copy" => binding.copy = true,
        "rbind" => binding.recursive = true,
        "bind" => binding.recursive = false,
        "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
            binding.propagation = option.to_owned();
        }
        other => return Err(format!("unknown option {other:?}")),
    }
    Ok(())
}

fn volume_name(name: &str) -> Parsed<String> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    match first && name.len() <= 255 && name.bytes().all(ok) {
        true => Ok(name.to_owned()),
        false => Err(format!("{name:?}: a volume's name is letters, digits, _ . and -")),
    }
}

/// `type=bind,source=/a,target=/b,readonly`.
pub fn mount(text: &str) -> Parsed<Binding> {
    let (mut kind, mut source, mut place) = ("volume", None, None);
    let mut rest = Vec::new();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        match key {
            "type" => kind = value,
            "source" | "src" => source = Some(value),
            "target" | "destination" | "dst" => place = Some(value),
            _ => rest.push((key, value, field.contains('='))),
        }
    }
    let place = target(place.ok_or("target= is missing")?)?;
    let source = match (kind, source) {
        ("bind", Some(path)) => Source::Host { path: path.to_owned(), create: false },
        ("bind", None) => return Err("source= is missing".into()),
        ("volume", Some(name)) => Source::Named(volume_name(name)?),
        ("volume", None) => Source::Anonymous,
        ("tmpfs", None) => Source::Tmpfs(Vec::new()),
        ("tmpfs", Some(_)) => return Err("a tmpfs has no source".into()),
        (other, _) => return Err(format!("unknown type {other:?}: bind, volume or tmpfs")),
    };
    let mut binding = binding(source, place);
    rest.into_iter().try_for_each(|(k, v, given)| mount_field(&mut binding, k, v, given))?;
    Ok(binding)
}

fn mount_field(binding: &mut Binding, key: &str, value: &str, given: bool) -> Parsed<()> {
    let flag = || match value {
        "" if !given => Ok(true),
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{key} is true or false")),
    };
    match (key, &mut binding.source) {
        ("readonly" | "ro", _) => binding.read_only = flag()?,
        ("bind-propagation", Source::Host { .. }) => volume_option(binding, value)?,
        ("bind-nonrecursive", Source::Host { .. }) => binding.recursive = !flag()?,
        ("bind-create-src", Source::Host { create, .. }) => *create = flag()?,
        ("volume-nocopy", Source::Named(_) | Source::Anonymous) => binding.copy = !flag()?,
        ("tmpfs-size", Source::Tmpfs(options)) => options.push(format!("size={}", bytes(value)?)),
        ("tmpfs-mode", Source::Tmpfs(options)) => {
            let mode = u32::from_str_radix(value, 8).map_err(|_| "tmpfs-mode is octal")?;
            options.push(format!("mode={mode:o}"));
        }
        ("tmpfs-options", Source::Tmpfs(options)) => options.push(value.to_owned()),
        _ => return Err(format!("unknown field {key:?} for this type")),
    }
    Ok(())
}

/// `DST[:OPTIONS]`.
pub fn tmpfs(text: &str) -> Parsed<Tmpfs> {
    let (place, options) = text.split_once(':').unwrap_or((text, ""));
    let options = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
    Ok(Tmpfs { target: target(place)?, options })
}

/// `HOST[:PATH][:rwm]`.
pub fn device(text: &str) -> Parsed<DeviceMap> {
    let is_access = |s: &str| !s.is_empty() && s.bytes().all(|b| b"rwm".contains(&b));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, path, access) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, access] if is_access(access) => (host, host, access),
        [host, path] => (host, path, "rwm"),
        [host, path, access] if is_access(access) => (host, path, access),
        _ => return Err("HOST[:PATH][:rwm]".into()),
    };
    if !host.starts_with('/') {
        return Err("the device is an absolute path".into());
    }
    Ok(DeviceMap { host: host.to_owned(), path: target(path)?, access: access.to_owned() })
}

/// `NAME=SOFT[:HARD]`, -1 being no limit.
pub fn ulimit(text: &str) -> Parsed<Ulimit> {
    const NAMES: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let (name, limits) = key_value(text)?;
    if !NAMES.contains(&name.as_str()) {
        return Err(format!("unknown limit {name:?}; known: {}", NAMES.join(" ")));
    }
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text.parse::<u64>().map_err(|_| format!("{text:?} is no limit")),
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((&limits, &limits));
    let (soft, hard) = (number(soft)?, number(hard)?);
    match soft <= hard {
        true => Ok(Ulimit { name: format!("RLIMIT_{}", name.to_ascii_uppercase()), soft, hard }),
        false => Err("the soft limit is above the hard one".into()),
    }
}

/// One `--security-opt`.
pub fn security(text: &str) -> Parsed<Security> {
    // Docker takes a colon as well as an equals sign.
    let (key, value) = text.split_once(['=', ':']).unwrap_or((text, ""));
    match (key, value) {
        ("no-new-privileges", "" | "true") => Ok(Security::NoNewPrivileges(true)),
        ("no-new-privileges", "false") => Ok(Security::NoNewPrivileges(false)),
        ("seccomp", "unconfined") => Ok(Security::SeccompOff),
        ("seccomp", file) if !file.is_empty() => Ok(Security::Seccomp(file.into())),
        ("apparmor", profile) if !profile.is_empty() => Ok(Security::AppArmor(profile.into())),
        ("systempaths", "unconfined") => Ok(Security::SystemPathsOpen),
        _ => Err("no-new-privileges, seccomp=unconfined|FILE, apparmor=PROFILE or \
                  systempaths=unconfined"
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("64m"), Ok(64 << 20));
        assert_eq!(bytes("1.5G"), Ok(3 << 29));
        assert_eq!(bytes("17"), Ok(17));
        assert!(bytes("x").is_err() && bytes("1q").is_err() && bytes("").is_err());
        assert!(bytes("99999999999999999999g").is_err() && bytes("-5").is_err());
        assert_eq!(bytes_or_unlimited("-1"), Ok(-1));
        assert_eq!(cpus("1.5"), Ok(150_000));
        assert!(cpus("0").is_err() && cpus("-1").is_err() && cpus("NaN").is_err());
    }

    #[test]
    fn volumes() {
        let v = volume("/src:/dst/../d:ro,rslave").unwrap();
        assert_eq!(v.source, Source::Host { path: "/src".into(), create: true });
        assert_eq!(
            (v.target.as_str(), v.read_only, v.propagation.as_str()),
            ("/d", true, "rslave")
        );
        assert_eq!(volume("data:/d").unwrap().source, Source::Named("data".into()));
        assert_eq!(volume("/d").unwrap().source, Source::Anonymous);
        for bad in ["a:b:c:d", "/a:rel", "/a:/", ":/b", "/a:/b:wrong", "../x/y:b", "a b:/d"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts() {
        let m = mount("type=bind,src=/a,dst=/b,readonly,bind-propagation=shared").unwrap();
        assert!(m.read_only && m.propagation == "shared");
        assert_eq!(m.source, Source::Host { path: "/a".into(), create: false });
        let t = mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777").unwrap();
        assert_eq!(t.source, Source::Tmpfs(vec!["size=1048576".into(), "mode=1777".into()]));
        for bad in
            ["type=bind,dst=/b", "type=x,dst=/b", "type=tmpfs,src=/a,dst=/b", "src=v", "dst=/b,wat"]
        {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices_limits_and_the_rest() {
        assert_eq!(device("/dev/fuse").unwrap().access, "rwm");
        assert_eq!(device("/dev/fuse:r").unwrap().path, "/dev/fuse");
        assert_eq!(device("/dev/fuse:/dev/x:rw").unwrap().path, "/dev/x");
        assert!(device("fuse").is_err() && device("/dev/a:/b:q").is_err());
        let limit = ulimit("nofile=10:20").unwrap();
        assert_eq!((limit.name.as_str(), limit.soft, limit.hard), ("RLIMIT_NOFILE", 10, 20));
        assert_eq!(ulimit("core=-1").unwrap().hard, u64::MAX);
        assert!(ulimit("nofile=20:10").is_err() && ulimit("x=1").is_err());
        assert_eq!(security("seccomp=unconfined"), Ok(Security::SeccompOff));
        assert_eq!(security("no-new-privileges:true"), Ok(Security::NoNewPrivileges(true)));
        assert!(security("label=disable").is_err());
        assert!(cpu_list("0-3,5").is_ok() && cpu_list("3-1").is_err() && cpu_list("").is_err());
        assert!(hostname("a.b-c").is_ok() && hostname("a b").is_err() && hostname("").is_err());
    }
}
