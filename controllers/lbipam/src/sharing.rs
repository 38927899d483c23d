//! Which Services may have an address together.

use std::collections::BTreeSet;

use crate::claim::Claim;
use crate::failure::Clash;

/// Why the first cannot have an address of the second; the same the other way round. Namespaces are those of the two.
pub(crate) fn clash(one: (&str, &Claim), other: (&str, &Claim)) -> Option<Clash> {
    let ((namespace, one), (elsewhere, other)) = (one, other);
    if one.sharing_key.is_none() || one.sharing_key != other.sharing_key {
        return Some(Clash::Key);
    }
    let permitted = permits(&one.shares_with, elsewhere) && permits(&other.shares_with, namespace);
    if namespace != elsewhere && !permitted {
        return Some(Clash::Namespace);
    }
    if !one.ports.is_disjoint(&other.ports) {
        return Some(Clash::Port);
    }
    if one.is_local != other.is_local {
        return Some(Clash::TrafficPolicy);
    }
    // A packet is for whichever Service has its port: nodes announce the address if they have its pods, so it has to be the same ones.
    let same_pods = !one.pods.is_empty() && one.pods == other.pods;
    (one.is_local && !same_pods).then_some(Clash::Pods)
}

fn permits(namespaces: &BTreeSet<String>, namespace: &str) -> bool {
    namespaces.contains("*") || namespaces.contains(namespace)
}
