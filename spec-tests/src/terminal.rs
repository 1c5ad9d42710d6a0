//! Somebody at a terminal: a client on a pseudoterminal (pty(7)), what is typed, and what is seen.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::wait_until;

/// A program that a terminal's user can take through [`Terminal::take_through`].
pub const PROGRAM: &str = r#"
    until [ "$(stty size)" = "33 101" ]; do sleep 0.1; done
    test -t 0 && test -t 1 && test -t 2 && : > /dev/tty && echo on-a-terminal
    read line; echo "<$line>"
    until [ "$(stty size)" = "44 122" ]; do sleep 0.1; done
    trap 'echo interrupted; exit 9' INT
    echo resized; while :; do sleep 0.1; done
"#;

/// A client whose stdio and controlling terminal is a pseudoterminal.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    child: Child,
    seen: String,
}

impl Terminal {
    /// Starts `command` on a new terminal of 33 rows and 101 columns; its stdio is replaced.
    #[track_caller]
    pub fn start(command: &Command) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("make a pseudoterminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("unlock the pseudoterminal");
        let name = ptsname(&master, Vec::new()).expect("the pseudoterminal's name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = open(name.as_c_str(), flags, rustix::fs::Mode::empty()).expect("open it");
        let master = File::from(master);
        set_size(&master, 33, 101);
        let flags = fcntl_getfl(&master).expect("get flags");
        fcntl_setfl(&master, flags | OFlags::NONBLOCK).expect("set flags");
        // setsid(1) makes its stdin the controlling terminal, then becomes the client.
        let mut setsid = Command::new("setsid");
        setsid.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            setsid.env(key, value.expect("no variable is taken away"));
        }
        let end = || -> OwnedFd { slave.try_clone().expect("clone a descriptor") };
        setsid.stdin(end()).stdout(end()).stderr(end());
        let child = setsid.spawn().expect("start a client on a terminal");
        Terminal { master, child, seen: String::new() }
    }

    /// Types; "\r" is the return key, "\x03" is control-C.
    #[track_caller]
    pub fn types(&mut self, text: &str) -> &mut Terminal {
        self.master.write_all(text.as_bytes()).expect("type");
        self
    }

    /// Gives the terminal another size, which the kernel tells the client by SIGWINCH.
    pub fn resizes(&mut self, rows: u16, columns: u16) -> &mut Terminal {
        set_size(&self.master, rows, columns);
        self
    }

    /// Waits until `text` has been printed behind what was awaited before.
    #[track_caller]
    pub fn sees(&mut self, text: &str) -> &mut Terminal {
        let found = wait_until(|| {
            self.look();
            self.seen.contains(text)
        });
        assert!(found, "{text:?} does not appear on the terminal: {:?}", self.seen);
        let end = self.seen.find(text).expect("it was found") + text.len();
        self.seen.drain(..end);
        self
    }

    /// Waits for the client's end, and asserts its exit code.
    #[track_caller]
    pub fn ends_with(mut self, code: i32) {
        let ended = wait_until(|| {
            self.look();
            matches!(self.child.try_wait(), Ok(Some(_)))
        });
        assert!(ended, "the client does not end: {:?}", self.seen);
        self.look();
        let status = self.child.wait().expect("wait for the client");
        assert_eq!(status.code(), Some(code), "{status}: {:?}", self.seen);
    }

    /// Takes [`PROGRAM`] through all that a terminal does: size, input, a new size, control-C.
    #[track_caller]
    pub fn take_through(mut self) {
        self.sees("on-a-terminal").types("typed\r").sees("<typed>");
        self.resizes(44, 122).sees("resized").types("\x03").sees("interrupted");
        self.ends_with(9);
    }

    fn look(&mut self) {
        let mut chunk = [0u8; 4096];
        // EAGAIN for the moment, EIO once the other side is closed.
        while let Ok(n @ 1..) = self.master.read(&mut chunk) {
            self.seen.push_str(&String::from_utf8_lossy(&chunk[..n]));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn set_size(master: &File, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).expect("set the terminal's size");
}
