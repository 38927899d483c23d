//! What the planner is told once, at start.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use cilium_core::{Families, LabelFilter};
use cilium_policy::Mode;
use cilium_policy::reduce::Settings;
use ipnet::IpNet;

/// Settings of the cluster. More fields may come: fill the rest from [`Config::default`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the cluster, part of every pod's identity (`k8s:io.cilium.k8s.policy.cluster`).
    pub cluster: String,
    /// Pods have IPv4 addresses.
    pub ipv4: bool,
    /// Pods have IPv6 addresses.
    pub ipv6: bool,
    /// When policies are enforced.
    pub mode: Mode,
    /// Which labels count for identities.
    pub labels: LabelFilter,
    /// Nodes have identities of their own, so that policies can name them by their labels.
    pub node_selector_labels: bool,
    /// Policies may select nodes.
    pub host_firewall: bool,
    /// CiliumLocalRedirectPolicies are put in force.
    pub local_redirects: bool,
    /// Prefixes in which addresses have to lie that they redirect; none are all.
    pub redirect_cidrs: Vec<IpNet>,
    /// What agents are told of Services.
    pub services: ServiceConfig,
    /// Pods get addresses of CiliumPodIPPools, and not of their nodes' prefixes.
    pub pod_pools: bool,
    /// Services of load balancers get addresses of pools.
    pub lb_ipam: bool,
    /// So do those that name no `loadBalancerClass`.
    pub lb_default_class: bool,
    /// So do those of the class `io.cilium/bgp-control-plane`.
    pub lb_bgp_class: bool,
    /// So do those of the class `io.cilium/l2-announcer`.
    pub lb_l2_class: bool,
    /// CiliumL2AnnouncementPolicies are put in force.
    pub l2_announcements: bool,
    /// Leases say which node answers for an address, and nodes do not say it otherwise.
    pub l2_leases: bool,
    /// BGP is planned so; `None`: not at all.
    pub bgp: Option<cilium_bgp_plan::Config>,
    /// Authors of BGP's kinds are told what became of them.
    pub bgp_status: bool,
    /// Entries that the policy map of a node has room for.
    pub policy_map_entries: u32,
    /// Time between two looks for identities without endpoints, in seconds. 0 keeps them for ever.
    pub identity_gc_interval: i64,
}

/// What of Services agents put in force: users hear when a Service asks for more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Ports on which nodes serve.
    pub node_ports: RangeInclusive<u16>,
    /// Services may choose how a backend is chosen.
    pub algorithm_by_annotation: bool,
    /// Services may choose how backends on other nodes see clients.
    pub forwarding_by_annotation: bool,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self { node_ports: 30_000..=32_767, algorithm_by_annotation: false, forwarding_by_annotation: false }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: "default".to_owned(),
            ipv4: true,
            ipv6: true,
            mode: Mode::default(),
            labels: LabelFilter::default(),
            node_selector_labels: false,
            host_firewall: false,
            local_redirects: false,
            redirect_cidrs: Vec::new(),
            services: ServiceConfig::default(),
            pod_pools: false,
            lb_ipam: true,
            lb_default_class: true,
            lb_bgp_class: false,
            lb_l2_class: false,
            l2_announcements: false,
            l2_leases: false,
            bgp: None,
            bgp_status: true,
            policy_map_entries: cilium_policy::MAP_ENTRIES,
            identity_gc_interval: 15 * 60,
        }
    }
}

impl Config {
    /// What the meaning of a policy depends on.
    pub fn settings(&self) -> Settings<'_> {
        Settings {
            cluster: &self.cluster,
            node_selector_labels: self.node_selector_labels,
            host_firewall: self.host_firewall,
        }
    }

    /// Whether labels of nodes mean something to policies.
    pub(crate) fn tells_nodes_apart(&self) -> bool {
        self.node_selector_labels || self.host_firewall
    }

    pub(crate) fn families(&self) -> Families {
        match (self.ipv4, self.ipv6) {
            (true, false) => Families::Ipv4,
            (false, true) => Families::Ipv6,
            _ => Families::Dual,
        }
    }

    /// Whether pods have addresses of this one's family.
    pub(crate) fn has_family(&self, address: IpAddr) -> bool {
        match self.families() {
            Families::Dual => true,
            Families::Ipv4 => address.is_ipv4(),
            Families::Ipv6 => address.is_ipv6(),
        }
    }
}
