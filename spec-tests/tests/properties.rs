//! Every property of config.json that version 1.3 of the specification has: what one sets is either
//! seen in the plan, or refused by name. None is silently dropped.
//!
//! `properties/runtime-spec-1.3.json` lists them: the JSON pointer, the values that it is given in
//! turn (null: left out), and what the configuration needs besides (`with`, a merge patch).
//! `refused` are those values that are refused; all of them may be where that `depends_on` the host.
//! `refused_as` names another property by which they may be.

use std::fmt::Write as _;

use serde_json::{Value, json};
use spec_tests::{Bundle, Case, Outcome, skip};

const PROPERTIES: &str = include_str!("../properties/runtime-spec-1.3.json");

fn properties() -> Vec<Value> {
    serde_json::from_str(PROPERTIES).expect("the list is JSON")
}

fn pointer(property: &Value) -> &str {
    property["property"].as_str().expect("a pointer")
}

/// `/linux/devices/0/type` as `linux.devices[0].type`.
fn path(pointer: &str) -> String {
    let mut path = String::new();
    for key in pointer.trim_start_matches('/').split('/') {
        let dot = if path.is_empty() { "" } else { "." };
        match key.parse::<usize>() {
            Ok(index) => write!(path, "[{index}]").expect("a string"),
            Err(_) => write!(path, "{dot}{key}").expect("a string"),
        }
    }
    path
}

/// RFC 7396, but for null, which is kept out of the lists.
fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

fn remove(config: &mut Value, pointer: &str) {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    if let Some(Value::Object(parent)) = config.pointer_mut(parent) {
        parent.remove(key);
    }
}

/// The default configuration with what the property needs, and the property set to `value`.
fn bundle_with(case: &Case, property: &Value, value: &Value) -> Bundle {
    let mut bundle = case.bundle();
    std::fs::create_dir(bundle.dir.join("other")).expect("make another root");
    if pointer(property).starts_with("/linux/seccomp/") {
        remove(&mut bundle.config, "/linux/seccomp");
    }
    if let Some(patch) = property.get("with") {
        merge(&mut bundle.config, patch);
    }
    // Removed with the user namespace that the list's own entries ask for.
    match value {
        Value::Null => {
            remove(&mut bundle.config, pointer(property));
            bundle
        }
        value => bundle.set(pointer(property), value.clone()),
    }
}

/// What `plan` prints, without what is but a copy of the configuration.
fn plan(case: &Case, bundle: &Bundle, with_copies: bool) -> Result<Value, Outcome> {
    bundle.write();
    let mut command = case.command();
    command.args(["plan", "--format", "json"]).arg(&bundle.dir);
    let outcome = case.outcome(command);
    if outcome.code() != 0 {
        return Err(outcome);
    }
    let mut plan = outcome.json();
    plan["bundle"] = json!(null);
    let path = plan["rootfs"]["path"].as_str().expect("a path").to_owned();
    plan["rootfs"]["path"] = json!(path.rsplit('/').next());
    let own = bundle.config["linux"]["cgroupsPath"].to_string();
    if own.contains(&bundle.id) {
        plan["cgroup"]["path"] = json!(null);
        plan["cgroup_paths"] = json!(null);
    }
    if !with_copies {
        plan["cgroup"]["resources"] = json!(null);
        for mount in plan["rootfs"]["mounts"].as_array_mut().into_iter().flatten() {
            mount["options"] = json!(null);
        }
    }
    Ok(plan)
}

/// Does the message name the property? Intent and property may be joined by a colon.
fn names(outcome: &Outcome, path: &str) -> bool {
    let said = outcome.stderr.replace(": ", ".").replace("[\"", ".").replace("\"]", "");
    said.contains(path) || outcome.stderr.contains(path)
}

fn refused(property: &Value, value: &Value) -> bool {
    property["refused"].as_array().is_some_and(|list| list.contains(value))
}

/// What is wrong with the runtime's answer to the property, if anything is.
fn judge(case: &Case, property: &Value) -> Option<String> {
    let path = path(pointer(property));
    let with_copies = property.get("consulted_by").is_some();
    let mut seen: Vec<(&Value, Value)> = Vec::new();
    for value in property["values"].as_array().expect("values") {
        match plan(case, &bundle_with(case, property, value), with_copies) {
            Ok(_) if refused(property, value) => {
                return Some(format!("{path}: {value} is not refused"));
            }
            Ok(plan) => {
                if let Some((other, _)) = seen.iter().find(|(_, other)| *other == plan) {
                    return Some(format!("{path}: {value} and {other} have the same plan"));
                }
                seen.push((value, plan));
            }
            Err(outcome) => {
                if property.get("depends_on").is_none() && !refused(property, value) {
                    return Some(format!("{path}: {value} is refused: {outcome}"));
                }
                // A list may be refused as a whole.
                let list = path.rsplit_once('[').map_or(&*path, |(list, _)| list);
                let other = property["refused_as"].as_str();
                if !names(&outcome, list) && !other.is_some_and(|o| names(&outcome, o)) {
                    return Some(format!(
                        "{path} = {value}: the refusal does not name it: {outcome}"
                    ));
                }
            }
        }
    }
    None
}

#[test]
fn every_property_is_planned_or_refused_by_name() {
    let case = Case::new();
    if !case.runtime_is("runtime") {
        skip!("others have no plan");
    }
    let all = properties();
    assert!(all.len() > 170, "only {} properties are listed", all.len());
    let wrong: Vec<String> = all.iter().filter_map(|property| judge(&case, property)).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
}

/// A property that nobody reads takes any value.
#[test]
fn every_property_refuses_a_value_of_the_wrong_type() {
    let case = Case::new();
    if !case.runtime_is("runtime") {
        skip!("others have no plan");
    }
    let mut wrong = Vec::new();
    for property in properties() {
        let bundle = bundle_with(&case, &property, &json!({ "no": ["such", "type"] }));
        let path = path(pointer(&property));
        match plan(&case, &bundle, false) {
            Ok(_) => wrong.push(format!("{path} takes anything")),
            Err(outcome) if names(&outcome, &path) => {}
            Err(outcome) => wrong.push(format!("{path} is not named: {outcome}")),
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_the_specification_does_not_know_is_ignored() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .set("/x-extension", json!({ "a": 1 }))
        .set("/process/x-extension", 1)
        .set("/linux/x-extension", json!([]))
        .set("/annotations", json!({ "com.example.unknown": "x" }))
        .args(["echo", "runs"]);
    case.run(&bundle).quiet_success().prints("runs");
}
