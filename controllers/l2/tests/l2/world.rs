//! Objects of tests, and what is decided about them.

use std::net::IpAddr;

use cilium_api::parts::{self, Announcement, Backend, BackendPlace, ServicePort};
use cilium_core::{Label, Labels};
use cilium_l2::{Claim, L2, Policy, Served};
use cilium_services::ServiceName;
use serde_json::{Value, json};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn mk_policy(spec: Value) -> Policy {
    let object = json!({
        "apiVersion": "cilium.io/v2alpha1", "kind": "CiliumL2AnnouncementPolicy", "metadata": {"name": "x"}, "spec": spec,
    });
    Policy::reduce(&serde_json::from_value(object).unwrap())
}

pub(crate) fn mk_claim(name: &str, app: &str, class: Option<&str>) -> Option<Claim> {
    let object = json!({
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": app}}, "spec": {"loadBalancerClass": class},
    });
    Claim::reduce(&serde_json::from_value(object).unwrap())
}

/// A Service with these addresses of the load balancer and external ones.
pub(crate) fn mk_part(balanced: &[&str], external: &[&str]) -> parts::Service {
    let parse = |texts: &[&str]| texts.iter().map(|text| ip(text)).collect();
    parts::Service { load_balancer: parse(balanced), external: parse(external), ..parts::Service::default() }
}

/// The same with `externalTrafficPolicy: Local` and IPv4 backends on these nodes; a `-` before the name: on its way out.
pub(crate) fn local(mut part: parts::Service, nodes: &[&str]) -> parts::Service {
    let backend = |(number, node): (u8, &&str)| {
        let place = BackendPlace {
            node: node.trim_start_matches('-').to_owned(),
            leaving: node.starts_with('-'),
            ..BackendPlace::default()
        };
        Backend { address: IpAddr::from([10, 0, 0, number]), port: 80, place: Some(Box::new(place)) }
    };
    let backends = (1..).zip(nodes).map(backend).collect();
    part.external_local = true;
    part.ports = vec![ServicePort { name: String::new(), protocol: 6, port: 80, node_port: 0, backends }];
    part
}

pub(crate) fn name(name: &str) -> ServiceName {
    ServiceName::new("shop", name)
}

pub(crate) fn mk_labels(texts: &[(&str, &str)]) -> Labels {
    texts.iter().map(|(key, value)| Label::k8s(key, value)).collect()
}

/// Nodes `a` to `c`, and the policy `p`.
pub(crate) fn mk_l2(spec: Value) -> L2 {
    let mut l2 = L2::default();
    for node in ["a", "b", "c"] {
        l2.set_node(node, Some(mk_labels(&[("name", node)])));
    }
    l2.set_policy("p", Some(mk_policy(spec)));
    l2
}

pub(crate) fn set(l2: &mut L2, service: &str, app: &str, part: &parts::Service) {
    l2.set_claim(&name(service), mk_claim(service, app, None));
    l2.set_served(&name(service), Some(Served::reduce(part)));
}

/// Plans, and says what the first owner of an address has; `None` if nobody owns it.
pub(crate) fn announced(l2: &mut L2, address: &str) -> Option<Announcement> {
    l2.plan();
    assert_eq!(l2.check(), [""; 0]);
    let address = ip(address);
    let mut all = ["a", "b", "c"].into_iter().filter_map(|node| l2.announcement(address, node));
    let first = all.next()?;
    assert!(all.all(|other| (&other.owners, &other.services) == (&first.owners, &first.services)));
    let owner = first.owners.first()?;
    l2.announcement(address, owner)
}

/// Owners in the order of their names.
pub(crate) fn owners(l2: &mut L2, address: &str) -> Vec<String> {
    let mut owners = announced(l2, address).map(|it| it.owners).unwrap_or_default();
    owners.sort_unstable();
    owners
}
