//! Connections, masqueraded ports and fragments.

use super::{Addr, NetPort, layout};

/// The high side of the key sent the first packet.
pub const CT_STARTED_BY_HIGH: u16 = 1 << 0;
/// The other side has answered.
pub const CT_REPLIED: u16 = 1 << 1;
/// TCP: the starter has sent more than its SYN.
pub const CT_CONFIRMED: u16 = 1 << 2;
/// TCP: the starter is done sending (FIN), or the connection was reset.
pub const CT_FIN_STARTER: u16 = 1 << 3;
/// TCP: the other side is done sending, or the connection was reset.
pub const CT_FIN_ANSWERER: u16 = 1 << 4;
/// The side that is not a pod of this node is reached through the tunnel. No route bit: both sides are pods of this node.
pub const CT_TUNNEL: u16 = 1 << 5;
/// The side that is not a pod of this node is its network stack, or is behind it.
pub const CT_STACK: u16 = 1 << 6;
/// The side that is not a pod of this node is reached by the node's routes.
pub const CT_DIRECT: u16 = 1 << 7;
/// Policy has put an end to it: the entry only tells late answers from new connections.
pub const CT_REFUSED: u16 = 1 << 8;
/// With [`CT_STACK`]: the other side is the DNS proxy of this node, which stands in for it.
pub const CT_PROXY: u16 = 1 << 9;
/// With [`CT_DIRECT`]: the starter came by a service, as which answers leave.
pub const CT_SERVICE: u16 = 1 << 10;
/// In `cilium_snat`, of a client of a service: the backend on another node answers by itself, or the client came by another node.
pub const CT_DSR: u16 = 1 << 11;
/// TCP: it ended by a reset, after which neither side has it any more.
pub const CT_RESET: u16 = 1 << 12;

/// [`NatKey::direction`]: `local` sends to `remote`; its source becomes the node's address and port, or those of the service that it is
/// a backend of.
pub const NAT_OUT: u8 = 0;
/// [`NatKey::direction`]: `remote` answers to `local`, the node; the destination becomes a pod, or the client of a service.
pub const NAT_IN: u8 = 1;
/// [`NatKey::direction`]: `remote`, a client, sends to `local`, a service; the destination becomes a backend.
pub const NAT_SERVICE: u8 = 2;

layout! {
    /// Key of `cilium_ct`. Both directions have the same key; see [`CtKey::new`].
    pub struct CtKey as "ct_key" {
        /// The lower address.
        pub low: Addr,
        /// The higher address.
        pub high: Addr,
        /// Port of the lower side.
        pub low_port: NetPort,
        /// Port of the higher side.
        pub high_port: NetPort,
        /// IP protocol number.
        pub protocol: u8,
    }
}

impl CtKey {
    /// Key of the connection between two sides, and whether the first side given is the high one.
    ///
    /// Lower is the side with the lower address, or the lower port where both addresses are equal. An ICMP echo request has
    /// its id as the sender's port and 0 as the receiver's, the reply the other way round; other ICMP messages have the
    /// type as both ports.
    pub fn new(protocol: u8, one: (Addr, u16), other: (Addr, u16)) -> (Self, bool) {
        let one_is_high = one > other;
        let (low, high) = if one_is_high { (other, one) } else { (one, other) };
        let key =
            Self { low: low.0, high: high.0, low_port: NetPort(low.1), high_port: NetPort(high.1), protocol };
        (key, one_is_high)
    }
}

layout! {
    /// A pod of this node at one end of a connection; valid for the second in which [`CtEntry::expires`] was written.
    pub struct CtSide as "ct_side" {
        /// Host's end of its device pair; 0: not known.
        pub ifindex: u32,
        /// MAC address of the pod's end.
        pub mac: [u8; 6],
        /// Its slot.
        pub slot: u16,
    }
}

layout! {
    /// Value of `cilium_ct`.
    pub struct CtEntry as "ct_entry" {
        /// Generation of the starter's slot when the connection was judged; 0 when the starter is not on this node.
        pub egress_generation: u32,
        /// Generation of the answerer's slot when the connection was judged; 0 when the answerer is not on this node.
        pub ingress_generation: u32,
        /// Seconds of `CLOCK_MONOTONIC`; an entry counts as absent when this has passed.
        pub expires: u32,
        /// `CT_*` bits.
        pub flags: u16,
        /// Port (or ICMP id) on the node's address; 0 when the connection is not masqueraded.
        pub nat_port: NetPort,
        /// The side with the lower address.
        pub low_side: CtSide,
        /// The side with the higher address.
        pub high_side: CtSide,
    }
}

layout! {
    /// Key of `cilium_snat`: a connection as seen on one side of the translation.
    pub struct NatKey as "nat_key" {
        /// The pod or backend ([`NAT_OUT`]), the node's address ([`NAT_IN`]), or the service ([`NAT_SERVICE`]).
        pub local: Addr,
        /// The other end; of a service, its client.
        pub remote: Addr,
        /// Port (or ICMP id) that belongs to `local`.
        pub local_port: NetPort,
        /// Port of the other end; 0 for ICMP.
        pub remote_port: NetPort,
        /// IP protocol number.
        pub protocol: u8,
        /// [`NAT_OUT`], [`NAT_IN`] or [`NAT_SERVICE`].
        pub direction: u8,
    }
}

layout! {
    /// Value of `cilium_snat`.
    pub struct NatEntry as "nat_entry" {
        /// What `local` of the key is translated to.
        pub to: Addr,
        /// What `remote` of the key is translated to; [`Addr::NONE`]: it stays.
        pub from: Addr,
        /// What the local port is translated to.
        pub to_port: NetPort,
        /// What the remote port is translated to; 0: it stays.
        pub from_port: NetPort,
        /// Seconds of `CLOCK_MONOTONIC`; from then on another connection may take the port.
        pub expires: u32,
        /// [`NAT_SERVICE`]: generation of the backends among which `to` was seen last.
        pub generation: u32,
        /// `CT_*` bits; with [`CT_SERVICE`], also the state of the connection of a service's client.
        pub flags: u16,
    }
}

layout! {
    /// Key of `cilium_fragments`: one fragmented datagram.
    pub struct FragmentKey as "fragment_key" {
        /// Source as on the wire.
        pub source: Addr,
        /// Destination as on the wire.
        pub destination: Addr,
        /// Datagram id: the bytes of the header, IPv4's 16 bits zero-extended.
        pub id: u32,
        /// IP protocol number.
        pub protocol: u8,
    }
}

layout! {
    /// Value of `cilium_fragments`: what only the first fragment carries.
    pub struct FragmentPorts as "fragment_ports" {
        /// Source port.
        pub source: NetPort,
        /// Destination port.
        pub destination: NetPort,
    }
}
