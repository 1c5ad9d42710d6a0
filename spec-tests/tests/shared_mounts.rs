//! A container in a mount namespace that others use, too: the runtime's, where `linux.namespaces` has
//! no `mount`, or one that is joined by path.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::json;
use spec_tests::{Bundle, Case, differs, runtime, user_namespace, wait_until};

/// Whose mount namespace the container is in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Runtimes,
    Joined,
}

/// Another process, in a mount namespace of its own; it ends with the test.
struct Other(Child);

impl Other {
    fn new() -> Other {
        let child = Command::new("unshare").args(["--mount", "sleep", "100"]).spawn();
        let other = Other(child.expect("run unshare"));
        let ours = namespace(std::process::id());
        assert!(wait_until(|| namespace(other.0.id()) != ours && other.comm() == "sleep"));
        other
    }

    fn comm(&self) -> String {
        let comm = fs::read_to_string(format!("/proc/{}/comm", self.0.id()));
        comm.unwrap_or_default().trim().to_owned()
    }

    fn file(&self) -> PathBuf {
        format!("/proc/{}/ns/mnt", self.0.id()).into()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.0.kill().expect("end the other process");
        self.0.wait().expect("wait for the other process");
    }
}

fn namespace(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap_or_default()
}

/// The mounts that a process sees at or below `dir`.
fn mounts(pid: u32, dir: &Path) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("read the mounts");
    let place =
        |line: &&str| line.split(' ').nth(4).is_some_and(|at| Path::new(at).starts_with(dir));
    table.lines().filter(place).map(str::to_owned).collect()
}

/// Runs `check` on a bundle of each form, with the pid of a process in its mount namespace.
fn each(mut check: impl FnMut(Form, &Case, Bundle, u32)) {
    let case = Case::new();
    check(Form::Runtimes, &case, case.bundle().without_namespace("mount"), std::process::id());
    let other = Other::new();
    let bundle = case.bundle().namespace("mount", Some(&other.file()));
    check(Form::Joined, &case, bundle, other.0.id());
}

#[test]
fn the_container_is_there_with_its_own_root_and_nothing_is_left() {
    let case = Case::new();
    differs!(
        case,
        ["runc", "crun"],
        "both leave their mounts; exec is in the host's root; runc makes every mount of the host private"
    );
    drop(case);
    each(|form, case, bundle, pid| {
        let bundle = bundle.file("/own", "the bundle's").args(["sleep", "100"]);
        case.start(&bundle);
        let init = case.pid(&bundle);
        assert_eq!(namespace(init), namespace(pid), "{form:?}");
        let root = bundle.rootfs();
        let made = mounts(pid, &bundle.dir);
        assert!(made.len() > 5 && made.len() == mounts(pid, &root).len(), "{form:?}: {made:?}");
        assert!(!made.iter().any(|line| line.contains(" shared:")), "{form:?}: {made:?}");
        let inside = |args: [&str; 2]| case.exec(&bundle, [], args).quiet_success().stdout.clone();
        assert_eq!(inside(["cat", "/own"]), "the bundle's", "{form:?}");
        assert!(case.exec(&bundle, [], ["touch", "/x"]).code() != 0, "{form:?}: read-only");
        case.runtime(["delete", "--force", &bundle.id]).quiet_success();
        assert_eq!(mounts(pid, &bundle.dir), [""; 0], "{form:?}");
        case.assert_gone(&bundle);
    });
}

#[test]
fn run_and_what_fails_leave_no_mount() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "both leave their mounts");
    drop(case);
    each(|form, case, bundle, pid| {
        let bundle = bundle.args(["cat", "/proc/self/mountinfo"]);
        let seen = case.run(&bundle).quiet_success().stdout.clone();
        let places: Vec<_> = seen.lines().filter_map(|line| line.split(' ').nth(4)).collect();
        assert!(places.contains(&"/proc") && places.contains(&"/"), "{form:?}: {seen}");
        assert_eq!(mounts(pid, &bundle.dir), [""; 0], "{form:?}: after run");
        let missing = bundle.args(["/no/such/program"]);
        assert_ne!(case.run(&missing).code(), 0);
        assert_eq!(mounts(pid, &missing.dir), [""; 0], "{form:?}: no program");
        let hook = json!([{ "path": "/bin/false" }]);
        let failing = missing.args(["true"]).set("/hooks", json!({ "createRuntime": hook }));
        assert_ne!(case.create(&failing).code(), 0);
        assert_eq!(mounts(pid, &failing.dir), [""; 0], "{form:?}: a hook that failed");
        case.assert_gone(&failing);
    });
}

#[test]
fn delete_in_the_joined_namespace_works_with_its_first_process_gone() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "both leave their mounts");
    let other = Other::new();
    let kept = case.dir().join("kept");
    fs::write(&kept, "").expect("make a file");
    // A mount namespace is not shown to others: where it lies must be private.
    let script = "mount --bind $2 $2 && mount --make-private $2 && mount --bind /proc/$1/ns/mnt $2";
    let bind = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh", &other.0.id().to_string()]).arg(&kept);
        assert!(shell.status().expect("run sh").success(), "{script}");
    };
    bind(script);
    let bundle = case.bundle().namespace("mount", Some(&kept)).args(["sleep", "100"]);
    case.start(&bundle);
    let pid = other.0.id();
    assert!(!mounts(pid, &bundle.dir).is_empty());
    // By the path no more, but by its processes.
    bind("umount $2 && umount $2");
    case.runtime(["delete", "--force", &bundle.id]).quiet_success();
    assert_eq!(mounts(pid, &bundle.dir), [""; 0]);
    // And with nobody in it there is nothing to be removed.
    let bundle = case.bundle().namespace("mount", Some(&other.file())).args(["sleep", "100"]);
    case.start(&bundle);
    drop(other);
    case.runtime(["delete", "--force", &bundle.id]).quiet_success();
    case.assert_gone(&bundle);
}

/// The host's table is shared with other namespaces, as systemd has it; a mount of the host is given
/// to the container to share.
#[test]
fn mounts_of_the_host_and_of_its_peers_stay_as_they_are() {
    let case = Case::new();
    differs!(
        case,
        ["runc", "crun"],
        "runc makes every mount of the host private; both leave theirs"
    );
    let data = case.dir().join("data");
    fs::create_dir(&data).expect("make a directory");
    let bundle = case
        .bundle()
        .without_namespace("mount")
        .writable()
        .mount("/data", "bind", data.to_str().expect("UTF-8"), &["rbind", "rshared"])
        .args(["cat", "/data/below/file"]);
    bundle.write();
    let script = r#"
        set -e
        mount -t tmpfs top "$DATA"; mkdir "$DATA/below"
        mount -t tmpfs below "$DATA/below"; echo content > "$DATA/below/file"
        mount --make-rshared /
        unshare --mount --propagation unchanged sleep 100 & peer=$!
        trap 'kill $peer' EXIT
        until [ "$(cat /proc/$peer/comm)" = sleep ]; do sleep 0.01; done
        table() { cut -d' ' -f 4,5,7- /proc/$1/mountinfo; }
        table self > "$DATA/../before"; table $peer > "$DATA/../peer"
        "$@"
        cat "$DATA/below/file"
        table self | diff "$DATA/../before" -
        table $peer | diff "$DATA/../peer" -
    "#;
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "sh", "-c", script, "sh"]).arg(runtime()).arg("--root").arg(case.root());
    shell.arg("run").arg("--bundle").arg(&bundle.dir).arg(&bundle.id).env("DATA", &data);
    case.outcome(shell).quiet_success().prints("content\ncontent");
}

#[test]
fn a_mount_that_is_not_the_containers_is_not_unmounted() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "both unmount nothing at all");
    let bundle = case.bundle().without_namespace("mount").args(["sleep", "100"]);
    case.start(&bundle);
    let root = bundle.rootfs();
    let call = |args: &[&str]| {
        assert!(Command::new(args[0]).args(&args[1..]).arg(&root).status().expect("run").success());
    };
    call(&["umount", "--lazy"]);
    call(&["mount", "-t", "tmpfs", "another"]);
    case.runtime(["delete", "--force", &bundle.id]).quiet_success();
    let left = mounts(std::process::id(), &root);
    call(&["umount"]);
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_hostile_root_leads_to_nothing_of_the_namespace() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "the host's namespace is not for them to try this in");
    drop(case);
    each(|form, case, bundle, pid| {
        let outside = case.dir().join(format!("outside-{form:?}"));
        fs::create_dir(&outside).expect("make a directory");
        fs::write(outside.join("secret"), "of the host").expect("write");
        let root = bundle.rootfs();
        symlink(&outside, root.join("away")).expect("make a link");
        symlink("../../../../../../../../../../..", root.join("up")).expect("make a link");
        let up = format!("/up{}/made", outside.display());
        let bundle = bundle
            .writable()
            .mount("/away", "tmpfs", "tmpfs", &[])
            .mount("/away/made", "tmpfs", "tmpfs", &[])
            .mount(&up, "tmpfs", "tmpfs", &[])
            .push("/linux/maskedPaths", json!("/away/secret"))
            .push("/linux/maskedPaths", json!(format!("{}/secret", outside.display())))
            .push("/linux/readonlyPaths", json!(outside))
            .push(
                "/linux/devices",
                json!({ "path": "/away/null", "type": "c", "major": 1, "minor": 3 }),
            )
            .args(["sleep", "100"]);
        case.start(&bundle);
        assert_eq!(mounts(pid, &outside), [""; 0], "{form:?}");
        let names = fs::read_dir(&outside).expect("read").count();
        assert_eq!(names, 1, "{form:?}: something was made outside");
        case.runtime(["delete", "--force", &bundle.id]).quiet_success();
        // A /proc that is a link would be mounted where the image wants it.
        let proc = root.join("proc");
        fs::remove_dir(&proc).expect("remove proc");
        symlink("away", &proc).expect("make a link");
        case.create(&bundle).fails_with("something else than a directory");
        assert_eq!(mounts(pid, &bundle.dir), [""; 0], "{form:?}");
    });
}

#[test]
fn descriptors_are_found_by_a_proc_that_is_ours() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "both leave their mounts");
    drop(case);
    each(|form, case, bundle, _| {
        let bundle = bundle.mount("/copied", "tmpfs", "tmpfs", &["tmpcopyup"]);
        let bundle =
            bundle.file("/copied/file", "from below").sh("cat /copied/file; ls -A /dev/pts");
        let outcome = case.run(&bundle);
        assert!(outcome.quiet_success().stdout.starts_with("from below"), "{form:?}: {outcome}");
    });
}

#[test]
fn what_cannot_be_there_is_refused_by_name() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "other words, or none");
    let without = || case.bundle().without_namespace("mount");
    let user = user_namespace::mapped(&case).without_namespace("mount");
    case.create(&user).fails_with("\"user\", but no \"mount\"");
    case.create(&without().set("/root/path", json!("/"))).fails_with("root.path is \"/\"");
    let slave = without().set("/linux/rootfsPropagation", json!("rslave"));
    case.create(&slave).fails_with("linux.rootfsPropagation");
    let other = Other::new();
    let mut shell = Command::new("nsenter");
    shell.arg("--target").arg(other.0.id().to_string()).args(["--mount", "mount", "-t", "tmpfs"]);
    shell.arg("cover").arg(case.dir());
    assert!(shell.status().expect("run nsenter").success(), "cover it");
    let bundle = case.bundle().namespace("mount", Some(&other.file()));
    case.create(&bundle).fails_with("must have the directory").fails_with("linux.namespaces");
    case.assert_gone(&bundle);
}

#[test]
fn the_plan_says_where_the_mounts_go() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "no other runtime has `plan`");
    each(|form, case, bundle, _| {
        bundle.write();
        let mut command = case.command();
        command.arg("plan").arg(&bundle.dir);
        let whose = if form == Form::Joined { "the joined" } else { "the runtime's" };
        let text = format!("chroot, mounted in {whose} mount namespace until delete");
        case.outcome(command).quiet_success().prints_part(&text);
    });
}
