//! Containers in a user namespace of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use crate::{Bundle, Case};

/// The id of the host that is root in such a container.
pub const FIRST: u32 = 100_000;

/// A bundle whose root belongs to host id 100000, mapped to root inside.
pub fn mapped(case: &Case) -> Bundle {
    let mapping = json!([{ "containerID": 0, "hostID": FIRST, "size": 65536 }]);
    let bundle = case
        .bundle()
        .namespace("user", None)
        .set("/linux/uidMappings", mapping.clone())
        .set("/linux/gidMappings", mapping);
    give_away(&bundle.rootfs());
    open_up(&bundle.dir);
    bundle
}

fn give_away(path: &Path) {
    std::os::unix::fs::lchown(path, Some(FIRST), Some(FIRST)).expect("change an owner");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("read a directory").flatten() {
            give_away(&entry.path());
        }
    }
}

/// The mapped root must be able to walk to its root file system.
fn open_up(dir: &Path) {
    for dir in dir.ancestors().take_while(|dir| *dir != Path::new("/")) {
        if fs::metadata(dir).is_ok_and(|meta| meta.permissions().mode() & 0o5 != 0o5) {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("chmod");
        }
    }
}
