//! A real registry (Debian's docker-registry) on a free loopback port.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use crate::command::detached;
use crate::daemon::Daemon;
use crate::find_program;

/// A running registry; it ends, and its storage stays in the scratch directory, on drop.
#[derive(Debug)]
pub struct Registry {
    _daemon: Daemon,
    /// `127.0.0.1:PORT`
    pub address: String,
}

impl Registry {
    /// Starts a registry that keeps its data below `dir`, and waits until it answers.
    ///
    /// # Errors
    /// A missing docker-registry, as the reason for a skip.
    ///
    /// # Panics
    /// When it does not start to listen.
    pub fn start(dir: &Path) -> Result<Registry, String> {
        let program = find_program("docker-registry")?;
        let free = TcpListener::bind("127.0.0.1:0").expect("find a free port");
        let address = free.local_addr().expect("a bound address").to_string();
        drop(free);
        let config = dir.join("registry.yml");
        let data = dir.join("registry");
        let text = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\n  delete: {{ enabled: true }}\nhttp:\n  addr: {address}\n",
            data.display()
        );
        fs::write(&config, text).expect("write the registry's configuration");
        let mut command = detached(&program);
        command.arg("serve").arg(&config);
        let daemon = Daemon::start(command, dir, || TcpStream::connect(&address).is_ok());
        Ok(Registry { _daemon: daemon, address })
    }
}
