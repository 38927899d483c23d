//! Events of the ring buffer, and counters.

use super::{Addr, NetPort, layout};
use crate::reason::DropReason;

/// [`Event::kind`]: a packet was dropped.
pub const EVENT_DROP: u8 = 1;
/// [`Event::kind`]: an enforced direction was asked about a new connection.
pub const EVENT_VERDICT: u8 = 5;
/// Bit of `cilium_event_mask[0]`: send drops.
pub const EVENT_MASK_DROP: u32 = 1 << 0;
/// Bit of `cilium_event_mask[0]`: send verdicts.
pub const EVENT_MASK_VERDICT: u32 = 1 << 1;

/// Column of `cilium_metrics`: events of the reason for which the ring had no room.
pub const METRIC_EVENT_LOST: u32 = 0;
/// Column of `cilium_metrics`: packets into endpoints.
pub const METRIC_INGRESS: u32 = 1;
/// Column of `cilium_metrics`: packets out of endpoints.
pub const METRIC_EGRESS: u32 = 2;
/// Column of `cilium_metrics`: events of the reason beyond the rate limit.
pub const METRIC_EVENT_SUPPRESSED: u32 = 3;
/// Columns for each reason.
pub const METRIC_COLUMNS: u32 = 4;

/// Index into `cilium_metrics`; no reason is "forwarded".
pub fn metric_index(reason: Option<DropReason>, column: u32) -> u32 {
    u32::from(reason.map_or(0, DropReason::number)) * METRIC_COLUMNS + column
}

layout! {
    /// One record of `cilium_events`.
    pub struct Event as "event" {
        /// Nanoseconds of `CLOCK_MONOTONIC`.
        pub time: u64,
        /// Source as on the wire.
        pub source: Addr,
        /// Destination as on the wire.
        pub destination: Addr,
        /// Source port; for ICMP the echo id or 0.
        pub source_port: NetPort,
        /// Destination port; for ICMP the type.
        pub destination_port: NetPort,
        /// Identity of the source, 0 when not looked up.
        pub source_identity: u32,
        /// Identity of the destination, 0 when not looked up.
        pub destination_identity: u32,
        /// Device on which the packet was seen.
        pub ifindex: u32,
        /// Bytes of the packet with its link header.
        pub length: u32,
        /// Cookie of the deciding [`super::PolicyEntry`], 0 when none decided.
        pub cookie: u32,
        /// Number of the endpoint whose policy was asked, 0 when none was.
        pub endpoint: u16,
        /// [`EVENT_DROP`] or [`EVENT_VERDICT`].
        pub kind: u8,
        /// Number of a [`DropReason`]; 0: forwarded.
        pub reason: u8,
        /// [`super::DIRECTION_INGRESS`], [`super::DIRECTION_EGRESS`], or 0.
        pub direction: u8,
        /// IP protocol number.
        pub protocol: u8,
        /// TCP flags (RFC 9293 section 3.1, second byte of the control bits).
        pub tcp_flags: u8,
    }
}

layout! {
    /// Value of `cilium_metrics`, one for each CPU.
    pub struct Metric as "metric" {
        /// Packets (or events).
        pub packets: u64,
        /// Bytes with link headers.
        pub bytes: u64,
    }
}

layout! {
    /// Value of `cilium_event_budget`, one for each CPU; index: the reason. Only eBPF writes it.
    pub struct EventBudget as "event_budget" {
        /// Second of `CLOCK_MONOTONIC` that `used` belongs to.
        pub second: u32,
        /// Events sent in that second.
        pub used: u32,
    }
}
