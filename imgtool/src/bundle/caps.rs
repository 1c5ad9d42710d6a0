//! Capabilities: the kernel's names, dockerd's default set, and what is added and dropped.

/// Every capability that Linux has, in the order of their numbers.
const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What dockerd grants.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// `ALL`, or a capability with or without `CAP_`, in any case; the result is the full name.
pub fn parse(text: &str) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    if upper == "ALL" {
        return Ok(upper);
    }
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    match ALL.contains(&full.as_str()) {
        true => Ok(full),
        false => Err("no capability has this name".into()),
    }
}

/// The container's capabilities. `dropped` wins over `added`, but not where everything is dropped:
/// then `added` is all there is. `available` has a bit for each that can be granted; what is asked
/// for by its own name is kept even so, for the runtime to refuse.
pub(crate) fn grant(
    added: &[String],
    dropped: &[String],
    privileged: bool,
    available: u64,
) -> Vec<String> {
    let has = |list: &[String], cap: &str| list.iter().any(|c| c == cap);
    let (all, none) = (has(added, "ALL"), has(dropped, "ALL"));
    let granted = |(number, cap): &(usize, &&str)| {
        let possible = available >> number & 1 == 1;
        match (has(added, cap), has(dropped, cap)) {
            _ if privileged => possible,
            (true, _) if none => true,
            (_, true) => false,
            (true, false) => true,
            (false, false) => possible && (all || !none && DEFAULT.contains(cap)),
        }
    };
    ALL.iter().enumerate().filter(granted).map(|(_, cap)| (*cap).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(added: &[&str], dropped: &[&str]) -> Vec<String> {
        let list = |caps: &[&str]| caps.iter().map(|c| parse(c).unwrap()).collect::<Vec<_>>();
        grant(&list(added), &list(dropped), false, u64::MAX)
    }

    #[test]
    fn added_and_dropped() {
        assert_eq!(grants(&[], &[]).len(), 14);
        assert_eq!(grants(&["ALL"], &[]).len(), 41);
        assert_eq!(grants(&["ALL"], &["chown"]).len(), 40);
        assert_eq!(grants(&[], &["ALL"]), Vec::<String>::new());
        assert_eq!(grants(&["cap_net_admin"], &["ALL"]), ["CAP_NET_ADMIN"]);
        assert!(grants(&["NET_ADMIN"], &[]).contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(!grants(&["SYS_ADMIN"], &["SYS_ADMIN"]).contains(&"CAP_SYS_ADMIN".to_owned()));
        assert!(parse("nonsense").is_err());
    }

    #[test]
    fn what_we_lack_is_not_granted_wholesale() {
        let few = grant(&[], &[], true, ((1 << 37) - 1) & !1);
        assert_eq!(few.first().unwrap(), "CAP_DAC_OVERRIDE");
        assert_eq!(few.last().unwrap(), "CAP_BLOCK_SUSPEND");
        assert_eq!(grant(&["CAP_BPF".to_owned()], &[], false, 0), ["CAP_BPF"]);
    }
}
