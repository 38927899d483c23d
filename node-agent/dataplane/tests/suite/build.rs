//! Builders of parts and facts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cilium_api::parts::{
    Address, Backend, Direction, Endpoint, Entry, HostPort, Node, Part, PartKey, Parts, Policy, Prefix,
    Redirect, RedirectFrontend, Service, ServicePort,
};
use cilium_dataplane::maglev::Maglev;
use cilium_dataplane::{Balancing, Config, Dataplane, Devices, Link};

use crate::kernel::Fake;

pub(crate) fn mk_config(tunnel: bool) -> Config {
    let devices = Devices { host: 3, native: 2 };
    Config {
        node: "n1".into(),
        tunnel,
        direct_routes: true,
        devices,
        other_addresses: Vec::new(),
        route_mtu: 1450,
        world4: 9,
        world6: 10,
        host_firewall: false,
        balancing: Balancing { by_annotation: true, maglev: mk_maglev(), ..Balancing::default() },
    }
}

/// Tables of two pieces.
pub(crate) fn mk_maglev() -> Maglev {
    Maglev { size: 509, seed: 1 }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn mk_endpoint(id: u16, identity: u32) -> (PartKey, Part) {
    let endpoint = Endpoint {
        uid: format!("uid-{id}"),
        id,
        identity,
        ipv4: Some(Ipv4Addr::from(0x0af4_0100 + u32::from(id))),
        ipv6: Some(Ipv6Addr::from(0xfd00_0010_0244_0000_0000_0000_0000_0000 + u128::from(id))),
        ..Endpoint::default()
    };
    (PartKey::endpoint("default", &format!("pod-{id}")), Part::Endpoint(endpoint))
}

/// One with a port of the node: pods with even numbers want one and the same, those with odd numbers one at a loopback address.
pub(crate) fn mk_open_endpoint(id: u16, identity: u32) -> (PartKey, Part) {
    let (key, mut part) = mk_endpoint(id, identity);
    let address = (id % 2 == 1).then(|| ip("127.0.0.1"));
    if let Part::Endpoint(endpoint) = &mut part {
        endpoint.host_ports = vec![HostPort { protocol: 6, port: 8080 + id % 2, address, target: 80 + id }];
    }
    (key, part)
}

pub(crate) fn mk_link(id: u16) -> Link {
    let last = id.to_be_bytes()[1];
    Link {
        uid: format!("uid-{id}"),
        ifindex: 100 + u32::from(id),
        mac: [2, 0, 0, 0, 0, last],
        host_mac: [2, 0, 0, 0, 1, last],
        netns_cookie: 1000 + u64::from(id),
    }
}

pub(crate) fn mk_allow(peer: u32, protocol: u8, first: u16, last: u16) -> Entry {
    Entry { peer, protocol, first, last, origins: vec![0] }
}

pub(crate) fn mk_policy(identity: u32, allow: Vec<Entry>) -> (PartKey, Part) {
    let ingress = Direction { enforced: true, allow, ..Direction::default() };
    let policy = Policy { ingress, origins: vec!["cnp/default/rule1".into()], ..Policy::default() };
    (PartKey::policy(identity), Part::Policy(Box::new(policy)))
}

pub(crate) fn mk_address(address: &str, identity: u32, node: Option<&str>) -> (PartKey, Part) {
    let part = Address { identity, node: node.map(str::to_owned) };
    (PartKey::address(ip(address)), Part::Address(part))
}

pub(crate) fn mk_prefix(prefix: &str, identity: u32) -> (PartKey, Part) {
    (PartKey::prefix(prefix), Part::Prefix(Prefix { identity }))
}

pub(crate) fn mk_node(name: &str, number: u8) -> (PartKey, Part) {
    let node = Node {
        addresses: vec![ip(&format!("172.30.0.{number}")), ip(&format!("fd00:172::{number}"))],
        pod_cidrs: vec![format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64")],
        api_server: number == 9,
        identity: None,
        routers: Vec::new(),
        zone: if number == 1 { "a".to_owned() } else { String::new() },
    };
    (PartKey::node(name), Part::Node(node))
}

pub(crate) fn mk_service(name: &str, number: u8, backends: &[(&str, u16)]) -> (PartKey, Part) {
    let backends = backends.iter().map(|(address, port)| (ip(address), *port).into()).collect();
    (PartKey::service("default", name), Part::Service(mk_service_of(number, backends)))
}

pub(crate) fn mk_service_of(number: u8, backends: Vec<Backend>) -> Service {
    let port = ServicePort { name: String::new(), protocol: 6, port: 80, node_port: 0, backends };
    let cluster_ips = vec![ip(&format!("10.96.0.{number}")), ip(&format!("fd00:10:96::{number}"))];
    Service { cluster_ips, ports: vec![port], ..Service::default() }
}

/// A redirect of an address and port 80 of TCP to pods on port 8080, but for pods with these numbers.
pub(crate) fn mk_redirect(name: &str, address: &str, backends: &[&str], exempt: &[u16]) -> (PartKey, Part) {
    let backends = backends.iter().map(|backend| (ip(backend), 8080)).collect();
    let frontend = RedirectFrontend { address: ip(address), protocol: 6, port: 80, backends };
    let exempt = exempt.iter().map(|id| format!("pod-{id}")).collect();
    let redirect = Redirect { frontends: vec![frontend], exempt, ..Redirect::default() };
    (PartKey::redirect("default", name), Part::Redirect(redirect))
}

/// Sets the parts and brings the kernel in line.
pub(crate) fn feed(dataplane: &mut Dataplane, kernel: &mut Fake, parts: &Parts) {
    dataplane.update(parts.keys(), parts);
    dataplane.apply(kernel, 0);
}
