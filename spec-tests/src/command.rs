//! Running a program to its end, with a deadline, and judging what came of it.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// No command of these tests takes this long unless it hangs.
fn deadline() -> Duration {
    under_emulation(Duration::from_secs(60))
}

/// What a finished command left: status and output.
///
/// Output goes to files, not pipes, because a container that outlives `create` keeps its stdio
/// open, and a reader of a pipe would wait for it. [`Outcome::stdout_now`] reads them again.
#[derive(Debug)]
pub struct Outcome {
    line: String,
    status: ExitStatus,
    stdout_file: PathBuf,
    /// What the command had written to stdout when it ended.
    pub stdout: String,
    /// What the command had written to stderr when it ended.
    pub stderr: String,
}

impl Outcome {
    /// Runs `command` to its end; its output files go to `scratch`.
    ///
    /// # Panics
    /// When the program cannot be started, or has not ended after a minute ([`under_emulation`]: six).
    #[track_caller]
    pub fn of(command: Command, scratch: &Path) -> Outcome {
        Outcome::in_time(command, scratch).unwrap_or_else(|why| panic!("{why}"))
    }

    /// As [`Outcome::of`], for the way out, where a panic would hide the first one.
    ///
    /// # Errors
    /// A program that has not ended after a minute ([`under_emulation`]: six); it is killed.
    pub fn in_time(mut command: Command, scratch: &Path) -> Result<Outcome, String> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let stdout_file = scratch.join(format!("out.{serial}"));
        let stderr_file = scratch.join(format!("err.{serial}"));
        let create = |path: &Path| File::create(path).expect("create an output file");
        command.stdout(create(&stdout_file)).stderr(create(&stderr_file));
        let line = render(&command);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {line}: {e}"));
        let status = wait_with_deadline(&mut child);
        let (stdout, stderr) = (read(&stdout_file), read(&stderr_file));
        match status {
            Some(status) => Ok(Outcome { line, status, stdout_file, stdout, stderr }),
            None => {
                Err(format!("{line}: still running after {:?}\n{stdout}\n{stderr}", deadline()))
            }
        }
    }

    /// The exit code, or 128 + n when signal n ended the command, as a shell counts.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// What has been written to stdout until now, also by a container that still runs.
    pub fn stdout_now(&self) -> String {
        read(&self.stdout_file)
    }

    /// Asserts exit code 0 and silence on stderr: callers parse it, success says nothing there.
    #[track_caller]
    pub fn quiet_success(&self) -> &Outcome {
        self.success();
        assert!(self.stderr.is_empty(), "stderr is not empty: {self}");
        self
    }

    /// Asserts exit code 0.
    #[track_caller]
    pub fn success(&self) -> &Outcome {
        self.exits(0)
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Outcome {
        assert!(self.code() == code, "exit code {} instead of {code}: {self}", self.code());
        self
    }

    /// Asserts some other exit code than 0, and a text on stderr, in upper or lower case, as
    /// engines look for it.
    #[track_caller]
    pub fn fails_with(&self, text: &str) -> &Outcome {
        assert!(self.code() != 0, "succeeded, expected a failure with {text:?}: {self}");
        let found = self.stderr.to_lowercase().contains(&text.to_lowercase());
        assert!(found, "stderr lacks {text:?}: {self}");
        self
    }

    /// Asserts the whole of stdout, blanks at its ends aside.
    #[track_caller]
    pub fn prints(&self, expected: &str) -> &Outcome {
        assert!(self.stdout.trim() == expected, "stdout is not {expected:?}: {self}");
        self
    }

    /// Asserts that stdout holds a text.
    #[track_caller]
    pub fn prints_part(&self, part: &str) -> &Outcome {
        assert!(self.stdout.contains(part), "stdout lacks {part:?}: {self}");
        self
    }

    /// Stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {self}"))
    }

    /// The value after `name:` in output of the shape of /proc/PID/status.
    #[track_caller]
    pub fn field(&self, name: &str) -> &str {
        self.stdout
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_else(|| panic!("no field {name:?}: {self}"))
            .trim()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Outcome { line, status, stdout, stderr, .. } = self;
        write!(f, "{line}: {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// The status of a child that ends in time; another one is killed.
fn wait_with_deadline(child: &mut Child) -> Option<ExitStatus> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(500);
    while start.elapsed() < deadline() {
        if let Some(status) = child.try_wait().expect("wait for the command") {
            return Some(status);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// A time limit as it is where everything takes several times as long, in the virtual machine.
pub fn under_emulation(limit: Duration) -> Duration {
    limit * if std::env::var_os("DAVIT_VM").is_some() { 6 } else { 1 }
}

/// Waits until `condition` holds, for at most ten seconds ([`under_emulation`]: a minute); says
/// whether it came to hold.
pub fn wait_until(mut condition: impl FnMut() -> bool) -> bool {
    let patience = under_emulation(Duration::from_secs(10));
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

fn render(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// A command whose stdin is empty, so that no test reads the terminal of who runs it.
pub(crate) fn detached(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}
