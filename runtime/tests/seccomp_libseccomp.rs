//! Our filters against libseccomp's, answer by answer.
//!
//! `seccomp/libseccomp.c` makes a filter of the same rules with the library itself, and this file
//! puts in front of it what runc puts there (`ENOSYS` for calls newer than the profile). Then both
//! run on every call number, with the arguments that the rules tell apart. Needs `cc` and
//! libseccomp's headers; without them the tests say so and pass.
//!
//! `SECCOMP_PROFILES=a.json:b.json` compares further profiles (of `linux.seccomp`).

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Op,
};
use runtime::seccomp::{Filter, Insn, compile, simulate};
use serde_json::{Value, json};

const ENOSYS: u32 = 0x0005_0026;
const X32_BIT: u32 = 0x4000_0000;

/// The reference program, built once; `None` where it cannot be.
fn reference() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seccomp/libseccomp.c");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libseccomp-reference");
        let cc = Command::new("cc")
            .args(["-O1", "-o"])
            .arg(&program)
            .args([source, "-lseccomp"])
            .stderr(Stdio::null())
            .status();
        cc.is_ok_and(|status| status.success()).then_some(program)
    });
    if built.is_none() {
        eprintln!("skipped: no cc, or no libseccomp to compare with (Debian: libseccomp-dev)");
    }
    built.as_deref()
}

/// libseccomp in a process of its own, one list of rules after another.
struct Libseccomp {
    child: Child,
    answers: BufReader<ChildStdout>,
}

/// What it makes of one profile.
#[derive(Default)]
struct Reference {
    program: Vec<Insn>,
    /// By architecture token: the largest call number named.
    newest: Vec<(u32, u32)>,
    unknown: Vec<String>,
    refused: Option<String>,
}

impl Libseccomp {
    fn start() -> Option<Libseccomp> {
        let mut child = Command::new(reference()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the reference");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        Some(Libseccomp { child, answers })
    }

    /// `None` if the library never comes to an end.
    fn compile(&mut self, profile: &LinuxSeccomp, native: Arch) -> Option<Reference> {
        let input = self.child.stdin.as_mut().expect("a pipe");
        input.write_all(rules(profile, native).as_bytes()).expect("write rules");
        input.flush().expect("write rules");
        let mut made = Reference::default();
        for line in (&mut self.answers).lines() {
            let line = line.expect("read the reference");
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<u32>().expect("a number");
            match words[0] {
                "unknown" => made.unknown.push(words[1].to_owned()),
                "refused" => made.refused = Some(words[1].to_owned()),
                "newest" => made.newest.push((number(1), number(2))),
                "insn" => {
                    let (code, k) = (number(1) as u16, number(4));
                    let (jt, jf) = (number(2) as u8, number(3) as u8);
                    let insn = Insn { code, jt, jf, k };
                    made.program.push(if is_big_endian(native) { swapped(insn) } else { insn });
                }
                _ => return Some(made),
            }
        }
        *self = Libseccomp::start()?;
        None
    }
}

impl Drop for Libseccomp {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The profile in the reference's language: what runc asks of libseccomp.
fn rules(profile: &LinuxSeccomp, native: Arch) -> String {
    use std::fmt::Write;
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let mut text = format!("default {default}\n");
    let listed = profile.architectures().iter().flatten().copied();
    for arch in std::iter::once(native).chain(listed) {
        writeln!(text, "arch {}", arch as u32).unwrap();
    }
    let sets = profile.syscalls().iter().flatten();
    if sets.clone().map(|set| set.names().len()).sum::<usize>() > 32 {
        text.push_str("optimize\n");
    }
    for set in sets {
        let action = set.action().as_u32(set.errno_ret());
        let args: Vec<String> = set
            .args()
            .iter()
            .flatten()
            .map(|arg| {
                let second = arg.value_two().unwrap_or(0);
                format!("{} {} {} {second}", arg.index(), arg.op() as u32, arg.value())
            })
            .collect();
        let indexes: BTreeSet<usize> = set.args().iter().flatten().map(|arg| arg.index()).collect();
        for name in set.names() {
            if indexes.len() < args.len() {
                for arg in &args {
                    writeln!(text, "rule {name} {action} 1 {arg}").unwrap();
                }
            } else {
                writeln!(text, "rule {name} {action} {} {}", args.len(), args.join(" ")).unwrap();
            }
        }
    }
    text + "done\n"
}

/// The audit token of an architecture, and where its numbers and arguments differ.
fn audit(arch: Arch) -> u32 {
    match arch {
        Arch::ScmpArchX32 => Arch::ScmpArchX86_64 as u32,
        _ => arch as u32,
    }
}

/// An instruction for a machine of the other byte order, in which the library writes it. (It writes
/// those returns in the wrong order that it copies near a far jump: version 2.5.4.)
fn swapped(insn: Insn) -> Insn {
    let (code, k) = (insn.code.swap_bytes(), insn.k.swap_bytes());
    let is_action = k == 0 || [0x8000, 3, 5, 0x7fc0, 0x7ff0, 0x7ffc, 0x7fff].contains(&(k >> 16));
    let k = if code == 6 && !is_action { insn.k } else { k };
    Insn { code, k, ..insn }
}

fn is_big_endian(arch: Arch) -> bool {
    audit(arch) & 0x4000_0000 == 0
}

impl Reference {
    /// What runc's filter answers: libseccomp's with the `ENOSYS` stub in front.
    fn answer(&self, profile: &LinuxSeccomp, arch: Arch, number: u32, args: [u64; 6]) -> u32 {
        let refuses = !matches!(
            profile.default_action(),
            Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
        );
        if refuses && profile.default_errno_ret() != Some(38) {
            let token = match audit(arch) == Arch::ScmpArchX86_64 as u32 {
                true if number & X32_BIT != 0 => Arch::ScmpArchX32,
                true => Arch::ScmpArchX86_64,
                false => arch,
            };
            let newest = self.newest.iter().find(|(known, _)| *known == token as u32);
            let is_s390 = matches!(arch, Arch::ScmpArchS390 | Arch::ScmpArchS390x);
            if let Some((_, newest)) = newest
                && *newest > 0
                && (number > *newest || is_s390 && number == 0)
            {
                return ENOSYS;
            }
        }
        simulate(&self.program, number, audit(arch), args).value
    }
}

/// Numbers at which some ABI begins, ends or differs, and all in use.
fn numbers() -> Vec<u32> {
    let mut numbers: Vec<u32> = Vec::new();
    for base in [0, 4000, 5000, 6000, 0xf_0000, X32_BIT, 2 * X32_BIT, 3 * X32_BIT] {
        numbers.extend((0u32..600).map(|number| base + number));
        numbers.extend(base.checked_sub(1));
    }
    numbers.extend([u32::MAX - 1, u32::MAX]);
    numbers
}

/// Values that the rules tell apart: each constant, its neighbours, either half changed.
fn values(profile: &LinuxSeccomp) -> Vec<u64> {
    let args = profile.syscalls().iter().flatten().flat_map(|set| set.args().iter().flatten());
    let mut values = BTreeSet::from([0, u64::MAX]);
    for constant in args.flat_map(|arg| [arg.value(), arg.value_two().unwrap_or(0)]) {
        for near in [constant.wrapping_sub(1), constant, constant.wrapping_add(1)] {
            values.extend([
                near,
                near ^ 1 << 32,
                near & 0xffff_ffff,
                near ^ 1 << 63,
                near ^ 1 << 12,
            ]);
        }
    }
    // Sub-calls of socketcall(2) and ipc(2).
    values.extend(1..25);
    values.into_iter().collect()
}

/// Argument lists: each value in each place alone, and a mixture.
fn arguments(values: &[u64]) -> Vec<[u64; 6]> {
    let mut lists = vec![[0; 6]];
    let mut random = Random(7);
    for value in values {
        for place in 0..6 {
            let mut args = [0; 6];
            args[place] = *value;
            lists.push(args);
            let mixed: [u64; 6] = std::array::from_fn(|_| values[random.below(values.len())]);
            lists.push(mixed);
        }
    }
    lists
}

/// xorshift: the same cases on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % end
    }
}

/// What comparing costs and finds.
#[derive(Default)]
struct Tally {
    cases: usize,
    differences: Vec<String>,
}

impl Tally {
    /// Compares both filters on every number of each architecture.
    fn compare(&mut self, profile: &LinuxSeccomp, native: Arch, ours: &Filter, theirs: &Reference) {
        let lists = arguments(&values(profile));
        let listed = profile.architectures().iter().flatten().copied();
        for arch in [native, Arch::ScmpArchSh].into_iter().chain(listed) {
            for number in numbers() {
                self.compare_call(profile, (arch, number), &lists, ours, theirs);
            }
        }
    }

    /// Compares them on one call, with all argument lists if either asks for arguments.
    fn compare_call(
        &mut self,
        profile: &LinuxSeccomp,
        (arch, number): (Arch, u32),
        lists: &[[u64; 6]],
        ours: &Filter,
        theirs: &Reference,
    ) {
        let asked = |program| simulate(program, number, audit(arch), [0; 6]).asked;
        let asked = asked(&ours.program) || asked(&theirs.program);
        for args in if asked { lists } else { &lists[..1] } {
            self.cases += 1;
            let our = simulate(&ours.program, number, audit(arch), *args).value;
            let their = theirs.answer(profile, arch, number, *args);
            if our != their && self.differences.len() < 20 {
                let at = format!("{arch} {number:#x} {args:x?}");
                self.differences.push(format!("{at}: {our:#x}, libseccomp {their:#x}"));
            }
        }
    }
}

fn load(path: &Path) -> LinuxSeccomp {
    let text = std::fs::read_to_string(path).expect("read a profile");
    serde_json::from_str(&text).expect("a profile")
}

/// Calls that libseccomp 2.5.4 knows for fewer architectures than the kernel has them on.
const CHANGED: [&str; 1] = ["map_shadow_stack"];

/// Compares one profile; libseccomp must know all its names.
fn compared(
    tally: &mut Tally,
    profile: &LinuxSeccomp,
    native: Arch,
) -> Option<(Filter, Reference)> {
    let theirs = Libseccomp::start()?.compile(profile, native)?;
    let known = without(profile, &theirs.unknown);
    let known = without(&known, &CHANGED.map(str::to_owned));
    let theirs = Libseccomp::start()?.compile(&known, native)?;
    let ours = compile(&known, native).expect("compile");
    assert_eq!(theirs.refused, None);
    tally.compare(&known, native, &ours, &theirs);
    Some((ours, theirs))
}

/// The profile without the names that the installed libseccomp is too old for.
fn without(profile: &LinuxSeccomp, unknown: &[String]) -> LinuxSeccomp {
    let mut known = profile.clone();
    let mut sets = profile.syscalls().clone().unwrap_or_default();
    for set in &mut sets {
        let names = set.names().iter().filter(|name| !unknown.contains(name)).cloned().collect();
        set.set_names(names);
    }
    known.set_syscalls(Some(sets));
    known
}

/// Instructions executed for each call number below 512 of one ABI: mean and maximum.
fn steps(program: &[Insn], arch: Arch) -> (f64, usize) {
    let steps = (0..512).map(|number| simulate(program, number, audit(arch), [0; 6]).steps);
    (steps.clone().sum::<usize>() as f64 / 512.0, steps.max().unwrap_or(0))
}

/// The shortest of a hundred times that compiling took.
fn fastest(profile: &LinuxSeccomp) -> Duration {
    let once = || {
        let start = Instant::now();
        std::hint::black_box(compile(std::hint::black_box(profile), Arch::ScmpArchX86_64))
            .expect("compile");
        start.elapsed()
    };
    (0..100).map(|_| once()).min().unwrap_or_default()
}

/// The profile that podman, buildah and CRI-O hand out (docker's, with a few names more), as they
/// resolve it for a container without capabilities on x86-64; `None` where it is not installed.
fn engines_profile() -> Option<LinuxSeccomp> {
    let text = std::fs::read("/usr/share/containers/seccomp.json").ok()?;
    let mut profile: Value = serde_json::from_slice(&text).expect("JSON");
    let arches = |set: &Value, key: &str| -> Option<bool> {
        let list = set[key]["arches"].as_array().filter(|list| !list.is_empty())?;
        Some(list.iter().any(|arch| ["amd64", "x86", "x32"].iter().any(|own| arch == own)))
    };
    let counts = |set: &Value| {
        let needs_capability = set["includes"]["caps"].as_array().is_some_and(|c| !c.is_empty());
        !needs_capability
            && arches(set, "includes").unwrap_or(true)
            && !arches(set, "excludes").unwrap_or(false)
    };
    let object = profile.as_object_mut()?;
    object.remove("archMap");
    object.insert("architectures".into(), json!(["SCMP_ARCH_X86", "SCMP_ARCH_X32"]));
    // Error numbers are given by name, too: the numbers count.
    for key in ["defaultErrno", "defaultErrnoRet"] {
        object.remove(key);
    }
    let sets = object.get_mut("syscalls")?.as_array_mut()?;
    sets.retain(counts);
    for set in sets.iter_mut().filter_map(Value::as_object_mut) {
        for key in ["includes", "excludes", "comment", "errno"] {
            set.remove(key);
        }
        if set.get("args").is_some_and(Value::is_null) {
            set.remove("args");
        }
    }
    Some(serde_json::from_value(profile).expect("a profile"))
}

/// Compares answers, and what they cost: `steps()` of libseccomp's program alone, though runc runs
/// another in front of it.
fn judge(name: &str, profile: &LinuxSeccomp) {
    let mut tally = Tally::default();
    let Some((ours, theirs)) = compared(&mut tally, profile, Arch::ScmpArchX86_64) else {
        return;
    };
    assert_eq!(tally.differences, Vec::<String>::new(), "{name}");
    println!("{name}: {} cases", tally.cases);
    println!("  compiled in {:?}", fastest(profile));
    println!("  {} instructions, {} there", ours.program.len(), theirs.program.len());
    for arch in [Arch::ScmpArchX86_64, Arch::ScmpArchX86] {
        let (our, their) = (steps(&ours.program, arch), steps(&theirs.program, arch));
        println!(
            "  {arch}: instructions per call: mean {:.1} max {}, libseccomp's {:.1} and {}",
            our.0, our.1, their.0, their.1
        );
        assert!(our.0 <= their.0 && our.1 <= their.1, "{name} {arch}");
    }
}

#[test]
fn a_profile_like_dockers_gets_the_same_answers_in_fewer_steps() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seccomp/profile.json");
    let more = std::env::var_os("SECCOMP_PROFILES").unwrap_or_default();
    let more = std::env::split_paths(&more).filter(|path| !path.as_os_str().is_empty());
    for path in std::iter::once(own).chain(more) {
        judge(&path.display().to_string(), &load(&path));
    }
}

#[test]
fn the_profile_of_the_installed_engines_gets_the_same_answers_in_fewer_steps() {
    match engines_profile() {
        Some(profile) => judge("/usr/share/containers/seccomp.json", &profile),
        None => eprintln!("skipped: /usr/share/containers/seccomp.json is not installed"),
    }
}

#[test]
fn every_architecture_gets_the_same_answers() {
    use Arch::*;
    let families: [&[Arch]; 12] = [
        &[ScmpArchX86_64],
        &[ScmpArchX86_64, ScmpArchX32],
        &[ScmpArchX86],
        &[ScmpArchAarch64, ScmpArchArm],
        &[ScmpArchMips64, ScmpArchMips, ScmpArchMips64n32],
        &[ScmpArchMipsel64n32, ScmpArchMipsel, ScmpArchMipsel64],
        &[ScmpArchPpc64le],
        &[ScmpArchPpc64, ScmpArchPpc],
        &[ScmpArchS390x, ScmpArchS390],
        &[ScmpArchRiscv64],
        &[ScmpArchParisc64, ScmpArchParisc],
        &[ScmpArchX32],
    ];
    let mut profile =
        load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seccomp/profile.json"));
    for family in families {
        for action in [Action::ScmpActErrno, Action::ScmpActLog, Action::ScmpActKillProcess] {
            profile.set_architectures(Some(family[1..].to_vec()));
            profile.set_default_action(action);
            profile.set_default_errno_ret(None);
            let mut tally = Tally::default();
            if compared(&mut tally, &profile, family[0]).is_none() {
                return;
            }
            println!("{}: {} cases", family[0], tally.cases);
            assert_eq!(tally.differences, Vec::<String>::new(), "{} {action}", family[0]);
        }
    }
}

/// A profile of many calls: every action, error numbers, architectures, and arguments compared
/// where both programs are exact.
fn random_whole_profile(random: &mut Random, names: &[String]) -> (LinuxSeccomp, Arch) {
    use Arch::*;
    const FAMILIES: [&[Arch]; 9] = [
        &[ScmpArchX86_64, ScmpArchX86, ScmpArchX32],
        &[ScmpArchX86_64, ScmpArchX86],
        &[ScmpArchX86_64],
        &[ScmpArchAarch64, ScmpArchArm],
        &[ScmpArchMipsel64, ScmpArchMipsel],
        &[ScmpArchPpc64le],
        &[ScmpArchS390x, ScmpArchS390],
        &[ScmpArchRiscv64],
        &[ScmpArchArm],
    ];
    const ACTIONS: [&str; 9] =
        ["ALLOW", "ERRNO", "TRACE", "LOG", "TRAP", "KILL", "KILL_THREAD", "KILL_PROCESS", "NOTIFY"];
    let action = |random: &mut Random, all: &[&str]| all[random.below(all.len())].to_owned();
    let errno = |random: &mut Random, action: &str| match action {
        "ERRNO" => json!([1, 38, 95, 4094][random.below(4)]),
        "TRACE" => json!([0, 1, 77, 0xffff][random.below(4)]),
        _ => Value::Null,
    };
    let mut sets = Vec::new();
    for _ in 0..1 + random.below(8) {
        let action = action(random, &ACTIONS);
        let mut listed = BTreeSet::new();
        for _ in 0..1 + random.below(40) {
            listed.insert(names[random.below(names.len())].clone());
        }
        let mut args: Vec<Value> = Vec::new();
        for index in 0..6 {
            if random.below(12) == 0 {
                let op = ["EQ", "MASKED_EQ"][random.below(2)];
                let value = [0, 1, 0x8000_0000, 0x7_0000_0001, u64::MAX][random.below(5)];
                args.push(json!({ "index": index, "op": format!("SCMP_CMP_{op}"),
                                  "value": value, "valueTwo": random.below(3) }));
            }
        }
        sets.push(json!({ "names": listed, "action": format!("SCMP_ACT_{action}"),
                          "errnoRet": errno(random, &action), "args": args }));
    }
    let default = action(random, &ACTIONS[..8]);
    let family = FAMILIES[random.below(FAMILIES.len())];
    let profile = json!({
        "defaultAction": format!("SCMP_ACT_{default}"),
        "defaultErrnoRet": errno(random, &default),
        "listenerPath": "/run/agent.sock",
        "syscalls": sets,
    });
    let mut profile: LinuxSeccomp = serde_json::from_value(profile).expect("a profile");
    profile.set_architectures(Some(family[1..].to_vec()));
    (profile, family[0])
}

/// The profile's names, but for those by which a listener is handed over, and those that the
/// installed library is too old for.
fn all_names() -> Vec<String> {
    let profile = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seccomp/profile.json"));
    let sets = profile.syscalls().iter().flatten();
    let names = sets.flat_map(|set| set.names().iter().cloned());
    let handshake = runtime::seccomp::HANDSHAKE;
    // On Arm the library knows the last one by another name only.
    let other = [&handshake[..], &CHANGED, &["sync_file_range2"]].concat();
    names.filter(|name| !other.contains(&name.as_str())).collect()
}

/// `SECCOMP_SEED` (7) chooses the profiles, `SECCOMP_ROUNDS` (60) says how many.
#[test]
fn random_profiles_of_all_actions_and_architectures_get_the_same_answers() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let seed = number("SECCOMP_SEED", 7);
    let Some(mut library) = Libseccomp::start() else { return };
    let (mut random, names) = (Random(seed), all_names());
    let (mut cases, mut refused, mut endless) = (0, 0, 0);
    for round in 0..number("SECCOMP_ROUNDS", 60) {
        let (profile, native) = random_whole_profile(&mut random, &names);
        let at = format!("seed {seed}, round {round}: {profile:?}");
        let Some(first) = library.compile(&profile, native) else {
            endless += 1;
            continue;
        };
        let profile = without(&profile, &first.unknown);
        let Some(theirs) = library.compile(&profile, native) else { continue };
        match (compile(&profile, native), &theirs.refused) {
            (Ok(ours), None) => {
                let mut tally = Tally::default();
                tally.compare(&profile, native, &ours, &theirs);
                assert_eq!(tally.differences, Vec::<String>::new(), "{at}");
                cases += tally.cases;
            }
            (Err(_), Some(_)) => refused += 1,
            (ours, theirs) => panic!("{:?}, libseccomp {theirs:?}: {at}", ours.err()),
        }
    }
    println!(
        "seed {seed}: {cases} cases, {refused} profiles refused by both, {endless} endless there"
    );
    assert!(cases > 0);
}

/// One profile of a few rules on one call, that overlap and contradict each other.
fn random_profile(random: &mut Random, ops: &[&str]) -> LinuxSeccomp {
    let actions = ["ERRNO", "ALLOW", "TRAP", "LOG", "KILL_PROCESS"];
    let values: [u64; 9] =
        [0, 1, 5, 7, 0xffff_ffff, 1 << 32, (1 << 32) + 5, (3 << 32) + 1, u64::MAX];
    let sets: Vec<Value> = (0..1 + random.below(4))
        .map(|_| {
            let args: Vec<Value> = (0..random.below(4))
                .map(|_| {
                    json!({
                        "index": random.below(3),
                        "op": format!("SCMP_CMP_{}", ops[random.below(ops.len())]),
                        "value": values[random.below(values.len())],
                        "valueTwo": values[random.below(values.len())],
                    })
                })
                .collect();
            let name = ["openat", "socket"][random.below(2)];
            let action = format!("SCMP_ACT_{}", actions[random.below(actions.len())]);
            json!({ "names": [name], "action": action, "args": args })
        })
        .collect();
    let profile = json!({
        "defaultAction": format!("SCMP_ACT_{}", actions[random.below(actions.len())]),
        "architectures": ["SCMP_ARCH_X86"],
        "syscalls": sets,
    });
    serde_json::from_value(profile).expect("a profile")
}

/// Whether one condition of `args` holds where arguments are masked by `width`.
fn holds(arg: &LinuxSeccompArg, args: &[u64; 6], width: u64) -> bool {
    let (argument, value) = (args[arg.index()] & width, arg.value() & width);
    let second = arg.value_two().unwrap_or(0) & width;
    match arg.op() {
        Op::ScmpCmpNe => argument != value,
        Op::ScmpCmpLt => argument < value,
        Op::ScmpCmpLe => argument <= value,
        Op::ScmpCmpEq => argument == value,
        Op::ScmpCmpGe => argument >= value,
        Op::ScmpCmpGt => argument > value,
        Op::ScmpCmpMaskedEq => argument & value == second & value,
    }
}

/// The actions of all rules on `name` that hold, or of the first that has no conditions: what the
/// profile says, whoever reads it.
fn said(profile: &LinuxSeccomp, name: &str, args: &[u64; 6], width: u64) -> BTreeSet<u32> {
    let mut said = BTreeSet::new();
    let default = profile.default_action().as_u32(None);
    for set in profile.syscalls().iter().flatten() {
        let action = set.action().as_u32(None);
        if !set.names().iter().any(|known| known == name) || action == default {
            continue;
        }
        let conditions = set.args().as_deref().unwrap_or_default();
        let indexes: BTreeSet<usize> = conditions.iter().map(|arg| arg.index()).collect();
        let vacuous =
            |arg: &LinuxSeccompArg| arg.op() == Op::ScmpCmpMaskedEq && arg.value() & width == 0;
        let mut each = conditions.iter().map(|arg| holds(arg, args, width));
        let (always, holds) = if indexes.len() < conditions.len() {
            (conditions.iter().any(vacuous), each.any(|holds| holds))
        } else {
            (conditions.iter().all(vacuous), each.all(|holds| holds))
        };
        if always {
            return BTreeSet::from([action]);
        }
        said.extend(holds.then_some(action));
    }
    if said.is_empty() { BTreeSet::from([default]) } else { said }
}

/// How two filters of one profile of random rules compare.
#[derive(Debug, Default)]
struct Settled {
    /// Profiles that both refuse; that only libseccomp does; that only we do.
    refused: [usize; 3],
    /// Profiles over which libseccomp never comes to an end.
    endless: usize,
    /// The profile says one thing: cases, and how many libseccomp gets wrong.
    plain: [usize; 2],
    /// Rules that hold contradict each other: cases, and how many are settled otherwise.
    ambiguous: [usize; 2],
}

impl Settled {
    fn compare(&mut self, profile: &LinuxSeccomp, ours: &Filter, theirs: &Reference) {
        const CALLS: [(Arch, u32, &str, u64); 4] = [
            (Arch::ScmpArchX86_64, 257, "openat", u64::MAX),
            (Arch::ScmpArchX86_64, 41, "socket", u64::MAX),
            (Arch::ScmpArchX86, 295, "openat", 0xffff_ffff),
            (Arch::ScmpArchX86, 359, "socket", 0xffff_ffff),
        ];
        let lists = arguments(&values(profile));
        for (arch, number, name, width) in CALLS {
            for args in &lists {
                let our = simulate(&ours.program, number, audit(arch), *args).value;
                let their = theirs.answer(profile, arch, number, *args);
                if our == ENOSYS && their == ENOSYS {
                    continue;
                }
                let said = said(profile, name, args, width);
                assert!(said.contains(&our), "{arch} {name} {args:x?}: {our:#x} of {said:x?}");
                let counts = if said.len() == 1 { &mut self.plain } else { &mut self.ambiguous };
                counts[0] += 1;
                counts[1] += usize::from(our != their);
            }
        }
    }
}

/// Compares filters of as many random profiles as `SECCOMP_ROUNDS` says (300).
fn settle(ops: &[&str]) -> Option<Settled> {
    let mut library = Libseccomp::start()?;
    let (mut random, mut settled) = (Random(42), Settled::default());
    let rounds = std::env::var("SECCOMP_ROUNDS").map_or(300, |rounds| rounds.parse().unwrap());
    for _ in 0..rounds {
        let profile = random_profile(&mut random, ops);
        let Some(theirs) = library.compile(&profile, Arch::ScmpArchX86_64) else {
            settled.endless += 1;
            continue;
        };
        let ours = compile(&profile, Arch::ScmpArchX86_64);
        match (&ours, &theirs.refused) {
            (Ok(ours), None) => settled.compare(&profile, ours, &theirs),
            (Err(_), Some(_)) => settled.refused[0] += 1,
            (Ok(_), Some(_)) => settled.refused[1] += 1,
            (Err(_), None) => settled.refused[2] += 1,
        }
    }
    println!("{ops:?}: {settled:?}");
    Some(settled)
}

#[test]
fn overlapping_equalities_are_settled_alike() {
    let Some(settled) = settle(&["EQ", "MASKED_EQ"]) else {
        return;
    };
    assert_eq!(settled.refused[1..], [0, 0]);
    assert_eq!((settled.plain[1], settled.ambiguous[1]), (0, 0));
}

/// With the other operators we differ where libseccomp 2.5.4 is wrong: its tree of 32-bit comparisons
/// shares nodes among rules that go on differently. That `Settled::compare` finds our answer among
/// those that the profile gives is the test; that the library rarely differs shows that the order
/// among them is the library's too.
#[test]
fn overlapping_bounds_get_an_answer_that_the_profile_gives() {
    let Some(settled) = settle(&["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]) else {
        return;
    };
    assert_eq!(settled.refused[2], 0);
    assert!(settled.plain[1] * 200 < settled.plain[0], "{settled:?}");
    assert!(settled.ambiguous[1] * 50 < settled.ambiguous[0], "{settled:?}");
}
