//! `shim attach`: join a running container.

use crate::cli::{Attach, Global};
use crate::client::{Outcome, Session, catch_signals};
use crate::container::Container;
use crate::detach::DetachKeys;
use crate::error::{Error, Result};
use crate::launch::{nobody_knows, recorded};
use crate::protocol::Hello;
use crate::{places, socket};

/// Attaches until the container ends, and returns its exit code, or until the detach keys
/// are typed, and returns 0.
///
/// # Errors
/// When the container does not run, or drops us because we are too slow.
pub fn attach(global: &Global, args: &Attach) -> Result<u8> {
    let keys = DetachKeys::parse(&args.detach_keys)?;
    let root = places::state_dir(global.state.as_deref())?;
    let container = Container::find(&root, &args.name)?;
    let hello = Hello { output: true, foreground: false };
    let signals = catch_signals(!args.no_signals)?;
    let socket = socket::connect(&container.dir(), hello).map_err(|_| {
        Error::new(format!("container {}: it is not running", container.config.name))
    })?;
    let mut session = Session::new(&container, hello, keys, signals);
    session.stdin &= !args.no_stdin;
    match session.run(socket)? {
        Outcome::Exited(code) => Ok(code),
        Outcome::Detached => Ok(0),
        Outcome::Abandoned => recorded(&container).ok_or_else(|| nobody_knows(&container)),
    }
}
