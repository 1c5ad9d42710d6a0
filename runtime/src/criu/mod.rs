//! CRIU, which saves processes to files and makes them anew (criu(8)).
//!
//! criu is run as a worker for one request (`criu swrk`), with one end of a packet socket. It says
//! what happens on the way, and waits for our word each time; its log goes to a file, whose last
//! error becomes ours. A worker rather than `criu dump` and `criu restore`, because only a worker
//! hands over the master of a new terminal, and makes the restored process a child of ours.

pub mod descriptors;
pub mod options;
pub mod outside;
pub mod rpc;

use crate::birth::{assert_single_thread, clone_into};
use crate::cgroup::Cgroup;
use crate::errno;
use crate::error::{Context, Error, Result};
use crate::sys::process::{self, Fork};
use crate::sys::{self, fs, signal, socket};
use prost::Message as _;
use rpc::{Features, Notice, Request, Response, Type};
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// criu's messages to us are short.
const LIMIT: usize = 64 * 1024;
/// What a worker that could not be executed says; no answer of criu begins with this byte.
const CANNOT: u8 = b'E';

/// How the worker is born.
#[derive(Default)]
pub struct Birth<'a> {
    /// Its groups, which the restored processes begin in.
    pub cgroup: Option<&'a Cgroup>,
    /// A mount namespace of its own, with whose end its mounts end whatever happens.
    pub mounts: Option<OwnMounts<'a>>,
    /// Directories that it keeps under their numbers, with their paths.
    pub directories: Vec<(BorrowedFd<'a>, PathBuf)>,
    /// Descriptors that it keeps under their numbers, besides the standard ones.
    pub keep: Vec<BorrowedFd<'a>>,
    /// Whether it has our standard descriptors, for the restored processes to inherit.
    pub stdio: bool,
}

/// What a worker has in a mount namespace of its own.
pub struct OwnMounts<'a> {
    /// The root file system.
    pub root: &'a Path,
    /// Where that is mounted.
    pub place: &'a Path,
}

/// A worker.
pub struct Worker {
    pid: i32,
    socket: OwnedFd,
}

/// Looks for criu on PATH, and where distributions install it.
fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut places = std::env::split_paths(&path).chain(usual).map(|place| place.join("criu"));
    places.find(|file| file.is_file()).ok_or_else(|| {
        Error::new(
            "criu is not installed (it is on no directory of PATH): install CRIU 3.15 or newer",
        )
    })
}

impl Worker {
    /// Starts one.
    pub fn start(birth: &Birth<'_>) -> Result<Self> {
        let program = find()?;
        assert_single_thread()?;
        let (ours, theirs) = socket::pair()?;
        let fork = fork(birth)?;
        match fork {
            (Fork::Parent(pid, _), _) => {
                drop(theirs);
                // Whatever goes wrong from here on, it is reaped.
                let mut worker = Self { pid, socket: ours };
                let (text, socket) = socket::receive(&worker.socket, LIMIT)?;
                match socket {
                    Some(socket) => worker.socket = socket,
                    None => return Err(Error::new(String::from_utf8_lossy(&text))),
                }
                Ok(worker)
            }
            (Fork::Child, doors) => {
                let Err(error) = become_worker(&program, birth, &doors, &theirs);
                drop(socket::send(&theirs, error.to_string().as_bytes(), None));
                process::exit(1)
            }
        }
    }

    /// Its pid; what it makes is born in its groups.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Has the request carried out; `notified` hears what happens on the way, and may refuse to
    /// go on.
    pub fn ask(
        &self,
        request: &Request,
        mut notified: impl FnMut(&Notice, Option<OwnedFd>) -> Result<()>,
    ) -> Result<Response> {
        self.say(request)?;
        loop {
            let (response, fd) = self.hear()?;
            let Some(notice) = response.notify.as_ref().filter(|_| response.kind() == Type::Notify)
            else {
                return Ok(response);
            };
            let done = notified(notice, fd);
            self.say(&Request {
                kind: Type::Notify.into(),
                notify_success: Some(done.is_ok()),
                ..Request::default()
            })?;
            done?;
        }
    }

    fn say(&self, request: &Request) -> Result<()> {
        socket::send(&self.socket, &request.encode_to_vec(), None).wrap(|| "speak to criu")
    }

    fn hear(&self) -> Result<(Response, Option<OwnedFd>)> {
        let (data, fd) = socket::receive(&self.socket, LIMIT).wrap(|| "hear criu")?;
        match data.split_first() {
            None => Err(Error::new("criu ended without an answer")),
            Some((&CANNOT, text)) => Err(Error::new(String::from_utf8_lossy(text))),
            Some(_) => Response::decode(data.as_slice())
                .map(|response| (response, fd))
                .map_err(|e| Error::new(format!("criu's answer is garbled: {e}"))),
        }
    }
}

impl Drop for Worker {
    /// criu ends when its request is done; one that is stuck, or was refused something, is ended.
    fn drop(&mut self) {
        let ended = process::pidfd_open(self.pid)
            .and_then(|pidfd| {
                let patience = std::time::Duration::from_secs(5);
                let ready = signal::poll(&[(pidfd.as_fd(), libc::POLLIN)], Some(patience))?;
                Ok(ready != [0])
            })
            .unwrap_or(true);
        if !ended {
            drop(process::kill(self.pid, libc::SIGKILL));
        }
        drop(process::waitpid(self.pid, 0));
    }
}

/// Makes the child in its cgroup and mount namespace, or with the doors to its groups.
fn fork(birth: &Birth<'_>) -> Result<(Fork, Vec<OwnedFd>)> {
    let flags = if birth.mounts.is_some() { libc::CLONE_NEWNS as u64 } else { 0 };
    match birth.cgroup {
        Some(cgroup) => clone_into(flags, cgroup, cgroup.doors()?, None),
        None => Ok((process::clone(flags, None)?, Vec::new())),
    }
}

/// The child's half: what it is to have, then criu.
///
/// criu looks up descriptors of directories in the process that made its socket. Made here, they
/// are its own, of its own mount namespace, in which alone it can mount.
fn become_worker(
    program: &Path,
    birth: &Birth<'_>,
    doors: &[OwnedFd],
    parent: &OwnedFd,
) -> Result<std::convert::Infallible> {
    let (far, socket) = socket::pair()?;
    for door in doors {
        fs::write_once(door, b"0").wrap(|| "enter the container's cgroup")?;
    }
    if let Some(mounts) = &birth.mounts {
        mount_root(mounts.root, mounts.place)?;
        for (fd, path) in &birth.directories {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY;
            fs::replace(fd, fs::openat(fs::CWD, path, flags, 0)?)?;
        }
    }
    if !birth.stdio {
        let null = fs::openat(fs::CWD, Path::new("/dev/null"), libc::O_RDWR, 0)?;
        (0..3).try_for_each(|number| fs::dup_onto(&null, number))?;
    }
    let directories = birth.directories.iter().map(|(fd, _)| fd);
    let kept = birth.keep.iter().chain(directories).copied().chain([socket.as_fd()]);
    kept.into_iter().try_for_each(fs::keep_across_exec)?;
    signal::default_dispositions();
    signal::unblock_all()?;
    let words = ["criu".to_owned(), "swrk".to_owned(), socket.as_raw_fd().to_string()];
    let argv = words.into_iter().map(sys::cstring).collect::<Result<Vec<_>>>()?;
    let variables = std::env::vars_os().map(|(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        sys::cstring(name.into_vec())
    });
    let envp = variables.collect::<Result<Vec<_>>>()?;
    socket::send(parent, b"S", Some(far.as_fd()))?;
    drop(far);
    let Err(error) = process::execve(program, &argv, &envp);
    let mut text = vec![CANNOT];
    text.extend(error.to_string().into_bytes());
    drop(socket::send(&socket, &text, None));
    process::exit(1)
}

/// The root directory must be a mount point, and is one for criu and its children alone.
fn mount_root(source: &Path, target: &Path) -> Result<()> {
    use sys::mount;
    mount::set_propagation(Path::new("/"), libc::MS_REC | libc::MS_SLAVE)?;
    let tree = mount::clone_tree(fs::CWD, source, true).wrap(|| "open the root file system")?;
    let place = fs::openat(fs::CWD, target, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    mount::attach(&tree, &place).wrap(|| "mount the root file system for criu")
}

/// Refuses an option that criu or this kernel lacks, by its name.
pub fn require(features: Features, option: &str) -> Result<()> {
    let worker = Worker::start(&Birth::default())?;
    let request =
        Request { kind: Type::FeatureCheck.into(), features: Some(features), ..Request::default() };
    let found = worker.ask(&request, |_, _| Ok(()))?.features.unwrap_or_default();
    let lacks = |wanted: Option<bool>, has: Option<bool>| wanted == Some(true) && has != Some(true);
    if lacks(features.mem_track, found.mem_track) || lacks(features.lazy_pages, found.lazy_pages) {
        return Err(Error::new(format!("{option}: criu says that this kernel cannot do it")));
    }
    Ok(())
}

/// criu's failure in words: the last error of its log, and where the log is.
pub fn failure(what: &str, response: &Response, log: &Path) -> Error {
    let text = std::fs::read(log).unwrap_or_default();
    let said = last_error(&String::from_utf8_lossy(&text)).or_else(|| response.cr_errmsg.clone());
    let errno = response.cr_errno.filter(|n| *n != 0).map(|n| errno::describe(n.abs()));
    let why = said.or(errno).unwrap_or_else(|| "it does not say why".into());
    Error::new(format!("criu {what} failed: {}; the whole log is {}", why.trim(), log.display()))
}

/// The last line `(time) Error (file:line): words` before the verdict that all has failed; what
/// follows that is about the cleaning up.
fn last_error(log: &str) -> Option<String> {
    let errors = log.lines().filter_map(|line| {
        let (_, rest) = line.split_once("Error (")?;
        rest.split_once("): ").map(|(_, words)| words.trim())
    });
    let told: Vec<&str> = errors.collect();
    let verdict = told.iter().position(|words| words.ends_with("FAILED."));
    let before = verdict.filter(|at| *at > 0).map(|at| told[at - 1]);
    before.or(told.last().copied()).map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rpc::Options;

    #[test]
    fn a_request_has_the_bytes_that_criu_expects() {
        let opts =
            Options { images_dir_fd: 3, pid: Some(7), log_level: Some(4), ..Options::default() };
        let request = Request { kind: Type::Dump.into(), opts: Some(opts), ..Request::default() };
        assert_eq!(request.encode_to_vec(), [8, 1, 18, 6, 8, 3, 16, 7, 72, 4]);
    }

    #[test]
    fn an_answer_is_read_and_unknown_fields_are_passed_over() {
        let bytes = [8, 2, 16, 1, 34, 2, 8, 42, 88, 9];
        let response = Response::decode(bytes.as_slice()).unwrap();
        assert!(response.success && response.kind() == Type::Restore);
        assert_eq!(response.restore.map(|r| r.pid), Some(42));
    }

    #[test]
    fn the_error_that_tells_most_is_found() {
        let log = "(00.01) Warn  (criu/a.c:1): odd\n(00.02) Error (criu/sk-unix.c:9): unix: no\n\
                   (00.03) Error (criu/cr-dump.c:7): Dumping FAILED.\n\
                   (00.04) Error (criu/cgroup.c:8): cgroupd is gone\n";
        assert_eq!(last_error(log).as_deref(), Some("unix: no"));
        assert_eq!(
            last_error("(0) Error (x:1): Dumping FAILED.\n").as_deref(),
            Some("Dumping FAILED.")
        );
        assert_eq!(last_error(""), None);
    }
}
