//! Terminals: size, resize, raw mode and its end, detaching and coming back.

mod sandbox;

use rustix::process::Signal;
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use sandbox::{Sandbox, eventually, kill};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A terminal of ours, and what was printed on it.
struct Terminal {
    master: File,
    user: OwnedFd,
    seen: Arc<Mutex<String>>,
}

impl Terminal {
    fn new() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let user = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        let master = File::from(master);
        let seen = Arc::new(Mutex::new(String::new()));
        let (mut reader, screen) = (master.try_clone().unwrap(), seen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                screen.lock().unwrap().push_str(&text);
            }
        });
        Self { master, user, seen }
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).unwrap();
    }

    fn start(&self, command: &mut Command) -> Child {
        let end = || Stdio::from(self.user.as_fd().try_clone_to_owned().unwrap());
        command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
    }

    fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    fn expect(&self, text: &str) {
        eventually(&format!("{text:?} on the terminal"), || {
            self.seen.lock().unwrap().contains(text)
        });
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.user).unwrap().local_modes.contains(LocalModes::ICANON)
    }
}

#[test]
fn size_resize_detach_and_attach() {
    let Some(sandbox) = Sandbox::new("tty") else { return };
    let mut terminal = Terminal::new();
    terminal.resize(33, 101);
    let script = "echo ready; while read line; do stty size; echo =$line; done; exit 5";
    let mut run = sandbox.run_command(&["-it", "--name", "t"], script);
    let mut child = terminal.start(&mut run);
    terminal.expect("ready\r\n");
    assert!(terminal.is_raw());
    terminal.type_in("a\r");
    terminal.expect("33 101\r\n=a\r\n");

    terminal.resize(20, 60);
    kill(child.id() as i32, Signal::WINCH);
    // The size travels by another way than what is typed.
    eventually("the new size", || {
        let init = sandbox.facts("t")["pid"].to_string();
        let pty = File::open(format!("/proc/{init}/fd/0")).unwrap();
        rustix::termios::tcgetwinsize(pty).unwrap().ws_col == 60
    });
    terminal.type_in("b\r");
    terminal.expect("20 60\r\n=b\r\n");

    terminal.type_in("\x10\x11");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!terminal.is_raw(), "the terminal is as it was");
    assert_eq!(sandbox.facts("t")["status"], "running");

    let mut again = Terminal::new();
    again.resize(44, 144);
    let mut child = again.start(&mut sandbox.command(&["attach", "--detach-keys", "ctrl-x", "t"]));
    eventually("raw mode", || again.is_raw());
    again.type_in("c\r");
    again.expect("44 144\r\n=c\r\n");
    again.type_in("\x18");
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let mut child = again.start(&mut sandbox.command(&["attach", "t"]));
    eventually("raw mode", || again.is_raw());
    again.type_in("\x04");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert!(!again.is_raw());
    assert!(sandbox.shim(&["logs", "t"]).stdout.contains("=b\r\n"));
}

#[test]
fn the_terminal_is_restored_when_the_container_is_killed() {
    let Some(sandbox) = Sandbox::new("restore") else { return };
    let terminal = Terminal::new();
    let mut run = sandbox.run_command(&["-it", "--rm", "--name", "k"], "echo ready; sleep 1000");
    let mut child = terminal.start(&mut run);
    terminal.expect("ready");
    assert_eq!(sandbox.shim(&["kill", "k"]).code, Some(0));
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert!(!terminal.is_raw());
    sandbox.assert_clean();
}

#[test]
fn a_terminal_without_a_terminal() {
    let Some(sandbox) = Sandbox::new("noterm") else { return };
    let ran = sandbox.run(&["-it"], "true");
    assert_eq!(ran.code, Some(125));
    assert!(ran.stderr.contains("not a terminal"), "{ran:?}");
    let ran = sandbox.run(&["-t", "--rm"], "[ -t 1 ] && echo yes");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "yes\r\n"));
}
