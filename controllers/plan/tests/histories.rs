//! Random histories: what a planner has written after many changes is what a new one would write.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

mod common;

use std::collections::BTreeMap;

use cilium_api::CiliumL2AnnouncementPolicy;
use cilium_api::node_state::DesiredState;
use cilium_api::parts::Part;
use cilium_api::slim::{Pod, Service};
use cilium_plan::{Action, Config, Kind, Object, ObjectKey, Planner};
use common::*;
use proptest::prelude::*;
use serde_json::{Value, json};

#[derive(Clone, Debug)]
enum Step {
    Pod {
        name: usize,
        node: usize,
        labels: usize,
    },
    Relabel {
        name: usize,
        labels: usize,
    },
    Connect {
        name: usize,
    },
    Complete {
        name: usize,
    },
    DeletePod {
        name: usize,
    },
    Namespace {
        name: usize,
        labels: Option<usize>,
    },
    /// There, with addresses of one of three kinds, or not.
    Node {
        name: usize,
        addresses: Option<u8>,
    },
    Service {
        name: usize,
        backends: Option<u8>,
        outside: u8,
    },
    ApiServer {
        place: u8,
    },
    Policy {
        name: usize,
        spec: Option<u64>,
    },
    Group {
        name: usize,
        content: Option<usize>,
        color: bool,
    },
    KubernetesPolicy {
        name: usize,
        spec: Option<usize>,
    },
    OrderedPolicy {
        name: usize,
        spec: Option<usize>,
    },
    Redirect {
        name: usize,
        spec: Option<usize>,
    },
    Announcer {
        name: usize,
        spec: Option<usize>,
    },
    /// A node does not hear these others, as the bits of a number say.
    Deaf {
        node: usize,
        silent: u8,
    },
    Ready {
        name: usize,
        ready: bool,
    },
    /// Somebody deletes what the planner wrote.
    Vandal {
        kind: usize,
        which: prop::sample::Index,
    },
    Deliver {
        kinds: u32,
    },
    Plan {
        fates: u64,
    },
    Report {
        fates: u64,
    },
    Acknowledge {
        node: usize,
    },
    Restart,
    Settle,
    Time {
        seconds: i64,
    },
}

const PODS: [(&str, &str); 8] = [
    ("red", "a"),
    ("red", "b"),
    ("red", "c"),
    ("red", "d"),
    ("blue", "a"),
    ("blue", "b"),
    ("blue", "c"),
    ("blue", "d"),
];
const NODES: [&str; 3] = ["n1", "n2", "n3"];
const LONG: &str = "long=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
const LABELS: [&[&str]; 4] =
    [&["org=empire", "class=deathstar", LONG], &["org=empire", LONG], &["org=alliance"], &[]];
const POLICIES: [(&str, &str); 5] = [("red", "p"), ("red", "q"), ("blue", "p"), ("", "r"), ("", "s")];
const WRITTEN: [Kind; 5] = [Kind::NodeState, Kind::Slice, Kind::Identity, Kind::Endpoint, Kind::CiliumNode];
const ALL_KINDS: [Kind; 18] = [
    Kind::Pod,
    Kind::Namespace,
    Kind::Node,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::NetworkPolicy,
    Kind::ClusterwideNetworkPolicy,
    Kind::CidrGroup,
    Kind::KubernetesNetworkPolicy,
    Kind::ClusterNetworkPolicy,
    Kind::LocalRedirectPolicy,
    Kind::LoadBalancerPool,
    Kind::L2AnnouncementPolicy,
    Kind::Identity,
    Kind::Endpoint,
    Kind::CiliumNode,
    Kind::NodeState,
    Kind::Slice,
];

/// Some hold the API server, or each other, or all there is.
const GROUPS: [&[&str]; 4] =
    [&[], &["172.16.0.0/12", "fd00::/8"], &["172.18.0.0/24", "10.0.0.0/8"], &["0.0.0.0/0", "172.18.0.2/32"]];

fn mk_spec(number: u64) -> Value {
    let subject = json!({"matchLabels": {"org": "empire"}});
    match number {
        0 => rule1(),
        1 => json!({"endpointSelector": {}, "ingress": [{}]}),
        2 => json!({"endpointSelector": subject, "egress": [{"toEntities": ["world", "kube-apiserver"]}]}),
        3 => {
            json!({"endpointSelector": subject, "ingress": [{"fromEntities": ["cluster"]}, {"fromEndpoints": [{}]}]})
        }
        4 => {
            json!({"endpointSelector": subject, "ingress": [{"fromEndpoints": [{"matchLabels": {"org": "alliance"}}]}]})
        }
        // Enough entries for slices of their own.
        5 => {
            let ports = |block: usize| {
                (0..40)
                    .map(|at| json!({"port": format!("{}", 1000 + 100 * block + 2 * at), "protocol": "TCP"}))
                    .collect::<Vec<_>>()
            };
            let entries: Vec<_> = (0..6).map(|block| json!({"toPorts": [{"ports": ports(block)}]})).collect();
            json!({"endpointSelector": {}, "egress": entries})
        }
        // Prefixes, some of them the API server's.
        9 => {
            json!({"endpointSelector": subject, "egress": [{"toCIDRSet": [{"cidr": "172.16.0.0/12", "except": ["172.18.0.0/24"]}]}]})
        }
        10 => {
            json!({"endpointSelector": {}, "enableDefaultDeny": {"egress": false},
                "egressDeny": [{"toCIDR": ["172.18.0.2/32", "10.0.0.0/8", "fd00::/8"]}, {"icmps": [{"fields": [{"type": 8}]}]}],
                "ingress": [{"fromCIDR": ["0.0.0.0/0", "172.18.0.0/24"]}]})
        }
        // Groups of prefixes.
        11 => {
            json!({"endpointSelector": subject, "egress": [{"toCIDRSet": [{"cidrGroupRef": "g", "except": ["172.18.0.0/24"]}]}]})
        }
        12 => {
            json!({"endpointSelector": {}, "egress": [{"toCIDRSet": [{"cidrGroupSelector": {"matchLabels": {"color": "red"}}}]}],
                "ingressDeny": [{"fromCIDRSet": [{"cidrGroupRef": "h"}]}]})
        }
        // Services, by name and by label.
        13 => {
            json!({"endpointSelector": subject, "egress": [{"toServices": [{"k8sService": {"serviceName": "web", "namespace": "red"}}]}]})
        }
        14 => {
            json!({"endpointSelector": {}, "egressDeny": [{"toServices": [{"k8sServiceSelector": {"selector": {}}}]}]})
        }
        // Nodes, as subjects and as peers.
        15 => {
            json!({"nodeSelector": {}, "ingress": [{"fromEntities": ["cluster"]}, {"fromNodes": [{}]}], "egressDeny": [{"toCIDR": ["172.18.0.0/24"]}]})
        }
        16 => {
            json!({"nodeSelector": {"matchLabels": {"reserved:kube-apiserver": ""}}, "egress": [{"toNodes": [{}]}]})
        }
        // Denies, and leaves the rest open or not.
        8 => {
            json!({"endpointSelector": subject, "enableDefaultDeny": {"egress": false},
                "egressDeny": [{"toEntities": ["world"]}], "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"org": "alliance"}}]}]})
        }
        // Invalid, and not supported.
        6 => json!({"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": "99999"}]}]}]}),
        7 => {
            json!({"endpointSelector": {}, "egress": [{"toPorts": [{"ports": [{"port": "80"}], "rules": {"http": [{}]}}]}]})
        }
        // Names, and questions for them.
        17 => {
            json!({"endpointSelector": subject, "egress": [
                {"toFQDNs": [{"matchName": "example.org"}, {"matchPattern": "*.example.org"}]},
                {"toEndpoints": [{}], "toPorts": [{"ports": [{"port": "53"}], "rules": {"dns": [{"matchPattern": "**.org"}]}}]},
            ]})
        }
        _ => mk_any_spec(number),
    }
}

fn mk_kubernetes_spec(number: usize) -> Value {
    let subject = json!({"matchLabels": {"org": "empire"}});
    match number {
        0 => json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        1 => {
            json!({"podSelector": subject, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"org": "alliance"}}}],
            "ports": [{"port": 80}, {"port": 8000, "endPort": 8100, "protocol": "UDP"}]}]})
        }
        2 => {
            json!({"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.2/32"]}},
            {"ipBlock": {"cidr": "172.16.0.0/12"}}, {"podSelector": {}}]}]})
        }
        // One part that is not understood.
        _ => {
            json!({"podSelector": subject, "ingress": [{"from": [{"ipBlock": {"cidr": "fd00::/8"}}, {"ipBlock": {"cidr": "moon"}}]}]})
        }
    }
}

fn mk_ordered_spec(number: usize) -> Value {
    let (all, alliance) =
        (json!({"namespaces": {}}), json!({"namespaces": {"matchLabels": {"org": "alliance"}}}));
    let rule = |action: &str, field: &str, peer: &Value| json!({"action": action, field: [peer]});
    let outside = json!({"networks": ["172.18.0.0/24", "fd00::/8"]});
    match number {
        0 => json!({"tier": "Admin", "priority": 5, "subject": all,
            "ingress": [rule("Pass", "from", &alliance), rule("Deny", "from", &all)]}),
        1 => json!({"tier": "Baseline", "priority": 5, "subject": all,
            "ingress": [rule("Deny", "from", &all)], "egress": [rule("Accept", "to", &outside), rule("Deny", "to", &all)]}),
        2 => {
            json!({"tier": "Admin", "priority": 4, "subject": alliance, "egress": [rule("Deny", "to", &outside)]})
        }
        // One part that is not understood.
        _ => {
            json!({"tier": "Admin", "priority": 6, "subject": all, "egress": [rule("Pass", "to", &json!({"moon": {}}))]})
        }
    }
}

/// Some want the same, and one what a Service has now and then.
fn mk_redirect_spec(number: usize) -> Value {
    let port = |port: &str| json!([{"port": port, "protocol": "TCP"}]);
    let service = |name: &str| json!({"serviceMatcher": {"namespace": "red", "serviceName": name}});
    let address = |ip: &str| json!({"addressMatcher": {"ip": ip, "toPorts": port("80")}});
    let frontend = match number {
        0 => service("web"),
        1 => service("db"),
        2 => address("169.254.169.254"),
        3 => address("192.0.2.80"),
        _ => address("fd00:ffff::1"),
    };
    let selector = json!({"matchLabels": {"org": "empire"}});
    json!({
        "redirectFrontend": frontend, "skipRedirectFromBackend": number.is_multiple_of(2),
        "redirectBackend": {"localEndpointSelector": selector, "toPorts": port("8080")},
    })
}

/// Of the last one, nothing can be read.
fn mk_announcer_spec(number: usize) -> Value {
    let selector = json!({"matchLabels": {"io.kubernetes.service.name": "web"}});
    match number {
        0 => json!({"loadBalancerIPs": true}),
        1 => json!({"externalIPs": true, "interfaces": ["^eth", "^bond0$"]}),
        2 => {
            json!({"loadBalancerIPs": true, "externalIPs": true, "serviceSelector": selector, "interfaces": ["^wlan"]})
        }
        3 => json!({}),
        _ => json!({"loadBalancerIPs": true, "interfaces": ["("]}),
    }
}

fn mk_step() -> impl Strategy<Value = Step> {
    let pod = 0..PODS.len();
    prop_oneof![
        6 => (pod.clone(), 0..3usize, 0..4usize).prop_map(|(name, node, labels)| Step::Pod { name, node, labels }),
        2 => (pod.clone(), 0..4usize).prop_map(|(name, labels)| Step::Relabel { name, labels }),
        3 => pod.clone().prop_map(|name| Step::Connect { name }),
        1 => pod.clone().prop_map(|name| Step::Complete { name }),
        2 => pod.prop_map(|name| Step::DeletePod { name }),
        2 => (0..2usize, prop::option::weighted(0.8, 0..4usize)).prop_map(|(name, labels)| Step::Namespace { name, labels }),
        2 => (0..3usize, prop::option::weighted(0.8, 0..3u8)).prop_map(|(name, addresses)| Step::Node { name, addresses }),
        2 => (0..3usize, prop::option::weighted(0.8, 0..4u8), any::<u8>()).prop_map(|(name, backends, outside)| Step::Service { name, backends, outside }),
        1 => (0..4u8).prop_map(|place| Step::ApiServer { place }),
        6 => (0..5usize, prop::option::weighted(0.8, prop_oneof![0..18u64, any::<u64>()])).prop_map(|(name, spec)| Step::Policy { name, spec }),
        2 => (0..2usize, prop::option::weighted(0.8, 0..GROUPS.len()), any::<bool>()).prop_map(|(name, content, color)| Step::Group { name, content, color }),
        3 => (0..3usize, prop::option::weighted(0.8, 0..4usize)).prop_map(|(name, spec)| Step::KubernetesPolicy { name, spec }),
        2 => (0..2usize, prop::option::weighted(0.8, 0..4usize)).prop_map(|(name, spec)| Step::OrderedPolicy { name, spec }),
        3 => (0..4usize, prop::option::weighted(0.8, 0..5usize)).prop_map(|(name, spec)| Step::Redirect { name, spec }),
        3 => (0..2usize, prop::option::weighted(0.8, 0..5usize)).prop_map(|(name, spec)| Step::Announcer { name, spec }),
        1 => (0..3usize, 0..8u8).prop_map(|(node, silent)| Step::Deaf { node, silent }),
        3 => (0..PODS.len(), prop::bool::weighted(0.8)).prop_map(|(name, ready)| Step::Ready { name, ready }),
        1 => (0..5usize, any::<prop::sample::Index>()).prop_map(|(kind, which)| Step::Vandal { kind, which }),
        8 => any::<u32>().prop_map(|kinds| Step::Deliver { kinds }),
        8 => any::<u64>().prop_map(|fates| Step::Plan { fates }),
        4 => any::<u64>().prop_map(|fates| Step::Report { fates }),
        4 => (0..3usize).prop_map(|node| Step::Acknowledge { node }),
        2 => Just(Step::Restart),
        1 => Just(Step::Settle),
        1 => prop::sample::select(vec![1i64, 900, 1900]).prop_map(|seconds| Step::Time { seconds }),
    ]
}

struct History {
    world: World,
    /// How often a pod or policy was made, for uids and generations.
    made: usize,
    /// Addresses that pods have in their network namespaces, by uid.
    connected: BTreeMap<String, Vec<String>>,
}

fn mk_history() -> History {
    let mut world = World::new(Config {
        identity_gc_interval: 900,
        node_selector_labels: true,
        host_firewall: true,
        local_redirects: true,
        l2_announcements: true,
        ..Config::default()
    });
    for (number, node) in NODES.iter().enumerate() {
        world.apply(mk_node(node, number as u8 + 1));
    }
    world.apply(mk_namespace("red", &[]));
    world.apply(mk_namespace("blue", &["team=blue"]));
    History { world, made: 0, connected: BTreeMap::new() }
}

/// What becomes of a write, by the bits of a number.
fn mk_fates(mut fates: u64) -> impl FnMut(&ObjectKey) -> Fate {
    move |_| {
        fates = fates.rotate_right(3);
        match fates & 7 {
            0 => Fate::Fails,
            1 => Fate::Vanishes,
            _ => Fate::Succeeds,
        }
    }
}

impl History {
    fn pod(&self, name: usize) -> Option<Pod> {
        let (namespace, name) = PODS[name];
        match self.world.store.get(&ObjectKey::namespaced(Kind::Pod, namespace, name)) {
            Some(Object::Pod(pod)) => Some((**pod).clone()),
            _ => None,
        }
    }

    fn step(&mut self, step: &Step) {
        self.made += 1;
        match step {
            Step::Pod { name, node, labels } => {
                let (namespace, pod) = PODS[*name];
                if self.pod(*name).is_none() {
                    let mut pod = mk_pod(namespace, pod, NODES[*node], LABELS[*labels]);
                    pod.metadata.uid = Some(format!("pod-{}", self.made));
                    self.world.apply(pod);
                }
            }
            Step::Relabel { name, labels: new } => {
                if let Some(mut pod) = self.pod(*name) {
                    pod.metadata.labels = Some(mk(labels(LABELS[*new])));
                    self.world.apply(pod);
                }
            }
            Step::Connect { name } => self.connect(*name),
            Step::Complete { name } => {
                if let Some(mut pod) = self.pod(*name) {
                    pod.status.phase = Some("Succeeded".into());
                    self.connected.remove(&pod.metadata.uid.clone().unwrap_or_default());
                    self.world.apply(pod);
                }
            }
            Step::DeletePod { name } => {
                let (namespace, name) = PODS[*name];
                self.world.delete(&ObjectKey::namespaced(Kind::Pod, namespace, name));
            }
            Step::Namespace { name, labels } => self.namespace(["red", "blue"][*name], *labels),
            Step::Node { name, addresses } => self.node(*name, *addresses),
            Step::Service { name, backends, outside } => {
                self.service(["web", "db", "dns"][*name], *backends, *outside);
            }
            Step::ApiServer { place } => self.api_server(*place),
            Step::Group { name, content, color } => self.group(["g", "h"][*name], *content, *color),
            Step::Policy { name, spec } => self.policy(*name, *spec),
            Step::KubernetesPolicy { name, spec } => {
                let (namespace, name) = POLICIES[*name];
                let generation = i64::try_from(self.made).unwrap_or(0);
                match spec.map(mk_kubernetes_spec) {
                    Some(spec) => self.world.apply(mk_netpol(namespace, name, generation, spec)),
                    None => self.world.delete(&ObjectKey::namespaced(
                        Kind::KubernetesNetworkPolicy,
                        namespace,
                        name,
                    )),
                }
            }
            Step::OrderedPolicy { name, spec } => {
                let name = ["a", "b"][*name];
                let generation = i64::try_from(self.made).unwrap_or(0);
                match spec.map(mk_ordered_spec) {
                    Some(spec) => self.world.apply(mk_clusternetpol(name, generation, spec)),
                    None => self.world.delete(&ObjectKey::cluster(Kind::ClusterNetworkPolicy, name)),
                }
            }
            Step::Redirect { name, spec } => {
                let (namespace, name) = [("red", "x"), ("red", "y"), ("red", "z"), ("blue", "x")][*name];
                match spec.map(mk_redirect_spec) {
                    Some(spec) => self.world.apply(mk_redirect(namespace, name, self.made, spec)),
                    None => {
                        self.world.delete(&ObjectKey::namespaced(Kind::LocalRedirectPolicy, namespace, name));
                    }
                }
            }
            Step::Announcer { name, spec } => self.announcer(["p", "q"][*name], *spec),
            Step::Deaf { node, silent } => self.deafen(NODES[*node], *silent),
            Step::Ready { name, ready } => {
                if let Some(pod) = self.pod(*name) {
                    self.world.apply(with_ready(pod, *ready));
                }
            }
            Step::Vandal { kind, which } => {
                let keys = self.world.store.keys(WRITTEN[*kind]);
                if !keys.is_empty() {
                    self.world.delete(&keys[which.index(keys.len())]);
                }
            }
            Step::Deliver { kinds } => {
                let is_picked = |key: &ObjectKey| {
                    let place = ALL_KINDS.iter().position(|kind| *kind == key.kind).unwrap_or(0);
                    kinds >> place & 1 == 1
                };
                for event in self.world.store.take_some_events(is_picked) {
                    event.tell(&mut self.world.planner);
                }
            }
            Step::Plan { fates } => {
                let output = self.world.planner.plan(self.world.now);
                self.world.write_output(&output, &mut mk_fates(*fates));
            }
            Step::Report { fates } => {
                let report = self.world.planner.report(self.world.now);
                self.world.write_report(&report, &mut mk_fates(*fates));
            }
            Step::Acknowledge { node } => drop(acknowledge_node(&mut self.world.store, NODES[*node])),
            Step::Restart => self.world.restart(),
            Step::Settle => {
                self.world.settle();
                self.check_scratch();
            }
            Step::Time { seconds } => self.world.now += seconds,
        }
    }

    fn announcer(&mut self, name: &str, spec: Option<usize>) {
        let key = ObjectKey::cluster(Kind::L2AnnouncementPolicy, name);
        let Some(spec) = spec.map(mk_announcer_spec) else { return self.world.delete(&key) };
        let status = match self.world.store.get(&key) {
            Some(Object::L2AnnouncementPolicy(policy)) => policy.status.clone(),
            _ => None,
        };
        let mut policy: CiliumL2AnnouncementPolicy = mk(json!({
            "apiVersion": "cilium.io/v2alpha1", "kind": "CiliumL2AnnouncementPolicy", "spec": spec,
            "metadata": {"name": name, "generation": self.made},
        }));
        policy.status = status;
        self.world.apply(policy);
    }

    fn deafen(&mut self, node: &str, silent: u8) {
        let Some(Object::NodeState(state)) = self.world.store.get(&ObjectKey::cluster(Kind::NodeState, node))
        else {
            return;
        };
        let mut state = state.clone();
        let Some(applied) = state.status.as_mut().and_then(|status| status.applied.as_mut()) else { return };
        let others = NODES.iter().enumerate().filter(|(at, other)| silent >> at & 1 == 1 && **other != node);
        applied.silent = others.map(|(_, other)| (*other).to_owned()).collect();
        self.world.apply(*state);
    }

    fn group(&mut self, name: &str, content: Option<usize>, color: bool) {
        match content {
            Some(content) => {
                let labels = if color { &["color=red"][..] } else { &[] };
                self.world.apply(mk_group(name, labels, GROUPS[content]));
            }
            None => self.world.delete(&ObjectKey::cluster(Kind::CidrGroup, name)),
        }
    }

    /// The runtime connects a pod with what its node was told; the kubelet reports it.
    fn connect(&mut self, name: usize) {
        let Some(pod) = self.pod(name).filter(|pod| pod.status.phase.as_deref() == Some("Pending")) else {
            return;
        };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let node = pod.spec.node_name.clone().unwrap_or_default();
        let parts = Agent(&self.world.store).node_parts(&node).unwrap_or_default();
        let planned = parts.values().find_map(|part| match part {
            Part::Endpoint(endpoint) if endpoint.uid == uid => Some(endpoint.clone()),
            _ => None,
        });
        let Some(endpoint) = planned else { return };
        let addresses: Vec<String> = endpoint
            .ipv4
            .map(|ip| ip.to_string())
            .into_iter()
            .chain(endpoint.ipv6.map(|ip| ip.to_string()))
            .collect();
        let texts: Vec<&str> = addresses.iter().map(String::as_str).collect();
        self.world.apply(running(pod, &texts));
        self.connected.insert(uid, addresses);
    }

    fn node(&mut self, number: usize, addresses: Option<u8>) {
        let (name, last) = (NODES[number], number as u8 + 1);
        match addresses {
            Some(0) => self.world.apply(mk_node(name, last)),
            Some(kind) => self.world.apply(mk_moved_node(name, last, kind == 1)),
            None => self.world.delete(&ObjectKey::cluster(Kind::Node, name)),
        }
    }

    fn namespace(&mut self, name: &str, labels: Option<usize>) {
        match labels {
            Some(number) => self.world.apply(mk_namespace(name, LABELS[number])),
            None => self.world.delete(&ObjectKey::cluster(Kind::Namespace, name)),
        }
    }

    fn service(&mut self, name: &str, backends: Option<u8>, outside: u8) {
        let Some(backends) = backends else {
            return self.world.delete(&ObjectKey::namespaced(Kind::Service, "red", name));
        };
        let addresses: Vec<String> = (0..backends).map(|last| format!("10.1.0.{}", last + 2)).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut service = mk_service("red", name, "10.96.0.9", 80);
        // Its backends are as they are, but policies go by the selector.
        service.spec.selector = (backends == 3).then(|| mk(labels(&["org=alliance"])));
        open_to_outside(&mut service, outside);
        let mut slice = mk_endpoint_slice("red", name, &addresses, 8080);
        for (number, endpoint) in slice.endpoints.iter_mut().enumerate() {
            endpoint.node_name = Some(NODES[number].to_owned());
            let is_leaving = outside & 0x80 != 0 && number == 1;
            endpoint.conditions =
                mk(json!({"ready": !is_leaving, "serving": true, "terminating": is_leaving}));
        }
        self.world.apply(service);
        self.world.apply(slice);
    }

    fn api_server(&mut self, place: u8) {
        let address = ["172.18.0.2", "192.168.0.1", "192.168.0.2", "10.1.0.2"][usize::from(place)];
        self.world.apply(mk_service("default", "kubernetes", "10.96.0.1", 443));
        self.world.apply(mk_endpoint_slice("default", "kubernetes", &[address], 6443));
    }

    fn policy(&mut self, name: usize, spec: Option<u64>) {
        let (namespace, name) = POLICIES[name];
        let kind = if namespace.is_empty() { Kind::ClusterwideNetworkPolicy } else { Kind::NetworkPolicy };
        let key = ObjectKey::namespaced(kind, namespace, name);
        let generation = i64::try_from(self.made).unwrap_or(0);
        let status = match self.world.store.get(&key) {
            Some(Object::NetworkPolicy(policy)) => policy.status.clone(),
            Some(Object::ClusterwideNetworkPolicy(policy)) => policy.status.clone(),
            _ => None,
        };
        match (spec.map(mk_spec), kind) {
            (None, _) => self.world.delete(&key),
            (Some(spec), Kind::NetworkPolicy) => {
                let mut policy = mk_cnp(namespace, name, generation, spec);
                policy.status = status;
                self.world.apply(policy);
            }
            (Some(spec), _) => {
                let mut policy = mk_ccnp(name, generation, spec);
                policy.status = status;
                self.world.apply(policy);
            }
        }
    }

    /// Connected pods that still are there have, for their nodes, the addresses that they have in fact.
    fn check_connected(&self) {
        for name in 0..PODS.len() {
            let Some(pod) = self.pod(name) else { continue };
            let Some(addresses) = self.connected.get(pod.metadata.uid.as_deref().unwrap_or_default()) else {
                continue;
            };
            let key = endpoint_key(name);
            let Some(Object::Endpoint(endpoint)) = self.world.store.get(&key) else { continue };
            let node = ObjectKey::cluster(Kind::Node, pod.spec.node_name.as_deref().unwrap_or_default());
            if self.world.store.get(&node).is_none() {
                // Which addresses the node may have given is not known.
                continue;
            }
            let pair = &endpoint.status.as_ref().unwrap().networking.as_ref().unwrap().addressing[0];
            let shown: Vec<_> = [&pair.ipv4, &pair.ipv6].into_iter().flatten().cloned().collect();
            assert_eq!(&shown, addresses, "{key} lost its addresses");
        }
    }

    /// A new planner on the same objects finds nothing to write.
    fn check_restart(&self) {
        let mut planner = mk_planner(&self.world.config, self.world.store.objects());
        let output = planner.plan(self.world.now);
        assert_eq!(count_output(&output), 0, "a restart writes {output:#?}");
        let report = planner.report(self.world.now);
        assert_eq!(count_report(&report), 0, "a restart reports {report:#?}");
    }

    /// A planner that sees none of the states and slices writes the same ones, byte for byte.
    fn check_scratch(&self) {
        let is_state = |object: &&Object| match object {
            Object::NodeState(_) => true,
            // What is kept of invalid policies is a record, not derived from the present objects.
            Object::Slice(slice) => {
                !slice.metadata.name.as_ref().is_some_and(|name| name.starts_with("policy."))
            }
            _ => false,
        };
        let objects = self.world.store.objects().filter(|object| !is_state(object));
        let mut planner = mk_planner(&self.world.config, objects);
        let (slices, desired) = created(&mut planner, self.world.now);
        let (mut stored_slices, mut stored_desired) = (BTreeMap::new(), BTreeMap::new());
        for object in self.world.store.objects().filter(is_state) {
            let name = key_of(object).name;
            match object {
                Object::Slice(slice) => drop(stored_slices.insert(name, slice.spec.clone())),
                Object::NodeState(state) => {
                    let desired = state.status.as_ref().and_then(|status| status.desired.clone()).unwrap();
                    stored_desired.insert(name, DesiredState { revision: 0, ..desired });
                }
                _ => {}
            }
        }
        assert_eq!(desired, stored_desired);
        assert_eq!(slices, stored_slices);
    }
}

/// Has a Service met from outside, as the bits of a number say.
fn open_to_outside(service: &mut Service, bits: u8) {
    let has = |bit: u8| bits & 1 << bit != 0;
    let local = |bit| if has(bit) { "Local" } else { "Cluster" };
    let spec = &mut service.spec;
    spec.type_ =
        Some(["ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer"][usize::from(bits & 3)].to_owned());
    spec.ports[0].node_port = (bits & 3 != 0).then_some(30_000 + i32::from(bits & 7));
    spec.external_traffic_policy = Some(local(2).to_owned());
    spec.internal_traffic_policy = Some(local(3).to_owned());
    spec.health_check_node_port = Some(31_000 + i32::from(bits & 7));
    spec.external_ips = if has(4) { vec!["192.0.2.9".to_owned()] } else { Vec::new() };
    spec.load_balancer_source_ranges = match (has(5), has(6)) {
        (false, _) => Vec::new(),
        (true, false) => vec!["moon".to_owned()],
        (true, true) => vec!["198.51.100.0/24".to_owned(), "moon".to_owned()],
    };
    service.status = mk(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.80"}]}}));
}

fn endpoint_key(name: usize) -> ObjectKey {
    ObjectKey::namespaced(Kind::Endpoint, PODS[name].0, PODS[name].1)
}

type Created =
    (BTreeMap<String, cilium_api::node_slice::CiliumNodeStateSliceSpec>, BTreeMap<String, DesiredState>);

fn created(planner: &mut Planner, now: i64) -> Created {
    let output = planner.plan(now);
    let slices = output.slices.into_iter().map(|write| match write.action {
        Action::Create(slice) => (write.key.name, slice.spec),
        other => panic!("{}: {other:?}", write.key),
    });
    let desired = output.node_states.into_iter().map(|write| match write.action {
        Action::Create(content) => (write.key.name, DesiredState { revision: 0, ..content.desired }),
        other => panic!("{}: {other:?}", write.key),
    });
    (slices.collect(), desired.collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400), ..ProptestConfig::default() })]
    #[test]
    fn what_stands_in_the_end_is_what_a_new_planner_would_write(steps in prop::collection::vec(mk_step(), 1..80)) {
        let mut history = mk_history();
        for step in &steps {
            history.step(step);
        }
        history.world.settle();
        history.check_connected();
        history.check_restart();
        history.check_scratch();
    }
}
