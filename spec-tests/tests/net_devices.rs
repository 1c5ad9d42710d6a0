//! Network devices that become the container's (config-linux.md#network-devices). The host of these
//! tests is a network namespace of their own.

use serde_json::json;
use spec_tests::{Bundle, Case, Outcome, differs, find_program, skip};

/// Runs the bundle in a fresh network namespace, in which the shell runs `setup` first and `after`
/// when the container has ended.
fn run(case: &Case, setup: &str, bundle: &Bundle, after: &str) -> Outcome {
    bundle.write();
    let mut runtime = case.command();
    runtime.arg("run").arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    let mut shell = std::process::Command::new("unshare");
    let script = format!("{setup} && \"$0\" \"$@\"; code=$?; {after}; exit $code");
    shell.args(["--net", "sh", "-c", &script]);
    shell.arg(runtime.get_program()).args(runtime.get_args());
    case.outcome(shell)
}

macro_rules! needs_ip {
    ($case:expr) => {
        differs!($case, ["runc", "crun"], "new in runtime-spec 1.3: runc 1.4, crun 1.21");
        if let Err(why) = find_program("ip") {
            skip!("{why}");
        }
        let mut veth = std::process::Command::new("unshare");
        veth.args(["--net", "ip", "link", "add", "dev0", "type", "veth"]);
        if $case.outcome(veth).code() != 0 {
            skip!("this kernel makes no veth devices");
        }
    };
}

#[test]
fn a_device_moves_with_its_name_and_addresses_and_is_up() {
    let case = Case::new();
    needs_ip!(case);
    let bundle = case
        .bundle()
        .set("/linux/netDevices", json!({ "dev0": {} }))
        .sh("ip -o addr show dev0; ip -o link show dev0");
    let setup = "ip link add dev0 type veth peer name other0 && ip addr add 192.0.2.7/24 dev dev0 && \
                 ip addr add 2001:db8::7/64 dev dev0 nodad && ip link set dev0 up";
    let outcome = run(&case, setup, &bundle, "ip link show dev0 2>&1");
    outcome.prints_part("192.0.2.7/24").prints_part("2001:db8::7/64").prints_part(",UP");
    outcome.success().prints_part("does not exist");
}

#[test]
fn a_device_is_renamed_on_the_way() {
    let case = Case::new();
    needs_ip!(case);
    let bundle = case
        .bundle()
        .set("/linux/netDevices", json!({ "veth0": { "name": "fifteen-letters" } }))
        .sh("ip -o link show | cut -d: -f2 | cut -d@ -f1");
    let setup = "ip link add veth0 type veth peer name veth1 && ip addr add 192.0.2.1/24 dev veth1";
    let outcome = run(&case, setup, &bundle, "true");
    outcome.quiet_success().prints_part("fifteen-letters");
    assert!(!outcome.stdout.contains("veth0"), "{outcome}");
}

#[test]
fn a_user_namespace_of_its_own_is_no_hindrance() {
    let case = Case::new();
    needs_ip!(case);
    let bundle = spec_tests::user_namespace::mapped(&case)
        .set("/linux/netDevices", json!({ "dev0": { "name": "lan" } }))
        .args(["ip", "-o", "addr", "show", "lan"]);
    let setup = "ip link add dev0 type veth peer name other0 && ip addr add 192.0.2.7/24 dev dev0";
    run(&case, setup, &bundle, "true").quiet_success().prints_part("192.0.2.7/24");
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let case = Case::new();
    needs_ip!(case);
    let bundle = case.bundle().set("/linux/netDevices", json!({ "nothere0": {} }));
    let outcome = run(&case, "true", &bundle, "true");
    outcome.fails_with("linux.netDevices").fails_with("nothere0").fails_with("no such device");
    case.assert_gone(&bundle);
}

#[test]
fn a_name_that_is_taken_inside_is_an_error() {
    let case = Case::new();
    needs_ip!(case);
    let bundle = case.bundle().set("/linux/netDevices", json!({ "dev0": { "name": "lo" } }));
    let outcome =
        run(&case, "ip link add dev0 type veth peer name other0", &bundle, "ip -o link show dev0");
    outcome.fails_with("linux.netDevices").fails_with("exists").prints_part("dev0");
    case.assert_gone(&bundle);
}

#[test]
fn names_are_checked_before_anything_is_done() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "new in runtime-spec 1.3: runc 1.4, crun 1.21");
    // A length that wraps around at 16 bits must not reach the kernel (CVE-2021-43784).
    for name in ["sixteen-letters-", &"x".repeat(65_540), "a/b", "a b", ".."] {
        let bundle = case.bundle().set("/linux/netDevices", json!({ "lo": { "name": name } }));
        case.run(&bundle).fails_with("linux.netDevices[\"lo\"].name");
        case.assert_gone(&bundle);
    }
    let bundle =
        case.bundle().without_namespace("network").set("/linux/netDevices", json!({ "lo": {} }));
    case.run(&bundle).fails_with("linux.netDevices").fails_with("network");
}
