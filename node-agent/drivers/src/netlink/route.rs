use std::{collections::HashSet, fmt, net::IpAddr};

use cilium_delta::Table;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
        RouteType,
    },
};

use super::{CREATE, EXCLUSIVE, Error, Fault, Netlink, REPLACE, ROUTE_PROTOCOL, Request};

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// Index of the device.
    pub device: u32,
    /// Next hop; without it the destination is on the link.
    pub via: Option<IpAddr>,
    /// Preferred source address of packets that the node itself sends.
    pub source: Option<IpAddr>,
    /// Path MTU in bytes; without it the device's.
    pub mtu: Option<u32>,
}

impl Route {
    /// A route to something on the link.
    pub fn on_link(device: u32) -> Self {
        Self { device, via: None, source: None, mtu: None }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device number {}", self.device)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(source) = self.source {
            write!(f, " source {source}")?;
        }
        self.mtu.map_or(Ok(()), |mtu| write!(f, " mtu {mtu}"))
    }
}

/// Our routes (protocol [`ROUTE_PROTOCOL`]) in the main table of a namespace, by destination.
///
/// # Guarantees
/// A route is replaced without a moment in which it is missing. A route of somebody else to the same destination is not
/// overwritten: [`Error::ForeignRoute`].
pub struct RouteTable {
    netlink: Netlink,
    /// Destinations that are known to be ours, so that replacing them cannot hit somebody else's route.
    ours: HashSet<IpNet>,
}

impl RouteTable {
    /// The table of the namespace that `netlink` is connected to.
    pub fn new(netlink: Netlink) -> Self {
        Self { netlink, ours: HashSet::new() }
    }

    fn write(&mut self, destination: IpNet, route: &Route, flags: u16) -> Result<(), Fault> {
        let message = RouteNetlinkMessage::NewRoute(message(destination, route));
        self.netlink.socket.execute(vec![Request::new(message, CREATE | flags)])?;
        self.ours.insert(destination);
        Ok(())
    }

    fn replace(&mut self, destination: IpNet, route: &Route) -> Result<(), Error> {
        if !self.ours.contains(&destination) {
            self.list()?;
        }
        if !self.ours.contains(&destination) {
            return Err(Error::ForeignRoute { destination });
        }
        let written = self.write(destination, route, REPLACE);
        written.map_err(|source| Error::SetRoute { destination, route: *route, source })
    }
}

impl Table<IpNet, Route> for RouteTable {
    type Error = Error;

    fn list(&mut self) -> Result<Vec<(IpNet, Route)>, Error> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            request.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
            let request = RouteNetlinkMessage::GetRoute(request);
            routes.extend(self.netlink.socket.dump(&request, parse).map_err(Error::ReadRoutes)?);
        }
        self.ours = routes.iter().map(|(destination, _)| *destination).collect();
        Ok(routes)
    }

    fn set(&mut self, destination: &IpNet, route: &Route) -> Result<(), Error> {
        let destination = destination.trunc();
        match self.write(destination, route, EXCLUSIVE) {
            Ok(()) => Ok(()),
            Err(fault) if fault.errno() == Some(libc::EEXIST) => self.replace(destination, route),
            Err(source) => Err(Error::SetRoute { destination, route: *route, source }),
        }
    }

    fn delete(&mut self, destination: &IpNet) -> Result<(), Error> {
        let destination = destination.trunc();
        let mut message = header(destination);
        message.header.scope = RouteScope::NoWhere;
        let request = Request::new(RouteNetlinkMessage::DelRoute(message), 0);
        match self.netlink.socket.execute(vec![request]) {
            Err(source) if source.errno() != Some(libc::ESRCH) => {
                Err(Error::DeleteRoute { destination, source })
            }
            _ => {
                self.ours.remove(&destination);
                Ok(())
            }
        }
    }
}

/// A message about one of our routes, without where it leads.
fn header(destination: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    let v4 = destination.addr().is_ipv4();
    message.header.address_family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    if destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(destination.addr().into()));
    }
    message
}

/// The complete message for one of our routes.
pub(super) fn message(destination: IpNet, route: &Route) -> RouteMessage {
    let mut message = header(destination);
    message.header.kind = RouteType::Unicast;
    let on_link = route.via.is_none() && destination.addr().is_ipv4();
    message.header.scope = if on_link { RouteScope::Link } else { RouteScope::Universe };
    message.attributes.push(RouteAttribute::Oif(route.device));
    message.attributes.extend(route.via.map(|via| RouteAttribute::Gateway(via.into())));
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    message.attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    message
}

pub(super) fn parse(message: RouteNetlinkMessage) -> Option<(IpNet, Route)> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    let ours = header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL);
    if !ours || header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let everything: IpAddr = match header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        _ => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut destination = everything;
    let mut route = Route::on_link(0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = parse_address(address)?,
            RouteAttribute::Oif(device) => route.device = *device,
            RouteAttribute::Gateway(address) => route.via = parse_address(address),
            RouteAttribute::PrefSource(address) => route.source = parse_address(address),
            RouteAttribute::Metrics(metrics) => route.mtu = metrics.iter().find_map(parse_mtu),
            _ => {}
        }
    }
    Some((IpNet::new(destination, header.destination_prefix_length).ok()?, route))
}

pub(super) fn parse_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn parse_mtu(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    }
}
