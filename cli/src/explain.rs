//! `cilium policy explain`.

use std::net::IpAddr;

use anyhow::{Context as _, bail, ensure};
use cilium_core::NamePattern;
use cilium_core::name::absolute;
use cilium_plan::{End, Explained, Planner};
use cilium_policy::{Decision, Miss, Missed, Place, Reason};
use cilium_print::output::{encode, print};
use cilium_print::table::{Line, align, line};
use serde::Serialize;

use crate::args::{Cli, ExplainArgs, Port, Target};
use crate::cluster::{self, Cluster};
use crate::name;

/// The answer to one question, as it is printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    /// Sender.
    pub(crate) from: Party,
    /// Receiver.
    pub(crate) to: Party,
    /// Destination port and protocol.
    pub(crate) port: String,
    /// `allowed` or `denied`.
    pub(crate) verdict: &'static str,
    /// Whether the sender may ask for the name that it sends to; absent if that makes no difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) question: Option<Said>,
    /// What the sender's side says; absent if it is no pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) egress: Option<Said>,
    /// What the receiver's side says; absent if it is no pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ingress: Option<Said>,
    /// Rules about some addresses only, which may decide otherwise for those.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) by_address: Vec<String>,
    /// What the answer takes for granted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) assumed: Vec<String>,
    /// Policies that are not in force as they stand, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) refused: Vec<String>,
}

/// One end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Party {
    pub(crate) name: String,
    pub(crate) identity: u32,
    pub(crate) labels: Vec<String>,
}

/// What one side says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Said {
    /// `allowed` or `denied`; of questions that nobody looks at, `unheard`.
    pub(crate) verdict: &'static str,
    /// In a sentence.
    pub(crate) reason: String,
    /// Fields of policies that decide.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rules: Vec<String>,
    /// Policies that put a default deny in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) closed_by: Vec<String>,
    /// The rule that came nearest to allowing it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nearest: Option<Nearest>,
}

/// A rule that missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Nearest {
    rule: String,
    /// What missed, in a sentence.
    why: String,
    /// Ports of the rule, if these missed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<String>,
    /// Requirements of the rule that the peer does not meet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unmet: Vec<String>,
}

/// Answers, and prints.
///
/// # Errors
/// The cluster cannot be read, or an end does not exist.
pub(crate) async fn run(cli: &Cli, args: &ExplainArgs) -> anyhow::Result<()> {
    let Cluster { planner, namespace } = cluster::read(cli).await?;
    let from = sender(&planner, &Target::parse(&args.from, &namespace))?;
    let target = settled(&planner, Target::parse(&args.to, &namespace))?;
    let answers = if let Target::Name(name) = &target {
        name::answers(&planner, &from, name, args.port)
    } else {
        let ends = receivers(&planner, &from, &target, args.port)?;
        ends.iter().map(|(to, port)| answer(&planner, &from, to, *port)).collect()
    };
    let text = match args.output.output {
        Some(format) => encode(&answers, format)?,
        None => answers.iter().map(text).collect::<Vec<_>>().join("\n"),
    };
    Ok(print(&text)?)
}

/// The same target, where NAME.NAMESPACE is a Service if there is one: so pods reach it. Other names are outside of the cluster.
pub(crate) fn settled(planner: &Planner, target: Target) -> anyhow::Result<Target> {
    let Target::Name(name) = &target else { return Ok(target) };
    if let Some((service, namespace)) = name.split_once('.')
        && planner.has_service(namespace, service)
    {
        return Ok(Target::Service(namespace.to_owned(), service.to_owned()));
    }
    NamePattern::name(name)?;
    let is_inside = absolute(name).ends_with(CLUSTER_DOMAIN);
    ensure!(!is_inside, "{name} is a name of the cluster, and no Service: give the pod, or an address");
    Ok(target)
}

/// End of the names that a cluster gives, unless it is set up otherwise.
const CLUSTER_DOMAIN: &str = ".cluster.local.";

fn sender(planner: &Planner, target: &Target) -> anyhow::Result<End> {
    match target {
        Target::Address(address) => Ok(planner.address(*address)),
        Target::Pod(namespace, name) => pod(planner, namespace, name),
        Target::Service(..) | Target::Name(_) => {
            bail!("--from takes a pod or an address: what sends is not a name")
        }
    }
}

fn pod(planner: &Planner, namespace: &str, name: &str) -> anyhow::Result<End> {
    planner.pod(namespace, name).with_context(|| {
        format!(
            "there is no pod {namespace}/{name} with a network of its own: check the name and --namespace, and whether it \
             has a node; for a pod with hostNetwork, give the address of its node"
        )
    })
}

/// All ends that a target stands for, with the port that packets have there.
fn receivers(planner: &Planner, from: &End, target: &Target, port: Port) -> anyhow::Result<Vec<(End, Port)>> {
    match target {
        Target::Address(address) => match planner.service_at(*address) {
            Some((namespace, name)) => backends(planner, from, (&namespace, &name), Some(*address), port),
            None => Ok(vec![(planner.address(*address), port)]),
        },
        // What runs under one name often is a Service under the same.
        Target::Pod(namespace, name) => match pod(planner, namespace, name) {
            Ok(end) => Ok(vec![(end, port)]),
            Err(error) => backends(planner, from, (namespace, name), None, port).map_err(|_| error),
        },
        Target::Name(name) => bail!("{name} is outside of the cluster"),
        Target::Service(namespace, name) => backends(planner, from, (namespace, name), None, port),
    }
}

/// What a Service stands for under one of its addresses or its name, where the sender is.
fn backends(
    planner: &Planner,
    from: &End,
    (namespace, name): (&str, &str),
    at: Option<IpAddr>,
    port: Port,
) -> anyhow::Result<Vec<(End, Port)>> {
    let found = planner.backends(from, (namespace, name), at, port.protocol, port.number);
    let found =
        found.with_context(|| format!("there is no Service {namespace}/{name} with a cluster address"))?;
    let place =
        if planner.is_local(namespace, name, at) { " on the sender's node, and uses no others" } else { "" };
    ensure!(!found.is_empty(), "the Service {namespace}/{name} has no ready backend for {port}{place}");
    let mut ends: Vec<(End, Port)> = Vec::new();
    for (address, number) in found {
        let end = (planner.address(address).by_any_address(), Port { number, ..port });
        // Both addresses of a pod are one end.
        if !ends.contains(&end) {
            ends.push(end);
        }
    }
    Ok(ends)
}

fn answer(planner: &Planner, from: &End, to: &End, port: Port) -> Answer {
    let Explained { egress, ingress } = planner.explain(from, to, port.protocol, port.number);
    let side = |decision: Option<Decision>, judge: &End, peer: &End| {
        decision.map(|decision| said(planner, &decision, judge, peer))
    };
    let (mut egress, ingress) = (side(egress, from, to), side(ingress, to, from));
    if let (Some(said), End::Pod { identity, .. }, End::Outside { .. }) = (&mut egress, from, to) {
        let names = planner.names_allowed_to(*identity);
        if said.verdict == DENIED && !names.is_empty() {
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            said.reason += &format!(
                "; unless it is an address of {names}: what names stand for is known on the pod's node (cilium-dbg fqdn cache list)"
            );
        }
    }
    let denied = egress.iter().chain(&ingress).any(|said| said.verdict == DENIED);
    Answer {
        from: party(planner, from, to),
        to: party(planner, to, from),
        port: port.to_string(),
        verdict: if denied { DENIED } else { ALLOWED },
        question: None,
        egress,
        ingress,
        by_address: Vec::new(),
        assumed: Vec::new(),
        refused: refused(planner, &[from, to]),
    }
}

pub(crate) const ALLOWED: &str = "allowed";
pub(crate) const DENIED: &str = "denied";

/// Refused policies that may be about one of the ends.
pub(crate) fn refused(planner: &Planner, ends: &[&End]) -> Vec<String> {
    let namespaces: Vec<String> = ends
        .iter()
        .filter_map(|end| match end {
            End::Pod { name, .. } => name.split_once('/').map(|(namespace, _)| format!("cnp/{namespace}/")),
            End::Node { .. } | End::Outside { .. } => None,
        })
        .collect();
    let concerns = |key: &str| {
        key.starts_with("ccnp/") || namespaces.iter().any(|start| key.starts_with(start.as_str()))
    };
    let all = planner.refusals().filter(|(key, _)| concerns(key.as_str()));
    all.map(|(key, reason)| format!("{key}: {reason}")).collect()
}

pub(crate) fn party(planner: &Planner, end: &End, other: &End) -> Party {
    let name = match end {
        End::Pod { name, .. } => name.clone(),
        End::Node { name, .. } => format!("node {name}"),
        End::Outside { address, .. } => address.to_string(),
    };
    let judge = if let End::Pod { node, .. } = other { Some(node.as_str()) } else { None };
    let identity = end.identity_on(judge);
    let labels = planner.labels(identity).map(cilium_core::Labels::to_strings).unwrap_or_default();
    Party { name, identity, labels }
}

fn said(planner: &Planner, decision: &Decision, judge: &End, peer: &End) -> Said {
    told(planner, decision, judge, &party(planner, peer, judge))
}

pub(crate) fn told(planner: &Planner, decision: &Decision, judge: &End, peer: &Party) -> Said {
    let simple = |verdict, reason: &str, places: &[Place]| Said {
        verdict,
        reason: reason.to_owned(),
        rules: places.iter().map(rule).collect(),
        closed_by: Vec::new(),
        nearest: None,
    };
    match decision {
        Decision::NotEnforced => simple(ALLOWED, "no policy restricts this direction", &[]),
        Decision::LocalHost => simple(ALLOWED, "a node reaches the pods on it", &[]),
        Decision::Granted(places) => simple(ALLOWED, "a rule allows it", places),
        Decision::Denied(places) => simple(DENIED, "a rule denies it", places),
        Decision::DefaultDeny(Reason { closed_by, nearest }) => Said {
            verdict: DENIED,
            reason: default_deny(planner, closed_by.is_empty(), judge).to_owned(),
            rules: Vec::new(),
            closed_by: closed_by.iter().map(ToString::to_string).collect(),
            nearest: nearest.as_ref().map(|miss| near(miss, peer)),
        },
    }
}

fn default_deny(planner: &Planner, by_nobody: bool, judge: &End) -> &'static str {
    match judge {
        End::Pod { identity, .. } if by_nobody && planner.is_always_closed(*identity) => {
            "the installation closes every pod (policyEnforcementMode always), and no rule allows it"
        }
        _ => "policies close this direction, and no rule allows it",
    }
}

pub(crate) fn rule(place: &Place) -> String {
    format!("{} {}", place.policy, place.path)
}

fn near(miss: &Miss, peer: &Party) -> Nearest {
    let (unmet, ports) = match &miss.missed {
        Missed::Port(ports) => (&[][..], &ports[..]),
        Missed::Peer(unmet) => (&unmet[..], &[][..]),
        Missed::Both(unmet, ports) => (&unmet[..], &ports[..]),
        Missed::Name(_, ports) => (&[][..], &ports[..]),
        Missed::Unheard => (&[][..], &[][..]),
    };
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let found = |key: &str| peer.labels.iter().find(|label| name_of(label) == key).cloned();
    let wanted = unmet.iter().map(|requirement| match found(&requirement.key) {
        Some(label) => format!("{requirement} (it has {label})"),
        None => requirement.to_string(),
    });
    let wanted: Vec<String> = wanted.collect();
    let asks = if wanted.is_empty() {
        "means others by address or name".to_owned()
    } else {
        format!("asks the peer for {}", wanted.join(" and "))
    };
    let why = match &miss.missed {
        Missed::Port(_) => {
            format!("the peer matches, the port does not: the rule is for {}", ports.join(", "))
        }
        Missed::Peer(_) => format!("the port matches, the peer does not: the rule {asks}"),
        Missed::Name(name, _) if ports.is_empty() => {
            format!("the name does not match: the rule is for {}", name::shown(name))
        }
        Missed::Name(name, _) => {
            format!("neither matches: the rule is for {}, and for {}", name::shown(name), ports.join(", "))
        }
        Missed::Unheard => {
            "name and port match, but its node learns no address of the name: see the question".to_owned()
        }
        Missed::Both(..) => format!("neither matches: the rule {asks}, and is for {}", ports.join(", ")),
    };
    Nearest { rule: rule(&miss.place), why, ports, unmet: unmet.iter().map(ToString::to_string).collect() }
}

/// Key of a label `source:key=value`.
fn name_of(label: &str) -> &str {
    let key = label.split_once(':').map_or(label, |(_, rest)| rest);
    key.split_once('=').map_or(key, |(key, _)| key)
}

pub(crate) fn text(answer: &Answer) -> String {
    let Answer { from, to, port, verdict, question, egress, ingress, by_address, assumed, refused } = answer;
    let mut lines = vec![line(["DIRECTION", "POD", "VERDICT", "BECAUSE"])];
    let sides =
        [("question", &from.name, question), ("egress", &from.name, egress), ("ingress", &to.name, ingress)];
    for (direction, name, side) in sides {
        if let Some(said) = side {
            lines.extend(rows(direction, name, said));
        }
    }
    let mut text = format!("{} -> {}, port {port}: {verdict}\n", from.name, to.name);
    if lines.len() > 1 {
        text += &align(&lines);
    } else {
        text += "policies can select neither end\n";
    }
    for rule in by_address {
        text += &format!("Depends on the address (ask with --to IP): {rule}\n");
    }
    for assumed in assumed {
        text += &format!("Assumed: {assumed}\n");
    }
    for refused in refused {
        text += &format!("Not in force: {refused}\n");
    }
    text
}

fn rows(direction: &str, name: &str, said: &Said) -> Vec<Line> {
    let mut because = vec![said.reason.clone()];
    because.extend(said.rules.iter().map(|rule| format!("by {rule}")));
    because.extend(said.closed_by.iter().map(|policy| format!("closed by {policy}")));
    if let Some(Nearest { rule, why, .. }) = &said.nearest {
        because.extend([format!("nearest rule: {rule}"), why.clone()]);
    }
    cilium_print::table::spread(line([direction, name, said.verdict, ""]), 3, because)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::mk_galaxy;

    fn ask(planner: &Planner, from: &str, to: &str, port: u16) -> Answer {
        let from = sender(planner, &Target::parse(from, "default")).unwrap();
        let port = Port { protocol: 6, number: port };
        let mut ends = receivers(planner, &from, &Target::parse(to, "default"), port).unwrap();
        assert_eq!(ends.len(), 1);
        let (to, port) = ends.remove(0);
        answer(planner, &from, &to, port)
    }

    #[test]
    fn the_text_lines_up_and_names_the_nearest_rule() {
        let planner = mk_galaxy();
        let expected = "\
default/xwing -> default/deathstar, port 80/TCP: denied
DIRECTION   POD                 VERDICT   BECAUSE
egress      default/xwing       allowed   no policy restricts this direction
ingress     default/deathstar   denied    policies close this direction, and no rule allows it
                                          closed by cnp/default/rule1
                                          nearest rule: cnp/default/rule1 spec.ingress[0].toPorts[0]
                                          the port matches, the peer does not: the rule asks the peer for any:org=empire (it has k8s:org=alliance)
Not in force: cnp/default/later: spec.ingress[0].authentication.mode: authentication of peers cannot be enforced by this version
";
        assert_eq!(text(&ask(&planner, "xwing", "deathstar", 80)), expected);
        let allowed = text(&ask(&planner, "default/tiefighter", "deathstar", 80));
        assert!(
            allowed.contains("80/TCP: allowed\n")
                && allowed.contains("by cnp/default/rule1 spec.ingress[0].toPorts[0]"),
            "{allowed}"
        );
        let port = text(&ask(&planner, "tiefighter", "deathstar", 443));
        assert!(port.contains("the peer matches, the port does not: the rule is for 80/TCP"), "{port}");
        let outside = text(&ask(&planner, "192.0.2.1", "203.0.113.1", 443));
        assert_eq!(
            outside,
            "192.0.2.1 -> 203.0.113.1, port 443/TCP: allowed\npolicies can select neither end\n"
        );
    }

    #[test]
    fn a_service_stands_for_its_backends() {
        let planner = mk_galaxy();
        let from = planner.pod("default", "xwing").unwrap();
        let answer = ask(&planner, "xwing", "deathstar.default.svc.cluster.local", 8080);
        assert_eq!((answer.to.name.as_str(), answer.port.as_str()), ("default/deathstar", "80/TCP"));
        let port = Port { protocol: 6, number: 9 };
        let missing = |name: &str| {
            receivers(&planner, &from, &Target::parse(name, "default"), port).unwrap_err().to_string()
        };
        assert_eq!(
            missing("deathstar.default.svc"),
            "the Service default/deathstar has no ready backend for 9/TCP"
        );
        assert_eq!(missing("moon.default.svc"), "there is no Service default/moon with a cluster address");
    }

    #[test]
    fn an_address_is_that_of_a_service_or_of_one_family() {
        let planner = mk_galaxy();
        let by_name = ask(&planner, "xwing", "deathstar.default.svc", 8080);
        let cluster_address = planner.service_at("10.96.0.9".parse().unwrap());
        assert_eq!(cluster_address, Some(("default".to_owned(), "deathstar".to_owned())));
        assert_eq!(ask(&planner, "xwing", "10.96.0.9", 8080), by_name);
    }

    #[test]
    fn a_pod_that_is_not_there_is_named() {
        let error = sender(&mk_galaxy(), &Target::parse("ywing", "rebels")).unwrap_err().to_string();
        assert!(error.starts_with("there is no pod rebels/ywing"), "{error}");
        assert!(sender(&mk_galaxy(), &Target::parse("example.com", "x")).is_err());
    }

    #[test]
    fn data_has_everything_that_the_text_has() {
        let value: Value = serde_json::to_value(ask(&mk_galaxy(), "xwing", "deathstar", 80)).unwrap();
        assert_eq!((&value["verdict"], &value["egress"]["verdict"]), (&json!("denied"), &json!("allowed")));
        assert_eq!(value["ingress"]["closedBy"], json!(["cnp/default/rule1"]));
        assert_eq!(value["ingress"]["nearest"]["unmet"], json!(["any:org=empire"]));
        assert_eq!(value["ingress"]["nearest"]["ports"], Value::Null);
        assert!(
            value["refused"][0].as_str().unwrap().starts_with("cnp/default/later: spec.ingress[0]"),
            "{value}"
        );
    }
}
