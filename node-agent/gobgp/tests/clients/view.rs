//! A speaker that stands still: two instances, three neighbours, a few routes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::pending;
use std::str::FromStr;

use cilium_gobgp::View;
use cilium_rest::bgp::{
    Attributes, Bfd, BfdState, Config, Family, FamilyState, ImportedRoute, Instance, Password, Peer,
    PeerState, Peers, RoutePolicy, RouteTable, RouteView, SessionState,
};
use tokio::sync::watch;

/// When everything began: so long ago that ages have days, whose number has four digits until 2051.
pub(crate) const SINCE: u64 = 1_700_000_000;

fn parse<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect("test data can be read")
}

/// The speaker; its neighbours are what the channel says last.
pub(crate) struct Still(pub(crate) watch::Receiver<Peers>);

impl View for Still {
    async fn config(&self) -> Config {
        Config { instances: vec![mk_red(), mk_blue()] }
    }

    async fn peers(&self) -> Peers {
        self.0.borrow().clone()
    }

    async fn changed(&self, generation: u64) -> Peers {
        let mut peers = self.0.clone();
        let changed = peers.wait_for(|peers| peers.generation != generation).await.map(|peers| peers.clone());
        match changed {
            Ok(peers) => peers,
            Err(_) => pending().await,
        }
    }

    async fn routes(&self) -> Vec<RouteView> {
        mk_routes()
    }

    /// None for `203.0.113.0/24`: what the peer has of it went through the node.
    async fn best(&self) -> BTreeMap<String, Vec<ImportedRoute>> {
        let best = [("0.0.0.0/0", "10.0.1.1"), ("10.244.1.0/24", "10.0.1.1"), ("2001:db8::/32", "fd00:1::9")];
        let best = best.map(|(prefix, next_hop)| ImportedRoute {
            prefix: parse(prefix),
            next_hops: vec![parse(next_hop)],
        });
        BTreeMap::from([("red".to_owned(), best.to_vec())])
    }

    async fn policies(&self) -> Vec<RoutePolicy> {
        mk_policies()
    }
}

fn mk_red() -> Instance {
    let tor = Peer {
        password: Some(Password("secret".to_owned())),
        local_address: Some(parse("10.0.1.2")),
        hops: 2,
        restart_time: Some(120),
        stale_time: Some(3600),
        families: BTreeMap::from([(Family::Ipv4, vec!["pods".to_owned()]), (Family::Ipv6, Vec::new())]),
        ..mk_peer("tor", "10.0.1.1", 64512)
    };
    let mirror = Peer {
        ttl_security: true,
        bfd: Some(Bfd { transmit: 100, receive: 150, multiplier: 3 }),
        families: BTreeMap::from([(Family::Ipv4, Vec::new()), (Family::Ipv6, vec!["services".to_owned()])]),
        ..mk_peer("mirror", "fd00:1::1", 64500)
    };
    mk_instance("red", 64500, Some(179), vec![tor, mirror])
}

fn mk_blue() -> Instance {
    let spine = Peer {
        passive: true,
        port: 1790,
        families: BTreeMap::from([(Family::Ipv4, Vec::new())]),
        ..mk_peer("spine", "10.0.2.1", 64513)
    };
    mk_instance("blue", 64501, None, vec![spine])
}

fn mk_instance(name: &str, asn: u32, port: Option<u16>, peers: Vec<Peer>) -> Instance {
    Instance {
        name: name.to_owned(),
        asn,
        router_id: parse("10.0.0.7"),
        port,
        next_hop4: None,
        next_hop6: None,
        advertisements: BTreeMap::new(),
        peers,
    }
}

fn mk_peer(name: &str, address: &str, asn: u32) -> Peer {
    Peer {
        name: name.to_owned(),
        address: parse(address),
        device: None,
        asn,
        port: 179,
        local_address: None,
        connect_retry: 120,
        hold_time: 90,
        keepalive: 30,
        password: None,
        hops: 1,
        ttl_security: false,
        passive: false,
        restart_time: None,
        stale_time: None,
        bfd: None,
        import: false,
        families: BTreeMap::new(),
    }
}

/// The neighbours: one established, one that never was, one that is not any more.
pub(crate) fn mk_peers() -> Peers {
    let tor = PeerState {
        router_id: Some(parse("10.0.1.1")),
        state: SessionState::Established,
        established_count: 3,
        hold_time: 30,
        keepalive: 10,
        families: vec![FamilyState { family: Family::Ipv4, received: 2, advertised: 1 }],
        capabilities: ["four-octet-as", "graceful-restart", "route-refresh"].map(str::to_owned).to_vec(),
        ..mk_state("red", 64500, "tor", "10.0.1.1", 64512)
    };
    let mirror = PeerState {
        families: vec![FamilyState { family: Family::Ipv6, received: 0, advertised: 0 }],
        reason: Some("BFD says the peer is gone".to_owned()),
        bfd: Some(BfdState::Down),
        bfd_problem: None,
        ..mk_state("red", 64500, "mirror", "fd00:1::1", 64500)
    };
    let spine = PeerState {
        state: SessionState::OpenSent,
        established_count: 1,
        port: 1790,
        families: vec![FamilyState { family: Family::Ipv4, received: 0, advertised: 0 }],
        ..mk_state("blue", 64501, "spine", "10.0.2.1", 64513)
    };
    Peers { generation: 1, peers: vec![tor, mirror, spine] }
}

fn mk_state(instance: &str, local_asn: u32, name: &str, address: &str, asn: u32) -> PeerState {
    PeerState {
        instance: instance.to_owned(),
        local_asn,
        name: name.to_owned(),
        address: parse(address),
        port: 179,
        asn,
        router_id: None,
        state: SessionState::Active,
        since: SINCE,
        established_count: 0,
        hold_time: 0,
        keepalive: 0,
        families: Vec::new(),
        reason: None,
        bfd: None,
        bfd_problem: None,
        capabilities: Vec::new(),
    }
}

fn mk_routes() -> Vec<RouteView> {
    let received = |prefix, next_hop| RouteView {
        peer: Some(parse("10.0.1.1")),
        ..mk_route("red", RouteTable::Received, prefix, next_hop)
    };
    let path = |path: &[&str]| path.iter().map(|asn| (*asn).to_owned()).collect();
    vec![
        RouteView {
            as_path: path(&["64512", "4200000000", "{65001,65002}"]),
            origin: "incomplete".to_owned(),
            med: Some(7),
            communities: vec![64512 << 16 | 80, 0xffff_ff01],
            stale: true,
            ..received("10.244.1.0/24", "10.0.1.1")
        },
        RouteView {
            as_path: path(&["64512"]),
            origin: "egp".to_owned(),
            ..received("0.0.0.0/0", "10.0.1.1")
        },
        RouteView { as_path: path(&["64512", "64500"]), ..received("203.0.113.0/24", "fe80::1") },
        RouteView { as_path: path(&["64512"]), ..received("2001:db8::/32", "fd00:1::9") },
        mk_route("red", RouteTable::Available, "10.244.1.0/24", "0.0.0.0"),
        mk_route("red", RouteTable::Available, "fd00:10:244:1::/64", "::"),
        RouteView {
            peer: Some(parse("10.0.1.1")),
            as_path: path(&["64500"]),
            communities: vec![64500 << 16 | 100],
            large_communities: vec![(64500, 1, 2)],
            ..mk_route("red", RouteTable::Advertised, "10.244.1.0/24", "10.0.1.2")
        },
        RouteView {
            peer: Some(parse("fd00:1::1")),
            local_preference: Some(150),
            ..mk_route("red", RouteTable::Advertised, "fd00:10:244:1::/64", "fd00:1::7")
        },
    ]
}

fn mk_route(instance: &str, table: RouteTable, prefix: &str, next_hop: &str) -> RouteView {
    RouteView {
        instance: instance.to_owned(),
        local_asn: 64500,
        table,
        peer: None,
        prefix: parse(prefix),
        next_hop: parse(next_hop),
        as_path: Vec::new(),
        origin: "igp".to_owned(),
        local_preference: None,
        med: None,
        communities: Vec::new(),
        large_communities: Vec::new(),
        since: SINCE,
        stale: false,
    }
}

fn mk_policies() -> Vec<RoutePolicy> {
    let policy = |peer: &str, address: &str, advertisement: &str, prefix: &str, attributes| RoutePolicy {
        instance: "red".to_owned(),
        local_asn: 64500,
        peer: peer.to_owned(),
        address: parse(address),
        advertisement: advertisement.to_owned(),
        family: if prefix.contains(':') { Family::Ipv6 } else { Family::Ipv4 },
        prefixes: vec![parse(prefix)],
        attributes,
    };
    let communities = Attributes {
        communities: vec![64500 << 16 | 100],
        large_communities: vec![(64500, 1, 2)],
        ..Attributes::default()
    };
    let preference = Attributes { local_preference: Some(150), ..Attributes::default() };
    vec![
        policy("tor", "10.0.1.1", "pods", "10.244.1.0/24", communities),
        policy("mirror", "fd00:1::1", "services", "fd00:10:244:1::/64", preference),
    ]
}
