//! Where a Service has backends, for those who lead clients to nodes that use only their own.

use std::collections::BTreeSet;

use cilium_api::parts;

/// Nodes with a ready backend of a family, on whichever port; if there is none, those with one on its way out that still serves. A node
/// would use its own of the latter sort, too, but an address had better be where new clients find one that stays. Known only of a Service
/// of which nodes use their own backends.
pub fn own_nodes(part: &parts::Service, ipv4: bool) -> BTreeSet<String> {
    let backends = part.ports.iter().flat_map(|port| &port.backends);
    let of_family = backends.filter(|it| it.address.is_ipv4() == ipv4);
    let places = of_family.filter_map(|backend| backend.place.as_deref());
    let (mut ready, mut leaving) = (BTreeSet::new(), BTreeSet::new());
    for place in places.filter(|place| !place.node.is_empty()) {
        let nodes = if place.leaving { &mut leaving } else { &mut ready };
        if !nodes.contains(&place.node) {
            nodes.insert(place.node.clone());
        }
    }
    if ready.is_empty() { leaving } else { ready }
}
