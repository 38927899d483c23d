use serde::{Deserialize, Serialize};

use crate::bgp::{BfdState, Family, PeerState, SessionState};

/// A BGP neighbour, as `cilium-dbg bgp peers -o json` has it, and whoever reads that from afar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BgpPeer {
    /// Name of the instance.
    pub instance: String,
    /// Name of the neighbour.
    pub name: String,
    /// AS number of the node.
    pub local_asn: u32,
    /// AS number of the neighbour.
    pub peer_asn: u32,
    /// Address of the neighbour.
    pub peer_address: String,
    /// TCP port of the neighbour.
    pub peer_port: u16,
    /// State of the session.
    pub session_state: SessionState,
    /// Nanoseconds since it was established; 0 while it is not.
    pub uptime_nanoseconds: u64,
    /// Hold time in force, in seconds.
    pub applied_hold_time_seconds: u16,
    /// Time between KEEPALIVEs in force, in seconds.
    pub applied_keep_alive_time_seconds: u16,
    /// What the session carries.
    pub families: Vec<BgpFamily>,
    /// State of BFD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdState>,
    /// Why there is no session, or no BFD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a session carries of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BgpFamily {
    /// `ipv4` or `ipv6`.
    pub afi: String,
    /// `unicast`.
    pub safi: String,
    /// Prefixes that came.
    pub received: u64,
    /// Prefixes that went.
    pub advertised: u64,
}

impl BgpPeer {
    /// What the speaker says at a time, in seconds since 1970.
    pub fn new(state: PeerState, now: u64) -> Self {
        let is_up = state.state == SessionState::Established;
        let uptime = if is_up { now.saturating_sub(state.since) } else { 0 };
        let family = |family: crate::bgp::FamilyState| BgpFamily {
            afi: family.family.afi().to_owned(),
            safi: "unicast".to_owned(),
            received: family.received,
            advertised: family.advertised,
        };
        let reason = state.with_bfd(state.reason.as_deref());
        Self {
            reason,
            instance: state.instance,
            name: state.name,
            local_asn: state.local_asn,
            peer_asn: state.asn,
            peer_address: state.address.to_string(),
            peer_port: state.port,
            session_state: state.state,
            uptime_nanoseconds: uptime.saturating_mul(1_000_000_000),
            applied_hold_time_seconds: state.hold_time,
            applied_keep_alive_time_seconds: state.keepalive,
            families: state.families.into_iter().map(family).collect(),
            bfd: state.bfd,
        }
    }
}

impl Family {
    /// Its name in configuration and lists.
    pub fn afi(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}
