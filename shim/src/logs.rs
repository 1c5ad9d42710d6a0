//! `shim logs`: what a container has printed, its stdout to ours and its stderr to ours.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify;

use crate::cli::{Global, Logs};
use crate::container::Container;
use crate::error::{Context, Error, Result, code};
use crate::log::Stream;
use crate::log::reader::{Entry, MidLine, Reader};
use crate::places;
use crate::process::Recorded;

/// Prints a log. Ends quietly when nobody reads it any more.
///
/// # Errors
/// When the container has no log that can be read back.
pub fn logs(global: &Global, args: &Logs) -> Result<u8> {
    let since = args.since.as_deref().map(|text| parse_since(text, Timestamp::now()));
    let since = since.transpose()?;
    let root = places::state_dir(global.state.as_deref())?;
    let container = Container::find(&root, &args.name)?;
    let path = log_path(&container)?;
    let file = File::open(&path).wrap_with(|| format!("open the log {}", path.display()))?;
    let mut reader = Reader::new(file);
    if let Some(tail) = args.tail {
        reader.seek_to_last(tail).wrap("read the log")?;
    }
    let mut printer = Printer {
        since,
        timestamps: args.timestamps,
        lines: MidLine::default(),
        hidden: [false; 2],
    };
    let printed = match args.follow {
        false => printer.print_all(&mut reader),
        true => follow(&container, &path, &mut reader, &mut printer),
    };
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        printed => printed.map(|()| 0).wrap_with(|| format!("print {}", path.display())),
    }
}

fn log_path(container: &Container) -> Result<std::path::PathBuf> {
    let name = &container.config.name;
    let path = container.config.log.clone();
    let path =
        path.ok_or_else(|| Error::new(format!("container {name}: it runs with --log none")))?;
    let readable = std::fs::metadata(&path).map_or(true, |meta| meta.is_file());
    match readable {
        true => Ok(path),
        false => Err(Error::new(format!(
            "container {name}: its log {} is no regular file",
            path.display()
        ))),
    }
}

struct Printer {
    since: Option<Timestamp>,
    timestamps: bool,
    lines: MidLine,
    /// Streams whose present line began before `since`.
    hidden: [bool; 2],
}

impl Printer {
    fn print_all(&mut self, reader: &mut Reader) -> io::Result<()> {
        let mut stdout = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
        let mut stderr = io::stderr().lock();
        let mut show = |entry: &Entry<'_>| {
            let begins = self.lines.advance(entry);
            if begins {
                self.hidden[entry.stream as usize] = self.is_too_old(entry);
            }
            if self.hidden[entry.stream as usize] {
                return Ok(());
            }
            let time = if begins && self.timestamps { entry.time } else { "" };
            match entry.stream {
                Stream::Stdout => write_entry(&mut stdout, time, entry),
                Stream::Stderr => write_entry(&mut stderr, time, entry),
            }
        };
        while reader.next(&mut show)? {}
        stdout.flush()
    }

    fn is_too_old(&self, entry: &Entry<'_>) -> bool {
        let time = || entry.time.parse::<Timestamp>().ok();
        self.since.is_some_and(|since| time().is_some_and(|time| time < since))
    }
}

fn write_entry(out: &mut impl Write, time: &str, entry: &Entry<'_>) -> io::Result<()> {
    let mut line = Vec::with_capacity(time.len() + entry.text.len() + 2);
    if !time.is_empty() {
        line.extend_from_slice(time.as_bytes());
        line.push(b' ');
    }
    line.extend_from_slice(entry.text);
    if entry.full {
        line.push(b'\n');
    }
    out.write_all(&line)
}

/// Prints until the container's keepers are gone and everything was read.
fn follow(
    container: &Container,
    path: &Path,
    reader: &mut Reader,
    printer: &mut Printer,
) -> io::Result<()> {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let events = inotify::init(flags)?;
    inotify::add_watch(&events, path, inotify::WatchFlags::MODIFY)?;
    loop {
        // Looked at before the reading: what they wrote until their end is then read.
        let keeper = keeper(container);
        printer.print_all(reader)?;
        let Some(keeper) = keeper else { return Ok(()) };
        await_change(&events, &keeper)?;
    }
}

/// The process whose end means that the log is complete.
fn keeper(container: &Container) -> Option<OwnedFd> {
    let open =
        |name| Recorded::read(&container.dir().join(name)).and_then(|process| process.open());
    open("reaper").or_else(|| open("monitor")).or_else(|| open("init"))
}

fn await_change(events: &OwnedFd, keeper: &OwnedFd) -> io::Result<()> {
    let stdout = io::stdout();
    let mut fds = [
        PollFd::new(events, PollFlags::IN),
        PollFd::new(keeper, PollFlags::IN),
        // Only for POLLERR: the reader of our pipe is gone.
        PollFd::new(&stdout, PollFlags::empty()),
    ];
    match rustix::event::poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    if fds[2].revents().contains(PollFlags::ERR) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let mut buffer = [0u8; 4096];
    // One event or a hundred: the log is read to its end either way.
    while rustix::io::read(events, &mut buffer).is_ok_and(|length| length > 0) {}
    Ok(())
}

/// An RFC 3339 time, or a duration before `now` in s, m, h or d.
fn parse_since(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let wrong = || {
        Error::new(format!(
            "--since {text:?}: neither a time like 2026-01-31T12:00:00Z nor a duration like 90s, 10m, 2h, 1d"
        ))
        .with_code(code::USAGE)
    };
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    let split = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, seconds)));
    let (digits, seconds) = split.ok_or_else(wrong)?;
    let count: i64 = digits.parse().map_err(|_| wrong())?;
    let ago = count.checked_mul(*seconds).filter(|_| count >= 0).ok_or_else(wrong)?;
    now.checked_sub(SignedDuration::from_secs(ago)).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_a_duration() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00Z"),
            ("90s", "2026-01-01T23:58:30Z"),
            ("1d", "2026-01-01T00:00:00Z"),
        ] {
            assert_eq!(parse_since(text, now).unwrap().to_string(), expected);
        }
        for bad in ["", "s", "10", "-1s", "1w", "yesterday", "é", "999999999999999999d"] {
            assert!(parse_since(bad, now).is_err(), "{bad}");
        }
    }
}
