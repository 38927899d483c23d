//! The order in which nodes own an address.
//!
//! Each node has a place for each address, and the node with the lowest place is first (rendezvous hashing). Places by a plain hash are
//! too uneven for the few addresses that clusters have, so a node's places for 16 addresses in a row are a permutation of 0 to 15: each node
//! has one address of the sixteen in its first place, one in its second, and so on.
//!
//! Nothing here may ever change: operators of two versions must agree, or addresses move.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use cilium_api::parts::MAX_OWNERS;
use cilium_core::hash::{fnv1a, mix};

/// Bits of an address that say where it is in its block.
const BLOCK_BITS: u32 = 4;

/// Addresses of a block.
const BLOCK: usize = 1 << BLOCK_BITS;

/// A node's places for the addresses of a block.
type Places = [u8; BLOCK];

/// Name of a node, with the hash that its places follow from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeName {
    pub(crate) name: Arc<str>,
    hash: u64,
}

impl NodeName {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.into(), hash: mix(fnv1a(name.bytes())) }
    }
}

/// Orders nodes; remembers places in the block that it was last asked about, as addresses mostly come in order.
#[derive(Debug, Default)]
pub(crate) struct Order {
    block: u128,
    places: HashMap<u64, Places>,
}

impl Order {
    /// The first owners of an address out of these nodes, at most [`MAX_OWNERS`].
    pub(crate) fn owners(&mut self, address: IpAddr, nodes: &[&NodeName]) -> Vec<NodeName> {
        let bits = bits(address);
        let block = bits >> BLOCK_BITS;
        if block != self.block {
            self.places.clear();
            self.block = block;
        }
        let at = (bits % BLOCK as u128) as usize;
        let mut ranked: Vec<(u8, u64, &NodeName)> = nodes
            .iter()
            .map(|node| {
                let places = self.places.entry(node.hash).or_insert_with(|| places(node.hash, block));
                (places[at], mix(node.hash ^ fold(bits)), *node)
            })
            .collect();
        if ranked.len() > MAX_OWNERS {
            ranked.select_nth_unstable(MAX_OWNERS - 1);
            ranked.truncate(MAX_OWNERS);
        }
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, _, node)| node.clone()).collect()
    }
}

/// A permutation (Fisher and Yates) that depends on node and block.
fn places(node: u64, block: u128) -> Places {
    let mut places: Places = std::array::from_fn(|at| at as u8);
    let mut random = mix(node ^ fold(block));
    for last in (1..BLOCK).rev() {
        random = mix(random);
        places.swap(last, (random % (last as u64 + 1)) as usize);
    }
    places
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(it) => it.to_bits().into(),
        IpAddr::V6(it) => it.to_bits(),
    }
}

/// Both halves count.
fn fold(bits: u128) -> u64 {
    mix(bits as u64 ^ mix((bits >> 64) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_nodes(names: &[&str]) -> Vec<NodeName> {
        names.iter().map(|name| NodeName::new(name)).collect()
    }

    fn owners(address: &str, nodes: &[NodeName]) -> Vec<String> {
        let nodes: Vec<&NodeName> = nodes.iter().collect();
        let owners = Order::default().owners(address.parse().unwrap(), &nodes);
        owners.iter().map(|owner| owner.name.to_string()).collect()
    }

    /// These numbers are an agreement between versions. Whoever changes them moves everybody's addresses.
    #[test]
    fn hashes_and_orders_stay_as_they_are_for_ever() {
        assert_eq!(fnv1a("worker-1".bytes()), 0x2491_3ec5_9027_ebed);
        assert_eq!(NodeName::new("worker-1").hash, 0x0d0f_1aae_127c_a6a0);
        assert_eq!(fold(u128::MAX), 0x6309_143e_67a4_7936);
        let expected = [3, 12, 10, 4, 11, 1, 13, 8, 15, 7, 9, 14, 6, 5, 0, 2];
        assert_eq!(places(NodeName::new("worker-1").hash, 0x00c0_0020), expected);
        let nodes = mk_nodes(&["worker-1", "worker-2", "worker-3"]);
        assert_eq!(owners("192.0.2.1", &nodes), ["worker-2", "worker-3", "worker-1"]);
        assert_eq!(owners("192.0.2.2", &nodes), ["worker-1", "worker-3", "worker-2"]);
        assert_eq!(owners("2001:db8::1", &nodes), ["worker-2", "worker-3", "worker-1"]);
        let nodes: Vec<NodeName> = (0..20).map(|number| NodeName::new(&format!("n{number}"))).collect();
        assert_eq!(owners("198.51.100.7", &nodes), ["n15", "n0", "n17", "n4", "n6", "n16", "n1", "n3"]);
    }

    #[test]
    fn a_hundred_addresses_are_spread_evenly() {
        let triples = [
            ["worker-1", "worker-2", "worker-3"],
            ["node-a", "node-b", "node-c"],
            ["ip-10-0-0-11", "ip-10-0-0-12", "ip-10-0-0-13"],
            ["kind-worker", "kind-worker2", "kind-worker3"],
            ["n1", "n2", "n3"],
        ];
        for (triple, first) in triples.iter().zip([1_u8, 100, 50, 0, 30]) {
            let nodes = mk_nodes(triple);
            let mut counts = [0; 3];
            for last in first..first + 100 {
                let owners = owners(&format!("192.0.2.{last}"), &nodes);
                let at = triple.iter().position(|name| *name == owners[0]).unwrap();
                counts[at] += 1;
            }
            assert!(counts.iter().all(|count| (27..=40).contains(count)), "{triple:?}: {counts:?}");
        }
    }

    #[test]
    fn a_node_that_goes_hands_on_what_it_had_and_no_more() {
        let all = mk_nodes(&["a", "b", "c", "d", "e"]);
        for last in 0..=255 {
            let address = format!("192.0.2.{last}");
            let before = owners(&address, &all);
            for gone in &all {
                let rest: Vec<NodeName> = all.iter().filter(|node| *node != gone).cloned().collect();
                let expected: Vec<String> =
                    before.iter().filter(|name| **name != *gone.name).cloned().collect();
                assert_eq!(owners(&address, &rest), expected);
            }
        }
    }

    #[test]
    fn what_is_remembered_of_one_block_does_not_leak_into_another() {
        let nodes = mk_nodes(&["a", "b", "c"]);
        let nodes: Vec<&NodeName> = nodes.iter().collect();
        let mut order = Order::default();
        for text in ["10.0.0.1", "10.0.0.17", "10.0.0.2", "::1", "0.0.0.1"] {
            let address = text.parse().unwrap();
            assert_eq!(order.owners(address, &nodes), Order::default().owners(address, &nodes), "{text}");
        }
    }

    #[test]
    fn every_node_has_every_place_once_in_a_block() {
        for block in 0..50 {
            let mut places = places(NodeName::new("a").hash, block);
            places.sort_unstable();
            assert_eq!(places, std::array::from_fn::<u8, 16, _>(|at| at as u8));
        }
    }
}
