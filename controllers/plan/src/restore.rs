//! The first plan after a start: running pods keep what they have.
//!
//! Three records say what that is, and each pod is restored from the best of them: what its node was told (state and slices
//! of the node), its CiliumEndpoint, and the addresses that the kubelet reports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cilium_api::CiliumEndpoint;
use cilium_api::digest::{decode, digest};
use cilium_api::node_slice::{CiliumNodeStateSlice, OWNER_LABEL};
use cilium_api::node_state::{CiliumNodeState, SliceRef};
use cilium_api::parts::{Part, PartKey};
use cilium_ipam::Record;
use ipnet::IpNet;

use crate::endpoints::{Endpoint, endpoint_key, reported};
use crate::last_valid::{self, Kept};
use crate::names::PodName;
use crate::object::{Kind, ObjectKey};
use crate::pack::Path;
use crate::planner::Planner;
use crate::policies::object_key;
use crate::prefixes::recorded;

/// What was on record at the start.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Endpoints inline, by name of the node.
    inline: BTreeMap<String, Vec<(PodName, Held)>>,
    /// Slices that headers list.
    listed: Vec<SliceRef>,
    /// Endpoints in slices, by name of the slice, with the slice's digest.
    slices: BTreeMap<String, (String, Vec<(PodName, Held)>)>,
    endpoints: Vec<(PodName, Held)>,
    /// Router addresses that nodes were told of, by name of the node: a CiliumNode is written later, and may lack them.
    routers: BTreeMap<String, Vec<IpAddr>>,
    /// By name of the node.
    pub(crate) public_nodes: BTreeMap<String, PublicNode>,
    /// Slices with versions of policies, by their place: of two copies the one in the more specific slice counts.
    policies: BTreeMap<(u8, String), String>,
    /// Numbers of prefixes.
    prefixes: BTreeMap<IpNet, u32>,
    /// Identities of nodes.
    nodes: BTreeMap<String, u32>,
}

/// What a CiliumNode says of addresses.
#[derive(Debug)]
pub(crate) struct PublicNode {
    /// Each with its pool.
    pub(crate) blocks: Vec<(String, IpNet)>,
    pub(crate) routers: Vec<IpAddr>,
}

/// What a pod held.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    uid: String,
    identity: Option<u32>,
    record: Record,
}

/// How far a record is believed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// The node acts on it.
    Full,
    /// Only for addresses that the node may have given.
    InPrefix,
}

impl Records {
    pub(crate) fn add_node_state(&mut self, object: &CiliumNodeState) {
        let name = object.metadata.name.clone().unwrap_or_default();
        let desired = object.status.as_ref().and_then(|status| status.desired.as_ref());
        let Some(desired) = desired else { return };
        let inline = desired.inline.as_deref().map(endpoints_in).unwrap_or_default();
        self.inline.insert(name, inline);
        self.listed.extend(desired.slices.iter().cloned());
    }

    pub(crate) fn add_slice(&mut self, slice: &CiliumNodeStateSlice) {
        let name = slice.metadata.name.clone().unwrap_or_default();
        let owner = slice.metadata.labels.as_ref().and_then(|labels| labels.get(OWNER_LABEL));
        if owner.is_some_and(|owner| owner == last_valid::OWNER_LABEL) {
            let bits = name.rsplit_once('.').and_then(|(_, bits)| Path::parse(bits)).map_or(0, Path::len);
            self.policies.insert((bits, name), slice.spec.data.clone());
        } else if name.starts_with("cluster.") {
            // What does not decode was not ours: its prefixes get the numbers that they would get anyway, mostly.
            let parts = decode(&slice.spec.data).unwrap_or_default();
            self.prefixes.extend(recorded(&parts));
            self.nodes.extend(crate::nodes::recorded(&parts));
            self.routers.extend(crate::nodes::recorded_routers(&parts));
        } else if name.starts_with("node.") {
            let data = &slice.spec.data;
            self.slices.insert(name, (digest(data.as_bytes()), endpoints_in(data)));
        }
    }

    pub(crate) fn add_endpoint(&mut self, object: &CiliumEndpoint) {
        let meta = &object.metadata;
        let owner = meta.owner_references.iter().flatten().find(|owner| owner.kind == "Pod");
        let (Some(owner), Some(status)) = (owner, &object.status) else { return };
        let pairs =
            status.networking.as_ref().map(|networking| networking.addressing.as_slice()).unwrap_or_default();
        let ipv4 = pairs.iter().find_map(|pair| pair.ipv4.as_ref()?.parse().ok());
        let ipv6 = pairs.iter().find_map(|pair| pair.ipv6.as_ref()?.parse().ok());
        let record = Record { id: status.id.and_then(|id| id.try_into().ok()), ipv4, ipv6 };
        let identity = status.identity.as_ref().and_then(|identity| identity.id?.try_into().ok());
        let name = PodName::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        );
        self.endpoints.push((name, Held { uid: owner.uid.clone(), identity, record }));
    }

    /// What nodes were told, the valid before the stale: slices that no header lists are left over from a split or merge.
    fn told(&mut self) -> Vec<(PodName, Held)> {
        let listed = std::mem::take(&mut self.listed);
        let is_listed = |name: &String, digest: &String| {
            listed.iter().any(|r| (&*r.name, &*r.digest) == (name.as_str(), digest.as_str()))
        };
        let slices = std::mem::take(&mut self.slices).into_iter();
        let (current, stale): (Vec<_>, Vec<_>) =
            slices.partition(|(name, (digest, _))| is_listed(name, digest));
        let inline = std::mem::take(&mut self.inline).into_values().flatten();
        inline.chain(current.into_iter().chain(stale).flat_map(|(_, (_, held))| held)).collect()
    }
}

fn endpoints_in(data: &str) -> Vec<(PodName, Held)> {
    // What does not decode was not ours; the other records remain.
    let parts = decode(data).unwrap_or_default().into_iter();
    parts.filter_map(|(key, part)| held(&key, part)).collect()
}

fn held(key: &PartKey, part: Part) -> Option<(PodName, Held)> {
    let Part::Endpoint(endpoint) = part else { return None };
    let (namespace, name) = key.0.strip_prefix("endpoint/")?.split_once('/')?;
    let record = Record { id: Some(endpoint.id), ipv4: endpoint.ipv4, ipv6: endpoint.ipv6 };
    let held = Held { uid: endpoint.uid, identity: Some(endpoint.identity), record };
    Some((PodName::new(namespace, name), held))
}

impl Planner {
    /// Restores which numbers prefixes and nodes have. Before any is given out.
    pub(crate) fn restore_numbers(&mut self) {
        if let Some(records) = &mut self.records {
            self.prefixes.numbers.remember(std::mem::take(&mut records.prefixes));
            self.nodes.numbers.remember(std::mem::take(&mut records.nodes));
        }
    }

    /// Restores what pods hold and which versions of policies are in force. Nodes are known by now.
    pub(crate) fn restore(&mut self) {
        let Some(mut records) = self.records.take() else { return };
        for (node, PublicNode { blocks, routers }) in &records.public_nodes {
            self.endpoints.ipam.restore_blocks(node, blocks, routers);
        }
        for (node, routers) in &records.routers {
            self.endpoints.ipam.restore_blocks(node, &[], routers);
        }
        for (name, held) in records.told() {
            self.restore_endpoint(&name, &held, Trust::Full);
        }
        for (name, held) in &records.endpoints {
            self.restore_endpoint(name, held, Trust::InPrefix);
        }
        self.restore_reported();
        self.endpoints.ipam.trim();
        self.restore_policies(&records.policies);
    }

    fn restore_endpoint(&mut self, name: &PodName, held: &Held, trust: Trust) {
        let Some(pod) = self.pods.get(name).filter(|pod| pod.uid == held.uid) else { return };
        let node = pod.node.clone();
        let endpoint = self.endpoints.all.entry(name.clone()).or_insert_with(|| Endpoint::new(pod));
        endpoint.before = endpoint.before.or(held.identity);
        let has_addresses = held.record.addresses().next().is_some();
        let ipam = &mut self.endpoints.ipam;
        let object = self.nodes.get(&node).and_then(|entry| entry.object.as_ref());
        let has_prefixes =
            object.is_some_and(|object| !object.pod_cidrs.is_empty()) || ipam.blocks(&node).next().is_some();
        let is_inside = |address: IpAddr| ipam.is_pod_address(&node, address);
        let is_believed = trust == Trust::Full || !has_prefixes || held.record.addresses().all(is_inside);
        if endpoint.lease.is_none() && has_addresses && is_believed {
            // Taken already: then another record of this pod may do, and a new address otherwise.
            endpoint.lease = ipam.restore(&node, &held.record).ok();
        }
        self.node_mut(&node).pods.insert(name.clone());
    }

    fn restore_reported(&mut self) {
        for (name, pod) in &self.pods {
            let Some(record) = reported(&self.endpoints.ipam, pod) else { continue };
            let endpoint = self.endpoints.all.entry(name.clone()).or_insert_with(|| Endpoint::new(pod));
            if endpoint.lease.is_none() {
                endpoint.lease = self.endpoints.ipam.restore(&pod.node, &record).ok();
            }
        }
    }

    fn restore_policies(&mut self, slices: &BTreeMap<(u8, String), String>) {
        let mut kept = BTreeMap::new();
        for ((_, name), data) in slices {
            match last_valid::decode(data) {
                Ok(policies) => kept.extend(policies),
                Err(error) => {
                    let note = format!("versions of policies on record cannot be read: {error}");
                    self.warn(ObjectKey::cluster(Kind::Slice, name), None, "PolicyNotRestored", &note);
                }
            }
        }
        kept.values().for_each(|version| self.restore_policy(version));
    }

    /// Puts a version on record in force, if the policy has none that is valid.
    fn restore_policy(&mut self, version: &Kept) {
        let key = version.key();
        if !self.policies.lacks_version(&key, version.uid()) {
            return;
        }
        let loaded = match version.load(self.config.settings()) {
            Ok(loaded) => loaded,
            Err(error) => {
                let note = format!("the version that was in force is refused now: {error}");
                return self.warn(object_key(&key), Some(version.uid()), "PolicyNotRestored", &note);
            }
        };
        self.put_version(&key, Some((loaded.rules, loaded.text)));
        if let Some(policy) = self.policies.all.get_mut(&key) {
            policy.uid = version.uid().to_owned();
            policy.in_force = Some(loaded.generation);
        }
    }

    pub(crate) fn observe_endpoint(&mut self, object: &CiliumEndpoint) {
        if let Some(records) = &mut self.records {
            records.add_endpoint(object);
        }
        let meta = &object.metadata;
        let name = PodName::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        );
        let print = crate::public_endpoint::Print::of(object);
        let key = endpoint_key(&name);
        self.reports.endpoints.observe(&key, print, meta.resource_version.as_deref(), meta.uid.as_deref());
    }
}
