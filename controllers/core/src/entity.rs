//! What entities of policies select.

use cilium_api::peer::Entity;

use crate::label::Source;
use crate::pod;
use crate::selector::{Requirement, Selector};

/// Peers of a rule. `S` is a selector, or what an index puts in its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peers<S = Selector> {
    /// Every peer, inside and outside the cluster.
    Any,
    /// Identities that one of the selectors matches; none at all when there is no selector.
    Selected(Vec<S>),
}

impl<S> Peers<S> {
    /// The selectors; none for [`Peers::Any`].
    pub fn selectors(&self) -> &[S] {
        match self {
            Self::Any => &[],
            Self::Selected(selectors) => selectors,
        }
    }

    /// The same with every selector replaced.
    pub fn map<T>(self, replace: impl FnMut(S) -> T) -> Peers<T> {
        match self {
            Self::Any => Peers::Any,
            Self::Selected(selectors) => Peers::Selected(selectors.into_iter().map(replace).collect()),
        }
    }
}

/// Reserved labels whose holders are part of the cluster, beside endpoints with the cluster's label. The aggregates stand for most
/// of these, so that they need no entries of their own.
const INSIDE: [&str; 9] = [
    "host",
    "remote-node",
    "init",
    "ingress",
    "health",
    "unmanaged",
    "kube-apiserver",
    "aggregate-cluster",
    "aggregate-remote-node",
];

/// What an entity selects; `cluster` is the name of the local cluster. `None` for an entity that does not exist.
pub fn peers(entity: &Entity, cluster: &str) -> Option<Peers> {
    let names: &[&str] = match entity {
        Entity::All => return Some(Peers::Any),
        Entity::Cluster => {
            return Some(inside(Requirement::equals(Source::K8S, pod::CLUSTER, cluster)));
        }
        Entity::ClusterMesh => return Some(inside(Requirement::exists(Source::K8S, pod::CLUSTER))),
        Entity::World => &["world", "world-ipv4", "world-ipv6", "aggregate-world"],
        Entity::Host => &["host"],
        Entity::Init => &["init"],
        Entity::Ingress => &["ingress"],
        Entity::Unmanaged => &["unmanaged"],
        Entity::RemoteNode => &["remote-node", "aggregate-remote-node"],
        Entity::Health => &["health"],
        Entity::None => &[],
        Entity::KubeApiserver => &["kube-apiserver"],
        // Upstream's validation takes these two, its schema does not.
        Entity::Other(name) if name == "world-ipv4" => &["world-ipv4"],
        Entity::Other(name) if name == "world-ipv6" => &["world-ipv6"],
        Entity::Other(_) => return None,
    };
    Some(Peers::Selected(names.iter().map(|name| Selector::reserved(name)).collect()))
}

fn inside(endpoints: Requirement) -> Peers {
    let reserved = INSIDE.iter().map(|name| Selector::reserved(name));
    Peers::Selected(reserved.chain([Selector::default().and(endpoints)]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::Labels;
    use crate::reserved::{self, Families};

    fn selected(entity: &str, labels: &Labels) -> bool {
        match peers(&entity.into(), "local").unwrap() {
            Peers::Any => true,
            Peers::Selected(selectors) => selectors.iter().any(|selector| selector.matches(labels)),
        }
    }

    fn numbers(entity: &str) -> Vec<u32> {
        let all = [Families::Ipv4, Families::Dual].map(reserved::all).concat();
        let mut numbers: Vec<u32> =
            all.iter().filter(|(_, labels)| selected(entity, labels)).map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    #[test]
    fn reserved_identities() {
        assert_eq!(numbers("all"), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(numbers("world"), [2, 9, 10]);
        assert_eq!(numbers("cluster"), [1, 3, 4, 5, 6, 7, 8]);
        assert_eq!(numbers("cluster-mesh"), [1, 3, 4, 5, 6, 7, 8]);
        assert_eq!(numbers("remote-node"), [6, 7]);
        assert_eq!(numbers("kube-apiserver"), [7]);
        assert_eq!(numbers("none"), Vec::<u32>::new());
        for (entity, number) in [("host", 1), ("unmanaged", 3), ("health", 4), ("init", 5), ("ingress", 8)] {
            assert_eq!(numbers(entity), [number]);
        }
        assert_eq!(numbers("world-ipv6"), [10]);
        assert_eq!(peers(&"mars".into(), "local"), None);
    }

    #[test]
    fn aggregates_are_for_what_an_entity_has_all_of() {
        let aggregates = |entity: &str| match peers(&entity.into(), "local").unwrap() {
            Peers::Any => vec![0],
            Peers::Selected(all) => all.iter().filter_map(reserved::selected_aggregate).collect::<Vec<_>>(),
        };
        assert_eq!(aggregates("world"), [13]);
        assert_eq!(aggregates("remote-node"), [14]);
        assert_eq!(aggregates("cluster"), [11, 14]);
        assert_eq!(aggregates("cluster-mesh"), [11, 14]);
        for entity in ["world-ipv4", "kube-apiserver", "host", "none"] {
            assert_eq!(aggregates(entity), Vec::<u32>::new(), "{entity}");
        }
    }

    #[test]
    fn endpoints_of_clusters() {
        let local = Labels::parse(["k8s:io.cilium.k8s.policy.cluster=local"]).unwrap();
        let other = Labels::parse(["k8s:io.cilium.k8s.policy.cluster=other"]).unwrap();
        assert!(selected("cluster", &local) && selected("cluster-mesh", &local));
        assert!(!selected("cluster", &other) && selected("cluster-mesh", &other));
        assert!(!selected("world", &local) && selected("all", &local));
    }
}
