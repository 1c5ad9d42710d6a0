//! Hands the listener of a seccomp filter to the agent that answers for it
//! (config-linux.md, The Container Process State; seccomp_unotify(2)).
//!
//! The filter is installed by the child, and from then on calls with `SCMP_ACT_NOTIFY` wait for
//! the agent. So the child says no more than the number of its descriptor, with a call that the
//! plan has seen to be free; the parent, whom no filter holds, takes the descriptor and delivers it.

use crate::error::{Context, Error, Result};
use crate::hooks::State;
use crate::plan::seccomp::Listener;
use crate::sys::{fs, process, socket};
use serde::Serialize;
use std::os::fd::{AsFd, OwnedFd};

/// What the agent reads beside the descriptor, in the specification's names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    /// What the descriptors are that come along, in their order.
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: &'a State<'a>,
}

/// Takes descriptor `number` out of the process `pid` and sends it to the agent.
pub fn deliver(
    listener: &Listener,
    (pid, pidfd): (i32, &OwnedFd),
    number: i32,
    state: &State<'_>,
) -> Result<()> {
    let fd = process::pidfd_getfd(pidfd, number)
        .wrap(|| "take the listener from the container's process (it needs ptrace(2) access)")?;
    let told = ContainerProcessState {
        oci_version: crate::SPEC_VERSION,
        fds: ["seccompFd"],
        pid,
        metadata: &listener.metadata,
        state,
    };
    send(listener, &fd, &serde_json::to_vec(&told).map_err(|e| Error::new(e.to_string()))?)
        .wrap(|| format!("linux.seccomp.listenerPath: hand the listener to {:?}", listener.path))
}

/// One stream: the descriptor goes with the first byte, and the end is its end.
fn send(listener: &Listener, fd: &OwnedFd, text: &[u8]) -> Result<()> {
    let agent = socket::connect(&listener.path)?;
    let mut sent = socket::send_some(&agent, text, Some(fd.as_fd()))?;
    while sent < text.len() {
        sent += fs::write(&agent, &text[sent..])?;
    }
    Ok(())
}
