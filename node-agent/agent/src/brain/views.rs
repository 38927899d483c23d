//! What `cilium-dbg` lists.

use std::collections::{BTreeMap, HashMap};

use cilium_api::parts::{Direction, DnsRule, Entry, NamedPeer, Note, Part, PartKey, Policy, Step};
use cilium_bpf::layout::{DIRECTION_EGRESS, DIRECTION_INGRESS, Event};
use cilium_bpf::reason::DropReason;
use cilium_dataplane::{Planned, Unready, logs_of, origins_of};
use cilium_rest::model;
use serde_json::json;

use super::Brain;
use crate::describe;

/// For each generation of policy in force: the identities that use it, and the policies behind each cookie.
pub(crate) type Generations = HashMap<u32, (Vec<u32>, HashMap<u32, Vec<String>>)>;

impl Brain {
    /// Addresses of Services that are announced, as they stand now.
    pub(crate) fn announcements(&self) -> tokio::sync::oneshot::Receiver<Vec<model::Announcement>> {
        self.outside.announcements.list()
    }

    /// All endpoints, by number.
    pub(crate) fn endpoints(&self) -> Vec<model::Endpoint> {
        let mut found: BTreeMap<u16, model::Endpoint> = BTreeMap::new();
        let Some(running) = &self.running else { return Vec::new() };
        for (key, part) in self.state.iter() {
            if let Part::Endpoint(part) = part
                && let Some((_, planned)) = running.dataplane.planned_by_id(part.id)
            {
                found.insert(part.id, self.endpoint(key, planned));
            }
        }
        for (id, link) in self.links.iter() {
            found.entry(id).or_insert_with(|| unplanned(id, link));
        }
        found.into_values().collect()
    }

    fn endpoint(&self, key: &PartKey, planned: &Planned) -> model::Endpoint {
        let (namespace, pod) = key.0.trim_start_matches("endpoint/").split_once('/').unwrap_or_default();
        let link = self.links.get(planned.id).filter(|link| link.k8s_uid == planned.uid);
        let ready =
            self.running.as_ref().map_or(Err(Unready::Plan), |running| running.dataplane.ready(planned.id));
        let state = match ready {
            Ok(()) => "ready",
            Err(Unready::Link) => "creating",
            Err(_) => "not-ready",
        };
        let mut status = model::EndpointStatus {
            state: state.to_owned(),
            identity: Some(model::EndpointIdentity {
                id: planned.identity.into(),
                labels: self.labels(planned.identity),
            }),
            policy: self.realized(planned.identity),
            failures: ready.err().map(|why| why.to_string()).into_iter().collect(),
            ..model::EndpointStatus::default()
        };
        status.external_identifiers.k8s_namespace = namespace.to_owned();
        status.external_identifiers.k8s_pod_name = pod.to_owned();
        status.external_identifiers.pod_name = format!("{namespace}/{pod}");
        let ip = |v4: bool| {
            let address = planned.addresses.iter().find(|address| address.is_ipv4() == v4);
            address.map(ToString::to_string).unwrap_or_default()
        };
        status.networking.addressing = vec![model::AddressPair { ipv4: ip(true), ipv6: ip(false) }];
        if let Some(link) = link {
            describe_link(&mut status, link);
        }
        model::Endpoint { id: planned.id.into(), status }
    }

    fn labels(&self, identity: u32) -> Vec<String> {
        match self.state.get(&PartKey::identity(identity)) {
            Some(Part::Identity(part)) => part.labels.clone(),
            _ => {
                describe::reserved(identity).map(|name| vec![format!("reserved:{name}")]).unwrap_or_default()
            }
        }
    }

    fn realized(&self, identity: u32) -> model::EndpointPolicy {
        let policy = self.running.as_ref().and_then(|running| running.dataplane.policy(identity));
        let realized = policy.map(|(generation, compiled)| model::RealizedPolicy {
            policy_enabled: match (compiled.ingress, compiled.egress) {
                (false, false) => "none",
                (true, false) => "ingress",
                (false, true) => "egress",
                (true, true) => "both",
            }
            .to_owned(),
            policy_revision: generation.into(),
            entries: i64::try_from(compiled.rules.len()).unwrap_or(i64::MAX),
        });
        model::EndpointPolicy { realized: realized.unwrap_or_default() }
    }

    /// All identities that the node knows of: the reserved ones, those of the cluster, and its own, of addresses with names.
    pub(crate) fn identities(&self) -> Vec<model::Identity> {
        let mut all: BTreeMap<i64, Vec<String>> = describe::RESERVED
            .iter()
            .map(|(number, name)| (i64::from(*number), vec![format!("reserved:{name}")]))
            .collect();
        for (key, part) in self.state.iter() {
            if let (Part::Identity(part), Some(Ok(number))) =
                (part, key.0.strip_prefix("identity/").map(str::parse))
            {
                all.insert(number, part.labels.clone());
            }
        }
        let named = self.running.iter().flat_map(|running| running.dataplane.named_identities());
        for (number, base, patterns) in named {
            let names = patterns.iter().map(|pattern| format!("fqdn:{pattern}"));
            all.insert(number.into(), names.chain(self.labels(base)).collect());
        }
        all.into_iter().map(|(id, labels)| model::Identity { id, labels }).collect()
    }

    /// Compiled policies of the identities with endpoints on this node.
    pub(crate) fn policies(&self) -> model::Policy {
        let policy = |(key, part): (&PartKey, &Part)| match part {
            Part::Policy(policy) => {
                let identity: u32 = key.0.strip_prefix("policy/")?.parse().ok()?;
                let mut shown = json!({
                    "identity": identity,
                    "labels": self.labels(identity),
                    "ingress": direction(policy, &policy.ingress),
                    "egress": direction(policy, &policy.egress),
                    "dns": policy.dns.iter().map(|rule| dns_rule(policy, rule)).collect::<Vec<_>>(),
                    "names": policy.names.iter().map(|peer| named_peer(policy, peer)).collect::<Vec<_>>(),
                });
                if let (Some(notes), Some(fields)) = (notes(policy), shown.as_object_mut()) {
                    fields.insert("rules".to_owned(), notes);
                }
                Some(shown)
            }
            _ => None,
        };
        let list: Vec<serde_json::Value> = self.state.iter().filter_map(policy).collect();
        model::Policy {
            policy: format!("{:#}", serde_json::Value::from(list)),
            revision: self.state.accepted().map_or(0, |accepted| accepted.revision),
        }
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> model::ClusterNodes {
        let node = |(key, part): (&PartKey, &Part)| match part {
            Part::Node(node) => Some(model::ClusterNode {
                name: key.0.trim_start_matches("node/").to_owned(),
                addresses: node.addresses.iter().map(|ip| model::Address { ip: ip.to_string() }).collect(),
                pod_cidrs: node.pod_cidrs.clone(),
            }),
            _ => None,
        };
        model::ClusterNodes {
            own: self.settings.node.clone(),
            nodes_added: self.state.iter().filter_map(node).collect(),
        }
    }

    /// Policies by generation.
    pub(crate) fn generations(&self) -> Generations {
        let mut generations: Generations = HashMap::new();
        let Some(running) = &self.running else { return generations };
        for (key, part) in self.state.iter() {
            if let (Part::Policy(policy), Some(Ok(identity))) =
                (part, key.0.strip_prefix("policy/").map(str::parse))
                && let Some((generation, compiled)) = running.dataplane.policy(identity)
            {
                let policy = &running.dataplane.expand(policy);
                let entry = generations.entry(generation).or_default();
                entry.0.push(identity);
                for (_, rule) in &compiled.rules {
                    let names = || origins_of(policy, rule.cookie).into_iter().map(str::to_owned).collect();
                    entry.1.entry(rule.cookie).or_insert_with(names);
                }
            }
        }
        generations
    }

    /// An event in words.
    pub(crate) fn describe(&self, event: &Event) -> model::Event {
        let running = self.running.as_ref();
        let planned = running.and_then(|running| running.dataplane.planned_by_id(event.endpoint));
        let policy = planned.and_then(|(_, planned)| self.state.get(&PartKey::policy(planned.identity)));
        let Some(Part::Policy(policy)) = policy else { return describe::event(event, "", Vec::new()) };
        let expanded = running.map(|running| running.dataplane.expand(policy));
        let policy = expanded.as_ref().unwrap_or(policy);
        let logs = logs_of(policy, event.cookie).into_iter().map(str::to_owned).collect();
        describe::event(event, &deciding(policy, event).join(", "), logs)
    }
}

/// The policies behind an event: those of the entry that decided, or those that close the direction if none did.
fn deciding<'a>(policy: &'a Policy, event: &Event) -> Vec<&'a str> {
    if event.cookie != 0 {
        return origins_of(policy, event.cookie);
    }
    let closed_by = match (DropReason::from_number(event.reason), event.direction) {
        (Some(DropReason::PolicyDenied), DIRECTION_INGRESS) => &policy.ingress.closed_by,
        (Some(DropReason::PolicyDenied), DIRECTION_EGRESS) => &policy.egress.closed_by,
        _ => return Vec::new(),
    };
    policy.origin_names(closed_by.iter().copied())
}

/// A pod that is linked, but not planned any more.
fn unplanned(id: u16, link: &model::EndpointChange) -> model::Endpoint {
    let mut status = model::EndpointStatus {
        state: "waiting-for-identity".to_owned(),
        failures: vec!["it is not planned".to_owned()],
        ..model::EndpointStatus::default()
    };
    status.external_identifiers.k8s_namespace.clone_from(&link.k8s_namespace);
    status.external_identifiers.k8s_pod_name.clone_from(&link.k8s_pod_name);
    status.external_identifiers.pod_name = format!("{}/{}", link.k8s_namespace, link.k8s_pod_name);
    describe_link(&mut status, link);
    model::Endpoint { id: id.into(), status }
}

fn describe_link(status: &mut model::EndpointStatus, link: &model::EndpointChange) {
    let names = &mut status.external_identifiers;
    names.cni_attachment_id = link.attachment();
    names.container_id.clone_from(&link.container_id);
    let networking = &mut status.networking;
    networking.container_interface_name.clone_from(&link.container_interface_name);
    networking.interface_name.clone_from(&link.interface_name);
    networking.interface_index = link.interface_index.into();
    networking.mac.clone_from(&link.mac);
    networking.host_mac.clone_from(&link.host_mac);
}

fn origins(policy: &Policy, indexes: &[u16]) -> Vec<String> {
    policy.origin_names(indexes.iter().copied()).into_iter().map(str::to_owned).collect()
}

/// What rules say of themselves, with the policy that they are of; nothing where none says anything.
fn notes(policy: &Policy) -> Option<serde_json::Value> {
    let note = |(at, note): (&u16, &Note)| {
        let origin = policy.origins.get(usize::from(*at));
        json!({ "origin": origin, "labels": note.labels, "log": note.log })
    };
    let list: Vec<serde_json::Value> = policy.notes.iter().map(note).collect();
    (!list.is_empty()).then(|| list.into())
}

fn dns_rule(policy: &Policy, rule: &DnsRule) -> serde_json::Value {
    json!({
        "peer": rule.peer,
        "protocol": describe::protocol(rule.protocol),
        "ports": describe::ports(rule.port, rule.port),
        "patterns": rule.patterns,
        "origins": origins(policy, &rule.origins),
    })
}

fn named_peer(policy: &Policy, peer: &NamedPeer) -> serde_json::Value {
    json!({
        "pattern": peer.pattern,
        "protocol": describe::protocol(peer.protocol),
        "ports": describe::ports(peer.first, peer.last),
        "origins": origins(policy, &peer.origins),
    })
}

fn direction(policy: &Policy, direction: &Direction) -> serde_json::Value {
    let entry = |entry: &Entry| {
        json!({
            "peer": entry.peer,
            "protocol": describe::protocol(entry.protocol),
            "ports": describe::ports(entry.first, entry.last),
            "origins": origins(policy, &entry.origins),
        })
    };
    let list = |entries: &[Entry]| entries.iter().map(entry).collect::<Vec<_>>();
    let step = |step: &Step| {
        let names: Vec<_> = step.names.iter().map(|peer| named_peer(policy, peer)).collect();
        json!({ "action": step.action, "entries": list(&step.entries), "names": names })
    };
    let steps = |steps: &[Step]| steps.iter().map(step).collect::<Vec<_>>();
    json!({
        "enforced": direction.enforced,
        "closedBy": origins(policy, &direction.closed_by),
        "admin": steps(&direction.admin),
        "allow": list(&direction.allow),
        "deny": list(&direction.deny),
        "baseline": steps(&direction.baseline),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_policy() -> Policy {
        let allow = Entry { peer: 7, protocol: 6, first: 80, last: 80, origins: vec![1] };
        let ingress =
            Direction { enforced: true, closed_by: vec![0, 1], allow: vec![allow], ..Direction::default() };
        let origins = ["ccnp/closed", "cnp/default/rule1"].map(str::to_owned).into();
        Policy { ingress, origins, ..Policy::default() }
    }

    #[test]
    fn every_decision_has_its_policies() {
        let policy = mk_policy();
        let denied = DropReason::PolicyDenied.number();
        let default_deny = Event { reason: denied, direction: DIRECTION_INGRESS, ..Event::default() };
        assert_eq!(deciding(&policy, &default_deny), ["ccnp/closed", "cnp/default/rule1"]);
        assert!(deciding(&policy, &Event { direction: DIRECTION_EGRESS, ..default_deny }).is_empty());
        let cookie = cilium_dataplane::cookie(["cnp/default/rule1"].into_iter());
        let granted = Event { cookie, direction: DIRECTION_INGRESS, ..Event::default() };
        assert_eq!(deciding(&policy, &granted), ["cnp/default/rule1"]);
        assert!(logs_of(&policy, cookie).is_empty());
        let mut noted = policy.clone();
        noted.notes.insert(1, Note { log: "payments".into(), labels: vec!["k8s:team=shop".into()] });
        let cookie = cilium_dataplane::cookie(["cnp/default/rule1", "payments"].into_iter());
        assert_eq!(deciding(&noted, &Event { cookie, ..granted }), ["cnp/default/rule1"]);
        assert_eq!(logs_of(&noted, cookie), ["payments"]);
        assert_eq!((deciding(&noted, &default_deny).len(), logs_of(&noted, 0).len()), (2, 0));
        let shown = json!([{"origin": "cnp/default/rule1", "labels": ["k8s:team=shop"], "log": "payments"}]);
        assert_eq!((notes(&policy), notes(&noted)), (None, Some(shown)));
        let other = Event { reason: DropReason::InvalidSourceIp.number(), ..default_deny };
        assert!(deciding(&policy, &other).is_empty());
    }
}
