//! `RUN --mount=type=…,key=value,…`.

use super::suggest;

/// The kinds of mount that RUN knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountType {
    /// A directory of the context, a stage or an image.
    Bind,
    /// A directory which outlives the build.
    Cache,
    /// An empty directory in memory.
    Tmpfs,
    /// A file that never enters a layer.
    Secret,
}

/// Who else may use a cache mount meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Anyone.
    #[default]
    Shared,
    /// Nobody: others get a fresh directory.
    Private,
    /// Nobody: others wait.
    Locked,
}

/// One `--mount`. Values are as written; the plan expands them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    /// `type=`.
    pub kind: MountType,
    /// `from=`: stage or image.
    pub from: Option<String>,
    /// `source=`.
    pub source: Option<String>,
    /// `target=`.
    pub target: Option<String>,
    /// `ro` and `rw`, defaulted by kind.
    pub read_only: bool,
    /// `id=`.
    pub id: Option<String>,
    /// `sharing=`.
    pub sharing: Sharing,
    /// `required`.
    pub required: bool,
    /// `env=` of a secret.
    pub env: Option<String>,
    /// `size=` of a tmpfs, in bytes.
    pub size: Option<u64>,
    /// `mode=`.
    pub mode: Option<u32>,
    /// `uid=`.
    pub uid: Option<u32>,
    /// `gid=`.
    pub gid: Option<u32>,
}

const KEYS: &[&str] = &[
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "env",
    "size",
    "mode",
    "uid",
    "gid",
];

const TYPES: &[&str] = &["bind", "cache", "tmpfs", "secret", "ssh"];

/// Reads the comma-separated value of one `--mount`.
pub fn parse(text: &str) -> Result<MountSpec, String> {
    let fields: Vec<(String, Option<&str>)> = text
        .split(',')
        .map(|field| match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value)),
            None => (field.trim().to_ascii_lowercase(), None),
        })
        .collect();
    let kind = kind(&fields)?;
    let mut spec = MountSpec {
        kind,
        from: None,
        source: None,
        target: None,
        read_only: !matches!(kind, MountType::Cache | MountType::Tmpfs),
        id: None,
        sharing: Sharing::default(),
        required: false,
        env: None,
        size: None,
        mode: None,
        uid: None,
        gid: None,
    };
    for (key, value) in &fields {
        set(&mut spec, key, *value)?;
    }
    check(&spec)?;
    Ok(spec)
}

fn kind(fields: &[(String, Option<&str>)]) -> Result<MountType, String> {
    let Some((_, value)) = fields.iter().find(|(key, _)| key == "type") else {
        return Ok(MountType::Bind);
    };
    match value.unwrap_or_default().to_ascii_lowercase().as_str() {
        "bind" => Ok(MountType::Bind),
        "cache" => Ok(MountType::Cache),
        "tmpfs" => Ok(MountType::Tmpfs),
        "secret" => Ok(MountType::Secret),
        "ssh" => Err("RUN --mount=type=ssh is not supported by this version".into()),
        other => Err(suggest::append(format!("unsupported mount type {other:?}"), other, TYPES)),
    }
}

fn set(spec: &mut MountSpec, key: &str, value: Option<&str>) -> Result<(), String> {
    let required = || {
        value.map(str::to_owned).ok_or(format!("invalid field '{key}' must be a key=value pair"))
    };
    match key {
        "type" => {}
        "from" => spec.from = Some(required()?),
        "source" | "src" => spec.source = Some(required()?),
        "target" | "dst" | "destination" => spec.target = Some(required()?),
        "readonly" | "ro" => spec.read_only = boolean(key, value)?,
        "readwrite" | "rw" => spec.read_only = !boolean(key, value)?,
        "id" => spec.id = Some(required()?),
        "sharing" if spec.kind == MountType::Cache => spec.sharing = sharing(&required()?)?,
        "required" if spec.kind == MountType::Secret => spec.required = boolean(key, value)?,
        "env" if spec.kind == MountType::Secret => spec.env = Some(required()?),
        "size" if spec.kind == MountType::Tmpfs => spec.size = Some(size(&required()?)?),
        "mode" if owned(spec) => spec.mode = Some(number(key, &required()?, 8)?),
        "uid" if owned(spec) => spec.uid = Some(number(key, &required()?, 10)?),
        "gid" if owned(spec) => spec.gid = Some(number(key, &required()?, 10)?),
        key if KEYS.contains(&key) => {
            let kind = format!("{:?}", spec.kind).to_lowercase();
            return Err(format!("unexpected key '{key}' for mount type '{kind}'"));
        }
        key => return Err(suggest::append(format!("unexpected key '{key}'"), key, KEYS)),
    }
    Ok(())
}

fn owned(spec: &MountSpec) -> bool {
    matches!(spec.kind, MountType::Cache | MountType::Secret)
}

fn boolean(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("1" | "t" | "true" | "TRUE" | "True" | "T") => Ok(true),
        Some("0" | "f" | "false" | "FALSE" | "False" | "F") => Ok(false),
        Some(other) => Err(format!("invalid value for {key}: {other}")),
    }
}

fn number(key: &str, value: &str, radix: u32) -> Result<u32, String> {
    u32::from_str_radix(value, radix).map_err(|_| format!("invalid value {value} for {key}"))
}

fn sharing(value: &str) -> Result<Sharing, String> {
    match value {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        other => Err(suggest::append(
            format!("unsupported sharing value {other:?}"),
            other,
            &["shared", "private", "locked"],
        )),
    }
}

/// A size such as `64m`: bytes, with binary suffixes.
fn size(value: &str) -> Result<u64, String> {
    let lower = value.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match lower[digits.len()..].trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("invalid value for size: {value}")),
    };
    let count: u64 = digits.parse().map_err(|_| format!("invalid value for size: {value}"))?;
    count.checked_mul(1 << shift).ok_or(format!("invalid value for size: {value}"))
}

fn check(spec: &MountSpec) -> Result<(), String> {
    if spec.from.as_ref().is_some_and(|from| from.contains('$')) {
        return Err("'from' doesn't support variable expansion, define alias stage instead".into());
    }
    match spec.kind {
        MountType::Secret if spec.from.is_some() => {
            Err("secret mount should not have a from".into())
        }
        MountType::Secret if spec.source.is_some() && spec.id.is_some() => {
            Err("both source and id can't be set".into())
        }
        MountType::Secret
            if spec.source.is_none() && spec.target.is_none() && spec.id.is_none() =>
        {
            Err("invalid secret mount: one of id, source, target required".into())
        }
        MountType::Bind | MountType::Cache | MountType::Tmpfs if spec.target.is_none() => {
            Err("a mount needs target=PATH".into())
        }
        _ => Ok(()),
    }
}
