//! Moving network devices into the container's namespace (config-linux.md, Network Devices).
//!
//! The kernel drops a device's addresses when the device changes its namespace, so they are read
//! before and set again after the move. The parent does all of it: the devices are its namespace's.

use crate::error::{Context, Error, Result};
use crate::plan::namespaces::Kind;
use crate::plan::net_devices::NetDevice;
use crate::sys::netlink::Netlink;
use crate::sys::{failed, fs, process};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

/// Length of struct ifaddrmsg.
const ADDRESS: usize = 8;
/// An address that is nobody's to renew (if_addr.h, IFA_F_PERMANENT).
const PERMANENT: u8 = 0x80;

/// Moves the devices into the network namespace of the process `pid`.
pub fn move_all(devices: &[NetDevice], pid: i32) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let target = namespace_of(&pid.to_string())?;
    let mut here = Netlink::open()?;
    let mut there = open_in(&target)?;
    devices.iter().try_for_each(|device| {
        move_one(device, &target, &mut here, &mut there)
            .wrap(|| format!("linux.netDevices[{:?}]", device.from))
    })
}

fn namespace_of(process: &str) -> Result<OwnedFd> {
    let path = PathBuf::from(format!("/proc/{process}/ns/{}", Kind::Network.file()));
    fs::openat(fs::CWD, &path, libc::O_RDONLY, 0)
}

/// A netlink socket belongs to the namespace in which it is opened, wherever its owner is later.
fn open_in(target: &OwnedFd) -> Result<Netlink> {
    let ours = namespace_of("self")?;
    process::setns(target, Kind::Network.flag())
        .wrap(|| "linux.netDevices: look into the container's network namespace")?;
    let opened = Netlink::open();
    process::setns(&ours, Kind::Network.flag())
        .wrap(|| "linux.netDevices: return to our network namespace")?;
    opened
}

fn move_one(
    device: &NetDevice,
    target: &OwnedFd,
    here: &mut Netlink,
    there: &mut Netlink,
) -> Result<()> {
    let index = index_of(here, &device.from)?;
    if index_of(there, &device.to).is_ok() {
        // Told before the move: with a virtual device's new namespace ends the device.
        return Err(failed(libc::EEXIST, || format!("the container has a device {}", device.to)));
    }
    let addresses = addresses(here, index)?;
    let mut body = link(index, 0, 0);
    put(&mut body, libc::IFLA_NET_NS_FD, &target.as_raw_fd().to_ne_bytes())?;
    put(&mut body, libc::IFLA_IFNAME, &terminated(&device.to))?;
    let call = || format!("RTM_NEWLINK(move {} to the container as {})", device.from, device.to);
    here.request(libc::RTM_NEWLINK, 0, &body, call)?;
    let index = index_of(there, &device.to)?;
    for address in addresses {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let call = || format!("RTM_NEWADDR({})", device.to);
        there.request(libc::RTM_NEWADDR, flags, &address.on(index)?, call)?;
    }
    let up = libc::IFF_UP as u32;
    let call = || format!("RTM_NEWLINK({}, IFF_UP)", device.to);
    there.request(libc::RTM_NEWLINK, 0, &link(index, up, up), call).map(drop)
}

/// struct ifinfomsg.
fn link(index: i32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(change.to_ne_bytes());
    body
}

fn index_of(netlink: &mut Netlink, name: &str) -> Result<i32> {
    let mut body = link(0, 0, 0);
    put(&mut body, libc::IFLA_IFNAME, &terminated(name))?;
    let call = || format!("RTM_GETLINK({name})");
    let answers = netlink.request(libc::RTM_GETLINK, 0, &body, call)?;
    let index = answers.first().and_then(|answer| answer.get(4..8)?.try_into().ok());
    index.map(i32::from_ne_bytes).ok_or_else(|| Error::new(format!("{}: no answer", call())))
}

/// An address of a device, as the kernel tells it.
struct Address {
    family: u8,
    prefix: u8,
    /// Address, local address, broadcast address, as far as they are set.
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// The body of a request to give it to the device `index`.
    fn on(&self, index: i32) -> Result<Vec<u8>> {
        let mut body = vec![self.family, self.prefix, PERMANENT, libc::RT_SCOPE_UNIVERSE];
        body.extend(index.to_ne_bytes());
        for (kind, value) in &self.attributes {
            put(&mut body, *kind, value)?;
        }
        Ok(body)
    }

    /// Reads an answer to RTM_GETADDR; `None` for another device's, and for what the kernel makes
    /// by itself: link-local and temporary addresses.
    fn read(answer: &[u8], index: i32) -> Option<Self> {
        let [family, prefix, flags, scope, device @ ..] = answer.get(..ADDRESS)? else {
            return None;
        };
        let theirs = i32::from_ne_bytes(device.try_into().ok()?) != index;
        if theirs || flags & PERMANENT == 0 || *scope != libc::RT_SCOPE_UNIVERSE {
            return None;
        }
        let kept = [libc::IFA_ADDRESS, libc::IFA_LOCAL, libc::IFA_BROADCAST];
        let attributes = attributes(answer.get(ADDRESS..)?);
        let attributes = attributes.into_iter().filter(|(kind, _)| kept.contains(kind)).collect();
        Some(Self { family: *family, prefix: *prefix, attributes })
    }
}

fn addresses(netlink: &mut Netlink, index: i32) -> Result<Vec<Address>> {
    let call = || "RTM_GETADDR".to_string();
    let answers = netlink.request(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; ADDRESS], call)?;
    Ok(answers.iter().filter_map(|answer| Address::read(answer, index)).collect())
}

fn terminated(name: &str) -> Vec<u8> {
    name.bytes().chain([0]).collect()
}

/// Appends an attribute (struct rtattr): length, kind, value, and filling to four bytes.
///
/// The length has 16 bits; a longer value must not wrap around to a short one and have its rest
/// read as attributes of their own (CVE-2021-43784).
fn put(body: &mut Vec<u8>, kind: u16, value: &[u8]) -> Result<()> {
    let length = u16::try_from(4 + value.len()).map_err(|_| {
        Error::new(format!("netlink: an attribute of {} bytes is too long", value.len()))
    })?;
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
    Ok(())
}

/// The attributes of a message; one that is longer than what is left ends them.
fn attributes(mut data: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut all = Vec::new();
    while let [a, b, c, d, ..] = data {
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        let Some(value) = data.get(4..length) else { break };
        all.push((u16::from_ne_bytes([*c, *d]), value.to_vec()));
        data = &data[length.next_multiple_of(4).min(data.len())..];
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_longer_than_its_length_can_say_is_refused() {
        let mut body = Vec::new();
        let e = put(&mut body, libc::IFLA_IFNAME, &vec![0; 65_533]).unwrap_err().to_string();
        assert!(e.contains("65533") && body.is_empty(), "{e}");
    }

    #[test]
    fn attributes_survive_the_way() {
        let mut body = Vec::new();
        put(&mut body, 3, b"eth0\0").unwrap();
        put(&mut body, 1, &[10, 0, 0, 1]).unwrap();
        assert_eq!(body.len(), 12 + 8);
        assert_eq!(attributes(&body), [(3, b"eth0\0".to_vec()), (1, vec![10, 0, 0, 1])]);
        assert_eq!(attributes(&body[..14]).len(), 1);
        assert_eq!(attributes(&[2, 0, 0, 0]), []);
    }

    #[test]
    fn loopback_has_an_index() {
        let mut netlink = Netlink::open().unwrap();
        assert!(index_of(&mut netlink, "lo").unwrap() > 0);
        let e = index_of(&mut netlink, "no-such-device").unwrap_err();
        assert_eq!(e.errno(), Some(libc::ENODEV), "{e}");
    }
}
