//! CiliumBGPNodeConfigOverride, reduced.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use cilium_api::CiliumBGPNodeConfigOverride;
use cilium_api::bgp_node_config_override::BgpInstanceOverride;

use crate::cluster::{ip, port};
use crate::fault::Fault;

/// What is different on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Override {
    instances: BTreeMap<String, Instance>,
    faults: Vec<Fault>,
}

/// What is different of a router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) router_id: Option<Ipv4Addr>,
    pub(crate) port: Option<u16>,
    pub(crate) asn: Option<u32>,
    /// By name of the peer.
    pub(crate) local_addresses: BTreeMap<String, IpAddr>,
}

impl Override {
    /// Reads an object.
    pub fn reduce(object: &CiliumBGPNodeConfigOverride) -> Self {
        let mut faults = Vec::new();
        let instances = object.spec.bgp_instances.iter().enumerate();
        let instances = instances.map(|(at, it)| {
            (it.name.clone(), instance(&format!("spec.bgpInstances[{at}]"), it, &mut faults))
        });
        Self { instances: instances.collect(), faults }
    }

    /// What of it is not put in force.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Router ids that it tells.
    pub(crate) fn router_ids(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.instances.values().filter_map(|it| it.router_id)
    }

    pub(crate) fn instance(&self, name: &str) -> Option<&Instance> {
        self.instances.get(name)
    }
}

fn instance(path: &str, it: &BgpInstanceOverride, faults: &mut Vec<Fault>) -> Instance {
    let mut fault =
        |field: &str, reason: &str| faults.push(Fault::malformed(format!("{path}.{field}"), reason));
    let router_id =
        it.router_id.as_deref().map(|text| text.parse().ok().filter(|id: &Ipv4Addr| !id.is_unspecified()));
    if router_id == Some(None) {
        fault("routerID", "a router id is an IPv4 address other than 0.0.0.0");
    }
    let local_port = it.local_port.map(port);
    if local_port == Some(None) {
        fault("localPort", "a port is one of 1 to 65535");
    }
    let asn = it.local_asn.map(|asn| u32::try_from(asn).ok().filter(|asn| *asn != 0));
    if asn == Some(None) {
        fault("localASN", "an AS number is one of 1 to 4294967295");
    }
    let mut local_addresses = BTreeMap::new();
    for (at, peer) in it.peers.iter().flatten().enumerate() {
        let Some(text) = &peer.local_address else { continue };
        match ip(&format!("{path}.peers[{at}].localAddress"), text) {
            Ok(address) => drop(local_addresses.insert(peer.name.clone(), address)),
            Err(fault) => faults.push(fault),
        }
    }
    Instance {
        router_id: router_id.flatten(),
        port: local_port.flatten(),
        asn: asn.flatten(),
        local_addresses,
    }
}
