//! What both sides of a session agreed on.

use std::net::{IpAddr, Ipv4Addr};

use cilium_rest::bgp::Family;
use rustbgpd_fsm::NegotiatedSession;
use rustbgpd_wire::{Afi, Capability, Safi};

use super::Parameters;
use super::message::family_of;

/// What both sides agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Negotiated {
    /// AS number of the peer.
    pub peer_asn: u32,
    /// BGP identifier of the peer; `None` before it said one.
    pub peer_id: Option<Ipv4Addr>,
    /// The peer has our AS number.
    pub is_internal: bool,
    /// Seconds; 0: the connection is not watched.
    pub hold_time: u16,
    /// Seconds between KEEPALIVEs; 0: none.
    pub keepalive: u16,
    /// Families that both sides named.
    pub families: Vec<Family>,
    /// AS numbers have four bytes (RFC 6793).
    pub four_octet_as: bool,
    /// Messages may have up to 65,535 bytes (RFC 8654).
    pub extended_message: bool,
    /// IPv4 prefixes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// Graceful restart, where both sides do it.
    pub restart: Option<PeerRestart>,
    /// What else there is to show, by the names of [`cilium_rest::bgp::PeerState::capabilities`].
    pub capabilities: Vec<String>,
}

/// What the peer said of graceful restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerRestart {
    /// It has just started again (the R bit).
    pub is_restarting: bool,
    /// Seconds that its routes stay without a session.
    pub time: u16,
    /// Families whose routes may stay, and whether it still forwards for those that it had (the F bit).
    pub families: Vec<(Family, bool)>,
    /// Families whose routes may stay for longer (RFC 9494), for how many seconds, and whether it still forwards.
    pub long_lived: Vec<(Family, u32, bool)>,
}

/// Seconds between KEEPALIVEs: as configured where the hold time is, and else a third of it (RFC 4271, 4.4).
pub(super) fn keepalive(parameters: &Parameters, hold_time: u16) -> u16 {
    if hold_time == parameters.hold_time {
        parameters.keepalive
    } else {
        (hold_time / 3).min(parameters.keepalive.max(1))
    }
}

/// IPv4 prefixes may need IPv6 next hops.
pub(super) fn may_extend_next_hops(parameters: &Parameters) -> bool {
    matches!(parameters.peer, IpAddr::V6(_)) && parameters.families.contains(&Family::Ipv4)
}

/// A family as people write it.
pub(super) fn name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4 unicast",
        Family::Ipv6 => "IPv6 unicast",
    }
}

impl Negotiated {
    pub(super) fn new(parameters: &Parameters, said: &NegotiatedSession) -> Self {
        let families: Vec<_> =
            said.negotiated_families.iter().filter_map(|(afi, safi)| family_of(*afi, *safi)).collect();
        let takes_ipv6_next_hops = said.peer_capabilities.iter().any(|it| match it {
            Capability::ExtendedNextHop(all) => all.iter().any(|it| {
                it.nlri_afi == Afi::Ipv4 && it.nlri_safi == Safi::Unicast && it.next_hop_afi == Afi::Ipv6
            }),
            _ => false,
        });
        // One that names no families keeps no routes over its own restart, but ours over ours (RFC 4724, 3).
        let does_restart =
            said.peer_capabilities.iter().any(|it| matches!(it, Capability::GracefulRestart { .. }));
        let restart = parameters.restart_time.filter(|_| does_restart);
        let restart = restart.map(|_| restart_of(parameters, said));
        let mut negotiated = Self {
            peer_asn: said.peer_asn,
            peer_id: Some(said.peer_router_id),
            is_internal: said.peer_asn == parameters.local_asn,
            hold_time: said.hold_time,
            keepalive: if said.hold_time == 0 { 0 } else { keepalive(parameters, said.hold_time) },
            four_octet_as: said.four_octet_as,
            extended_message: said.peer_extended_message,
            extended_next_hop: takes_ipv6_next_hops
                && families.contains(&Family::Ipv4)
                && may_extend_next_hops(parameters),
            families,
            restart,
            capabilities: Vec::new(),
        };
        negotiated.capabilities = negotiated.names(parameters, said);
        negotiated
    }

    fn names(&self, parameters: &Parameters, said: &NegotiatedSession) -> Vec<String> {
        let all = [
            ("extended-message", self.extended_message),
            ("extended-next-hop", self.extended_next_hop),
            ("four-octet-as", self.four_octet_as),
            ("graceful-restart", self.restart.is_some()),
            (
                "long-lived-graceful-restart",
                self.restart.is_some() && parameters.stale_time.is_some() && said.peer_llgr_capable,
            ),
            ("route-refresh", said.peer_route_refresh),
        ];
        all.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name.to_owned()).collect()
    }

    /// Families of a peer that it did not name, as a sentence.
    pub fn missing(&self, wanted: &[Family]) -> Option<String> {
        let missing: Vec<_> =
            wanted.iter().filter(|it| !self.families.contains(it)).map(|it| name(*it)).collect();
        (!missing.is_empty()).then(|| {
            format!("the peer does not name {}: such prefixes are not exchanged", missing.join(" and "))
        })
    }
}

fn restart_of(parameters: &Parameters, said: &NegotiatedSession) -> PeerRestart {
    let families = said.peer_gr_families.iter();
    let long_lived = said.peer_llgr_families.iter().filter(|_| parameters.stale_time.is_some());
    PeerRestart {
        is_restarting: said.peer_restart_state,
        time: said.peer_restart_time,
        families: families
            .filter_map(|it| Some((family_of(it.afi, it.safi)?, it.forwarding_preserved)))
            .collect(),
        long_lived: long_lived
            .filter_map(|it| Some((family_of(it.afi, it.safi)?, it.stale_time, it.forwarding_preserved)))
            .collect(),
    }
}
