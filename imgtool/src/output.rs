//! Standard output: a closed one ends the program quietly, any other failure is an error. And
//! files that people ask for by name.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::path::{Path, PathBuf};

use crate::error::Kind;
use crate::{Error, Result};

/// Writes text to standard output.
pub fn print(text: &str) -> Result<()> {
    let mut out = Stdout::lock();
    out.write_all(text.as_bytes())?;
    out.finish()
}

/// Each on a line of its own, without control characters, which come from hostile servers.
pub fn lines(items: &[String]) -> String {
    let clean = |item: &String| item.chars().filter(|c| !c.is_control()).collect::<String>();
    items.iter().map(|item| clean(item) + "\n").collect()
}

/// Writes a file that appears whole or not at all; a device or pipe is written as it is.
pub fn to_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    if path.metadata().is_ok_and(|m| !m.is_file()) {
        let mut out = BufWriter::new(File::options().write(true).open(path)?);
        write(&mut out)?;
        return Ok(out.flush()?);
    }
    let mut temp = path.as_os_str().to_owned();
    temp.push(format!(".{}.tmp", std::process::id()));
    let temp = PathBuf::from(temp);
    let result = fill(&temp, write).and_then(|()| Ok(std::fs::rename(&temp, path)?));
    if result.is_err() {
        drop(std::fs::remove_file(&temp));
    }
    result
}

fn fill(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, File::create(path)?);
    write(&mut out)?;
    out.flush()?;
    Ok(out.get_ref().sync_all()?)
}

/// Standard output for bulk data.
#[derive(Debug)]
pub struct Stdout(BufWriter<StdoutLock<'static>>);

impl Stdout {
    /// Takes standard output, whatever it is.
    pub fn lock() -> Stdout {
        Stdout(BufWriter::with_capacity(1 << 16, io::stdout().lock()))
    }

    /// Takes standard output for an archive, which nobody wants on a terminal.
    pub fn for_archive() -> Result<Stdout> {
        if io::stdout().is_terminal() {
            return Err(Error::usage(
                "refusing to write an archive to a terminal; use -o FILE or a pipe",
            ));
        }
        Ok(Stdout::lock())
    }

    /// Writes what is buffered; to be called at the end, since dropping hides failures.
    pub fn finish(mut self) -> Result<()> {
        Ok(self.flush()?)
    }
}

fn name_stdout(e: io::Error) -> io::Error {
    let kind = match e.kind() {
        io::ErrorKind::BrokenPipe => Kind::StdoutClosed,
        _ => Kind::Other,
    };
    Error::with_kind(kind, Error::from(e).to_string()).wrap("write to standard output").into()
}

impl Write for Stdout {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf).map_err(name_stdout)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(name_stdout)
    }
}
