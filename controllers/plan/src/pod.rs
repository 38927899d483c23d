//! Pods, reduced.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cilium_api::endpoint::NamedPort;
use cilium_api::parts::HostPort;
use cilium_api::slim;
use cilium_core::named_port;
use cilium_ipam::Request;

/// A pod that has, or shall have, an endpoint: bound, with a network of its own, not at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) node: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) service_account: String,
    /// In the order of their names.
    pub(crate) named_ports: Vec<NamedPort>,
    /// Sorted, without duplicates.
    pub(crate) host_ports: Vec<HostPort>,
    /// What the kubelet reports: not empty once the pod is connected.
    pub(crate) addresses: Vec<IpAddr>,
    /// Pools that it asks for. Boxed, as few do.
    pub(crate) request: Option<Box<Request>>,
    /// It takes connections, and is not on its way out.
    pub(crate) is_ready: bool,
}

impl Pod {
    /// Its named ports, as far as policies can ask for them.
    pub(crate) fn ports(&self) -> Vec<named_port::NamedPort> {
        let read = |port: &NamedPort| {
            let (name, protocol) = (port.name.as_deref()?, port.protocol.as_deref()?);
            named_port::NamedPort::new(name, protocol, port.port?)
        };
        self.named_ports.iter().filter_map(read).collect()
    }

    /// Whether another version of the pod has the same endpoint.
    pub(crate) fn has_same_endpoint(&self, other: &Self) -> bool {
        let Self {
            uid,
            node,
            labels,
            service_account,
            named_ports,
            host_ports,
            addresses,
            request,
            is_ready: _,
        } = self;
        (uid, node, labels) == (&other.uid, &other.node, &other.labels)
            && (service_account, named_ports) == (&other.service_account, &other.named_ports)
            && (host_ports, addresses, request) == (&other.host_ports, &other.addresses, &other.request)
    }

    /// `None`: no endpoint.
    pub(crate) fn reduce(pod: &slim::Pod) -> Option<Self> {
        let over = matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if over || pod.spec.host_network.unwrap_or(false) {
            return None;
        }
        let node = pod.spec.node_name.clone().filter(|node| !node.is_empty())?;
        let account = pod.spec.service_account_name.as_deref().filter(|name| !name.is_empty());
        Some(Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            node,
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            service_account: account.unwrap_or("default").to_owned(),
            named_ports: named_ports(&pod.spec.containers),
            host_ports: host_ports(&pod.spec.containers),
            addresses: pod.status.pod_ips.iter().filter_map(|ip| ip.ip.parse().ok()).collect(),
            request: Request::read(pod.metadata.annotations.as_ref()).map(Box::new),
            is_ready: is_ready(pod),
        })
    }
}

/// A pod that is being deleted stays ready until its containers end (Kubernetes API, "pod lifecycle"): who comes now would soon be alone.
fn is_ready(pod: &slim::Pod) -> bool {
    let mut conditions = pod.status.conditions.iter();
    conditions.any(|it| it.type_ == "Ready" && it.status == "True")
        && pod.metadata.deletion_timestamp.is_none()
}

fn named_ports(containers: &[slim::Container]) -> Vec<NamedPort> {
    let ports = containers.iter().flat_map(|container| &container.ports);
    let named = ports.filter_map(|port| {
        let name = port.name.as_ref().filter(|name| !name.is_empty())?;
        Some(NamedPort {
            name: Some(name.clone()),
            port: Some(i64::from(port.container_port)),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        })
    });
    let mut named: Vec<_> = named.collect();
    named.sort();
    named
}

/// An address that cannot be read is none that the node has, so nothing may lead to it.
fn host_ports(containers: &[slim::Container]) -> Vec<HostPort> {
    let read = |port: &slim::ContainerPort| {
        let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => 6,
            "UDP" => 17,
            "SCTP" => 132,
            _ => return None,
        };
        let number = |number: i32| u16::try_from(number).ok().filter(|number| *number != 0);
        let address: Option<IpAddr> =
            port.host_ip.as_deref().filter(|ip| !ip.is_empty()).map(str::parse).transpose().ok()?;
        Some(HostPort {
            protocol,
            port: number(port.host_port?)?,
            address: address.filter(|ip| !ip.is_unspecified()),
            target: number(port.container_port)?,
        })
    };
    let mut ports: Vec<_> =
        containers.iter().flat_map(|container| &container.ports).filter_map(read).collect();
    ports.sort();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn reduce(spec: &Value, status: &Value) -> Option<Pod> {
        let pod = json!({"metadata": {"uid": "u"}, "spec": spec, "status": status});
        Pod::reduce(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn only_bound_living_pods_with_a_network_of_their_own_count() {
        let bound = json!({"nodeName": "a"});
        assert!(reduce(&bound, &json!({})).is_some());
        assert!(reduce(&bound, &json!({"phase": "Running"})).is_some());
        for phase in ["Succeeded", "Failed"] {
            assert_eq!(reduce(&bound, &json!({"phase": phase})), None, "{phase}");
        }
        for spec in [json!({}), json!({"nodeName": ""}), json!({"nodeName": "a", "hostNetwork": true})] {
            assert_eq!(reduce(&spec, &json!({})), None, "{spec}");
        }
    }

    #[test]
    fn ports_of_the_node_are_read() {
        let containers = json!([
            {"ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]},
            {"ports": [
                {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "127.0.0.1"},
                {"containerPort": 82, "hostPort": 8082, "hostIP": "0.0.0.0"},
                {"containerPort": 83, "hostPort": 8083, "hostIP": "nowhere"},
                {"containerPort": 84, "hostPort": 70000},
            ]},
        ]);
        let pod = reduce(&json!({"nodeName": "a", "containers": containers}), &json!({})).unwrap();
        let mk = |protocol, port, address: Option<&str>, target| HostPort {
            protocol,
            port,
            address: address.map(|ip| ip.parse().unwrap()),
            target,
        };
        let expected = [mk(6, 8080, None, 80), mk(6, 8082, None, 82), mk(17, 53, Some("127.0.0.1"), 53)];
        assert_eq!(pod.host_ports, expected);
    }

    #[test]
    fn ports_with_names_are_kept_in_order() {
        let containers = json!([
            {"ports": [{"name": "web", "containerPort": 80}, {"containerPort": 81}]},
            {"ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
        ]);
        let pod = reduce(&json!({"nodeName": "a", "containers": containers}), &json!({})).unwrap();
        let names: Vec<_> =
            pod.named_ports.iter().map(|p| (p.name.as_deref(), p.protocol.as_deref())).collect();
        assert_eq!(names, [(Some("dns"), Some("UDP")), (Some("web"), Some("TCP"))]);
        assert_eq!(pod.service_account, "default");
    }
}
