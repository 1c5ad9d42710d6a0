//! One blob on its way into the store, over as many connections and processes as it takes.
//!
//! The bytes so far are a file in the store that outlives a killed process and a registry that is
//! away for long; whoever pulls the blob next hashes them and asks for the rest. A large blob is
//! fetched in pieces, several at a time, but written from its start to its end: so the length of
//! the file says all there is to say about it.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::sync::{Condvar, Mutex};

use ureq::http::StatusCode;

use super::remote::{Answer, Remote};
use super::retry::{self, Failure};
use crate::descriptor::Descriptor;
use crate::progress::Bar;
use crate::store::{BlobWriter, Store};
use crate::{Error, Result};

/// A smaller rest is not worth several connections, in bytes.
const WORTH_PIECES: u64 = 32 << 20;
/// The pieces that are in memory at a time have together about so many bytes.
const IN_FLIGHT: u64 = 16 << 20;
/// The least that a piece has.
const MIN_PIECE: u64 = 1 << 20;

/// How a large blob is fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes {
    count: usize,
    /// In bytes.
    piece: u64,
}

impl Lanes {
    /// Shares so many connections, and the memory for pieces, among so many blobs.
    pub(super) fn shared(jobs: usize, blobs: usize) -> Lanes {
        let piece = (IN_FLIGHT / jobs.max(1) as u64).max(MIN_PIECE);
        Lanes { count: jobs / blobs.max(1), piece }
    }
}

/// Fetches a blob, verifies it and stores it.
pub(super) fn fetch(
    remote: &Remote,
    store: &Store,
    blob: &Descriptor,
    lanes: Lanes,
    bar: &Bar,
) -> Result<()> {
    let mut download = Download::resume(store, blob)?;
    let continued = download.have > 0;
    download.fetch(remote, lanes, bar)?;
    match download.commit() {
        // What was found may be damaged, as after a power cut.
        Err(_) if continued => {
            let mut download = Download::resume(store, blob)?;
            download.fetch(remote, lanes, bar)?;
            download.commit()
        }
        result => result,
    }
}

struct Download<'a> {
    writer: Option<BlobWriter>,
    blob: &'a Descriptor,
    have: u64,
}

impl<'a> Download<'a> {
    /// Takes up what another process has left, if it left anything.
    fn resume(store: &Store, blob: &'a Descriptor) -> Result<Download<'a>> {
        let writer = store.resume_blob(blob)?;
        Ok(Download { have: writer.size(), writer: Some(writer), blob })
    }

    fn fetch(&mut self, remote: &Remote, mut lanes: Lanes, bar: &Bar) -> Result<()> {
        let mut may_pass = false;
        let reached = Cell::new(self.have);
        let result = remote.retry_from(&reached, || {
            bar.set(self.have);
            let result = match lanes.count > 1 && self.blob.size - self.have >= WORTH_PIECES {
                true => self.in_pieces(remote, lanes, bar),
                false => self.rest(remote, bar),
            };
            // Whatever a registry has against pieces, it may have nothing against one stream.
            lanes.count = 1;
            reached.set(self.have);
            result.inspect_err(|e| may_pass = matches!(e, Failure::Transient { .. }))
        });
        if result.is_err()
            && may_pass
            && self.have > 0
            && let Some(writer) = self.writer.take()
        {
            writer.leave();
        }
        result
    }

    /// Fetches what is missing as one stream.
    fn rest(&mut self, remote: &Remote, bar: &Bar) -> Result<(), Failure> {
        let response = match remote.get_blob(self.blob, self.have, self.blob.size)? {
            Answer::Bytes(response) => response,
            Answer::NoSuchRange(error) => {
                self.restart()?;
                return Err(Failure::transient(error));
            }
        };
        let skip = if response.status() == StatusCode::OK { self.have } else { 0 };
        let what = response.what().to_owned();
        self.receive(&mut response.into_reader(), skip, bar, &what)
    }

    fn restart(&mut self) -> Result<()> {
        self.have = 0;
        self.writer().restart()
    }

    fn writer(&mut self) -> &mut BlobWriter {
        self.writer.as_mut().expect("it is left or committed only at the end")
    }

    fn write(&mut self, bytes: &[u8], bar: &Bar) -> Result<()> {
        self.writer().write_all(bytes)?;
        self.have += bytes.len() as u64;
        bar.add(bytes.len() as u64);
        Ok(())
    }

    /// Takes bytes up to the size that the manifest gives, and insists that the stream ends there.
    fn receive(
        &mut self,
        reader: &mut impl Read,
        skip: u64,
        bar: &Bar,
        what: &str,
    ) -> Result<(), Failure> {
        let lost = |e: io::Error| retry::read_failure(e, what);
        let skipped = io::copy(&mut reader.take(skip), &mut io::sink()).map_err(lost)?;
        if skipped < skip {
            return Err(truncated(what, skipped, self.blob.size));
        }
        let mut buf = vec![0; 1 << 16];
        while self.have < self.blob.size {
            let left = self.blob.size - self.have;
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            let n = match reader.read(&mut buf[..want]) {
                Ok(0) => return Err(truncated(what, self.have, self.blob.size)),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(lost(e)),
            };
            self.write(&buf[..n], bar)?;
        }
        match reader.read(&mut buf[..1]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Error::new(format!(
                "{what}: longer than the {} bytes of the manifest",
                self.blob.size
            ))
            .into()),
            // All that was promised has come; the digest decides.
            Err(_) => Ok(()),
        }
    }

    /// Fetches what is missing over several connections. Each fetches the next piece into memory
    /// and waits until all before it is written.
    fn in_pieces(&mut self, remote: &Remote, lanes: Lanes, bar: &Bar) -> Result<(), Failure> {
        let blob = self.blob;
        let piece = lanes.piece;
        let line = Line { next: self.have, download: self, failure: None };
        let line = (Mutex::new(line), Condvar::new());
        std::thread::scope(|scope| {
            for _ in 0..lanes.count {
                scope.spawn(|| {
                    while let Some(start) = take_number(&line, piece, blob.size) {
                        let end = (start + piece).min(blob.size);
                        let bytes = fetch_piece(remote, blob, start, end);
                        hand_in(&line, start, bytes, bar);
                    }
                });
            }
        });
        match line.0.into_inner().expect("no thread panics with the lock").failure {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn commit(mut self) -> Result<()> {
        match self.writer.take() {
            Some(writer) => writer.commit_as(&self.blob.digest).map(drop),
            None => Ok(()),
        }
    }
}

/// What the connections share: where the next piece starts, and the first failure.
struct Line<'a, 'b> {
    next: u64,
    download: &'a mut Download<'b>,
    failure: Option<Failure>,
}

type Shared<'a, 'b> = (Mutex<Line<'a, 'b>>, Condvar);

/// Where the next piece starts; `None` at the end, or after a failure.
fn take_number(line: &Shared<'_, '_>, piece: u64, size: u64) -> Option<u64> {
    let mut line = line.0.lock().expect("no thread panics with the lock");
    let start = line.next;
    line.next = start.saturating_add(piece);
    (start < size && line.failure.is_none()).then_some(start)
}

fn fetch_piece(
    remote: &Remote,
    blob: &Descriptor,
    start: u64,
    end: u64,
) -> Result<Vec<u8>, Failure> {
    let response = match remote.get_blob(blob, start, end)? {
        Answer::Bytes(response) if response.status() == StatusCode::PARTIAL_CONTENT => response,
        Answer::Bytes(response) => {
            let what = format!("{}: no part of it is to be had", response.what());
            return Err(Failure::transient(Error::new(what)));
        }
        Answer::NoSuchRange(error) => return Err(Failure::transient(error)),
    };
    let what = response.what().to_owned();
    let size = (end - start) as usize;
    let mut bytes = Vec::with_capacity(size);
    let mut reader = response.into_reader().take(end - start);
    reader.read_to_end(&mut bytes).map_err(|e| retry::read_failure(e, &what))?;
    match bytes.len() == size {
        true => Ok(bytes),
        false => Err(truncated(&what, bytes.len() as u64, end - start)),
    }
}

/// Writes a piece when its turn has come.
fn hand_in((line, turn): &Shared<'_, '_>, start: u64, bytes: Result<Vec<u8>, Failure>, bar: &Bar) {
    let mut line = line.lock().expect("no thread panics with the lock");
    while line.failure.is_none() && line.download.have != start {
        line = turn.wait(line).expect("no thread panics with the lock");
    }
    if line.failure.is_none() {
        let written = bytes.and_then(|b| Ok(line.download.write(&b, bar)?));
        line.failure = written.err();
    }
    turn.notify_all();
}

fn truncated(what: &str, have: u64, size: u64) -> Failure {
    Failure::transient(Error::new(format!("{what}: ended after {have} of {size} bytes")))
}
