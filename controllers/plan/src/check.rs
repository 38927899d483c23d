//! What must hold after every plan. Runs in tests and debug builds only.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::parts::{Part, PartKey};

use crate::compiled::{host, place};
use crate::nodes::Entry;
use crate::pack::{self, MAX_BYTES, MAX_PARTS, Slices, Tree};
use crate::planner::Planner;

/// What was found wrong.
type Notes = Vec<String>;

impl Planner {
    pub(crate) fn assert_invariants(&self) {
        let mut notes = Notes::new();
        self.check_leases(&mut notes);
        self.check_endpoints(&mut notes);
        self.check_identities(&mut notes);
        for (name, entry) in self.nodes.iter() {
            self.check_node(name, entry, &mut notes);
        }
        self.check_shared(&mut notes);
        notes.extend(self.load_balancers.check());
        notes.extend(self.announcements.check());
        notes.extend(self.routing.check());
        notes.extend(self.endpoints.ipam.check());
        assert!(notes.is_empty(), "the plan contradicts itself:\n{}", notes.join("\n"));
    }

    /// No address twice, no number twice on a node.
    fn check_leases(&self, notes: &mut Notes) {
        let (mut addresses, mut numbers) = (BTreeMap::new(), BTreeMap::new());
        for (name, endpoint) in &self.endpoints.all {
            let Some(lease) = endpoint.lease else { continue };
            for address in lease.addresses() {
                if let Some(other) = addresses.insert(address, name) {
                    notes.push(format!("{address} belongs to {name} and {other}"));
                }
            }
            if let Some(other) = numbers.insert((&endpoint.node, lease.id), name) {
                notes.push(format!("number {} of {} belongs to {name} and {other}", lease.id, endpoint.node));
            }
        }
        if self.endpoints.ipam.held() != addresses.len() {
            notes.push(format!("{} addresses are held for {}", self.endpoints.ipam.held(), addresses.len()));
        }
    }

    /// Every endpoint has a pod, a known identity and its parts.
    fn check_endpoints(&self, notes: &mut Notes) {
        for (name, endpoint) in &self.endpoints.all {
            if self.pods.get(name).is_none_or(|pod| (&pod.uid, &pod.node) != (&endpoint.uid, &endpoint.node))
            {
                notes.push(format!("endpoint {name} has no pod"));
            }
            if endpoint.published != endpoint.identity.filter(|_| endpoint.lease.is_some()) {
                notes.push(format!("endpoint {name} is published as {:?}", endpoint.published));
            }
            let Some(number) = endpoint.published else { continue };
            if self.shared.tree().get(&PartKey::identity(number)).is_none()
                || self.identities.labels(number).is_none()
            {
                notes.push(format!("identity {number} of endpoint {name} is not known"));
            }
            for address in endpoint.addresses() {
                if !self.endpoints.addresses.contains(&address)
                    || self.shared.tree().get(&PartKey::address(address)).is_none()
                {
                    notes.push(format!("address {address} of endpoint {name} is not known"));
                }
            }
        }
    }

    /// Identities count the endpoints that have them.
    fn check_identities(&self, notes: &mut Notes) {
        let mut counted: BTreeMap<u32, BTreeMap<String, usize>> = BTreeMap::new();
        for endpoint in self.endpoints.all.values() {
            if let Some(number) = endpoint.published {
                *counted.entry(number).or_default().entry(endpoint.node.clone()).or_default() += 1;
            }
        }
        for (name, entry) in self.nodes.iter() {
            if let Some(number) = entry.host {
                counted.entry(number).or_default().insert(name.clone(), 1);
            }
        }
        for (number, known) in self.identities.known() {
            if known.nodes != counted.remove(number).unwrap_or_default() {
                notes.push(format!("identity {number} counts its endpoints wrong: {:?}", known.nodes));
            }
        }
        notes
            .extend(counted.keys().map(|number| format!("identity {number} has endpoints and is not known")));
    }

    /// A node has its endpoints, the policies of their identities, and nothing else.
    fn check_node(&self, name: &str, entry: &Entry, notes: &mut Notes) {
        let mut expected = BTreeSet::new();
        let kind = place(host(entry.api_server));
        for (pod, endpoint) in self.endpoints.all.iter().filter(|(_, endpoint)| endpoint.node == name) {
            let Some(number) = endpoint.published else { continue };
            expected.insert(PartKey::endpoint(&pod.namespace, &pod.name));
            let compiled = self.identities.get(number).and_then(|known| known.compiled[kind].as_ref());
            if compiled.is_none() {
                notes.push(format!("identity {number} is not compiled for node {name}"));
            }
            expected.extend(compiled.and_then(|it| it.text.as_ref()).map(|_| PartKey::policy(number)));
        }
        if let Some(host) = entry.host.and_then(|number| self.identities.get(number)) {
            expected.extend(
                host.compiled[kind].iter().filter_map(|it| it.text.as_ref()).map(|_| PartKey::policy(1)),
            );
        }
        let redirects = self.expected_redirects(name);
        for (key, part) in &redirects {
            let text = pack::encode(key, &Part::Redirect(part.clone()));
            if entry.state.tree().get(key) != Some(&text) {
                notes.push(format!("{key} of node {name} is not as its pods are"));
            }
        }
        expected.extend(redirects.into_keys());
        let mut decided = self.announcements.expected(name);
        decided.extend(self.routing.expected(name));
        for (key, part) in &decided {
            if entry.state.tree().get(key) != Some(&pack::encode(key, part)) {
                notes.push(format!("{key} of node {name} is not as it was decided"));
            }
        }
        expected.extend(decided.into_keys());
        let found: BTreeSet<PartKey> = entry.state.tree().keys().into_iter().cloned().collect();
        if found != expected {
            notes.push(format!("node {name} has {found:?} instead of {expected:?}"));
        }
        if entry.state.tree().is_touched() {
            notes.push(format!("node {name} has changes that no plan has packed"));
        }
        check_slices(name, &entry.state.slices, entry.state.tree(), notes);
    }

    /// Every address part has an owner.
    fn check_shared(&self, notes: &mut Notes) {
        for key in self.shared.tree().keys() {
            let Some(address) = key.0.strip_prefix("address/").and_then(|text| text.parse().ok()) else {
                continue;
            };
            if !self.endpoints.addresses.contains(&address)
                && !self.api_server.external().contains_key(&address)
            {
                notes.push(format!("{key} has no owner"));
            }
        }
        let prefixes: BTreeSet<PartKey> = self.prefixes.named().map(PartKey::prefix).collect();
        let found = self.shared.tree().keys().into_iter().filter(|key| key.kind() == "prefix").cloned();
        let found: BTreeSet<PartKey> = found.collect();
        if found != prefixes {
            notes.push(format!("prefixes are {found:?} instead of {prefixes:?}"));
        }
        let routes = self.routing.expected_shared();
        let found = self.shared.tree().keys().into_iter().filter(|key| key.kind() == "route").cloned();
        if found.collect::<BTreeSet<PartKey>>() != routes.keys().cloned().collect() {
            notes.push("routes of the cluster are not those that were decided".to_owned());
        }
        for (key, part) in &routes {
            if self.shared.tree().get(key) != Some(&pack::encode(key, part)) {
                notes.push(format!("{key} is not as it was decided"));
            }
        }
        check_slices("cluster", &self.shared.slices, self.shared.tree(), notes);
    }
}

/// Slices keep their limits, and hold parts only.
fn check_slices(owner: &str, slices: &Slices, tree: &Tree, notes: &mut Notes) {
    for name in slices.names() {
        let Some((parts, data)) = slices.find(&name).and_then(|(path, _)| tree.leaf(path)) else {
            notes.push(format!("slice {name} of {owner} has no content"));
            continue;
        };
        if parts > 1 && (parts > MAX_PARTS || data.len() > MAX_BYTES) {
            notes.push(format!("slice {name} has {parts} parts and {} bytes", data.len()));
        }
        let decoded = cilium_api::digest::decode(&data).unwrap_or_default();
        if decoded.len() != parts
            || !decoded.iter().all(|(key, part): (&PartKey, &Part)| key.kind() == part.kind())
        {
            notes.push(format!("slice {name} does not decode to its parts"));
        }
    }
}
