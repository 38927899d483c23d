//! Pools of pod addresses: who has addresses of which, and which blocks of them nodes have.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::node::{IpamPools, IpamSpec, PoolAllocation};
use cilium_api::{CiliumNode, CiliumPodIPPool, parts};
use cilium_core::{Label, Labels};
use cilium_ipam::{Asker, Choice, Pool, Request};
use ipnet::IpNet;

use crate::endpoints::Room;
use crate::names::PodName;
use crate::object::{Kind, ObjectKey};
use crate::planner::Planner;
use crate::restore::{PublicNode, Records};

/// What is known beside the pools themselves.
#[derive(Debug, Default)]
pub(crate) struct PodPools {
    /// Pools that namespaces ask for.
    requests: BTreeMap<String, Request>,
    /// Pods that wait may get addresses: pools changed.
    has_room: bool,
    /// Nodes may lack router addresses.
    lacks_routers: bool,
}

impl PodPools {
    /// Nodes changed, which have router addresses.
    pub(crate) fn touch_routers(&mut self) {
        self.lacks_routers = true;
    }
}

impl Records {
    /// Blocks of pools, and router addresses, as a CiliumNode has them.
    pub(crate) fn add_public_node(&mut self, object: &CiliumNode) {
        let pools = object.spec.ipam.as_ref().and_then(|ipam| ipam.pools.as_ref());
        let allocated = pools.into_iter().flat_map(|pools| pools.allocated.iter().flatten());
        let blocks = allocated.flat_map(|it| {
            let cidrs = it.cidrs.iter().flatten().filter_map(|cidr| cidr.parse().ok());
            cidrs.map(|cidr| (it.pool.clone(), cidr))
        });
        let own = object.spec.addresses.iter().flatten();
        let own = own.filter(|address| address.type_.as_deref() == Some("CiliumInternalIP"));
        let routers = own.filter_map(|address| address.ip.as_ref()?.parse().ok()).collect();
        let name = object.metadata.name.clone().unwrap_or_default();
        self.public_nodes.insert(name, PublicNode { blocks: blocks.collect(), routers });
    }
}

impl Planner {
    pub(crate) fn observe_pod_pool(&mut self, object: &CiliumPodIPPool) {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        self.routing.set_pod_pool(name, Some(labels(object.metadata.labels.as_ref())));
        self.pod_pools.has_room |= self.endpoints.ipam.set_pool(name, Some(Pool::reduce(object)));
    }

    pub(crate) fn forget_pod_pool(&mut self, name: &str) {
        self.routing.set_pod_pool(name, None);
        self.pod_pools.has_room |= self.endpoints.ipam.set_pool(name, None);
    }

    /// Takes what annotations of a namespace say of pools.
    pub(crate) fn put_request(&mut self, namespace: &str, request: Option<Request>) {
        if self.pod_pools.requests.get(namespace) == request.as_ref() {
            return;
        }
        match request {
            Some(request) => drop(self.pod_pools.requests.insert(namespace.to_owned(), request)),
            None => drop(self.pod_pools.requests.remove(namespace)),
        }
        self.dirty_namespace(namespace);
    }

    /// The pools of a pod; `None`: addresses do not come out of pools.
    pub(crate) fn pools_of(&self, name: &PodName) -> Option<Choice> {
        let ipam = &self.endpoints.ipam;
        let pod = self.pods.get(name).filter(|_| ipam.has_pools())?;
        let of_namespace = labels(self.namespaces.get(&name.namespace));
        let request = self.pod_pools.requests.get(&name.namespace);
        let namespace = Asker { request, labels: &of_namespace };
        let of_pod = labels(Some(&pod.labels));
        let pod = Asker { request: pod.request.as_deref(), labels: &of_pod };
        let choose = |wanted: bool, is_ipv4| wanted.then(|| ipam.choose(&pod, &namespace, is_ipv4));
        Some(Choice { ipv4: choose(self.config.ipv4, true), ipv6: choose(self.config.ipv6, false) })
    }

    /// Gives nodes router addresses, and lets pods ask again that wait. After running pods have theirs back.
    pub(crate) fn follow_pod_pools(&mut self) {
        let has_room = std::mem::take(&mut self.pod_pools.has_room);
        if has_room {
            self.retry_waiting(&Room::InPools);
        }
        if std::mem::take(&mut self.pod_pools.lacks_routers) || has_room {
            let families = [(self.config.ipv4, true), (self.config.ipv6, false)];
            let families: Vec<bool> = families.into_iter().filter(|it| it.0).map(|it| it.1).collect();
            self.endpoints.ipam.give_routers(&families);
        }
    }

    /// Tells everybody of blocks that nodes got or lost.
    pub(crate) fn follow_blocks(&mut self) {
        for node in self.endpoints.ipam.take_changed() {
            let blocks = self.endpoints.ipam.blocks(&node).map(|(pool, prefix)| (pool.to_owned(), prefix));
            self.routing.set_blocks(&node, blocks.collect());
            self.set_node_part(&node);
            self.reports.nodes.touch(ObjectKey::cluster(Kind::CiliumNode, &node));
        }
    }

    /// The part of a node with its blocks, where addresses come out of pools.
    pub(crate) fn with_blocks(&self, name: &str, mut part: parts::Node) -> parts::Node {
        let ipam = &self.endpoints.ipam;
        if ipam.has_pools() {
            part.pod_cidrs = ipam.blocks(name).map(|(_, prefix)| prefix.to_string()).collect();
            part.routers = ipam.router(name).addresses().collect();
        }
        part
    }

    /// What a CiliumNode says of addresses for pods.
    pub(crate) fn public_ipam(&self, name: &str, pod_cidrs: &[IpNet]) -> IpamSpec {
        let ipam = &self.endpoints.ipam;
        if !ipam.has_pools() {
            let pod_cidrs = pod_cidrs.iter().map(ToString::to_string).collect();
            return IpamSpec { pod_cidrs: Some(pod_cidrs), ..IpamSpec::default() };
        }
        let names: BTreeSet<&str> = ipam.blocks(name).map(|(pool, _)| pool).collect();
        let allocated = names.into_iter().map(|pool| {
            let of_pool = ipam.blocks(name).filter(|(of, _)| *of == pool);
            let (first, last) = ipam.allows_ends(pool);
            PoolAllocation {
                pool: pool.to_owned(),
                allow_first_ip: first.then_some(true),
                allow_last_ip: last.then_some(true),
                cidrs: Some(of_pool.map(|(_, prefix)| prefix.to_string()).collect()),
            }
        });
        let pools = IpamPools { allocated: Some(allocated.collect()), ..IpamPools::default() };
        IpamSpec { pools: Some(pools), ..IpamSpec::default() }
    }
}

fn labels(labels: Option<&BTreeMap<String, String>>) -> Labels {
    labels.into_iter().flatten().map(|(key, value)| Label::k8s(key, value)).collect()
}
