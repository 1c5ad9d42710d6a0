//! `$NOTIFY_SOCKET` (sd_notify(3)): what the program says reaches the socket of the caller.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use spec_tests::{Bundle, Case, differs, wait_until};

/// The caller's end.
struct Host {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Host {
    fn new(case: &Case) -> Host {
        let path = case.dir().join("host.sock");
        let socket = UnixDatagram::bind(&path).expect("bind a socket");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("set a timeout");
        Host { socket, path }
    }

    /// The next message; barriers, which not every runtime sends, are passed over.
    #[track_caller]
    fn hears(&self) -> String {
        loop {
            let mut text = [0u8; 4096];
            let n = self.socket.recv(&mut text).expect("a message arrives");
            let text = String::from_utf8_lossy(&text[..n]).trim().to_owned();
            if text != "BARRIER=1" {
                return text;
            }
        }
    }

    fn runtime(&self, case: &Case, verb: &str) -> Command {
        let mut command = case.command();
        command.env("NOTIFY_SOCKET", &self.path).arg(verb);
        command
    }
}

fn bundle(case: &Case) -> Bundle {
    let script = "echo $NOTIFY_SOCKET; while ! test -e /stop; do sleep 0.02; done";
    let bundle = case.bundle().writable().sh(script).mount("/run", "tmpfs", "tmpfs", &["mode=755"]);
    bundle.write();
    bundle
}

/// Says something where the program would: at its socket, by the container's own root.
#[track_caller]
fn say(case: &Case, bundle: &Bundle, text: &str) {
    let path = format!("/proc/{}/root/run/notify/notify.sock", case.pid(bundle));
    let there = || UnixDatagram::unbound().and_then(|s| s.send_to(text.as_bytes(), &path)).is_ok();
    assert!(wait_until(there), "nobody listens at {path}");
}

/// A program of any user may speak.
#[track_caller]
fn assert_open_to_all(case: &Case, bundle: &Bundle) {
    let path = format!("/proc/{}/root/run/notify/notify.sock", case.pid(bundle));
    assert!(wait_until(
        || fs::metadata(&path).is_ok_and(|found| found.permissions().mode() & 0o777 == 0o777)
    ));
}

fn running(case: &Case, bundle: &Bundle) -> bool {
    case.runtime(["state", &bundle.id]).code() == 0 && case.status(bundle) == "running"
}

fn wait(child: &mut Child) -> i32 {
    let mut status = None;
    wait_until(|| {
        status = child.try_wait().expect("look at the runtime");
        status.is_some()
    });
    let _ = child.kill();
    status.expect("the runtime returns").code().expect("an exit code")
}

#[test]
fn start_returns_when_the_program_is_ready_and_tells_its_pid() {
    let case = Case::new();
    differs!(case, ["crun"], "crun does not wait, nor tell the pid");
    let (host, bundle) = (Host::new(&case), bundle(&case));
    let mut create = host.runtime(&case, "create");
    create.arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    let created = case.outcome(create);
    created.quiet_success();
    let mut start = host.runtime(&case, "start").arg(&bundle.id).spawn().expect("start it");
    assert!(wait_until(|| created.stdout_now() == "/run/notify/notify.sock\n"));
    assert_open_to_all(&case, &bundle);
    assert!(start.try_wait().expect("look").is_none(), "start did not wait for READY");
    say(&case, &bundle, "READY=1\nMAINPID=1");
    assert_eq!(host.hears(), "READY=1");
    assert_eq!(host.hears(), format!("MAINPID={}", case.pid(&bundle)));
    assert_eq!(wait(&mut start), 0);
}

#[test]
fn a_container_that_waits_for_its_program_can_be_deleted() {
    let case = Case::new();
    differs!(case, ["crun"], "crun does not wait");
    let (host, bundle) = (Host::new(&case), bundle(&case));
    let mut create = host.runtime(&case, "create");
    create.arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    case.outcome(create).quiet_success();
    let mut start = host.runtime(&case, "start").arg(&bundle.id).spawn().expect("start it");
    assert!(wait_until(|| running(&case, &bundle)));
    case.runtime(["delete", "--force", &bundle.id]).success();
    case.assert_gone(&bundle);
    wait(&mut start);
}

#[test]
fn run_detached_returns_when_the_program_is_ready() {
    let case = Case::new();
    differs!(case, ["crun"], "crun does not tell the pid");
    let (host, bundle) = (Host::new(&case), bundle(&case));
    let mut run = host.runtime(&case, "run");
    run.args(["--detach", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
    run.stdout(std::process::Stdio::null());
    let mut run = run.spawn().expect("start it");
    assert!(wait_until(|| running(&case, &bundle)));
    say(&case, &bundle, "READY=1");
    assert_eq!(host.hears(), "READY=1");
    assert_eq!(host.hears(), format!("MAINPID={}", case.pid(&bundle)));
    assert_eq!(wait(&mut run), 0);
}

#[test]
fn run_in_the_foreground_is_the_main_process_itself() {
    let case = Case::new();
    differs!(case, ["crun", "runc"], "crun tells no pid; runc passes READY on alone");
    let (host, bundle) = (Host::new(&case), bundle(&case));
    let mut run = host.runtime(&case, "run");
    run.arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    run.stdout(std::process::Stdio::null());
    let mut run = run.spawn().expect("start it");
    assert!(wait_until(|| running(&case, &bundle)));
    say(&case, &bundle, "STATUS=half way");
    assert_eq!(host.hears(), "STATUS=half way");
    say(&case, &bundle, "READY=1");
    assert_eq!(host.hears(), "READY=1");
    assert_eq!(host.hears(), format!("MAINPID={}", run.id()));
    say(&case, &bundle, "STOPPING=1");
    assert_eq!(host.hears(), "STOPPING=1");
    fs::write(bundle.rootfs().join("stop"), "").expect("end the program");
    assert_eq!(wait(&mut run), 0);
    case.assert_gone(&bundle);
}
