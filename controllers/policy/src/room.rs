//! What a compiled policy takes in the map of a node.

use cilium_api::parts::{Entry, Policy};
use cilium_core::{port_blocks, reserved};

/// Entries that the map of policies of a node has room for, all policies together, unless settings (`bpf-map-sizes`) say otherwise.
pub const MAP_ENTRIES: u32 = 524_288;

/// Of what any peer is meant by, there is an entry for each aggregate, too.
const ANY_PEER_ENTRIES: usize = 4;

/// Every entry of a policy: the origins that say it, and how many entries of the map it becomes at most: rules about one peer share one
/// as far as they fit.
///
/// A range of ports becomes up to 30, and any peer 4. What denials and rules in an order make necessary beyond that is not counted, and names of peers
/// count as one identity.
pub fn room(policy: &Policy) -> impl Iterator<Item = (&[u16], usize)> {
    let entries = policy.ingress.entries().chain(policy.egress.entries()).chain(&policy.heard);
    let entries = entries.map(|entry| (entry.origins.as_slice(), of_entry(entry)));
    let dns = policy.dns.iter().map(|rule| (rule.origins.as_slice(), of_entry(&rule.entry())));
    // Any identity will do that is not any peer.
    let names =
        policy.named_peers().map(|peer| (peer.origins.as_slice(), of_entry(&peer.entry(reserved::WORLD))));
    entries.chain(dns).chain(names)
}

fn of_entry(entry: &Entry) -> usize {
    let ports = match (entry.protocol, entry.first, entry.last) {
        (0, ..) | (_, 0, 0) => 1,
        (_, first, last) => port_blocks(first, last).len(),
    };
    if entry.peer == reserved::ANY { ports * ANY_PEER_ENTRIES } else { ports }
}
