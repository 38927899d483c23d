//! The layouts of user space are those of the object, and every program passes the verifier.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use bpf_tests::btf::{self, Struct};
use bpf_tests::cluster::Cluster;
use bpf_tests::{Mode, Stage};
use cilium_bpf::layout::*;
use cilium_bpf::{DEVICE_PROGRAMS, OBJECT, SOCKET_PROGRAMS};

fn compare<T: Layout>(structs: &std::collections::BTreeMap<String, Struct>) {
    let described = structs.get(T::NAME).unwrap_or_else(|| panic!("the object has no struct {}", T::NAME));
    assert_eq!(described.size, T::SIZE, "size of {}", T::NAME);
    let members: Vec<(&str, usize)> = described
        .members
        .iter()
        .filter(|member| member.name != "pad")
        .map(|member| (member.name.as_str(), member.offset))
        .collect();
    let fields: Vec<(&str, usize)> = T::FIELDS.iter().map(|field| (field.name, field.offset)).collect();
    assert_eq!(members, fields, "members of {}", T::NAME);
}

#[test]
fn layouts_are_those_of_the_object() {
    let structs = btf::structs(OBJECT);
    compare::<Endpoint>(&structs);
    compare::<IpcacheKey>(&structs);
    compare::<IpcacheEntry>(&structs);
    compare::<PolicyPeer>(&structs);
    compare::<PolicyRules>(&structs);
    compare::<PolicyAggregate>(&structs);
    compare::<PolicyAggregates>(&structs);
    compare::<PolicyKey>(&structs);
    compare::<PolicyEntry>(&structs);
    compare::<BlockKey>(&structs);
    compare::<BlockEntry>(&structs);
    compare::<CtKey>(&structs);
    compare::<CtSide>(&structs);
    compare::<CtEntry>(&structs);
    compare::<NatKey>(&structs);
    compare::<NatEntry>(&structs);
    compare::<FragmentKey>(&structs);
    compare::<FragmentPorts>(&structs);
    compare::<ServiceKey>(&structs);
    compare::<ServiceEntry>(&structs);
    compare::<SourceRangeKey>(&structs);
    compare::<SourceRangeEntry>(&structs);
    compare::<BackendKey>(&structs);
    compare::<BackendEntry>(&structs);
    compare::<MaglevKey>(&structs);
    compare::<MaglevChunk>(&structs);
    compare::<SockRevnatKey>(&structs);
    compare::<SockRevnatEntry>(&structs);
    compare::<ExemptKey>(&structs);
    compare::<ExemptEntry>(&structs);
    compare::<AnnouncementKey>(&structs);
    compare::<AnnouncementEntry>(&structs);
    compare::<LinkEntry>(&structs);
    compare::<LinkSigns>(&structs);
    compare::<PeerKey>(&structs);
    compare::<PeerEntry>(&structs);
    compare::<Heartbeat>(&structs);
    compare::<Event>(&structs);
    compare::<EventBudget>(&structs);
    compare::<Metric>(&structs);
    compare::<Prefix>(&structs);
    compare::<Config>(&structs);
}

#[test]
fn the_policy_map_has_the_room_that_statuses_tell_of() {
    let cluster = Cluster::new(Mode::Native);
    let policy = &cluster.one.maps.policy;
    assert_eq!([policy.peers.max_entries(), policy.ports.max_entries()], [cilium_policy::MAP_ENTRIES; 2]);
}

#[test]
fn every_program_loads_under_every_configuration() {
    for mode in [Mode::Native, Mode::Tunnel] {
        for flags in [
            0,
            CONFIG_MASQUERADE4,
            CONFIG_MASQUERADE4 | CONFIG_MASQUERADE6 | CONFIG_SET_RETVAL,
            CONFIG_REDIRECTS | CONFIG_SET_RETVAL,
            CONFIG_ANNOUNCE | CONFIG_HOST_FIREWALL,
        ] {
            let stage = Stage::with_config(mode, |config| config.flags = flags);
            for name in DEVICE_PROGRAMS.iter().chain(&SOCKET_PROGRAMS) {
                let program = stage.datapath.program(name).unwrap();
                let steps = verified_steps(program);
                assert!(steps < MOST_STEPS, "{name} takes the verifier {steps} steps");
            }
        }
    }
}

/// An agent loads all programs before it does anything else: some ten nanoseconds for each step.
const MOST_STEPS: u64 = 100_000;

/// How many instructions the verifier followed (`/proc/PID/fdinfo`, Linux 5.16).
fn verified_steps(program: BorrowedFd<'_>) -> u64 {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("verified_insns:")).unwrap();
    line.trim().parse().unwrap()
}
