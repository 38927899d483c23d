//! The part of a Service.

use std::collections::BTreeMap;

use cilium_api::parts::{Backend, BackendPlace, Service, ServicePort};

use crate::reduce::{Endpoint, Frontend, FrontendPort, Port, Readiness, Slice};

/// A backend of a port, whether it is used or not.
type Found<'a> = (u16, &'a Endpoint, Readiness);

/// Puts a Service and the slices that name it together.
pub(crate) fn build(frontend: &Frontend, slices: &BTreeMap<String, Slice>) -> Service {
    let ports = frontend.ports.iter().map(|FrontendPort { port, node_port }| ServicePort {
        name: port.name.clone(),
        protocol: port.protocol,
        port: port.port,
        node_port: *node_port,
        backends: backends(port, frontend, slices.values()),
    });
    Service {
        cluster_ips: frontend.cluster_ips.clone(),
        load_balancer: frontend.load_balancer.clone(),
        external: frontend.external.clone(),
        local: frontend.local,
        external_local: frontend.external_local,
        health_port: frontend.health_port,
        source_ranges: frontend.source_ranges.clone(),
        denies_ranges: frontend.denies_ranges,
        affinity: frontend.affinity,
        algorithm: frontend.algorithm,
        forwarding: frontend.forwarding,
        only: frontend.only,
        ports: ports.collect(),
    }
}

/// Backends of one port, of both families.
fn backends<'a>(port: &Port, frontend: &Frontend, slices: impl Iterator<Item = &'a Slice>) -> Vec<Backend> {
    let is_port = |target: &&Port| target.name == port.name && target.protocol == port.protocol;
    let found: Vec<Found<'_>> = slices
        .flat_map(|slice| {
            let targets = slice.ports.iter().filter(is_port).map(|target| target.port);
            targets.flat_map(|port| slice.endpoints.iter().map(move |endpoint| (port, endpoint)))
        })
        .map(|(port, endpoint)| {
            let readiness = if frontend.publish_not_ready { Readiness::Ready } else { endpoint.readiness };
            (port, endpoint, readiness)
        })
        .collect();
    let by_node = frontend.goes_by_node();
    let is_usable = |readiness| match readiness {
        Readiness::Ready => true,
        // Where nodes use their own, one of them may have no better one.
        Readiness::LastResort => by_node,
        Readiness::NotReady => false,
    };
    let of_family = |ipv4| {
        let all = found.iter().filter(move |(_, at, _)| at.address.is_ipv4() == ipv4);
        let usable: Vec<_> = all.clone().filter(|(_, _, readiness)| is_usable(*readiness)).collect();
        if usable.is_empty() { all.filter(|(_, _, r)| *r == Readiness::LastResort).collect() } else { usable }
    };
    let chosen = [true, false].into_iter().flat_map(of_family);
    let mut chosen: Vec<Backend> = chosen.map(|found| backend(found, by_node)).collect();
    chosen.sort();
    chosen.dedup_by(|b, a| (a.address, a.port) == (b.address, b.port));
    chosen
}

/// With no more of its place than nodes have to know. Hints are about ready ones.
fn backend((port, at, readiness): &Found<'_>, by_node: bool) -> Backend {
    let mut place = BackendPlace::default();
    if *readiness == Readiness::Ready {
        place.for_nodes.clone_from(&at.for_nodes);
        place.for_zones.clone_from(&at.for_zones);
    }
    if by_node {
        place.node.clone_from(&at.node);
        place.leaving = *readiness == Readiness::LastResort;
    }
    let place = (place != BackendPlace::default()).then(|| Box::new(place));
    Backend { address: at.address, port: *port, place }
}
