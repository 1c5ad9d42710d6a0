//! Progress on standard error: bars with rates on a terminal, one line for each finished transfer
//! elsewhere.

use std::io::{self, IsTerminal, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{DecimalBytes, MultiProgress, ProgressBar, ProgressStyle};

/// Where progress goes.
#[derive(Clone, Debug)]
pub struct Progress(Mode);

#[derive(Clone, Debug)]
enum Mode {
    Hidden,
    Lines,
    Bars(Arc<MultiProgress>),
}

impl Progress {
    /// Bars on a terminal, lines elsewhere, nothing if quiet.
    pub fn new(quiet: bool) -> Progress {
        match (quiet, io::stderr().is_terminal()) {
            (true, _) => Progress(Mode::Hidden),
            (false, true) => Progress(Mode::Bars(Arc::default())),
            (false, false) => Progress(Mode::Lines),
        }
    }

    /// Bars on a terminal and nothing elsewhere, for verbs that are silent on success.
    pub fn on_terminal(quiet: bool) -> Progress {
        match Progress::new(quiet).0 {
            Mode::Bars(bars) => Progress(Mode::Bars(bars)),
            _ => Progress(Mode::Hidden),
        }
    }

    /// Says something that is not a transfer.
    pub fn line(&self, text: &str) {
        match &self.0 {
            Mode::Hidden => {}
            // A standard error that is gone must not stop the work.
            Mode::Lines => drop(writeln!(io::stderr(), "{text}")),
            Mode::Bars(bars) => drop(bars.println(text)),
        }
    }

    /// A bar for one transfer of so many bytes, if that is known.
    pub fn bar(&self, label: impl Into<String>, size: Option<u64>) -> Bar {
        let label = label.into();
        let bar = match &self.0 {
            Mode::Bars(bars) => {
                let bar = size.map_or_else(ProgressBar::no_length, ProgressBar::new);
                let bar =
                    bars.add(bar.with_style(style(size.is_some())).with_prefix(label.clone()));
                bar.enable_steady_tick(Duration::from_millis(200));
                bar
            }
            _ => ProgressBar::hidden(),
        };
        Bar { progress: self.clone(), bar, label, started: Instant::now() }
    }
}

fn style(sized: bool) -> ProgressStyle {
    let template = match sized {
        true => {
            "{prefix:20} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {msg}"
        }
        false => "{prefix:20} {spinner} {decimal_bytes} {decimal_bytes_per_sec} {msg}",
    };
    ProgressStyle::with_template(template).expect("a constant template").progress_chars("=> ")
}

/// One transfer.
#[derive(Clone, Debug)]
pub struct Bar {
    progress: Progress,
    bar: ProgressBar,
    label: String,
    started: Instant,
}

impl Bar {
    /// Counts bytes.
    pub fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Starts again from this many bytes, after an interruption.
    pub fn set(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    /// Counts what is read.
    pub fn reader<R: Read>(&self, inner: R) -> Counting<R> {
        Counting { inner, bar: self.clone() }
    }

    /// Counts what is written.
    pub fn writer<W: Write>(&self, inner: W) -> Counting<W> {
        Counting { inner, bar: self.clone() }
    }

    /// Ends with what became of it: `done`, `already there`.
    pub fn finish(&self, outcome: &str) {
        self.bar.finish_with_message(outcome.to_owned());
        if let Mode::Lines = self.progress.0 {
            let (size, seconds) = (self.bar.position(), self.started.elapsed().as_secs_f64());
            let rate = DecimalBytes((size as f64 / seconds.max(0.001)) as u64);
            self.progress.line(&match size {
                0 => format!("{}: {outcome}", self.label),
                _ => format!("{}: {outcome}, {} at {rate}/s", self.label, DecimalBytes(size)),
            });
        }
    }

    /// Ends without a trace.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Counts the bytes of a stream on a bar.
#[derive(Debug)]
pub struct Counting<T> {
    inner: T,
    bar: Bar,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).inspect(|n| self.bar.add(*n as u64))
    }
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.inner.write(buf).inspect(|n| self.bar.add(*n as u64))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
