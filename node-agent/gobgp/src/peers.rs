//! The router and its neighbours, as they are told.

use cilium_rest::bgp::{self, BfdState, Config, Family, FamilyState, Instance, SessionState};
use prost_types::Timestamp;
use tonic::Status;

use crate::proto::capability::Cap;
use crate::proto::{
    self, AfiSafi, AfiSafiConfig, AfiSafiState, BfdPeerConfig, BfdPeerState, EbgpMultihop, Enabled,
    ExtendedNexthopCapability, ExtendedNexthopCapabilityTuple, FourOctetAsnCapability, Global,
    GracefulRestart, GracefulRestartCapability, GracefulRestartCapabilityTuple, LongLivedGracefulRestart,
    LongLivedGracefulRestartCapability, LongLivedGracefulRestartCapabilityTuple,
    LongLivedGracefulRestartConfig, Message, Messages, MpGracefulRestart, MultiProtocolCapability, Peer,
    PeerConf, PeerState, Queues, RouteReflector, RouteRefreshCapability, RouteServer, Timers, TimersConfig,
    TimersState, Transport, TtlSecurity,
};
use crate::version::Version;

/// Seconds since 1970, in the protocol's type.
pub(crate) fn seconds(since: u64) -> i64 {
    i64::try_from(since).unwrap_or(i64::MAX)
}

/// Unicast of a family.
pub(crate) fn family_of(family: Family) -> proto::Family {
    let afi = match family {
        Family::Ipv4 => 1,
        Family::Ipv6 => 2,
    };
    proto::Family { afi, safi: 1 }
}

/// The router: the first of them, because the protocol has place for one.
pub(crate) fn global(config: &Config) -> Result<Global, Status> {
    let Some(instance) = config.instances.first() else {
        return Err(Status::not_found(
            "this speaker has no instance: no CiliumBGPClusterConfig selects its node",
        ));
    };
    let addresses =
        if instance.port.is_some() { vec!["0.0.0.0".to_owned(), "::".to_owned()] } else { Vec::new() };
    Ok(Global {
        asn: instance.asn,
        router_id: instance.router_id.to_string(),
        listen_port: instance.port.map_or(-1, i32::from),
        listen_addresses: addresses,
    })
}

/// The neighbours of `states`. One that the configuration does not have (any more) is left out.
pub(crate) fn peers<'a>(
    version: Version,
    config: &'a Config,
    states: &'a [bgp::PeerState],
) -> impl Iterator<Item = (&'a bgp::PeerState, Peer)> {
    states.iter().filter_map(move |state| {
        let instance = config.instances.iter().find(|instance| instance.name == state.instance)?;
        let told = instance.peers.iter().find(|peer| peer.address == state.address)?;
        Some((state, Neighbour { version, instance, told, state }.peer()))
    })
}

/// A neighbour: what was told of it, and what it is.
#[derive(Clone, Copy)]
struct Neighbour<'a> {
    version: Version,
    instance: &'a Instance,
    told: &'a bgp::Peer,
    state: &'a bgp::PeerState,
}

impl Neighbour<'_> {
    fn peer(self) -> Peer {
        let told = self.told;
        Peer {
            conf: Some(self.conf()),
            ebgp_multihop: Some(EbgpMultihop { enabled: told.hops > 1, multihop_ttl: told.hops.into() }),
            route_reflector: Some(RouteReflector {}),
            state: Some(self.state()),
            timers: Some(self.timers()),
            transport: Some(self.transport()),
            route_server: Some(RouteServer {}),
            graceful_restart: told.restart_time.map(|time| GracefulRestart {
                enabled: true,
                restart_time: time.into(),
                longlived_enabled: told.stale_time.is_some(),
            }),
            afi_safis: told.families.keys().map(|family| self.family(*family)).collect(),
            ttl_security: told
                .ttl_security
                .then(|| TtlSecurity { enabled: true, ttl_min: 256_u32.saturating_sub(told.hops.into()) }),
            bfd: told.bfd.map(|bfd| BfdPeerConfig {
                enabled: true,
                desired_minimum_tx_interval: bfd.transmit.saturating_mul(1000),
                required_minimum_receive: bfd.receive.saturating_mul(1000),
                detection_multiplier: bfd.multiplier.into(),
            }),
        }
    }

    fn conf(self) -> PeerConf {
        PeerConf {
            description: self.description(),
            local_asn: self.instance.asn,
            neighbor_address: self.told.address.to_string(),
            peer_asn: self.told.asn,
            r#type: self.kind(),
        }
    }

    fn description(self) -> String {
        format!("{}/{}", self.instance.name, self.told.name)
    }

    /// Internal or external.
    fn kind(self) -> i32 {
        self.version.number(i32::from(self.state.asn != self.instance.asn))
    }

    fn is_established(self) -> bool {
        self.state.state == SessionState::Established
    }

    fn state(self) -> PeerState {
        let state = self.state;
        PeerState {
            description: self.description(),
            local_asn: state.local_asn,
            messages: Some(Messages { received: Some(Message {}), sent: Some(Message {}) }),
            neighbor_address: state.address.to_string(),
            peer_asn: state.asn,
            r#type: self.kind(),
            queues: Some(Queues {}),
            session_state: session_state(state.state),
            admin_state: self.version.number(0),
            flops: u32::try_from(self.times_lost()).unwrap_or(u32::MAX),
            remote_cap: self.encoded(self.remote_capabilities()),
            local_cap: self.encoded(self.local_capabilities()),
            router_id: state.router_id.map(|id| id.to_string()).unwrap_or_default(),
            disconnect_message: state.reason.clone().unwrap_or_default(),
            bfd_state: state.bfd.map(|state| BfdPeerState { session_state: bfd_state(state) }),
        }
    }

    /// How often the session ended after it had been established.
    fn times_lost(self) -> u64 {
        self.state.established_count.saturating_sub(self.is_established().into())
    }

    fn timers(self) -> Timers {
        let Self { told, state, .. } = self;
        let since = Timestamp { seconds: seconds(state.since), nanos: 0 };
        let config = TimersConfig {
            connect_retry: told.connect_retry.into(),
            hold_time: told.hold_time.into(),
            keepalive_interval: told.keepalive.into(),
        };
        let state = TimersState {
            keepalive_interval: state.keepalive.into(),
            negotiated_hold_time: state.hold_time.into(),
            // Clients say "never" where there is none, and go by `downtime` where the session is down.
            uptime: (state.established_count > 0).then_some(since),
            downtime: (!self.is_established()).then_some(since),
        };
        Timers { config: Some(config), state: Some(state) }
    }

    fn transport(self) -> Transport {
        Transport {
            local_address: self.told.local_address.map(|address| address.to_string()).unwrap_or_default(),
            local_port: self.instance.port.unwrap_or_default().into(),
            passive_mode: self.told.passive,
            remote_address: self.told.address.to_string(),
            remote_port: self.told.port.into(),
            bind_interface: self.told.device.clone().unwrap_or_default(),
        }
    }

    fn family(self, family: Family) -> AfiSafi {
        let Self { told, state, .. } = self;
        let counts = state.families.iter().find(|counts| counts.family == family);
        let FamilyState { received, advertised, .. } =
            counts.copied().unwrap_or(FamilyState { family, received: 0, advertised: 0 });
        let family = Some(family_of(family));
        AfiSafi {
            mp_graceful_restart: Some(MpGracefulRestart {
                config: Some(Enabled { enabled: told.restart_time.is_some() }),
            }),
            config: Some(AfiSafiConfig { family, enabled: true }),
            state: Some(AfiSafiState {
                family,
                enabled: counts.is_some(),
                received,
                accepted: received,
                advertised,
            }),
            long_lived_graceful_restart: told.stale_time.map(|restart_time| LongLivedGracefulRestart {
                config: Some(LongLivedGracefulRestartConfig { enabled: true, restart_time }),
            }),
        }
    }

    fn encoded(self, capabilities: Vec<Cap>) -> Vec<Vec<u8>> {
        capabilities.into_iter().map(|capability| self.version.capability(capability)).collect()
    }

    /// What the speaker offers.
    fn local_capabilities(self) -> Vec<Cap> {
        let families = || self.told.families.keys().map(|family| Some(family_of(*family)));
        let mut all: Vec<_> = families().map(multi_protocol).collect();
        all.push(Cap::RouteRefresh(RouteRefreshCapability {}));
        if self.told.address.is_ipv6() && self.told.families.contains_key(&Family::Ipv4) {
            all.push(extended_next_hop());
        }
        if let Some(time) = self.told.restart_time {
            let tuples = families().map(|family| GracefulRestartCapabilityTuple { family, flags: 0 });
            let (time, tuples) = (time.into(), tuples.collect());
            all.push(Cap::GracefulRestart(GracefulRestartCapability { flags: 0, time, tuples }));
        }
        all.push(Cap::FourOctetAsn(FourOctetAsnCapability { asn: self.instance.asn }));
        if let Some(time) = self.told.stale_time {
            let tuples = families();
            let tuples =
                tuples.map(|family| LongLivedGracefulRestartCapabilityTuple { family, flags: 0, time });
            let tuples = tuples.collect();
            all.push(Cap::LongLivedGracefulRestart(LongLivedGracefulRestartCapability { tuples }));
        }
        all
    }

    /// What is known of the peer's offer: what both sides agreed on.
    fn remote_capabilities(self) -> Vec<Cap> {
        if !self.is_established() {
            return Vec::new();
        }
        let families =
            self.state.families.iter().map(|counts| multi_protocol(Some(family_of(counts.family))));
        let named = self.state.capabilities.iter().filter_map(|name| {
            Some(match name.as_str() {
                "route-refresh" => Cap::RouteRefresh(RouteRefreshCapability {}),
                "extended-next-hop" => extended_next_hop(),
                "graceful-restart" => Cap::GracefulRestart(GracefulRestartCapability::default()),
                "four-octet-as" => Cap::FourOctetAsn(FourOctetAsnCapability { asn: self.state.asn }),
                "long-lived-graceful-restart" => {
                    Cap::LongLivedGracefulRestart(LongLivedGracefulRestartCapability::default())
                }
                _ => return None,
            })
        });
        families.chain(named).collect()
    }
}

fn multi_protocol(family: Option<proto::Family>) -> Cap {
    Cap::MultiProtocol(MultiProtocolCapability { family })
}

/// IPv4 prefixes with IPv6 next hops (RFC 8950).
fn extended_next_hop() -> Cap {
    let (nlri_family, nexthop_family) = (Some(family_of(Family::Ipv4)), Some(family_of(Family::Ipv6)));
    let tuples = vec![ExtendedNexthopCapabilityTuple { nlri_family, nexthop_family }];
    Cap::ExtendedNexthop(ExtendedNexthopCapability { tuples })
}

fn session_state(state: SessionState) -> i32 {
    match state {
        SessionState::Idle => 1,
        SessionState::Connect => 2,
        SessionState::Active => 3,
        SessionState::OpenSent => 4,
        SessionState::OpenConfirm => 5,
        SessionState::Established => 6,
    }
}

fn bfd_state(state: BfdState) -> i32 {
    match state {
        BfdState::Up => 1,
        BfdState::Down => 2,
        BfdState::AdminDown => 3,
        BfdState::Init => 4,
    }
}
