//! The index of policies and identities.

use std::collections::{BTreeSet, HashMap};

use cilium_core::reserved::{self, Families, is_endpoint, is_node_host};
use cilium_core::{Label, Labels, named_port, prefix};

use crate::key::PolicyKey;
use crate::rules::{PolicyRules, Rule};
use crate::selectors::{RuleId, SelectorId, Selectors, Use};

/// When policies are enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In each direction in which a policy selects the endpoint.
    #[default]
    Default,
    /// In both directions of every endpoint.
    Always,
    /// Not at all.
    Never,
}

/// Settings of the cluster that policies depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Address families; decides which identities the world has.
    pub families: Families,
    /// When policies are enforced.
    pub mode: Mode,
}

/// A number above all identities: the host as it is on a node that runs an API server.
///
/// [`reserved::HOST`] has other labels there than elsewhere, so it is matched as two identities.
pub(crate) const API_SERVER_HOST: u32 = u32::MAX;

/// Policies and identities, of which any may change at any time.
///
/// # Guarantees
/// - The state depends on the present policies and identities only, not on their history.
/// - A change costs what it touches: a policy its selectors and the identities that they match, an identity its labels and
///   the selectors that ask for them.
/// - [`PolicyIndex::take_affected`] names at least every identity whose compiled policy differs from the last time.
#[derive(Clone, Debug)]
pub struct PolicyIndex {
    pub(crate) mode: Mode,
    families: Families,
    pub(crate) selectors: Selectors,
    pub(crate) policies: HashMap<PolicyKey, Vec<Rule<SelectorId>>>,
    affected: BTreeSet<u32>,
}

impl PolicyIndex {
    /// An index that knows the reserved identities and no policies.
    pub fn new(config: Config) -> Self {
        let Config { families, mode } = config;
        let mut selectors = Selectors::default();
        for (number, labels) in reserved::all(families) {
            selectors.set_identity(number, Some(prefix::complete(labels, families)));
        }
        selectors.set_identity(API_SERVER_HOST, Some(reserved::api_server_host_labels()));
        Self { mode, families, selectors, policies: HashMap::new(), affected: BTreeSet::new() }
    }

    /// Puts a policy in force in place of the one with its key, or takes it out of force.
    ///
    /// A version that [`crate::reduce`] refuses must not come here: without this call the last valid one stays. References must
    /// be [resolved](PolicyRules::resolved): what they stand for is not known here.
    pub fn set_policy(&mut self, key: &PolicyKey, rules: Option<PolicyRules>) {
        debug_assert!(
            !rules.as_ref().is_some_and(PolicyRules::has_references),
            "{key} has unresolved references"
        );
        let new: Option<Vec<_>> =
            rules.map(|rules| rules.rules.into_iter().map(|rule| self.intern(rule)).collect());
        if self.policies.get(key) == new.as_ref() {
            return;
        }
        let old = self.policies.remove(key).unwrap_or_default();
        self.link(key, &old, false);
        if let Some(new) = new {
            self.link(key, &new, true);
            self.policies.insert(key.clone(), new);
        }
        for rule in &old {
            self.selectors.drop_unused(rule.subject);
            rule.peer_selectors().for_each(|id| self.selectors.drop_unused(*id));
        }
    }

    /// Sets the labels of an identity, or forgets it. Reserved identities are known from the start.
    pub fn set_identity(&mut self, number: u32, labels: Option<Labels>) {
        let labels = labels.map(|labels| prefix::complete(labels, self.families));
        if number == API_SERVER_HOST || self.selectors.labels(number) == labels.as_ref() {
            return;
        }
        let ports = |labels: Option<&Labels>| labels.map(named_port::of_labels);
        let (before, after) = (ports(self.selectors.labels(number)), ports(labels.as_ref()));
        for id in self.selectors.set_identity(number, labels) {
            self.affect_subjects_of_peer(id, number);
        }
        if before.is_some() && after.is_some() && before != after {
            // What goes out to names of ports looks into the peer.
            for id in self.selectors.matched(number) {
                self.affect_subjects_of_peer(id, number);
            }
        }
        self.affect(number);
    }

    /// Changes when policies are enforced.
    pub fn set_mode(&mut self, mode: Mode) {
        if self.mode != mode {
            self.mode = mode;
            self.affected.extend(self.selectors.identities().filter(|number| is_subject(*number)));
        }
    }

    /// Identities whose compiled policy may have changed since the last call: compile them again.
    ///
    /// Only numbers of endpoints, and of nodes as subjects. A forgotten identity is among them once.
    pub fn take_affected(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.affected)
    }

    /// Whether [`PolicyIndex::take_affected`] would give the identity.
    pub fn is_affected(&self, number: u32) -> bool {
        self.affected.contains(&number)
    }

    /// Identities that a policy selects; empty for a policy that is not in force.
    pub fn selected(&self, key: &PolicyKey) -> BTreeSet<u32> {
        let rules = self.policies.get(key).into_iter().flatten();
        rules.flat_map(|rule| self.subjects(rule)).collect()
    }

    /// Labels of an identity, with the prefix that a world stands for; `None` for one that is not known.
    pub fn labels(&self, number: u32) -> Option<&Labels> {
        self.selectors.labels(number)
    }

    /// Whether something beside policies closes both directions of an identity.
    pub fn is_always_closed(&self, number: u32) -> bool {
        self.mode == Mode::Always || self.is_init(number)
    }

    /// Policies that select an identity.
    pub fn selecting(&self, number: u32) -> BTreeSet<PolicyKey> {
        self.rules_about(number).into_iter().map(|(key, _)| key.clone()).collect()
    }

    /// Policies with a selector of peers that the identity matches, and no other for which `is_other` is true.
    pub fn hinging_on(&self, number: u32, is_other: &impl Fn(u32) -> bool) -> BTreeSet<PolicyKey> {
        let peers = self.selectors.matched_peers(number);
        let alone = peers.filter(|id| !self.selectors.members(*id).any(is_other));
        alone.flat_map(|id| self.selectors.rules_with_peer(id)).map(|(key, _)| key.clone()).collect()
    }

    /// Whether the policy is in force, in some version.
    pub fn contains(&self, key: &PolicyKey) -> bool {
        self.policies.contains_key(key)
    }

    /// Rules about an identity; none about what no policy can select.
    pub(crate) fn rules_about(&self, number: u32) -> BTreeSet<&RuleId> {
        if !is_subject(number) {
            return BTreeSet::new();
        }
        let mut rules = self.selectors.rules_about(number);
        rules.retain(|rule| self.rule(rule).is_some_and(|rule| rule.nodes == is_node_host(number)));
        rules
    }

    fn rule(&self, (key, index): &RuleId) -> Option<&Rule<SelectorId>> {
        self.policies.get(key)?.get(*index)
    }

    /// What a rule is about: nodes or endpoints, never both.
    fn subjects(&self, rule: &Rule<SelectorId>) -> impl Iterator<Item = u32> {
        let nodes = rule.nodes;
        let members = self.selectors.members(rule.subject);
        members.filter(move |number| is_subject(*number) && is_node_host(*number) == nodes)
    }

    /// Endpoints without labels yet are closed until they have some.
    pub(crate) fn is_init(&self, number: u32) -> bool {
        self.selectors.labels(number).is_some_and(|labels| labels.iter().any(is_init_label))
    }

    fn intern(&mut self, rule: Rule) -> Rule<SelectorId> {
        rule.map(|selector| self.selectors.intern(selector))
    }

    fn link(&mut self, key: &PolicyKey, rules: &[Rule<SelectorId>], present: bool) {
        for (index, rule) in rules.iter().enumerate() {
            let id = (key.clone(), index);
            self.selectors.set_use(rule.subject, Use::Subject, &id, present);
            for peer in rule.peer_selectors() {
                self.selectors.set_use(*peer, Use::Peer, &id, present);
            }
            let subjects: Vec<u32> = self.subjects(rule).collect();
            self.affected.extend(subjects);
        }
    }

    fn affect_subjects_of_peer(&mut self, id: SelectorId, number: u32) {
        let rules = self.selectors.rules_with_peer(id).filter(|rule| !self.is_covered(rule, id, number));
        let rules: Vec<RuleId> = rules.cloned().collect();
        rules.iter().for_each(|rule| self.affect_subjects(rule));
    }

    fn affect_subjects(&mut self, id: &RuleId) {
        let subjects: Vec<u32> = self.rule(id).into_iter().flat_map(|rule| self.subjects(rule)).collect();
        self.affected.extend(subjects);
    }

    /// Whether an identity makes no difference to a rule that names it as a peer, as the rule has its aggregate, too.
    fn is_covered(&self, rule: &RuleId, selector: SelectorId, number: u32) -> bool {
        let aggregate = reserved::aggregate_of(number);
        let all = self.rule(rule).into_iter().flat_map(Rule::traffic);
        let mut about = all.filter(|traffic| traffic.peers.selectors().contains(&selector));
        // Names of ports are looked up in each identity by itself.
        about.all(|traffic| {
            let mut aggregates = self.aggregates(traffic.peers.selectors());
            traffic.named.is_empty() && aggregates.any(|found| found == aggregate)
        })
    }

    fn affect(&mut self, number: u32) {
        if is_subject(number) {
            self.affected.insert(number);
        }
    }
}

/// Whether policies can select the number.
pub(crate) fn is_subject(number: u32) -> bool {
    is_endpoint(number) || is_node_host(number)
}

fn is_init_label(label: &Label) -> bool {
    label.source == cilium_core::Source::RESERVED && &*label.key == "init"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reduce;

    fn mk_rules(subject: &str, peer: &str) -> PolicyRules {
        let policy = serde_json::json!({
            "kind": "CiliumClusterwideNetworkPolicy",
            "metadata": {"name": "p"},
            "spec": {
                "endpointSelector": {"matchLabels": {"app": subject}},
                "ingress": [{"fromEndpoints": [
                    {"matchLabels": {"app": peer}},
                    {"matchExpressions": [{"key": "reserved:x", "operator": "DoesNotExist"}]},
                ]}],
            },
        });
        reduce::ccnp(&serde_json::from_value(policy).unwrap(), "kind").unwrap()
    }

    #[test]
    fn nothing_stays_of_what_was_removed() {
        let key = PolicyKey::ccnp("p");
        let mut index = PolicyIndex::new(Config::default());
        for (subject, peer) in [("a", "b"), ("b", "a"), ("c", "c")] {
            index.set_identity(300, Some(Labels::parse([format!("k8s:app={subject}")]).unwrap()));
            index.set_policy(&key, Some(mk_rules(subject, peer)));
        }
        assert!(!index.selectors.is_empty());
        index.set_policy(&key, None);
        index.set_identity(300, None);
        assert!(index.selectors.is_empty());
        assert!(index.policies.is_empty());
    }
}
