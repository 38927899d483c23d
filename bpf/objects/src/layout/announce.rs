//! Announced addresses, and heartbeats between nodes that announce the same ones.

use super::{Addr, layout};

layout! {
    /// Key of `cilium_announcements`.
    pub struct AnnouncementKey as "announcement_key" {
        /// The address.
        pub address: Addr,
        /// Number of the device on which it is announced.
        pub ifindex: u32,
    }
}

layout! {
    /// Value of `cilium_announcements`. Programs write it as well, all but `state`.
    pub struct AnnouncementEntry as "announcement_entry" {
        /// Requests that were answered.
        pub replies: u64,
        /// Nanoseconds of `CLOCK_MONOTONIC` when somebody else was last seen to have the address; 0: never.
        pub claimed: u64,
        /// The MAC address of that one.
        pub claimant: [u8; 6],
        /// [`ANNOUNCEMENT_SILENT`] or [`ANNOUNCEMENT_ANSWERED`].
        pub state: u8,
    }
}

/// Somebody else answers, or it is not known yet.
pub const ANNOUNCEMENT_SILENT: u8 = 0;
/// This node answers, as long as what is in [`LinkSigns`] lets it.
pub const ANNOUNCEMENT_ANSWERED: u8 = 1;

layout! {
    /// Value of `cilium_links`: a device on which addresses are announced, by its number.
    pub struct LinkEntry as "link_entry" {
        /// Nanoseconds. With [`LINK_SOLO`], of `CLOCK_MONOTONIC`: since when. With [`LINK_LEASED`], how long after the last sign of the
        /// agent this node still answers: the duration of Leases without the renew deadline.
        pub bound: u64,
        /// `LINK_*` bits; peers are told.
        pub flags: u32,
        /// MAC address of the device.
        pub mac: [u8; 6],
    }
}

/// Peers may leave addresses to this node.
pub const LINK_WILLING: u32 = 1 << 0;
/// There are addresses with [`ANNOUNCEMENT_ANSWERED`].
pub const LINK_ANSWERING: u32 = 1 << 1;
/// No peer was heard; answers stop when one is that answers as well.
pub const LINK_SOLO: u32 = 1 << 2;
/// Nobody else has these addresses at all.
pub const LINK_ALONE: u32 = 1 << 3;
/// Leases say who has them; no peer is heard.
pub const LINK_LEASED: u32 = 1 << 4;

layout! {
    /// Value of `cilium_link_signs`, which programs write: what was heard on a device, in nanoseconds of `CLOCK_MONOTONIC`.
    pub struct LinkSigns as "link_signs" {
        /// A peer proved that it hears this node.
        pub heard: u64,
        /// The agent of a peer wanted to know whether this node lives.
        pub asked: u64,
        /// A peer that answers for addresses was heard.
        pub met: u64,
    }
}

layout! {
    /// Key of `cilium_peers`.
    pub struct PeerKey as "peer_key" {
        /// Number that stands for the node's name.
        pub node: u64,
        /// Number of this node's device.
        pub ifindex: u32,
    }
}

layout! {
    /// Value of `cilium_peers`: user space makes it, programs write it. Times as in [`LinkSigns`].
    pub struct PeerEntry as "peer_entry" {
        /// When the last request was sent that the peer answered.
        pub answered: u64,
        /// When the peer last sent a request, and heard this node.
        pub asked: u64,
        /// Stamp of its last request.
        pub stamp: u64,
        /// Milliseconds since its agent was alive, as it said last.
        pub agent_age: u64,
        /// `LINK_*` bits of its device.
        pub flags: u32,
        /// Its MAC address; zero: never heard.
        pub mac: [u8; 6],
    }
}

/// Element of `cilium_announcer`: the number that stands for this node's name.
pub const ANNOUNCER_NODE: u32 = 0;
/// Elements of `cilium_announcer`: the halves of the key of heartbeats.
pub const ANNOUNCER_KEY: [u32; 2] = [1, 2];
/// Element of `cilium_announcer`: nanoseconds of `CLOCK_MONOTONIC` when the agent was last alive.
pub const ANNOUNCER_AGENT: u32 = 3;

layout! {
    /// A frame of [`HEARTBEAT_ETHERTYPE`] behind its Ethernet header.
    pub struct Heartbeat as "heartbeat" {
        /// [`HEARTBEAT_MAGIC`], in network order.
        pub magic: u32,
        /// [`HEARTBEAT_REQUEST`] or [`HEARTBEAT_ANSWER`].
        pub kind: u8,
        /// `LINK_*` bits of the sender, and [`HEARTBEAT_HEARS_YOU`].
        pub flags: u8,
        /// For whom it is: a number as in [`PeerKey`].
        pub to: u64,
        /// Who sends it.
        pub from: u64,
        /// Nanoseconds of the requester's `CLOCK_MONOTONIC`; the answer repeats it.
        pub sent: u64,
        /// Of a request, in network order: it rises, also over restarts of the sender.
        pub stamp: u64,
        /// Milliseconds since the sender's agent was alive, in network order.
        pub agent_age: u64,
        /// MAC address of the sender's device.
        pub mac: [u8; 6],
        /// 0.
        pub reserved: [u8; 2],
        /// SipHash-2-4 of all bytes before.
        pub tag: u64,
    }
}

/// EtherType of heartbeats (IEEE 802, local experimental EtherType 1).
pub const HEARTBEAT_ETHERTYPE: u16 = 0x88b5;
/// First bytes of a heartbeat.
pub const HEARTBEAT_MAGIC: u32 = 0x434c_4842;
/// The agent of a node wants to know whether another node lives.
pub const HEARTBEAT_REQUEST: u8 = 1;
/// Programs of a node that lives answer it.
pub const HEARTBEAT_ANSWER: u8 = 2;
/// In a request: the sender has had an answer lately.
pub const HEARTBEAT_HEARS_YOU: u8 = 1 << 7;
