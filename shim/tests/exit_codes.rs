//! The exit code is the container's, exactly, in the foreground and afterwards.

mod sandbox;

use sandbox::{Sandbox, eventually, kill};
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn codes_of_commands_and_signals() {
    let Some(sandbox) = Sandbox::new("codes") else { return };
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        // busybox's pid 1 cannot be killed from inside; a child's death is its shell's code.
        ("sh -c 'kill -9 $$'; exit $?", 137),
    ] {
        let ran = sandbox.run(&["--rm"], script);
        assert_eq!(ran.code, Some(code), "{script}: {ran:?}");
    }
    sandbox.detached("killed", &[], "sleep 100");
    assert_eq!(sandbox.shim(&["kill", "killed"]).code, Some(0));
    assert_eq!(sandbox.shim(&["wait", "killed"]).stdout, "137\n");
    assert_eq!(sandbox.facts("killed")["exitCode"], 137);
    assert_eq!(sandbox.shim(&["rm", "killed"]).code, Some(0));
    sandbox.assert_clean();
}

#[test]
fn commands_that_cannot_be_executed() {
    let Some(sandbox) = Sandbox::new("commands") else { return };
    for (command, code) in [("no-such-command", 127), ("/no/such", 127), ("/tmp", 126)] {
        let mut run = sandbox.command(&["run", "--runtime"]);
        run.arg(&sandbox.runtime).arg(sandbox.bundle()).arg(command);
        let ran = sandbox::Ran::from(run.output().unwrap());
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        assert!(ran.stderr.contains(command), "{ran:?}");
        sandbox.assert_clean();
    }
}

/// A container that ends while `runtime start` has not even returned. `SHIM_TEST_LOOPS`
/// says how often (default 100).
#[test]
fn quick_exits_race_the_start() {
    let Some(sandbox) = Sandbox::new("quick") else { return };
    let loops = std::env::var("SHIM_TEST_LOOPS").ok().and_then(|n| n.parse().ok());
    for n in 0..loops.unwrap_or(100u32) {
        let code = n as i32 % 256;
        let ran = sandbox.run(&["--rm"], &format!("echo {n}; exit {code}"));
        assert_eq!((ran.code, ran.stdout), (Some(code), format!("{n}\n")), "round {n}");
    }
    sandbox.assert_clean();
}

#[test]
fn stdout_and_stderr_stay_apart_and_stdin_ends() {
    let Some(sandbox) = Sandbox::new("stdio") else { return };
    let ran = sandbox.run(&["--rm"], "cat; echo out; echo err >&2");
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));

    let mut run = sandbox.run_command(&["--rm", "-i"], "cat; echo end");
    let mut child = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let data = "0123456789abcdef".repeat(64 << 10);
    let mut stdin = child.stdin.take().unwrap();
    let text = data.clone();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(output.stdout.len(), data.len() + 4);
    assert!(output.stdout.starts_with(data.as_bytes()));
}

#[test]
fn signals_reach_the_container() {
    let Some(sandbox) = Sandbox::new("signals") else { return };
    let script = "trap 'echo usr1' USR1; trap 'exit 42' TERM; echo ready; \
                  while :; do sleep 0.05; done";
    let mut run = sandbox.run_command(&["--name", "s"], script);
    let mut child = run.stdout(Stdio::piped()).spawn().unwrap();
    eventually("it is ready", || sandbox.shim(&["logs", "s"]).stdout.contains("ready"));
    kill(child.id() as i32, rustix::process::Signal::USR1);
    eventually("USR1 came", || sandbox.shim(&["logs", "s"]).stdout.contains("usr1"));
    kill(child.id() as i32, rustix::process::Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(42));
}

#[test]
fn a_container_begins_with_no_signal_blocked() {
    let Some(sandbox) = Sandbox::new("mask") else {
        return;
    };
    sandbox.detached("m", &[], "cat /proc/self/status");
    sandbox.shim(&["wait", "m"]);
    let foreground = sandbox.run(&["--rm"], "cat /proc/self/status").stdout;
    let detached = sandbox.shim(&["logs", "m"]).stdout;
    for status in [foreground, detached] {
        let blocked = status.lines().find(|line| line.starts_with("SigBlk"));
        assert_eq!(blocked, Some("SigBlk:\t0000000000000000"), "{status}");
    }
}

#[test]
fn a_grandchild_with_our_stdout_does_not_hang_the_run() {
    let Some(sandbox) = Sandbox::new("grandchild") else { return };
    sandbox.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    let began = Instant::now();
    let ran = sandbox.run(&["--rm"], "sleep 300 & echo begun; exit 3");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), "begun\n"), "{ran:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
    sandbox.assert_clean();
}

#[test]
fn a_closed_stdout_ends_the_container() {
    let Some(sandbox) = Sandbox::new("closed") else { return };
    let mut run = sandbox.run_command(&["--rm"], "yes");
    let mut child = run.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(137));
    sandbox.assert_clean();
}

#[test]
fn a_slow_reader_in_the_foreground_gets_every_byte() {
    let Some(sandbox) = Sandbox::new("slow") else { return };
    let mut run = sandbox.run_command(&["--rm", "--log", "none"], "seq 1 200000");
    let child = run.stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let output = child.wait_with_output().unwrap();
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(output.stdout == expected.as_bytes());
}

#[test]
fn containers_start_again_with_the_same_name_and_log() {
    let Some(sandbox) = Sandbox::new("again") else { return };
    let ran = sandbox.run(&["--name", "again"], "echo run; exit 4");
    assert_eq!(ran.code, Some(4));
    let ran = sandbox.shim(&["start", "-a", "again"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(4), "run\n"), "{ran:?}");
    assert_eq!(sandbox.shim(&["start", "again"]).stdout, "again\n");
    assert_eq!(sandbox.shim(&["wait", "again"]).stdout, "4\n");
    assert_eq!(sandbox.shim(&["logs", "again"]).stdout, "run\nrun\nrun\n");
}
