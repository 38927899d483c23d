//! What one packet costs in each program: `cargo run -p bpf-tests --example cost` (as root).

use bpf_tests::packet::{self, HOPS, Tcp};
use bpf_tests::stage::{Place::*, Stage};
use bpf_tests::{Family, Mode};
use cilium_drivers::datapath::DeviceProgram;
use cilium_drivers::netlink::Link;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SAMPLES: usize = 400;

/// Median of the nanoseconds for one run. Every run takes a hop from the packet, so a sample has fewer runs than hops.
fn cost(stage: &Stage, program: DeviceProgram, device: &Link, packet: &[u8]) -> u32 {
    let run = |_| stage.run(program, device, packet, u32::from(HOPS) - 4).nanoseconds;
    let mut samples: Vec<u32> = (0..SAMPLES).map(run).collect();
    samples.sort_unstable();
    samples[SAMPLES / 2]
}

fn local(stage: &Stage, family: Family) -> [(&'static str, u32); 2] {
    let (a, b) = (PodA.at(family, 1000), PodB.at(family, 80));
    stage.leave(PodA, &packet::tcp(MAC, a, b, Tcp::Syn));
    stage.leave(PodB, &packet::tcp(MAC, b, a, Tcp::SynAck));
    let forth = packet::tcp(MAC, a, b, Tcp::Ack);
    let back = packet::tcp(MAC, b, a, Tcp::Ack);
    [
        ("local, established", cost(stage, DeviceProgram::FromContainer, stage.link(PodA), &forth)),
        ("local, reply", cost(stage, DeviceProgram::FromContainer, stage.link(PodB), &back)),
    ]
}

fn remote(stage: &Stage, family: Family) -> [(&'static str, u32); 2] {
    let (a, c) = (PodA.at(family, 1001), RemotePod.at(family, 80));
    let mac = stage.uplink.mac.0;
    stage.leave(PodA, &packet::tcp(MAC, a, c, Tcp::Syn));
    stage.receive(&packet::tcp(mac, c, a, Tcp::SynAck));
    let forth = packet::tcp(MAC, a, c, Tcp::Ack);
    let back = packet::tcp(mac, c, a, Tcp::Ack);
    [
        ("to another node", cost(stage, DeviceProgram::FromContainer, stage.link(PodA), &forth)),
        ("from another node", cost(stage, DeviceProgram::FromNetdev, &stage.uplink, &back)),
    ]
}

fn main() {
    for mode in [Mode::Native, Mode::Tunnel] {
        let stage = Stage::new(mode);
        for family in Family::ALL {
            for (what, nanoseconds) in local(&stage, family).into_iter().chain(remote(&stage, family)) {
                println!("{mode:?} {family:?} {what}: {nanoseconds} ns");
            }
        }
        let stranger = packet::udp(stage.uplink.mac.0, World.at(Family::V4, 1), Host.at(Family::V4, 22), b"");
        let host = cost(&stage, DeviceProgram::FromNetdev, &stage.uplink, &stranger);
        println!("{mode:?} for the node itself: {host} ns");
    }
}
