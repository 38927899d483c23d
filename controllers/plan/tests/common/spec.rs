//! Policies from a number, of every kind that the planner knows.

use serde_json::{Value, json};

/// Takes choices out of a number, one after the other.
struct Choices(u64);

impl Choices {
    /// Less than `end`.
    fn below(&mut self, end: usize) -> usize {
        // Knuth's constants for a linear congruential generator; the high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % end
    }

    fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }

    fn list(&mut self, end: usize, make: fn(&mut Self) -> Value) -> Vec<Value> {
        (0..1 + self.below(end)).map(|_| make(self)).collect()
    }
}

const LABELS: [(&str, &str); 7] = [
    ("org", "empire"),
    ("org", "alliance"),
    ("k8s:class", "deathstar"),
    ("io.kubernetes.pod.namespace", "red"),
    ("k8s:io.kubernetes.pod.namespace", "blue"),
    ("k8s:io.cilium.k8s.namespace.labels.org", "empire"),
    ("io.cilium.k8s.namespace.labels.team", "blue"),
];

fn selector(choices: &mut Choices) -> Value {
    let (key, value) = LABELS[choices.below(LABELS.len())];
    match choices.below(6) {
        0 => json!({}),
        1..=3 => json!({"matchLabels": {key: value}}),
        4 => json!({"matchExpressions": [{"key": key, "operator": "NotIn", "values": [value]}]}),
        _ => {
            json!({"matchExpressions": [{"key": key, "operator": choices.pick(&["Exists", "DoesNotExist"])}]})
        }
    }
}

fn entity(choices: &mut Choices) -> Value {
    choices.pick(&["all", "world", "cluster", "host", "remote-node", "kube-apiserver", "init"]).into()
}

fn prefix(choices: &mut Choices) -> Value {
    choices
        .pick(&[
            "0.0.0.0/0",
            "172.16.0.0/12",
            "172.18.0.0/24",
            "172.18.0.2/32",
            "10.0.0.0/8",
            "::/0",
            "fd00::/8",
        ])
        .into()
}

fn prefix_set(choices: &mut Choices) -> Value {
    match choices.below(3) {
        0 => json!({"cidr": "172.16.0.0/12", "except": ["172.18.0.0/24"]}),
        1 => json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.18.0.2/32"]}),
        _ => json!({"cidr": "::/0", "except": ["fd00::/8"]}),
    }
}

fn port(choices: &mut Choices) -> Value {
    let first = choices.below(5) * 20 + 1;
    let mut port =
        json!({"port": first.to_string(), "protocol": choices.pick(&["TCP", "UDP", "SCTP", "ANY"])});
    if choices.below(3) == 0 {
        port["endPort"] = (first + choices.below(100)).into();
    }
    port
}

fn message(choices: &mut Choices) -> Value {
    let (family, number) = [("IPv4", 8), ("IPv4", 0), ("IPv6", 128)][choices.below(3)];
    json!({"family": family, "type": number})
}

fn entry(choices: &mut Choices, word: &str) -> Value {
    let mut entry = json!({});
    if choices.below(8) > 0 {
        let (name, list) = match choices.below(4) {
            0 => ("Endpoints", choices.list(3, selector)),
            1 => ("Entities", choices.list(3, entity)),
            2 => ("CIDR", choices.list(3, prefix)),
            _ => ("CIDRSet", choices.list(3, prefix_set)),
        };
        entry[format!("{word}{name}")] = list.into();
    }
    match choices.below(4) {
        0 => entry["toPorts"] = json!([{"ports": choices.list(3, port)}]),
        1 => entry["icmps"] = json!([{"fields": choices.list(2, message)}]),
        _ => {}
    }
    entry
}

/// A policy's spec; the same number gives the same one. It is valid.
pub fn mk_any_spec(number: u64) -> Value {
    let mut choices = Choices(number);
    let mut spec = json!({"endpointSelector": selector(&mut choices)});
    for (field, word) in
        [("ingress", "from"), ("egress", "to"), ("ingressDeny", "from"), ("egressDeny", "to")]
    {
        if choices.below(2) == 0 {
            let entries: Vec<Value> = (0..choices.below(3)).map(|_| entry(&mut choices, word)).collect();
            spec[field] = entries.into();
        }
    }
    if choices.below(4) == 0 {
        spec["enableDefaultDeny"] =
            json!({"ingress": choices.below(2) == 0, "egress": choices.below(2) == 0});
    }
    spec
}
