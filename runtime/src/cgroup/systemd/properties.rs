//! Limits and annotations as properties of a unit (org.freedesktop.systemd1(5)).
//!
//! systemd must know the limits: it writes the files of its units again when it reloads. What it has
//! no property for is in the files alone, which are written in any case.

use super::bus::Value;
use super::gvariant;
use crate::cgroup::devices::Rule;
use crate::cgroup::resources::Write;
use crate::error::{Context, Error, Result};
use rustbus::params::{Array, Base, Container, Param, Variant};
use rustbus::signature::Type;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// A property and its value.
#[derive(Debug, Clone, Serialize)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(serialize_with = "show")]
    pub value: Value,
    /// The first version of systemd that has it, where not all have.
    #[serde(skip)]
    pub since: Option<u32>,
}

fn show<S: Serializer>(value: &Value, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:?}"))
}

impl Property {
    fn new(name: &str, value: Value) -> Self {
        Self { name: name.into(), value, since: None }
    }

    fn since(self, version: u32) -> Self {
        Self { since: Some(version), ..self }
    }

    /// As the struct `(sv)` that the calls take.
    pub fn argument(&self) -> Value {
        let value = Variant { sig: self.value.sig(), value: self.value.clone() };
        let variant = Param::Container(Container::Variant(Box::new(value)));
        tuple(vec![text(&self.name), variant])
    }
}

/// A text.
pub fn text(value: &str) -> Value {
    Param::Base(Base::String(value.into()))
}

/// A 32 bit number.
pub fn number(value: u32) -> Value {
    Param::Base(Base::Uint32(value))
}

/// A truth value.
pub fn boolean(value: bool) -> Value {
    Param::Base(Base::Boolean(value))
}

fn wide(value: u64) -> Value {
    Param::Base(Base::Uint64(value))
}

fn tuple(values: Vec<Value>) -> Value {
    Param::Container(Container::Struct(values))
}

/// An array of elements of the D-Bus type `element`.
pub fn array(element: &str, values: Vec<Value>) -> Value {
    let types = Type::parse_description(element).expect("the elements' types are written here");
    let element_sig = types.into_iter().next().expect("each is one type");
    Param::Container(Container::Array(Array { element_sig, values }))
}

/// What every scope of ours gets: the process `pid` in it, its limits all counted, its tree ours to
/// divide, and nothing left of it when it ends.
pub fn of_scope(slice: &str, id: &str, pid: u32, unified: bool) -> Vec<Property> {
    let io = if unified { "IOAccounting" } else { "BlockIOAccounting" };
    let mut all = vec![
        Property::new("Description", text(&format!("container {id}"))),
        Property::new("Slice", text(slice)),
        Property::new("PIDs", array("u", vec![number(pid)])),
        Property::new("Delegate", boolean(true)),
        Property::new("DefaultDependencies", boolean(false)),
        Property::new("CollectMode", text("inactive-or-failed")),
    ];
    let counters = ["MemoryAccounting", "CPUAccounting", "TasksAccounting", io];
    all.extend(counters.map(|name| Property::new(name, boolean(true))));
    all
}

/// Annotations `org.systemd.property.NAME`, typed by the text of their values; a name that ends in
/// `Sec` is a time in seconds, which D-Bus knows in microseconds (`USec`).
pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>> {
    const PREFIX: &str = "org.systemd.property.";
    let mut all = Vec::new();
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let named = || format!("config.json: annotations: {key}");
        if name.len() < 3 || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(Error::new("it names no property of a unit").wrap(named()));
        }
        if matches!(name, "PIDs" | "Slice") {
            return Err(Error::new("linux.cgroupsPath and the container decide it").wrap(named()));
        }
        let value = gvariant::parse(value).wrap(named)?;
        let (name, value) = match name.strip_suffix("Sec") {
            Some(base) if !base.ends_with('U') => {
                (format!("{base}USec"), micros(value).wrap(named)?)
            }
            _ => (name.to_string(), value),
        };
        all.push(Property { name, value, since: None });
    }
    Ok(all)
}

/// Seconds as microseconds.
fn micros(value: Value) -> Result<Value> {
    let seconds = match value {
        Param::Base(Base::Int32(n)) => u64::try_from(n).ok(),
        Param::Base(Base::Int64(n)) => u64::try_from(n).ok(),
        Param::Base(Base::Uint32(n)) => Some(n.into()),
        Param::Base(Base::Uint64(n)) => Some(n),
        Param::Base(Base::Double(bits)) => {
            let micros = f64::from_bits(bits) * 1e6;
            return match (0.0..1e18).contains(&micros) {
                true => Ok(wide(micros as u64)),
                false => Err(Error::new("it is no time in seconds")),
            };
        }
        _ => None,
    };
    let micros = seconds.and_then(|n| n.checked_mul(1_000_000));
    micros.map(wide).ok_or_else(|| Error::new("it is no time in seconds"))
}

/// The limits that are written into the files of a group, as properties: both say the same.
pub fn from_writes(writes: &[Write]) -> Vec<Property> {
    let mut all: Vec<Property> = Vec::new();
    for write in writes {
        let preferred = one(&write.file, &write.value);
        let instead = write.instead.as_ref().map(|(file, value)| one(file, value));
        for property in preferred.into_iter().chain(instead.into_iter().flatten()) {
            // Properties of several devices are one list.
            match all.iter_mut().find(|p| p.name == property.name) {
                Some(had) => append(had, property),
                None => all.push(property),
            }
        }
    }
    cpu_quota_v1(writes, &mut all);
    all
}

fn append(had: &mut Property, more: Property) {
    match (&mut had.value, more.value) {
        (Param::Container(Container::Array(to)), Param::Container(Container::Array(from))) => {
            to.values.extend(from.values)
        }
        (value, new) => *value = new,
    }
}

/// Files of which a property holds the number, or "no limit".
const PLAIN: [(&str, &str); 13] = [
    ("memory.max", "MemoryMax"),
    ("memory.high", "MemoryHigh"),
    ("memory.low", "MemoryLow"),
    ("memory.min", "MemoryMin"),
    ("memory.swap.max", "MemorySwapMax"),
    ("pids.max", "TasksMax"),
    ("cpu.weight", "CPUWeight"),
    ("io.weight", "IOWeight"),
    ("memory.limit_in_bytes", "MemoryLimit"),
    ("cpu.shares", "CPUShares"),
    ("blkio.weight", "BlockIOWeight"),
    ("blkio.bfq.weight", "BlockIOWeight"),
    ("memory.soft_limit_in_bytes", ""),
];

/// The properties that say what one write to a file says; none if systemd has none for it.
fn one(file: &str, value: &str) -> Vec<Property> {
    let plain = PLAIN.iter().find(|(name, property)| *name == file && !property.is_empty());
    if let (Some((_, property)), Some(number)) = (plain, limit(value)) {
        return vec![Property::new(property, wide(number))];
    }
    match file {
        "cpu.max" => cpu_max(value),
        "cpu.idle" if value == "1" => vec![Property::new("CPUWeight", wide(0)).since(252)],
        "cpuset.cpus" => mask("AllowedCPUs", value),
        "cpuset.mems" => mask("AllowedMemoryNodes", value),
        "io.max" => io_max(value),
        "io.weight" => device(value, "IODeviceWeight", |weight| weight.parse().ok()),
        _ => throttle_v1(file, value),
    }
}

/// A number; `max` and -1 are no limit.
fn limit(value: &str) -> Option<u64> {
    match value {
        "max" | "-1" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// `QUOTA PERIOD`, in microseconds.
fn cpu_max(value: &str) -> Vec<Property> {
    let mut words = value.split_whitespace();
    let quota = words.next().and_then(limit);
    let period = words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(100_000);
    quota.map_or_else(Vec::new, |quota| cpu_quota(quota, period))
}

/// systemd counts CPU time per second, in steps of a hundredth of a CPU; it is rounded up, and the
/// file has the exact value.
fn cpu_quota(quota: u64, period: u64) -> Vec<Property> {
    const STEP: u64 = 10_000;
    let per_second = match quota {
        u64::MAX => u64::MAX,
        quota => match quota.checked_mul(1_000_000).map(|q| q.div_ceil(period.max(1))) {
            Some(exact) => exact.next_multiple_of(STEP),
            None => u64::MAX,
        },
    };
    vec![
        Property::new("CPUQuotaPerSecUSec", wide(per_second)),
        Property::new("CPUQuotaPeriodUSec", wide(period)).since(242),
    ]
}

/// v1 keeps quota and period in two files.
fn cpu_quota_v1(writes: &[Write], all: &mut Vec<Property>) {
    let find = |file: &str| writes.iter().find(|w| w.file == file).map(|w| w.value.as_str());
    let Some(quota) = find("cpu.cfs_quota_us").and_then(limit) else { return };
    let period = find("cpu.cfs_period_us").and_then(limit).unwrap_or(100_000);
    all.extend(cpu_quota(quota, period));
}

/// A list such as `0-2,5` as the bits of bytes.
fn mask(name: &str, list: &str) -> Vec<Property> {
    let mut bytes: Vec<u8> = Vec::new();
    for range in list.split(',').map(str::trim).filter(|r| !r.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
            return Vec::new();
        };
        // The kernel knows no more, and refuses the list itself.
        for bit in (first..=last).take_while(|bit| *bit < 8192) {
            bytes.resize(bytes.len().max(bit / 8 + 1), 0);
            bytes[bit / 8] |= 1 << (bit % 8);
        }
    }
    let bytes = bytes.into_iter().map(|byte| Param::Base(Base::Byte(byte))).collect();
    vec![Property::new(name, array("y", bytes)).since(244)]
}

/// `MAJOR:MINOR KEY=VALUE …`
fn io_max(line: &str) -> Vec<Property> {
    let names = [
        ("rbps", "IOReadBandwidthMax"),
        ("wbps", "IOWriteBandwidthMax"),
        ("riops", "IOReadIOPSMax"),
        ("wiops", "IOWriteIOPSMax"),
    ];
    let Some((at, settings)) = line.split_once(' ') else { return Vec::new() };
    let mut all = Vec::new();
    for (key, value) in settings.split_whitespace().filter_map(|s| s.split_once('=')) {
        if let Some((_, name)) = names.iter().find(|(k, _)| *k == key) {
            all.extend(device(&format!("{at} {value}"), name, limit));
        }
    }
    all
}

fn throttle_v1(file: &str, line: &str) -> Vec<Property> {
    match file {
        "blkio.throttle.read_bps_device" => device(line, "BlockIOReadBandwidth", limit),
        "blkio.throttle.write_bps_device" => device(line, "BlockIOWriteBandwidth", limit),
        _ => Vec::new(),
    }
}

/// `MAJOR:MINOR VALUE` as a list of one pair of path and number.
fn device(line: &str, name: &str, value: impl Fn(&str) -> Option<u64>) -> Vec<Property> {
    let Some((at, word)) = line.split_once(' ') else { return Vec::new() };
    let Some(number) = value(word) else { return Vec::new() };
    let pair = tuple(vec![text(&format!("/dev/block/{at}")), wide(number)]);
    vec![Property::new(name, array("(st)", vec![pair]))]
}

/// Device rules. systemd's list only allows, so it is the wider one where a rule denies an
/// exception; our own filter beside it has the last word. If a rule cannot be said to systemd,
/// nothing is: a filter of its own would then deny what the rule allows.
pub fn from_devices(rules: &[Rule]) -> Vec<Property> {
    let auto = || vec![Property::new("DevicePolicy", text("auto"))];
    let mut entries: Vec<Value> = Vec::new();
    for rule in rules.iter().filter(|rule| rule.allow) {
        let kinds: &[&str] = match rule.kind {
            'b' => &["block"],
            'c' => &["char"],
            _ => &["block", "char"],
        };
        for kind in kinds {
            let node = match (rule.major, rule.minor) {
                (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
                (Some(major), None) => format!("{kind}-{major}"),
                (None, None) => format!("{kind}-*"),
                (None, Some(_)) => return auto(),
            };
            entries.push(tuple(vec![text(&node), text(&rule.access)]));
        }
    }
    match rules {
        [only] if only.allow && only.kind == 'a' => auto(),
        _ => vec![
            Property::new("DevicePolicy", text("strict")),
            Property::new("DeviceAllow", array("(ss)", entries)),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::resources::{self, Sides};

    fn from(json: &str) -> Vec<(String, Value)> {
        let resources = serde_json::from_str(json).unwrap();
        let unified = Sides::new([(&[] as &[String], true)].into_iter());
        let all = from_writes(&resources::writes(&resources, &unified).unwrap());
        all.into_iter().map(|p| (p.name, p.value)).collect()
    }

    fn pair(name: &str, value: u64) -> (String, Value) {
        (name.into(), wide(value))
    }

    #[test]
    fn limits_of_v2_have_properties() {
        let json = r#"{"memory":{"limit":1000,"swap":3000,"reservation":500},"pids":{"limit":7}}"#;
        assert_eq!(
            from(json),
            [
                pair("MemorySwapMax", 2000),
                pair("MemoryMax", 1000),
                pair("MemoryLow", 500),
                pair("TasksMax", 7)
            ]
        );
        let json = r#"{"cpu":{"shares":1024,"quota":50000,"period":200000}}"#;
        assert_eq!(
            from(json),
            [
                pair("CPUWeight", 100),
                pair("CPUQuotaPerSecUSec", 250_000),
                pair("CPUQuotaPeriodUSec", 200_000)
            ]
        );
    }

    #[test]
    fn no_limit_is_the_highest_number() {
        let json = r#"{"pids":{"limit":-1}}"#;
        assert_eq!(from(json), [pair("TasksMax", u64::MAX)]);
    }

    #[test]
    fn cpu_time_is_rounded_up_to_a_hundredth() {
        assert_eq!(cpu_quota(1, 1000)[0].value, wide(10_000));
        assert_eq!(cpu_quota(3333, 10_000)[0].value, wide(340_000));
        assert_eq!(cpu_quota(u64::MAX, 10)[0].value, wide(u64::MAX));
    }

    #[test]
    fn lists_of_cpus_are_bits() {
        let bytes =
            |list: &[u8]| array("y", list.iter().map(|b| Param::Base(Base::Byte(*b))).collect());
        assert_eq!(mask("AllowedCPUs", "0-1,9")[0].value, bytes(&[3, 2]));
        assert!(mask("AllowedCPUs", "x").is_empty());
    }

    #[test]
    fn throttles_are_lists_of_devices() {
        let json = r#"{"blockIO":{"throttleReadBpsDevice":[
            {"major":8,"minor":0,"rate":7},{"major":8,"minor":16,"rate":9}]}}"#;
        let one = |at: &str, rate| tuple(vec![text(&format!("/dev/block/{at}")), wide(rate)]);
        let wanted = array("(st)", vec![one("8:0", 7), one("8:16", 9)]);
        let found = from(json);
        assert_eq!(found, [("IOReadBandwidthMax".to_string(), wanted)]);
    }

    #[test]
    fn devices_are_a_list_or_everything() {
        let rule =
            |allow, kind, major, minor| Rule { allow, kind, major, minor, access: "rw".into() };
        let deny = rule(false, 'a', None, None);
        let found = from_devices(&[
            deny.clone(),
            rule(true, 'c', Some(1), Some(3)),
            rule(true, 'c', Some(136), None),
            rule(true, 'b', None, None),
        ]);
        let entry = |node| tuple(vec![text(node), text("rw")]);
        assert_eq!(found[0].value, text("strict"));
        let wanted = vec![entry("/dev/char/1:3"), entry("char-136"), entry("block-*")];
        assert_eq!(found[1].value, array("(ss)", wanted));
        let odd = from_devices(&[deny, rule(true, 'c', None, Some(3))]);
        assert_eq!((odd.len(), &odd[0].value), (1, &text("auto")));
    }

    #[test]
    fn seconds_become_microseconds() {
        let given = |name: &str, value: &str| {
            let key = format!("org.systemd.property.{name}");
            from_annotations(&BTreeMap::from([(key, value.to_string())]))
        };
        let one = given("TimeoutStopSec", "2").unwrap().remove(0);
        assert_eq!((one.name.as_str(), one.value), ("TimeoutStopUSec", wide(2_000_000)));
        let one = given("RuntimeMaxSec", "1.5").unwrap().remove(0);
        assert_eq!(one.value, wide(1_500_000));
        let one = given("TimeoutStopUSec", "uint64 9").unwrap().remove(0);
        assert_eq!(one.value, wide(9));
        for (name, value) in [("XSec", "'a'"), ("X", "1"), ("A-B", "1"), ("PIDs", "@au [1]")] {
            assert!(given(name, value).is_err(), "{name}");
        }
    }
}
