//! The eBPF object of the datapath, and everything user space must know to talk to it.
//!
//! [`OBJECT`] holds the programs and maps that `docs/design/datapath.md` describes. It is loaded with a [`layout::Config`] as
//! the global [`CONFIG_GLOBAL`]. This crate is pure: it neither loads nor calls anything.
//!
//! Minimum kernel: Linux 5.15 (`bpf_redirect_peer` 5.10, `bpf_ktime_get_coarse_ns` 5.11).

pub mod layout;
pub mod reason;

/// Name of the global that takes [`layout::Config`].
pub const CONFIG_GLOBAL: &str = "CFG";

/// Bytes at the alignment that ELF readers want.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/cilium.bpf.o")));

/// The compiled object: an ELF file for the bpf machine, with BTF, aligned to 8 bytes.
pub static OBJECT: &[u8] = &ALIGNED.0;

/// Programs for network devices, all of type `sched_cls`.
pub const DEVICE_PROGRAMS: [&str; 6] =
    ["from_container", "to_container", "from_netdev", "to_netdev", "from_overlay", "from_host"];

/// The program for the node's device that packets meet before the stack, of type `xdp`.
pub const EARLY_PROGRAM: &str = "xdp_netdev";

/// Programs for the node's cgroup root, all of type `cgroup_sock_addr`.
pub const SOCKET_PROGRAMS: [&str; 8] = [
    "sock_connect4",
    "sock_connect6",
    "sock_sendmsg4",
    "sock_sendmsg6",
    "sock_recvmsg4",
    "sock_recvmsg6",
    "sock_getpeername4",
    "sock_getpeername6",
];

/// A map that traffic fills. The kernel makes all its entries at once.
#[derive(Clone, Copy, Debug)]
pub struct TrafficMap {
    /// Name.
    pub name: &'static str,
    /// Entries that are built in.
    pub entries: u32,
    /// Bytes that the kernel takes for an entry: key and value in whole words, and 48 of its own.
    pub bytes: u32,
}

const fn traffic_map(name: &'static str, entries: u32, key: u32, value: u32) -> TrafficMap {
    TrafficMap { name, entries, bytes: key.next_multiple_of(8) + value.next_multiple_of(8) + 48 }
}

/// The maps that an agent sizes by the node's memory.
pub const TRAFFIC_MAPS: [TrafficMap; 5] = [
    traffic_map("cilium_ct", 131_072, 40, 40),
    traffic_map("cilium_snat", 65_536, 40, 48),
    traffic_map("cilium_fragments", 8192, 40, 4),
    traffic_map("cilium_affinity", 65_536, 40, 40),
    traffic_map("cilium_sock_revnat", 65_536, 32, 24),
];

/// Maps that live longer than the process that made them: the loader pins them by these names.
pub const PINNED_MAPS: [&str; 26] = [
    "cilium_endpoints",
    "cilium_ipcache",
    "cilium_slots",
    "cilium_policy",
    "cilium_policy_aggregates",
    "cilium_policy_ports",
    "cilium_blocks",
    "cilium_ct",
    "cilium_snat",
    "cilium_fragments",
    "cilium_services",
    "cilium_backends",
    "cilium_maglev",
    "cilium_affinity",
    "cilium_source_ranges",
    "cilium_sock_revnat",
    "cilium_exempt",
    "cilium_announcements",
    "cilium_links",
    "cilium_link_signs",
    "cilium_peers",
    "cilium_announcer",
    "cilium_events",
    "cilium_event_mask",
    "cilium_event_budget",
    "cilium_metrics",
];
