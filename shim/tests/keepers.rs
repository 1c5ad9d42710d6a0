//! Either keeper may be killed: the container, its output and its exit code survive.

mod sandbox;

use rustix::process::Signal;
use sandbox::{Sandbox, eventually, kill};
use std::process::Stdio;

const TICKING: &str = "i=0; trap 'exit 9' TERM; \
                       while :; do i=$((i+1)); echo tick $i; sleep 0.02; done";

#[test]
fn a_killed_monitor_is_replaced_and_nothing_is_noticed() {
    let Some(sandbox) = Sandbox::new("monitor") else { return };
    let id = sandbox.detached("m", &[], TICKING);
    for _ in 0..3 {
        let before = sandbox.keeper(&id, "monitor");
        kill(before, Signal::KILL);
        eventually("a new monitor", || sandbox.keeper(&id, "monitor") != before);
    }
    let lines = |sandbox: &Sandbox| sandbox.shim(&["logs", "m"]).stdout.lines().count();
    let now = lines(&sandbox);
    eventually("the log goes on", || lines(&sandbox) > now + 5);
    assert_eq!(sandbox.shim(&["stop", "m"]).code, Some(0));
    assert_eq!(sandbox.shim(&["wait", "m"]).stdout, "9\n");
    // At most what the killed monitors had read and not yet written is missing.
    let log = sandbox.shim(&["logs", "m"]).stdout;
    let last = log.lines().last().unwrap().strip_prefix("tick ").unwrap();
    assert!(log.lines().count() + 3 >= last.parse::<usize>().unwrap(), "{log}");
}

#[test]
fn a_foreground_run_survives_its_monitor() {
    let Some(sandbox) = Sandbox::new("foreground") else { return };
    let mut run = sandbox.run_command(&["--name", "f"], TICKING);
    let child = run.stdout(Stdio::piped()).spawn().unwrap();
    eventually("it ticks", || sandbox.shim(&["logs", "f"]).stdout.contains("tick"));
    let id = sandbox.facts("f")["id"].as_str().unwrap().to_owned();
    let before = sandbox.keeper(&id, "monitor");
    kill(before, Signal::KILL);
    eventually("a new monitor", || sandbox.keeper(&id, "monitor") != before);
    std::thread::sleep(std::time::Duration::from_millis(200));
    sandbox.shim(&["kill", "-s", "TERM", "f"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(9));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().count() > 10, "{text}");
}

#[test]
fn the_code_survives_a_monitor_killed_at_the_very_end() {
    let Some(sandbox) = Sandbox::new("end") else { return };
    let id = sandbox.detached("e", &[], "sleep 0.2; exit 6");
    for _ in 0..10 {
        let monitor = sandbox.keeper(&id, "monitor");
        if let Some(pid) = rustix::process::Pid::from_raw(monitor) {
            // Its last incarnation may have ended already.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    eventually("it has ended", || sandbox.facts("e")["status"] == "exited");
    assert_eq!(sandbox.facts("e")["exitCode"], 6);
    eventually("the keepers end", || sandbox.keepers().is_empty());
}

#[test]
fn a_killed_reaper_leaves_a_container_that_can_be_stopped_and_removed() {
    let Some(sandbox) = Sandbox::new("reaper") else { return };
    let id = sandbox.detached("r", &[], TICKING);
    kill(sandbox.keeper(&id, "reaper"), Signal::KILL);
    eventually("it is orphaned", || sandbox.facts("r")["status"] == "orphaned");
    let ran = sandbox.shim(&["rm", "r"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(sandbox.shim(&["stop", "r"]).code, Some(0));
    let status = sandbox.facts("r");
    match status["status"].as_str() {
        // Linux 6.15 tells its exit code to the monitor.
        Some("exited") => assert_eq!(status["exitCode"], 9),
        Some("lost") => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(sandbox.shim(&["rm", "r"]).code, Some(0));
    sandbox.assert_clean();
}

#[test]
fn both_keepers_killed_is_lost_and_removable() {
    let Some(sandbox) = Sandbox::new("both") else { return };
    let id = sandbox.detached("b", &[], "sleep 1000");
    kill(sandbox.keeper(&id, "reaper"), Signal::KILL);
    kill(sandbox.keeper(&id, "monitor"), Signal::KILL);
    eventually("it is orphaned", || sandbox.facts("b")["status"] == "orphaned");
    let ran = sandbox.shim(&["rm", "-f", "b"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    sandbox.assert_clean();
}

#[test]
fn a_state_from_before_a_reboot_is_lost_and_startable() {
    let Some(sandbox) = Sandbox::new("reboot") else { return };
    let id = sandbox.detached("old", &[], "sleep 1000");
    let dir = sandbox.state().join(&id);
    let init = std::fs::read_to_string(dir.join("init")).unwrap();
    sandbox.shim(&["kill", "old"]);
    sandbox.shim(&["wait", "old"]);
    eventually("the keepers end", || sandbox.keepers().is_empty());
    // Our own pid, as if it had been given to us after a reboot.
    let (start, _) = init.trim().split_once(' ').unwrap().1.split_once(' ').unwrap();
    let reused = format!("{} {start} another-boot\n", std::process::id());
    std::fs::write(dir.join("init"), reused).unwrap();
    std::fs::remove_file(dir.join("exit")).unwrap();
    assert_eq!(sandbox.facts("old")["status"], "lost");
    assert_eq!(sandbox.shim(&["start", "old"]).stdout, "old\n");
    assert_eq!(sandbox.facts("old")["status"], "running");
    assert_eq!(sandbox.shim(&["rm", "-f", "old"]).code, Some(0));
    sandbox.assert_clean();
}

#[test]
fn a_client_killed_before_the_start_leaves_a_container_that_can_be_removed() {
    let Some(sandbox) = Sandbox::new("client") else { return };
    let slow = sandbox.fake_runtime("[ \"$verb\" = create ] && sleep 0.5");
    let mut run = slow.run_command(&["--name", "c"], "sleep 1000");
    let mut child = run.stdout(Stdio::null()).spawn().unwrap();
    eventually("the reaper is there", || !sandbox.keepers().is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("it runs all the same", || sandbox.facts("c")["status"] == "running");
    assert_eq!(sandbox.shim(&["rm", "-f", "c"]).code, Some(0));
    sandbox.assert_clean();
}
