//! Watches a command's system calls by ptrace(2), and spoils one of them.
//!
//! The command and every process that it makes are followed until that process executes another
//! program; from there on it is the container's, or a hook's. A process is known by its number in
//! the order of birth, a call by its number in its process, so that a second run of the same
//! command meets the same calls. The tracer waits for children of its own thread alone, so
//! several threads may each trace a command.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::runtime;

/// A command that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(30);
/// `PTRACE_SYSCALL_INFO_ENTRY`.
const ENTRY: u8 = 1;
/// `PTRACE_SYSCALL_INFO_EXIT`.
const EXIT: u8 = 2;

/// One call of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// The process: 0 is the command itself.
    pub process: usize,
    /// How many calls of this number it has made before: the allocator's vary, others do not.
    pub index: usize,
    /// The system call's number.
    pub call: i64,
    /// Made by the C library or Rust's before `main` begins.
    pub startup: bool,
}

/// What is done to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its process is killed when it makes the call.
    Kill,
    /// The call is not made, and fails. close(2) is made, and then fails: Linux has closed the
    /// descriptor whatever it returns.
    Fail(Errno),
    /// Another verb comes while it stands at the call.
    Meet,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Kill => f.write_str("SIGKILL"),
            Fault::Fail(errno) => write!(f, "{errno:?}"),
            Fault::Meet => f.write_str("met"),
        }
    }
}

/// How a traced command ended.
#[derive(Debug, Default)]
pub struct Traced {
    /// Every call that was seen.
    pub sites: Vec<Site>,
    /// The exit code, or 128 + n.
    pub code: i32,
    /// It had to be killed after the deadline.
    pub hung: bool,
    /// The call that was spoilt, if it was reached.
    pub injected: Option<Site>,
    /// Processes that it made and that still lived when it ended.
    pub left: Vec<i32>,
}

#[derive(Default)]
struct Tracee {
    number: usize,
    calls: HashMap<i64, usize>,
    failing: Option<Errno>,
    /// Calls of sigaltstack(2) since the last execve(2): the last thing but one before `main`.
    stacks: usize,
    running_main: bool,
}

/// One traced command.
struct Tracer<'a> {
    main: Pid,
    /// The runtime, which may stand behind programs that lead to it.
    program: PathBuf,
    /// What happens when the command is met.
    meet: &'a dyn Fn(),
    started: bool,
    tracees: HashMap<Pid, Tracee>,
    born: usize,
    plan: Option<(Site, Fault)>,
    seen: Traced,
    programs: Vec<Pid>,
}

/// Runs the command with its output in the files `out` and `err`, and spoils the call of `plan`.
///
/// # Panics
/// When this process may not trace.
pub fn trace(
    command: &Command,
    (out, err): (&Path, &Path),
    plan: Option<(Site, Fault)>,
    meet: &dyn Fn(),
) -> Traced {
    let main = stopped(command, out, err);
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(main, options).expect("trace a child");
    kill(main, Signal::SIGCONT).expect("wake the child");
    let mut tracer = Tracer {
        main,
        program: runtime().canonicalize().expect("find the runtime"),
        meet,
        started: false,
        tracees: HashMap::from([(main, Tracee::default())]),
        born: 1,
        plan,
        seen: Traced::default(),
        programs: Vec::new(),
    };
    let late = Arc::new(AtomicBool::new(false));
    let (ended, over) = mpsc::channel::<()>();
    let watch = {
        let late = Arc::clone(&late);
        std::thread::spawn(move || {
            if over.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
                late.store(true, Ordering::Relaxed);
                let _ = kill(main, Signal::SIGKILL);
            }
        })
    };
    while tracer.step() {}
    drop(ended);
    watch.join().expect("the watch does not panic");
    tracer.settle();
    tracer.seen.hung = late.load(Ordering::Relaxed);
    tracer.seen
}

/// A shell that stops before it becomes the command, with its output in files.
fn stopped(command: &Command, out: &Path, err: &Path) -> Pid {
    const SCRIPT: &str = r#"out=$1 err=$2; shift 2; kill -STOP $$; exec "$@" >"$out" 2>"$err" "#;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", SCRIPT, "sh"]).arg(out).arg(err);
    shell.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    #[expect(clippy::zombie_processes, reason = "the tracer waits for it, by its pid")]
    let child = shell.spawn().expect("start a shell");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    match waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("wait for the shell") {
        WaitStatus::Stopped(..) => pid,
        other => panic!("the shell did not stop: {other:?}"),
    }
}

fn next() -> nix::Result<WaitStatus> {
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

impl Tracer<'_> {
    /// Handles one stop; `false` when the command has ended.
    fn step(&mut self) -> bool {
        let Ok(status) = next() else { return false };
        match status {
            WaitStatus::Exited(pid, code) => return self.ended(pid, code),
            WaitStatus::Signaled(pid, signal, _) => return self.ended(pid, 128 + signal as i32),
            WaitStatus::PtraceSyscall(pid) => self.at_call(pid),
            WaitStatus::PtraceEvent(pid, signal, event) => self.at_event(pid, signal, event),
            WaitStatus::Stopped(pid, signal) => {
                self.know(pid);
                self.resume(pid, Some(signal));
            }
            _ => {}
        }
        true
    }

    fn ended(&mut self, pid: Pid, code: i32) -> bool {
        self.tracees.remove(&pid);
        if pid == self.main {
            self.seen.code = code;
        }
        pid != self.main
    }

    fn know(&mut self, pid: Pid) -> &mut Tracee {
        let born = &mut self.born;
        self.tracees.entry(pid).or_insert_with(|| {
            let number = *born;
            *born += 1;
            Tracee { number, running_main: true, ..Tracee::default() }
        })
    }

    fn at_event(&mut self, pid: Pid, _signal: Signal, event: i32) {
        if event == libc::PTRACE_EVENT_EXEC {
            if pid != self.main {
                // What leads to the runtime is no part of the runtime, nor is what runs there now.
                self.tracees.remove(&pid);
                if self.started {
                    self.programs.push(pid);
                }
                let _ = ptrace::detach(pid, None);
                return;
            }
            if !self.started {
                let running = fs::read_link(format!("/proc/{pid}/exe"));
                self.started = running.is_ok_and(|path| path == self.program);
                self.born = 1;
            }
            let main = self.know(pid);
            (main.stacks, main.running_main) = (0, false);
        } else if [libc::PTRACE_EVENT_FORK, libc::PTRACE_EVENT_VFORK, libc::PTRACE_EVENT_CLONE]
            .contains(&event)
        {
            if let Ok(child) = ptrace::getevent(pid) {
                self.know(Pid::from_raw(child as i32));
            }
        } else {
            self.know(pid);
        }
        self.resume(pid, None);
    }

    fn at_call(&mut self, pid: Pid) {
        if self.started {
            match ptrace::syscall_info(pid).map(|info| info.op) {
                Ok(ENTRY) => self.enter(pid),
                Ok(EXIT) => self.leave(pid),
                _ => {}
            }
        }
        self.resume(pid, None);
    }

    fn enter(&mut self, pid: Pid) {
        let Ok(mut registers) = ptrace::getregs(pid) else { return };
        let call = registers.orig_rax as i64;
        let tracee = self.know(pid);
        if call == libc::SYS_sigaltstack {
            tracee.stacks += 1;
        }
        let handlers = [
            libc::SYS_sigaltstack,
            libc::SYS_gettid,
            libc::SYS_rt_sigaction,
            libc::SYS_mmap,
            libc::SYS_mprotect,
        ];
        tracee.running_main |= tracee.stacks >= 2 && !handlers.contains(&call);
        let startup = !tracee.running_main;
        let made = tracee.calls.entry(call).or_default();
        let site = Site { process: tracee.number, index: *made, call, startup };
        *made += 1;
        self.seen.sites.push(site);
        let Some((target, fault)) = self.plan else { return };
        let meant = (target.process, target.index, target.call) == (site.process, site.index, call);
        if !meant || self.seen.injected.is_some() {
            return;
        }
        self.seen.injected = Some(site);
        match fault {
            Fault::Kill => drop(kill(pid, Signal::SIGKILL)),
            Fault::Meet => (self.meet)(),
            Fault::Fail(errno) if call == libc::SYS_close => {
                self.know(pid).failing = Some(errno);
            }
            Fault::Fail(errno) => {
                registers.orig_rax = u64::MAX;
                if ptrace::setregs(pid, registers).is_ok() {
                    self.know(pid).failing = Some(errno);
                }
            }
        }
    }

    fn leave(&mut self, pid: Pid) {
        let Some(errno) = self.know(pid).failing.take() else { return };
        let Ok(mut registers) = ptrace::getregs(pid) else { return };
        registers.rax = -(errno as i64) as u64;
        let _ = ptrace::setregs(pid, registers);
    }

    /// Lets go of the processes that live on, and remembers them.
    fn settle(&mut self) {
        let mut waiting: Vec<Pid> = self.tracees.keys().copied().collect();
        for pid in &waiting {
            let _ = ptrace::interrupt(*pid);
        }
        while !waiting.is_empty() {
            let Ok(status) = next() else { break };
            let Some(pid) = status.pid() else { continue };
            match status {
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {}
                _ => {
                    if self.know(pid).failing.is_some() {
                        // The call that it was to lose is lost: its number is gone already.
                        self.leave(pid);
                    }
                    let signal = match status {
                        WaitStatus::Stopped(_, signal) => Some(signal),
                        _ => None,
                    };
                    let _ = ptrace::detach(pid, signal);
                    self.seen.left.push(pid.as_raw());
                }
            }
            waiting.retain(|other| *other != pid);
        }
        self.seen.left.extend(self.programs.iter().map(|pid| pid.as_raw()));
    }

    /// Calls are of interest from the runtime's start until one is spoilt; what comes after runs at
    /// full speed, and only births and programs are still told. A process that was killed meanwhile
    /// cannot be resumed, and need not be.
    fn resume(&mut self, pid: Pid, signal: Option<Signal>) {
        let failing = self.tracees.get(&pid).is_some_and(|tracee| tracee.failing.is_some());
        let watched = self.started && self.seen.injected.is_none();
        let _ = match watched || failing {
            true => ptrace::syscall(pid, signal),
            false => ptrace::cont(pid, signal),
        };
    }
}
