//! The part of a Service.

use std::collections::BTreeMap;

use cilium_api::parts::{Backend, BackendPlace, Service, ServicePort};

use crate::reduce::{Endpoint, Frontend, Port, Readiness, Slice};

/// Puts a Service and the slices that name it together.
pub(crate) fn build(frontend: &Frontend, slices: &BTreeMap<String, Slice>) -> Service {
    let ports = frontend.ports.iter().map(|port| ServicePort {
        name: port.name.clone(),
        protocol: port.protocol,
        port: port.port,
        backends: backends(port, frontend, slices.values()),
    });
    Service {
        cluster_ips: frontend.cluster_ips.clone(),
        load_balancer: frontend.load_balancer.clone(),
        local: frontend.local,
        affinity: frontend.affinity,
        ports: ports.collect(),
    }
}

/// Backends of one port, of both families.
fn backends<'a>(port: &Port, frontend: &Frontend, slices: impl Iterator<Item = &'a Slice>) -> Vec<Backend> {
    let is_port = |target: &&Port| target.name == port.name && target.protocol == port.protocol;
    let found: Vec<(u16, &Endpoint, Readiness)> = slices
        .flat_map(|slice| {
            let targets = slice.ports.iter().filter(is_port).map(|target| target.port);
            targets.flat_map(|port| slice.endpoints.iter().map(move |endpoint| (port, endpoint)))
        })
        .map(|(port, endpoint)| {
            let readiness = if frontend.publish_not_ready { Readiness::Ready } else { endpoint.readiness };
            (port, endpoint, readiness)
        })
        .collect();
    let choose = if frontend.local { choose_by_node } else { choose };
    let mut chosen: Vec<Backend> = [true, false].into_iter().flat_map(|ipv4| choose(&found, ipv4)).collect();
    chosen.sort();
    chosen.dedup_by(|b, a| (a.address, a.port) == (b.address, b.port));
    chosen
}

/// The ready ones of a family, with their hints, or those of last resort if none is ready.
fn choose(found: &[(u16, &Endpoint, Readiness)], ipv4: bool) -> Vec<Backend> {
    let with = |wanted: Readiness| {
        found.iter().filter(move |(_, at, ready)| at.address.is_ipv4() == ipv4 && *ready == wanted)
    };
    let hinted = |(port, at, _): &(u16, &Endpoint, Readiness)| {
        let (for_nodes, for_zones) = (at.for_nodes.clone(), at.for_zones.clone());
        let place = BackendPlace { for_nodes, for_zones, ..BackendPlace::default() };
        let place = (place != BackendPlace::default()).then(|| Box::new(place));
        Backend { address: at.address, port: *port, place }
    };
    let ready: Vec<Backend> = with(Readiness::Ready).map(hinted).collect();
    if !ready.is_empty() {
        return ready;
    }
    let plain = |(port, at, _): &(u16, &Endpoint, Readiness)| Backend {
        address: at.address,
        port: *port,
        place: None,
    };
    with(Readiness::LastResort).map(plain).collect()
}

/// All of a family that a node may have to use for want of a better one.
fn choose_by_node(found: &[(u16, &Endpoint, Readiness)], ipv4: bool) -> Vec<Backend> {
    let usable =
        found.iter().filter(|(_, at, ready)| at.address.is_ipv4() == ipv4 && *ready != Readiness::NotReady);
    let placed = usable.map(|(port, at, ready)| {
        let leaving = *ready == Readiness::LastResort;
        let place = BackendPlace { node: at.node.clone(), leaving, ..BackendPlace::default() };
        Backend { address: at.address, port: *port, place: Some(Box::new(place)) }
    });
    placed.collect()
}
