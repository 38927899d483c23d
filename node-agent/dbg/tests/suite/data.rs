//! What the agent of the tests says: two pods under a policy, one without, one without anything yet.

use cilium_rest::model::*;

use crate::agent::Answers;

pub(crate) fn answers() -> Answers {
    cluster(kernel(node(Answers::default())))
}

fn node(answers: Answers) -> Answers {
    let endpoints = endpoints();
    answers
        .set("/v1/healthz", &status())
        .set("/v1/config", &config())
        .set("/v1/endpoint/17", &endpoints[1])
        .set("/v1/endpoint", &endpoints)
        .set_text("/v1/monitor", MONITOR)
}

/// Also a line of a type that only another version knows.
const MONITOR: &str = r#"{"type":"drop","verdict":"denied","reason":"Policy denied","direction":"ingress","endpoint":17,"source-identity":20013,"destination-identity":20011,"protocol":"TCP","source":"10.0.2.4:41000","destination":"10.0.1.17:80","length":74}
{"type":"policy-verdict","verdict":"allowed","reason":"cnp/default/rule1","policy-log":["payments"],"direction":"ingress","endpoint":17,"source-identity":20012,"destination-identity":20011,"protocol":"TCP","source":"[fd00:2::3]:41002","destination":"[fd00:1::11]:80","length":94}
{"type":"policy-verdict","verdict":"denied","reason":"Policy denied","direction":"egress","endpoint":4,"source-identity":20013,"destination-identity":2,"protocol":"UDP","source":"10.0.1.4:5353","destination":"192.0.2.9:53","length":60}
{"type":"drop","verdict":"denied","reason":"Invalid source ip","direction":"","endpoint":0,"source-identity":0,"destination-identity":0,"protocol":"ICMP","source":"192.0.2.77","destination":"10.0.1.17","length":98}
{"type":"trace","what":"from a newer agent"}
"#;

pub(crate) fn endpoints() -> Vec<Endpoint> {
    let labels = |class: &str, org: &str| {
        // Not in order: the program sorts them.
        ["k8s:org=ORG", "k8s:class=CLASS", "k8s:io.kubernetes.pod.namespace=default"]
            .map(|label| label.replace("ORG", org).replace("CLASS", class))
            .to_vec()
    };
    let waiting = EndpointStatus { state: "waiting-for-identity".into(), ..EndpointStatus::default() };
    let nameless = EndpointIdentity { id: 5, labels: Vec::new() };
    vec![
        Endpoint { id: 203, status: waiting },
        mk_endpoint(
            17,
            "deathstar",
            "ingress",
            EndpointIdentity { id: 20011, labels: labels("deathstar", "empire") },
        ),
        mk_endpoint(4, "xwing", "none", EndpointIdentity { id: 20013, labels: labels("xwing", "alliance") }),
        mk_endpoint(41, "odd", "both", nameless),
        mk_endpoint(
            40,
            "sender",
            "egress",
            EndpointIdentity { id: 20020, labels: vec!["k8s:app=sender".into()] },
        ),
    ]
}

fn mk_endpoint(id: u16, pod: &str, enabled: &str, identity: EndpointIdentity) -> Endpoint {
    let address = AddressPair { ipv4: format!("10.0.1.{id}"), ipv6: format!("fd00:1::{id:x}") };
    let networking = EndpointNetworking {
        addressing: vec![address],
        container_interface_name: "eth0".into(),
        host_mac: "02:00:00:00:01:02".into(),
        interface_index: 30 + i64::from(id),
        interface_name: format!("lxc0000000000{id:02x}"),
        mac: "02:00:00:00:00:01".into(),
    };
    let external_identifiers = ExternalIdentifiers {
        cni_attachment_id: format!("c0ffee{id}:eth0"),
        container_id: format!("c0ffee{id}"),
        k8s_namespace: "default".into(),
        k8s_pod_name: pod.into(),
        pod_name: format!("default/{pod}"),
    };
    let realized = RealizedPolicy { policy_enabled: enabled.into(), policy_revision: 9, entries: 2 };
    let status = EndpointStatus {
        state: "ready".into(),
        external_identifiers,
        identity: Some(identity),
        networking,
        policy: EndpointPolicy { realized },
        failures: Vec::new(),
    };
    Endpoint { id: id.into(), status }
}

pub(crate) fn status() -> Status {
    Status {
        cilium: Health::ok("0.1.0 (v0.1.0-abcdef)"),
        kubernetes: Health::ok("1.36 (v1.36.0) [linux/amd64]"),
        kubernetes_apis: ["cilium/v2::CiliumNodeState", "cilium/v2::CiliumNodeStateSlice"]
            .map(Into::into)
            .into(),
        cni_file: Health::ok(
            "successfully wrote CNI configuration file to /etc/cni/net.d/05-cilium.conflist",
        ),
        node_state: NodeState { desired: 12, applied: 12, failures: Vec::new(), repairs: 0 },
        ipam: mk_ipam(),
        routing: Routing {
            inter_host_routing_mode: "Tunnel".into(),
            intra_host_routing_mode: "BPF".into(),
            tunnel_protocol: "vxlan".into(),
        },
        attach_mode: "TCX".into(),
        devices: [
            ("eth0".into(), vec!["192.0.2.1".into(), "2001:db8::1".into()]),
            ("eth1".into(), Vec::new()),
        ]
        .into(),
        masquerading: Masquerading {
            ipv4: true,
            ipv6: false,
            devices: vec!["eth0".into()],
            snat_exclusion_cidr: vec!["10.0.0.0/8".into(), "fd00::/16".into()],
        },
        kube_proxy_replacement: KubeProxyReplacement {
            mode: "True".into(),
            devices: vec!["eth0 192.0.2.1 2001:db8::1 (Direct Routing)".into()],
            forwarding: "SNAT".into(),
            selection: "Random".into(),
            acceleration: "Best-Effort".into(),
            parts: vec![
                mk_part("NodePort", true, "Range: 30000-32767"),
                mk_part("NodePort at loopback addresses", false, "the kernel has no SO_NETNS_COOKIE"),
                mk_part("HostPort", true, ""),
            ],
            rules_of_kube_proxy: vec![],
        },
        node_monitor: Monitor { cpus: 2, npages: 64, pagesize: 4096, lost: 0, listeners: 0 },
        identity_range: IdentityRange { min_identity: 256, max_identity: 65535 },
        features: mk_features(),
        bpf_maps: Maps {
            dynamic_size_ratio: 0.0025,
            maps: vec![mk_map("cilium_ct", 131_072), mk_map("cilium_endpoints", 8192)],
        },
    }
}

/// The same agent on a node where kube-proxy is, too.
pub(crate) fn beside_kube_proxy() -> Status {
    let rules_of_kube_proxy = vec!["nftables".into(), "iptables-legacy".into()];
    let kube_proxy_replacement =
        KubeProxyReplacement { rules_of_kube_proxy, ..status().kube_proxy_replacement };
    Status { kube_proxy_replacement, ..status() }
}

/// The same agent on a bad day.
pub(crate) fn troubled() -> Status {
    let failure =
        |object: &str, message: &str| NodeStateFailure { object: object.into(), message: message.into() };
    Status {
        cilium: Health::failure("Kubernetes service is not ready: connection refused"),
        kubernetes: Health::failure("connection refused"),
        cni_file: Health::failure("cannot write /etc/cni/net.d/05-cilium.conflist: read-only file system"),
        node_state: NodeState {
            desired: 13,
            applied: 12,
            failures: vec![
                failure("policy/20011", "map cilium_policy is full, the limit is 65536 entries"),
                failure("slice cluster.0", "digest does not match"),
            ],
            repairs: 3,
        },
        routing: Routing {
            inter_host_routing_mode: "Native".into(),
            intra_host_routing_mode: "BPF".into(),
            tunnel_protocol: String::new(),
        },
        masquerading: Masquerading::default(),
        kube_proxy_replacement: KubeProxyReplacement {
            mode: "False".into(),
            rules_of_kube_proxy: vec!["iptables".into()],
            ..Default::default()
        },
        node_monitor: Monitor { lost: 7, listeners: 1, ..status().node_monitor },
        identity_range: IdentityRange::default(),
        ..status()
    }
}

fn mk_part(name: &str, enabled: bool, detail: &str) -> ReplacementPart {
    ReplacementPart { name: name.into(), enabled, detail: detail.into() }
}

fn mk_ipam() -> Ipam {
    let allocations = [("10.0.1.1", "router"), ("10.0.1.17", "default/deathstar")];
    Ipam {
        status: "IPv4: 2/254 allocated from 10.0.1.0/24, IPv6: 2/65534 allocated from fd00:1::/112".into(),
        allocations: allocations.map(|(ip, owner)| (ip.into(), owner.into())).into(),
    }
}

fn mk_features() -> Vec<Feature> {
    let feature =
        |name: &str, available, detail: &str| Feature { name: name.into(), available, detail: detail.into() };
    vec![feature("tcx links", true, ""), feature("bpf_set_retval", false, "needs Linux 5.18")]
}

fn mk_map(name: &str, size: u32) -> MapSize {
    MapSize { name: name.into(), size }
}

fn config() -> Config {
    let status = ConfigStatus {
        device_mtu: 1500,
        route_mtu: 1450,
        datapath_mode: "veth".into(),
        ..ConfigStatus::default()
    };
    Config { status }
}

fn announcements() -> Vec<Announcement> {
    let mk = |address: &str, state: &str, node: &str, replies| Announcement {
        address: address.into(),
        interface: "eth0".into(),
        state: state.into(),
        node: node.into(),
        owners: vec!["one".into(), "two".into()],
        services: vec!["default/web".into()],
        replies,
        claimed_by: None,
    };
    let claimed_by = Some("02:00:00:00:00:99".into());
    vec![
        mk("2001:db8::10", "standby", "two", 0),
        mk("192.0.2.100", "answering", "one", 1234),
        Announcement { claimed_by, ..mk("192.0.2.20", "probing", "one", 0) },
    ]
}

fn cluster(answers: Answers) -> Answers {
    let identity =
        |id, labels: &[&str]| Identity { id, labels: labels.iter().map(ToString::to_string).collect() };
    let ip = |cidr: &str, identity, host_ip: &str| IpEntry {
        cidr: cidr.into(),
        identity,
        host_ip: host_ip.into(),
    };
    let node = |name: &str, addresses: &[&str], pod_cidrs: &[&str]| ClusterNode {
        name: name.into(),
        addresses: addresses.iter().map(|ip| Address { ip: ip.to_string() }).collect(),
        pod_cidrs: pod_cidrs.iter().map(ToString::to_string).collect(),
    };
    let nodes = ClusterNodes {
        own: "one".into(),
        nodes_added: vec![
            node("two", &["192.0.2.2"], &["10.0.2.0/24"]),
            node("one", &["192.0.2.1", "2001:db8::1"], &["fd00:1::/112", "10.0.1.0/24"]),
        ],
    };
    let policy = "{\n  \"20011\": {\n    \"ingress\": \"enforced\"\n  }\n}";
    answers
        .set(
            "/v1/identity",
            &[
                identity(20011, &["k8s:class=deathstar", "k8s:org=empire"]),
                identity(1, &["reserved:host"]),
                identity(99, &[]),
            ],
        )
        .set(
            "/v1/ip",
            &[
                ip("fd00:1::4/128", 20013, ""),
                ip("10.0.2.10/32", 20012, "192.0.2.2"),
                ip("10.0.2.9/32", 20012, "192.0.2.2"),
            ],
        )
        .set(
            "/v1/fqdn/cache",
            &[
                name("www.example.org.", "192.0.2.10", 7),
                name("api.example.org.", "2001:db8::1", -3),
                name("api.example.org.", "192.0.2.9", 42),
            ],
        )
        .set("/v1/cluster/nodes", &nodes)
        .set("/v1/service", &services())
        .set("/v1/lrp", &redirects())
        .set("/v1/l2-announcement", &announcements())
        .set("/v1/policy", &Policy { policy: policy.into(), revision: 12 })
}

/// Not in order: the program sorts them.
fn redirects() -> Vec<Redirect> {
    let address = |ip: &str, port, protocol: &str| ServiceAddress {
        ip: ip.into(),
        port,
        protocol: protocol.into(),
        scope: String::new(),
    };
    let backend = |ip: &str, port, pod: &str| RedirectBackend {
        backend_address: address(ip, port, ""),
        pod_id: format!("kube-system/{pod}"),
    };
    let dns = RedirectMapping {
        frontend_address: address("10.96.0.10", 53, "UDP"),
        backends: vec![backend("10.0.1.30", 53, "node-local-dns-1")],
    };
    let meta = RedirectMapping {
        frontend_address: address("fd00:ec2::254", 80, "TCP"),
        backends: vec![backend("fd00:1::1f", 8181, "proxy-1"), backend("fd00:1::20", 8181, "proxy-2")],
    };
    let mk = |name: &str, frontend_type: &str, service: &str, mapping| Redirect {
        namespace: "kube-system".into(),
        name: name.into(),
        frontend_type: frontend_type.into(),
        service_id: service.into(),
        frontend_mappings: vec![mapping],
    };
    vec![
        mk("nodelocaldns", "clusterIP + all svc ports", "kube-system/kube-dns", dns),
        mk("metadata", "IP + port", "", meta),
    ]
}

fn services() -> Vec<Service> {
    let address = |ip: &str, port, protocol: &str| ServiceAddress {
        ip: ip.into(),
        port,
        protocol: protocol.into(),
        scope: String::new(),
    };
    let service = |id, name: &str, frontend, backends| Service {
        spec: ServiceSpec {
            id,
            frontend_address: frontend,
            backend_addresses: backends,
            namespace: "default".into(),
            name: name.into(),
            r#type: "ClusterIP".into(),
        },
    };
    let backends = vec![address("10.0.1.17", 80, "TCP"), address("10.0.2.5", 80, "TCP")];
    vec![
        service(2, "deathstar", address("fd00:10::7", 80, "TCP"), vec![address("fd00:1::11", 80, "TCP")]),
        service(1, "deathstar", address("10.96.0.7", 80, "TCP"), backends),
        service(3, "empty", address("10.96.0.8", 53, "UDP"), Vec::new()),
    ]
}

fn kernel(answers: Answers) -> Answers {
    let endpoint = |ip: &str, id: u16| EndpointEntry {
        ip: ip.into(),
        ifindex: 30 + u32::from(id),
        identity: 20011,
        slot: 2,
        id,
        mac: "02:00:00:00:00:01".into(),
        node_mac: "02:00:00:00:01:02".into(),
    };
    let prefix = |prefix: &str, identity, tunnel: &str| IpcacheEntry {
        prefix: prefix.into(),
        identity,
        tunnel_endpoint: tunnel.into(),
    };
    let metric = |reason: &str, direction: &str, packets| MetricEntry {
        reason: reason.into(),
        direction: direction.into(),
        packets,
        bytes: packets * 100,
    };
    answers
        .set(
            "/v1/map/endpoints",
            &[endpoint("fd00:1::11", 17), endpoint("10.0.1.17", 17), endpoint("10.0.1.4", 4)],
        )
        .set(
            "/v1/map/ipcache",
            &[
                prefix("10.0.2.0/24", 20012, "192.0.2.2"),
                prefix("10.0.2.0/9", 2, ""),
                prefix("fd00:1::1/128", 1, ""),
            ],
        )
        .set("/v1/map/policy", &policy_entries())
        .set("/v1/map/ct", &connections())
        .set("/v1/map/nat", &translations())
        .set("/v1/map/services", &service_entries())
        .set("/v1/map/backends", &backend_entries())
        .set("/v1/map/maglev", &maglev_entries())
        .set(
            "/v1/map/metrics",
            &[
                metric("Policy denied", "INGRESS", 4),
                metric("Forwarded", "INGRESS", 1200),
                metric("Events lost", "", 0),
            ],
        )
}

fn policy_entries() -> Vec<PolicyEntry> {
    let entry =
        |identities: &[u32], direction: &str, peer, protocol: &str, ports, origins: &[&str]| PolicyEntry {
            identities: identities.into(),
            generation: 9,
            direction: direction.into(),
            peer,
            block: String::new(),
            protocol: protocol.into(),
            ports,
            verdict: "Allow".into(),
            origins: origins.iter().map(ToString::to_string).collect(),
        };
    let removed =
        PolicyEntry { generation: 8, verdict: "Deny".into(), ..entry(&[], "Ingress", 0, "ANY", (0, 0), &[]) };
    vec![
        entry(&[20011], "Ingress", 20012, "TCP", (80, 80), &["ccnp/all", "cnp/default/rule1"]),
        entry(&[20011], "Ingress", 1, "ANY", (0, 0), &["cnp/default/rule1"]),
        entry(&[20013, 20020], "Egress", 0, "UDP", (8000, 8007), &["cnp/default/out"]),
        PolicyEntry {
            block: "192.0.2.0/24".into(),
            ..entry(&[20013, 20020], "Egress", 0xff00_0000, "TCP", (443, 443), &["netpol/default/out"])
        },
        entry(&[20013, 20020], "Egress", 2, "ICMP", (0, 0), &["cnp/default/out"]),
        removed,
    ]
}

fn connections() -> Vec<CtEntry> {
    let connection = |protocol: &str, source: &str, destination: &str, state: &str| CtEntry {
        protocol: protocol.into(),
        source: source.into(),
        destination: destination.into(),
        state: state.into(),
        expires_in: 7995,
        generations: (7, 9),
    };
    let over =
        |expires_in, source| CtEntry { expires_in, ..connection("TCP", source, "10.0.2.5:80", "CLOSING") };
    vec![
        over(-12, "10.0.1.4:41001"),
        over(0, "10.0.1.4:41000"),
        connection("UDP", "10.0.1.4:5353", "10.0.2.5:53", ""),
        connection("TCP", "[fd00:1::4]:41000", "[fd00:1::11]:80", "ESTABLISHED"),
    ]
}

fn translations() -> Vec<NatEntry> {
    let translation = |direction: &str, source: &str, destination: &str, translated: &str| NatEntry {
        protocol: "TCP".into(),
        direction: direction.into(),
        source: source.into(),
        destination: destination.into(),
        translated: translated.into(),
    };
    vec![
        translation("OUT", "10.0.1.4:41000", "198.51.100.1:443", "192.0.2.1:61002"),
        translation("IN", "198.51.100.1:443", "192.0.2.1:61002", "10.0.1.4:41000"),
    ]
}

fn service_entries() -> Vec<ServiceEntry> {
    let entry = |frontend: &str, generation, backends: &[&str]| ServiceEntry {
        frontend: frontend.into(),
        generation,
        count: u32::try_from(backends.len()).expect("there are few"),
        backends: backends.iter().map(ToString::to_string).collect(),
    };
    vec![
        entry("[fd00:10::7]:80/TCP", 4, &["[fd00:1::11]:80"]),
        entry("10.96.0.7:80/TCP", 3, &["10.0.1.17:80", "10.0.2.5:80"]),
        entry("10.96.0.8:53/UDP", 0, &[]),
    ]
}

fn backend_entries() -> Vec<BackendEntry> {
    let entry =
        |generation, index, backend: &str| BackendEntry { generation, index, backend: backend.into() };
    vec![entry(4, 0, "[fd00:1::11]:80"), entry(3, 1, "10.0.2.5:80"), entry(3, 0, "10.0.1.17:80")]
}

fn maglev_entries() -> Vec<MaglevEntry> {
    let share = |backend: &str, entries| MaglevShare { backend: backend.into(), entries };
    let backends = vec![share("10.0.1.17:80", 126), share("10.0.2.5:80", 125)];
    let digest = "8c0ff2d30b2a7f11".to_owned();
    vec![MaglevEntry { frontend: "0.0.0.0:30080/TCP".into(), generation: 3, size: 251, digest, backends }]
}

fn name(fqdn: &str, ip: &str, ttl: i64) -> NameEntry {
    NameEntry { fqdn: fqdn.to_owned(), ip: ip.to_owned(), ttl }
}
