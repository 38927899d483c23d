use std::{collections::HashSet, net::IpAddr};

use cilium_delta::Table;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::RouteType,
};

use super::{CREATE, Error, Mac, Netlink, POD_PREFIX, REPLACE, Request};

/// An address behind a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Neighbour {
    /// Index of the device.
    pub device: u32,
    /// Address.
    pub address: IpAddr,
}

/// The permanent neighbours on pod devices (`lxc…`): they save resolving a pod's address, which pods do not answer.
pub struct NeighbourTable {
    netlink: Netlink,
}

impl NeighbourTable {
    /// The table of the namespace that `netlink` is connected to.
    pub fn new(netlink: Netlink) -> Self {
        Self { netlink }
    }
}

impl Table<Neighbour, Mac> for NeighbourTable {
    type Error = Error;

    fn list(&mut self) -> Result<Vec<(Neighbour, Mac)>, Error> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let mut entries = self.netlink.socket.dump(&request, parse).map_err(Error::ReadNeighbours)?;
        let devices: HashSet<u32> = entries.iter().map(|(neighbour, _)| neighbour.device).collect();
        let mut ours = HashSet::new();
        for device in devices {
            if self.netlink.name(device)?.is_some_and(|name| name.starts_with(POD_PREFIX)) {
                ours.insert(device);
            }
        }
        entries.retain(|(neighbour, _)| ours.contains(&neighbour.device));
        Ok(entries)
    }

    fn set(&mut self, neighbour: &Neighbour, mac: &Mac) -> Result<(), Error> {
        let request =
            Request::new(RouteNetlinkMessage::NewNeighbour(message(*neighbour, *mac)), CREATE | REPLACE);
        match self.netlink.socket.execute(vec![request]) {
            Ok(_) => Ok(()),
            Err(source) => {
                Err(Error::SetNeighbour { address: neighbour.address, device: neighbour.device, source })
            }
        }
    }

    fn delete(&mut self, neighbour: &Neighbour) -> Result<(), Error> {
        let request = Request::new(RouteNetlinkMessage::DelNeighbour(header(*neighbour)), 0);
        match self.netlink.socket.execute(vec![request]) {
            Err(source) if !matches!(source.errno(), Some(libc::ENOENT | libc::ENODEV | libc::ENXIO)) => {
                Err(Error::DeleteNeighbour { address: neighbour.address, device: neighbour.device, source })
            }
            _ => Ok(()),
        }
    }
}

fn header(neighbour: Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    let v4 = neighbour.address.is_ipv4();
    message.header.family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.ifindex = neighbour.device;
    message.attributes.push(NeighbourAttribute::Destination(neighbour.address.into()));
    message
}

/// The request for a permanent neighbour.
pub(super) fn message(neighbour: Neighbour, mac: Mac) -> NeighbourMessage {
    let mut message = header(neighbour);
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}

pub(super) fn parse(message: RouteNetlinkMessage) -> Option<(Neighbour, Mac)> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => address = Some(found.into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => address = Some(found.into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some((Neighbour { device: message.header.ifindex, address: address? }, mac?))
}
