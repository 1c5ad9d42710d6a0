//! Daemons that a test starts by hand, in its own directories, and ends again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::{under_emulation, wait_until};

/// A running daemon; dropping it sends SIGTERM, waits, and unmounts what lies below its directory.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    dir: PathBuf,
}

impl Daemon {
    /// Starts a daemon that keeps everything below `dir`, and waits until `ready` says so.
    ///
    /// # Panics
    /// When it does not become ready within ten seconds; the message holds its log.
    #[track_caller]
    pub fn start(mut command: Command, dir: &Path, ready: impl FnMut() -> bool) -> Daemon {
        let log = dir.join("daemon.log");
        let output = File::create(&log).expect("create the daemon's log");
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("clone a descriptor"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|e| panic!("start {:?}: {e}", command.get_program()));
        let daemon = Daemon { child, dir: dir.to_owned() };
        if !wait_until(ready) {
            let text = fs::read_to_string(&log).unwrap_or_default();
            panic!("{:?} does not become ready:\n{text}", command.get_program());
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if !wait_until(|| matches!(self.child.try_wait(), Ok(Some(_)))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        unmount_below(&self.dir);
    }
}

/// Held for a first call of podman: it makes the locks of all of the user's podmans in shared memory,
/// and fails where another one is doing so.
pub fn alone() -> MutexGuard<'static, ()> {
    static FIRST_CALL: Mutex<()> = Mutex::new(());
    FIRST_CALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unmounts whatever a client leaves mounted below `dir` (podman its storage, docker a netns), and
/// what one that still cleans up behind a container mounts meanwhile.
pub fn unmount_below(dir: &Path) {
    let mut quiet = 0;
    while quiet < 3 {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let targets = table.lines().rev().filter_map(|line| line.split(' ').nth(4));
        let below: Vec<_> = targets.filter(|target| Path::new(target).starts_with(dir)).collect();
        for target in &below {
            let _ = unmount(*target, UnmountFlags::DETACH);
        }
        quiet = if below.is_empty() { quiet + 1 } else { 0 };
        std::thread::sleep(under_emulation(Duration::from_millis(50)));
    }
}
