//! The way of packets that eBPF has given to the DNS proxy: with their mark, every address is this machine's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cilium_bpf::layout::{MARK_MASK, MARK_TO_PROXY};
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use super::{CREATE, EXCLUSIVE, Error, Netlink, REPLACE, ROUTE_PROTOCOL, Request, route};

/// Number of the routing table with nothing but the route to this machine.
pub const PROXY_TABLE: u32 = 2004;
/// Priority of the rule: before everything but the kernel's own table.
const PRIORITY: u32 = 9;
/// Index of the loopback device in every namespace.
const LOOPBACK: u32 = 1;

impl Netlink {
    /// Makes sure that packets with the mark for the proxy stay on this machine, whatever their destination. The rule and the table
    /// are ours by the table's number and the protocol [`ROUTE_PROTOCOL`].
    ///
    /// # Errors
    /// [`Error::SetProxyWay`].
    pub fn ensure_proxy_way(&mut self, v4: bool, v6: bool) -> Result<(), Error> {
        let families: [(bool, AddressFamily, IpAddr); 2] = [
            (v4, AddressFamily::Inet, Ipv4Addr::UNSPECIFIED.into()),
            (v6, AddressFamily::Inet6, Ipv6Addr::UNSPECIFIED.into()),
        ];
        for (_, family, everything) in families.into_iter().filter(|(on, ..)| *on) {
            let route = Request::new(RouteNetlinkMessage::NewRoute(to_self(everything)), CREATE | REPLACE);
            self.socket.execute(vec![route]).map_err(Error::SetProxyWay)?;
            let rule = Request::new(RouteNetlinkMessage::NewRule(by_mark(family)), CREATE | EXCLUSIVE);
            match self.socket.execute(vec![rule]) {
                Err(fault) if fault.errno() != Some(libc::EEXIST) => return Err(Error::SetProxyWay(fault)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn to_self(everything: IpAddr) -> netlink_packet_route::route::RouteMessage {
    let everything = IpNet::new_assert(everything, 0);
    let mut message = route::message(everything, &super::Route::on_link(LOOPBACK));
    message.header.kind = RouteType::Local;
    message.header.scope = RouteScope::Host;
    // The header has room for small numbers only.
    message.header.table = 0;
    message.attributes.push(RouteAttribute::Table(PROXY_TABLE));
    message
}

fn by_mark(family: AddressFamily) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::FwMark(MARK_TO_PROXY),
        RuleAttribute::FwMask(MARK_MASK),
        RuleAttribute::Table(PROXY_TABLE),
        RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL)),
    ];
    message
}
