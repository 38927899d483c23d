//! `cilium policy diff`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use cilium_api::parts::{Direction, Policy};
use cilium_core::reserved;
use cilium_plan::{Access, Planner};
use cilium_policy::{Change, Side, Span, changes, name_changes, question_changes};
use cilium_print::output::{encode, print};
use cilium_print::table::{align, line};
use ipnet::IpNet;
use serde::Serialize;

use crate::args::{Cli, DiffArgs};
use crate::cluster::{self, Cluster};
use crate::files;
use crate::manifests::{New, parse};

/// Most names in a cell.
const NAMES: usize = 3;

/// One group of changes: all of these pods, with all of these peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    /// `ingress` or `egress`.
    direction: &'static str,
    /// Pods whose traffic changes.
    pods: Vec<String>,
    /// Whom they speak with.
    peers: Vec<String>,
    /// Destination ports, and what becomes of them.
    ports: Vec<PortChange>,
}

/// What becomes of traffic to some ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct PortChange {
    /// Port and protocol; the name, where it is about questions for it.
    port: String,
    now: &'static str,
    then: &'static str,
}

/// Whoever traffic goes to or comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    Inside(u32),
    /// One address of a pod or a node, where others of its identity are treated otherwise.
    Address(IpAddr),
    Outside(IpNet),
    /// What is outside and has such a name.
    Named(String),
}

/// One side of an endpoint, before and after.
struct Both<'a> {
    side: Side,
    old: Option<&'a Policy>,
    new: Option<&'a Policy>,
    before: &'a Access,
    after: &'a Access,
}

/// Compares, and prints. 1 when something would change.
///
/// # Errors
/// The cluster or a file cannot be read, or a policy would not be put in force.
pub(crate) async fn run(cli: &Cli, args: &DiffArgs) -> anyhow::Result<ExitCode> {
    let texts = files::read(&args.filename)?;
    let Cluster { mut planner, namespace } = cluster::read(cli).await?;
    let mut policies = Vec::new();
    for (path, text) in args.filename.iter().zip(&texts) {
        let found = parse(text, &namespace).with_context(|| format!("in {}", path.display()))?;
        policies.extend(found);
    }
    ensure!(!policies.is_empty(), "there is no policy in what was given");
    let groups = compare(&mut planner, &policies)?;
    let text = match args.output.output {
        Some(format) => encode(&groups, format)?,
        None => text(&groups, &planner),
    };
    print(&text)?;
    Ok(if groups.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What changes when the policies take the place of those with their names.
///
/// # Errors
/// A policy would not be put in force.
fn compare(planner: &mut Planner, policies: &[New]) -> anyhow::Result<Vec<Group>> {
    let before = planner.access();
    for New { object, content, .. } in policies {
        planner.forget(object);
        planner.observe(content.clone());
    }
    let output = planner.plan(cluster::now());
    for event in output.events.iter().filter(|event| policies.iter().any(|it| it.object == event.regarding)) {
        eprintln!("Warning: {}: {}", event.regarding, event.note);
    }
    for key in policies.iter().filter_map(|new| new.key.as_ref()) {
        if let Some(reason) = planner.refusal(key) {
            bail!("{key} would not be put in force: {reason}");
        }
    }
    let pods = planner.pods_by_identity();
    Ok(groups(&before, &planner.access(), &pods))
}

/// Rows with equal content are one.
type Rows = BTreeMap<(&'static str, Vec<Change>, BTreeSet<Peer>), BTreeSet<u32>>;

fn groups(before: &Access, after: &Access, pods: &BTreeMap<u32, Vec<String>>) -> Vec<Group> {
    let peers = peers(before, after);
    let mut rows = Rows::new();
    for subject in pods.keys() {
        let (old, new) = (before.policies.get(subject), after.policies.get(subject));
        if old == new {
            continue;
        }
        for (name, side) in [("ingress", Side::Ingress), ("egress", Side::Egress)] {
            let both = Both { side, old, new, before, after };
            for (changes, peers) in both.by_change(&peers) {
                rows.entry((name, changes, peers)).or_default().insert(*subject);
            }
        }
    }
    let traffic = rows.into_iter().map(|(row, subjects)| group(row, &subjects, pods, &after.addresses));
    traffic.chain(question_groups(before, after, pods)).collect()
}

/// Peers that people have to do with: pods, nodes, and what is outside.
fn peers(before: &Access, after: &Access) -> BTreeSet<Peer> {
    let internal = [reserved::UNMANAGED, reserved::HEALTH, reserved::INIT, reserved::INGRESS];
    let inside: BTreeSet<u32> = before.inside.union(&after.inside).copied().collect();
    let inside = inside.into_iter().filter(|number| !internal.contains(number)).map(Peer::Inside);
    let outside: BTreeSet<IpNet> = before.outside.keys().chain(after.outside.keys()).copied().collect();
    inside.chain(outside.into_iter().map(Peer::Outside)).collect()
}

impl Both<'_> {
    /// What changes, and for whom. Blocks of these policies are peers as well: addresses inside are told from those around.
    fn by_change(&self, peers: &BTreeSet<Peer>) -> BTreeMap<Vec<Change>, BTreeSet<Peer>> {
        let blocks = self.blocks();
        let peers: BTreeSet<Peer> =
            peers.iter().cloned().chain(blocks.iter().copied().map(Peer::Outside)).collect();
        let outside: BTreeSet<IpNet> = peers
            .iter()
            .filter_map(|peer| if let Peer::Outside(it) = peer { Some(*it) } else { None })
            .collect();
        let mut by_change: BTreeMap<Vec<Change>, BTreeSet<Peer>> = BTreeMap::new();
        for peer in &peers {
            let found = match peer {
                Peer::Inside(number) if !blocks.is_empty() => self.of_pods(*number),
                Peer::Inside(number) => vec![(peer.clone(), self.changes((*number, *number), None))],
                Peer::Address(_) | Peer::Named(_) => Vec::new(),
                Peer::Outside(prefix) => {
                    self.of_prefix(prefix, &outside).map(|it| (peer.clone(), it)).into_iter().collect()
                }
            };
            for (peer, changes) in found.into_iter().filter(|(_, changes)| !changes.is_empty()) {
                by_change.entry(changes).or_default().insert(peer);
            }
        }
        for (peer, changes) in self.of_names().into_iter().filter(|(_, changes)| !changes.is_empty()) {
            by_change.entry(changes).or_default().insert(peer);
        }
        by_change
    }

    /// Whatever has a name that rules let pods reach.
    fn of_names(&self) -> Vec<(Peer, Vec<Change>)> {
        let policies = [self.old, self.new].into_iter().flatten().filter(|_| self.side == Side::Egress);
        let patterns: BTreeSet<&str> =
            policies.flat_map(Policy::named_peers).map(|peer| peer.pattern.as_str()).collect();
        let Some(world) = self.after.world() else { return Vec::new() };
        let changes = |pattern| name_changes(self.old, self.new, pattern, world);
        patterns.into_iter().map(|pattern| (Peer::Named(pattern.to_owned()), changes(pattern))).collect()
    }

    fn changes(&self, numbers: (u32, u32), address: Option<IpAddr>) -> Vec<Change> {
        changes(self.old, self.new, self.side, numbers, address)
    }

    fn directions(&self) -> impl Iterator<Item = &Direction> {
        [self.old, self.new].into_iter().flatten().map(|policy| match self.side {
            Side::Ingress => &policy.ingress,
            Side::Egress => &policy.egress,
        })
    }

    fn blocks(&self) -> BTreeSet<IpNet> {
        self.directions().flat_map(|direction| direction.blocks.iter().copied()).collect()
    }

    /// Pods or nodes of an identity, one by one where they are not treated alike.
    fn of_pods(&self, number: u32) -> Vec<(Peer, Vec<Change>)> {
        let mut known: BTreeMap<Vec<Option<u32>>, Vec<Change>> = BTreeMap::new();
        let addresses = self.after.addresses.get(&number).into_iter().flat_map(BTreeMap::keys);
        let mut of_address = |address: &IpAddr| {
            let blocks = self.directions().map(|direction| direction.block_of(*address)).collect();
            let changes =
                known.entry(blocks).or_insert_with(|| self.changes((number, number), Some(*address)));
            (Peer::Address(*address), changes.clone())
        };
        let all: Vec<(Peer, Vec<Change>)> = addresses.map(&mut of_address).collect();
        match all.first() {
            None => vec![(Peer::Inside(number), self.changes((number, number), None))],
            Some((_, first)) if all.iter().all(|(_, changes)| changes == first) => {
                vec![(Peer::Inside(number), first.clone())]
            }
            Some(_) => all,
        }
    }

    /// What lies in a prefix, and in none of `all` that is narrower; `None` when that is nothing.
    fn of_prefix(&self, prefix: &IpNet, all: &BTreeSet<IpNet>) -> Option<Vec<Change>> {
        let address = address_in(prefix, all)?;
        let numbers = (self.before.identity_of(prefix)?, self.after.identity_of(prefix)?);
        Some(self.changes(numbers, Some(address)))
    }
}

/// An address of a prefix that lies in none of `all` that is narrower.
fn address_in(prefix: &IpNet, all: &BTreeSet<IpNet>) -> Option<IpAddr> {
    let narrower: Vec<&IpNet> = all.iter().filter(|it| *it != prefix && prefix.contains(*it)).collect();
    let behind = narrower.iter().filter_map(|it| next(it.broadcast()));
    let mut candidates = std::iter::once(prefix.network()).chain(behind);
    candidates.find(|it| prefix.contains(it) && !narrower.iter().any(|narrower| narrower.contains(it)))
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => u32::from(v4).checked_add(1).map(|bits| std::net::Ipv4Addr::from(bits).into()),
        IpAddr::V6(v6) => u128::from(v6).checked_add(1).map(|bits| std::net::Ipv6Addr::from(bits).into()),
    }
}

fn group(
    (direction, changes, peers): (&'static str, Vec<Change>, BTreeSet<Peer>),
    subjects: &BTreeSet<u32>,
    pods: &BTreeMap<u32, Vec<String>>,
    addresses: &BTreeMap<u32, BTreeMap<IpAddr, String>>,
) -> Group {
    let names = |number: &u32| names_of(*number, pods);
    let peer = |peer: &Peer| match peer {
        Peer::Inside(number) => names(number),
        Peer::Address(address) => {
            let pod = addresses.values().find_map(|known| known.get(address));
            vec![pod.map_or_else(|| address.to_string(), |pod| format!("{pod} ({address})"))]
        }
        Peer::Outside(prefix) if prefix.prefix_len() == 0 => vec![format!("outside ({prefix})")],
        Peer::Outside(prefix) => vec![format!("{prefix} outside")],
        Peer::Named(pattern) => vec![format!("{} outside", pattern.trim_end_matches('.'))],
    };
    let ports = changes.iter().map(|Change { span, allowed }| port_change(span.to_string(), *allowed));
    Group {
        direction,
        pods: subjects.iter().flat_map(names).collect(),
        peers: peers.iter().flat_map(peer).collect(),
        ports: ports.collect(),
    }
}

fn port_change(port: String, allowed: bool) -> PortChange {
    let fate = |allowed: bool| if allowed { "allowed" } else { "denied" };
    PortChange { port, now: fate(!allowed), then: fate(allowed) }
}

/// What becomes of questions to name servers.
fn question_groups(before: &Access, after: &Access, pods: &BTreeMap<u32, Vec<String>>) -> Vec<Group> {
    let mut rows: BTreeMap<(u32, Vec<PortChange>), BTreeSet<u32>> = BTreeMap::new();
    for subject in pods.keys() {
        let (old, new) = (before.policies.get(subject), after.policies.get(subject));
        let mut by_server: BTreeMap<u32, Vec<PortChange>> = BTreeMap::new();
        for change in question_changes(old, new) {
            let name = change.name.as_deref().map_or("other names", |name| name.trim_end_matches('.'));
            let span = Span { protocol: Some(change.protocol), ports: Some((change.port, change.port)) };
            let ports = by_server.entry(change.peer).or_default();
            ports.push(port_change(format!("{span} for {name}"), change.allowed));
        }
        for (server, changes) in by_server {
            rows.entry((server, changes)).or_default().insert(*subject);
        }
    }
    let group = |((server, ports), subjects): ((u32, Vec<PortChange>), BTreeSet<u32>)| Group {
        direction: "egress",
        pods: subjects.iter().flat_map(|number| names_of(*number, pods)).collect(),
        peers: names_of(server, pods),
        ports,
    };
    rows.into_iter().map(group).collect()
}

/// Pods of an identity, or what it is called.
fn names_of(number: u32, pods: &BTreeMap<u32, Vec<String>>) -> Vec<String> {
    match pods.get(&number) {
        Some(pods) => pods.clone(),
        None if number == reserved::ANY => vec!["anybody".to_owned()],
        None => vec![name_of_reserved(number)],
    }
}

fn name_of_reserved(number: u32) -> String {
    let labels = reserved::labels(number).unwrap_or_default();
    let name = labels.iter().next().map(|label| label.key.to_string());
    name.unwrap_or_else(|| number.to_string())
}

fn text(groups: &[Group], planner: &Planner) -> String {
    if groups.is_empty() {
        return "Nothing would change.\n".to_owned();
    }
    let all: BTreeSet<String> = planner.pods_by_identity().into_values().flatten().collect();
    let mut lines = vec![line(["PODS", "DIRECTION", "PEERS", "PORTS", "NOW", "THEN"])];
    for Group { direction, pods, peers, ports } in groups {
        let (pods, peers) = (cell(pods, &all), cell(peers, &all));
        for (index, PortChange { port, now, then }) in ports.iter().enumerate() {
            let first = if index == 0 { [pods.as_str(), direction, peers.as_str()] } else { [""; 3] };
            lines.push(line([first[0], first[1], first[2], port, now, then]));
        }
    }
    let concerned: BTreeSet<&String> = groups.iter().flat_map(|group| &group.pods).collect();
    align(&lines) + &format!("{} of {} pods are concerned.\n", concerned.len(), all.len())
}

/// Names for people: all pods, or all of a namespace, in few words; of others the first few.
fn cell(names: &[String], all: &BTreeSet<String>) -> String {
    let given: BTreeSet<&String> = names.iter().collect();
    let (pods, others): (Vec<&String>, Vec<&String>) =
        given.iter().copied().partition(|name| all.contains(*name));
    let mut words = short(&pods, all);
    words.extend(others.into_iter().cloned());
    let more = words.len().saturating_sub(NAMES);
    words.truncate(NAMES);
    if more > 0 {
        words.push(format!("{more} more"));
    }
    words.join(", ")
}

fn short(pods: &[&String], all: &BTreeSet<String>) -> Vec<String> {
    if pods.len() > 1 && pods.len() == all.len() {
        return vec!["all pods".to_owned()];
    }
    let of = |name: &str| name.split_once('/').map(|(namespace, _)| namespace.to_owned()).unwrap_or_default();
    let mut by_namespace: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for pod in pods {
        by_namespace.entry(of(pod)).or_default().push(pod);
    }
    let mut words = Vec::new();
    for (namespace, pods) in by_namespace {
        let whole = all.iter().filter(|name| of(name) == namespace).count();
        if pods.len() > 1 && pods.len() == whole {
            words.push(format!("all pods of {namespace}"));
        } else {
            words.extend(pods.into_iter().cloned());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{mk_galaxy, mk_ship};

    fn diff(manifest: &str) -> anyhow::Result<(String, Vec<Group>)> {
        let mut planner = mk_galaxy();
        let groups = compare(&mut planner, &parse(manifest, "default")?)?;
        Ok((text(&groups, &planner), groups))
    }

    fn mk_rule1(port: &str) -> String {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: rule1}}\nspec:\n  endpointSelector: {{matchLabels: {{org: empire, class: deathstar}}}}\n  \
             ingress: [{{fromEndpoints: [{{matchLabels: {{org: empire}}}}], toPorts: [{{ports: [{{port: '{port}', protocol: TCP}}]}}]}}]\n"
        )
    }

    #[test]
    fn the_same_policy_changes_nothing() {
        let (text, groups) = diff(&mk_rule1("80")).unwrap();
        assert_eq!((text.as_str(), groups.len()), ("Nothing would change.\n", 0));
    }

    #[test]
    fn another_port_is_one_lost_and_one_won() {
        let (text, _) = diff(&mk_rule1("443")).unwrap();
        let expected = "\
PODS                DIRECTION   PEERS                                   PORTS     NOW       THEN
default/deathstar   ingress     default/deathstar, default/tiefighter   80/TCP    allowed   denied
                                                                        443/TCP   denied    allowed
1 of 3 pods are concerned.
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_new_policy_closes_what_it_selects_for_whom_it_does_not_name() {
        let manifest = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: out}, spec: {endpointSelector: {matchLabels: {class: xwing}}, \
                        egress: [{toCIDRSet: [{cidr: 192.0.2.0/24, except: [192.0.2.128/25]}]}]}}";
        let (text, groups) = diff(manifest).unwrap();
        assert_eq!(groups.len(), 1, "{text}");
        let Group { direction, pods, peers, ports } = &groups[0];
        assert_eq!((*direction, pods.as_slice()), ("egress", ["default/xwing".to_owned()].as_slice()));
        let has = |name: &str| peers.iter().any(|peer| peer == name);
        assert!(
            has("192.0.2.128/25 outside")
                && !has("192.0.2.0/24 outside")
                && has("outside (::/0)")
                && has("host"),
            "{peers:?}"
        );
        assert_eq!(ports, &[PortChange { port: "any".to_owned(), now: "allowed", then: "denied" }]);
        assert!(text.contains("all pods, 192.0.2.128/25 outside, host, "), "{text}");
    }

    #[test]
    fn blocks_of_addresses_are_about_pods_as_well() {
        let manifest = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: out}, spec: {podSelector: {matchLabels: {class: xwing}}, policyTypes: [Egress], \
                        egress: [{to: [{ipBlock: {cidr: 10.1.0.0/28, except: [10.1.0.11/32]}}, {ipBlock: {cidr: 192.0.2.0/24}}, {ipBlock: {cidr: 192.168.0.0/24}}]}]}}";
        let mut planner = mk_galaxy();
        // Of the same identity as the first, and in none of the blocks.
        planner.observe(mk_ship("deathstar-2", "deathstar", "empire", "10.1.0.40"));
        planner.plan(cluster::now());
        let groups = compare(&mut planner, &parse(manifest, "default").unwrap()).unwrap();
        let text = text(&groups, &planner);
        assert_eq!(groups.len(), 1, "{text}");
        let Group { direction, pods, peers, ports } = &groups[0];
        assert_eq!((*direction, pods.as_slice()), ("egress", ["default/xwing".to_owned()].as_slice()));
        assert_eq!(ports, &[PortChange { port: "any".to_owned(), now: "allowed", then: "denied" }]);
        let has = |name: &str| peers.iter().any(|peer| peer == name);
        // The one node has its address in a block, as others know it.
        assert!(has("host") && !has("remote-node"), "{peers:?}");
        assert!(has("default/deathstar-2 (10.1.0.40)") && has("default/tiefighter"), "{peers:?}");
        assert!(!peers.iter().any(|peer| peer.contains("default/deathstar ")), "it stays allowed: {peers:?}");
        assert!(has("10.1.0.11/32 outside") && !has("10.1.0.0/28 outside"), "{peers:?}");
        assert!(!has("192.0.2.0/24 outside") && has("outside (0.0.0.0/0)"), "{peers:?}");
    }

    #[test]
    fn an_address_of_a_prefix_is_in_no_narrower_one() {
        let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let found =
            |texts: &[&str]| address_in(&texts[0].parse().unwrap(), &all(texts)).map(|it| it.to_string());
        assert_eq!(
            found(&["10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/16", "0.0.0.0/0"]).as_deref(),
            Some("10.129.0.0")
        );
        assert_eq!(found(&["10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9"]), None);
        assert_eq!(found(&["::/0", "::/1"]).as_deref(), Some("8000::"));
    }

    fn mk_names(asked: &str, named: &str) -> String {
        format!(
            "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: names}}, spec: {{endpointSelector: {{matchLabels: {{class: xwing}}}}, egress: [\
             {{toEndpoints: [{{matchLabels: {{class: deathstar}}}}], toPorts: [{{ports: [{{port: '53', protocol: UDP}}], rules: {{dns: [{{matchPattern: '{asked}'}}]}}}}]}}, \
             {{toFQDNs: [{{matchName: {named}}}], toPorts: [{{ports: [{{port: '443', protocol: TCP}}]}}]}}]}}}}"
        )
    }

    /// Rows of the second manifest after the first, but for the head and the end.
    fn rows_after(first: &str, second: &str) -> String {
        let mut planner = mk_galaxy();
        compare(&mut planner, &parse(first, "default").unwrap()).unwrap();
        let groups = compare(&mut planner, &parse(second, "default").unwrap()).unwrap();
        let text = text(&groups, &planner);
        let rows: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        rows.join("\n")
    }

    #[test]
    fn names_and_questions_are_differences() {
        let before = mk_names("*", "api.test");
        assert_eq!(rows_after(&before, &before), "Nothing would change.");
        let head = "PODS DIRECTION PEERS PORTS NOW THEN\n";
        let end = "\n1 of 3 pods are concerned.";
        assert_eq!(
            rows_after(&before, &mk_names("*", "other.test")),
            format!(
                "{head}default/xwing egress api.test outside 443/TCP allowed denied\n\
                 default/xwing egress other.test outside 443/TCP denied allowed{end}"
            )
        );
        assert_eq!(
            rows_after(&before, &mk_names("a*", "api.test")),
            format!(
                "{head}default/xwing egress default/deathstar 53/UDP for other names allowed denied{end}"
            )
        );
        assert_eq!(
            rows_after(&mk_names("b.test", "api.test"), &mk_names("a*", "api.test")),
            format!(
                "{head}default/xwing egress default/deathstar 53/UDP for a* denied allowed\n\
                 53/UDP for b.test allowed denied{end}"
            )
        );
    }

    #[test]
    fn groups_of_prefixes_are_weighed_with_what_refers_to_them() {
        let group = |prefix: &str| {
            format!(
                "apiVersion: cilium.io/v2\nkind: CiliumCIDRGroup\nmetadata: {{name: partners}}\nspec: {{externalCIDRs: [{prefix}]}}\n"
            )
        };
        let policy = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: out}, spec: {endpointSelector: {matchLabels: {class: xwing}}, egress: [{toCIDRSet: [{cidrGroupRef: partners}]}]}}";
        let rows = rows_after(&format!("{}---\n{policy}", group("192.0.2.0/24")), &group("198.51.100.0/24"));
        assert!(rows.contains("192.0.2.0/24 outside any allowed denied"), "{rows}");
        assert!(rows.contains("198.51.100.0/24 outside any denied allowed"), "{rows}");
    }

    #[test]
    fn a_policy_that_would_not_be_put_in_force_is_no_difference() {
        let error = diff(&mk_rule1("70000")).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "cnp/default/rule1 would not be put in force: spec.ingress[0].toPorts[0].ports[0].port"
            ),
            "{error}"
        );
        assert!(diff(&mk_rule1("80").replace("{name: rule1}", "{}")).is_err());
    }

    #[test]
    fn many_names_are_few_words() {
        let all: BTreeSet<String> = ["a/1", "a/2", "b/1", "b/2", "c/1"].map(str::to_owned).into();
        let cell_of =
            |names: &[&str]| cell(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), &all);
        assert_eq!(cell_of(&["a/1", "a/2", "b/1", "b/2", "c/1", "host"]), "all pods, host");
        assert_eq!(cell_of(&["a/1", "a/2", "c/1"]), "all pods of a, c/1");
        assert_eq!(cell_of(&["a/1", "b/1", "c/1", "x outside", "y outside"]), "a/1, b/1, c/1, 2 more");
    }
}
