//! A real registry (Debian's docker-registry) on a free loopback port.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::command::detached;
use crate::{find_program, wait_until};

/// A running registry; it ends, and its storage stays in the scratch directory, on drop.
#[derive(Debug)]
pub struct Registry {
    child: Child,
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
        let log = fs::File::create(dir.join("registry.log")).expect("create the registry's log");
        let child = detached(&program)
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start docker-registry");
        let registry = Registry { child, address };
        assert!(
            wait_until(|| TcpStream::connect(&registry.address).is_ok()),
            "docker-registry does not listen on {}",
            registry.address
        );
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
