//! CiliumBGPPeerConfig, reduced.

use cilium_api::CiliumBGPPeerConfig;
use cilium_api::bgp::{Bfd, IpFamily};
use cilium_api::bgp_peer_config::{Afi, BgpBfd, BgpFamily, BgpPeerConfigSpec, Safi};
use cilium_core::Selector;

use crate::cluster::port;
use crate::fault::{Fault, selector};

/// What holds for sessions; defaults stand in place of what is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    pub(crate) port: u16,
    pub(crate) source_interface: Option<String>,
    pub(crate) connect_retry: u32,
    pub(crate) hold_time: u16,
    pub(crate) keepalive: u16,
    /// Name of the Secret with the password.
    pub(crate) secret: Option<String>,
    pub(crate) restart_time: Option<u16>,
    pub(crate) stale_time: Option<u32>,
    pub(crate) hops: u8,
    pub(crate) ttl_security: bool,
    pub(crate) passive: bool,
    pub(crate) bfd: Option<Bfd>,
    pub(crate) import: bool,
    /// What the session carries; `None` selects no advertisement.
    pub(crate) families: Vec<(IpFamily, Option<Selector>)>,
    faults: Vec<Fault>,
}

impl Default for PeerConfig {
    /// What holds for a peer that names none.
    fn default() -> Self {
        Self::of_spec(&BgpPeerConfigSpec::default())
    }
}

impl PeerConfig {
    /// Reads an object.
    pub fn reduce(object: &CiliumBGPPeerConfig) -> Self {
        Self::of_spec(&object.spec)
    }

    fn of_spec(spec: &BgpPeerConfigSpec) -> Self {
        let transport = spec.transport.clone().unwrap_or_default();
        let timers = spec.timers.clone().unwrap_or_default();
        let hold_time = within(timers.hold_time_seconds, 90, 3, u16::MAX);
        let restart = spec.graceful_restart.as_ref().filter(|it| it.enabled);
        let mut faults = Vec::new();
        Self {
            port: transport.peer_port.and_then(port).unwrap_or(179),
            source_interface: transport.source_interface.filter(|name| !name.is_empty()),
            connect_retry: timers.connect_retry_time_seconds.map_or(120, |it| it.max(1).unsigned_abs()),
            hold_time,
            keepalive: within(timers.keep_alive_time_seconds, 30, 1, hold_time),
            secret: spec.auth_secret_ref.clone().filter(|name| !name.is_empty()),
            restart_time: restart.map(|it| within(it.restart_time_seconds, 120, 1, 4095)),
            stale_time: restart
                .and_then(|it| it.long_lived_stale_time_seconds)
                .map(|it| it.clamp(1, 0x00ff_ffff).unsigned_abs()),
            hops: u8::try_from(within(spec.ebgp_multihop, 1, 1, 255)).unwrap_or(u8::MAX),
            ttl_security: transport.ttl_security == Some(true),
            passive: transport.passive == Some(true),
            bfd: spec.bfd.as_ref().map(bfd),
            import: spec.import_routes == Some(true),
            families: families(spec.families.as_deref().unwrap_or_default(), &mut faults),
            faults,
        }
    }

    /// What of it is not put in force.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// What a user will hardly have meant, as sentences.
    pub fn advice(&self) -> Vec<String> {
        if self.families.iter().any(|(_, selector)| selector.is_some()) || !self.faults.is_empty() {
            return Vec::new();
        }
        let hint =
            "an absent selector selects nothing; matchLabels with labels of a CiliumBGPAdvertisement does";
        vec![format!("nothing is advertised: no entry of spec.families has advertisements ({hint})")]
    }
}

/// The number, or what it is if absent, within bounds that the API server keeps as well.
fn within(number: Option<i32>, default: u16, min: u16, max: u16) -> u16 {
    let number = number.unwrap_or(i32::from(default)).clamp(i32::from(min), i32::from(max));
    u16::try_from(number).unwrap_or(default)
}

fn bfd(it: &BgpBfd) -> Bfd {
    let interval = |given| u32::from(within(given, 300, 10, 60_000));
    Bfd {
        transmit: interval(it.transmit_interval_milliseconds),
        receive: interval(it.receive_interval_milliseconds),
        multiplier: u8::try_from(within(it.detect_multiplier, 3, 1, 50)).unwrap_or(3),
    }
}

fn families(given: &[BgpFamily], faults: &mut Vec<Fault>) -> Vec<(IpFamily, Option<Selector>)> {
    if given.is_empty() {
        return vec![(IpFamily::Ipv4, None), (IpFamily::Ipv6, None)];
    }
    let mut families = Vec::new();
    for (at, it) in given.iter().enumerate() {
        let path = format!("spec.families[{at}]");
        let family = match (&it.afi, &it.safi) {
            (Afi::Ipv4, Safi::Unicast) => IpFamily::Ipv4,
            (Afi::Ipv6, Safi::Unicast) => IpFamily::Ipv6,
            (afi, safi) => {
                let reason = format!("{afi}/{safi} is not supported: ipv4/unicast and ipv6/unicast are");
                faults.push(Fault::unsupported(path, reason));
                continue;
            }
        };
        families
            .push((family, selector(&format!("{path}.advertisements"), it.advertisements.as_ref(), faults)));
    }
    families
}
