//! The terminal (config.md#process, `terminal` and `consoleSize`) and `--console-socket`.

use std::io::Write;

use serde_json::json;
use spec_tests::console::{ConsoleSocket, read_all};
use spec_tests::{Bundle, Case, differs};

/// Creates the container with a terminal, starts it, and returns all that it prints.
#[track_caller]
fn on_terminal(case: &Case, bundle: &Bundle) -> String {
    let socket = ConsoleSocket::bind(&bundle.dir);
    case.on_bundle("create", bundle, ["--console-socket", socket.path()]).quiet_success();
    let console = socket.accept();
    case.runtime(["start", &bundle.id]).quiet_success();
    let text = read_all(console);
    case.wait_stopped(bundle);
    text.replace('\r', "")
}

#[test]
fn a_terminal_is_sent_to_the_console_socket() {
    let case = Case::new();
    let bundle = case.bundle().set("/process/terminal", true).sh("test -t 0 && test -t 1 && tty");
    let text = on_terminal(&case, &bundle);
    assert!(text.starts_with("/dev/pts/") || text.starts_with("/dev/console"), "{text:?}");
}

#[test]
fn the_terminal_is_the_controlling_one() {
    let case = Case::new();
    let bundle = case.bundle().set("/process/terminal", true).sh("echo through-tty > /dev/tty");
    assert_eq!(on_terminal(&case, &bundle), "through-tty\n");
}

#[test]
fn the_console_is_a_terminal_too() {
    let case = Case::new();
    let bundle = case.bundle().set("/process/terminal", true).sh("echo hello > /dev/console");
    assert_eq!(on_terminal(&case, &bundle), "hello\n");
}

#[test]
fn the_console_size_is_set() {
    let case = Case::new();
    let bundle = case
        .bundle()
        .set("/process/terminal", true)
        .set("/process/consoleSize", json!({ "height": 33, "width": 101 }))
        .sh("stty size");
    assert_eq!(on_terminal(&case, &bundle), "33 101\n");
}

#[test]
fn input_on_the_terminal_reaches_the_program() {
    let case = Case::new();
    let bundle = case.bundle().set("/process/terminal", true).sh("read line; echo \"got <$line>\"");
    let socket = ConsoleSocket::bind(&bundle.dir);
    case.on_bundle("create", &bundle, ["--console-socket", socket.path()]).quiet_success();
    let mut console = socket.accept();
    case.runtime(["start", &bundle.id]).quiet_success();
    console.write_all(b"typed\n").expect("type a line");
    assert!(read_all(console).contains("got <typed>"));
    case.wait_stopped(&bundle);
}

#[test]
fn a_console_socket_without_a_terminal_is_refused() {
    let case = Case::new();
    let bundle = case.bundle();
    let socket = ConsoleSocket::bind(&bundle.dir);
    differs!(case, ["crun"], "crun ignores the socket then");
    let outcome = case.on_bundle("create", &bundle, ["--console-socket", socket.path()]);
    assert_ne!(outcome.code(), 0, "{outcome}");
    case.assert_gone(&bundle);
}

#[test]
fn a_terminal_without_a_console_socket_is_refused() {
    let case = Case::new();
    differs!(case, ["crun"], "crun opens a terminal and keeps nobody at its other side");
    let bundle = case.bundle().set("/process/terminal", true);
    let outcome = case.create(&bundle);
    assert_ne!(outcome.code(), 0, "{outcome}");
    case.assert_gone(&bundle);
}

#[test]
fn exec_gets_a_terminal_of_its_own() {
    let case = Case::new();
    let bundle = case.bundle().args(["sleep", "100"]);
    case.start(&bundle);
    let socket = ConsoleSocket::bind(&bundle.dir);
    let outcome = case.exec(
        &bundle,
        ["--tty", "--detach", "--console-socket", socket.path()],
        ["sh", "-c", "test -t 0 && test -t 1 && echo on-a-terminal"],
    );
    outcome.quiet_success();
    assert_eq!(read_all(socket.accept()).replace('\r', ""), "on-a-terminal\n");
}
