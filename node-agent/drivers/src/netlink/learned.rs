use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cilium_delta::Table;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteProtocol, RouteScope, RouteType},
};

use super::route::parse_address;
use super::{CREATE, Error, LEARNED_PROTOCOL, Netlink, REPLACE, Request};

/// Priority of learned routes: they lose to whatever else leads to the same destination, to connected networks and to default routes of
/// router advertisements, too (1024).
const METRIC: u32 = 2000;

/// Routes in the main table of a namespace that neighbours made known by BGP (protocol [`LEARNED_PROTOCOL`]), by destination, each with
/// its next hops, sorted. The kernel finds the device behind a next hop.
pub struct LearnedRoutes {
    netlink: Netlink,
}

impl LearnedRoutes {
    /// The table of the namespace that `netlink` is connected to.
    pub fn new(netlink: Netlink) -> Self {
        Self { netlink }
    }
}

impl Table<IpNet, Vec<IpAddr>> for LearnedRoutes {
    type Error = Error;

    fn list(&mut self) -> Result<Vec<(IpNet, Vec<IpAddr>)>, Error> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            request.header.protocol = RouteProtocol::Other(LEARNED_PROTOCOL);
            let request = RouteNetlinkMessage::GetRoute(request);
            routes.extend(self.netlink.socket.dump(&request, parse).map_err(Error::ReadRoutes)?);
        }
        Ok(routes)
    }

    fn set(&mut self, destination: &IpNet, next_hops: &Vec<IpAddr>) -> Result<(), Error> {
        let mut message = header(*destination);
        message.header.kind = RouteType::Unicast;
        message.header.scope = RouteScope::Universe;
        message.attributes.push(RouteAttribute::MultiPath(next_hops.iter().map(next_hop).collect()));
        let request = Request::new(RouteNetlinkMessage::NewRoute(message), CREATE | REPLACE);
        let written = self.netlink.socket.execute(vec![request]);
        written.map(drop).map_err(|source| Error::SetLearned {
            destination: *destination,
            next_hops: next_hops.clone(),
            source,
        })
    }

    fn delete(&mut self, destination: &IpNet) -> Result<(), Error> {
        let mut message = header(*destination);
        message.header.scope = RouteScope::NoWhere;
        let request = Request::new(RouteNetlinkMessage::DelRoute(message), 0);
        match self.netlink.socket.execute(vec![request]) {
            Err(source) if source.errno() != Some(libc::ESRCH) => {
                Err(Error::DeleteRoute { destination: *destination, source })
            }
            _ => Ok(()),
        }
    }
}

fn header(destination: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    let v4 = destination.addr().is_ipv4();
    message.header.address_family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(LEARNED_PROTOCOL);
    message.attributes.push(RouteAttribute::Priority(METRIC));
    if destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(destination.network().into()));
    }
    message
}

fn next_hop(address: &IpAddr) -> RouteNextHop {
    let mut hop = RouteNextHop::default();
    hop.attributes.push(RouteAttribute::Gateway((*address).into()));
    hop
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => parse_address(address),
        _ => None,
    })
}

pub(super) fn parse(message: RouteNetlinkMessage) -> Option<(IpNet, Vec<IpAddr>)> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    let learned = header.protocol == RouteProtocol::Other(LEARNED_PROTOCOL);
    if !learned || header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let everything: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let (mut destination, mut next_hops) = (everything, Vec::new());
    next_hops.extend(gateway(&message.attributes));
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = parse_address(address)?,
            RouteAttribute::MultiPath(hops) => {
                next_hops.extend(hops.iter().filter_map(|hop| gateway(&hop.attributes)));
            }
            _ => {}
        }
    }
    next_hops.sort_unstable();
    Some((IpNet::new(destination, header.destination_prefix_length).ok()?, next_hops))
}
