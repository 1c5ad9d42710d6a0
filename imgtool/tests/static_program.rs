//! The program needs nothing of the system that it runs on: in a root directory that holds only it
//! and `/etc/resolv.conf`, it finds a registry by name.

mod server;

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use server::{Model, Server};

/// Where a name server must be: its port cannot be configured, so it has an address of its own.
const NAME_SERVER: &str = "127.93.53.1";

/// Knows `registry.test` as 127.0.0.1 and nothing else.
fn serve_names(socket: &UdpSocket) {
    let mut buf = [0; 512];
    while let Ok((n, from)) = socket.recv_from(&mut buf) {
        let query = &buf[..n];
        let known = query.windows(15).any(|w| w == b"\x08registry\x04test\0");
        let is_a = query[n - 3] == 1;
        let mut answer = query.to_vec();
        answer[2] |= 0x80;
        match (known, is_a) {
            (false, _) => answer[3] = 3,
            (true, false) => {}
            (true, true) => {
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            }
        }
        socket.send_to(&answer, from).unwrap();
    }
}

struct Jail(PathBuf);

impl Drop for Jail {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn finds_a_registry_by_name_in_an_empty_root() {
    let Ok(socket) = UdpSocket::bind((NAME_SERVER, 53)) else {
        eprintln!("skipped: cannot be a name server on {NAME_SERVER}:53 (needs root)");
        return;
    };
    std::thread::spawn(move || serve_names(&socket));
    let jail = Jail(std::env::temp_dir().join(format!("imgtool-jail-{}", std::process::id())));
    std::fs::create_dir_all(jail.0.join("etc")).unwrap();
    std::fs::write(jail.0.join("etc/resolv.conf"), format!("nameserver {NAME_SERVER}\n")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_imgtool"), jail.0.join("imgtool")).unwrap();
    std::fs::set_permissions(jail.0.join("imgtool"), PermissionsExt::from_mode(0o755)).unwrap();

    let model = Model::default();
    let server = Server::start(move |r| model.serve(r));
    let pull = |host: &str| {
        let name = format!("{host}:{}/x:1", server.address.port());
        let output = Command::new("chroot")
            .arg(&jail.0)
            .args(["/imgtool", "--store", "/store", "pull", "--plain-http", &name])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .output()
            .unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    // The registry is empty: that it says so proves that it was found.
    let e = pull("registry.test");
    assert!(e.contains("MANIFEST_UNKNOWN"), "{e}");
    assert_eq!(server.requests("GET", "/v2/x/manifests/1").len(), 1);
    let e = pull("other.test");
    assert!(
        e.contains(&format!("cannot resolve other.test: no such host; asked {NAME_SERVER}")),
        "{e}"
    );
}
