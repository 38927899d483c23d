//! Who is there, by address and identity, and what they send each other.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bpf_tests::Family;
use bpf_tests::packet::{self, Tcp};
use bpf_tests::stage::{Place, Place::*, Stage, ip, net};
use cilium_bpf::layout::{Addr, CtKey, IpcacheEntry, IpcacheKey};
use cilium_core::{Families, Labels, reserved};
use cilium_delta::Table;
use cilium_policy::Flow;
use ipnet::IpNet;

use super::policies::PORTS;
use super::random::Random;
use crate::{ANY_MAC, TCP, UDP};

pub(super) const SCTP: u8 = 132;

/// Identities of pods with their labels. The first two have endpoints here, at [`PodA`] and [`PodB`].
const PODS: [(u32, &[&str]); 8] = [
    (1005, &["app=a", "org=x", "io.kubernetes.pod.namespace=red"]),
    (1006, &["app=b", "org=x", "io.kubernetes.pod.namespace=red", "io.cilium.k8s.namespace.labels.team=1"]),
    (1007, &["app=a", "io.kubernetes.pod.namespace=blue"]),
    (1008, &["app=b", "org=y", "io.kubernetes.pod.namespace=blue"]),
    (1009, &["app=c", "org=y", "io.kubernetes.pod.namespace=red"]),
    (1010, &["app=c", "io.kubernetes.pod.namespace=blue", "io.cilium.k8s.namespace.labels.team=1"]),
    (1011, &["org=x", "io.kubernetes.pod.namespace=red"]),
    (1012, &["io.kubernetes.pod.namespace=blue", "io.cilium.k8s.namespace.labels.team=2"]),
];

/// Reserved identities of other nodes' addresses: health endpoint, other node, other node with an API server, ingress.
const RESERVED: [u32; 4] =
    [reserved::HEALTH, reserved::REMOTE_NODE, reserved::KUBE_APISERVER, reserved::INGRESS];

/// Identities of other nodes that have one by themselves, and whether they run an API server.
const NODES: [(u32, bool); 2] =
    [(reserved::FIRST_REMOTE_NODE + 1, false), (reserved::FIRST_REMOTE_NODE + 2, true)];

/// Addresses outside of the cluster, some of them in prefixes that policies name, some at the edges of these.
const OUTSIDE: [&str; 18] = [
    "198.51.100.9",
    "198.51.100.10",
    "198.51.100.127",
    "198.51.100.128",
    "198.51.100.255",
    "198.51.101.0",
    "198.52.0.0",
    "203.0.113.1",
    "192.0.2.77",
    "10.2.0.200",
    "1.1.1.1",
    "2001:db8:ffff::9",
    "2001:db8:ffff:1::1",
    "2001:db8:ffff:1::9",
    "2001:db8:ffff:2::",
    "2001:db8::77",
    "fd00:2::77",
    "2600::1",
];

/// Prefixes that policies name. Some have pods and nodes inside, which they never mean.
pub(super) const PREFIXES: [&str; 18] = [
    "0.0.0.0/0",
    "198.51.0.0/16",
    "198.51.100.0/24",
    "198.51.100.0/25",
    "198.51.100.9/32",
    "198.51.100.8/29",
    "203.0.113.0/24",
    "10.0.0.0/8",
    "10.2.0.0/24",
    "192.0.2.0/24",
    "10.1.0.5/32",
    "::/0",
    "2001:db8:ffff::/48",
    "2001:db8:ffff:1::/64",
    "2001:db8:ffff:1::9/128",
    "2001:db8::/32",
    "fd00::/8",
    "fd00:2::7/128",
];

/// First identity of a prefix.
const FIRST_PREFIX: u32 = (1 << 24) + 1;

/// Everybody whom policies can mean.
pub(super) fn identities() -> impl Iterator<Item = (u32, Labels)> {
    let pods = PODS.into_iter().map(|(number, labels)| {
        let cluster = ["k8s:io.cilium.k8s.policy.cluster=default".to_owned()];
        let texts = labels.iter().map(|label| format!("k8s:{label}")).chain(cluster);
        (number, Labels::parse(texts).unwrap())
    });
    let node = |(number, api_server)| {
        (number, reserved::remote_node_labels("default", api_server, &BTreeMap::new()))
    };
    pods.chain(NODES.into_iter().map(node))
}

/// Numbers of identities that entries of policies may have.
pub(super) fn numbers() -> Vec<u32> {
    let pods = PODS.into_iter().map(|(number, _)| number);
    let reserved =
        [0, 0, reserved::HOST, reserved::WORLD_IPV4, reserved::WORLD_IPV6].into_iter().chain(RESERVED);
    let nodes = NODES.into_iter().map(|(number, _)| number);
    let aggregates =
        [reserved::AGGREGATE_CLUSTER, reserved::AGGREGATE_WORLD, reserved::AGGREGATE_REMOTE_NODE];
    reserved.chain(pods).chain(nodes).chain(aggregates).chain(FIRST_PREFIX..FIRST_PREFIX + 3).collect()
}

/// The identity that a prefix has, by its place among those of a set of policies.
pub(super) fn number_prefixes(all: impl IntoIterator<Item = IpNet>) -> BTreeMap<IpNet, u32> {
    all.into_iter().zip(FIRST_PREFIX..).collect()
}

/// Labels of a prefix.
pub(super) fn prefix_labels(prefix: IpNet) -> Labels {
    cilium_core::prefix::labels(Families::Dual, prefix)
}

/// Somebody at an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Party {
    pub(super) place: Place,
    pub(super) address: IpAddr,
    pub(super) identity: u32,
}

/// All addresses; those outside have the identity of the narrowest prefix around them.
pub(super) struct World {
    here: Vec<Party>,
    elsewhere: Vec<Party>,
}

impl World {
    /// Makes the addresses known that do not change, and gives them.
    pub(super) fn furnish(stage: &mut Stage) -> Self {
        let mut world = Self { here: Vec::new(), elsewhere: Vec::new() };
        for family in Family::ALL {
            for pod in [PodA, PodB] {
                world.here.push(Party {
                    place: pod,
                    address: pod.ip(family),
                    identity: pod.identity(family),
                });
            }
            world.elsewhere.push(Party { place: Host, address: Host.ip(family), identity: reserved::HOST });
            let others = PODS.into_iter().skip(2).map(|(number, _)| number).chain(RESERVED);
            let others = others.chain(NODES.into_iter().map(|(number, _)| number));
            for (last, identity) in others.enumerate() {
                let address = if family == Family::V4 {
                    format!("10.2.0.{}", last + 7)
                } else {
                    format!("fd00:2::{:x}", last + 7)
                };
                let party = Party { place: RemotePod, address: ip(&address), identity };
                stage.know(party.address, identity, None);
                world.elsewhere.push(party);
            }
        }
        world
    }

    /// Gives prefixes their identities, in place of those before.
    pub(super) fn know(
        &mut self,
        stage: &mut Stage,
        before: &BTreeMap<IpNet, u32>,
        prefixes: &BTreeMap<IpNet, u32>,
    ) {
        let key = |prefix: &IpNet| IpcacheKey::new(prefix.addr(), prefix.prefix_len());
        // A pod's or node's own address stays theirs.
        let known: Vec<IpNet> = self
            .here
            .iter()
            .chain(&self.elsewhere)
            .filter(|it| it.place != Place::World)
            .map(|it| it.address.into())
            .collect();
        for prefix in before.keys().filter(|prefix| !known.contains(prefix)) {
            stage.maps.ipcache.delete(&key(prefix)).unwrap();
        }
        for (prefix, identity) in prefixes.iter().filter(|(prefix, _)| !known.contains(prefix)) {
            let entry = IpcacheEntry { tunnel: Addr::NONE, identity: *identity };
            stage.maps.ipcache.set(&key(prefix), &entry).unwrap();
        }
        self.elsewhere.retain(|it| it.place != Place::World);
        self.elsewhere.extend(OUTSIDE.map(|text| {
            let around = prefixes.iter().filter(|(prefix, _)| prefix.contains(&ip(text)));
            let narrowest = around.max_by_key(|(prefix, _)| prefix.prefix_len());
            let identity = narrowest.map_or(Families::Dual.world_of(ip(text)), |(_, identity)| *identity);
            Party { place: Place::World, address: ip(text), identity }
        }));
    }

    /// A flow that a pod of this node sends or receives.
    pub(super) fn attempt(&self, random: &mut Random) -> Attempt {
        let pod = random.pick(&self.here);
        let of_family =
            |it: &&Party| it.address.is_ipv4() == pod.address.is_ipv4() && it.address != pod.address;
        let near = self.here.iter().filter(of_family).copied();
        let far = self.elsewhere.iter().filter(of_family).copied();
        let others: Vec<Party> = if random.chance(20) { near.collect() } else { far.collect() };
        let other = random.pick(&others);
        let (from, to) = if random.chance(50) { (pod, other) } else { (other, pod) };
        let family = if from.address.is_ipv4() { Family::V4 } else { Family::V6 };
        let protocol = random.pick(&[TCP, TCP, UDP, SCTP, family.icmp()]);
        let port = match protocol {
            TCP | UDP | SCTP if random.chance(80) => {
                random.pick(&PORTS).wrapping_add(random.pick(&[0, 0, 1, u16::MAX]))
            }
            TCP | UDP | SCTP => random.next() as u16 % FIRST_SOURCE,
            _ => random.pick(message_types(family)),
        };
        Attempt { from, to, family, protocol, port }
    }
}

/// Source ports begin here; destination ports are others, so that no flow is taken for the answer to another one.
pub(super) const FIRST_SOURCE: u16 = 20_000;
pub(super) const LAST_SOURCE: u16 = 60_000;

/// Echo request and reply, and messages that are neither these nor errors: timestamps, node information.
fn message_types(family: Family) -> &'static [u16] {
    if family == Family::V4 { &[0, 8, 13, 14, 42] } else { &[128, 129, 139, 140, 160] }
}

/// The first packet of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) from: Party,
    pub(super) to: Party,
    family: Family,
    protocol: u8,
    port: u16,
}

impl Attempt {
    pub(super) fn flow(&self) -> Flow {
        Flow {
            source: self.from.identity,
            destination: self.to.identity,
            protocol: self.protocol,
            destination_port: self.port,
            addresses: Some((self.from.address, self.to.address)),
        }
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    pub(super) fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The packet; `number` tells it from all others.
    pub(super) fn packet(&self, mac: [u8; 6], number: u16) -> Vec<u8> {
        let (from, to) = (self.from.address, self.to.address);
        let (source, destination) = ((from, number).into(), (to, self.port).into());
        match self.protocol {
            TCP => packet::tcp(mac, source, destination, Tcp::Syn),
            UDP => packet::udp(mac, source, destination, b""),
            SCTP => packet::sctp(mac, source, destination),
            _ => packet::icmp(mac, from, to, self.port as u8, number),
        }
    }

    /// Messages other than echo have no id: without this, the next of them would be taken for the same connection.
    pub(super) fn lasting_connection(&self) -> Option<CtKey> {
        let is_message = self.protocol == self.family.icmp();
        let has_id = matches!((self.family, self.port), (Family::V4, 0 | 8) | (Family::V6, 128 | 129));
        let side = |party: &Party| (Addr::from(party.address), self.port);
        (is_message && !has_id).then(|| CtKey::new(self.protocol, side(&self.from), side(&self.to)).0)
    }

    /// Link address that the device wants which sees the packet first.
    pub(super) fn mac(&self, stage: &Stage) -> [u8; 6] {
        if [PodA, PodB, Host].contains(&self.from.place) { ANY_MAC } else { stage.uplink.mac.0 }
    }
}

/// Prefix from its text.
pub(super) fn prefix(text: &str) -> IpNet {
    net(text)
}
