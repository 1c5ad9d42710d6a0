//! Reads k8s-file logs back: entries become the bytes that the container wrote.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use super::Stream;

/// One entry of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// RFC 3339, as written.
    pub time: &'a str,
    /// Which stream.
    pub stream: Stream,
    /// The newline came with this entry.
    pub full: bool,
    /// The text, without newline.
    pub text: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads one line of a log, without its newline; `None` when it is not in the format.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        // CRI allows further tags after a colon.
        let full = match parts.next()?.split(|byte| *byte == b':').next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self { time, stream, full, text: parts.next()? })
    }
}

/// Which streams are in the middle of a line.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct MidLine([bool; 2]);

impl MidLine {
    /// Takes note of an entry; returns whether it begins a line.
    pub fn advance(&mut self, entry: &Entry<'_>) -> bool {
        let middle = &mut self.0[entry.stream as usize];
        let begins = !*middle;
        *middle = !entry.full;
        begins
    }
}

/// A log that may still grow.
#[derive(Debug)]
pub struct Reader {
    file: BufReader<File>,
    /// The beginning of an entry whose end is not written yet.
    line: Vec<u8>,
    /// Lines that were begun before the place where the reading begins: not shown.
    skipped: MidLine,
}

impl Reader {
    /// Reads from the beginning.
    pub fn new(file: File) -> Self {
        Self {
            file: BufReader::with_capacity(64 << 10, file),
            line: Vec::new(),
            skipped: MidLine::default(),
        }
    }

    /// Moves to where the last `count` lines of what is there now begin. A line that is
    /// not finished counts.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn seek_to_last(&mut self, count: usize) -> io::Result<()> {
        let mut starts: VecDeque<(u64, MidLine)> = VecDeque::new();
        let (mut offset, mut state) = (0u64, MidLine::default());
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = self.file.read_until(b'\n', &mut line)? as u64;
            let Some(entry) = line.strip_suffix(b"\n").and_then(Entry::parse) else {
                if length == 0 || !line.ends_with(b"\n") {
                    break;
                }
                offset += length;
                continue;
            };
            let before = state;
            if state.advance(&entry) {
                starts.push_back((offset, before));
                if starts.len() > count {
                    starts.pop_front();
                }
            }
            offset += length;
        }
        let (offset, skipped) = starts.front().copied().unwrap_or((offset, state));
        self.skipped = skipped;
        self.file.seek(SeekFrom::Start(offset))?;
        Ok(())
    }

    /// Gives the next whole entry to `show`; false at the present end of the file.
    ///
    /// # Errors
    /// Those of read(2) and of `show`.
    pub fn next(&mut self, show: &mut dyn FnMut(&Entry<'_>) -> io::Result<()>) -> io::Result<bool> {
        loop {
            // Bounded: a file that is no log at all must not end up in memory.
            let mut limited = self.file.by_ref().take(1 << 20);
            if limited.read_until(b'\n', &mut self.line)? == 0 {
                return Ok(false);
            }
            let Some(line) = self.line.strip_suffix(b"\n") else {
                if self.line.len() >= 1 << 20 {
                    self.line.clear();
                }
                continue;
            };
            let shown = match Entry::parse(line) {
                Some(entry) => {
                    let skip = self.skipped.0[entry.stream as usize];
                    self.skipped.0[entry.stream as usize] = skip && !entry.full;
                    if skip { None } else { Some(show(&entry)) }
                }
                None => None,
            };
            self.line.clear();
            if let Some(shown) = shown {
                return shown.map(|()| true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"T1 stdout F one\nT2 stderr P err\nT3 stdout P t\nT4 stdout F wo\n\
                         rubbish\nT5 stderr F or\nT6 stdout F \nT7 stdout P last";

    fn read(log: &[u8], tail: Option<usize>) -> Vec<String> {
        let path = std::env::temp_dir().join(format!(
            "shim-reader-{}-{tail:?}-{}",
            std::process::id(),
            log.len()
        ));
        std::fs::write(&path, log).unwrap();
        let mut reader = Reader::new(File::open(&path).unwrap());
        if let Some(tail) = tail {
            reader.seek_to_last(tail).unwrap();
        }
        let mut seen = Vec::new();
        let mut show = |entry: &Entry<'_>| {
            let text = String::from_utf8_lossy(entry.text);
            seen.push(format!("{}{}{}", entry.time, text, if entry.full { "\n" } else { "" }));
            Ok(())
        };
        while reader.next(&mut show).unwrap() {}
        std::fs::remove_file(path).unwrap();
        seen
    }

    #[test]
    fn whole_entries_are_read_and_half_written_ones_wait() {
        let all = ["T1one\n", "T2err", "T3t", "T4wo\n", "T5or\n", "T6\n"];
        assert_eq!(read(LOG, None), all);
        let whole = [LOG, b"\n"].concat();
        assert_eq!(read(&whole, None).last().unwrap(), "T7last");
    }

    #[test]
    fn the_last_lines_begin_at_their_beginning() {
        assert_eq!(read(LOG, Some(0)), Vec::<String>::new());
        assert_eq!(read(LOG, Some(1)), ["T6\n"]);
        // The stderr line began before: its end is not shown alone.
        assert_eq!(read(LOG, Some(2)), ["T3t", "T4wo\n", "T6\n"]);
        assert_eq!(read(LOG, Some(3)).first().unwrap(), "T2err");
        assert_eq!(read(LOG, Some(99)).len(), 6);
    }
}
