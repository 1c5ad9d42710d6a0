//! What a container prints is kept as it was, or counted as lost.

mod sandbox;

use sandbox::{Sandbox, eventually};
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn whole_and_partial_lines_of_both_streams() {
    let Some(sandbox) = Sandbox::new("partial") else { return };
    let script = "echo one; printf par; sleep 0.2; echo tial; echo err >&2; printf end";
    let ran = sandbox.run(&["--name", "p"], script);
    assert_eq!(ran.stdout, "one\npartial\nend");
    let id = sandbox.facts("p")["id"].as_str().unwrap().to_owned();
    let log = std::fs::read_to_string(sandbox.state().join(id).join("log")).unwrap();
    let mut tails: Vec<&str> = log.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    let err = tails.iter().position(|tail| *tail == "stderr F err").unwrap();
    tails.remove(err);
    assert_eq!(tails, ["stdout F one", "stdout P par", "stdout F tial", "stdout P end"]);

    let read = sandbox.shim(&["logs", "p"]);
    assert_eq!((read.stdout.as_str(), read.stderr.as_str()), ("one\npartial\nend", "err\n"));
    assert_eq!(sandbox.shim(&["logs", "-n", "3", "p"]).stdout, "partial\nend");
    assert_eq!(sandbox.shim(&["logs", "--since", "0s", "p"]).stdout, "");
    assert_eq!(sandbox.shim(&["logs", "--since", "1h", "p"]).stdout, ran.stdout);
    let stamped = sandbox.shim(&["logs", "-t", "p"]).stdout;
    for line in stamped.lines() {
        let (time, _) = line.split_once(' ').unwrap();
        assert!(time.ends_with("+00:00") && time.len() == 35, "{stamped}");
    }
}

#[test]
fn following_ends_with_the_container() {
    let Some(sandbox) = Sandbox::new("follow") else { return };
    sandbox.detached("f", &[], "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done");
    let began = Instant::now();
    assert_eq!(sandbox.shim(&["logs", "-f", "f"]).stdout, "1\n2\n3\n4\n5\n");
    assert!(began.elapsed() < Duration::from_secs(5));

    sandbox.detached("g", &[], "echo begun; sleep 1000");
    let mut logs = sandbox.command(&["logs", "-f", "g"]);
    let mut logs = logs.stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 6];
    let mut stdout = logs.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    // Nobody reads any more, and nothing is written: it must notice all the same.
    assert_eq!(logs.wait().unwrap().code(), Some(0));
}

#[test]
fn a_full_disk_is_counted_and_the_container_goes_on() {
    let Some(sandbox) = Sandbox::new("full") else { return };
    let ran = sandbox.run(&["--name", "f", "--log", "/dev/full"], "seq 1 1000; exit 3");
    assert_eq!(ran.code, Some(3));
    assert_eq!(ran.stdout.lines().count(), 1000);
    let lost = &sandbox.facts("f")["lostLog"];
    assert!(lost["entries"].as_u64().unwrap() >= 1000, "{lost}");
    assert!(lost["reason"].as_str().unwrap().contains("No space"), "{lost}");
    assert!(sandbox.shim(&["ps", "-a"]).stdout.contains("log lost"));
    let ran = sandbox.shim(&["logs", "f"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("/dev/full"), "{ran:?}");
}

#[test]
fn a_log_elsewhere_or_nowhere() {
    let Some(sandbox) = Sandbox::new("elsewhere") else { return };
    let log = sandbox.dir.join("my.log");
    let path = log.to_str().unwrap();
    assert_eq!(sandbox.run(&["--rm", "--log", path], "echo kept").code, Some(0));
    assert!(std::fs::read_to_string(&log).unwrap().ends_with("stdout F kept\n"));
    assert_eq!(sandbox.run(&["--name", "n", "--log", "none"], "echo x").stdout, "x\n");
    assert!(sandbox.shim(&["logs", "n"]).stderr.contains("--log none"));
    let ran = sandbox.run(&["--log", "/no/such/dir/log"], "true");
    assert_eq!(ran.code, Some(125));
    assert!(ran.stderr.contains("/no/such/dir/log"), "{ran:?}");
}

#[test]
fn a_stalled_attach_client_is_dropped_and_nobody_else_notices() {
    let Some(sandbox) = Sandbox::new("stalled") else { return };
    let script = "sleep 0.5; seq 1 300000; echo all >&2; sleep 1000";
    sandbox.detached("s", &[], script);
    let mut attach = sandbox.command(&["attach", "s"]);
    attach.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut stalled = attach.spawn().unwrap();
    let mut log = sandbox.shim(&["logs", "s"]);
    eventually("the container goes on", || {
        log = sandbox.shim(&["logs", "s"]);
        log.stderr == "all\n"
    });
    let log = log.stdout;
    assert!(log.ends_with("\n299999\n300000\n") && log.lines().count() == 300_000);

    let mut text = String::new();
    let mut stdout = stalled.stdout.take().unwrap();
    stdout.read_to_string(&mut text).unwrap();
    assert!(log.starts_with(&text) && text.len() < log.len());
    let mut complaint = String::new();
    stalled.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    assert_eq!(stalled.wait().unwrap().code(), Some(125), "{complaint}");
    assert!(complaint.contains("too slow"), "{complaint}");
}
