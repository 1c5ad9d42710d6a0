//! `linux.seccomp` and the annotations about it: the filter, and who hears of the calls that wait
//! for an answer.

use super::{show, unsupported};
use crate::error::{Error, Result};
use crate::seccomp::{self, Filter};
use base64::Engine as _;
use oci_spec::runtime::{Linux, LinuxSeccomp};
use serde::Serialize;
use std::collections::HashMap;
use std::path::PathBuf;

/// crun's older name for `linux.seccomp.listenerPath`.
const RECEIVER: &str = "run.oci.seccomp.receiver";
/// crun's: a name that no architecture knows is an error, unless the value is 0.
const FAIL_UNKNOWN: &str = "run.oci.seccomp_fail_unknown_syscall";
/// crun's: a program in base64, in the place of `linux.seccomp`.
const RAW: &str = "run.oci.seccomp_bpf_data";
/// crun's: shared objects to load into the runtime.
const PLUGINS: &str = "run.oci.seccomp.plugins";

/// A filter, ready to be installed.
#[derive(Debug, Clone, Serialize)]
pub struct Seccomp {
    /// The program.
    #[serde(flatten, serialize_with = "show::filter")]
    pub filter: Filter,
    /// Who answers calls with `SCMP_ACT_NOTIFY`; there if the filter has such calls.
    pub listener: Option<Listener>,
}

/// The agent that gets the listener's descriptor (config-linux.md, The Container Process State).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Its socket on the host.
    pub path: PathBuf,
    /// Told to it as it is.
    pub metadata: String,
}

impl Seccomp {
    /// Compiles the filter of a container, for the machine that we run on.
    pub fn new(
        linux: &Linux,
        annotations: Option<&HashMap<String, String>>,
    ) -> Result<Option<Self>> {
        let annotation = |name: &str| annotations.and_then(|all| all.get(name));
        if annotation(PLUGINS).is_some() {
            return Err(unsupported(
                &format!("annotations[{PLUGINS:?}]"),
                "the runtime loads no code of others; answer with SCMP_ACT_NOTIFY instead",
            ));
        }
        if let Some(data) = annotation(RAW) {
            let problem = |why| Error::new(format!("config.json: annotations[{RAW:?}]: {why}"));
            return raw(data).map(Some).map_err(problem);
        }
        let Some(profile) = linux.seccomp() else { return Ok(None) };
        let filter = seccomp::compile(profile, seccomp::native())
            .map_err(|e| Error::new(e.to_string()).wrap("config.json"))?;
        if annotation(FAIL_UNKNOWN).is_some_and(|value| value != "0") {
            refuse_unknown(&filter)?;
        }
        let path = listener_path(profile, annotation(RECEIVER))?;
        let metadata = profile.listener_metadata().clone().unwrap_or_default();
        let listener = match (filter.notify, path) {
            (true, Some(path)) => Some(Listener { path, metadata }),
            (true, None) => {
                return Err(Error::new(
                    "config.json: linux.seccomp.listenerPath: missing: SCMP_ACT_NOTIFY needs the socket of an agent that answers",
                ));
            }
            (false, None) if !metadata.is_empty() => {
                return Err(Error::new(
                    "config.json: linux.seccomp.listenerMetadata is for the agent at linux.seccomp.listenerPath, which is missing",
                ));
            }
            (false, _) => None,
        };
        Ok(Some(Self { filter, listener }))
    }
}

fn refuse_unknown(filter: &Filter) -> Result<()> {
    match filter.summary.unknown.first() {
        None => Ok(()),
        Some(name) => Err(Error::new(format!(
            "config.json: linux.seccomp: no system call is named {name:?}, and annotations[{FAIL_UNKNOWN:?}] asks to refuse that"
        ))),
    }
}

fn listener_path(profile: &LinuxSeccomp, receiver: Option<&String>) -> Result<Option<PathBuf>> {
    let own = profile.listener_path().clone().filter(|path| !path.as_os_str().is_empty());
    match (own, receiver.map(PathBuf::from)) {
        (Some(own), Some(other)) if own != other => Err(Error::new(format!(
            "config.json: linux.seccomp.listenerPath is {own:?}, and annotations[{RECEIVER:?}] is {other:?}: leave one out"
        ))),
        (own, receiver) => Ok(own.or(receiver)),
    }
}

/// A program that somebody else has compiled. The kernel checks it again when it is installed.
fn raw(data: &str) -> std::result::Result<Seccomp, String> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(data)
        .map_err(|e| format!("not base64: {e}"))?;
    let filter = Filter::from_bytes(&bytes)?;
    Ok(Seccomp { filter, listener: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn planned(seccomp: Value, annotations: Value) -> Result<Option<Seccomp>> {
        let linux = serde_json::from_value(json!({ "seccomp": seccomp })).unwrap();
        let annotations: HashMap<String, String> = serde_json::from_value(annotations).unwrap();
        Seccomp::new(&linux, Some(&annotations))
    }

    fn notify(path: Value) -> Value {
        let rules = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]);
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules,
                "listenerPath": path, "listenerMetadata": "m" })
    }

    fn refused(seccomp: Value, annotations: Value) -> String {
        planned(seccomp, annotations).unwrap_err().to_string()
    }

    #[test]
    fn a_listener_is_named_by_the_profile_or_by_the_annotation() {
        let path = |seccomp: Value, annotations: Value| {
            planned(seccomp, annotations).unwrap().unwrap().listener.unwrap()
        };
        let expected = Listener { path: "/agent".into(), metadata: "m".into() };
        let receiver = json!({ RECEIVER: "/agent" });
        assert_eq!(path(notify(json!("/agent")), json!({})), expected);
        assert_eq!(path(notify(json!(null)), receiver.clone()), expected);
        assert_eq!(path(notify(json!("/agent")), receiver.clone()), expected);
        let both = refused(notify(json!("/other")), receiver);
        assert!(both.contains("leave one out"), "{both}");
        let none = refused(notify(json!("")), json!({}));
        assert!(none.contains("linux.seccomp.listenerPath: missing"), "{none}");
    }

    #[test]
    fn an_unknown_name_is_refused_where_that_is_asked() {
        let rules = json!([{ "names": ["nosuch"], "action": "SCMP_ACT_LOG" }]);
        let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
        assert!(planned(profile.clone(), json!({})).is_ok());
        assert!(planned(profile.clone(), json!({ FAIL_UNKNOWN: "0" })).is_ok());
        let error = refused(profile, json!({ FAIL_UNKNOWN: "1" }));
        assert!(error.contains("\"nosuch\""), "{error}");
    }

    #[test]
    fn a_raw_program_takes_the_place_of_the_profile() {
        // return SECCOMP_RET_ALLOW
        let program = json!({ RAW: "BgAAAAAA/38=" });
        let made = planned(notify(json!(null)), program).unwrap().unwrap();
        assert_eq!((made.filter.program.len(), made.filter.notify), (1, false));
        for (data, why) in [("*", "not base64"), ("", "no instruction"), ("BgAA", "multiple of 8")]
        {
            let error = refused(json!(null), json!({ RAW: data }));
            assert!(error.contains(why), "{error}");
        }
        // return SECCOMP_RET_USER_NOTIF
        let error = refused(json!(null), json!({ RAW: "BgAAAAAAwH8=" }));
        assert!(error.contains("SECCOMP_RET_USER_NOTIF"), "{error}");
    }

    #[test]
    fn plugins_are_refused_by_name() {
        let error = refused(json!(null), json!({ PLUGINS: "/x.so" }));
        assert!(error.contains(PLUGINS), "{error}");
    }
}
