//! Seccomp's answers by an agent (config-linux.md#seccomp, The Container Process State).

use std::time::Duration;

use serde_json::{Value, json};
use spec_tests::agent::{Agent, Answer};
use spec_tests::{Bundle, Case, differs};

/// A profile that allows all calls but these, which wait for the agent.
fn profile(agent: &str, names: &[&str]) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": agent,
        "listenerMetadata": "what the agent knows",
        "syscalls": [{ "names": names, "action": "SCMP_ACT_NOTIFY" }],
    })
}

fn notified(case: &Case, agent: &Agent, names: &[&str]) -> Bundle {
    case.bundle().set("/linux/seccomp", profile(agent.path(), names))
}

#[test]
fn the_agent_answers_for_the_container() {
    for no_new_privileges in [true, false] {
        let case = Case::new();
        // ENOTEMPTY is no error that mkdir itself knows.
        let agent = Agent::bind(case.dir(), Answer::Error(39));
        let bundle = notified(&case, &agent, &["mkdir", "mkdirat"])
            .set("/process/noNewPrivileges", no_new_privileges)
            .set("/annotations", json!({ "org.example": "kept" }))
            .sh("mkdir /tmp/x");
        let outcome = case.run(&bundle);
        assert!(outcome.code() == 1 && outcome.stderr.contains("not empty"), "{outcome}");
        let told = agent.told();
        assert_eq!(told["fds"], json!(["seccompFd"]));
        assert_eq!(told["metadata"], "what the agent knows");
        assert_eq!(told["state"]["id"], bundle.id);
        assert_eq!(told["state"]["status"], "creating");
        assert_eq!(told["state"]["annotations"]["org.example"], "kept");
        assert!(told["pid"].as_i64().is_some_and(|pid| pid > 0 && told["state"]["pid"] == pid));
        assert!(told["ociVersion"].is_string() && told["state"]["bundle"].is_string(), "{told}");
    }
}

#[test]
fn the_agent_outlives_create() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 hands the listener over at start, not at create");
    let agent = Agent::bind(case.dir(), Answer::Error(39));
    let bundle = notified(&case, &agent, &["mkdir", "mkdirat"]).sh("mkdir /tmp/x 2>&1");
    let created = case.create(&bundle);
    created.quiet_success();
    agent.told();
    case.runtime(["start", &bundle.id]).quiet_success();
    case.wait_stopped(&bundle);
    assert!(created.stdout_now().contains("not empty"), "{created}");
}

#[test]
fn exec_has_a_listener_of_its_own() {
    let case = Case::new();
    let agent = Agent::bind(case.dir(), Answer::Error(39));
    let bundle = notified(&case, &agent, &["mkdir", "mkdirat"]).args(["sleep", "100"]);
    case.start(&bundle);
    let first = agent.told();
    let outcome = case.exec(&bundle, [], ["mkdir", "/tmp/x"]);
    assert!(outcome.code() == 1 && outcome.stderr.contains("not empty"), "{outcome}");
    let told = agent.told();
    assert_eq!(told["state"]["status"], "running");
    if !case.runtime_is("crun") {
        // crun 1.8 says 0.
        assert_eq!(told["state"]["pid"], first["pid"]);
    }
    assert_ne!(told["pid"], first["pid"], "the pid is that of the new process");
}

#[test]
fn calls_of_the_start_may_wait_for_the_agent() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 cannot start under such a profile");
    let agent = Agent::bind(case.dir(), Answer::Continue);
    let names =
        ["execve", "read", "close", "openat", "setresuid", "setgroups", "prctl", "mmap", "brk"];
    for no_new_privileges in [true, false] {
        let bundle = notified(&case, &agent, &names)
            .set("/process/noNewPrivileges", no_new_privileges)
            .args(["echo", "ran"]);
        case.run(&bundle).success().prints("ran");
    }
}

#[test]
fn the_call_of_the_handshake_is_refused_by_name() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "their handshakes are made of other calls");
    let agent = Agent::bind(case.dir(), Answer::Continue);
    for name in ["sendmsg", "recvmsg"] {
        let bundle = notified(&case, &agent, &["mkdir", name]);
        case.run(&bundle).fails_with(&format!("SCMP_ACT_NOTIFY on {name}"));
        case.assert_gone(&bundle);
    }
}

#[test]
fn without_an_agent_there_is_no_container() {
    let case = Case::new();
    let path = case.dir().join("nobody.sock");
    let bundle = case
        .bundle()
        .set("/linux/seccomp", profile(path.to_str().expect("UTF-8"), &["mkdir", "mkdirat"]));
    case.create(&bundle).fails_with("nobody.sock");
    case.assert_gone(&bundle);
}

#[test]
fn a_listener_without_a_path_is_refused() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 makes the container, whose calls then fail");
    let mut seccomp = profile("", &["mkdir"]);
    seccomp.as_object_mut().expect("an object").remove("listenerPath");
    let bundle = case.bundle().set("/linux/seccomp", seccomp);
    let outcome = case.create(&bundle);
    assert_ne!(outcome.code(), 0, "{outcome}");
    case.assert_gone(&bundle);
}

#[test]
fn podmans_annotation_names_the_agent_too() {
    let case = Case::new();
    differs!(case, ["runc"], "the annotation is crun's");
    let agent = Agent::bind(case.dir(), Answer::Error(39));
    let mut seccomp = profile("", &["mkdir", "mkdirat"]);
    for key in ["listenerPath", "listenerMetadata"] {
        seccomp.as_object_mut().expect("an object").remove(key);
    }
    let bundle = case
        .bundle()
        .set("/linux/seccomp", seccomp)
        .set("/annotations", json!({ "run.oci.seccomp.receiver": agent.path() }))
        .sh("mkdir /tmp/x");
    let outcome = case.run(&bundle);
    assert!(outcome.code() == 1 && outcome.stderr.contains("not empty"), "{outcome}");
    assert_eq!(agent.told()["fds"], json!(["seccompFd"]));
}

#[test]
fn a_call_that_the_agent_holds_is_interrupted_only_where_it_may_be() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "the flag is newer");
    let agent = Agent::bind_slow(case.dir(), Answer::Error(39), Duration::from_millis(1500));
    // A signal with a handler comes while the shell's own chdir(2) waits for the agent.
    let script = "trap 'echo signal' USR1; (sleep 0.5; kill -USR1 1) & cd /tmp; wait";
    let said = |flags: Value| {
        let bundle = notified(&case, &agent, &["chdir"]).set("/linux/seccomp/flags", flags);
        case.run(&bundle.sh(script)).stderr.clone()
    };
    let killable = said(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]));
    assert!(killable.contains("not empty"), "the agent's answer is lost: {killable}");
    let plain = said(json!([]));
    assert!(!plain.contains("not empty"), "the call was not interrupted: {plain}");
}
