//! What an operator would write.

use cilium_api::digest::{digest, encode};
use cilium_api::node_slice::CiliumNodeStateSliceSpec;
use cilium_api::node_state::DesiredState;
use cilium_api::parts::{
    Address, Direction, Endpoint, Entry, FORMAT_VERSION, Identity, Node, Part, PartKey, Parts, Policy,
    Service, ServicePort,
};

pub(crate) const NODE: &str = "n1";

/// Numbers of pods are their endpoint's; pod 5 has identity 1005 and addresses ending in 15.
pub(crate) fn mk_endpoint(id: u16) -> (PartKey, Part) {
    let endpoint = Endpoint {
        uid: format!("uid-{id}"),
        id,
        identity: 1000 + u32::from(id),
        ipv4: Some(address4(id)),
        ipv6: Some(format!("fd00:10:244:1::{}", 10 + id).parse().expect("an address")),
        ..Endpoint::default()
    };
    (PartKey::endpoint("default", &format!("pod-{id}")), Part::Endpoint(endpoint))
}

pub(crate) fn address4(id: u16) -> std::net::Ipv4Addr {
    format!("10.244.1.{}", 10 + id).parse().expect("an address")
}

/// Pod `to` takes UDP on `port` from pod `from`, and nothing else.
pub(crate) fn mk_policy(to: u16, from: u16, port: u16) -> (PartKey, Part) {
    let allow =
        Entry { peer: 1000 + u32::from(from), protocol: 17, first: port, last: port, origins: vec![0] };
    // As the operator has it for the kubelet's probes.
    let host = Entry { peer: 1, protocol: 0, first: 0, last: 0, origins: vec![] };
    let ingress = Direction { enforced: true, allow: vec![host, allow], ..Direction::default() };
    let policy = Policy { ingress, origins: vec!["cnp/default/rule1".into()], ..Policy::default() };
    (PartKey::policy(1000 + u32::from(to)), Part::Policy(Box::new(policy)))
}

/// Shared parts: the node, identities and addresses of pods, and a Service whose backend is pod 2.
pub(crate) fn mk_shared(pods: impl IntoIterator<Item = u16>) -> Parts {
    let ip = |text: &str| text.parse().expect("an address");
    let node = Node {
        addresses: vec![ip("192.0.2.1"), ip("2001:db8::1")],
        pod_cidrs: vec!["10.244.1.0/24".into(), "fd00:10:244:1::/64".into()],
        api_server: false,
        identity: None,
        zone: String::new(),
        routers: Vec::new(),
    };
    let port = ServicePort {
        name: String::new(),
        protocol: 6,
        port: 80,
        node_port: 0,
        backends: vec![(address4(2).into(), 8080).into()],
    };
    let service = Service { cluster_ips: vec![ip("10.96.0.1")], ports: vec![port], ..Service::default() };
    let mut parts = Parts::from([
        (PartKey::node(NODE), Part::Node(node)),
        (PartKey::service("default", "echo"), Part::Service(service)),
    ]);
    for id in pods {
        let identity = 1000 + u32::from(id);
        let address = Address { identity, node: Some(NODE.into()) };
        parts.insert(PartKey::address(address4(id).into()), Part::Address(address));
        let labels = vec![format!("k8s:app=pod-{id}"), "k8s:io.kubernetes.pod.namespace=default".into()];
        parts.insert(PartKey::identity(identity), Part::Identity(Identity { labels }));
    }
    parts
}

pub(crate) fn mk_spec(parts: &Parts) -> CiliumNodeStateSliceSpec {
    let data = encode(parts).expect("parts encode");
    let count = i64::try_from(parts.len()).expect("few");
    CiliumNodeStateSliceSpec { format: FORMAT_VERSION, count, digest: digest(data.as_bytes()), data }
}

pub(crate) fn mk_state(revision: i64, parts: &Parts) -> DesiredState {
    let spec = mk_spec(parts);
    DesiredState {
        format: FORMAT_VERSION,
        revision,
        digest: spec.digest,
        inline: Some(spec.data),
        slices: vec![],
    }
}
