//! Terminals (ioctl_tty(2), termios(3)).

use super::{check, check_fd};
use crate::error::Result;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Unlocks the other end of the pseudoterminal whose master is `master` (TIOCSPTLCK).
pub fn unlock(master: impl AsFd) -> Result<()> {
    let raw = master.as_fd().as_raw_fd();
    let zero: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    let r = unsafe { libc::ioctl(raw, libc::TIOCSPTLCK as _, &zero) };
    check(r, || format!("ioctl({raw}, TIOCSPTLCK)")).map(drop)
}

/// Opens the other end without going through a path (TIOCGPTPEER, Linux 4.13).
pub fn peer(master: impl AsFd) -> Result<OwnedFd> {
    let raw = master.as_fd().as_raw_fd();
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes the open flags as a number.
    let fd = unsafe { libc::ioctl(raw, libc::TIOCGPTPEER as _, flags) };
    check_fd(fd.into(), || format!("ioctl({raw}, TIOCGPTPEER)"))
}

/// Makes the terminal on `fd` the controlling one of this session (TIOCSCTTY).
pub fn make_controlling(fd: impl AsFd) -> Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: TIOCSCTTY takes a number.
    let r = unsafe { libc::ioctl(raw, libc::TIOCSCTTY as _, 0) };
    check(r, || format!("ioctl({raw}, TIOCSCTTY)")).map(drop)
}

/// Sets the window size in characters (TIOCSWINSZ).
pub fn set_size(fd: impl AsFd, rows: u16, columns: u16) -> Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads the structure.
    let r = unsafe { libc::ioctl(raw, libc::TIOCSWINSZ as _, &size) };
    check(r, || format!("ioctl({raw}, TIOCSWINSZ, {rows}x{columns})")).map(drop)
}

/// The window size in characters: rows, columns (TIOCGWINSZ).
pub fn size(fd: impl AsFd) -> Result<(u16, u16)> {
    let raw = fd.as_fd().as_raw_fd();
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ fills the structure.
    let r = unsafe { libc::ioctl(raw, libc::TIOCGWINSZ as _, &mut size) };
    check(r, || format!("ioctl({raw}, TIOCGWINSZ)"))?;
    Ok((size.ws_row, size.ws_col))
}

/// A terminal's settings, to be put back later.
#[derive(Clone)]
pub struct Settings(libc::termios);

/// tcgetattr(3); fails with ENOTTY on anything but a terminal.
pub fn settings(fd: impl AsFd) -> Result<Settings> {
    let raw = fd.as_fd().as_raw_fd();
    let mut termios = std::mem::MaybeUninit::uninit();
    // SAFETY: tcgetattr fills the structure, which is read only after success.
    unsafe {
        check(libc::tcgetattr(raw, termios.as_mut_ptr()), || format!("tcgetattr({raw})"))?;
        Ok(Settings(termios.assume_init()))
    }
}

/// tcsetattr(3) with TCSANOW.
pub fn apply(fd: impl AsFd, settings: &Settings) -> Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: the structure came from tcgetattr.
    let r = unsafe { libc::tcsetattr(raw, libc::TCSANOW, &settings.0) };
    check(r, || format!("tcsetattr({raw})")).map(drop)
}

impl Settings {
    /// The raw mode of cfmakeraw(3): every byte passes as it is.
    pub fn raw(&self) -> Self {
        let mut copy = self.clone();
        // SAFETY: the structure is initialised.
        unsafe { libc::cfmakeraw(&mut copy.0) };
        copy
    }
}
