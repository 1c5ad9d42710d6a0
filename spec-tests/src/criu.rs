//! Checkpoints: whether CRIU works here, and the two verbs on a directory of the case's own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::command::detached;
use crate::{Bundle, Case, Outcome, find_program, wait_until};

/// Whether CRIU is installed and knows this kernel.
///
/// # Errors
/// The reason for a skip.
pub fn works() -> Result<(), String> {
    let output = detached(&find_program("criu")?).arg("check").output();
    let output = output.map_err(|e| format!("criu does not start: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = text.lines().rfind(|line| line.contains("Error")).unwrap_or("criu check fails");
    Err(format!("CRIU does not know this kernel: {}", last.trim()))
}

/// Ends the calling test as skipped where CRIU does not work, or where the runtime under test cannot
/// do this at all.
#[macro_export]
macro_rules! needs_criu {
    ($case:expr) => {
        if let Err(reason) = $crate::criu::works() {
            $crate::skip!("{reason}");
        }
        $crate::differs!(
            $case,
            ["runc", "crun"],
            "it cannot leave out a stdout that is the host's file"
        );
    };
}

/// The images of one case.
#[derive(Debug)]
pub struct Images<'a> {
    case: &'a Case,
    /// Their directory.
    pub dir: PathBuf,
}

impl<'a> Images<'a> {
    /// A directory that is not there yet.
    pub fn new(case: &'a Case, name: &str) -> Images<'a> {
        Images { case, dir: case.dir().join(name) }
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = self.case.command();
        command.arg(verb).arg("--image-path").arg(&self.dir);
        command
    }

    /// `checkpoint --image-path DIR FLAGS… ID`
    #[track_caller]
    pub fn checkpoint(&self, bundle: &Bundle, flags: &[&str]) -> Outcome {
        let mut command = self.command("checkpoint");
        command.args(flags).arg(&bundle.id);
        self.case.outcome(command)
    }

    /// `restore --image-path DIR --bundle BUNDLE FLAGS… ID`
    #[track_caller]
    pub fn restore(&self, bundle: &Bundle, flags: &[&str]) -> Outcome {
        bundle.write();
        let mut command = self.command("restore");
        command.arg("--bundle").arg(&bundle.dir).args(flags).arg(&bundle.id);
        self.case.outcome(command)
    }

    /// `checkpoint`, after which nothing of the container is left, and `restore --detach`, after
    /// which it runs.
    #[track_caller]
    pub fn round_trip(&self, bundle: &Bundle, flags: &[&str]) -> Outcome {
        self.there_and_back(bundle, flags, flags)
    }

    /// As [`Images::round_trip`], with flags of the first verb and of the second.
    #[track_caller]
    pub fn there_and_back(&self, bundle: &Bundle, there: &[&str], flags: &[&str]) -> Outcome {
        self.checkpoint(bundle, there).quiet_success();
        self.case.assert_gone(bundle);
        let restored = self.restore(bundle, &[flags, &["--detach"]].concat());
        restored.quiet_success();
        assert_eq!(self.case.status(bundle), "running");
        restored
    }

    /// How many bytes of memory the images hold.
    pub fn pages(&self) -> u64 {
        let entries = fs::read_dir(&self.dir).expect("read the images").flatten();
        let pages = entries.filter(|e| e.file_name().to_string_lossy().starts_with("pages-"));
        pages.map(|e| e.metadata().expect("look at an image").blocks_in_bytes()).sum()
    }
}

trait Blocks {
    fn blocks_in_bytes(&self) -> u64;
}

impl Blocks for fs::Metadata {
    fn blocks_in_bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        self.blocks() * 512
    }
}

/// A program that counts in /count, in memory: one that is begun anew begins with 1 again. Its stdout
/// leads to that file for the time of each echo, and elsewhere in between.
pub const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.02; done";

/// A bundle that runs [`COUNTER`].
pub fn counter(case: &Case) -> Bundle {
    case.bundle().writable().sh(COUNTER)
}

/// [`counter`], started, with a directory for its images.
#[track_caller]
pub fn counting(case: &Case) -> (Bundle, Images<'_>) {
    let bundle = counter(case);
    case.start(&bundle);
    (bundle, Images::new(case, "images"))
}

/// Another container of the same configuration on the same root file system, with a name and a
/// cgroup of its own.
pub fn twin(case: &Case, bundle: &Bundle) -> Bundle {
    let mut other = case.bundle_without_root();
    let path = other.config["linux"]["cgroupsPath"].clone();
    other.config = bundle.config.clone();
    other.config["linux"]["cgroupsPath"] = path;
    other.set("/root/path", bundle.rootfs().to_str().expect("UTF-8"))
}

/// A bundle that counts, and has a megabyte and a half of noise in its memory that do not change: not
/// enough for a huge page, which the kernel would make of it in the meantime, and call changed.
pub fn remembering(case: &Case) -> Bundle {
    case.bundle().writable().sh(
        "x=$(head -c 1100000 /dev/urandom | base64); echo \"$x\" | md5sum > /before; i=0; \
         while :; do i=$((i+1)); echo $i > /count; sleep 0.05; \
         if test -e /root/ask -a ! -e /after; then echo \"$x\" | md5sum > /new; mv /new /after; fi; \
         done",
    )
}

/// Asserts that [`remembering`] has the same noise in its memory as at the beginning.
#[track_caller]
pub fn assert_remembers(bundle: &Bundle) {
    let read = |name: &str| fs::read_to_string(bundle.rootfs().join(name)).unwrap_or_default();
    assert!(read("before").len() > 32, "it has no noise yet");
    fs::write(bundle.rootfs().join("root/ask"), "").expect("ask for its memory");
    assert!(wait_until(|| !read("after").is_empty()), "it does not answer");
    assert_eq!(read("after"), read("before"), "its memory is another");
}

/// What [`COUNTER`] has reached.
pub fn count(bundle: &Bundle) -> u64 {
    let text = || fs::read_to_string(bundle.rootfs().join("count")).unwrap_or_default();
    // A file that is being written is empty for a moment.
    let mut count = 0;
    wait_until(|| {
        count = text().trim().parse().unwrap_or(0);
        count > 0
    });
    count
}

/// Asserts that [`COUNTER`] goes on from where it was.
#[track_caller]
pub fn assert_counts_on(bundle: &Bundle, before: u64) {
    assert!(wait_until(|| count(bundle) != before), "it stays at {before}");
    let after = count(bundle);
    assert!(after > before, "it was at {before}, and is at {after}");
}

/// What [`COUNTER`] has reached, asked of an engine: `cat` runs `cat /count` in the container.
pub fn count_by(cat: impl Fn() -> Outcome) -> u64 {
    let mut count = 0;
    wait_until(|| {
        count = cat().stdout.trim().parse().unwrap_or(0);
        count > 0
    });
    count
}
