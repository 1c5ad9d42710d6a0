//! The compiler against the rules of runc and libseccomp, by running what it makes.
//!
//! `tests/seccomp_libseccomp.rs` compares with the library itself; here stands each rule alone.

use oci_spec::runtime::{Arch, LinuxSeccomp};
use serde_json::{Value, json};

use super::*;

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

fn profile(json: Value) -> LinuxSeccomp {
    serde_json::from_value(json).expect("a profile")
}

fn compiled(json: Value) -> Filter {
    compile(&profile(json), Arch::ScmpArchX86_64).expect("a filter")
}

fn refused(json: Value) -> String {
    compile(&profile(json), Arch::ScmpArchX86_64).expect_err("no filter").to_string()
}

/// A profile that refuses all but what `syscalls` say.
fn with(syscalls: Value) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": syscalls })
}

impl Filter {
    fn answer(&self, number: u32, args: [u64; 6]) -> u32 {
        self.on(X86_64, number, args)
    }

    fn on(&self, arch: u32, number: u32, args: [u64; 6]) -> u32 {
        simulate(&self.program, number, arch, args).value
    }
}

/// One argument, the others zero.
fn arg(index: usize, value: u64) -> [u64; 6] {
    let mut args = [0; 6];
    args[index] = value;
    args
}

#[test]
fn listed_calls_get_their_action_and_others_the_default() {
    let filter = compiled(with(json!([
        { "names": ["read", "write"], "action": "SCMP_ACT_ALLOW" },
        { "names": ["close_range"], "action": "SCMP_ACT_KILL_PROCESS" }
    ])));
    assert_eq!(filter.answer(0, [0; 6]), ALLOW);
    assert_eq!(filter.answer(1, [0; 6]), ALLOW);
    assert_eq!(filter.answer(2, [0; 6]), EPERM);
    assert_eq!(filter.answer(436, [0; 6]), 0x8000_0000);
    assert_eq!(filter.on(I386, 3, [0; 6]), KILL);
}

#[test]
fn each_action_has_its_return_value() {
    for (action, errno, value) in [
        ("KILL", None, KILL),
        ("KILL_THREAD", None, KILL),
        ("KILL_PROCESS", None, 0x8000_0000),
        ("TRAP", None, 0x0003_0000),
        ("ERRNO", Some(13), 0x0005_000d),
        ("ERRNO", Some(0), 0x0005_0000),
        ("TRACE", None, 0x7ff0_0001),
        ("TRACE", Some(0xffff), 0x7ff0_ffff),
        ("ALLOW", None, ALLOW),
        ("LOG", None, 0x7ffc_0000),
        ("NOTIFY", None, 0x7fc0_0000),
    ] {
        let mut set = json!({ "names": ["mkdir"], "action": format!("SCMP_ACT_{action}") });
        if let Some(errno) = errno {
            set["errnoRet"] = json!(errno);
        }
        let mut profile = with(json!([set]));
        profile["listenerPath"] = json!("/run/agent.sock");
        assert_eq!(compiled(profile).answer(83, [0; 6]), value, "{action}");
    }
}

#[test]
fn calls_newer_than_the_profile_get_enosys_where_the_default_refuses() {
    let profile = |default: &str, errno: Option<u32>| {
        let mut profile = with(json!([{ "names": ["mseal", "read"], "action": "SCMP_ACT_TRAP" }]));
        profile["defaultAction"] = json!(format!("SCMP_ACT_{default}"));
        profile["defaultErrnoRet"] = json!(errno);
        compiled(profile)
    };
    for (default, errno, newer) in [
        ("ERRNO", None, ENOSYS),
        ("ERRNO", Some(1), ENOSYS),
        ("KILL_PROCESS", None, ENOSYS),
        ("ALLOW", None, ALLOW),
        ("LOG", None, 0x7ffc_0000),
        ("TRACE", None, 0x7ff0_0001),
    ] {
        let filter = profile(default, errno);
        assert_eq!(filter.answer(462, [0; 6]), 0x0003_0000);
        assert_eq!(filter.answer(463, [0; 6]), newer, "{default}");
        assert_eq!(filter.summary.newer_get_enosys, newer == ENOSYS);
    }
    assert!(!profile("ERRNO", Some(38)).summary.newer_get_enosys);
    // Whatever the action of its rule, a name counts as known.
    let filter = compiled(with(json!([{ "names": ["mseal"], "action": "SCMP_ACT_ERRNO" }])));
    assert_eq!((filter.answer(462, [0; 6]), filter.answer(463, [0; 6])), (EPERM, ENOSYS));
}

#[test]
fn x32_calls_are_killed_unless_the_profile_lists_their_architecture() {
    let sets = json!([{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }]);
    let mut profile = with(sets);
    assert_eq!(compiled(profile.clone()).answer(0x4000_0000, [0; 6]), KILL);
    // What a tracer writes to skip a call belongs to no ABI.
    assert_eq!(compiled(profile.clone()).answer(u32::MAX, [0; 6]), EPERM);
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_X86"]);
    let filter = compiled(profile);
    assert_eq!(filter.answer(0x4000_0000, [0; 6]), ALLOW);
    assert_eq!(filter.answer(0x4000_0001, [0; 6]), ENOSYS);
    assert_eq!(filter.on(I386, 3, [0; 6]), ALLOW);
    assert_eq!(filter.on(I386, 2, [0; 6]), EPERM);
    assert_eq!(filter.on(0xc000_00b7, 63, [0; 6]), KILL);
}

#[test]
fn arguments_are_compared_in_64_bits() {
    const HIGH: u64 = 3 << 32;
    for (op, value, second, yes, no) in [
        ("EQ", HIGH + 5, 0, vec![HIGH + 5], vec![5, HIGH, HIGH + 6, HIGH + 4]),
        ("NE", HIGH + 5, 0, vec![5, HIGH, HIGH + 6], vec![HIGH + 5]),
        ("LT", HIGH + 5, 0, vec![0, 6, HIGH + 4], vec![HIGH + 5, u64::MAX, 4 << 32]),
        ("LE", HIGH + 5, 0, vec![0, 6, HIGH + 5], vec![HIGH + 6, u64::MAX, 4 << 32]),
        ("GE", HIGH + 5, 0, vec![HIGH + 5, 4 << 32], vec![6, HIGH + 4]),
        ("GT", HIGH + 5, 0, vec![HIGH + 6, 4 << 32], vec![6, HIGH + 5]),
        ("MASKED_EQ", HIGH + 3, HIGH + 1, vec![HIGH + 1, HIGH + 5], vec![1, HIGH + 2]),
        ("LE", u64::MAX, 0, vec![0, u64::MAX], vec![]),
        ("LT", 0, 0, vec![], vec![0, u64::MAX]),
        ("GT", u64::MAX, 0, vec![], vec![0, u64::MAX]),
    ] {
        let filter = compiled(with(json!([{ "names": ["ioctl"], "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 1, "op": format!("SCMP_CMP_{op}"),
                       "value": value, "valueTwo": second }] }])));
        for (values, answer) in [(yes, ALLOW), (no, EPERM)] {
            for value in values {
                assert_eq!(filter.answer(16, arg(1, value)), answer, "{op} {value:#x}");
            }
        }
    }
}

#[test]
fn a_32_bit_abi_compares_lower_halves() {
    let mut profile = with(json!([{ "names": ["ioctl"], "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": 1, "op": "SCMP_CMP_EQ", "value": (7u64 << 32) + 5 }] }]));
    profile["architectures"] = json!(["SCMP_ARCH_X86"]);
    let filter = compiled(profile);
    assert_eq!(filter.on(I386, 54, arg(1, 5)), ALLOW);
    assert_eq!(filter.answer(16, arg(1, 5)), EPERM);
}

#[test]
fn conditions_on_several_arguments_must_all_hold_but_on_one_argument_any() {
    let condition =
        |index: usize, value: u64| json!({ "index": index, "op": "SCMP_CMP_EQ", "value": value });
    let rule = |args: Value| {
        compiled(with(json!([{ "names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": args }])))
    };
    let all = rule(json!([condition(0, 1), condition(2, 3)]));
    assert_eq!(all.answer(16, [1, 0, 3, 0, 0, 0]), ALLOW);
    assert_eq!(all.answer(16, [1, 0, 4, 0, 0, 0]), EPERM);
    assert_eq!(all.answer(16, [0, 0, 3, 0, 0, 0]), EPERM);
    let any = rule(json!([condition(0, 1), condition(0, 2), condition(2, 3)]));
    for args in [arg(0, 1), arg(0, 2), arg(2, 3)] {
        assert_eq!(any.answer(16, args), ALLOW);
    }
    assert_eq!(any.answer(16, arg(0, 3)), EPERM);
}

#[test]
fn of_two_rules_the_unconditional_wins_and_then_the_more_special() {
    let equal = |value: u64| json!([{ "index": 0, "op": "SCMP_CMP_EQ", "value": value }]);
    let above = |value: u64| json!([{ "index": 0, "op": "SCMP_CMP_GT", "value": value }]);
    let filter = compiled(with(json!([
        { "names": ["ioctl"], "action": "SCMP_ACT_KILL", "args": equal(1) },
        { "names": ["ioctl"], "action": "SCMP_ACT_ALLOW" },
        { "names": ["ioctl"], "action": "SCMP_ACT_TRAP" },
        { "names": ["read"], "action": "SCMP_ACT_TRAP", "args": above(3) },
        { "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": equal(9) },
        { "names": ["read"], "action": "SCMP_ACT_KILL", "args": above(20) }
    ])));
    assert_eq!(filter.answer(16, arg(0, 1)), ALLOW);
    for (value, answer) in [(3, EPERM), (4, 0x0003_0000), (9, ALLOW), (20, 0x0003_0000), (21, KILL)]
    {
        assert_eq!(filter.answer(0, arg(0, value)), answer, "{value}");
    }
}

#[test]
fn a_rule_that_repeats_the_default_is_not_there() {
    let filter = compiled(with(json!([
        { "names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 },
        { "names": ["ioctl"], "action": "SCMP_ACT_ALLOW",
          "args": [{ "index": 0, "op": "SCMP_CMP_EQ", "value": 1 }] }
    ])));
    assert_eq!(filter.answer(16, arg(0, 1)), ALLOW);
    assert_eq!(filter.answer(16, arg(0, 2)), EPERM);
}

#[test]
fn socket_calls_of_older_abis_also_go_through_their_multiplexer() {
    let mut profile = with(json!([
        { "names": ["sendto", "semget", "vhangup"], "action": "SCMP_ACT_ALLOW" }
    ]));
    profile["architectures"] = json!(["SCMP_ARCH_X86"]);
    let filter = compiled(profile);
    assert_eq!(filter.on(I386, 102, arg(0, 11)), ALLOW);
    assert_eq!(filter.on(I386, 102, arg(0, 12)), EPERM);
    // sendto's own number is above vhangup's, the newest by name: multiplexed names do not count.
    assert_eq!(filter.on(I386, 369, [0; 6]), ENOSYS);
    assert_eq!(filter.answer(44, [0; 6]), ALLOW);
}

#[test]
fn s390_answers_enosys_to_setup_which_stands_for_unknown_calls() {
    let json = with(json!([{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }]));
    let filter = compile(&profile(json), Arch::ScmpArchS390x).expect("a filter");
    let s390x = Arch::ScmpArchS390x as u32;
    assert_eq!(filter.on(s390x, 0, [0; 6]), ENOSYS);
    assert_eq!(filter.on(s390x, 1, [0; 6]), EPERM);
    assert_eq!(filter.on(s390x, 3, [0; 6]), ALLOW);
}

#[test]
fn flags_default_to_spec_allow_and_a_listener_adds_its_own() {
    let flags = |profile: Value| compiled(profile).flags;
    assert_eq!(flags(with(json!([]))), FLAG_SPEC_ALLOW);
    let mut profile = with(json!([{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]));
    profile["listenerPath"] = json!("/run/agent.sock");
    profile["flags"] = json!([]);
    assert_eq!(flags(profile.clone()), FLAG_NEW_LISTENER);
    assert!(compiled(profile.clone()).notify);
    profile["flags"] = json!([
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    ]);
    assert_eq!(flags(profile), FLAG_NEW_LISTENER | FLAG_LOG | FLAG_WAIT_KILLABLE_RECV);
}

#[test]
fn the_summary_counts_names_and_lists_unknown_ones() {
    let mut profile = with(json!([
        { "names": ["read", "write"], "action": "SCMP_ACT_ALLOW" },
        { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
        { "names": ["nosuch", "close"], "action": "SCMP_ACT_ALLOW" }
    ]));
    profile["architectures"] = json!(["SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_NATIVE"]);
    let filter = compiled(profile);
    let summary = filter.summary;
    assert_eq!(summary.architectures, [Arch::ScmpArchX86_64, Arch::ScmpArchX86]);
    assert_eq!(summary.default_action, "SCMP_ACT_ERRNO(1)");
    let counts = [("SCMP_ACT_ALLOW".to_owned(), 3), ("SCMP_ACT_ERRNO(38)".to_owned(), 1)];
    assert_eq!(summary.actions, counts);
    assert_eq!(summary.unknown, ["nosuch"]);
    assert_eq!(summary.instructions, filter.program.len());
}

#[test]
fn what_is_wrong_is_named_by_its_place() {
    let condition = |index: usize| json!([{ "index": index, "op": "SCMP_CMP_EQ", "value": 1 }]);
    for (change, start) in [
        (json!({ "defaultAction": "SCMP_ACT_NOTIFY" }), "linux.seccomp.defaultAction: "),
        (json!({ "defaultErrnoRet": 4096 }), "linux.seccomp.defaultErrnoRet: 4096 "),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1 }),
            "linux.seccomp.defaultErrnoRet: SCMP_ACT_ALLOW ",
        ),
        (
            json!({ "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_S390"] }),
            "linux.seccomp.architectures[1]: SCMP_ARCH_S390 ",
        ),
        (
            json!({ "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] }),
            "linux.seccomp.flags[0]: ",
        ),
        (
            json!({ "syscalls": [{ "names": ["mkdir", "sendmsg"], "action": "SCMP_ACT_NOTIFY" }] }),
            "linux.seccomp.syscalls[0].names[1]: SCMP_ACT_NOTIFY on sendmsg ",
        ),
        (
            json!({ "syscalls": [{ "names": [""], "action": "SCMP_ACT_TRAP" }] }),
            "linux.seccomp.syscalls[0].names[0]: empty",
        ),
        (
            json!({ "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_TRAP", "errnoRet": 5 }] }),
            "linux.seccomp.syscalls[0].errnoRet: SCMP_ACT_TRAP ",
        ),
        (
            json!({ "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_TRAP", "args": condition(6) }] }),
            "linux.seccomp.syscalls[0].args[0].index: 6: ",
        ),
        (
            json!({ "syscalls": [
            { "names": ["read"], "action": "SCMP_ACT_TRAP", "args": condition(1) },
            { "names": ["read"], "action": "SCMP_ACT_KILL", "args": condition(1) }] }),
            "linux.seccomp.syscalls[1]: ",
        ),
    ] {
        let mut profile = with(json!([]));
        for (key, value) in change.as_object().expect("an object") {
            profile[key] = value.clone();
        }
        let message = refused(profile);
        assert!(message.starts_with(start), "{message}");
        assert!(!message.contains('\n'));
    }
}

#[test]
fn a_program_longer_than_the_kernel_takes_is_refused() {
    let conditions = |value: u64| {
        json!([{ "index": 0, "op": "SCMP_CMP_EQ", "value": value << 32 | value },
               { "index": 1, "op": "SCMP_CMP_EQ", "value": value << 32 | value }])
    };
    let sets: Vec<Value> = (0..600)
        .map(|value| {
            json!({ "names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": conditions(value) })
        })
        .collect();
    let message = refused(with(json!(sets)));
    assert!(message.starts_with("linux.seccomp: compiles to 4"), "{message}");
    // Half as many fit, and need jumps over more than 255 instructions.
    let filter = compiled(with(json!(sets[..300])));
    assert!(filter.program.len() > 2000);
    for value in [0, 150, 299] {
        let both = value << 32 | value;
        assert_eq!(filter.answer(16, [both, both, 0, 0, 0, 0]), ALLOW);
        assert_eq!(filter.answer(16, [both, 1, 0, 0, 0, 0]), EPERM);
    }
}
