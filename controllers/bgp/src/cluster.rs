//! CiliumBGPClusterConfig, reduced.

use std::net::IpAddr;

use cilium_api::CiliumBGPClusterConfig;
use cilium_api::bgp::{BgpPeerAddress, IpFamily};
use cilium_api::bgp_cluster_config::{
    AutoDiscovery, BgpClusterInstance, BgpClusterPeer, DiscoveryMode, GatewayFamily,
};
use cilium_core::{Labels, Selector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::fault::{Fault, selector};

/// Which nodes have which routers.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    pub(crate) uid: String,
    /// `None` is later than all times.
    created: Option<Time>,
    /// `None` selects no node.
    nodes: Option<Selector>,
    pub(crate) instances: Vec<Instance>,
    faults: Vec<Fault>,
}

/// A router, as the user has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Instance {
    pub(crate) name: String,
    pub(crate) asn: Option<u32>,
    pub(crate) port: Option<u16>,
    pub(crate) peers: Vec<Peer>,
}

/// A neighbour, as the user has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Peer {
    pub(crate) raw: BgpClusterPeer,
    /// Where it is; `None`: nobody knows.
    pub(crate) address: Option<BgpPeerAddress>,
    /// The device of a link-local address.
    pub(crate) device: Option<String>,
    /// 0 is any.
    pub(crate) asn: u32,
}

impl Peer {
    /// The CiliumBGPPeerConfig that it names.
    pub(crate) fn config(&self) -> Option<&str> {
        self.raw.peer_config_ref.as_ref().map(|it| it.name.as_str())
    }
}

impl ClusterConfig {
    /// Reads an object.
    pub fn reduce(object: &CiliumBGPClusterConfig) -> Self {
        let (meta, spec) = (&object.metadata, &object.spec);
        let mut faults = Vec::new();
        let nodes = match &spec.node_selector {
            None => Some(Selector::default()),
            given => selector("spec.nodeSelector", given.as_ref(), &mut faults),
        };
        let instances = spec.bgp_instances.iter().enumerate();
        let instances =
            instances.map(|(at, it)| instance(&format!("spec.bgpInstances[{at}]"), it, &mut faults));
        let instances = instances.collect();
        let uid = meta.uid.clone().unwrap_or_default();
        Self { uid, created: meta.creation_timestamp.clone(), nodes, instances, faults }
    }

    /// What of it is not put in force.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// What a user will hardly have meant, as sentences.
    pub fn advice(&self) -> Vec<String> {
        let peers = self.instances.iter().flat_map(|it| it.peers.iter().map(move |peer| (it, peer)));
        let silent = peers.clone().filter(|(_, peer)| peer.config().is_none());
        let lost =
            peers.filter(|(_, peer)| peer.raw.peer_address.is_none() && peer.raw.auto_discovery.is_none());
        let silent = silent.map(|(instance, peer)| {
            format!(
                "nothing is advertised to peer {} of {}: it has no peerConfigRef",
                peer.raw.name, instance.name
            )
        });
        let lost = lost.map(|(instance, peer)| {
            format!(
                "there is no session with peer {} of {}: it has neither peerAddress nor autoDiscovery",
                peer.raw.name, instance.name
            )
        });
        silent.chain(lost).collect()
    }

    pub(crate) fn selects(&self, node: &Labels) -> bool {
        self.nodes.as_ref().is_some_and(|nodes| nodes.matches(node))
    }

    /// What decides between two that select one node: less is older.
    pub(crate) fn age(&self) -> (bool, Option<&Time>) {
        (self.created.is_none(), self.created.as_ref())
    }

    /// Names of CiliumBGPPeerConfigs that its peers name.
    pub(crate) fn peer_configs(&self) -> impl Iterator<Item = &str> {
        self.instances.iter().flat_map(|it| &it.peers).filter_map(Peer::config)
    }
}

fn instance(path: &str, it: &BgpClusterInstance, faults: &mut Vec<Fault>) -> Instance {
    let asn = it.local_asn.and_then(|asn| u32::try_from(asn).ok()).filter(|asn| *asn != 0);
    if it.local_asn.is_some() && asn.is_none() {
        faults.push(Fault::malformed(format!("{path}.localASN"), "an AS number is one of 1 to 4294967295"));
    }
    let port = it.local_port.and_then(port);
    if it.local_port.is_some() && port.is_none() {
        faults.push(Fault::malformed(format!("{path}.localPort"), "a port is one of 1 to 65535"));
    }
    let peers = it.peers.iter().flatten().enumerate();
    let peers = peers.map(|(at, it)| peer(&format!("{path}.peers[{at}]"), it, faults)).collect();
    Instance { name: it.name.clone(), asn, port, peers }
}

/// A TCP port other than 0.
pub(crate) fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

fn peer(path: &str, it: &BgpClusterPeer, faults: &mut Vec<Fault>) -> Peer {
    let asn = u32::try_from(it.peer_asn.unwrap_or_default());
    let asn = asn.unwrap_or_else(|_| {
        faults.push(Fault::malformed(format!("{path}.peerASN"), "an AS number is one of 0 to 4294967295"));
        0
    });
    let given = it.peer_address.as_deref().map(|text| address(&format!("{path}.peerAddress"), text));
    let found = it.auto_discovery.as_ref().map(|it| discovery(&format!("{path}.autoDiscovery"), it));
    let (address, device) = match given.or(found.map(|it| it.map(|it| (it, None)))) {
        Some(Ok((address, device))) => (Some(address), device),
        Some(Err(fault)) => {
            faults.push(fault);
            (None, None)
        }
        None => (None, None),
    };
    Peer { raw: it.clone(), address, device, asn }
}

/// Reads where a peer is: a link-local address needs a zone, which is the name of a device.
fn address(path: &str, text: &str) -> Result<(BgpPeerAddress, Option<String>), Fault> {
    let (bare, zone) = match text.trim().split_once('%') {
        Some((bare, zone)) => (bare, Some(zone)),
        None => (text, None),
    };
    let link_local =
        ip(path, bare).ok().filter(|it| matches!(it, IpAddr::V6(it) if it.is_unicast_link_local()));
    match (link_local, zone) {
        (Some(address), Some(zone)) => Ok((BgpPeerAddress::At(address), Some(zone.to_owned()))),
        (Some(address), None) => Err(Fault::unsupported(
            path,
            format!("a link-local address needs the device on whose link it is, as in {address}%eth0"),
        )),
        (None, _) => Ok((BgpPeerAddress::At(ip(path, text)?), None)),
    }
}

/// Reads an address; spaces around it do not count.
pub(crate) fn ip(path: &str, text: &str) -> Result<IpAddr, Fault> {
    let text = text.trim();
    if let Some((address, zone)) = text.split_once('%')
        && address.parse::<IpAddr>().is_ok()
    {
        return Err(Fault::unsupported(
            path,
            format!("a zone, here {zone}, belongs to link-local addresses of peers only"),
        ));
    }
    text.parse().map_err(|_| Fault::malformed(path, format!("{text:?} is no address of IPv4 or IPv6")))
}

fn discovery(path: &str, it: &AutoDiscovery) -> Result<BgpPeerAddress, Fault> {
    if let DiscoveryMode::Other(mode) = &it.mode {
        return Err(Fault::unsupported(format!("{path}.mode"), format!("the mode {mode} is not supported")));
    }
    let gateway = it.default_gateway.as_ref().map(|it| &it.address_family);
    match gateway {
        Some(GatewayFamily::Ipv4) => Ok(BgpPeerAddress::DefaultGateway(IpFamily::Ipv4)),
        Some(GatewayFamily::Ipv6) => Ok(BgpPeerAddress::DefaultGateway(IpFamily::Ipv6)),
        Some(GatewayFamily::Other(family)) => {
            let path = format!("{path}.defaultGateway.addressFamily");
            Err(Fault::unsupported(path, format!("the family {family} is not supported")))
        }
        None => Err(Fault::malformed(path, "the mode DefaultGateway needs defaultGateway.addressFamily")),
    }
}
