//! `make install`: what it puts where, what it refuses to overwrite, and how it goes away again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use spec_tests::{Case, Outcome, Program, skip};

/// Runs docs/packaging/install with a DESTDIR in the case's directory.
#[track_caller]
fn packaging(case: &Case, verb: &str, name_prefix: &str) -> Outcome {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/packaging/install");
    let programs = Program::Runtime.path();
    let mut command = Command::new(script);
    command.arg(verb).env("BIN", programs.parent().expect("a directory"));
    command.env("DESTDIR", dest(case)).env("PREFIX", "/usr/local");
    command.env("PROGRAM_PREFIX", name_prefix);
    case.outcome(command)
}

/// Ends the test where another runtime is tested: what is installed is ours alone, and need not be
/// built then.
macro_rules! ours {
    ($case:expr) => {
        if !$case.runtime_is("runtime") {
            skip!("installs our programs, whose runtime is not the one under test");
        }
    };
}

fn dest(case: &Case) -> PathBuf {
    case.dir().join("dest")
}

fn installed(case: &Case, path: &str) -> PathBuf {
    dest(case).join("usr/local").join(path)
}

#[test]
fn programs_pages_completions_and_links_are_installed() {
    let case = Case::new();
    ours!(case);
    packaging(&case, "install", "").quiet_success();
    for name in ["runtime", "imgtool", "buildtool", "shim"] {
        let version = Command::new(installed(&case, "bin").join(name)).arg("--version").output();
        let version = String::from_utf8(version.expect("it runs").stdout).expect("UTF-8");
        assert!(version.starts_with(&format!("{name} version ")), "{version}");
        let page = installed(&case, "share/man/man1").join(format!("{name}.1"));
        assert!(fs::read_to_string(page).expect("a man page").contains(".SH NAME"));
        for file in [
            format!("share/bash-completion/completions/{name}"),
            format!("share/zsh/site-functions/_{name}"),
            format!("share/fish/vendor_completions.d/{name}.fish"),
        ] {
            let text = fs::read_to_string(installed(&case, &file)).expect("a completion script");
            assert!(text.contains(name), "{file} does not speak of {name}");
        }
    }
    for link in ["conmon", "containerd-shim-davit-v1"] {
        let link = installed(&case, "libexec/davit").join(link);
        let target = fs::canonicalize(link).expect("the link leads somewhere");
        assert_eq!(target, fs::canonicalize(installed(&case, "bin/shim")).expect("the shim"));
    }
    let example = fs::read_to_string(installed(&case, "share/davit/examples/daemon.json"));
    let example: serde_json::Value =
        serde_json::from_str(&example.expect("an example")).expect("JSON");
    assert_eq!(example["runtimes"]["davit"]["path"], "/usr/local/bin/runtime");
}

#[test]
fn installing_again_and_uninstalling_leaves_nothing() {
    let case = Case::new();
    ours!(case);
    packaging(&case, "install", "").quiet_success();
    packaging(&case, "install", "").quiet_success();
    packaging(&case, "uninstall", "").quiet_success();
    let left: Vec<_> = fs::read_dir(installed(&case, "")).expect("PREFIX").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_program_prefix_renames_everything() {
    let case = Case::new();
    ours!(case);
    packaging(&case, "install", "davit-").quiet_success();
    assert!(!installed(&case, "bin/runtime").exists());
    assert!(installed(&case, "bin/davit-runtime").exists());
    let page = fs::read_to_string(installed(&case, "share/man/man1/davit-runtime.1"));
    assert!(page.expect("a man page").contains("davit-runtime"));
    let script = installed(&case, "share/bash-completion/completions/davit-runtime");
    let check = "source \"$0\" && complete -p davit-runtime";
    let mut bash = Command::new("bash");
    bash.args(["-c", check]).arg(script);
    case.outcome(bash).quiet_success().prints_part("davit-runtime");
    let example = fs::read_to_string(installed(&case, "share/davit/examples/containers.conf"));
    assert!(example.expect("an example").contains("/usr/local/bin/davit-runtime"));
}

#[test]
fn a_new_prefix_takes_the_old_names_away() {
    let case = Case::new();
    ours!(case);
    packaging(&case, "install", "").quiet_success();
    packaging(&case, "install", "davit-").quiet_success();
    assert!(!installed(&case, "bin/runtime").exists());
    packaging(&case, "uninstall", "").quiet_success();
    assert!(!installed(&case, "bin").exists());
}

#[test]
fn a_foreign_file_is_refused_by_name_before_anything_is_written() {
    let case = Case::new();
    ours!(case);
    let foreign = installed(&case, "bin/shim");
    fs::create_dir_all(foreign.parent().expect("a directory")).expect("make it");
    fs::write(&foreign, "of somebody else").expect("write");
    packaging(&case, "install", "").exits(1).fails_with("/usr/local/bin/shim is not ours");
    assert_eq!(fs::read_to_string(&foreign).expect("it is there"), "of somebody else");
    assert!(!installed(&case, "bin/runtime").exists());
    assert!(!installed(&case, "share").exists());
}

#[test]
fn what_has_been_changed_since_is_kept() {
    let case = Case::new();
    ours!(case);
    packaging(&case, "install", "").quiet_success();
    let changed = installed(&case, "share/davit/examples/daemon.json");
    fs::write(&changed, "{}").expect("write");
    packaging(&case, "install", "").exits(1).fails_with("daemon.json is not ours");
    packaging(&case, "uninstall", "").exits(1).fails_with("daemon.json has changed since: kept");
    assert_eq!(fs::read_to_string(&changed).expect("it is there"), "{}");
    assert!(!installed(&case, "bin/runtime").exists());
}

#[test]
fn release_programs_are_small() {
    const LIMIT: u64 = 4 << 20;
    let programs = [Program::Runtime, Program::Imgtool, Program::Buildtool, Program::Shim];
    if programs[0].path().parent().is_some_and(|dir| !dir.ends_with("release")) {
        skip!("these programs are no release build");
    }
    for program in programs {
        let size = fs::metadata(program.path()).expect("look at a program").len();
        assert!(size < LIMIT, "{} has {size} bytes, of {LIMIT}", program.name());
    }
}
