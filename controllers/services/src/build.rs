//! The part of a Service.

use std::collections::BTreeMap;

use cilium_api::parts::{Backend, Service, ServicePort};

use crate::reduce::{Frontend, Port, Readiness, Slice};

/// Puts a Service and the slices that name it together.
pub(crate) fn build(frontend: &Frontend, slices: &BTreeMap<String, Slice>) -> Service {
    let ports = frontend.ports.iter().map(|port| ServicePort {
        name: port.name.clone(),
        protocol: port.protocol,
        port: port.port,
        backends: backends(port, frontend.publish_not_ready, slices.values()),
    });
    Service { cluster_ips: frontend.cluster_ips.clone(), ports: ports.collect() }
}

/// Backends of one port: per family the ready ones, or those of last resort if none is ready.
fn backends<'a>(
    port: &Port,
    publish_not_ready: bool,
    slices: impl Iterator<Item = &'a Slice>,
) -> Vec<Backend> {
    let mut found: Vec<(Backend, Readiness)> = slices
        .flat_map(|slice| {
            let targets = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
            targets.flat_map(|target| {
                let at = target.port;
                slice
                    .endpoints
                    .iter()
                    .map(move |(address, ready)| (Backend { address: *address, port: at }, *ready))
            })
        })
        .collect();
    if publish_not_ready {
        found.iter_mut().for_each(|(_, readiness)| *readiness = Readiness::Ready);
    }
    let mut chosen: Vec<Backend> = [true, false].into_iter().flat_map(|ipv4| choose(&found, ipv4)).collect();
    chosen.sort();
    chosen.dedup();
    chosen
}

fn choose(found: &[(Backend, Readiness)], ipv4: bool) -> Vec<Backend> {
    let with = |wanted: Readiness| {
        let matching = found.iter().filter(move |(b, ready)| b.address.is_ipv4() == ipv4 && *ready == wanted);
        matching.map(|(backend, _)| backend.clone()).collect::<Vec<_>>()
    };
    let ready = with(Readiness::Ready);
    if ready.is_empty() { with(Readiness::LastResort) } else { ready }
}
