//! How the node does: status, health, metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use cilium_api::parts::Part;
use cilium_drivers::datapath::AttachMode;
use cilium_drivers::probe;
use cilium_rest::bgp::PeerState;
use cilium_rest::model;
use cilium_rest::model::Health;

use super::Brain;
use super::names::DnsNumbers;
use crate::acceleration;
use crate::bgp::runs;
use crate::host::Host;
use crate::pressure::Pressure;

/// How long it took to put changes in force.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timing {
    pub(crate) count: u64,
    pub(crate) sum: Duration,
    pub(crate) longest: Duration,
}

impl Timing {
    pub(super) fn add(&mut self, took: Duration) {
        self.count += 1;
        self.sum += took;
        self.longest = self.longest.max(took);
    }
}

/// What metrics are made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) ready: usize,
    pub(crate) planned: usize,
    pub(crate) desired: i64,
    pub(crate) applied: i64,
    /// Names of objects that are not in force.
    pub(crate) failures: Vec<String>,
    pub(crate) repairs: i64,
    pub(crate) connected: usize,
    pub(crate) timing: Timing,
    pub(crate) running: bool,
    pub(crate) dns: DnsNumbers,
    /// How full tables are that traffic fills.
    pub(crate) pressures: Vec<Pressure>,
    /// Neighbours of the BGP speaker.
    pub(crate) bgp: Vec<PeerState>,
    /// What was done to have it so, by instance.
    pub(crate) bgp_runs: runs::All,
}

/// What the kernel can do, for people.
pub(super) fn features(probed: &[probe::Feature]) -> Vec<model::Feature> {
    let feature = |found: &probe::Feature| model::Feature {
        name: found.name.to_owned(),
        available: found.available,
        detail: found.detail.clone(),
    };
    probed.iter().map(feature).collect()
}

impl Brain {
    /// Answer to `GET /v1/healthz`.
    pub(crate) fn status(&self) -> model::Status {
        model::Status {
            cilium: self.overall(),
            kubernetes: self.kubernetes(),
            kubernetes_apis: ["CiliumNodeState", "CiliumNodeStateSlice"]
                .map(|kind| format!("cilium.io/v2alpha1::{kind}"))
                .into(),
            cni_file: self.conflist.health.clone(),
            node_state: self.node_state(),
            ipam: self.allocations(),
            routing: self.routing(),
            attach_mode: self.attach_mode(),
            devices: self.devices(),
            masquerading: self.masquerading(),
            kube_proxy_replacement: self.kube_proxy_replacement(),
            node_monitor: model::Monitor::default(),
            identity_range: model::IdentityRange { min_identity: 256, max_identity: 65535 },
            features: self.features.clone(),
            bpf_maps: self.maps(),
        }
    }

    fn overall(&self) -> Health {
        let version = env!("CARGO_PKG_VERSION");
        if self.running.is_none() {
            return Health::failure(self.obstacle.clone());
        }
        if self.conflist.health.state == "Failure" {
            return Health::failure(format!("Could not write CNI config file: {}", self.conflist.health.msg));
        }
        let kubernetes = self.kubernetes();
        if !kubernetes.is_fine() {
            return Health::warning(format!("Kubernetes service is not ready: {}", kubernetes.msg));
        }
        match self.failures().first() {
            Some(failure) => {
                Health::warning(format!("{} is not in force: {}", failure.object, failure.message))
            }
            None => Health::ok(format!("{version} (v{version})")),
        }
    }

    fn kubernetes(&self) -> Health {
        let broken = self.connections.iter().find_map(|(kind, outcome)| {
            let error = outcome.as_ref().err()?;
            Some(format!("the watch on {kind} does not work: {error}"))
        });
        match broken {
            Some(message) => Health::failure(message),
            None if self.connections.len() < crate::watch::WATCHES => Health::failure("not connected yet"),
            None => Health::ok(self.server_version.clone()),
        }
    }

    fn node_state(&self) -> model::NodeState {
        let failure = |failure: cilium_api::node_state::Failure| model::NodeStateFailure {
            object: failure.object,
            message: failure.message,
        };
        model::NodeState {
            desired: self.state.seen_revision().unwrap_or_default(),
            applied: self.running.as_ref().and(self.state.accepted()).map_or(0, |accepted| accepted.revision),
            failures: self.failures().into_iter().map(failure).collect(),
            repairs: self.repairs,
        }
    }

    fn allocations(&self) -> model::Ipam {
        let mut allocations = BTreeMap::new();
        for (key, part) in self.state.iter() {
            if let Part::Endpoint(endpoint) = part {
                let owner = key.0.trim_start_matches("endpoint/");
                allocations.extend(endpoint.ipv4.map(|ip| (ip.to_string(), owner.to_owned())));
                allocations.extend(endpoint.ipv6.map(|ip| (ip.to_string(), owner.to_owned())));
            }
        }
        let of_family = |v4: bool| allocations.keys().filter(|ip| ip.contains('.') == v4).count();
        let prefixes = self.own_facts().map(|facts| facts.prefixes).unwrap_or_default();
        let text = prefixes.iter().map(|prefix| {
            let v4 = prefix.addr().is_ipv4();
            let family = if v4 { "IPv4" } else { "IPv6" };
            format!("{family}: {}/{} allocated from {prefix}", of_family(v4), capacity(*prefix))
        });
        model::Ipam { status: text.collect::<Vec<_>>().join(", "), allocations }
    }

    fn routing(&self) -> model::Routing {
        let (mode, protocol) = if self.settings.tunnel { ("Tunnel", "vxlan") } else { ("Native", "") };
        model::Routing {
            inter_host_routing_mode: mode.to_owned(),
            intra_host_routing_mode: "BPF".to_owned(),
            tunnel_protocol: protocol.to_owned(),
        }
    }

    fn attach_mode(&self) -> String {
        let mode = self.running.as_ref().map(|running| running.host.datapath.mode());
        match mode {
            Some(AttachMode::Tcx) => "TCX",
            Some(AttachMode::Filter) => "Legacy TC",
            None => "",
        }
        .to_owned()
    }

    fn devices(&self) -> BTreeMap<String, Vec<String>> {
        let Some(running) = &self.running else { return BTreeMap::new() };
        running.host.served().into_iter().collect()
    }

    fn masquerading(&self) -> model::Masquerading {
        use cilium_bpf::layout::{CONFIG_MASQUERADE4, CONFIG_MASQUERADE6};
        let Some(running) = &self.running else { return model::Masquerading::default() };
        let flags = running.host.config.flags;
        let kept = self.settings.native.iter().chain(&running.host.facts.prefixes);
        model::Masquerading {
            ipv4: flags & CONFIG_MASQUERADE4 != 0,
            ipv6: flags & CONFIG_MASQUERADE6 != 0,
            devices: running.host.uplinks.iter().map(|device| device.name.clone()).collect(),
            snat_exclusion_cidr: kept.map(ToString::to_string).collect(),
        }
    }

    fn kube_proxy_replacement(&self) -> model::KubeProxyReplacement {
        let rules_of_kube_proxy = self.outside.kube_proxy.borrow().iter().map(ToString::to_string).collect();
        let Some(running) = &self.running else {
            let mode = "False".to_owned();
            return model::KubeProxyReplacement { mode, rules_of_kube_proxy, ..Default::default() };
        };
        let (config, host) = (&running.host.config, &running.host);
        model::KubeProxyReplacement {
            mode: "True".to_owned(),
            devices: describe_devices(host),
            forwarding: crate::balancing::describe_mode(self.settings.balancing).to_owned(),
            selection: crate::balancing::describe(self.settings.balancing),
            acceleration: acceleration::describe(self.settings.acceleration, host.early),
            parts: replacement_parts(config, &self.features),
            rules_of_kube_proxy,
        }
    }

    fn maps(&self) -> model::Maps {
        let Some(running) = &self.running else { return model::Maps::default() };
        let maps = &running.tables.maps;
        let size = |name: &str, size: u32| model::MapSize { name: name.to_owned(), size };
        let list = [
            size(maps.endpoints.name(), maps.endpoints.max_entries()),
            size(maps.ipcache.name(), maps.ipcache.max_entries()),
            size(maps.slots.name(), maps.slots.max_entries()),
            size(maps.policy.peers.name(), maps.policy.peers.max_entries()),
            size(maps.policy.ports.name(), maps.policy.ports.max_entries()),
            size(maps.blocks.name(), maps.blocks.max_entries()),
            size(maps.ct.name(), maps.ct.max_entries()),
            size(maps.snat.name(), maps.snat.max_entries()),
            size(maps.fragments.name(), maps.fragments.max_entries()),
            size(maps.services.name(), maps.services.max_entries()),
            size(maps.backends.name(), maps.backends.max_entries()),
            size(maps.maglev.name(), maps.maglev.max_entries()),
            size(maps.source_ranges.name(), maps.source_ranges.max_entries()),
            size(maps.sock_revnat.name(), maps.sock_revnat.max_entries()),
        ];
        model::Maps { dynamic_size_ratio: self.settings.map_part, maps: list.into() }
    }

    /// Answer to `GET /v1/config`.
    pub(crate) fn config(&self) -> model::Config {
        let router = |v4: bool| {
            let running = self.running.as_ref()?;
            let prefix = running.host.facts.prefixes.iter().find(|prefix| prefix.addr().is_ipv4() == v4)?;
            let ip = running.dataplane.router(v4)?.to_string();
            Some(model::AddressFamilyConfig { ip, alloc_range: prefix.to_string(), enabled: true })
        };
        let mtu = self.running.as_ref().map(|running| (running.host.device_mtu, running.host.route_mtu));
        let (device_mtu, route_mtu) = mtu.unwrap_or_default();
        model::Config {
            status: model::ConfigStatus {
                device_mtu,
                route_mtu,
                datapath_mode: "veth".to_owned(),
                addressing: model::Addressing { ipv4: router(true), ipv6: router(false) },
                settings: self.settings.raw.clone(),
            },
        }
    }

    /// What metrics are made of.
    pub(crate) fn numbers(&self) -> Numbers {
        let planned = self.state.iter().filter(|(_, part)| matches!(part, Part::Endpoint(_))).count();
        let node_state = self.node_state();
        Numbers {
            ready: self.running.as_ref().map_or(0, |running| running.dataplane.connected()),
            planned,
            desired: node_state.desired,
            applied: node_state.applied,
            failures: node_state.failures.into_iter().map(|failure| failure.object).collect(),
            repairs: self.repairs,
            connected: self.connections.values().filter(|outcome| outcome.is_ok()).count(),
            timing: self.timing,
            running: self.is_running(),
            dns: self.dns_numbers(),
            pressures: self.outside.pressures.borrow().clone(),
            bgp: self.outside.routing.peers(),
            bgp_runs: self.outside.routing.runs(),
        }
    }
}

/// What works for Services on this node, and why not all of it.
/// One text for each device; pods of other nodes are reached by the first.
fn describe_devices(host: &Host) -> Vec<String> {
    let describe = |(place, (name, addresses)): (usize, (String, Vec<String>))| {
        let way = if place == 0 { "(Direct Routing)" } else { "" };
        [name, addresses.join(" "), way.to_owned()]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    };
    host.served().into_iter().enumerate().map(describe).collect()
}

fn replacement_parts(
    config: &cilium_bpf::layout::Config,
    features: &[model::Feature],
) -> Vec<model::ReplacementPart> {
    let part = |name: &str, enabled: bool, detail: String| model::ReplacementPart {
        name: name.to_owned(),
        enabled,
        detail,
    };
    let plain = |name| part(name, true, String::new());
    let searches = config.flags & cilium_bpf::layout::CONFIG_SET_RETVAL != 0;
    let until = if searches { "" } else { "until the set of backends changes: the kernel has no bpf_loop" };
    let (first, last) = (config.nodeport_first, config.nodeport_last);
    let at_loopback = config.netns_cookie != 0;
    let why_not = if at_loopback { "" } else { "the kernel has no SO_NETNS_COOKIE" };
    let destroys = features.iter().find(|feature| feature.name == probe::SOCKET_DESTROY);
    let (destroys, why) = destroys.map_or((false, ""), |found| (found.available, found.detail.as_str()));
    vec![
        part("Socket LB", true, format!("Coverage: {}", coverage(config))),
        part("Socket Termination", destroys, if destroys { String::new() } else { why.to_owned() }),
        plain("Graceful Termination"),
        part("Session Affinity", true, until.to_owned()),
        plain("ClusterIP"),
        part("NodePort", true, format!("Range: {first}-{last}")),
        part("NodePort at loopback addresses", at_loopback, why_not.to_owned()),
        plain("LoadBalancer"),
        plain("externalIPs"),
        plain("HostPort"),
    ]
}

/// Whose sockets are translated: without the cookie nobody can tell pods from the node.
fn coverage(config: &cilium_bpf::layout::Config) -> &'static str {
    let of_host = config.flags & cilium_bpf::layout::CONFIG_SOCKETS_OF_HOST != 0;
    if of_host && config.netns_cookie != 0 { "Hostns-only" } else { "Full" }
}

/// Addresses that pods can have: neither the prefix's own, nor the router's, nor IPv4's broadcast.
fn capacity(prefix: ipnet::IpNet) -> String {
    let bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
    let special = if prefix.addr().is_ipv4() { 3 } else { 2 };
    let total = 1u128.checked_shl(bits).unwrap_or(u128::MAX);
    total.saturating_sub(special).to_string()
}
