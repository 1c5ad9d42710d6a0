//! The image configuration as order-preserving JSON (image-spec, config.md, plus Docker's
//! `Healthcheck`, `OnBuild` and `Shell`).

use serde_json::{Map, Value, json};

use crate::digest::Digest;
use crate::platform::Platform;
use crate::{Context, Error, Result};

/// An image configuration. Setters change only their own field; everything else, known or not,
/// keeps its value and its place.
#[derive(Clone, Debug)]
pub struct ImageConfig {
    root: Map<String, Value>,
    diff_ids: Vec<Digest>,
    original: Option<Vec<u8>>,
}

impl ImageConfig {
    /// A configuration for `platform` with no layers and nothing set.
    pub fn new(platform: &Platform) -> ImageConfig {
        let mut root = Map::new();
        root.insert("architecture".into(), json!(platform.architecture));
        root.insert("os".into(), json!(platform.os));
        if let Some(variant) = &platform.variant {
            root.insert("variant".into(), json!(variant));
        }
        root.insert("config".into(), json!({}));
        root.insert("rootfs".into(), json!({"type": "layers", "diff_ids": []}));
        root.insert("history".into(), json!([]));
        ImageConfig { root, diff_ids: Vec::new(), original: None }
    }

    /// Parses a configuration. The shapes of all known fields are checked here, once, so that the
    /// accessors need not fail; an error names the JSON path.
    pub fn parse(bytes: &[u8]) -> Result<ImageConfig> {
        ImageConfig::parse_inner(bytes).wrap(|| "invalid image configuration")
    }

    fn parse_inner(bytes: &[u8]) -> Result<ImageConfig> {
        let root: Map<String, Value> = serde_json::from_slice(bytes)?;
        check_shapes(&root)?;
        let diff_ids = parse_diff_ids(&root)?;
        Ok(ImageConfig { root, diff_ids, original: Some(bytes.to_owned()) })
    }

    /// The exact bytes it came from, or new ones if it was made or changed here.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.original {
            Some(bytes) => bytes.clone(),
            None => serde_json::to_vec(&self.root).expect("a JSON map is always JSON"),
        }
    }

    /// The whole document.
    pub fn as_json(&self) -> &Map<String, Value> {
        &self.root
    }

    /// The platform that the image was built for.
    pub fn platform(&self) -> Platform {
        let text = |key: &str| self.root.get(key).and_then(Value::as_str).filter(|s| !s.is_empty());
        Platform {
            architecture: text("architecture").unwrap_or_default().to_owned(),
            os: text("os").unwrap_or_default().to_owned(),
            os_version: text("os.version").map(str::to_owned),
            os_features: strings(self.root.get("os.features")),
            variant: text("variant").map(str::to_owned),
        }
    }

    /// A string at the top of the document: `author`, `created`.
    pub fn top(&self, key: &str) -> Option<&str> {
        self.root.get(key).and_then(Value::as_str)
    }

    /// Sets a value at the top of the document: `author`, `created`.
    pub fn set_top(&mut self, key: &str, value: Value) {
        self.original = None;
        self.root.insert(key.into(), value);
    }

    /// A field of `config`, whatever its type.
    pub fn field(&self, key: &str) -> Option<&Value> {
        self.root.get("config")?.get(key).filter(|v| !v.is_null())
    }

    /// Sets a field of `config`; `Value::Null` removes it.
    pub fn set_field(&mut self, key: &str, value: Value) {
        self.original = None;
        let config = self.root.entry("config").or_insert_with(|| json!({}));
        if config.is_null() {
            *config = json!({});
        }
        let config = config.as_object_mut().expect("parse checked that config is an object");
        match value {
            Value::Null => drop(config.shift_remove(key)),
            value => drop(config.insert(key.into(), value)),
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.field(key).and_then(Value::as_str).filter(|s| !s.is_empty())
    }

    fn set_text(&mut self, key: &str, value: &str) {
        self.set_field(key, if value.is_empty() { Value::Null } else { json!(value) });
    }

    fn set_list(&mut self, key: &str, values: Option<&[String]>) {
        self.set_field(key, values.map_or(Value::Null, |v| json!(v)));
    }

    /// `KEY=value` pairs, in order.
    pub fn env(&self) -> Vec<String> {
        strings(self.field("Env"))
    }

    /// Replaces the environment.
    pub fn set_env(&mut self, env: &[String]) {
        self.set_list("Env", (!env.is_empty()).then_some(env));
    }

    /// The entry point; `None` if unset.
    pub fn entrypoint(&self) -> Option<Vec<String>> {
        self.field("Entrypoint").map(|v| strings(Some(v)))
    }

    /// Sets or removes the entry point.
    pub fn set_entrypoint(&mut self, argv: Option<&[String]>) {
        self.set_list("Entrypoint", argv);
    }

    /// The default command or arguments; `None` if unset.
    pub fn cmd(&self) -> Option<Vec<String>> {
        self.field("Cmd").map(|v| strings(Some(v)))
    }

    /// Sets or removes the default command.
    pub fn set_cmd(&mut self, argv: Option<&[String]>) {
        self.set_list("Cmd", argv);
    }

    /// `user[:group]`, names or numbers; `None` if unset.
    pub fn user(&self) -> Option<&str> {
        self.text("User")
    }

    /// Sets the user; an empty string removes it.
    pub fn set_user(&mut self, user: &str) {
        self.set_text("User", user);
    }

    /// The working directory; `None` if unset.
    pub fn working_dir(&self) -> Option<&str> {
        self.text("WorkingDir")
    }

    /// Sets the working directory; an empty string removes it.
    pub fn set_working_dir(&mut self, dir: &str) {
        self.set_text("WorkingDir", dir);
    }

    /// The signal that stops the container, `SIGTERM` or a number; `None` if unset.
    pub fn stop_signal(&self) -> Option<&str> {
        self.text("StopSignal")
    }

    /// Sets the stop signal; an empty string removes it.
    pub fn set_stop_signal(&mut self, signal: &str) {
        self.set_text("StopSignal", signal);
    }

    /// Labels, in order.
    pub fn labels(&self) -> Vec<(String, String)> {
        let map = self.field("Labels").and_then(Value::as_object);
        let pair = |(k, v): (&String, &Value)| Some((k.clone(), v.as_str()?.to_owned()));
        map.into_iter().flatten().filter_map(pair).collect()
    }

    /// Sets one label.
    pub fn set_label(&mut self, key: &str, value: &str) {
        self.insert_in("Labels", key, json!(value));
    }

    /// Ports as `80/tcp`, in order.
    pub fn exposed_ports(&self) -> Vec<String> {
        keys(self.field("ExposedPorts"))
    }

    /// Adds an exposed port, written `80/tcp`.
    pub fn add_exposed_port(&mut self, port: &str) {
        self.insert_in("ExposedPorts", port, json!({}));
    }

    /// Volume paths, in order.
    pub fn volumes(&self) -> Vec<String> {
        keys(self.field("Volumes"))
    }

    /// Adds a volume path.
    pub fn add_volume(&mut self, path: &str) {
        self.insert_in("Volumes", path, json!({}));
    }

    /// Docker's health check, as it stands.
    pub fn healthcheck(&self) -> Option<&Value> {
        self.field("Healthcheck")
    }

    /// Sets Docker's health check; `None` removes it.
    pub fn set_healthcheck(&mut self, check: Option<Value>) {
        self.set_field("Healthcheck", check.unwrap_or(Value::Null));
    }

    /// Instructions for images built on this one.
    pub fn onbuild(&self) -> Vec<String> {
        strings(self.field("OnBuild"))
    }

    /// Replaces the instructions for images built on this one.
    pub fn set_onbuild(&mut self, instructions: &[String]) {
        self.set_list("OnBuild", (!instructions.is_empty()).then_some(instructions));
    }

    /// The shell of shell-form commands; `None` if unset.
    pub fn shell(&self) -> Option<Vec<String>> {
        self.field("Shell").map(|v| strings(Some(v)))
    }

    /// Sets or removes the shell.
    pub fn set_shell(&mut self, argv: Option<&[String]>) {
        self.set_list("Shell", argv);
    }

    /// Digests of the uncompressed layers, bottom first.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.diff_ids
    }

    /// The history entries, oldest first.
    pub fn history(&self) -> &[Value] {
        self.root.get("history").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Appends a layer and the history entry that tells of it.
    pub fn add_layer(&mut self, diff_id: &Digest, history: Value) {
        self.diff_ids.push(diff_id.clone());
        let ids = json!(self.diff_ids);
        let rootfs = self.root.entry("rootfs").or_insert_with(|| json!({"type": "layers"}));
        rootfs.as_object_mut().expect("parse checked rootfs").insert("diff_ids".into(), ids);
        self.add_history(history);
    }

    /// Replaces all layers, and the history with them.
    pub fn set_layers(&mut self, diff_ids: &[Digest], history: Vec<Value>) {
        self.original = None;
        self.diff_ids = diff_ids.to_vec();
        self.root.insert("rootfs".into(), json!({"type": "layers", "diff_ids": diff_ids}));
        self.root.insert("history".into(), Value::Array(history));
    }

    /// Appends a history entry; one without a layer says `"empty_layer": true`.
    pub fn add_history(&mut self, entry: Value) {
        self.original = None;
        let history = self.root.entry("history").or_insert_with(|| json!([]));
        match history.as_array_mut() {
            Some(list) => list.push(entry),
            None => *history = json!([entry]),
        }
    }

    /// Removes a key from `Labels`, `ExposedPorts` or `Volumes`. Returns whether it was there.
    pub fn remove_in(&mut self, field: &str, key: &str) -> bool {
        let Some(mut map) = self.field(field).and_then(Value::as_object).cloned() else {
            return false;
        };
        let found = map.shift_remove(key).is_some();
        self.set_field(field, if map.is_empty() { Value::Null } else { Value::Object(map) });
        found
    }

    fn insert_in(&mut self, field: &str, key: &str, value: Value) {
        let mut map = self.field(field).and_then(Value::as_object).cloned().unwrap_or_default();
        map.insert(key.into(), value);
        self.set_field(field, Value::Object(map));
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn keys(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_object).into_iter().flat_map(|m| m.keys().cloned()).collect()
}

/// What a known field must be; `null` always stands for "unset", as Go writes it.
fn check_shapes(root: &Map<String, Value>) -> Result<()> {
    for key in ["architecture", "os", "os.version", "variant", "author", "created"] {
        check(root, "", key, "a string", Value::is_string)?;
    }
    check(root, "", "config", "an object", Value::is_object)?;
    check(root, "", "rootfs", "an object", Value::is_object)?;
    check(root, "", "history", "a list of objects", is_list_of(Value::is_object))?;
    let Some(config) = root.get("config").and_then(Value::as_object) else { return Ok(()) };
    for key in ["User", "WorkingDir", "StopSignal"] {
        check(config, "config.", key, "a string", Value::is_string)?;
    }
    for key in ["Env", "Entrypoint", "Cmd", "OnBuild", "Shell"] {
        check(config, "config.", key, "a list of strings", is_list_of(Value::is_string))?;
    }
    for key in ["Labels", "ExposedPorts", "Volumes", "Healthcheck"] {
        check(config, "config.", key, "an object", Value::is_object)?;
    }
    match config.get("Labels").and_then(Value::as_object) {
        Some(labels) if !labels.values().all(Value::is_string) => {
            Err(Error::new("config.Labels: expected string values"))
        }
        _ => Ok(()),
    }
}

fn is_list_of(item: fn(&Value) -> bool) -> impl Fn(&Value) -> bool {
    move |v| v.as_array().is_some_and(|list| list.iter().all(item))
}

fn check(
    map: &Map<String, Value>,
    at: &str,
    key: &str,
    what: &str,
    ok: impl Fn(&Value) -> bool,
) -> Result<()> {
    match map.get(key) {
        Some(v) if !v.is_null() && !ok(v) => Err(Error::new(format!("{at}{key}: expected {what}"))),
        _ => Ok(()),
    }
}

fn parse_diff_ids(root: &Map<String, Value>) -> Result<Vec<Digest>> {
    let list = match root.get("rootfs").and_then(|r| r.get("diff_ids")) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(list) => list.as_array(),
    };
    let list = list.ok_or_else(|| Error::new("rootfs.diff_ids: expected a list"))?;
    let parse = |(i, v): (usize, &Value)| {
        let at = || format!("rootfs.diff_ids[{i}]");
        Digest::parse(v.as_str().unwrap_or_default()).wrap(at)
    };
    list.iter().enumerate().map(parse).collect()
}

/// Seconds since the epoch as image-spec writes times: RFC 3339, UTC.
pub fn format_time(seconds: i64) -> Result<String> {
    crate::time::format(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"zzz":1,"os":"linux","architecture":"amd64","config":{"X":{},"Env":["A=b"],"Cmd":null},"rootfs":{"type":"layers","diff_ids":[]}}"#;

    #[test]
    fn unchanged_bytes_survive() {
        let text = format!(" {TEXT}\n");
        assert_eq!(ImageConfig::parse(text.as_bytes()).unwrap().to_bytes(), text.as_bytes());
    }

    #[test]
    fn edits_keep_order_and_unknown_fields() {
        let mut c = ImageConfig::parse(TEXT.as_bytes()).unwrap();
        assert_eq!((c.env(), c.cmd()), (vec!["A=b".to_owned()], None));
        c.set_user("1000");
        c.set_label("a", "b");
        c.add_layer(&Digest::sha256(b""), json!({"created_by": "x"}));
        let text = String::from_utf8(c.to_bytes()).unwrap();
        assert!(text.starts_with(
            r#"{"zzz":1,"os":"linux","architecture":"amd64","config":{"X":{},"Env":["A=b"],"#
        ));
        assert_eq!(c.labels(), [("a".to_owned(), "b".to_owned())]);
        assert_eq!(ImageConfig::parse(text.as_bytes()).unwrap().diff_ids(), [Digest::sha256(b"")]);
    }

    #[test]
    fn errors_name_the_path() {
        let refuse = |from: &str, to: &str| {
            ImageConfig::parse(TEXT.replace(from, to).as_bytes()).unwrap_err().to_string()
        };
        assert!(refuse("[\"A=b\"]", "{}").ends_with("config.Env: expected a list of strings"));
        assert!(refuse("\"diff_ids\":[]", "\"diff_ids\":[\"x\"]").contains("rootfs.diff_ids[0]: "));
        assert!(refuse("\"linux\"", "7").ends_with("os: expected a string"));
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(format_time(0).unwrap(), "1970-01-01T00:00:00Z");
    }
}
