//! One clear line, a documented code, nothing left behind: names, bundles, runtimes.

mod sandbox;

use sandbox::{Ran, SHIM, Sandbox, eventually};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

fn assert_refused(ran: &Ran, code: i32, words: &str) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert!(ran.stderr.contains(words), "{words:?} is not in {ran:?}");
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
}

#[test]
fn names_in_use_and_names_that_are_none() {
    let Some(sandbox) = Sandbox::new("names") else { return };
    sandbox.detached("web", &[], "sleep 1000");
    assert_refused(&sandbox.run(&["--name", "web"], "true"), 125, "is in use by");
    assert_refused(&sandbox.run(&["--name", "a/b"], "true"), 125, "\"a/b\"");
    assert_eq!(sandbox.shim(&["ps", "-aq"]).stdout.lines().count(), 1);
    assert_refused(&sandbox.shim(&["rm", "web"]), 1, "it is running");
    assert_refused(&sandbox.shim(&["start", "web"]), 1, "it is running");
    assert_refused(&sandbox.shim(&["stop", "nobody"]), 1, "no container \"nobody\"");
    assert_refused(&sandbox.shim(&["attach", "nobody"]), 125, "no container \"nobody\"");
    assert_eq!(sandbox.shim(&["rm", "-f", "web"]).code, Some(0));
    sandbox.assert_clean();
}

#[test]
fn bundles_that_are_none() {
    let Some(sandbox) = Sandbox::new("bundles") else { return };
    let run = |bundle: &str| sandbox.shim(&["run", "--runtime", "runc", bundle]);
    assert_refused(&run("/no/such/bundle"), 125, "/no/such/bundle");
    assert_refused(&run(sandbox.dir.to_str().unwrap()), 125, "no config.json");
    let broken = sandbox.dir.join("broken");
    std::fs::create_dir(&broken).unwrap();
    for (text, words) in [("{\n  \"process\": nonsense}", "line 2"), ("{}", "process: missing")] {
        std::fs::write(broken.join("config.json"), text).unwrap();
        assert_refused(&run(broken.to_str().unwrap()), 125, words);
    }
    let ran = sandbox.run(&["-e", "A=b"], "true");
    assert_refused(&ran, 125, "applies to images only");
    sandbox.assert_clean();
}

#[test]
fn runtimes_that_hang_crash_and_lie() {
    let Some(sandbox) = Sandbox::new("runtimes") else { return };
    for (script, words) in [
        ("[ \"$verb\" = create ] && exec sleep 1000", "no answer within 1 s"),
        ("[ \"$verb\" = start ] && exec sleep 1000", "no answer within 1 s"),
        ("[ \"$verb\" = create ] && kill -9 $$", "signal: 9"),
        ("[ \"$verb\" = create ] && { echo it broke >&2; exit 5; }", "it broke"),
        ("[ \"$verb\" = create ] && exit 0", "pid file"),
        (
            "[ \"$verb\" = create ] && { while [ \"$1\" != --pid-file ]; do shift; done; \
             echo 1 > \"$2\"; exit 0; }",
            "process 1 that it reports",
        ),
        ("[ \"$verb\" = start ] && exit 1", "start: exit status: 1"),
    ] {
        let began = Instant::now();
        let ran = sandbox.fake_runtime(script).run(&["--runtime-timeout", "1"], "sleep 1000");
        assert_refused(&ran, 125, words);
        assert!(began.elapsed() < Duration::from_secs(10), "{script}");
        sandbox.assert_clean();
    }
    let ran = sandbox.shim(&["run", "--runtime", "/no/such/runtime", "/"]);
    assert_refused(&ran, 125, "/");
}

#[test]
fn a_runtime_that_cannot_delete_is_told_of_and_can_be_tried_again() {
    let Some(sandbox) = Sandbox::new("delete") else { return };
    let flag = sandbox.dir.join("broken");
    std::fs::write(&flag, "").unwrap();
    let script = format!(
        "[ \"$verb\" = delete ] && [ -e {} ] && {{ echo stuck >&2; exit 1; }}",
        flag.display()
    );
    let ran = sandbox.fake_runtime(&script).run(&["--rm", "--name", "d"], "exit 4");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.stderr.contains("warning") && ran.stderr.contains("stuck"), "{ran:?}");
    assert!(sandbox.facts("d")["error"].as_str().unwrap().contains("stuck"));
    std::fs::remove_file(flag).unwrap();
    assert_eq!(sandbox.shim(&["rm", "d"]).code, Some(0));
    sandbox.assert_clean();
}

#[test]
fn stop_does_not_depend_on_the_runtime() {
    let Some(sandbox) = Sandbox::new("stop") else { return };
    let fake = sandbox.fake_runtime("[ \"$verb\" = kill ] && exit 1");
    fake.detached("s", &[], "sleep 1000");
    let ran = sandbox.shim(&["stop", "-t", "0", "s"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "s\n"), "{ran:?}");
    assert_eq!(sandbox.shim(&["wait", "s"]).stdout, "137\n");
}

/// imgtool is a program like any other: its failures are told, its mounts are given back.
#[test]
fn images_by_executing_imgtool() {
    let Some(sandbox) = Sandbox::new("images") else { return };
    let imgtool = sandbox.dir.join("imgtool");
    let log = sandbox.dir.join("imgtool.log");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {log}\ncase $1 in umount) exit 0;; esac\n\
         while [ \"${{1#img}}\" = \"$1\" ]; do shift; done\n\
         [ $1 = img-missing ] && {{ echo 'imgtool: no image img-missing' >&2; exit 1; }}\n\
         mkdir $2 && cp -r {bundle}/. $2\n",
        log = log.display(),
        bundle = sandbox.bundle().display(),
    );
    std::fs::write(&imgtool, script).unwrap();
    Command::new("chmod").arg("+x").arg(&imgtool).status().unwrap();
    sandbox.edit(|config| config["process"]["args"] = serde_json::json!(["sh", "-c", "exit 12"]));
    let run = |image: &str, command: &str| {
        let mut run = sandbox.command(&["run", "--rm", "-e", "A=b c", "--cpus=2", "--imgtool"]);
        run.arg(&imgtool).arg("--runtime").arg(&sandbox.runtime);
        Ran::from(run.args([image, "echo", command]).output().unwrap())
    };
    let ran = run("img", "--x");
    assert_eq!(ran.code, Some(12), "{ran:?}");
    let calls = std::fs::read_to_string(&log).unwrap();
    let calls: Vec<&str> = calls.lines().collect();
    assert!(calls[0].starts_with("unpack --env=A=b c --cpus=2 img "), "{calls:?}");
    assert!(calls[0].ends_with("/bundle echo --x"), "{calls:?}");
    assert!(calls[1].starts_with("umount /"), "{calls:?}");
    let ran = run("img-missing", "x");
    assert_refused(&ran, 125, "no image img-missing");
    sandbox.assert_clean();
}

#[test]
fn names_of_other_monitors_are_refused() {
    for name in ["conmon", "containerd-shim-davit-v1"] {
        let output = Command::new(SHIM).arg0(name).arg("--version").output().unwrap();
        assert_refused(&output.into(), 1, &format!("called as {name}"));
    }
}

#[test]
fn usage_errors() {
    for (args, code) in [
        (&["frobnicate"][..], 2),
        (&["ps", "--frob"], 2),
        (&["run"], 125),
        (&["run", "--frob", "x"], 125),
        (&["kill", "-s", "NOPE", "x"], 2),
    ] {
        let output = Command::new(SHIM).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn many_containers_at_once_leave_nothing() {
    let Some(sandbox) = Sandbox::new("many") else { return };
    std::thread::scope(|scope| {
        for n in 0..20 {
            let sandbox = &sandbox;
            scope.spawn(move || {
                let ran = sandbox.run(&["--rm"], &format!("exit {n}"));
                assert_eq!(ran.code, Some(n), "{ran:?}");
            });
        }
    });
    eventually("all are gone", || sandbox.shim(&["ps", "-aq"]).stdout.is_empty());
    sandbox.assert_clean();
}
