//! Entries for many identities at once, known or not.

use bpf_tests::packet::{self, Tcp};
use bpf_tests::stage::{
    Action,
    Place::{self, *},
    Rule, Stage,
};
use bpf_tests::{Family, Mode};

use crate::{ANY_MAC, DENIED, TCP};

/// Every pod of the cluster, every prefix outside, every node with an identity of its own.
const PODS: Rule = Rule(11, TCP, Some(80));
const PREFIXES: Rule = Rule(13, TCP, Some(80));
const NODES: Rule = Rule(14, TCP, Some(80));
const ANY: Rule = Rule(0, TCP, Some(80));

/// A node with an identity of its own, and a prefix that no policy on this node has heard of.
const NODE: u32 = (2 << 24) + 3;
const PREFIX: u32 = (1 << 24) + 3;

const PASSES: Action = Action::Redirect;

/// The other side, its identity where it is another than usual, what is allowed, and what becomes of a connection with it.
const TABLE: [(Place, Option<u32>, &[Rule], Action); 16] = [
    (RemotePod, None, &[PODS], PASSES),
    (RemotePod, Some(100), &[PODS], PASSES),
    (RemotePod, Some(65_535), &[PODS], PASSES),
    (RemotePod, Some(99), &[PODS], DENIED),
    (RemotePod, Some(65_536), &[PODS], DENIED),
    (RemotePod, None, &[PREFIXES, NODES], DENIED),
    (RemotePod, None, &[Rule(11, TCP, Some(81))], DENIED),
    (World, Some(PREFIX), &[PREFIXES], PASSES),
    (World, Some(PREFIX), &[PODS, NODES], DENIED),
    (World, None, &[PODS, PREFIXES, NODES], DENIED),
    (RemoteNode, Some(NODE), &[NODES], PASSES),
    (RemoteNode, Some(NODE), &[PODS, PREFIXES], DENIED),
    (RemoteNode, None, &[PODS, PREFIXES, NODES], DENIED),
    (RemoteNode, Some(NODE), &[ANY], PASSES),
    (World, Some(PREFIX), &[ANY], PASSES),
    (RemotePod, None, &[ANY], PASSES),
];

#[test]
fn an_aggregate_stands_for_its_identities_and_no_other() {
    let mut stage = Stage::new(Mode::Native);
    let mut generation = 100;
    for (place, identity, allow, expected) in TABLE {
        for family in Family::ALL {
            generation += 1;
            let known = identity.unwrap_or(place.identity(family));
            stage.know(place.ip(family), known, None);
            stage.enforce(PodA, generation, Some(allow), Some(allow));
            let port = 10_000 + generation as u16;
            let syn = packet::tcp(ANY_MAC, PodA.at(family, port), place.at(family, 80), Tcp::Syn);
            assert_eq!(
                stage.leave(PodA, &syn).action,
                expected,
                "to {place:?} {known}, {allow:?}, {family:?}"
            );
            let syn = packet::tcp(stage.uplink.mac.0, place.at(family, port), PodA.at(family, 80), Tcp::Syn);
            assert_eq!(stage.receive(&syn).action, expected, "from {place:?} {known}, {allow:?}, {family:?}");
        }
    }
}
