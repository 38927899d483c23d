//! Questions of people about what is planned: who is who, and why a flow passes or not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_api::frontends::{Frontend, FrontendKind, Here, Scope};
use cilium_api::parts::Policy;
use cilium_core::{Labels, reserved};
use cilium_policy::{Decision, Flow, Host, PolicyKey, Side, ToName};
use cilium_services::ServiceName;
use ipnet::IpNet;

use crate::compiled::host;
use crate::names::PodName;
use crate::planner::Planner;

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A pod with a network of its own.
    Pod {
        /// Namespace and name, with a slash between them.
        name: String,
        /// Its identity.
        identity: u32,
        /// Its node.
        node: String,
        /// The one of its addresses that was asked for.
        address: Option<IpAddr>,
    },
    /// A node: its own processes, and pods that share its network.
    Node {
        /// Its name.
        name: String,
        /// It runs an API server.
        api_server: bool,
        /// Its own identity, where nodes are told apart.
        identity: Option<u32>,
        /// The one of its addresses that was asked for; in the pod network, too.
        address: Option<IpAddr>,
    },
    /// Something outside of the cluster.
    Outside {
        /// Its address.
        address: IpAddr,
        /// Identity of the narrowest prefix around the address that a policy names, or of the world.
        identity: u32,
    },
}

/// What both sides say about a flow. A side that no policy can restrict, as it is a node or outside, says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// At the sender.
    pub egress: Option<Decision>,
    /// At the receiver.
    pub ingress: Option<Decision>,
}

/// All that compiled policies and their peers are, at one time.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Compiled policies of identities that have pods.
    pub policies: BTreeMap<u32, Policy>,
    /// Identities of the cluster: those that have pods, and reserved ones.
    pub inside: BTreeSet<u32>,
    /// Prefixes outside that policies name, with their identities. The worlds are prefixes of length 0.
    pub outside: BTreeMap<IpNet, u32>,
    /// Addresses behind identities, with whose they are: `namespace/name` of a pod, or a node. A node's are those that others know.
    pub addresses: BTreeMap<u32, BTreeMap<IpAddr, String>>,
}

impl End {
    /// The number that a node knows this end by.
    pub fn identity_on(&self, judge: Option<&str>) -> u32 {
        match self {
            Self::Pod { identity, .. } | Self::Outside { identity, .. } => *identity,
            Self::Node { name, .. } if judge == Some(name) => reserved::HOST,
            Self::Node { identity: Some(identity), .. } => *identity,
            Self::Node { api_server: true, .. } => reserved::KUBE_APISERVER,
            Self::Node { .. } => reserved::REMOTE_NODE,
        }
    }

    /// The same, whichever of its addresses.
    #[must_use]
    pub fn by_any_address(mut self) -> Self {
        if let Self::Pod { address, .. } | Self::Node { address, .. } = &mut self {
            *address = None;
        }
        self
    }

    /// The node that judges what this end receives and sends.
    fn node(&self) -> Option<&str> {
        match self {
            Self::Pod { node, .. } => Some(node),
            Self::Node { name, .. } => Some(name),
            Self::Outside { .. } => None,
        }
    }
}

impl Planner {
    /// The end that a pod is. `None` when it has no endpoint: it does not exist, has no node yet, is over, or shares its node's network.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<End> {
        let endpoint = self.endpoints.all.get(&PodName::new(namespace, name))?;
        let (identity, node) = (endpoint.identity?, endpoint.node.clone());
        Some(End::Pod { name: format!("{namespace}/{name}"), identity, node, address: None })
    }

    /// The end that an address is.
    pub fn address(&self, address: IpAddr) -> End {
        let of_pod = self.pods.iter().find(|(_, pod)| pod.addresses.contains(&address));
        let planned = || {
            let mut all = self.endpoints.all.iter();
            all.find(|(_, endpoint)| endpoint.addresses().any(|own| own == address)).map(|(name, _)| name)
        };
        if let Some(name) = of_pod.map(|(name, _)| name).or_else(planned)
            && let Some(End::Pod { name, identity, node, .. }) = self.pod(&name.namespace, &name.name)
        {
            return End::Pod { name, identity, node, address: Some(address) };
        }
        let has_address = |name: &str, entry: &crate::nodes::Entry| {
            let router = self.endpoints.ipam.router(name);
            let routers = router.ipv4.map(IpAddr::from).into_iter().chain(router.ipv6.map(IpAddr::from));
            entry.object.iter().flat_map(|object| object.addresses()).chain(routers).any(|own| own == address)
        };
        match self.nodes.iter().find(|(name, entry)| has_address(name, entry)) {
            Some((name, entry)) => End::Node {
                name: name.clone(),
                api_server: entry.api_server,
                identity: self.nodes.numbers.number(name),
                address: Some(address),
            },
            None => End::Outside { address, identity: self.outside(address) },
        }
    }

    fn outside(&self, address: IpAddr) -> u32 {
        let around = self.prefixes.numbered().filter(|(prefix, _)| prefix.contains(&address));
        let narrowest = around.max_by_key(|(prefix, _)| prefix.prefix_len());
        narrowest.map_or_else(|| self.config.families().world_of(address), |(_, number)| number)
    }

    /// Namespace and name of the Service that has this cluster address, or address of its load balancer.
    pub fn service_at(&self, address: IpAddr) -> Option<(String, String)> {
        let has_address = |name: &ServiceName| {
            self.services.part(name).is_some_and(|part| {
                part.cluster_ips.iter().chain(&part.load_balancer).any(|known| *known == address)
            })
        };
        let (name, _) = self.services.described().find(|(name, _)| has_address(name))?;
        Some((name.namespace.clone(), name.name.clone()))
    }

    /// Names that rules let the pods of an identity reach: which addresses they stand for is known on nodes only.
    pub fn names_allowed_to(&self, identity: u32) -> BTreeSet<String> {
        let policy = self.policies.index.compile(identity, Host::Plain);
        policy.iter().flat_map(Policy::named_peers).map(|peer| peer.pattern.clone()).collect()
    }

    /// Whether there is a Service of this name with a cluster address.
    pub fn has_service(&self, namespace: &str, name: &str) -> bool {
        self.services.part(&ServiceName::new(namespace, name)).is_some()
    }

    /// Whether nodes use nothing but their own backends of a Service under this address of it, or under its name
    /// (`internalTrafficPolicy: Local`).
    pub fn is_local(&self, namespace: &str, name: &str, at: Option<IpAddr>) -> bool {
        let part = self.services.part(&ServiceName::new(namespace, name));
        part.is_some_and(|part| part.local && at.is_none_or(|at| part.cluster_ips.contains(&at)))
    }

    /// Backends of a Service for one of its ports, as the node of a sender uses them: addresses with their ports. Under this address of
    /// the Service, or under its name, which stands for its cluster addresses. `None` when there is no such Service.
    pub fn backends(
        &self,
        from: &End,
        (namespace, name): (&str, &str),
        at: Option<IpAddr>,
        protocol: u8,
        port: u16,
    ) -> Option<Vec<(IpAddr, u16)>> {
        let part = self.services.part(&ServiceName::new(namespace, name))?;
        let node = from.node().unwrap_or_default();
        let object = self.nodes.get(node).and_then(|entry| entry.object.as_ref());
        let zone = object.map(|object| object.zone.clone()).unwrap_or_default();
        let addresses = object.map(|object| object.addresses().collect()).unwrap_or_default();
        let here = Here { node: node.to_owned(), zone, addresses };
        let is_asked = |it: &Frontend<'_>| match at {
            Some(at) => it.address == at && it.scope == Scope::Internal,
            None => it.kind == FrontendKind::ClusterIp,
        };
        let asked = part.frontends(&here).filter(is_asked);
        let asked = asked.filter(|it| (it.service_port.protocol, it.port) == (protocol, port));
        let backends: BTreeSet<_> =
            asked.flat_map(|it| it.backends).map(|it| (it.address, it.port)).collect();
        Some(backends.into_iter().collect())
    }

    /// What both sides say about the first packet of a connection or exchange.
    pub fn explain(&self, from: &End, to: &End, protocol: u8, port: u16) -> Explained {
        let addresses = self.addresses(from, to);
        let side = |side, judge: &End| {
            let number = self.subject(judge)?;
            let (source, destination) = match side {
                Side::Egress => (number, to.identity_on(judge.node())),
                Side::Ingress => (from.identity_on(judge.node()), number),
            };
            let flow = Flow { source, destination, protocol, destination_port: port, addresses };
            Some(self.policies.index.explain(side, &flow, self.host_of(judge)))
        };
        Explained { egress: side(Side::Egress, from), ingress: side(Side::Ingress, to) }
    }

    /// What policies say of traffic to a name outside of the cluster, for the world that its addresses are in: for each family, or, where
    /// that makes no difference, for [`reserved::WORLD`]. `None`: no policy can restrict the sender.
    pub fn explain_name(
        &self,
        from: &End,
        name: &str,
        protocol: u8,
        port: u16,
    ) -> Vec<(u32, Option<ToName>)> {
        let said = |world| {
            let flow = Flow {
                source: self.subject(from)?,
                destination: world,
                protocol,
                destination_port: port,
                addresses: None,
            };
            Some(self.policies.index.explain_name(&flow, name, self.host_of(from)))
        };
        let mut all: Vec<_> =
            self.config.families().world().iter().map(|world| (*world, said(*world))).collect();
        if let [(first, one), (_, other)] = all.as_mut_slice()
            && one == other
        {
            *first = reserved::WORLD;
            all.truncate(1);
        }
        all
    }

    /// Addresses of both ends, of the first family that both have.
    fn addresses(&self, from: &End, to: &End) -> Option<(IpAddr, IpAddr)> {
        let (from, to) = (self.addresses_of(from), self.addresses_of(to));
        let mut pairs = from.iter().flat_map(|one| to.iter().map(move |other| (*one, *other)));
        pairs.find(|(one, other)| one.is_ipv4() == other.is_ipv4())
    }

    fn addresses_of(&self, end: &End) -> Vec<IpAddr> {
        match end {
            End::Pod { address: Some(address), .. } | End::Node { address: Some(address), .. } => {
                vec![*address]
            }
            End::Pod { name, .. } => {
                let name = name.split_once('/').map(|(namespace, name)| PodName::new(namespace, name));
                let endpoint = name.and_then(|name| self.endpoints.all.get(&name));
                endpoint.map(|endpoint| endpoint.addresses().collect()).unwrap_or_default()
            }
            End::Node { name, .. } => {
                let object = self.nodes.get(name).and_then(|entry| entry.object.as_ref());
                object.map(|object| object.addresses().collect()).unwrap_or_default()
            }
            End::Outside { address, .. } => vec![*address],
        }
    }

    /// The number under which policies select an end, if they can.
    fn subject(&self, end: &End) -> Option<u32> {
        match end {
            End::Pod { identity, .. } => Some(*identity),
            End::Node { identity, .. } => {
                identity.filter(|_| self.config.host_firewall).map(reserved::node_host)
            }
            End::Outside { .. } => None,
        }
    }

    fn host_of(&self, judge: &End) -> Host {
        let entry = judge.node().and_then(|node| self.nodes.get(node));
        host(entry.is_some_and(|entry| entry.api_server))
    }

    /// Labels of an identity; `None` for one that is not known.
    pub fn labels(&self, identity: u32) -> Option<&Labels> {
        self.policies.index.labels(identity)
    }

    /// Whether a setting, or the lack of labels, closes an identity in both directions without any policy.
    pub fn is_always_closed(&self, identity: u32) -> bool {
        self.policies.index.is_always_closed(identity)
    }

    /// Pods by identity, as `namespace/name`.
    pub fn pods_by_identity(&self) -> BTreeMap<u32, Vec<String>> {
        let mut pods: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for (name, endpoint) in &self.endpoints.all {
            if let Some(identity) = endpoint.identity {
                pods.entry(identity).or_default().push(name.to_string());
            }
        }
        pods
    }

    /// Why the present version of a policy is not in force; `None` when it is, or when there is no such policy.
    pub fn refusal(&self, key: &PolicyKey) -> Option<&str> {
        let policy = self.policies.all.get(key)?;
        policy.refusal.as_ref().map(|refusal| refusal.message.as_str())
    }

    /// Policies of which the present version is refused, with the reason.
    pub fn refusals(&self) -> impl Iterator<Item = (&PolicyKey, &str)> {
        let all = self.policies.all.iter();
        all.filter_map(|(key, policy)| Some((key, policy.refusal.as_ref()?.message.as_str())))
    }

    /// What all pods may receive and send, on nodes without API server.
    pub fn access(&self) -> Access {
        let families = self.config.families();
        let with_pods: BTreeSet<u32> =
            self.endpoints.all.values().filter_map(|endpoint| endpoint.identity).collect();
        let compiled =
            with_pods.iter().map(|number| (*number, self.policies.index.compile(*number, Host::Plain)));
        let policies = compiled.filter_map(|(number, policy)| Some((number, policy?))).collect();
        let (worlds, inside): (Vec<u32>, Vec<u32>) = reserved::all(families)
            .into_iter()
            .map(|(number, _)| number)
            .partition(|number| families.world().contains(number));
        let whole = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|text| text.parse::<IpNet>().ok());
        let whole = whole.map(|prefix| (prefix, families.world_of(prefix.addr())));
        let whole =
            whole.filter(|(prefix, number)| worlds.contains(number) && self.config.has_family(prefix.addr()));
        Access {
            policies,
            inside: with_pods.into_iter().chain(inside).collect(),
            outside: whole.chain(self.prefixes.numbered()).collect(),
            addresses: self.addresses_by_identity(),
        }
    }

    fn addresses_by_identity(&self) -> BTreeMap<u32, BTreeMap<IpAddr, String>> {
        let mut all: BTreeMap<u32, BTreeMap<IpAddr, String>> = BTreeMap::new();
        for (name, endpoint) in &self.endpoints.all {
            let Some(identity) = endpoint.identity else { continue };
            let addresses = endpoint.addresses().map(|address| (address, name.to_string()));
            all.entry(identity).or_default().extend(addresses);
        }
        for (name, entry) in self.nodes.iter() {
            let (name, identity) = (format!("node {name}"), self.nodes.numbers.number(name));
            let node =
                End::Node { name: name.clone(), api_server: entry.api_server, identity, address: None };
            let known = entry.object.iter().flat_map(|object| object.addresses());
            let addresses = known.map(|address| (address, name.clone()));
            all.entry(node.identity_on(None)).or_default().extend(addresses);
        }
        all
    }
}

impl Access {
    /// Identity of what is outside and lies in no prefix that policies name, of the first family that there is.
    pub fn world(&self) -> Option<u32> {
        self.outside.iter().find(|(prefix, _)| prefix.prefix_len() == 0).map(|(_, number)| *number)
    }

    /// Identity of what lies in a prefix, and in none that is narrower than the narrowest around it.
    pub fn identity_of(&self, prefix: &IpNet) -> Option<u32> {
        let around = self.outside.iter().filter(|(known, _)| known.contains(prefix));
        around.max_by_key(|(known, _)| known.prefix_len()).map(|(_, number)| *number)
    }
}
