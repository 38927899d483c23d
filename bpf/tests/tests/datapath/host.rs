//! The node's own policy: what its processes receive and send.

use bpf_tests::packet::{self, Tcp};
use bpf_tests::stage::{
    Action,
    Place::{self, *},
    Rule, Stage,
};
use bpf_tests::{Family, Mode};
use cilium_bpf::layout::{CONFIG_HOST_FIREWALL, DIRECTION_EGRESS, DIRECTION_INGRESS};
use cilium_bpf::reason::DropReason;

use crate::{ANY_MAC, DENIED, DENIED_BY_RULE, TCP, UDP};

/// What goes out for pods has it.
const MARK_FORWARDED: u32 = 0x0e00;
const NODE: u32 = 6;
const POD_A: u32 = 1005;
const POD_B: u32 = 1006;
const NEIGHBOUR_SOLICITATION: u8 = 135;

fn mk_stage(mode: Mode) -> Stage {
    Stage::with_config(mode, |config| config.flags |= CONFIG_HOST_FIREWALL)
}

/// A packet from outside, or from a pod of this node, to the node itself.
fn arrive(stage: &Stage, from: Place, family: Family, ports: (u16, u16), flags: Tcp) -> Action {
    let packet = |mac| packet::tcp(mac, from.at(family, ports.0), Host.at(family, ports.1), flags);
    match from {
        PodA | PodB => stage.leave(from, &packet(ANY_MAC)).action,
        _ => stage.receive(&packet(stage.uplink.mac.0)).action,
    }
}

/// A packet from the node itself to the outside, or to a pod of this node.
fn depart(stage: &Stage, to: Place, family: Family, ports: (u16, u16), flags: Tcp) -> Action {
    let packet = packet::tcp(ANY_MAC, Host.at(family, ports.0), to.at(family, ports.1), flags);
    match to {
        PodA | PodB => stage.enter(to, &packet).action,
        _ => stage.send_out(&packet, 0).action,
    }
}

/// Who is at the other side, what is allowed, what is denied, and what becomes of a connection at port 22.
const TABLE: [(Place, &[Rule], &[Rule], Action); 11] = [
    (RemoteNode, &[Rule(NODE, TCP, Some(22))], &[], Action::Pass),
    (RemoteNode, &[Rule(NODE, TCP, Some(23))], &[], DENIED),
    (RemoteNode, &[Rule(NODE, UDP, None)], &[], DENIED),
    (RemoteNode, &[Rule(0, 0, None)], &[Rule(NODE, TCP, Some(22))], DENIED_BY_RULE),
    (World, &[Rule(9, TCP, None), Rule(10, TCP, None)], &[], Action::Pass),
    (World, &[Rule(NODE, TCP, Some(22))], &[], DENIED),
    (PodA, &[Rule(POD_A, TCP, Some(22))], &[], Action::Pass),
    (PodA, &[Rule(11, TCP, Some(22))], &[], Action::Pass),
    (PodA, &[Rule(POD_B, TCP, Some(22))], &[], DENIED),
    (PodB, &[Rule(0, 0, None)], &[Rule(POD_B, 0, None)], DENIED_BY_RULE),
    (RemoteNode, &[], &[], DENIED),
];

#[test]
fn both_directions_are_enforced_for_every_peer() {
    for mode in [Mode::Native, Mode::Tunnel] {
        let mut stage = mk_stage(mode);
        let mut generation = 100;
        for (place, allow, deny, expected) in TABLE {
            for family in Family::ALL {
                for (direction, ingress, egress) in
                    [(DIRECTION_INGRESS, Some(allow), None), (DIRECTION_EGRESS, None, Some(allow))]
                {
                    generation += 1;
                    stage.deny(generation, direction, deny);
                    stage.enforce_host(generation, ingress, egress);
                    let ports = (10_000 + generation as u16, 22);
                    let found = if direction == DIRECTION_INGRESS {
                        arrive(&stage, place, family, ports, Tcp::Syn)
                    } else {
                        depart(&stage, place, family, ports, Tcp::Syn)
                    };
                    assert_eq!(
                        found, expected,
                        "{direction} {place:?} {family:?} {mode:?} {allow:?} {deny:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn answers_pass_and_connections_follow_the_policy() {
    let mut stage = mk_stage(Mode::Native);
    for family in Family::ALL {
        stage.enforce_host(10, None, None);
        // Begun before there is a policy: followed all the same.
        assert_eq!(depart(&stage, World, family, (40_000, 443), Tcp::Syn), Action::Pass);
        assert_eq!(arrive(&stage, RemoteNode, family, (40_001, 22), Tcp::Syn), Action::Pass);
        stage.enforce_host(11, Some(&[]), Some(&[Rule(9, 0, None), Rule(10, 0, None)]));
        assert_eq!(arrive(&stage, World, family, (443, 40_000), Tcp::SynAck), Action::Pass, "an answer");
        assert_eq!(depart(&stage, World, family, (40_000, 443), Tcp::Ack), Action::Pass, "allowed still");
        assert_eq!(arrive(&stage, World, family, (443, 40_009), Tcp::SynAck), DENIED, "an answer to nothing");
        assert_eq!(
            arrive(&stage, RemoteNode, family, (40_001, 22), Tcp::Ack),
            DENIED,
            "not allowed any more"
        );
        assert_eq!(depart(&stage, RemoteNode, family, (22, 40_001), Tcp::Ack), DENIED, "nor is its answer");
        stage.enforce_host(12, Some(&[Rule(NODE, TCP, Some(22))]), Some(&[]));
        assert_eq!(arrive(&stage, RemoteNode, family, (40_002, 22), Tcp::Syn), Action::Pass);
        assert_eq!(depart(&stage, RemoteNode, family, (22, 40_002), Tcp::SynAck), Action::Pass, "an answer");
        assert_eq!(depart(&stage, World, family, (40_000, 443), Tcp::Ack), DENIED, "not allowed any more");
    }
}

#[test]
fn what_is_not_the_nodes_own_is_none_of_its_business() {
    let mut stage = mk_stage(Mode::Native);
    stage.enforce_host(10, Some(&[]), Some(&[]));
    for family in Family::ALL {
        let forwarded = packet::tcp(ANY_MAC, PodA.at(family, 5000), World.at(family, 80), Tcp::Syn);
        assert_eq!(stage.send_out(&forwarded, 0).action, Action::Pass, "a pod's, by the stack");
        let masqueraded = packet::tcp(ANY_MAC, Host.at(family, 61_000), World.at(family, 80), Tcp::Syn);
        assert_eq!(stage.send_out(&masqueraded, MARK_FORWARDED).action, Action::Pass, "a pod's, masqueraded");
        assert_eq!(stage.send_out(&masqueraded, 0).action, DENIED, "the node's own");
        let to_pod = packet::tcp(stage.uplink.mac.0, World.at(family, 5000), PodA.at(family, 80), Tcp::Syn);
        assert_eq!(stage.receive(&to_pod).action, Action::Redirect, "for a pod");
        let from_pod = packet::tcp(ANY_MAC, PodA.at(family, 5001), World.at(family, 80), Tcp::Syn);
        assert_eq!(stage.leave(PodA, &from_pod).action, Action::Redirect, "from a pod");
    }
}

#[test]
fn neighbours_are_found_whatever_the_policy() {
    let mut stage = mk_stage(Mode::Native);
    stage.enforce_host(10, Some(&[]), Some(&[]));
    let [node, host] = [RemoteNode.ip(Family::V6), Host.ip(Family::V6)];
    let mac = stage.uplink.mac.0;
    let asked = |hops| packet::icmp6(mac, node, host, NEIGHBOUR_SOLICITATION, hops);
    assert_eq!(stage.receive(&asked(255)).action, Action::Pass);
    assert_eq!(stage.receive(&asked(254)).action, DENIED, "somebody forwarded it");
    let asks = packet::icmp6(ANY_MAC, host, node, NEIGHBOUR_SOLICITATION, 255);
    assert_eq!(stage.send_out(&asks, 0).action, Action::Pass);
    // Addresses of the link are the node's as well.
    let link_local = bpf_tests::stage::ip("fe80::1");
    let ping = packet::echo(mac, bpf_tests::stage::ip("fe80::2"), link_local, packet::Echo::Request, 7);
    assert_eq!(stage.receive(&ping).action, DENIED);
}

#[test]
fn nobody_is_this_node_but_itself_and_nothing_unreadable_gets_past_a_policy() {
    let mut stage = mk_stage(Mode::Native);
    for family in Family::ALL {
        stage.enforce_host(10, Some(&[Rule(1, 0, None)]), None);
        assert_eq!(
            arrive(&stage, Host, family, (5000, 22), Tcp::Syn),
            Action::Drop(DropReason::InvalidSourceIp)
        );
    }
    let mut cut =
        packet::tcp(stage.uplink.mac.0, World.at(Family::V4, 5000), Host.at(Family::V4, 22), Tcp::Syn);
    cut.truncate(14 + 20 + 4);
    assert_eq!(stage.receive(&cut).action, Action::Drop(DropReason::InvalidPacket));
    stage.enforce_host(11, None, None);
    assert_eq!(stage.receive(&cut).action, Action::Pass, "without a policy it is the stack's");
}

#[test]
fn without_the_option_there_is_no_policy_of_the_node() {
    let mut stage = Stage::new(Mode::Native);
    stage.enforce_host(10, Some(&[]), Some(&[]));
    for family in Family::ALL {
        for place in [RemoteNode, World, PodA] {
            assert_eq!(arrive(&stage, place, family, (5000, 22), Tcp::Syn), Action::Pass, "{place:?}");
            assert_eq!(depart(&stage, place, family, (5001, 22), Tcp::Syn), Action::Pass, "{place:?}");
        }
    }
}
