//! Kernel parameters, hostname and domainname (config-linux.md#sysctl, config.md#hostname).

use serde_json::json;
use spec_tests::{Case, differs, skip};

#[test]
fn sysctls_are_set_in_the_containers_namespaces() {
    let case = Case::new();
    let host = std::fs::read_to_string("/proc/sys/kernel/msgmax").expect("read the host's value");
    let bundle = case
        .bundle()
        .set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "12345" }))
        .sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax");
    case.run(&bundle).quiet_success().prints("1\n12345");
    let after = std::fs::read_to_string("/proc/sys/kernel/msgmax").expect("read the host's value");
    assert_eq!(host, after, "the host's own value has changed");
}

#[test]
fn a_sysctl_of_the_host_is_refused() {
    let case = Case::new();
    let bundle = case.bundle().set("/linux/sysctl", json!({ "kernel.panic": "5" }));
    case.run(&bundle).fails_with("kernel.panic");
    case.assert_gone(&bundle);
}

#[test]
fn a_sysctl_of_a_shared_namespace_is_refused() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .without_namespace("ipc")
        .set("/linux/sysctl", json!({ "kernel.msgmax": "12345" }));
    case.run(&bundle).fails_with("kernel.msgmax");
    case.assert_gone(&bundle);
}

#[test]
fn the_hostname_is_set() {
    let case = Case::new();
    let host = rustix::system::uname().nodename().to_owned();
    let bundle = case.bundle().set("/hostname", "inside-name").args(["hostname"]);
    case.run(&bundle).quiet_success().prints("inside-name");
    assert_eq!(rustix::system::uname().nodename(), host.as_c_str());
}

#[test]
fn the_domainname_is_set() {
    let case = Case::new();
    if case.runtime_is("runc") && case.runtime(["--version"]).stdout.contains(" 1.1") {
        skip!("runc knows domainname since 1.2");
    }
    if case.runtime_is("crun") && case.runtime(["--version"]).stdout.contains(" 1.8") {
        skip!("crun 1.8.1 knows no domainname in the older specification it was built with");
    }
    let bundle = case
        .bundle()
        .set("/domainname", "inside.example")
        .args(["cat", "/proc/sys/kernel/domainname"]);
    case.run(&bundle).quiet_success().prints("inside.example");
}

#[test]
fn a_hostname_without_a_uts_namespace_is_refused() {
    let case = Case::new();
    differs!(case, ["crun"], "crun does not check it");
    let host = rustix::system::uname().nodename().to_owned();
    let bundle = case.bundle().without_namespace("uts").set("/hostname", "other");
    let outcome = case.run(&bundle);
    assert_ne!(outcome.code(), 0, "{outcome}");
    assert_eq!(rustix::system::uname().nodename(), host.as_c_str());
    case.assert_gone(&bundle);
}
