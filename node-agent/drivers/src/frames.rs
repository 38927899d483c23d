//! Frames that the agent sends by itself, and multicast addresses at which a device receives.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socket_with};
use thiserror::Error;

use crate::netlink::Link;
use crate::sys::packet;

/// Groups that one socket joins: the kernel bounds what a socket may ask for (`net.core.optmem_max`).
const GROUPS_OF_SOCKET: usize = 128;

/// Why a device could not be used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "fields are the object named in the message, and the source")]
pub enum Error {
    /// There is no socket for the device.
    #[error("cannot open a packet socket for device {device} (is the right CAP_NET_RAW missing?)")]
    Open { device: String, source: io::Error },
    /// The device cannot be told of a group.
    #[error("device {device} cannot receive what is sent to {group}")]
    Group { device: String, group: Ipv6Addr, source: io::Error },
}

/// Sends frames by one device. Nothing is received.
#[derive(Debug)]
pub struct FrameSender {
    socket: OwnedFd,
    device: String,
}

impl FrameSender {
    /// # Errors
    /// [`Error::Open`].
    pub fn open(device: &Link) -> Result<Self, Error> {
        let failed = |source| Error::Open { device: device.name.clone(), source };
        Ok(Self { socket: packet::frame_socket(device.index).map_err(failed)?, device: device.name.clone() })
    }

    /// Sends a frame from its Ethernet header on. It does not wait.
    ///
    /// # Errors
    /// The device is down or gone, or its queue is full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.socket, frame, SendFlags::empty())?;
        Ok(())
    }

    /// Whether the device is up and has a link. A device that cannot be asked has none.
    pub fn has_carrier(&self) -> bool {
        packet::is_running(&self.socket, &self.device).unwrap_or(false)
    }
}

/// Multicast groups of IPv6 whose frames a device takes: its filter is told, which outlives this process, and so are switches (MLD),
/// as long as it lives.
#[derive(Debug)]
pub struct Groups {
    device: Link,
    sockets: Vec<Members>,
}

#[derive(Debug)]
struct Members {
    socket: OwnedFd,
    groups: BTreeMap<Ipv6Addr, [u8; 6]>,
}

impl Groups {
    /// None yet.
    pub fn new(device: &Link) -> Self {
        Self { device: device.clone(), sockets: Vec::new() }
    }

    /// Joins these groups, each with its MAC address, and leaves all others. One that fails keeps none of the others out.
    ///
    /// # Errors
    /// [`Error::Group`]: the first that failed.
    pub fn set(&mut self, groups: &BTreeMap<Ipv6Addr, [u8; 6]>) -> Result<(), Error> {
        let mut outcome = Ok(());
        for members in &mut self.sockets {
            for (gone, mac) in members.groups.extract_if(.., |group, _| !groups.contains_key(group)) {
                outcome = outcome.and(leave(&members.socket, &self.device, gone, mac));
            }
        }
        for (group, mac) in groups {
            if !self.sockets.iter().any(|members| members.groups.contains_key(group)) {
                outcome = outcome.and(self.join(*group, *mac).map_err(|source| self.failed(*group, source)));
            }
        }
        outcome
    }

    fn failed(&self, group: Ipv6Addr, source: io::Error) -> Error {
        Error::Group { device: self.device.name.clone(), group, source }
    }

    fn join(&mut self, group: Ipv6Addr, mac: [u8; 6]) -> io::Result<()> {
        let is_free = |members: &Members| members.groups.len() < GROUPS_OF_SOCKET;
        let at = match self.sockets.iter().position(is_free) {
            Some(at) => at,
            None => {
                let socket =
                    socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
                self.sockets.push(Members { socket, groups: BTreeMap::new() });
                self.sockets.len() - 1
            }
        };
        let members = &mut self.sockets[at];
        packet::filter_multicast(&members.socket, &self.device.name, mac, true)?;
        rustix::net::sockopt::set_ipv6_add_membership(&members.socket, &group, self.device.index)?;
        members.groups.insert(group, mac);
        Ok(())
    }
}

/// A device that is gone has no groups any more.
fn leave(socket: &OwnedFd, device: &Link, group: Ipv6Addr, mac: [u8; 6]) -> Result<(), Error> {
    let filtered = packet::filter_multicast(socket, &device.name, mac, false);
    let left = rustix::net::sockopt::set_ipv6_drop_membership(socket, &group, device.index);
    let is_gone = |error: &io::Error| {
        [Some(libc::ENODEV), Some(libc::ENOENT), Some(libc::EADDRNOTAVAIL)].contains(&error.raw_os_error())
    };
    match filtered.and(left.map_err(io::Error::from)) {
        Err(source) if !is_gone(&source) => Err(Error::Group { device: device.name.clone(), group, source }),
        _ => Ok(()),
    }
}
