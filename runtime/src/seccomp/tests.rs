//! The compiler against the rules of runc and libseccomp, by running what it makes.

use oci_spec::runtime::{Arch, LinuxSeccomp};
use serde_json::{Value, json};

use super::{Answer, Filter, compile, simulate};

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

impl Filter {
    fn answer(&self, number: u32, args: [u64; 6]) -> u32 {
        self.on(X86_64, number, args).value
    }

    fn on(&self, arch: u32, number: u32, args: [u64; 6]) -> Answer {
        simulate(&self.program, number, arch, args)
    }
}

#[test]
fn listed_calls_get_their_action_and_others_the_default() {
    let filter = compiled(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            { "names": ["read", "write"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["close_range"], "action": "SCMP_ACT_KILL_PROCESS" }
        ]
    }));
    assert_eq!(filter.answer(0, [0; 6]), ALLOW);
    assert_eq!(filter.answer(1, [0; 6]), ALLOW);
    assert_eq!(filter.answer(2, [0; 6]), EPERM);
    assert_eq!(filter.answer(436, [0; 6]), 0x8000_0000);
    assert_eq!(filter.answer(437, [0; 6]), ENOSYS);
    assert_eq!(filter.on(I386, 3, [0; 6]).value, KILL);
}
