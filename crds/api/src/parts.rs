//! Desired state in its smallest pieces.
//!
//! The planner emits *parts*; the node agent turns parts into kernel objects. A part is addressed by a
//! [`PartKey`], is replaced as a whole and is either scoped to one node (endpoints, policies, redirects, announcements) or shared by all
//! nodes (addresses, prefixes, identities, nodes, services). How parts travel is the business of
//! [`crate::node_state`] and [`crate::node_slice`]; what they mean is `docs/design/node-state.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use crate::bgp::{BgpInstance, Route};
use crate::frontends::FrontendKind;

/// Version of the format of parts and slices. An agent refuses a version it does not know and keeps the old state.
pub const FORMAT_VERSION: u32 = 5;

/// Number of the first of [`Direction::blocks`] as the peer of an entry; far above all identities.
pub const FIRST_BLOCK: u32 = 0xff00_0000;

/// Name of a part: `<kind>/<rest>`, for example `endpoint/default/xwing` or `policy/20011`.
///
/// The kind prefix equals [`Part::kind`] of the value it names. Copies share the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartKey(pub Arc<str>);

impl PartKey {
    /// Key of the endpoint of one pod.
    pub fn endpoint(namespace: &str, pod: &str) -> Self {
        Self(format!("endpoint/{namespace}/{pod}").into())
    }
    /// Key of the policy of every endpoint of one identity.
    pub fn policy(identity: u32) -> Self {
        Self(format!("policy/{identity}").into())
    }
    /// Key of one address (always a host address, written without prefix length).
    pub fn address(address: IpAddr) -> Self {
        Self(format!("address/{address}").into())
    }
    /// Key of one prefix outside of the cluster, written as `address/length` without bits behind the length.
    pub fn prefix(prefix: impl fmt::Display) -> Self {
        Self(format!("prefix/{prefix}").into())
    }
    /// Key of one numeric identity.
    pub fn identity(identity: u32) -> Self {
        Self(format!("identity/{identity}").into())
    }
    /// Key of one node.
    pub fn node(name: &str) -> Self {
        Self(format!("node/{name}").into())
    }
    /// Key of one Service.
    pub fn service(namespace: &str, name: &str) -> Self {
        Self(format!("service/{namespace}/{name}").into())
    }
    /// Key of one CiliumLocalRedirectPolicy.
    pub fn redirect(namespace: &str, name: &str) -> Self {
        Self(format!("redirect/{namespace}/{name}").into())
    }
    /// Key of one address that nodes announce.
    pub fn announcement(address: IpAddr) -> Self {
        Self(format!("announcement/{address}").into())
    }
    /// Key of one BGP instance.
    pub fn bgp_instance(name: &str) -> Self {
        Self(format!("bgp/{name}").into())
    }
    /// Key of a prefix that nodes make known, whichever they are.
    pub fn route(prefix: IpNet) -> Self {
        Self(format!("route/{prefix}").into())
    }
    /// Key of a prefix that one node makes known.
    pub fn node_route(prefix: IpNet) -> Self {
        Self(format!("nodeRoute/{prefix}").into())
    }
    /// The part of the key before the first `/`.
    pub fn kind(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }
}

impl fmt::Display for PartKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of parts: what one slice, one inline state, or a whole plan holds. Ordered, so that equal sets have equal bytes.
pub type Parts = BTreeMap<PartKey, Part>;

/// One piece of desired state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// Node scope: a pod of this node.
    Endpoint(Endpoint),
    /// Node scope: what endpoints of one identity may send and receive.
    Policy(Box<Policy>),
    /// Node scope: what goes to pods of this node in place of where it would go.
    Redirect(Redirect),
    /// Node scope: an address for which the node answers on its links, or would if other nodes did not live.
    Announcement(Announcement),
    /// Node scope: a BGP router on this node.
    Bgp(Box<BgpInstance>),
    /// Node scope: a prefix that this node makes known by BGP; beside what [`Part::Route`] says of the same prefix.
    NodeRoute(Route),
    /// Cluster scope: a prefix that every node makes known that speaks BGP with a peer for it.
    Route(Route),
    /// Cluster scope: which identity an address has and on which node it lives.
    Address(Address),
    /// Cluster scope: which identity addresses outside of the cluster have.
    Prefix(Prefix),
    /// Cluster scope: the labels behind a numeric identity.
    Identity(Identity),
    /// Cluster scope: a node's own addresses and pod prefixes.
    Node(Node),
    /// Cluster scope: a Service with its backends.
    Service(Service),
}

impl Part {
    /// The kind as it stands in the key: `endpoint`, `policy`, `redirect`, `announcement`, `bgp`, `nodeRoute`, `route`, `address`, `prefix`, `identity`,
    /// `node` or `service`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Endpoint(_) => "endpoint",
            Self::Policy(_) => "policy",
            Self::Redirect(_) => "redirect",
            Self::Announcement(_) => "announcement",
            Self::Bgp(_) => "bgp",
            Self::NodeRoute(_) => "nodeRoute",
            Self::Route(_) => "route",
            Self::Address(_) => "address",
            Self::Prefix(_) => "prefix",
            Self::Identity(_) => "identity",
            Self::Node(_) => "node",
            Self::Service(_) => "service",
        }
    }
    /// Whether the part goes to one node only.
    pub fn is_node_scoped(&self) -> bool {
        match self {
            Self::Endpoint(_) | Self::Policy(_) | Self::Redirect(_) | Self::Announcement(_) => true,
            Self::Bgp(_) | Self::NodeRoute(_) => true,
            Self::Route(_)
            | Self::Address(_)
            | Self::Prefix(_)
            | Self::Identity(_)
            | Self::Node(_)
            | Self::Service(_) => false,
        }
    }
}

/// A pod of the node, planned when it was bound: addresses and identity are known before CNI ADD asks for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// UID of the pod; CNI ADD for another UID of the same name waits for its own plan.
    pub uid: String,
    /// Number of the endpoint, unique on its node, 1–4095.
    pub id: u16,
    /// Security identity.
    pub identity: u32,
    /// IPv4 address out of the node's pod prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<std::net::Ipv4Addr>,
    /// IPv6 address out of the node's pod prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<std::net::Ipv6Addr>,
    /// Ports of the node that lead to the pod, sorted, without duplicates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
}

/// A port of the node that leads to a pod (Kubernetes API, `hostPort`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// IP protocol number.
    pub protocol: u8,
    /// Port of the node.
    pub port: u16,
    /// Address of the node that has it; `None` for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Port of the pod.
    pub target: u16,
}

/// A CiliumLocalRedirectPolicy on a node that has pods for it. There is none on other nodes, where everything goes its usual way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redirect {
    /// What the policy names: for whoever asks, as the next. It decides nothing.
    pub matcher: RedirectMatcher,
    /// Name of the Service, in the namespace of the policy; empty for an address that is no Service's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// Addresses and ports, sorted, each with one backend at least. They go before what Services have there.
    pub frontends: Vec<RedirectFrontend>,
    /// Pods of the node, in the namespace of the policy, to whom the frontends are what they are without it; sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exempt: Vec<String>,
}

/// How a CiliumLocalRedirectPolicy says what it redirects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RedirectMatcher {
    /// An address and one port.
    #[default]
    AddressPort,
    /// An address and ports with names.
    AddressPorts,
    /// A Service with all of its ports.
    Service,
    /// A Service and one port.
    ServicePort,
    /// A Service and ports with names.
    ServicePorts,
}

/// An address and port that lead to pods of the node. Serialised as `[address, protocol, port, [[address, port]]]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "RedirectFrontendTuple", into = "RedirectFrontendTuple")]
pub struct RedirectFrontend {
    /// Where clients connect to.
    pub address: IpAddr,
    /// IP protocol number: 6 TCP, 17 UDP.
    pub protocol: u8,
    /// The port there.
    pub port: u16,
    /// Addresses and ports of pods, of the same family; sorted and without duplicates.
    pub backends: Vec<(IpAddr, u16)>,
}

type RedirectFrontendTuple = (IpAddr, u8, u16, Vec<(IpAddr, u16)>);

impl From<RedirectFrontendTuple> for RedirectFrontend {
    fn from((address, protocol, port, backends): RedirectFrontendTuple) -> Self {
        Self { address, protocol, port, backends }
    }
}

impl From<RedirectFrontend> for RedirectFrontendTuple {
    fn from(it: RedirectFrontend) -> Self {
        (it.address, it.protocol, it.port, it.backends)
    }
}

/// An address of a Service that nodes make known on their links (CiliumL2AnnouncementPolicy). Each of its owners has the part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// Names of nodes: the first of them that lives answers, or where Leases decide, who holds one. At most [`MAX_OWNERS`].
    pub owners: Vec<String>,
    /// Regular expressions, unanchored, sorted and without duplicates: devices of this node whose name matches any of them. None: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// Services that have the address, as `namespace/name`, sorted. They decide nothing but which Leases there are, where these decide.
    pub services: Vec<String>,
}

/// Nodes that an address can go to, one after the other.
pub const MAX_OWNERS: usize = 8;

/// Compiled policy of one identity. No policy part for an identity means that no policy selects it: all is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// What may come in.
    #[serde(default)]
    pub ingress: Direction,
    /// What may go out.
    #[serde(default)]
    pub egress: Direction,
    /// What may go out to name servers by way of the node's DNS proxy; sorted, one for each peer, protocol and port. It goes
    /// before what `egress` allows, not before what it denies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<DnsRule>,
    /// What may go out to addresses by the names that they have; sorted and without duplicates. As `egress.allow`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NamedPeer>,
    /// Name servers of which answers are heard, although nothing is said about questions: all of them pass. Each for one port, and
    /// traffic that passes by what `egress` says in any case.
    #[serde(default, deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub heard: Vec<Entry>,
    /// Policies that directions and entries refer to by index, as `cnp/<namespace>/<name>`, `ccnp/<name>`,
    /// `netpol/<namespace>/<name>` or `clusternetpol/<name>`, sorted. A policy whose rules have different notes is there once for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// What rules say of themselves, by index into `origins`; only of those that say something.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<u16, Note>,
}

/// What a rule says of itself. It decides nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// Text for events of flows on which the rule decided (`log.value`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log: String,
    /// Labels of the rule, `source:key=value`, in the order of the rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// One direction of a policy: what decides is the first of `admin`, then `deny`, then `allow`, then the first of `baseline`, and then
/// `enforced`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Direction {
    /// Default deny is in force: only `allow` passes (and replies).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enforced: bool,
    /// Indexes into [`Policy::origins`], sorted: the policies that put the default deny in force. None if settings do, or nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed_by: Vec<u16>,
    /// What is looked at before all else, in this order.
    #[serde(default, deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub admin: Vec<Step>,
    /// Allowed traffic; sorted and without duplicates. Empty unless `enforced`, or something is asked behind it.
    #[serde(default, deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Entry>,
    /// Prefixes of addresses, whoever has them; sorted and without duplicates. The one at place *i* is the peer
    /// [`FIRST_BLOCK`]` + i` of entries that allow: it stands for the addresses inside that lie in no narrower one of the list.
    #[serde(default, deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<IpNet>,
    /// Denied traffic; sorted and without duplicates. Without `enforced`, everything else passes.
    #[serde(default, deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Entry>,
    /// What is looked at where neither `allow` nor `deny` has anything, in this order. Empty where a policy closes the direction:
    /// that decides then.
    #[serde(default, deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub baseline: Vec<Step>,
}

/// A rule among others in an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What is done with traffic that any of the entries covers.
    pub action: Action,
    /// Traffic; sorted and without duplicates.
    #[serde(default, deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Entry>,
    /// Traffic by names of addresses; sorted and without duplicates. Only with [`Action::Accept`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NamedPeer>,
}

/// What a [`Step`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Lets it pass.
    Accept,
    /// Drops it.
    Deny,
    /// Goes on behind the list.
    Pass,
}

impl Policy {
    /// Whether anything that goes out can be dropped, or has to go by way of the DNS proxy.
    pub fn restricts_egress(&self) -> bool {
        self.egress.is_restricted() || !self.dns.is_empty() || !self.heard.is_empty()
    }
    /// The policies behind each entry, of whatever kind.
    pub fn all_origins(&self) -> impl Iterator<Item = &[u16]> {
        let entries = self.ingress.entries().chain(self.egress.entries()).map(|entry| &entry.origins);
        let dns = self.dns.iter().map(|rule| &rule.origins);
        let names = self.named_peers().map(|peer| &peer.origins);
        entries.chain(dns).chain(names).map(Vec::as_slice)
    }
    /// The policies that some origins are of, each once.
    pub fn origin_names(&self, indexes: impl IntoIterator<Item = u16>) -> Vec<&str> {
        let names = indexes.into_iter().filter_map(|at| self.origins.get(usize::from(at)));
        let mut names: Vec<&str> = names.map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
    /// What a proxy has to know: rules about questions, and servers that are heard, of which every name may be asked.
    pub fn all_dns(&self) -> Vec<DnsRule> {
        let heard = self.heard.iter().map(|server| DnsRule {
            peer: server.peer,
            protocol: server.protocol,
            port: server.first,
            patterns: vec!["*".to_owned()],
            origins: server.origins.clone(),
        });
        self.dns.iter().cloned().chain(heard).collect()
    }
    /// Peers by name, wherever they stand.
    pub fn named_peers(&self) -> impl Iterator<Item = &NamedPeer> {
        self.names.iter().chain(self.egress.steps().flat_map(|step| &step.names))
    }
}

impl Direction {
    /// Whether anything can be dropped: a default deny, or something that denies.
    pub fn is_restricted(&self) -> bool {
        self.enforced || !self.deny.is_empty() || self.steps().any(|step| step.action == Action::Deny)
    }
    /// Whether nothing is said.
    pub fn is_silent(&self) -> bool {
        !self.is_restricted() && self.steps().next().is_none()
    }
    /// What is looked at in an order, before and behind the rest.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.admin.iter().chain(&self.baseline)
    }
    /// The peer that an address is beside its identity: that of the narrowest block around it.
    pub fn block_of(&self, address: IpAddr) -> Option<u32> {
        let around = self.blocks.iter().zip(FIRST_BLOCK..).filter(|(block, _)| block.contains(&address));
        around.max_by_key(|(block, _)| block.prefix_len()).map(|(_, number)| number)
    }
    /// Entries of all kinds.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let steps = self.steps().flat_map(|step| &step.entries);
        self.allow.iter().chain(&self.deny).chain(steps)
    }
}

/// Allowed or denied traffic: peer, protocol and destination ports. Serialised as `[peer, protocol, first, last, [origins]]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "EntryTuple", into = "EntryTuple")]
pub struct Entry {
    /// Identity of the peer; 0 is any peer. Aggregates: 11 is every pod of the cluster (100 to 65535), 13 every prefix outside
    /// (scope 1), 14 every node with an identity of its own (scope 2). From [`FIRST_BLOCK`] on: whoever has an address in a block.
    pub peer: u32,
    /// IP protocol number; 0 is any protocol (then the ports are 0 as well).
    pub protocol: u8,
    /// First destination port; 0 with `last` 0 is any port. ICMP has its type as port.
    pub first: u16,
    /// Last destination port, inclusive; equals `first` for a single port.
    pub last: u16,
    /// Indexes into [`Policy::origins`], sorted: every policy that says this. None: it goes without saying, as that a node
    /// reaches its own pods.
    pub origins: Vec<u16>,
}

type EntryTuple = (u32, u8, u16, u16, Vec<u16>);

impl From<EntryTuple> for Entry {
    fn from((peer, protocol, first, last, origins): EntryTuple) -> Self {
        Self { peer, protocol, first, last, origins }
    }
}

impl From<Entry> for EntryTuple {
    fn from(a: Entry) -> Self {
        (a.peer, a.protocol, a.first, a.last, a.origins)
    }
}

/// Questions that a name server may be asked. Serialised as `[peer, protocol, port, [patterns], [origins]]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "DnsRuleTuple", into = "DnsRuleTuple")]
pub struct DnsRule {
    /// Identity of the name server; 0 is any peer.
    pub peer: u32,
    /// IP protocol number, of TCP or UDP.
    pub protocol: u8,
    /// Destination port.
    pub port: u16,
    /// Names that may be asked for, each a name or a pattern as `toFQDNs` has them, lower case and with a dot at the end; `*` is
    /// every name. Sorted.
    pub patterns: Vec<String>,
    /// Indexes into [`Policy::origins`], sorted: every policy that says this.
    pub origins: Vec<u16>,
}

impl DnsRule {
    /// The traffic that the rule is about.
    pub fn entry(&self) -> Entry {
        let Self { peer, protocol, port, origins, .. } = self;
        Entry { peer: *peer, protocol: *protocol, first: *port, last: *port, origins: origins.clone() }
    }
}

type DnsRuleTuple = (u32, u8, u16, Vec<String>, Vec<u16>);

impl From<DnsRuleTuple> for DnsRule {
    fn from((peer, protocol, port, patterns, origins): DnsRuleTuple) -> Self {
        Self { peer, protocol, port, patterns, origins }
    }
}

impl From<DnsRule> for DnsRuleTuple {
    fn from(rule: DnsRule) -> Self {
        (rule.peer, rule.protocol, rule.port, rule.patterns, rule.origins)
    }
}

/// Traffic with addresses outside of the cluster that have one of some names. Which addresses those are, only the node knows.
/// Serialised as `[pattern, protocol, first, last, [origins]]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "NamedPeerTuple", into = "NamedPeerTuple")]
pub struct NamedPeer {
    /// A name or a pattern, as in [`DnsRule::patterns`].
    pub pattern: String,
    /// IP protocol number, as in [`Entry::protocol`].
    pub protocol: u8,
    /// First destination port, as in [`Entry::first`].
    pub first: u16,
    /// Last destination port, inclusive.
    pub last: u16,
    /// Indexes into [`Policy::origins`], sorted: every policy that says this.
    pub origins: Vec<u16>,
}

impl NamedPeer {
    /// The entry for one identity of addresses with a name that matches.
    pub fn entry(&self, peer: u32) -> Entry {
        let Self { protocol, first, last, origins, .. } = self;
        Entry { peer, protocol: *protocol, first: *first, last: *last, origins: origins.clone() }
    }
}

type NamedPeerTuple = (String, u8, u16, u16, Vec<u16>);

impl From<NamedPeerTuple> for NamedPeer {
    fn from((pattern, protocol, first, last, origins): NamedPeerTuple) -> Self {
        Self { pattern, protocol, first, last, origins }
    }
}

impl From<NamedPeer> for NamedPeerTuple {
    fn from(peer: NamedPeer) -> Self {
        (peer.pattern, peer.protocol, peer.first, peer.last, peer.origins)
    }
}

/// What an address means to policy and where it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// Security identity of the address.
    pub identity: u32,
    /// Node that hosts it, by name; absent for addresses outside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// What addresses outside of the cluster mean to policy: those inside of the prefix that lie in no narrower one. An address that
/// a pod or a node has is theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prefix {
    /// Security identity of the addresses, of the local scope (16777216 and up).
    pub identity: u32,
}

/// Labels of an identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// `source:key=value` (or `source:key` for an empty value), sorted.
    #[serde(deserialize_with = "exact")]
    pub labels: Vec<String>,
}

/// A node. Its own addresses have identity 1 on the node itself, and everywhere else its own one, or else 6 (7 with an API server).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Addresses of the node (InternalIP and ExternalIP), the first of each family is the tunnel endpoint and next hop.
    pub addresses: Vec<IpAddr>,
    /// Pod prefixes of the node, `address/length`.
    pub pod_cidrs: Vec<String>,
    /// Addresses that its pods have as next hop, one of each family, where these are not the second ones of its prefixes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routers: Vec<IpAddr>,
    /// The node runs an API server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub api_server: bool,
    /// Identity of its own (33554432 and up), which nodes have where they are told apart by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<u32>,
    /// Zone of the node (label `topology.kubernetes.io/zone`), empty when it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
}

/// A Service with cluster addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Cluster addresses, in the order of the Service.
    #[serde(deserialize_with = "exact")]
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses of its load balancer, under which pods of the cluster find the same backends.
    #[serde(default, deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub load_balancer: Vec<IpAddr>,
    /// Further addresses under which it is met from outside (`externalIPs`); sorted, of families that it has cluster addresses of.
    #[serde(default, deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<IpAddr>,
    /// A node uses its own backends only under the cluster addresses (`internalTrafficPolicy: Local`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
    /// A node uses its own backends only for what comes from outside, so that these see who comes (`externalTrafficPolicy: Local`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub external_local: bool,
    /// Port on which nodes say whether they have backends of their own (`healthCheckNodePort`); 0 is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub health_port: u16,
    /// From where it may be met under the addresses of its load balancer and external ones (`loadBalancerSourceRanges`), sorted. `None` is from anywhere.
    /// With an empty list nobody may come: the Service names ranges, and none that can be read. So it is for a family without a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ranges: Option<Vec<IpNet>>,
    /// Those are the ones that may not come, and everybody else may (`service.cilium.io/src-ranges-policy: deny`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub denies_ranges: bool,
    /// Seconds since its last connection in which a client comes to the same backend again (`sessionAffinity: ClientIP`); 0 is never.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub affinity: u32,
    /// How a new client from outside comes to one of its backends, where the Service says so and agents let it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// How backends on other nodes see clients from outside, where the Service says so and agents let it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
    /// The one kind of address under which it is met, beside external ones, where the Service says so (`service.cilium.io/type`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<FrontendKind>,
    /// Ports, sorted by (port, protocol).
    #[serde(deserialize_with = "exact")]
    pub ports: Vec<ServicePort>,
}

/// How one of several backends is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// Any of them.
    #[default]
    Random,
    /// The same one on every node, for equal addresses and ports of the connection.
    Maglev,
}

/// What a packet from outside becomes on its way to a backend on another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// One of the node that it came to, where answers go.
    #[default]
    Snat,
    /// It stays the client's, whom the backend's node answers by itself (direct server return).
    Dsr,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Name of the port, empty when it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// IP protocol number: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
    /// Port of the Service.
    pub port: u16,
    /// Port of every node (`nodePort`); 0 is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub node_port: u16,
    /// Backends of both families, sorted by address and port, without duplicates.
    #[serde(deserialize_with = "exact")]
    pub backends: Vec<Backend>,
}

/// A backend; serialised as `[address, port]`, or `[address, port, place]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "BackendText", into = "BackendText")]
pub struct Backend {
    /// Address of the backend.
    pub address: IpAddr,
    /// Port of the backend.
    pub port: u16,
    /// What matters to nodes that do not use all backends.
    pub place: Option<Box<BackendPlace>>,
}

/// Where a backend is, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendPlace {
    /// Its node, for a Service of which nodes use their own backends.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// It is on its way out: for nodes without a better one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// Nodes that it is meant for (EndpointSlice, `hints.forNodes`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub for_nodes: Vec<String>,
    /// Zones that it is meant for (EndpointSlice, `hints.forZones`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub for_zones: Vec<String>,
}

/// A list that keeps no room for more: agents hold many parts for long, and JSON does not say how long its lists are.
fn exact<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let mut list = Vec::deserialize(deserializer)?;
    list.shrink_to_fit();
    Ok(list)
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum BackendText {
    Anywhere(IpAddr, u16),
    Somewhere(IpAddr, u16, Box<BackendPlace>),
}

/// One that every node may use.
impl From<(IpAddr, u16)> for Backend {
    fn from((address, port): (IpAddr, u16)) -> Self {
        Self { address, port, place: None }
    }
}

impl From<BackendText> for Backend {
    fn from(text: BackendText) -> Self {
        match text {
            BackendText::Anywhere(address, port) => (address, port).into(),
            BackendText::Somewhere(address, port, place) => Self { address, port, place: Some(place) },
        }
    }
}

impl From<Backend> for BackendText {
    fn from(Backend { address, port, place }: Backend) -> Self {
        match place {
            None => Self::Anywhere(address, port),
            Some(place) => Self::Somewhere(address, port, place),
        }
    }
}
