//! `k8s-file`, the Kubernetes CRI log format, as conmon writes it:
//!
//! ```text
//! 2026-11-21T07:29:51.123456789+00:00 stdout F a whole line
//! 2026-11-21T07:29:51.123456789+00:00 stderr P the beginning of one
//! ```
//!
//! `P` marks text after which no newline has been read yet; the line goes on in the next
//! entry of the same stream. A stream that ends in the middle of a line gets no closing `F`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::Stream;

/// Formatted bytes are written once they are this many.
const BATCH: usize = 32 << 10;
/// How often the counters of lost output are published while output is being lost.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// An open log file.
#[derive(Debug)]
pub struct K8sFile {
    file: File,
    regular: bool,
    batch: Vec<u8>,
    entries: u64,
    clock: Clock,
    lost: Lost,
}

impl K8sFile {
    /// Opens (and makes) the file for appending. A FIFO must have a reader: opening never
    /// waits.
    ///
    /// # Errors
    /// Those of open(2), for the log and for the file of counters.
    pub fn open(path: &Path, lost: &Path) -> io::Result<Self> {
        let file = open_for_append(path)?;
        Ok(Self {
            regular: file.metadata()?.is_file(),
            file,
            batch: Vec::new(),
            entries: 0,
            clock: Clock::default(),
            lost: Lost::open(lost)?,
        })
    }

    /// Whether a log can be kept at `path`.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn probe(path: &Path) -> io::Result<()> {
        open_for_append(path).map(drop)
    }

    /// Appends a chunk as one entry per line, all with the time of the call.
    pub fn write(&mut self, stream: Stream, chunk: &[u8]) {
        let now = SystemTime::now();
        for line in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.entry(now, stream, line);
            if self.batch.len() >= BATCH {
                self.flush();
            }
        }
        self.flush();
    }

    fn entry(&mut self, now: SystemTime, stream: Stream, line: &[u8]) {
        self.clock.stamp(now, &mut self.batch);
        let (tag, text): (&[u8], _) = match line.strip_suffix(b"\n") {
            Some(text) => (b" F ", text),
            None => (b" P ", line),
        };
        self.batch.push(b' ');
        self.batch.extend_from_slice(stream.name().as_bytes());
        self.batch.extend_from_slice(tag);
        self.batch.extend_from_slice(text);
        self.batch.push(b'\n');
        self.entries += 1;
    }

    /// A batch that does not fit is taken back as a whole, so that the file holds complete
    /// entries only, and is counted as lost.
    fn flush(&mut self) {
        let mut written = 0;
        while written < self.batch.len() {
            let error = match (&self.file).write(&self.batch[written..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(length) => {
                    written += length;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            self.take_back(written as u64);
            self.lost.add(self.entries, self.batch.len() as u64, &error);
            break;
        }
        self.batch.clear();
        self.entries = 0;
    }

    fn take_back(&self, written: u64) {
        if let Ok(meta) = self.file.metadata()
            && self.regular
            && written > 0
        {
            // A file that cannot be shortened keeps half an entry; readers skip it.
            let _ = self.file.set_len(meta.len().saturating_sub(written));
        }
    }

    /// Syncs the file and publishes the counters.
    pub fn finish(&mut self) {
        if self.regular
            && let Err(error) = self.file.sync_data()
        {
            self.lost.add(0, 0, &error);
        }
        self.lost.publish();
    }
}

fn open_for_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

/// Writes RFC 3339 times; the part that changes once a second is kept.
#[derive(Debug, Default)]
struct Clock {
    second: Option<u64>,
    text: String,
}

impl Clock {
    fn stamp(&mut self, now: SystemTime, out: &mut Vec<u8>) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.text = seconds(since.as_secs());
        }
        out.extend_from_slice(self.text.as_bytes());
        // Nine digits by hand: `write!` costs more than all the rest of an entry.
        let mut nanos = since.subsec_nanos();
        let mut digits = *b".000000000+00:00";
        for digit in digits[1..10].iter_mut().rev() {
            *digit += (nanos % 10) as u8;
            nanos /= 10;
        }
        out.extend_from_slice(&digits);
    }
}

fn seconds(since_epoch: u64) -> String {
    let time = i64::try_from(since_epoch).ok();
    let time = time.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let time = time.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

/// What could not be written: `ENTRIES BYTES REASON`, one line in a file whose bytes are
/// allocated beforehand, since the disk may be full when it is needed.
#[derive(Debug)]
struct Lost {
    file: File,
    entries: u64,
    bytes: u64,
    reason: String,
    published: Option<Instant>,
}

const LOST_WIDTH: usize = 128;

impl Lost {
    fn open(path: &Path) -> io::Result<Self> {
        let before = read_lost(path).unwrap_or_default();
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut lost = Self {
            file,
            entries: before.entries,
            bytes: before.bytes,
            reason: before.reason,
            published: None,
        };
        lost.publish();
        Ok(lost)
    }

    fn add(&mut self, entries: u64, bytes: u64, error: &io::Error) {
        self.entries += entries;
        self.bytes += bytes;
        self.reason = error.to_string();
        if self.published.is_none_or(|at| at.elapsed() >= PUBLISH_EVERY) {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let mut line = format!("{} {} {}", self.entries, self.bytes, self.reason);
        line.truncate(LOST_WIDTH - 1);
        // There is no place left to complain about the failure of this one.
        let _ = self.file.write_all_at(format!("{line:<127}\n").as_bytes(), 0);
        self.published = Some(Instant::now());
    }
}

/// What a log could not hold.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LostOutput {
    /// Entries (lines and beginnings of lines) that are missing.
    pub entries: u64,
    /// Their size in the log's format, in bytes.
    pub bytes: u64,
    /// Why the last of them could not be written.
    pub reason: String,
}

/// Reads the counters that a log keeps beside it; `None` when there are none.
pub fn read_lost(path: &Path) -> Option<LostOutput> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut parts = text.trim_end().splitn(3, ' ');
    Some(LostOutput {
        entries: parts.next()?.parse().ok()?,
        bytes: parts.next()?.parse().ok()?,
        reason: parts.next().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("shim-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn lines_partial_lines_and_empty_lines() {
        let dir = scratch("k8s");
        let mut log = K8sFile::open(&dir.join("log"), &dir.join("lost")).unwrap();
        log.write(Stream::Stdout, b"one\n\ntw");
        log.write(Stream::Stdout, b"o\n");
        log.write(Stream::Stderr, b"x");
        log.finish();
        let text = std::fs::read_to_string(dir.join("log")).unwrap();
        let tails: Vec<&str> = text.lines().map(|line| &line[36..]).collect();
        assert_eq!(tails, ["stdout F one", "stdout F ", "stdout P tw", "stdout F o", "stderr P x"]);
        for line in text.lines() {
            let stamp: jiff::Timestamp = line[..35].parse().unwrap();
            assert!(stamp.duration_until(jiff::Timestamp::now()).as_secs() < 60);
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn stamps_keep_every_nanosecond() {
        let mut out = Vec::new();
        let mut clock = Clock::default();
        for nanos in [0, 7, 123_456_789] {
            let at = SystemTime::UNIX_EPOCH + Duration::new(86_400, nanos);
            clock.stamp(at, &mut out);
            out.push(b'\n');
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1970-01-02T00:00:00.000000000+00:00\n1970-01-02T00:00:00.000000007+00:00\n\
             1970-01-02T00:00:00.123456789+00:00\n"
        );
    }

    #[test]
    fn a_full_disk_is_counted_and_the_count_survives_reopening() {
        let dir = scratch("full");
        for _ in 0..2 {
            let mut log = K8sFile::open(Path::new("/dev/full"), &dir.join("lost")).unwrap();
            log.write(Stream::Stdout, b"one\ntwo\n");
            log.finish();
        }
        let lost = read_lost(&dir.join("lost")).unwrap();
        assert_eq!(lost.entries, 4);
        assert!(lost.reason.contains("No space left"), "{lost:?}");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
