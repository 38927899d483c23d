//! What a session between the node and a router is to be, for both sides.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cilium_rest::bgp::{Attributes, Bfd, Config, Family, Instance, Password, Peer, Routes};
use ipnet::IpNet;

use crate::lab::DEVICE;

/// Name of the one advertisement.
const ADVERTISEMENT: &str = "all/0";

pub(crate) const NODE_ASN: u32 = 65001;
pub(crate) const ROUTER_ASN: u32 = 65002;
pub(crate) const HOLD_TIME: u16 = 90;
pub(crate) const RESTART_TIME: u16 = 60;
pub(crate) const STALE_TIME: u32 = 120;

/// A prefix of the node, by family.
pub(crate) fn node_prefix(family: Family) -> IpNet {
    let text = if family == Family::Ipv4 { "192.0.2.1/32" } else { "2001:db8:5::1/128" };
    text.parse().expect("a prefix")
}

/// A prefix of the router, by family.
pub(crate) fn router_prefix(family: Family) -> IpNet {
    let text = if family == Family::Ipv4 { "198.51.100.0/24" } else { "2001:db8:f::/48" };
    text.parse().expect("a prefix")
}

/// Address of the node, by family.
pub(crate) fn node_address(family: Family) -> IpAddr {
    let text = if family == Family::Ipv4 { "10.1.0.1" } else { "fd00:1::1" };
    text.parse().expect("an address")
}

/// Address of the router, by family.
pub(crate) fn router_address(family: Family) -> IpAddr {
    let text = if family == Family::Ipv4 { "10.1.0.2" } else { "fd00:1::2" };
    text.parse().expect("an address")
}

/// Address of the node on the link only.
pub(crate) const NODE_LINK_LOCAL: &str = "fe80::a1";

/// Address of the router on the link only.
const ROUTER_LINK_LOCAL: &str = "fe80::a2";

/// A session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Family of the addresses between which it is.
    pub(crate) transport: Family,
    /// The addresses are link-local, and not those that prefixes have as next hop.
    pub(crate) link_local: bool,
    /// What it carries.
    pub(crate) families: Vec<Family>,
    pub(crate) router_asn: u32,
    /// What the node takes the router's AS number for.
    pub(crate) expected_asn: u32,
    pub(crate) node_password: Option<&'static str>,
    pub(crate) router_password: Option<&'static str>,
    pub(crate) node_ttl_security: bool,
    pub(crate) router_ttl_security: bool,
    pub(crate) node_passive: bool,
    /// With [`RESTART_TIME`].
    pub(crate) graceful_restart: bool,
    /// The router does so as well for its own routes.
    pub(crate) router_restarts: bool,
    /// Long-lived graceful restart in its place, after a second: with [`STALE_TIME`].
    pub(crate) long_lived: bool,
    pub(crate) extended_next_hop: bool,
    pub(crate) bfd: bool,
    /// What goes with the node's prefixes.
    pub(crate) attributes: Attributes,
}

impl Session {
    /// One over addresses of a family that carries these families, between different AS.
    pub(crate) fn new(transport: Family, families: &[Family]) -> Self {
        Self {
            transport,
            link_local: false,
            families: families.to_vec(),
            router_asn: ROUTER_ASN,
            expected_asn: ROUTER_ASN,
            node_password: None,
            router_password: None,
            node_ttl_security: false,
            router_ttl_security: false,
            node_passive: false,
            graceful_restart: false,
            router_restarts: false,
            long_lived: false,
            extended_next_hop: false,
            bfd: false,
            attributes: Attributes::default(),
        }
    }

    pub(crate) fn is_internal(&self) -> bool {
        self.router_asn == NODE_ASN
    }

    pub(crate) fn has(&self, family: Family) -> bool {
        self.families.contains(&family)
    }

    /// Seconds for which routes stay without a session, by RFC 4724.
    pub(crate) fn restart_time(&self) -> u16 {
        if self.long_lived { 1 } else { RESTART_TIME }
    }

    /// Address of the node in the session.
    pub(crate) fn node(&self) -> IpAddr {
        let link_local = NODE_LINK_LOCAL.parse().expect("an address");
        if self.link_local { link_local } else { node_address(self.transport) }
    }

    /// Address of the router in the session.
    pub(crate) fn router(&self) -> IpAddr {
        let link_local = ROUTER_LINK_LOCAL.parse().expect("an address");
        if self.link_local { link_local } else { router_address(self.transport) }
    }

    fn peer(&self) -> Peer {
        Peer {
            name: "router".to_owned(),
            address: self.router(),
            device: self.link_local.then(|| DEVICE.to_owned()),
            asn: self.expected_asn,
            port: 179,
            // The kernel may have made more of them.
            local_address: self.link_local.then(|| self.node()),
            connect_retry: 1,
            hold_time: HOLD_TIME,
            keepalive: 30,
            password: self.node_password.map(|password| Password(password.to_owned())),
            hops: 1,
            ttl_security: self.node_ttl_security,
            passive: self.node_passive,
            restart_time: (self.graceful_restart || self.long_lived).then_some(self.restart_time()),
            stale_time: self.long_lived.then_some(STALE_TIME),
            bfd: self.bfd.then_some(Bfd { transmit: 100, receive: 100, multiplier: 3 }),
            import: false,
            families: self.families.iter().map(|it| (*it, vec![ADVERTISEMENT.to_owned()])).collect(),
        }
    }

    /// What the speaker is told.
    pub(crate) fn config(&self) -> Config {
        let instance = Instance {
            name: "main".to_owned(),
            asn: NODE_ASN,
            router_id: "10.1.0.1".parse().expect("an address"),
            port: Some(179),
            next_hop4: "10.1.0.1".parse().ok(),
            next_hop6: "fd00:1::1".parse().ok(),
            advertisements: BTreeMap::from([(ADVERTISEMENT.to_owned(), self.attributes.clone())]),
            peers: vec![self.peer()],
        };
        Config { instances: vec![instance] }
    }

    /// The node's prefixes.
    pub(crate) fn routes(&self) -> Routes {
        let prefixes = [Family::Ipv4, Family::Ipv6].map(node_prefix);
        prefixes.into_iter().map(|prefix| (prefix, vec![ADVERTISEMENT.to_owned()])).collect()
    }
}
