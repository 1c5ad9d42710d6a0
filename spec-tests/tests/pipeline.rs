//! The four programs in a row: registry, archive and Dockerfile to store, store to bundle, bundle
//! to a supervised container, and back.

use std::fs;

use serde_json::{Value, json};
use spec_tests::image::{self, Image};
use spec_tests::registry::Registry;
use spec_tests::{Case, Tools, find_program, skip};

/// The programs with `busybox:latest` in their store, or the end of the test as skipped.
macro_rules! tools {
    ($case:expr) => {{
        let tools = match Tools::new(&$case) {
            Ok(tools) => tools,
            Err(reason) => skip!("{reason}"),
        };
        let settings = json!({ "Env": ["PATH=/bin", "FROM=image"], "Cmd": ["echo", "default"] });
        let archive = Image::busybox($case.dir(), settings)
            .write_docker_archive($case.dir(), "busybox:latest");
        tools.imgtool(&["--quiet", "load", "-i", archive.to_str().expect("UTF-8")]).success();
        tools
    }};
}

/// A registry and skopeo, or the end of the test as skipped.
macro_rules! registry {
    ($case:expr) => {{
        if let Err(reason) = find_program("skopeo") {
            skip!("{reason}");
        }
        match Registry::start($case.dir()) {
            Ok(registry) => registry,
            Err(reason) => skip!("{reason}"),
        }
    }};
}

/// The digest that the store has for an image.
#[track_caller]
fn stored_digest(tools: &Tools<'_>, image: &str) -> String {
    let list = tools.imgtool(&["ls", "--json", image]).success().json();
    let digest = list[0]["digest"].as_str().unwrap_or_else(|| panic!("no digest: {list}"));
    digest.to_owned()
}

/// The digest that skopeo sees in a registry.
#[track_caller]
fn remote_digest(tools: &Tools<'_>, image: &str) -> String {
    let outcome = tools.shell(&format!(
        "skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{image}"
    ));
    outcome.success().stdout.trim().to_owned()
}

#[test]
fn skopeo_reads_what_imgtool_pushes() {
    let case = Case::new();
    let registry = registry!(case);
    let tools = tools!(case);
    let name = format!("{}/pushed:v1", registry.address);
    tools.imgtool(&["tag", "busybox", &name]).success();
    tools.imgtool(&["--quiet", "push", &name]).success();
    let copy = "skopeo copy -q --src-tls-verify=false docker://NAME oci:out:v1 && \
                tar -xOf out/blobs/sha256/$(jq -r '.layers[0].digest[7:]' out/blobs/sha256/$(jq -r \
                '.manifests[0].digest[7:]' out/index.json)) ./etc/group";
    tools.shell(&copy.replace("NAME", &name)).success().prints_part("extra:x:2000");
    // What comes back has the digest under which it is there.
    tools.imgtool(&["rm", &name]).success();
    tools.imgtool(&["--quiet", "pull", &name]).success();
    assert_eq!(stored_digest(&tools, &name), remote_digest(&tools, &name));
}

#[test]
fn imgtool_pulls_what_skopeo_pushes() {
    let case = Case::new();
    let registry = registry!(case);
    let tools = tools!(case);
    let name = format!("{}/other:v2", registry.address);
    let push =
        format!("skopeo copy -q --dest-tls-verify=false docker-archive:image.tar docker://{name}");
    tools.shell(&push).success();
    tools.imgtool(&["--quiet", "pull", &name]).success();
    assert_eq!(stored_digest(&tools, &name), remote_digest(&tools, &name));
    tools.shim("run", &["--rm", &name]).success().prints("default");
}

#[test]
fn a_changed_blob_in_the_registry_is_refused() {
    let case = Case::new();
    let registry = registry!(case);
    let tools = tools!(case);
    let name = format!("{}/broken:v1", registry.address);
    tools.imgtool(&["tag", "busybox", &name]).success();
    tools.imgtool(&["--quiet", "push", &name]).success();
    tools.imgtool(&["rm", &name]).success();
    // One byte of every blob in the registry's own storage.
    let flip = "find registry -name data -size +100 | while read f; do \
                printf X | dd of=$f bs=1 seek=50 conv=notrunc 2>/dev/null; done";
    tools.shell(flip).success();
    let other = case.dir().join("second-store");
    let other = other.to_str().expect("UTF-8");
    let outcome = tools.imgtool(&["--store", other, "--quiet", "pull", &name]);
    outcome.exits(1).fails_with("digest");
    tools.imgtool(&["--store", other, "ls", "--json"]).success().prints("[]");
}

#[test]
fn save_pipes_into_load() {
    let case = Case::new();
    let tools = tools!(case);
    tools.shell("imgtool save busybox - | imgtool --quiet --store $S load -").success();
    let other = case.dir().join("second-store");
    let list = tools.imgtool(&["--store", other.to_str().expect("UTF-8"), "ls", "--json"]);
    let first = tools.imgtool(&["ls", "--json"]).json();
    assert_eq!(list.success().json()[0]["digest"], first[0]["digest"]);
}

#[test]
fn build_pipes_into_load() {
    let case = Case::new();
    let tools = tools!(case);
    let files = [("Dockerfile", "FROM scratch\nCOPY file /\n"), ("file", "text")];
    tools.context(&files);
    let line = "cd context; buildtool build -t piped -o type=oci,dest=- . 2>/dev/null | \
                imgtool --quiet --store $S load - >&2 && imgtool --store $S ls --json piped";
    let list = tools.shell(line).success().json();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
}

#[test]
fn ls_into_head_ends_quietly() {
    let case = Case::new();
    let tools = tools!(case);
    let outcome = tools.shell("imgtool ls --json | head -c 1");
    outcome.quiet_success().prints("[");
}

#[test]
fn an_image_becomes_a_bundle_that_any_runtime_runs() {
    let case = Case::new();
    let tools = tools!(case);
    let bundle = case.bundle_without_root();
    let dir = bundle.dir.to_str().expect("UTF-8");
    for copy in [false, true] {
        let _ = fs::remove_dir_all(&bundle.dir);
        let flags: &[&str] = if copy { &["--copy"] } else { &[] };
        let settings = ["-e", "A=b", "-u", "1000", "-w", "/tmp", "busybox", dir];
        let words = ["sh", "-c", "echo $A $FROM $PWD $(id -u)"];
        tools.imgtool(&[&["unpack"], flags, &settings, &words].concat()).success();
        let mut command = case.command();
        command.args(["run", "--bundle", dir, &bundle.id]);
        case.outcome(command).quiet_success().prints("b image /tmp 1000");
        tools.imgtool(&["umount", dir]).success();
        tools.imgtool(&["umount", dir]).success();
    }
}

#[test]
fn a_changed_bundle_becomes_a_layer_and_an_image() {
    let case = Case::new();
    let tools = tools!(case);
    let bundle = case.bundle_without_root();
    let dir = bundle.dir.to_str().expect("UTF-8");
    fs::remove_dir_all(&bundle.dir).expect("remove the bundle");
    let script = "echo made > /made; rm /etc/group";
    tools.imgtool(&["unpack", "busybox", dir, "sh", "-c", script]).success();
    let mut command = case.command();
    command.args(["run", "--bundle", dir, &bundle.id]);
    case.outcome(command).quiet_success();
    let list = tools.shell(&format!("imgtool diff {dir} | tar -t")).success().stdout.clone();
    let mut names: Vec<_> = list.lines().map(|name| name.trim_start_matches("./")).collect();
    names.retain(|name| !name.ends_with('/') && !name.is_empty());
    names.sort_unstable();
    assert_eq!(names, ["etc/.wh.group", "made"]);
    tools.imgtool(&["--quiet", "commit", dir, "changed"]).success();
    tools.imgtool(&["umount", dir]).success();
    let words = ["run", "--rm", "changed", "sh", "-c", "cat /made; ls /etc"];
    tools.shim(words[0], &words[1..]).success().prints("made\npasswd");
}

#[test]
fn shim_returns_output_and_exit_codes() {
    let case = Case::new();
    let tools = tools!(case);
    tools.shim("run", &["--rm", "busybox"]).quiet_success().prints("default");
    for code in [0, 7] {
        let script = format!("echo out; echo err >&2; exit {code}");
        let outcome = tools.shim("run", &["--rm", "busybox", "sh", "-c", &script]);
        outcome.exits(code).prints("out");
        assert_eq!(outcome.stderr, "err\n");
    }
    let script = "sh -c 'kill -KILL $$'; exit $?";
    tools.shim("run", &["--rm", "busybox", "sh", "-c", script]).exits(137);
    tools.shim("ps", &["--all", "--quiet"]).success().prints("");
}

#[test]
fn shim_keeps_what_ran_in_the_background() {
    let case = Case::new();
    let tools = tools!(case);
    let script = "echo first; echo second >&2; exit 5";
    tools.shim("run", &["-d", "--name", "job", "busybox", "sh", "-c", script]).success();
    tools.shim("wait", &["job"]).success().prints("5");
    let logs = tools.shim("logs", &["job"]);
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("first\n", "second\n"), "{logs}");
    tools.shim("rm", &["job"]).success();
    tools.shim("ps", &["--all", "--quiet"]).success().prints("");
}

#[test]
fn shim_stops_what_does_not_end() {
    let case = Case::new();
    let tools = tools!(case);
    tools.shim("run", &["-d", "--name", "job", "busybox", "sleep", "1000"]).success();
    tools.shim("ps", &[]).success().prints_part("job");
    tools.shim("stop", &["-t", "0", "job"]).success();
    tools.shim("wait", &["job"]).success().prints("137");
}

#[test]
fn a_build_runs_its_steps_and_caches_them() {
    let case = Case::new();
    let tools = tools!(case);
    let dockerfile = "FROM busybox AS build\nARG WHO=world\nRUN echo hello $WHO > /greeting\n\
                      FROM busybox\nCOPY --from=build /greeting /greeting\nUSER 1000\n\
                      CMD [\"cat\", \"/greeting\"]\n";
    let context = tools.context(&[("Dockerfile", dockerfile)]);
    let context = context.to_str().expect("UTF-8");
    let build = ["build", "-t", "greeting", "--build-arg", "WHO=there", context];
    let first = tools.buildtool(&build);
    first.success();
    let digest = stored_digest(&tools, "greeting");
    tools.shim("run", &["--rm", "greeting"]).success().prints("hello there");
    let second = tools.buildtool(&build);
    second.success();
    assert!(second.stderr.contains("CACHED"), "{second}");
    assert_eq!(stored_digest(&tools, "greeting"), digest);
    // Bit for bit the same without any cache, too.
    tools.buildtool(&[&build[..1], &["--no-cache"], &build[1..]].concat()).success();
    assert_eq!(stored_digest(&tools, "greeting"), digest);
}

#[test]
fn a_failing_step_names_its_line_and_leaves_nothing() {
    let case = Case::new();
    let tools = tools!(case);
    let dockerfile = "FROM busybox\n\nRUN exit 3\n";
    let context = tools.context(&[("Dockerfile", dockerfile)]);
    let outcome = tools.buildtool(&["build", "-t", "never", context.to_str().expect("UTF-8")]);
    assert_ne!(outcome.code(), 0, "{outcome}");
    assert!(outcome.stderr.contains("Dockerfile:3"), "{outcome}");
    tools.imgtool(&["inspect", "never"]).exits(1);
}

#[test]
fn a_debian_root_goes_through_a_registry_and_runs() {
    let case = Case::new();
    let root = match image::debian_root() {
        Ok(root) => root,
        Err(reason) => skip!("{reason}"),
    };
    let registry = registry!(case);
    let tools = tools!(case);
    let name = format!("{}/debian:bookworm", registry.address);
    let files = [("Dockerfile", "FROM scratch\nADD debian.tar /\nCMD [\"bash\"]\n")];
    let context = tools.context(&files);
    fs::copy(root, context.join("debian.tar")).expect("copy the root");
    let context = context.to_str().expect("UTF-8");
    tools.buildtool(&["build", "--quiet", "-t", &name, context]).success();
    tools.imgtool(&["--quiet", "push", &name]).success();
    let other = case.dir().join("second-store");
    let other = other.to_str().expect("UTF-8");
    tools.imgtool(&["--store", other, "--quiet", "pull", &name]).success();
    let list = tools.imgtool(&["--store", other, "ls", "--json", &name]).json();
    assert_eq!(list[0]["digest"], Value::String(remote_digest(&tools, &name)));
    let bundle = case.bundle_without_root();
    fs::remove_dir_all(&bundle.dir).expect("remove the bundle");
    let dir = bundle.dir.to_str().expect("UTF-8");
    let words = ["bash", "-c", "apt-get --version && id && cat /proc/self/status"];
    let unpack = ["--store", other, "unpack", &name, dir];
    tools.imgtool(&[unpack.as_slice(), &words].concat()).success();
    let mut command = case.command();
    command.args(["run", "--bundle", dir, &bundle.id]);
    let outcome = case.outcome(command);
    outcome.quiet_success().prints_part("apt 2.").prints_part("uid=0(root) gid=0(root)");
    assert_eq!(
        outcome.field("NSpid").split_whitespace().last(),
        outcome.field("Pid").split_whitespace().last()
    );
    tools.imgtool(&["--store", other, "umount", dir]).success();
}
