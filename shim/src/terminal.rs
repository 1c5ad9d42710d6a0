//! The user's own terminal: raw while a session lasts, and as it was on every way out.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use rustix::termios::{OptionalActions, Termios};

use crate::error::{Context, Result};

/// What to put back, kept where the panic hook finds it too: release builds abort on
/// panic, without unwinding.
static BEFORE: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// Raw mode for as long as this lives.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Switches the terminal behind `fd` to raw mode.
    ///
    /// # Errors
    /// Those of tcgetattr(3) and tcsetattr(3).
    pub fn enter(fd: impl AsFd) -> Result<Self> {
        let handle = fd.as_fd().try_clone_to_owned().wrap("dup the terminal")?;
        let before = rustix::termios::tcgetattr(&handle).wrap("tcgetattr")?;
        let mut raw = before.clone();
        raw.make_raw();
        if let Ok(mut slot) = BEFORE.lock() {
            *slot = Some((handle, before));
        }
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            earlier(info);
        }));
        rustix::termios::tcsetattr(fd, OptionalActions::Now, &raw).wrap("tcsetattr")?;
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let before = BEFORE.lock().ok().and_then(|mut slot| slot.take());
    if let Some((terminal, before)) = before {
        // The terminal may be gone (SIGHUP): then there is nothing to restore.
        let _ = rustix::termios::tcsetattr(terminal, OptionalActions::Drain, &before);
    }
}

/// Rows and columns of the first of the standard streams that is a terminal.
pub fn size() -> Option<(u16, u16)> {
    let of = |fd: std::os::fd::BorrowedFd<'_>| rustix::termios::tcgetwinsize(fd).ok();
    let size = of(rustix::stdio::stdin())
        .or_else(|| of(rustix::stdio::stdout()))
        .or_else(|| of(rustix::stdio::stderr()))?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}
