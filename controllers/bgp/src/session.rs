//! A router of a node: what a CiliumBGPClusterConfig makes of all nodes alike, and what is different on each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use cilium_api::bgp::{BgpAdvertisement, BgpInstance, BgpPeer, BgpSecret, IpFamily};
use cilium_api::bgp_cluster_config::BgpClusterPeer;
use cilium_api::bgp_node_config::{BgpNodeInstance, BgpNodePeer};

use crate::bgp::Inputs;
use crate::cluster::{Instance, Peer};
use crate::overrides;
use crate::peer::PeerConfig;

/// A router, as all nodes would have it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template {
    pub(crate) name: String,
    asn: Option<u32>,
    port: Option<u16>,
    peers: Vec<(BgpClusterPeer, Option<BgpPeer>)>,
    /// Those that any peer has.
    pub(crate) advertisements: BTreeMap<Arc<str>, BgpAdvertisement>,
}

impl Template {
    pub(crate) fn new(instance: &Instance, inputs: &Inputs) -> Self {
        let mut advertisements = BTreeMap::new();
        let peers =
            instance.peers.iter().map(|it| (it.raw.clone(), session(it, inputs, &mut advertisements)));
        let peers = peers.collect();
        Self { name: instance.name.clone(), asn: instance.asn, port: instance.port, peers, advertisements }
    }

    pub(crate) fn asn(&self, different: Option<&overrides::Instance>) -> Option<u32> {
        different.and_then(|it| it.asn).or(self.asn)
    }

    /// The router as it stands in the CiliumBGPNodeConfig.
    pub(crate) fn public(
        &self,
        different: Option<&overrides::Instance>,
        router_id: Option<Ipv4Addr>,
    ) -> BgpNodeInstance {
        let peers: Vec<BgpNodePeer> = self.peers.iter().map(|(raw, _)| public(raw, different)).collect();
        BgpNodeInstance {
            name: self.name.clone(),
            local_asn: self.asn(different).map(i64::from),
            router_id: router_id.map(|id| id.to_string()),
            local_port: self.port(different).map(i32::from),
            peers: (!peers.is_empty()).then_some(peers),
        }
    }

    /// The router as the node is told; `None` without AS number or router id.
    pub(crate) fn part(
        &self,
        different: Option<&overrides::Instance>,
        router_id: Option<Ipv4Addr>,
    ) -> Option<BgpInstance> {
        let peers = self.peers.iter().filter_map(|(raw, peer)| {
            let mut peer = peer.clone()?;
            peer.local_address = different.and_then(|it| it.local_addresses.get(&raw.name)).copied();
            Some((raw.name.clone(), peer))
        });
        let advertisements = self.advertisements.iter().map(|(id, it)| (id.to_string(), it.clone()));
        Some(BgpInstance {
            asn: self.asn(different)?,
            router_id: router_id?,
            port: self.port(different),
            advertisements: advertisements.collect(),
            peers: peers.collect(),
        })
    }

    fn port(&self, different: Option<&overrides::Instance>) -> Option<u16> {
        different.and_then(|it| it.port).or(self.port)
    }
}

fn public(raw: &BgpClusterPeer, different: Option<&overrides::Instance>) -> BgpNodePeer {
    let local = different.and_then(|it| it.local_addresses.get(&raw.name));
    BgpNodePeer {
        name: raw.name.clone(),
        peer_address: raw.peer_address.clone(),
        peer_asn: raw.peer_asn,
        auto_discovery: raw.auto_discovery.clone(),
        local_address: local.map(ToString::to_string),
        peer_config_ref: raw.peer_config_ref.clone(),
    }
}

/// A session; `None`: nobody knows where the peer is, or its configuration is not there. Adds what it advertises.
fn session(
    peer: &Peer,
    inputs: &Inputs,
    advertisements: &mut BTreeMap<Arc<str>, BgpAdvertisement>,
) -> Option<BgpPeer> {
    let default;
    let config = match peer.config() {
        Some(name) => inputs.peers.get(name)?,
        None => {
            default = PeerConfig::default();
            &default
        }
    };
    let secret = config
        .secret
        .as_ref()
        .map(|name| BgpSecret { name: name.clone(), version: inputs.secrets.get(name).cloned() });
    Some(BgpPeer {
        address: peer.address?,
        device: peer.device.clone(),
        asn: peer.asn,
        port: config.port,
        local_address: None,
        source_interface: config.source_interface.clone(),
        connect_retry: config.connect_retry,
        hold_time: config.hold_time,
        keepalive: config.keepalive,
        secret,
        restart_time: config.restart_time,
        stale_time: config.stale_time,
        hops: config.hops,
        ttl_security: config.ttl_security,
        passive: config.passive,
        bfd: config.bfd,
        import: config.import,
        families: families(config, inputs, advertisements),
    })
}

fn families(
    config: &PeerConfig,
    inputs: &Inputs,
    advertisements: &mut BTreeMap<Arc<str>, BgpAdvertisement>,
) -> BTreeMap<IpFamily, BTreeSet<String>> {
    let mut families: BTreeMap<IpFamily, BTreeSet<String>> = BTreeMap::new();
    for (family, selector) in &config.families {
        let ids = families.entry(*family).or_default();
        let Some(selector) = selector else { continue };
        let selected = inputs.advertisements.values().filter(|it| selector.matches(&it.labels));
        for place in selected.flat_map(|it| &it.places) {
            ids.insert(place.id.to_string());
            advertisements.insert(place.id.clone(), place.attributes.clone());
        }
    }
    families
}
