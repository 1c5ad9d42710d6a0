//! Real builds with real containers. They need root, runc and a static busybox; without these a
//! test says what is missing and passes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const BUILDTOOL: &str = env!("CARGO_BIN_EXE_buildtool");

/// A store with the image `base` (busybox), and a build context.
struct Bench {
    root: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Bench {
    /// `None`, and a line that says why, where containers cannot run.
    fn new(test: &str) -> Option<Self> {
        let present = |program: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|directory| directory.join(program).exists())
        };
        let root = fs::metadata("/proc/self")
            .is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
        let needed = [
            ("root", root),
            ("runc", present("runc")),
            ("/bin/busybox", Path::new("/bin/busybox").exists()),
        ];
        if let Some((missing, _)) = needed.iter().find(|(_, there)| !there) {
            eprintln!("skipped {test}: it needs {missing}");
            return None;
        }
        let bench = Self {
            root: std::env::temp_dir().join(format!("buildtool-{}-{test}", std::process::id())),
        };
        let _ = fs::remove_dir_all(&bench.root);
        bench.file("base/Dockerfile", "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n");
        fs::copy("/bin/busybox", bench.root.join("base/busybox")).unwrap();
        fs::create_dir_all(bench.root.join("ctx")).unwrap();
        assert!(bench.build_in("base", &["-t", "base"]).status.success());
        Some(bench)
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn command(&self, context: &str, args: &[&str]) -> Command {
        let mut command = Command::new(BUILDTOOL);
        command.arg("--store").arg(self.root.join("store")).args(["build", "--runtime", "runc"]);
        command.args(args).arg(self.root.join(context)).env_remove("SOURCE_DATE_EPOCH");
        command
    }

    fn build_in(&self, context: &str, args: &[&str]) -> Output {
        self.command(context, args).output().unwrap()
    }

    /// Builds `dockerfile` in the context and returns what was printed on stderr and stdout.
    fn build(&self, dockerfile: &str, args: &[&str]) -> (Option<i32>, String, String) {
        self.file("ctx/Dockerfile", dockerfile);
        let output = self.build_in("ctx", args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stderr), text(&output.stdout))
    }

    fn succeed(&self, dockerfile: &str, args: &[&str]) -> (String, String) {
        let (code, log, out) = self.build(dockerfile, args);
        assert_eq!(code, Some(0), "{log}");
        (log, out)
    }

    /// The names in the flat root file system of `dockerfile`'s result, as tar lists them.
    fn listing(&self, dockerfile: &str, args: &[&str]) -> Vec<String> {
        let tar = self.root.join("out.tar");
        let output = format!("type=tar,dest={}", tar.display());
        self.succeed(dockerfile, &[args, &["-o", &output]].concat());
        let list =
            Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(&tar).output().unwrap();
        let list = String::from_utf8(list.stdout).unwrap();
        list.lines().filter(|line| !line.contains(" bin/")).map(str::to_owned).collect()
    }

    /// Nothing of a build is left: no directory, mount, cgroup, temporary file.
    fn assert_clean(&self) {
        let names = |path: &str| -> Vec<String> {
            let entries = fs::read_dir(self.root.join("store/davit").join(path)).unwrap();
            entries
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .filter(|n| n != ".lock")
                .collect()
        };
        assert_eq!(names("builds"), Vec::<String>::new());
        assert_eq!(names("tmp"), Vec::<String>::new());
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        assert!(!mounts.contains(self.root.to_str().unwrap()), "{mounts}");
    }

    fn wait_for_container(&self) {
        let begun = Instant::now();
        while self.build_ids().is_empty()
            || !self
                .root
                .join("store/davit/builds")
                .read_dir()
                .unwrap()
                .any(|entry| entry.unwrap().path().join("state").is_dir())
        {
            assert!(begun.elapsed() < Duration::from_secs(20), "the container never started");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(300));
    }

    fn build_ids(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join("store/davit/builds")) else {
            return Vec::new();
        };
        entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n != ".lock")
            .collect()
    }
}

fn cgroups_of(build: &str) -> usize {
    let find = Command::new("find")
        .args(["/sys/fs/cgroup", "-name", &format!("davit-build-{build}-*")])
        .output();
    String::from_utf8(find.unwrap().stdout).unwrap().lines().count()
}

#[test]
fn a_second_build_is_cached_whatever_the_times() {
    let Some(bench) = Bench::new("cached") else { return };
    bench.file("ctx/a/one", "1");
    bench.file("ctx/two", "2");
    let dockerfile = "FROM base AS b\nCOPY a /a\nRUN echo made > /made\nFROM base\nWORKDIR /w\nCOPY --from=b /made .\nCOPY two .\n";
    let (first, id) = bench.succeed(dockerfile, &[]);
    assert!(first.contains("[b 3/3] RUN echo made > /made"), "{first}");
    fs::remove_file(bench.root.join("ctx/a/one")).unwrap();
    bench.file("ctx/a/one", "1");
    let (second, same) = bench.succeed(dockerfile, &[]);
    assert_eq!(id, same);
    assert!(second.lines().all(|line| line.contains("CACHED")), "{second}");
    assert_eq!(second.lines().count(), 7, "{second}");

    bench.file("ctx/two", "changed");
    let (third, other) = bench.succeed(dockerfile, &[]);
    assert_ne!(id, other);
    let executed: Vec<_> = third.lines().filter(|line| !line.contains("CACHED")).collect();
    assert_eq!(executed, ["[stage-1 4/4] COPY two ."]);

    bench.file("ctx/two", "2");
    let (fresh, again) = bench.succeed(dockerfile, &["--no-cache"]);
    assert_eq!(id, again, "the cache and a fresh build disagree");
    assert!(fresh.contains("] RUN echo made"), "{fresh}");
    bench.assert_clean();
}

#[test]
fn the_same_input_elsewhere_gives_the_same_digest() {
    let Some(bench) = Bench::new("digest") else { return };
    let Some(other) = Bench::new("digest-elsewhere") else { return };
    let dockerfile = "FROM base\nCOPY . /src\nRUN mkdir -p /x/y && date > /dev/null && echo hi > /x/y/z\nLABEL a=b\n";
    for bench in [&bench, &other] {
        bench.file("ctx/f", "f");
    }
    let (_, first) = bench.succeed(dockerfile, &["-q"]);
    std::thread::sleep(Duration::from_millis(1100));
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(other.root.join("ctx"), private).unwrap();
    let (_, second) = other.succeed(dockerfile, &["-q"]);
    assert_eq!(first, second);
    let (_, dated) =
        other.succeed(dockerfile, &["-q", "--build-arg", "SOURCE_DATE_EPOCH=1700000000"]);
    assert_ne!(first, dated);
}

#[test]
fn mount_points_and_secrets_stay_out_of_the_layer() {
    let Some(bench) = Bench::new("stubs") else { return };
    bench.file("secret", "s3cret");
    let secret = format!("id=s,src={}", bench.root.join("secret").display());
    let list = bench.listing(
        "FROM base\nRUN --mount=type=secret,id=s --mount=type=cache,target=/c/d --mount=type=tmpfs,target=/t \
         test $(wc -c < /run/secrets/s) = 6 && test -s /etc/hosts && touch /c/d/x /t/x\n\
         RUN --mount=type=bind,target=/ctx,rw echo x > /ctx/new\nRUN echo kept > /etc/kept\n",
        &["--secret", &secret],
    );
    let names: Vec<_> = list.iter().filter_map(|line| line.split_whitespace().nth(5)).collect();
    assert_eq!(names, ["etc/", "etc/kept"]);
    let found = Command::new("grep")
        .args(["-rl", "s3cret"])
        .arg(bench.root.join("store"))
        .output()
        .unwrap();
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
    assert!(!bench.root.join("ctx/new").exists());
    bench.assert_clean();
}

#[test]
fn owners_modes_links_and_whiteouts() {
    let Some(bench) = Bench::new("files") else { return };
    bench.file("ctx/d/run.sh", "#!/bin/sh\n");
    bench.file("ctx/d/skip.log", "");
    bench.file("ctx/.dockerignore", "**/*.log\nDockerfile\n.dockerignore\n");
    std::os::unix::fs::symlink("run.sh", bench.root.join("ctx/d/link")).unwrap();
    let list = bench.listing(
        "FROM base\nRUN mkdir /etc/x && echo 'app:x:7:8::/:/bin/sh' > /etc/passwd && touch /etc/gone && rm -r /etc/x\n\
         RUN rm /etc/gone\nCOPY --chown=app --chmod=u=rwx,go= d /opt/app/\nCOPY --chown=5 d/link /opt/followed\nCOPY . /all\n",
        &[],
    );
    let short: Vec<String> = list
        .iter()
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            format!("{} {} {}", fields[0], fields[1], fields[5..].join(" "))
        })
        .collect();
    let expected = [
        "drwxr-xr-x 0/0 all/",
        "drwxr-xr-x 0/0 all/d/",
        "lrwxrwxrwx 0/0 all/d/link -> run.sh",
        "-rw-r--r-- 0/0 all/d/run.sh",
        "drwxr-xr-x 0/0 etc/",
        "-rw-r--r-- 0/0 etc/passwd",
        "drwxr-xr-x 7/8 opt/",
        "drwxr-xr-x 7/8 opt/app/",
        "lrwxrwxrwx 7/8 opt/app/link -> run.sh",
        "-rwx------ 7/8 opt/app/run.sh",
        "-rw-r--r-- 5/5 opt/followed",
    ];
    assert_eq!(short, expected);
}

#[test]
fn failures_name_the_place_and_leave_nothing() {
    let Some(bench) = Bench::new("failures") else { return };
    for (dockerfile, expected) in [
        (
            "FROM base\nRUN echo first\nRUN echo said; exit 7\n",
            "Dockerfile:3:1: RUN echo said; exit 7: exit code 7",
        ),
        (
            "FROM base\nCOPY nothing /x\n",
            "Dockerfile:2:1: COPY nothing /x: \"nothing\" not found in the build context",
        ),
        (
            "FROM base\nCOPY --chown=ghost Dockerfile /x\n",
            "no user ghost in the image's /etc/passwd",
        ),
        ("FROM base\nCOPY Dockerfile /bin/sh/x\n", "/bin/busybox is not a directory"),
        ("FROM base\nADD --chmod=999 Dockerfile /x\n", "invalid chmod parameter \"999\""),
        ("FROM base\nRUN --mount=type=secret,id=no,required true\n", "secret no is required"),
        ("FROM base\nUSER ghost\nRUN true\n", "Dockerfile:3:1: RUN true: no user ghost"),
        (
            "FROM base\nRUN --mount=typ=cache,target=/x true\n",
            "Dockerfile:2:5: unexpected key 'typ' (did you mean type?)",
        ),
    ] {
        let (code, log, out) = bench.build(dockerfile, &["-t", "broken"]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{log}");
        let last = log.lines().last().unwrap();
        assert!(last.starts_with("buildtool: ") && last.contains(expected), "{last}\n{expected}");
        bench.assert_clean();
    }
    let index = fs::read_to_string(bench.root.join("store/index.json")).unwrap();
    assert!(!index.contains("broken"), "{index}");
    let (_, log, _) = bench.build("FROM base\nRUN echo said; exit 7\n", &["-q"]);
    assert!(log.contains("| said"), "quiet hides what a failed step said: {log}");
}

#[test]
fn signals_and_kills_leave_nothing() {
    let Some(bench) = Bench::new("signals") else { return };
    bench.file("ctx/Dockerfile", "FROM base\nRUN sleep 987 & sleep 987\n");
    for (signal, expected) in [("INT", Some(130)), ("TERM", Some(143)), ("KILL", None)] {
        let mut child =
            bench.command("ctx", &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        bench.wait_for_container();
        let build = bench.build_ids().remove(0);
        let kill =
            Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), expected, "{signal}");
        if signal == "KILL" {
            std::thread::sleep(Duration::from_millis(300));
            assert!(bench.build_ids().contains(&build), "the next build is to find it");
            bench.succeed("FROM base\nRUN true\n", &[]);
        }
        assert_eq!(cgroups_of(&build), 0, "{signal}");
        bench.assert_clean();
    }
}

#[test]
fn builds_at_the_same_time_share_a_store() {
    let Some(bench) = Bench::new("parallel") else { return };
    bench.file("ctx/Dockerfile", "FROM base\nRUN echo x > /x\nRUN echo y > /y\n");
    let children: Vec<_> = (0..6)
        .map(|_| {
            bench
                .command("ctx", &["-q", "-t", "same"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut ids: Vec<String> = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        ids.push(String::from_utf8(output.stdout).unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    bench.assert_clean();
}

#[test]
fn outputs() {
    let Some(bench) = Bench::new("outputs") else { return };
    let dockerfile = "FROM base\nRUN mkdir /d && echo hi > /d/f\n";
    let iid = bench.root.join("iid");
    let (_, id) =
        bench.succeed(dockerfile, &["-q", "-t", "named:1", "--iidfile", iid.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&iid).unwrap(), id.trim());
    let archive = bench.root.join("oci.tar");
    let (_, same) =
        bench.succeed(dockerfile, &["-q", "-o", &format!("type=oci,dest={}", archive.display())]);
    assert_eq!(id, same);
    let list = Command::new("tar").arg("-tf").arg(&archive).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(
        list.contains("oci-layout") && list.contains(id.trim().trim_start_matches("sha256:")),
        "{list}"
    );
    let local = bench.root.join("local");
    bench.succeed(dockerfile, &["-q", "-o", local.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(local.join("d/f")).unwrap(), "hi\n");
    let flat = bench.build_in("ctx", &["-q", "-o", "-"]);
    assert_eq!(&flat.stdout[257..262], b"ustar");
}
