//! Attacks that runtimes have fallen to: a hostile root, image or configuration tries each, and the
//! test looks at what the attacker did *not* get. The names are those of the CVEs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use spec_tests::console::{ConsoleSocket, read_all};
use spec_tests::{Bundle, Case, differs, runtime, skip};

/// A directory of the host that no container may reach.
fn outside(case: &Case) -> PathBuf {
    let dir = case.dir().join("outside");
    fs::create_dir(&dir).expect("make a directory outside");
    fs::write(dir.join("secret"), "of the host").expect("write");
    dir
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("read a directory").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// A bundle without a file system of its own at /dev: the image's /dev is what counts.
fn without_dev_mount(case: &Case) -> Bundle {
    let mut bundle = case.bundle().writable();
    let mounts = bundle.config["mounts"].as_array_mut().expect("an array");
    mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|d| d.starts_with("/dev")));
    bundle
}

#[test]
fn cve_2019_5736_the_runtimes_program_stays_as_it_is() {
    let case = Case::new();
    // A private copy is attacked, lest a runtime that falls for it breaks the machine.
    let program = case.dir().join("victim");
    fs::copy(runtime(), &program).expect("copy the runtime");
    let before = fs::read(&program).expect("read the copy");
    let bundle = case
        .bundle()
        .file("/bin/evil", "#!/proc/self/exe\n")
        .capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"])
        // Whatever executes here is opened for writing as soon as its owner lets go of it.
        .sh("while :; do for p in /proc/[0-9]*; do \
             [ $p = /proc/1 ] || { echo EVIL > $p/exe; } 2>/dev/null; done; done");
    let evil = bundle.rootfs().join("bin/evil");
    fs::set_permissions(evil, fs::Permissions::from_mode(0o755)).expect("chmod");
    bundle.write();
    let call = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("--root").arg(case.root()).args(args).stdin(std::process::Stdio::null());
        case.outcome(command)
    };
    let dir = bundle.dir.to_str().expect("UTF-8");
    call(&["run", "--detach", "--bundle", dir, &bundle.id]).success();
    for _ in 0..10 {
        for entry in ["/proc/self/exe", "/bin/evil"] {
            // How it ends does not matter; nothing of what it reads may be the attacker's.
            call(&["exec", &bundle.id, entry]);
        }
    }
    call(&["delete", "--force", &bundle.id]).success();
    assert!(fs::read(&program).expect("read the copy") == before, "the runtime was overwritten");
}

/// Words that make the runtime, executed inside as /proc/self/exe, wait at a FIFO of the image.
const WAIT: [&str; 4] = ["--log", "/tmp/gate", "state", "nobody"];

/// Holds on to the program of every process that is not the image's, lets it end, and then writes.
const HOLD_AND_WRITE: &str = "while :; do for p in /proc/[0-9]*; do \
     case \"$(readlink $p/exe 2>/dev/null)\" in ''|*busybox*) continue;; esac; \
     test -r $p/exe || continue; exec 9<$p/exe; echo caught $p; \
     cat /tmp/gate >/dev/null; i=0; \
     while [ $i -lt 30 ]; do i=$((i+1)); sleep 0.02; \
     { echo EVIL >/proc/self/fd/9; } 2>/dev/null && echo overwritten && break; done; \
     exec 9<&-; echo let go; done; done";

#[test]
fn cve_2019_5736_a_program_that_is_held_open_stays_as_it_is() {
    let case = Case::new();
    let program = case.dir().join("victim");
    fs::copy(runtime(), &program).expect("copy the runtime");
    let before = fs::read(&program).expect("read the copy");
    let attacker = case.bundle().writable().sh(HOLD_AND_WRITE);
    mkfifo(&attacker.rootfs().join("tmp/gate"));
    let shebang = attacker.rootfs().join("bin/evil");
    fs::write(&shebang, "#!/proc/self/exe --root\n").expect("write");
    fs::set_permissions(&shebang, fs::Permissions::from_mode(0o755)).expect("chmod");
    attacker.write();
    let call = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("--root").arg(case.root()).args(args).stdin(std::process::Stdio::null());
        case.outcome(command)
    };
    let dir = attacker.dir.to_str().expect("UTF-8");
    let started = call(&["run", "--detach", "--bundle", dir, &attacker.id]);
    started.success();
    // While another copy runs, nobody can write to it: let the attacker finish.
    let finish = || {
        let count = |text: &str| started.stdout_now().matches(text).count();
        spec_tests::wait_until(|| count("caught") == count("let go"));
    };
    for entry in ["/proc/self/exe", "/bin/evil"] {
        call(&[&["exec", &attacker.id, entry], &WAIT[..]].concat());
        finish();
    }
    // A first process is the runtime for a while, too; here it is seen by its neighbour.
    let pid = case.pid(&attacker);
    let mut second = case.bundle().namespace("pid", Some(format!("/proc/{pid}/ns/pid").as_ref()));
    second.config["process"]["args"] = json!([&["/proc/self/exe"], &WAIT[..]].concat());
    second.config["root"]["path"] = json!(attacker.rootfs());
    second.write();
    let dir = second.dir.to_str().expect("UTF-8");
    call(&["run", "--bundle", dir, &second.id]);
    finish();
    call(&["delete", "--force", &attacker.id]).success();
    let seen = started.stdout_now();
    assert!(!seen.contains("overwritten"), "{seen}");
    assert!(fs::read(&program).expect("read the copy") == before, "the runtime was overwritten");
    // The program of the others is seen by another name, or not at all.
    let ours = !case.runtime_is("runc") && !case.runtime_is("crun");
    assert!(!ours || seen.contains("caught"), "nothing was attacked: {seen}");
}

fn mkfifo(path: &std::path::Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)
        .expect("make a FIFO");
}

/// The runtime as a shell starts it that has a directory open as descriptor `fd`.
fn with_open(case: &Case, fd: u32, dir: &std::path::Path, args: &[&str]) -> spec_tests::Outcome {
    let mut command = Command::new("sh");
    let script = format!("exec {fd}<\"$0\"; exec \"$@\"");
    command.arg("-c").arg(script).arg(dir).arg(runtime()).arg("--root").arg(case.root());
    command.args(args).stdin(std::process::Stdio::null());
    case.outcome(command)
}

#[test]
fn cve_2024_21626_a_descriptor_of_the_callers_leaks_to_nobody() {
    let case = Case::new();
    let dir = outside(&case);
    let inside = "cat /proc/self/fd/7/secret; ls /proc/self/fd/7/";
    let bundle = case.bundle().sh(inside);
    bundle.write();
    let at = bundle.dir.to_str().expect("UTF-8");
    let outcome = with_open(&case, 7, &dir, &["run", "--bundle", at, &bundle.id]);
    assert!(!outcome.stdout.contains("secret") && !outcome.stdout.contains("host"), "{outcome}");
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    let outcome = with_open(&case, 7, &dir, &["exec", &bundle.id, "sh", "-c", inside]);
    assert!(!outcome.stdout.contains("secret") && !outcome.stdout.contains("host"), "{outcome}");
}

#[test]
fn cve_2024_21626_a_descriptor_that_is_passed_on_is_no_working_directory() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 works there");
    let dir = outside(&case);
    let cwd = "/proc/self/fd/3";
    let bundle = case.bundle().set("/process/cwd", cwd).args(["cat", "secret"]);
    bundle.write();
    let at = bundle.dir.to_str().expect("UTF-8");
    let flags = ["run", "--preserve-fds", "1", "--bundle", at, &bundle.id];
    let outcome = with_open(&case, 3, &dir, &flags);
    assert!(!outcome.stdout.contains("of the host"), "{outcome}");
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    let flags = ["exec", "--preserve-fds", "1", "--cwd", cwd, &bundle.id, "cat", "secret"];
    let outcome = with_open(&case, 3, &dir, &flags);
    assert!(!outcome.stdout.contains("of the host"), "exec: {outcome}");
}

#[test]
fn cve_2024_21626_no_working_directory_outside() {
    let case = Case::new();
    let dir = outside(&case);
    let marker = format!("../../../../../../../../..{}/secret", dir.display());
    for fd in 3..16 {
        let bundle =
            case.bundle().set("/process/cwd", format!("/proc/self/fd/{fd}")).args(["cat", &marker]);
        let outcome = case.run(&bundle);
        assert!(!outcome.stdout.contains("of the host"), "descriptor {fd}: {outcome}");
    }
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    for fd in 3..16 {
        let cwd = format!("/proc/self/fd/{fd}");
        let outcome = case.exec(&bundle, ["--cwd", &cwd], ["cat", &marker]);
        assert!(!outcome.stdout.contains("of the host"), "exec, descriptor {fd}: {outcome}");
    }
}

#[test]
fn cve_2026_41579_a_dev_that_is_a_link_leads_nowhere() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "the versions before that CVE make devices on the host");
    let dir = outside(&case);
    let bundle = without_dev_mount(&case).args(["true"]);
    fs::remove_dir(bundle.rootfs().join("dev")).expect("remove dev");
    symlink(&dir, bundle.rootfs().join("dev")).expect("make the link");
    case.run(&bundle);
    assert_eq!(names(&dir), ["secret"], "something was made outside");
}

#[test]
fn a_device_below_a_link_stays_inside() {
    let case = Case::new();
    let dir = outside(&case);
    let bundle = case.bundle().writable().push(
        "/linux/devices",
        json!({ "path": "/link/node", "type": "c", "major": 1, "minor": 3, "fileMode": 438 }),
    );
    symlink(&dir, bundle.rootfs().join("link")).expect("make the link");
    case.run(&bundle);
    assert_eq!(names(&dir), ["secret"], "a device was made outside");
}

#[test]
fn cve_2021_30465_a_mount_target_that_is_swapped_meanwhile_stays_inside() {
    let case = Case::new();
    differs!(case, ["runc"], "runc 1.1 makes mount points where the link leads");
    let dir = outside(&case);
    let bundle = case.bundle().writable().mount("/swap/inner", "tmpfs", "tmpfs", &["size=1m"]);
    // Many, since each gives the attacker a moment of microseconds.
    let below: Vec<String> = (0..40).map(|n| format!("below-{n}")).collect();
    let bundle = below.iter().fold(bundle, |bundle, name| {
        bundle.mount(&format!("/swap/{name}/file"), "bind", "/etc/hostname", &["bind"])
    });
    let (a, b) = (bundle.rootfs().join("swap"), bundle.rootfs().join("link"));
    fs::create_dir(&a).expect("make a directory");
    symlink(&dir, &b).expect("make the link");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A directory for the check, a link for the use.
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            while !done.load(Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(rustix::fs::CWD, &a, rustix::fs::CWD, &b, flags);
            }
        });
        for _ in 0..60 {
            // Whether it succeeds is chance; the mount points are to be made anew each time.
            case.run(&bundle);
            if names(&dir) != ["secret"] {
                break;
            }
            for name in below.iter().map(String::as_str).chain(["inner"]) {
                let _ = fs::remove_dir_all(a.join(name));
                let _ = fs::remove_dir_all(b.join(name));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(names(&dir), ["secret"], "something was made outside");
}

#[test]
fn cve_2019_19921_a_proc_that_is_a_link_is_refused() {
    let case = Case::new();
    for (name, place) in [("proc", "tmp"), ("sys", "tmp")] {
        let bundle = case.bundle().writable().args(["cat", &format!("/{place}/cpuinfo")]);
        fs::remove_dir(bundle.rootfs().join(name)).expect("remove it");
        symlink(place, bundle.rootfs().join(name)).expect("make the link");
        let outcome = case.run(&bundle);
        assert_ne!(outcome.code(), 0, "{name} lies where the image wants it: {outcome}");
        case.assert_gone(&bundle);
    }
}

#[test]
fn a_mount_target_below_a_link_stays_inside() {
    let case = Case::new();
    let dir = outside(&case);
    let bundle = case.bundle().writable().mount("/link/inner", "tmpfs", "tmpfs", &["size=1m"]);
    symlink(&dir, bundle.rootfs().join("link")).expect("make the link");
    case.run(&bundle.sh("touch /link/inner/file"));
    assert_eq!(names(&dir), ["secret"], "something was made outside");
}

#[test]
fn cve_2024_45310_a_target_with_dots_stays_inside() {
    let case = Case::new();
    let dir = outside(&case);
    let target = format!("/a/../../../../../../..{}/made", dir.display());
    let bundle = case.bundle().writable().mount(&target, "tmpfs", "tmpfs", &["size=1m"]);
    // And dots that are found on the way only, to what the first mount has not made inside.
    let dots = format!("../../../../../../..{}", dir.display());
    symlink(dots, bundle.rootfs().join("up")).expect("make the link");
    let bundle = bundle.mount("/up/too", "tmpfs", "tmpfs", &["size=1m"]);
    case.run(&bundle);
    assert_eq!(names(&dir), ["secret"], "something was made outside");
}

#[test]
fn cve_2025_31133_a_null_device_that_is_none_masks_nothing_else() {
    let case = Case::new();
    differs!(case, ["runc"], "runc before 1.2.8 binds whatever is at /dev/null");
    // A /dev of the image's own: there the runtime makes no devices.
    let dev = case.dir().join("dev");
    fs::create_dir(&dev).expect("make a directory");
    fs::write(dev.join("null"), "the attacker's").expect("write");
    let mut bundle = without_dev_mount(&case);
    let mounts = bundle.config["mounts"].as_array_mut().expect("an array");
    let source = dev.to_str().expect("UTF-8");
    let dev_mount = json!({ "destination": "/dev", "type": "bind", "source": source,
                            "options": ["rbind", "rw"] });
    mounts.insert(0, dev_mount);
    let bundle = bundle
        .file("/etc/masked", "to be hidden")
        .push("/linux/maskedPaths", "/etc/masked")
        .sh("cat /etc/masked; echo attack > /etc/masked");
    let outcome = case.run(&bundle);
    assert!(!outcome.stdout.contains("hidden"), "{outcome}");
    assert!(!outcome.stdout.contains("attacker"), "{outcome}");
    let null = fs::read_to_string(dev.join("null")).expect("read");
    assert_eq!(null, "the attacker's", "written through the mask");
}

#[test]
fn a_device_that_the_image_has_put_there_is_refused() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "they take what is there");
    let bundle = without_dev_mount(&case).file("/dev/zero", "no device");
    let outcome = case.run(&bundle.args(["cat", "/dev/zero"]));
    assert!(!outcome.stdout.contains("no device"), "{outcome}");
}

/// A devpts on the host; unmounted when it goes out of scope.
struct Devpts(PathBuf);

impl Devpts {
    fn mount(case: &Case) -> Option<Devpts> {
        let dir = case.dir().join("pts");
        fs::create_dir(&dir).expect("make a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "devpts", "-o", "newinstance,ptmxmode=0666", "devpts"]).arg(&dir);
        mount.status().is_ok_and(|status| status.success()).then_some(Devpts(dir))
    }

    fn shared_by(&self, mut bundle: Bundle) -> Bundle {
        let mounts = bundle.config["mounts"].as_array_mut().expect("an array");
        let of_pts = |mount: &&mut serde_json::Value| mount["destination"] == "/dev/pts";
        let pts = mounts.iter_mut().find(of_pts).expect("devpts");
        *pts = json!({ "destination": "/dev/pts", "type": "bind", "source": self.0,
                       "options": ["bind", "rw"] });
        bundle.set("/process/terminal", true)
    }
}

impl Drop for Devpts {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn cve_2025_52565_the_terminal_is_the_one_that_was_made() {
    let case = Case::new();
    // The attacker's terminal is number 0 of a devpts that both share.
    let Some(pts) = Devpts::mount(&case) else { skip!("devpts cannot be mounted here") };
    let socket = ConsoleSocket::bind(case.dir());
    let attacker = pts.shared_by(case.bundle()).args(["sleep", "100"]);
    case.on_bundle("create", &attacker, ["--console-socket", socket.path()]).success();
    let first = socket.accept();
    case.runtime(["start", &attacker.id]).success();
    let dir = case.dir().join("victim");
    fs::create_dir(&dir).expect("make a directory");
    let socket = ConsoleSocket::bind(&dir);
    let victim = pts.shared_by(case.bundle()).sh("echo from the victim");
    case.on_bundle("create", &victim, ["--console-socket", socket.path()]).success();
    let second = socket.accept();
    case.runtime(["start", &victim.id]).success();
    assert_eq!(read_all(second).trim(), "from the victim");
    case.runtime(["delete", "--force", &attacker.id]).success();
    let leaked = read_all(first);
    assert!(!leaked.contains("victim"), "the attacker's terminal shows: {leaked}");
}

#[test]
fn cve_2023_25809_the_hosts_cgroups_are_not_for_a_user_namespace_to_change() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "they protect them only where the caller is not root");
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    let mapped = || {
        let bundle = case.bundle().namespace("user", None);
        bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map.clone())
    };
    let top = case.cgroups_path("").trim_end_matches('/').to_owned();
    // Groups alone: a tmpfs that is the container's own may be written to.
    let script = format!(
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do [ -e $d/cgroup.procs ] || continue; \
         for g in $d $d{top}; do mkdir $g/evil 2>/dev/null && rmdir $g/evil && echo made $g; \
         done; done; true"
    );
    // Its own groups without a namespace, and all of the host's.
    let mut own = mapped().sh(&script);
    let mut all = mapped().sh(&script);
    for mount in own.config["mounts"].as_array_mut().expect("an array") {
        if mount["destination"] == "/sys/fs/cgroup" {
            mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
        }
    }
    let mounts = all.config["mounts"].as_array_mut().expect("an array");
    mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    for mount in mounts.iter_mut().filter(|mount| mount["destination"] == "/sys") {
        *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                         "options": ["rbind", "rw"] });
    }
    for bundle in [own, all] {
        case.run(&bundle).success().prints("");
    }
}

#[test]
fn crun_2026_30892_a_user_is_a_number_and_nothing_else() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "runc 1.1 takes 2^32 for 0, crun 1.8 takes 2^32-1");
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    for user in ["4294967295", "4294967296", "1000:", ":1000", "-1", "+0", " 0", "0x0", "root:0"] {
        let outcome = case.exec(&bundle, ["--user", user], ["id", "-u"]);
        assert!(outcome.stdout.trim() != "0", "--user {user:?} is root: {outcome}");
    }
    let bundle = case.bundle().set("/process/user/uid", u32::MAX).args(["id", "-u"]);
    let outcome = case.run(&bundle);
    assert!(outcome.stdout.trim() != "0", "{outcome}");
}

#[test]
fn crun_2025_24965_no_handler_writes_its_configuration_through_a_link() {
    let case = Case::new();
    let dir = outside(&case);
    let bundle = case
        .bundle()
        .writable()
        .set("/annotations", json!({ "run.oci.handler": "krun" }))
        .args(["true"]);
    // Where krun's configuration goes in a root file system.
    symlink(dir.join("made"), bundle.rootfs().join(".krun_config.json")).expect("make the link");
    let outcome = case.run(&bundle);
    assert_eq!(names(&dir), ["secret"], "something was made outside");
    if !case.runtime_is("runc") && !case.runtime_is("crun") {
        outcome.fails_with("run.oci.handler");
    }
}

#[test]
fn an_id_is_no_path() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 takes slashes");
    let bundle = case.bundle().args(["true"]);
    bundle.write();
    let at = bundle.dir.to_str().expect("UTF-8");
    for id in ["../evil", "a/../../evil", "/evil", "..", ".", "a\nb"] {
        let outcome = case.runtime(["create", "--bundle", at, id]);
        if outcome.code() == 0 {
            case.runtime(["delete", "--force", id]);
        }
        assert_ne!(outcome.code(), 0, "{id}: {outcome}");
        assert!(!case.dir().join("evil").exists(), "{id}");
    }
}

#[test]
fn a_cgroup_path_does_not_climb() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "they take what is left of the path without its dots");
    let above = format!("{}/../../{}", case.cgroups_path("x"), "davit-climbed");
    let bundle = case.bundle().set("/linux/cgroupsPath", above).args(["true"]);
    case.run(&bundle).fails_with("cgroupsPath");
    case.assert_gone(&bundle);
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    let outcome = case.exec(&bundle, ["--cgroup", "../.."], ["cat", "/proc/self/cgroup"]);
    assert_ne!(outcome.code(), 0, "{outcome}");
}

#[test]
fn cve_2019_19921_proc_is_no_place_for_mounts() {
    let case = Case::new();
    differs!(case, ["crun"], "crun 1.8 mounts anywhere");
    let dir = outside(&case);
    let source = dir.to_str().expect("UTF-8");
    for target in ["/proc/sys", "/proc/self/attr", "/proc/1"] {
        let bundle = case.bundle().mount(target, "bind", source, &["bind"]);
        let outcome = case.run(&bundle);
        assert_ne!(outcome.code(), 0, "{target}: {outcome}");
        case.assert_gone(&bundle);
    }
}

#[test]
fn cve_2019_16884_proc_that_is_no_procfs_is_refused() {
    let case = Case::new();
    differs!(case, ["runc"], "runc 1.1 writes kernel parameters to the image's /proc");
    // A directory of the image with files of the names that a runtime writes to.
    let mut bundle = case.bundle().writable().file("/proc/sys/net/ipv4/ip_forward", "");
    let mounts = bundle.config["mounts"].as_array_mut().expect("an array");
    mounts.retain(|mount| mount["destination"] != "/proc");
    let bundle = bundle.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    case.run(&bundle.args(["true"]));
    let text = bundle_file(&case, "proc/sys/net/ipv4/ip_forward");
    assert_eq!(text, "", "the sysctl went into the image's own file");
}

/// A file of the first bundle's root.
fn bundle_file(case: &Case, path: &str) -> String {
    let name = case.dir().file_name().expect("a name").to_string_lossy().into_owned();
    let root = case.dir().join(format!("{name}-0/rootfs"));
    fs::read_to_string(root.join(path)).expect("read a file of the root")
}

#[test]
fn cve_2016_9962_the_runtime_cannot_be_traced_from_inside() {
    let case = Case::new();
    // While exec enters, every process inside tries to read the newcomer's descriptors.
    let bundle = case.bundle().capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]).sh(
        "echo up; while :; do for p in /proc/[0-9]*; do for f in $p/fd/*; do \
         case $(readlink $f) in ''|/dev*|pipe:*) ;; *) readlink $f;; esac; \
         done; done; done 2>/dev/null",
    );
    let started = case.start(&bundle);
    assert!(spec_tests::wait_until(|| started.stdout_now().contains("up")));
    for _ in 0..10 {
        case.exec(&bundle, [], ["true"]).success();
    }
    let seen = started.stdout_now();
    let root = case.root().display().to_string();
    let leaked = seen.lines().find(|line| line.contains(&root));
    assert_eq!(leaked, None, "a descriptor of the runtime's state was seen inside");
}

#[test]
fn cve_2022_29162_no_inheritable_capabilities() {
    let case = Case::new();
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    let flags = ["--cap", "CAP_NET_RAW"];
    let outcome = case.exec(&bundle, flags, ["cat", "/proc/self/status"]);
    if outcome.code() != 0 {
        skip!("exec --cap beyond the bounding set is refused");
    }
    assert_eq!(outcome.field("CapInh"), "0000000000000000");
}
