//! What `checkpoint` and `restore` ask of CRIU: a program of that name writes the request down, so
//! that every option is seen to arrive, on every kernel.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use spec_tests::{Bundle, Case, differs};

/// A field of a protobuf message: its number, and a number or bytes.
#[derive(Debug, PartialEq)]
enum Field {
    Number(u64, u64),
    Bytes(u64, Vec<u8>),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (first, rest) = bytes.split_first().expect("a whole number");
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

fn fields(mut bytes: &[u8]) -> Vec<Field> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        match key & 7 {
            0 => all.push(Field::Number(key >> 3, varint(&mut bytes))),
            2 => {
                let length = varint(&mut bytes);
                let (text, rest) = bytes.split_at(length as usize);
                all.push(Field::Bytes(key >> 3, text.into()));
                bytes = rest;
            }
            other => panic!("wire type {other}"),
        }
    }
    all
}

fn text(number: u64, text: &str) -> Field {
    Field::Bytes(number, text.into())
}

/// A criu that writes the first message down and ends.
struct Listener<'a> {
    case: &'a Case,
    heard: PathBuf,
}

impl<'a> Listener<'a> {
    fn new(case: &'a Case) -> Listener<'a> {
        let heard = case.dir().join("heard");
        let program = case.dir().join("bin/criu");
        fs::create_dir(case.dir().join("bin")).expect("make a directory");
        let script = format!(
            "#!/bin/bash\n[ \"$1\" = swrk ] && exec dd bs=64k count=1 status=none of={} <&\"$2\"\n",
            heard.display()
        );
        fs::write(&program, script).expect("write a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
        Listener { case, heard }
    }

    /// The options of the request that the verb makes with these flags; it fails, having no answer.
    #[track_caller]
    fn ask(&self, verb: &str, bundle: &Bundle, kind: u64, flags: &[&str]) -> Vec<Field> {
        let images = self.case.dir().join("images");
        fs::create_dir_all(&images).expect("make a directory");
        let mut command = self.case.command();
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.case.dir().join("bin").display()));
        command.arg(verb).arg("--image-path").arg(images);
        if verb == "restore" {
            bundle.write();
            command.arg("--bundle").arg(&bundle.dir);
        }
        command.args(flags).arg(&bundle.id);
        self.case.outcome(command).exits(1).fails_with("criu ended without an answer");
        let message = fields(&fs::read(&self.heard).expect("what criu has heard"));
        assert!(message.contains(&Field::Number(1, kind)), "{message:?}");
        let options = message.iter().find_map(|field| match field {
            Field::Bytes(2, bytes) => Some(fields(bytes)),
            _ => None,
        });
        options.expect("options")
    }
}

/// Asserts that a flag makes the field appear, which is not there without.
#[track_caller]
fn arrives(listener: &Listener<'_>, verb: &str, bundle: &Bundle, flags: &[&str], field: Field) {
    let kind = if verb == "restore" { 2 } else { 1 };
    let without = listener.ask(verb, bundle, kind, &[]);
    assert!(!without.contains(&field), "{flags:?}: {field:?} is there without");
    let with = listener.ask(verb, bundle, kind, flags);
    assert!(with.contains(&field), "{flags:?}: {field:?} is not in {with:?}");
}

#[test]
fn the_options_of_a_checkpoint_reach_criu() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "it asks for CRIU's version first");
    let listener = Listener::new(&case);
    let bundle = case.bundle().args(["sleep", "1000"]);
    case.start(&bundle);
    let server = Field::Bytes(11, b"\x0a\x09127.0.0.1\x10\x09".to_vec());
    for (flags, field) in [
        (&["--leave-running"][..], Field::Number(3, 1)),
        (&["--ext-unix-sk"], Field::Number(4, 1)),
        (&["--tcp-established"], Field::Number(5, 1)),
        (&["--shell-job"], Field::Number(7, 1)),
        (&["--file-locks"], Field::Number(8, 1)),
        (&["--page-server", "127.0.0.1:9"], server),
        (&["--auto-dedup"], Field::Number(16, 1)),
        (&["--link-remap"], Field::Number(18, 1)),
        (&["--manage-cgroups-mode", "full"], Field::Number(34, 4)),
        (&["--manage-cgroups-mode", "strict"], Field::Number(34, 5)),
        (&["--manage-cgroups-mode", "ignore"], Field::Number(34, 0)),
        (&["--empty-ns", "network"], Field::Number(38, 0x4000_0000)),
        (&["--tcp-skip-in-flight"], Field::Number(46, 1)),
    ] {
        arrives(&listener, "checkpoint", &bundle, flags, field);
    }
    assert_eq!(case.status(&bundle), "running");
}

#[test]
fn the_options_of_a_restore_reach_criu() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "it asks for CRIU's version first");
    let listener = Listener::new(&case);
    let bundle = case.bundle().args(["sleep", "1000"]);
    for (flags, field) in [
        (&["--ext-unix-sk"][..], Field::Number(4, 1)),
        (&["--tcp-established"], Field::Number(5, 1)),
        (&["--shell-job"], Field::Number(7, 1)),
        (&["--file-locks"], Field::Number(8, 1)),
        (&["--auto-dedup"], Field::Number(16, 1)),
        (&["--manage-cgroups-mode", "full"], Field::Number(34, 4)),
        (&["--empty-ns", "network"], Field::Number(38, 0x4000_0000)),
        (&["--tcp-close"], Field::Number(52, 1)),
        (&["--lsm-profile", "apparmor:p"], text(53, "apparmor:p")),
        (&["--lsm-mount-context", "c:t"], text(63, "c:t")),
    ] {
        arrives(&listener, "restore", &bundle, flags, field);
        case.assert_gone(&bundle);
    }
}

#[test]
fn the_annotation_names_a_file_of_options() {
    let case = Case::new();
    differs!(case, ["runc", "crun"], "it asks for CRIU's version first");
    let listener = Listener::new(&case);
    let bundle = case.bundle().set("/annotations/org.criu.config", "/my.conf");
    let bundle = bundle.args(["sleep", "1000"]);
    assert!(listener.ask("restore", &bundle, 2, &[]).contains(&text(51, "/my.conf")));
    case.start(&bundle);
    assert!(listener.ask("checkpoint", &bundle, 1, &[]).contains(&text(51, "/my.conf")));
}
