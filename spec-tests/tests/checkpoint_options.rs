//! The options of `checkpoint` and `restore` that reach CRIU, each seen by what it changes.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use spec_tests::criu::{
    Images, assert_counts_on, assert_remembers, count, counter, counting, remembering, twin,
};
use spec_tests::{Bundle, Case, needs_criu, skip, wait_until};

/// A container with two ends of one TCP connection, on its own loopback device.
fn connected(case: &Case) -> Bundle {
    let bundle = case.bundle().writable().file(
        "talk",
        "ip link set lo up\n\
         (while :; do echo x; sleep 0.05; done) | /bin/busybox nc -l -p 4000 > /dev/null &\n\
         sleep 0.3\n\
         while :; do sleep 0.05; done | /bin/busybox nc 127.0.0.1 4000 | \
         while read line; do i=$((i+1)); (echo $i > /count); done\n\
         sleep 1000\n",
    );
    bundle.sh("exec sh /talk")
}

/// Checkpoints that fail without the flag leave the container running; with it, it comes back.
#[track_caller]
fn only_with(case: &Case, bundle: &Bundle, flag: &str) {
    let refused = Images::new(case, "refused");
    refused.checkpoint(bundle, &[]).exits(1).fails_with("dump.log");
    assert_eq!(case.status(bundle), "running");
    Images::new(case, "images").round_trip(bundle, &[flag]);
}

#[test]
fn tcp_connections_are_saved_when_asked() {
    let case = Case::new();
    needs_criu!(case);
    let bundle = connected(&case);
    case.start(&bundle);
    assert!(count(&bundle) > 0, "the two are not connected");
    only_with(&case, &bundle, "--tcp-established");
    assert_counts_on(&bundle, count(&bundle));
}

#[test]
fn tcp_connections_are_closed_when_asked() {
    let case = Case::new();
    needs_criu!(case);
    let bundle = connected(&case);
    case.start(&bundle);
    assert!(count(&bundle) > 0, "the two are not connected");
    let images = Images::new(&case, "images");
    images.checkpoint(&bundle, &["--tcp-established"]).quiet_success();
    images.restore(&bundle, &["--detach", "--tcp-close"]).quiet_success();
    let after = count(&bundle);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(count(&bundle), after, "the connection lives");
}

#[test]
fn a_file_of_options_is_read() {
    let case = Case::new();
    needs_criu!(case);
    let file = case.dir().join("criu.conf");
    fs::write(&file, "tcp-established\n").expect("write a file of options");
    let bundle = connected(&case);
    let bundle = bundle.set("/annotations/org.criu.config", file.to_str().expect("UTF-8"));
    case.start(&bundle);
    assert!(count(&bundle) > 0, "the two are not connected");
    Images::new(&case, "images").round_trip(&bundle, &[]);
}

#[test]
fn file_locks_are_saved_when_asked() {
    let case = Case::new();
    needs_criu!(case);
    // busybox has no flock: the host's. The shell keeps the descriptor, and with it the lock.
    let script = "exec 5> /lock; /usr/bin/flock 5; echo 1 > /count; sleep 1000; true";
    let bundle = case.bundle().writable().sh(script).mount("/usr", "bind", "/usr", &["bind", "ro"]);
    for name in ["lib", "lib64"] {
        symlink(format!("usr/{name}"), bundle.rootfs().join(name)).expect("make a link");
    }
    case.start(&bundle);
    assert_eq!(count(&bundle), 1);
    only_with(&case, &bundle, "--file-locks");
    let taken = case.exec(&bundle, [], ["/usr/bin/flock", "-n", "/lock", "true"]);
    assert!(taken.code() != 0, "the lock is free: {taken}");
}

#[test]
fn a_file_that_has_lost_its_name_is_saved_when_asked() {
    let case = Case::new();
    needs_criu!(case);
    let script = "echo text > /a; exec 3< /a; ln /a /b; rm /a; echo 1 > /count; \
                  while test ! -e /root/go; do sleep 0.05; done; cat <&3 > /read; sleep 1000";
    let bundle = case.bundle().writable().sh(script);
    case.start(&bundle);
    assert_eq!(count(&bundle), 1);
    let refused = Images::new(&case, "refused");
    refused.checkpoint(&bundle, &[]).exits(1).fails_with("dump.log");
    assert_eq!(case.status(&bundle), "running");
    Images::new(&case, "images").there_and_back(&bundle, &["--link-remap"], &[]);
    fs::write(bundle.rootfs().join("root/go"), "").expect("let it go on");
    let read = || fs::read_to_string(bundle.rootfs().join("read")).unwrap_or_default();
    assert!(wait_until(|| read() == "text\n"), "it read {:?}", read());
}

#[test]
fn a_session_of_the_callers_is_saved_when_asked() {
    let case = Case::new();
    needs_criu!(case);
    let bundle = counter(&case);
    case.start(&bundle);
    let before = count(&bundle);
    Images::new(&case, "images").round_trip(&bundle, &["--shell-job", "--ext-unix-sk"]);
    assert_counts_on(&bundle, before);
}

#[test]
fn memory_that_was_dumped_before_is_not_dumped_again() {
    let case = Case::new();
    needs_criu!(case);
    let bundle = remembering(&case);
    case.start(&bundle);
    assert!(count(&bundle) > 0);
    let first = Images::new(&case, "first");
    if first.checkpoint(&bundle, &["--pre-dump"]).stderr.contains("this kernel cannot") {
        first.checkpoint(&bundle, &["--pre-dump"]).fails_with("--pre-dump: criu says");
        let second = Images::new(&case, "second");
        second.checkpoint(&bundle, &["--parent-path", "."]).fails_with("--parent-path: criu says");
        assert_eq!(case.status(&bundle), "running");
        skip!("this kernel does not track changes of memory (it was refused by name)");
    }
    assert_eq!(case.status(&bundle), "running");
    assert!(first.pages() > 1 << 20, "{} bytes", first.pages());
    assert_counts_on(&bundle, count(&bundle));
    let second = Images::new(&case, "second");
    let flags = ["--parent-path", "../first", "--auto-dedup"];
    second.checkpoint(&bundle, &flags).quiet_success();
    assert!(second.pages() < 768 << 10, "{} bytes", second.pages());
    case.assert_gone(&bundle);
    let before = count(&bundle);
    second.restore(&bundle, &["--detach"]).quiet_success();
    assert_counts_on(&bundle, before);
    assert_remembers(&bundle);
}

#[test]
fn a_parent_that_is_not_there_is_refused() {
    let case = Case::new();
    needs_criu!(case);
    let (bundle, images) = counting(&case);
    let outcome = images.checkpoint(&bundle, &["--parent-path", "../nowhere"]);
    outcome.exits(1).fails_with("--parent-path");
    assert_counts_on(&bundle, count(&bundle));
}

#[test]
fn the_log_goes_where_it_is_asked_for() {
    let case = Case::new();
    needs_criu!(case);
    let bundle = counter(&case);
    case.start(&bundle);
    let work = case.dir().join("work");
    let images = Images::new(&case, "images");
    images.round_trip(&bundle, &["--work-path", work.to_str().expect("UTF-8")]);
    assert!(work.join("dump.log").exists() && work.join("restore.log").exists());
    assert!(!images.dir.join("dump.log").exists());
}

#[test]
fn cgroups_can_be_left_alone() {
    let case = Case::new();
    needs_criu!(case);
    for mode in ["ignore", "soft"] {
        let bundle = counter(&case);
        case.start(&bundle);
        let before = count(&bundle);
        Images::new(&case, mode).round_trip(&bundle, &["--manage-cgroups-mode", mode]);
        assert_counts_on(&bundle, before);
        let dir = spec_tests::cgroup::dir_of(case.pid(&bundle), "pids");
        assert!(dir.ends_with(&bundle.id), "{mode}: it is in {}", dir.display());
    }
}

#[test]
fn a_network_namespace_can_be_left_empty() {
    let case = Case::new();
    needs_criu!(case);
    let bundle = counter(&case);
    case.start(&bundle);
    let add = "ip link add name dummy0 type dummy 2>/dev/null; ip addr add 127.9.9.9/8 dev lo";
    let pid = case.pid(&bundle).to_string();
    let mut command = Command::new("nsenter");
    command.args(["-n", "-t", &pid, "sh", "-c", add]);
    case.outcome(command).success();
    let images = Images::new(&case, "images");
    images.round_trip(&bundle, &["--empty-ns", "network"]);
    let shown = case.exec(&bundle, [], ["ip", "addr"]);
    assert!(!shown.stdout.contains("127.9.9.9"), "{shown}");
}

#[test]
fn pages_go_to_a_page_server() {
    let case = Case::new();
    needs_criu!(case);
    let bundle = remembering(&case);
    case.start(&bundle);
    assert!(count(&bundle) > 0);
    let images = Images::new(&case, "images");
    fs::create_dir(&images.dir).expect("make the directory");
    let port = free_port();
    let dir = images.dir.to_str().expect("UTF-8");
    let server =
        Server::start(&["page-server", "-D", dir, "--port", &port, "-v4", "-o", "server.log"]);
    let ready = || fs::read_to_string(images.dir.join("server.log")).unwrap_or_default();
    assert!(wait_until(|| ready().contains("Starting page server")), "{}", ready());
    let address = format!("127.0.0.1:{port}");
    images.checkpoint(&bundle, &["--page-server", &address]).quiet_success();
    server.finish();
    let before = count(&bundle);
    assert!(images.pages() > 1 << 20, "the server has got {} bytes", images.pages());
    images.restore(&bundle, &["--detach"]).quiet_success();
    assert_counts_on(&bundle, before);
    assert_remembers(&bundle);
}

#[test]
fn lazy_pages_are_fetched_when_they_are_touched() {
    let case = Case::new();
    needs_criu!(case);
    let bundle = remembering(&case);
    case.start(&bundle);
    assert!(count(&bundle) > 0);
    let images = Images::new(&case, "images");
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let (mut reader, writer) = std::io::pipe().expect("make a pipe");
    rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty()).expect("keep it open");
    let mut command = case.command();
    command.args(["checkpoint", "--lazy-pages", "--page-server", &address, "--status-fd"]);
    command.arg(writer.as_raw_fd().to_string());
    command.arg("--image-path").arg(&images.dir).arg(&bundle.id);
    let stderr = fs::File::create(case.dir().join("lazy.err")).expect("make a file");
    let mut dump = command.stderr(stderr).spawn().expect("start the checkpoint");
    drop(writer);
    if reader.read(&mut [0u8; 1]).expect("read the status") == 0 {
        let _ = dump.wait();
        let said = fs::read_to_string(case.dir().join("lazy.err")).expect("read the error");
        assert!(said.contains("--lazy-pages: criu says"), "{said}");
        assert_eq!(case.status(&bundle), "running");
        skip!("this kernel cannot fetch pages when they are touched (it was refused by name)");
    }
    let before = count(&bundle);
    let dir = images.dir.to_str().expect("UTF-8");
    let lazy = ["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", &port];
    let server = Server::start(&[&lazy[..], &["-D", dir, "-W", dir, "-o", "lazy.log"]].concat());
    assert!(wait_until(|| images.dir.join("lazy-pages.socket").exists()), "no socket");
    // The first one still serves its pages, so that the container has another name here.
    let other = twin(&case, &bundle);
    let flags = ["--detach", "--lazy-pages", "--work-path", dir];
    images.restore(&other, &flags).quiet_success();
    assert_counts_on(&bundle, before);
    assert_remembers(&bundle);
    assert!(dump.wait().expect("wait for the checkpoint").success());
    server.finish();
    case.assert_gone(&bundle);
}

/// A criu that serves.
struct Server(Child);

impl Server {
    fn start(args: &[&str]) -> Server {
        let mut command = Command::new("criu");
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Server(command.spawn().expect("start criu"))
    }

    #[track_caller]
    fn finish(mut self) {
        let mut ended = None;
        wait_until(|| {
            ended = self.0.try_wait().expect("wait for criu");
            ended.is_some()
        });
        assert!(ended.is_some_and(|status| status.success()), "criu: {ended:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port of the loopback device that nobody uses now.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a port");
    listener.local_addr().expect("an address").port().to_string()
}
