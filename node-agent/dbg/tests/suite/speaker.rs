//! What a BGP speaker would answer. Times are of tests: what is up, is since far in the future, and so for 0 seconds.

use cilium_rest::bgp::{
    Attributes, BfdState, Family, FamilyState, PeerState, Peers, RoutePolicy, RouteTable, RouteView,
    SessionState,
};

use crate::agent::Answers;

const LATER: u64 = 32_503_680_000;

pub(crate) fn with_speaker(answers: Answers) -> Answers {
    let peers = Peers { generation: 7, peers: peers() };
    answers.set("/v1/peers", &peers).set("/v1/routes", &routes()).set("/v1/policies", &policies())
}

fn peers() -> Vec<PeerState> {
    let family = |family, received, advertised| FamilyState { family, received, advertised };
    let up = PeerState {
        instance: "rack".into(),
        local_asn: 64512,
        name: "tor-1".into(),
        address: "192.0.2.254".parse().expect("an address"),
        port: 179,
        asn: 64500,
        router_id: None,
        state: SessionState::Established,
        since: LATER,
        established_count: 1,
        hold_time: 90,
        keepalive: 30,
        families: vec![family(Family::Ipv4, 2, 12), family(Family::Ipv6, 0, 3)],
        reason: None,
        bfd: Some(BfdState::Up),
        bfd_problem: None,
        capabilities: vec!["four-octet-as".into()],
    };
    let down = PeerState {
        name: "tor-2".into(),
        address: "fd00::2".parse().expect("an address"),
        asn: 64501,
        state: SessionState::Active,
        hold_time: 0,
        keepalive: 0,
        families: vec![family(Family::Ipv6, 0, 0)],
        reason: Some("the peer refused the connection".into()),
        bfd: Some(BfdState::Down),
        bfd_problem: Some("UDP port 3784 cannot be opened".into()),
        ..up.clone()
    };
    vec![up, down]
}

fn routes() -> Vec<RouteView> {
    let mk = |table, peer: Option<&str>, prefix: &str, next_hop: &str| RouteView {
        instance: "rack".into(),
        local_asn: 64512,
        table,
        peer: peer.map(|peer| peer.parse().expect("an address")),
        prefix: prefix.parse().expect("a prefix"),
        next_hop: next_hop.parse().expect("an address"),
        as_path: vec![],
        origin: "igp".into(),
        local_preference: None,
        med: None,
        communities: vec![],
        large_communities: vec![],
        since: LATER,
        stale: false,
    };
    let with_communities = RouteView {
        as_path: vec!["64512".into()],
        communities: vec![64512 << 16 | 80, 0xffff_ff01],
        large_communities: vec![(64512, 1, 2)],
        ..mk(RouteTable::Advertised, Some("fd00::2"), "2001:db8::80/128", "fd00::1")
    };
    let received = RouteView {
        as_path: vec!["64500".into(), "{64501,64502}".into()],
        med: Some(10),
        local_preference: Some(200),
        stale: true,
        ..mk(RouteTable::Received, Some("192.0.2.254"), "0.0.0.0/0", "192.0.2.254")
    };
    vec![
        mk(RouteTable::Available, None, "198.51.100.10/32", "0.0.0.0"),
        mk(RouteTable::Available, None, "198.51.100.9/32", "0.0.0.0"),
        mk(RouteTable::Available, None, "2001:db8::80/128", "::"),
        mk(RouteTable::Advertised, Some("192.0.2.254"), "198.51.100.9/32", "192.0.2.1"),
        with_communities,
        received,
    ]
}

fn policies() -> Vec<RoutePolicy> {
    vec![RoutePolicy {
        instance: "rack".into(),
        local_asn: 64512,
        peer: "tor-1".into(),
        address: "192.0.2.254".parse().expect("an address"),
        advertisement: "services/0".into(),
        family: Family::Ipv4,
        prefixes: ["198.51.100.9/32", "198.51.100.10/32"].map(|it| it.parse().expect("a prefix")).into(),
        attributes: Attributes {
            communities: vec![64512 << 16 | 80],
            large_communities: vec![],
            local_preference: Some(150),
        },
    }]
}
