use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteType,
    },
};

use super::{CREATE, Error, Link, Netlink, REPLACE, Request};

/// Devices that never are the node's own uplink: ours, loopback, and those of container runtimes and bridges of CNI.
const NOT_UPLINKS: [&str; 5] = ["lo", "lxc", "cilium_", "cni", "docker"];

#[derive(Debug)]
pub(super) struct Found {
    device: u32,
    address: IpNet,
    link_local: bool,
}

/// Where everything goes that no other route of the main table leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// Index of the device on whose link it is.
    pub device: u32,
    /// Priority of the route; the lowest wins.
    pub metric: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct DefaultRoute {
    metric: u32,
    device: u32,
    gateway: Option<IpAddr>,
}

impl Netlink {
    /// All addresses of the namespace with the index of their device.
    ///
    /// # Errors
    /// [`Error::ReadAddresses`].
    pub fn addresses(&mut self) -> Result<Vec<(u32, IpNet)>, Error> {
        Ok(self.read_addresses()?.into_iter().map(|found| (found.device, found.address)).collect())
    }

    fn read_addresses(&mut self) -> Result<Vec<Found>, Error> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.socket.dump(&request, parse).map_err(Error::ReadAddresses)
    }

    /// Gives a device exactly these addresses (IPv6 link-local ones are left alone). Returns how many were added or
    /// removed.
    ///
    /// # Errors
    /// [`Error::ReadAddresses`], [`Error::AddAddress`], [`Error::RemoveAddress`].
    pub fn ensure_addresses(&mut self, device: &Link, wanted: &[IpNet]) -> Result<usize, Error> {
        let present: Vec<IpNet> = self
            .read_addresses()?
            .into_iter()
            .filter(|found| found.device == device.index && !found.link_local)
            .map(|found| found.address)
            .collect();
        let missing: Vec<_> = wanted.iter().filter(|address| !present.contains(address)).collect();
        let obsolete: Vec<_> = present.iter().filter(|address| !wanted.contains(address)).collect();
        for address in &missing {
            self.add_address(device, **address)?;
        }
        for address in &obsolete {
            self.remove_address(device, **address)?;
        }
        Ok(missing.len() + obsolete.len())
    }

    fn add_address(&mut self, device: &Link, address: IpNet) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewAddress(message(device.index, address));
        match self.socket.execute(vec![Request::new(message, CREATE | REPLACE)]) {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::AddAddress { address, device: device.name.clone(), source }),
        }
    }

    fn remove_address(&mut self, device: &Link, address: IpNet) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelAddress(message(device.index, address));
        match self.socket.execute(vec![Request::new(message, 0)]) {
            Err(source) if source.errno() != Some(libc::EADDRNOTAVAIL) => {
                Err(Error::RemoveAddress { address, device: device.name.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// Devices that may lead to other machines, as far as their names tell: neither the loopback nor those of pods and containers.
    ///
    /// # Errors
    /// What reading failed with.
    pub fn uplinks(&mut self) -> Result<Vec<Link>, Error> {
        let is_uplink = |link: &Link| !NOT_UPLINKS.iter().any(|prefix| link.name.starts_with(prefix));
        Ok(self.links()?.into_iter().filter(is_uplink).collect())
    }

    /// The node's own device: the one with the default route of the lowest metric, otherwise the one that has one of
    /// the node's addresses.
    ///
    /// # Errors
    /// [`Error::NoNodeDevice`], or what reading failed with.
    pub fn node_device(&mut self, node_addresses: &[IpAddr]) -> Result<Link, Error> {
        let links: HashMap<u32, Link> = self.uplinks()?.into_iter().map(|link| (link.index, link)).collect();
        let mut defaults = self.default_routes()?;
        defaults.sort_unstable();
        let holders = self.addresses()?;
        let holders = holders.iter().filter(|(_, address)| node_addresses.contains(&address.addr()));
        let candidates = defaults.iter().map(|(_, device)| device).chain(holders.map(|(device, _)| device));
        let found = candidates.into_iter().find_map(|device| links.get(device)).cloned();
        found.ok_or_else(|| Error::NoNodeDevice { addresses: node_addresses.to_vec() })
    }

    /// Metric and device of the main table's default routes.
    fn default_routes(&mut self) -> Result<Vec<(u32, u32)>, Error> {
        let found = self.read_default_routes()?;
        Ok(found.into_iter().map(|route| (route.metric, route.device)).collect())
    }

    /// The gateways of the main table's default routes: those of the lowest metric first, among them (a route may have
    /// several next hops) the lowest address.
    ///
    /// # Errors
    /// [`Error::ReadRoutes`].
    pub fn default_gateways(&mut self) -> Result<Vec<Gateway>, Error> {
        let mut found = self.read_default_routes()?;
        found.sort_by_key(|route| (route.metric, route.gateway, route.device));
        let with_gateway = |route: DefaultRoute| {
            route.gateway.map(|address| Gateway { address, device: route.device, metric: route.metric })
        };
        Ok(found.into_iter().filter_map(with_gateway).collect())
    }

    fn read_default_routes(&mut self) -> Result<Vec<DefaultRoute>, Error> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let request = RouteNetlinkMessage::GetRoute(request);
            let found = self.socket.dump(&request, parse_default).map_err(Error::ReadRoutes)?;
            routes.extend(found.into_iter().flatten());
        }
        Ok(routes)
    }
}

/// The request about one address of a device. IPv6 addresses skip duplicate address detection: they are allocated by one
/// planner, and would be unusable for a second.
pub(super) fn message(device: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = device;
    message.header.prefix_len = address.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Address(address.addr()));
    if address.addr().is_ipv4() {
        message.header.family = AddressFamily::Inet;
        message.attributes.push(AddressAttribute::Local(address.addr()));
    } else {
        message.header.family = AddressFamily::Inet6;
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message
}

pub(super) fn parse(message: RouteNetlinkMessage) -> Option<Found> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let shared = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let address = IpNet::new(local.or(shared)?, message.header.prefix_len).ok()?;
    let link_local = matches!(address, IpNet::V6(v6) if v6.addr().is_unicast_link_local());
    Some(Found { device: message.header.index, address, link_local })
}

/// A default route of the main table: one for each next hop that is not dead.
pub(super) fn parse_default(message: RouteNetlinkMessage) -> Option<Vec<DefaultRoute>> {
    let RouteNetlinkMessage::NewRoute(route) = message else { return None };
    let header = &route.header;
    let main = header.table == RouteHeader::RT_TABLE_MAIN && header.kind == RouteType::Unicast;
    if !main || header.destination_prefix_length != 0 {
        return None;
    }
    let (mut metric, mut device, mut hops) = (0, None, Vec::new());
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::Oif(value) => device = Some(*value),
            RouteAttribute::MultiPath(all) => hops = all.iter().filter(|hop| is_usable(hop)).collect(),
            // A default route to a zero-length prefix of something else than everything does not exist.
            RouteAttribute::Destination(RouteAddress::Other(_)) => return None,
            _ => {}
        }
    }
    let single = device.map(|device| DefaultRoute { metric, device, gateway: gateway(&route.attributes) });
    let of_many = hops.into_iter().map(|hop| DefaultRoute {
        metric,
        device: hop.interface_index,
        gateway: gateway(&hop.attributes),
    });
    Some(single.into_iter().chain(of_many).collect())
}

fn is_usable(hop: &RouteNextHop) -> bool {
    !hop.flags.intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown)
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some((*address).into()),
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => Some((*address).into()),
        _ => None,
    })
}
