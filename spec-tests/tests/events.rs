//! `events`: statistics and OOM kills, in the words that go-runc parses.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spec_tests::{Bundle, Case, cgroup, differs, find_program, skip};

/// Two seconds of a shell at work, however fast the machine is.
const BUSY: &str = "read a _ < /proc/uptime; e=$((${a%.*}+2)); \
                    while read a _ < /proc/uptime; test ${a%.*} -lt $e; do :; done;";

macro_rules! needs {
    ($($controller:literal),+) => {
        $(if !cgroup::has_controller($controller) {
            skip!("no {} controller on this host", $controller);
        })+
    };
}

fn v2() -> bool {
    cgroup::layout() == cgroup::Layout::V2
}

/// The `data` of `events --stats`.
#[track_caller]
fn stats(case: &Case, bundle: &Bundle) -> Value {
    let event = case.runtime(["events", "--stats", &bundle.id]).quiet_success().json();
    assert_eq!(event["type"], "stats", "{event}");
    assert_eq!(event["id"], bundle.id.as_str(), "{event}");
    event["data"].clone()
}

#[track_caller]
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The files of a container's cgroup.
struct Files {
    pid: u32,
}

impl Files {
    fn text(&self, controller: &str, v1: &str, v2: &str) -> String {
        cgroup::read(self.pid, controller, v1, v2)
    }

    #[track_caller]
    fn number(&self, controller: &str, v1: &str, v2: &str) -> u64 {
        self.text(controller, v1, v2).parse().expect("a number")
    }

    /// The number after `name` in a file of pairs.
    #[track_caller]
    fn pair(&self, controller: &str, file: &str, name: &str) -> u64 {
        let text = self.text(controller, file, file);
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
    }
}

#[test]
fn statistics_are_what_the_files_say() {
    let case = Case::new();
    differs!(case, ["crun"], "crun has no events");
    needs!("memory", "cpu", "pids");
    let resources = json!({
        "memory": { "limit": 64 << 20 },
        "pids": { "limit": 25 },
        "cpu": { "quota": 20000, "period": 100000 },
    });
    let bundle = case
        .bundle()
        .set("/linux/resources/memory", resources["memory"].clone())
        .set("/linux/resources/pids", resources["pids"].clone())
        .set("/linux/resources/cpu", resources["cpu"].clone())
        .sh(&format!(
            "head -c 8388608 /dev/zero > /dev/shm/x; {BUSY} echo done; sleep 100 & exec sleep 100"
        ));
    let created = case.start(&bundle);
    assert!(spec_tests::wait_until(|| created.stdout_now().contains("done")));
    case.runtime(["pause", &bundle.id]).quiet_success();
    let (data, files) = (stats(&case, &bundle), Files { pid: case.pid(&bundle) });

    assert_eq!(number(&data["pids"]["current"]), 2);
    assert_eq!(number(&data["pids"]["limit"]), 25);

    let memory = &data["memory"];
    assert_eq!(number(&memory["usage"]["limit"]), 64 << 20);
    let used = files.number("memory", "memory.usage_in_bytes", "memory.current");
    // What a CPU has cached is given back now and then, even while the container is paused.
    let near = |a: u64, b: u64| a.abs_diff(b) <= 1 << 20;
    assert!(near(number(&memory["usage"]["usage"]), used), "{memory}");
    assert!(used > 8 << 20, "{used}");
    let cache = files.pair("memory", "memory.stat", if v2() { "file" } else { "cache" });
    assert!(near(number(&memory["cache"]), cache) && cache >= 8 << 20, "{memory}");
    assert!(number(&memory["usage"]["failcnt"]) < 1 << 20, "{memory}");
    assert!(memory["raw"]["pgfault"].is_u64(), "{memory}");
    if !v2() {
        let peak = files.number("memory", "memory.max_usage_in_bytes", "");
        assert!(near(number(&memory["usage"]["max"]), peak), "{memory}");
    }

    let cpu = &data["cpu"];
    let (total, throttled) = if v2() {
        let stat = |name: &str| files.pair("cpu", "cpu.stat", name);
        assert_eq!(number(&cpu["usage"]["user"]), stat("user_usec") * 1000);
        (stat("usage_usec") * 1000, stat("throttled_usec") * 1000)
    } else {
        let total = files.number("cpuacct", "cpuacct.usage", "");
        let each: u64 =
            cpu["usage"]["percpu"].as_array().expect("an array").iter().map(number).sum();
        assert!(each.abs_diff(total) < 1_000_000, "{cpu}");
        (total, files.pair("cpu", "cpu.stat", "throttled_time"))
    };
    assert!(number(&cpu["usage"]["total"]).abs_diff(total) < 1_000_000 && total > 0, "{cpu}");
    assert_eq!(number(&cpu["throttling"]["throttledTime"]), throttled, "{cpu}");
    let periods = files.pair("cpu", "cpu.stat", "nr_periods");
    // One may end between the two looks.
    assert!(number(&cpu["throttling"]["periods"]).abs_diff(periods) <= 1, "{cpu}");
    case.runtime(["resume", &bundle.id]).quiet_success();
}

#[test]
fn throttling_is_measured_and_bites() {
    let case = Case::new();
    differs!(case, ["crun"], "crun has no events");
    needs!("cpu");
    let bundle = case
        .bundle()
        .set("/linux/resources/cpu", json!({ "quota": 10000, "period": 50000 }))
        .sh("while :; do :; done");
    case.start(&bundle);
    let measure = || {
        let cpu = stats(&case, &bundle)["cpu"].clone();
        (Instant::now(), number(&cpu["usage"]["total"]), cpu["throttling"].clone())
    };
    let (from, before, _) = measure();
    // A machine that is busy gives less than the quota, and so throttles seldom.
    let (until, after, throttling) = loop {
        std::thread::sleep(Duration::from_secs(3));
        let last = measure();
        if number(&last.2["throttledPeriods"]) >= 10 || last.0 > from + Duration::from_secs(40) {
            break last;
        }
    };
    let ratio = (after - before) as f64 / (until - from).as_nanos() as f64;
    // A fifth of one CPU, and nowhere more.
    assert!((0.002..0.26).contains(&ratio), "{ratio}");
    assert!(number(&throttling["throttledPeriods"]) >= 10, "{throttling}");
    assert!(number(&throttling["throttledTime"]) > 100_000_000, "{throttling}");
}

#[test]
fn every_statistic_has_the_name_that_go_runc_reads() {
    let case = Case::new();
    differs!(case, ["crun"], "crun has no events");
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    let data = stats(&case, &bundle);
    for object in ["cpu", "memory", "pids", "blkio", "hugetlb"] {
        assert!(data[object].is_object(), "{object}: {data}");
    }
    assert!(data["network_interfaces"].is_null(), "{data}");
    for field in ["kernel", "user"] {
        assert!(data["cpu"]["usage"][field].is_u64(), "{data}");
    }
    for entry in ["usage", "swap", "kernel", "kernelTCP"] {
        for field in ["limit", "failcnt"] {
            assert!(data["memory"][entry][field].is_u64(), "{entry}.{field}: {data}");
        }
    }
    if case.runtime_is("runc") {
        return; // pressure and huge pages of a hybrid host are newer
    }
    if cgroup::is_hybrid() || v2() {
        for resource in ["cpu", "memory", "blkio"] {
            assert!(data[resource]["psi"]["some"]["avg10"].is_number(), "{resource}: {data}");
            assert!(data[resource]["psi"]["full"]["total"].is_u64(), "{resource}: {data}");
        }
    }
}

#[test]
fn block_io_is_counted() {
    let case = Case::new();
    differs!(case, ["crun"], "crun has no events");
    if !cgroup::has_controller("blkio") && !cgroup::has_controller("io") {
        skip!("no block I/O controller on this host");
    }
    let bundle = case
        .bundle()
        .writable()
        .sh("dd if=/dev/zero of=/file bs=1M count=4 oflag=direct 2>&1; echo done; exec sleep 100");
    let created = case.start(&bundle);
    assert!(spec_tests::wait_until(|| created.stdout_now().contains("done")));
    let data = stats(&case, &bundle);
    let Some(entries) = data["blkio"]["ioServiceBytesRecursive"].as_array() else {
        skip!("this host's kernel accounts no block I/O to a group");
    };
    let written: u64 = entries
        .iter()
        .filter(|e| e["op"] == "Write")
        .map(|e| e["value"].as_u64().unwrap_or(0))
        .sum();
    if written == 0 {
        skip!("what was written is not accounted to the container on this host");
    }
    assert!(written >= 4 << 20, "{data}");
    assert!(entries.iter().any(|e| e["major"].is_u64() || e["minor"].is_u64()), "{data}");
}

/// All paths to numbers below a value, and the limits among them.
fn paths(value: &Value, at: &str, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, below)| paths(below, &format!("{at}.{key}"), found));
        }
        Value::Number(_) => drop(found.insert(at.to_owned(), value.clone())),
        other => drop(found.insert(format!("{at}[]"), other.is_array().into())),
    }
}

#[test]
fn the_statistics_have_all_that_runcs_have() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "it is compared with runc");
    needs!("memory", "cpu", "pids");
    let runc = match find_program("runc") {
        Ok(path) => path,
        Err(reason) => skip!("{reason}"),
    };
    let bundle = || {
        case.bundle()
            .set("/linux/resources/memory", json!({ "limit": 64 << 20, "swap": 96 << 20 }))
            .set("/linux/resources/pids", json!({ "limit": 25 }))
            .set("/linux/resources/cpu", json!({ "quota": 20000, "period": 100000, "cpus": "0" }))
            .sh(&format!("{BUSY} echo done; exec sleep 100"))
    };
    let (ours, theirs) = (bundle(), bundle());
    let created = case.start(&ours);
    assert!(spec_tests::wait_until(|| created.stdout_now().contains("done")));
    theirs.write();
    let root = case.dir().join("runc");
    let call = |words: &[&str]| {
        let mut command = Command::new(&runc);
        command.arg("--root").arg(&root).args(words).stdin(Stdio::null());
        case.outcome(command)
    };
    let dir = theirs.dir.to_str().expect("UTF-8");
    call(&["run", "--detach", "--bundle", dir, &theirs.id]).success();
    std::thread::sleep(Duration::from_secs(1));
    let event = call(&["events", "--stats", &theirs.id]);
    call(&["delete", "--force", &theirs.id]).success();
    let (mut have, mut want) = (BTreeMap::new(), BTreeMap::new());
    paths(&stats(&case, &ours), "", &mut have);
    paths(&event.success().json()["data"], "", &mut want);
    assert!(want.len() > 30, "{want:?}");
    // Zeroes are left out, and what one container met another one need not have.
    let zero_elsewhere =
        |path: &str| ["throttl", ".max", ".blkio"].iter().any(|part| path.contains(part));
    for (path, value) in &want {
        let absent = *value == 0 || zero_elsewhere(path);
        assert!(have.contains_key(path) || absent, "{path} is missing: {have:?}");
        if path.ends_with("limit") {
            assert_eq!(have.get(path), Some(value), "{path}");
        }
    }
}

/// `events FLAGS… ID`, whose lines come one by one.
struct Stream {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Stream {
    fn open<const N: usize>(case: &Case, bundle: &Bundle, flags: [&str; N]) -> Stream {
        let mut command = case.command();
        command.arg("events").args(flags).arg(&bundle.id).stdout(Stdio::piped());
        let log = File::create(case.dir().join("events.err")).expect("make a file");
        let mut child = command.stderr(log).spawn().expect("start events");
        let stdout = child.stdout.take().expect("a pipe");
        Stream { child, lines: BufReader::new(stdout).lines() }
    }

    /// The next event; none at the end.
    fn next(&mut self) -> Option<Value> {
        let line = self.lines.next()?.expect("read from events");
        Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}")))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn statistics_come_in_intervals_until_the_container_ends() {
    let case = Case::new();
    differs!(case, ["crun"], "crun has no events");
    needs!("memory");
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    let from = Instant::now();
    let mut stream = Stream::open(&case, &bundle, ["--interval=300ms"]);
    for _ in 0..3 {
        assert_eq!(stream.next().expect("an event")["type"], "stats");
    }
    let took = from.elapsed();
    assert!(took >= Duration::from_millis(850) && took < Duration::from_secs(8), "{took:?}");
    case.runtime(["kill", &bundle.id, "KILL"]).quiet_success();
    case.wait_stopped(&bundle);
    case.runtime(["delete", &bundle.id]).quiet_success();
    while let Some(event) = stream.next() {
        assert_eq!(event["type"], "stats", "{event}");
    }
    assert!(stream.child.wait().expect("wait for events").success());
}

#[test]
fn an_oom_kill_is_an_event() {
    let case = Case::new();
    differs!(case, ["crun"], "crun has no events");
    needs!("memory");
    let bundle = case
        .bundle()
        .set("/linux/resources/memory", json!({ "limit": 8 << 20, "swap": 8 << 20 }))
        .sh("read line < /tmp/go; tail -c 100000000 /dev/zero; echo $?; exec sleep 100")
        .mount("/tmp", "bind", case.dir().to_str().expect("UTF-8"), &["bind"]);
    let fifo = case.dir().join("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("make a FIFO");
    let created = case.start(&bundle);
    let mut stream = Stream::open(&case, &bundle, ["--interval", "100ms"]);
    // From its first statistics on it watches.
    assert_eq!(stream.next().expect("an event")["type"], "stats");
    std::fs::write(&fifo, "go\n").expect("let it begin");
    let from = Instant::now();
    loop {
        let event = stream.next().expect("an event");
        if event["type"] == "oom" {
            assert_eq!(event, json!({ "type": "oom", "id": bundle.id }));
            break;
        }
        assert!(from.elapsed() < Duration::from_secs(20), "no OOM event");
    }
    assert!(spec_tests::wait_until(|| created.stdout_now().contains("137")), "{created}");
}

#[test]
fn a_container_that_is_killed_by_its_memory_ends_with_137() {
    let case = Case::new();
    needs!("memory");
    let bundle = case
        .bundle()
        .set("/linux/resources/memory", json!({ "limit": 8 << 20, "swap": 8 << 20 }))
        .args(["tail", "-c", "100000000", "/dev/zero"]);
    assert_eq!(case.run(&bundle).code(), 137);
    case.assert_gone(&bundle);
}

#[test]
fn what_does_not_run_has_no_events() {
    let case = Case::new();
    differs!(case, ["crun"], "crun has no events");
    case.assert_missing("events", "no-such-container");
    let bundle = case.bundle();
    case.start(&bundle);
    case.wait_stopped(&bundle);
    let outcome = case.runtime(["events", "--stats", &bundle.id]);
    outcome.fails_with("not running");
    case.runtime(["events", "--interval", "0s", &bundle.id]).fails_with("interval");
}
