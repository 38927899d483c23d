//! The short way of a known connection and the long way do the same.

use std::net::SocketAddr;

use bpf_tests::packet::{self, Tcp};
use bpf_tests::stage::{Action, Outcome, Place::*, Rule, Stage};
use bpf_tests::{Family, Mode, Place};
use cilium_bpf::layout::{CtEntry, CtKey};
use cilium_bpf::reason::DropReason;
use cilium_delta::Table;

use crate::{ANY_MAC, DENIED, TCP, UDP};

/// A connection between a pod and somebody, open in both directions.
struct Connection {
    protocol: u8,
    pod: SocketAddr,
    peer: SocketAddr,
    to: Place,
}

impl Connection {
    fn key(&self) -> CtKey {
        let side = |end: SocketAddr| (end.ip().into(), end.port());
        CtKey::new(self.protocol, side(self.pod), side(self.peer)).0
    }

    fn packet(&self, mac: [u8; 6], from: SocketAddr, to: SocketAddr, flags: Tcp) -> Vec<u8> {
        match self.protocol {
            TCP => packet::tcp(mac, from, to, flags),
            _ => packet::udp(mac, from, to, b"payload"),
        }
    }

    fn send(&self, stage: &Stage, flags: Tcp) -> Outcome {
        stage.leave(PodA, &self.packet(ANY_MAC, self.pod, self.peer, flags))
    }

    /// The peer's packet, as it arrives at this node.
    fn answer(&self, stage: &Stage, flags: Tcp) -> Outcome {
        let entry = stage.maps.ct.get(&self.key()).unwrap().unwrap();
        let mut pod = self.pod;
        if entry.nat_port.0 != 0 {
            pod = Host.at(if pod.is_ipv4() { Family::V4 } else { Family::V6 }, entry.nat_port.0);
        }
        let local = self.packet(ANY_MAC, self.peer, pod, flags);
        match self.to {
            PodB => stage.leave(PodB, &local),
            Host => stage.enter(PodA, &local),
            _ => stage.receive(&self.packet(stage.uplink.mac.0, self.peer, pod, flags)),
        }
    }

    fn open(&self, stage: &Stage) {
        self.send(stage, Tcp::Syn);
        self.answer(stage, Tcp::SynAck);
        self.send(stage, Tcp::Ack);
    }

    /// Makes the next packet look at everything.
    fn forget_the_second(&self, stage: &mut Stage) {
        let entry = stage.maps.ct.get(&self.key()).unwrap().unwrap();
        let earlier = CtEntry { expires: entry.expires - 2, ..entry };
        stage.maps.ct.set(&self.key(), &earlier).unwrap();
    }
}

fn connections() -> Vec<Connection> {
    let mut all = Vec::new();
    for family in Family::ALL {
        for to in [PodB, RemotePod, RemoteNode, World, Host] {
            for protocol in [TCP, UDP] {
                let (pod, peer) = (PodA.at(family, 12_000), to.at(family, 443));
                all.push(Connection { protocol, pod, peer, to });
            }
        }
    }
    all
}

#[test]
fn packets_come_out_alike() {
    for mode in [Mode::Native, Mode::Tunnel] {
        let mut stage = Stage::new(mode);
        for connection in connections().iter().filter(|c| mode == Mode::Native || c.to != RemotePod) {
            connection.open(&stage);
            for direction in [Connection::send, Connection::answer] {
                connection.forget_the_second(&mut stage);
                let long = direction(connection, &stage, Tcp::Ack);
                let short = direction(connection, &stage, Tcp::Ack);
                assert!(matches!(long.action, Action::Redirect | Action::Pass));
                let what = format!("{mode:?} {} to {}", connection.protocol, connection.peer);
                assert_eq!((short.action, short.packet), (long.action, long.packet), "{what}");
            }
        }
    }
}

#[test]
fn whatever_changes_is_noticed_at_once() {
    let mut stage = Stage::new(Mode::Native);
    let mut generation = 100;
    for connection in connections() {
        let family = if connection.pod.is_ipv4() { Family::V4 } else { Family::V6 };
        let peer = connection.to.identity(family);
        generation += 10;
        stage.enforce(PodA, generation, Some(&[]), Some(&[Rule(peer, connection.protocol, None)]));
        connection.open(&stage);
        for _ in 0..3 {
            assert_ne!(connection.send(&stage, Tcp::Ack).action, DENIED);
        }
        stage.close(PodA);
        let closed = Action::Drop(DropReason::EndpointNotReady);
        assert_eq!(connection.send(&stage, Tcp::Ack).action, closed, "{}", connection.peer);
        stage.enforce(PodA, generation + 1, Some(&[]), Some(&[]));
        assert_eq!(connection.send(&stage, Tcp::Ack).action, DENIED, "{}", connection.peer);
    }
}

#[test]
fn nobody_else_can_use_a_known_connection() {
    let stage = Stage::new(Mode::Native);
    for connection in connections() {
        connection.open(&stage);
        let packet = connection.packet(ANY_MAC, connection.pod, connection.peer, Tcp::Ack);
        let forged = stage.leave(PodB, &packet);
        assert_eq!(forged.action, Action::Drop(DropReason::InvalidSourceIp), "{}", connection.peer);
    }
}
