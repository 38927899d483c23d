//! The choice of a backend on which nodes agree.

use std::net::{IpAddr, SocketAddr};

use bpf_tests::services::Frontend;
use bpf_tests::stage::{Place::*, Stage, ip};
use bpf_tests::{Family, Mode, packet::Tcp};
use cilium_bpf::layout::{BackendEntry, NetPort, SERVICE_MAGLEV};
use cilium_dataplane::maglev::Maglev;

use crate::nodeport::{CLIENT, PORT, any, mk_packet, sent_on};
use crate::{TCP, UDP};

const TABLES: Maglev = Maglev { size: 2039, seed: 5 };
const CLIENTS: u16 = 100;

/// Addresses outside of the node, that its routes lead to.
fn mk_backends(family: Family, numbers: impl IntoIterator<Item = u8>) -> Vec<SocketAddr> {
    let prefix = if family == Family::V4 { "10.9.0." } else { "fd00:9::" };
    numbers.into_iter().map(|number| (ip(&format!("{prefix}{number}")), 80).into()).collect()
}

fn mk_table(backends: &[SocketAddr]) -> Vec<u16> {
    let entry = |at: &SocketAddr| BackendEntry { address: at.ip().into(), port: NetPort(at.port()) };
    let entries: Vec<BackendEntry> = backends.iter().map(entry).collect();
    TABLES.fill(&entries).unwrap().to_vec()
}

/// A node, by its addresses.
struct Node {
    stage: Stage,
    addresses: [IpAddr; 2],
}

impl Node {
    fn new(addresses: [&str; 2], seed: u64) -> Self {
        let addresses = addresses.map(ip);
        let stage = Stage::with_config(Mode::Native, |config| {
            [config.host4, config.host6] = addresses.map(Into::into);
            (config.maglev_size, config.maglev_seed) = (TABLES.size, seed);
        });
        Self { stage, addresses }
    }

    /// Serves a port of nodes. `change` is made to the service last.
    fn serve(&mut self, numbers: &[u8], change: impl Fn(&mut Frontend)) {
        for (number, family) in (0..).zip(Family::ALL) {
            let backends = mk_backends(family, numbers.iter().copied());
            for (other, protocol) in [(0, TCP), (2, UDP)] {
                let (flags, table) = (SERVICE_MAGLEV, mk_table(&backends));
                let generation = 10 + number + other;
                let mut service = Frontend { generation, protocol, flags, table, ..Frontend::default() };
                change(&mut service);
                service.serve(&mut self.stage.maps, (any(family), PORT).into(), &backends);
            }
        }
    }

    /// The backends to which clients come, one for each of their ports.
    fn choices(&self, family: Family, protocol: u8) -> Vec<SocketAddr> {
        let at = SocketAddr::new(self.addresses[usize::from(family == Family::V6)], PORT);
        let mac = self.stage.uplink.mac.0;
        let packet = |i| mk_packet(protocol, mac, World.at(family, CLIENT + i), at, Tcp::Syn);
        (0..CLIENTS).map(|i| sent_on(&self.stage.receive(&packet(i))).1).collect()
    }
}

const ONE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const OTHER: [&str; 2] = ["192.0.2.11", "2001:db8::11"];

#[test]
fn nodes_agree_on_the_backend_of_a_connection() {
    let mut nodes = [(ONE, 7), (OTHER, 7), (OTHER, 8)].map(|(addresses, seed)| Node::new(addresses, seed));
    nodes.iter_mut().for_each(|node| node.serve(&[1, 2, 3, 4, 5], |_| ()));
    for family in Family::ALL {
        for protocol in [TCP, UDP] {
            let [one, other, strange] = nodes.each_ref().map(|node| node.choices(family, protocol));
            assert_eq!(one, other);
            let all = mk_backends(family, 1..=5);
            assert!(all.iter().all(|backend| one.contains(backend)), "every backend has clients: {one:?}");
            assert_ne!(one, strange, "of another cluster");
        }
    }
}

#[test]
fn the_order_of_backends_is_of_no_account() {
    let [mut one, mut other] = [Node::new(ONE, 7), Node::new(OTHER, 7)];
    one.serve(&[1, 2, 3, 4, 5], |_| ());
    other.serve(&[4, 2, 5, 1, 3], |_| ());
    for family in Family::ALL {
        assert_eq!(one.choices(family, TCP), other.choices(family, TCP));
    }
}

#[test]
fn when_a_backend_goes_the_clients_of_the_others_stay() {
    let [mut before, mut after] = [Node::new(ONE, 7), Node::new(ONE, 7)];
    before.serve(&[1, 2, 3, 4, 5], |_| ());
    after.serve(&[1, 2, 4, 5], |_| ());
    for family in Family::ALL {
        let gone = mk_backends(family, [3])[0];
        let (old, new) = (before.choices(family, UDP), after.choices(family, UDP));
        assert!(!new.contains(&gone));
        let moved = old.iter().zip(&new).filter(|(old, new)| **old != gone && old != new).count();
        assert!(moved <= 5, "{moved} of {CLIENTS} clients moved for nothing");
    }
}

#[test]
fn with_affinity_the_port_of_a_client_is_of_no_account() {
    let [mut one, mut other] = [Node::new(ONE, 7), Node::new(OTHER, 7)];
    one.serve(&[1, 2, 3, 4, 5], |service| service.affinity = 60);
    other.serve(&[1, 2, 3, 4, 5], |service| service.affinity = 60);
    for family in Family::ALL {
        let [here, there] = [&one, &other].map(|node| node.choices(family, TCP));
        assert_eq!(here, there);
        assert!(here.iter().all(|choice| *choice == here[0]), "{here:?}");
    }
}

#[test]
fn without_a_table_or_with_one_of_another_set_every_client_has_a_backend() {
    for table in [vec![], vec![40_000; 2039]] {
        let mut node = Node::new(ONE, 7);
        node.serve(&[1, 2, 3], |service| service.table.clone_from(&table));
        for family in Family::ALL {
            let all = mk_backends(family, 1..=3);
            assert!(node.choices(family, TCP).iter().all(|choice| all.contains(choice)));
        }
    }
}
