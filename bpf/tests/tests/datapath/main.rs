//! The eBPF programs against the running kernel. Needs root, and fails without it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod aggregates;
mod announce;
mod balance;
mod deny;
mod dsr;
mod early;
mod events;
mod fragments;
mod garbage;
mod host;
mod icmp;
mod inbound;
mod layouts;
mod local;
mod maglev;
mod many;
mod masquerade;
mod nodeport;
mod oracle;
mod outbound;
mod prefixes;
mod ways;

use bpf_tests::stage::Action;
use cilium_bpf::reason::DropReason;
use cilium_dataplane::{Piece, PieceKey};
use cilium_delta::Table as _;
use cilium_drivers::maps::Maps;

/// MAC address that the host's end of a pod's device does not care for.
const ANY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

const UDP: u8 = 17;
const TCP: u8 = 6;
const SCTP: u8 = 132;

const DENIED: Action = Action::Drop(DropReason::PolicyDenied);
const DENIED_BY_RULE: Action = Action::Drop(DropReason::PolicyDeny);

/// Writes a policy as the agent does, but for the slot.
fn write_pieces(maps: &mut Maps, pieces: &[(PieceKey, Piece)]) {
    let Maps { policy, blocks, .. } = maps;
    for piece in pieces {
        match piece {
            (PieceKey::Peer(peer), Piece::Peer(said)) => policy.peers.set(peer, said).unwrap(),
            (PieceKey::Port(key), Piece::Port(entry)) => policy.ports.set(key, entry).unwrap(),
            (PieceKey::Block(key), Piece::Block(entry)) => blocks.set(key, entry).unwrap(),
            other => panic!("{other:?} are of different maps"),
        }
    }
}
