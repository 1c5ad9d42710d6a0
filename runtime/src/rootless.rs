//! Whether we act for a user rather than for the host: run by one, or as root of a user namespace
//! that one has made (rootless podman runs us so).

use crate::sys::process;

/// Are we in another user namespace than the host's?
pub fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !is_whole(&map))
}

/// The map of the first user namespace: every id is itself (user_namespaces(7)).
fn is_whole(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Do we act for a user? The root of a user namespace does, if it has a user's surroundings; that
/// of a system container, which boots a systemd of its own, does not.
pub fn acts_for_user() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let surroundings = || set("XDG_RUNTIME_DIR") || set("DBUS_SESSION_BUS_ADDRESS");
    process::euid() != 0 || (surroundings() && in_user_namespace())
}

/// Our user id as those outside of our user namespace see it.
pub fn outer_uid() -> u32 {
    let own = process::euid();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    outside(&map, own).unwrap_or(own)
}

fn outside(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let [inside, outside, count] =
            [numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?];
        let offset = id.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_namespaces_map_is_whole() {
        assert!(is_whole("         0          0 4294967295\n"));
        assert!(!is_whole("0 1000 1\n1 100000 65536\n"));
        assert!(!is_whole(""));
    }

    #[test]
    fn ids_are_seen_from_outside() {
        let map = "0 1000 1\n1 100000 65536\n";
        assert_eq!(outside(map, 0), Some(1000));
        assert_eq!(outside(map, 7), Some(100_006));
        assert_eq!(outside(map, 70_000), None);
    }
}
