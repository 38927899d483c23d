//! Which CiliumBGPClusterConfig a node goes by, and what the node has of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use cilium_api::bgp::BgpInstance;
use cilium_api::bgp_node_config::BgpNodeConfigSpec;
use cilium_core::hash::{fnv1a, mix};

use crate::bgp::{Inputs, Name, Node, NodeConfig, RouterIds};
use crate::overrides::Override;
use crate::router_ids::Pool;
use crate::session::Template;

/// A node that some configuration selects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    /// Configurations that select it, the oldest first: that one it goes by.
    pub(crate) candidates: Vec<Name>,
    pub(crate) config: NodeConfig,
    /// Routers that the node is told of, by their names.
    pub(crate) instances: BTreeMap<String, BgpInstance>,
    /// Routers that it is not told of.
    pub(crate) lacking: Vec<(String, Lack)>,
}

/// What a router cannot be without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lack {
    /// An AS number.
    Asn,
    /// A router id: the pool has no more.
    RouterId,
}

/// How a configuration fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Nodes that it selects.
    pub(crate) selected: usize,
    /// Older ones that have nodes that it selects.
    pub(crate) conflicts: BTreeSet<Name>,
    /// CiliumBGPPeerConfigs that it names and that are not there.
    pub(crate) missing: BTreeSet<String>,
    /// Routers that nodes are not told of: on how many nodes, and the first of these.
    pub(crate) lacking: BTreeMap<(String, Lack), (usize, Name)>,
}

/// Configurations that select a node, the oldest first.
pub(crate) fn candidates(node: &Node, inputs: &Inputs) -> Vec<Name> {
    let Some(labels) = &node.labels else { return Vec::new() };
    let mut found: Vec<_> = inputs.clusters.iter().filter(|(_, config)| config.selects(labels)).collect();
    found.sort_by_key(|(name, config)| (config.age(), (*name).clone()));
    found.into_iter().map(|(name, _)| name.clone()).collect()
}

/// What a node has of the first of its candidates.
pub(crate) fn member(
    name: &Arc<str>,
    candidates: Vec<Name>,
    templates: &BTreeMap<Name, Vec<Template>>,
    inputs: &Inputs,
    pool: &Pool,
) -> Option<Member> {
    let owner = candidates.first()?;
    let (config, templates) = (inputs.clusters.get(owner)?, templates.get(owner)?);
    let different = inputs.overrides.get(&**name);
    let node = inputs.nodes.get(name)?;
    let (mut spec, mut instances, mut lacking) = (BgpNodeConfigSpec::default(), BTreeMap::new(), Vec::new());
    for template in templates {
        let different = different.and_then(|it| it.instance(&template.name));
        let id = different.and_then(|it| it.router_id);
        let id = id.or_else(|| router_id(name, node, &template.name, inputs, pool));
        spec.bgp_instances.push(template.public(different, id));
        match template.part(different, id) {
            Some(part) => drop(instances.insert(template.name.clone(), part)),
            None => {
                let lack = if id.is_none() { Lack::RouterId } else { Lack::Asn };
                lacking.push((template.name.clone(), lack));
            }
        }
    }
    let config = NodeConfig { owner: owner.clone(), owner_uid: config.uid.clone(), spec };
    Some(Member { candidates, config, instances, lacking })
}

fn router_id(name: &Arc<str>, node: &Node, router: &str, inputs: &Inputs, pool: &Pool) -> Option<Ipv4Addr> {
    match inputs.config.router_ids {
        RouterIds::Pool(_) => pool.get(name, router),
        RouterIds::Node => Some(node.ipv4.unwrap_or_else(|| derived(name))),
    }
}

/// A router id for a node without IPv4: the same at all times, and hardly another node's.
fn derived(name: &str) -> Ipv4Addr {
    let hash = mix(fnv1a(name.bytes()));
    // Half of a hash is as good as the whole; 0 is no router id (RFC 6286).
    let [a, b, c, d, ..] = hash.to_be_bytes();
    let id = Ipv4Addr::new(a, b, c, d);
    if id.is_unspecified() { Ipv4Addr::new(0, 0, 0, 1) } else { id }
}

/// Routers of a node that need an id of the pool.
pub(crate) fn wanting(templates: &[Template], different: Option<&Override>) -> BTreeSet<String> {
    let own = |name: &str| different.and_then(|it| it.instance(name)).and_then(|it| it.router_id);
    let names = templates.iter().map(|it| &it.name);
    names.filter(|name| own(name).is_none()).cloned().collect()
}

/// How each configuration fares.
pub(crate) fn standings(members: &BTreeMap<Name, Member>, inputs: &Inputs) -> BTreeMap<Name, Standing> {
    let start = |(name, config): (&Name, &crate::cluster::ClusterConfig)| {
        let missing = config.peer_configs().filter(|it| !inputs.peers.contains_key(*it));
        let missing = missing.map(str::to_owned).collect();
        (name.clone(), Standing { missing, ..Standing::default() })
    };
    let mut standings: BTreeMap<Name, Standing> = inputs.clusters.iter().map(start).collect();
    for (node, member) in members {
        for name in &member.candidates {
            let Some(standing) = standings.get_mut(name) else { continue };
            standing.selected += 1;
            if *name != member.config.owner {
                standing.conflicts.insert(member.config.owner.clone());
                continue;
            }
            for lack in &member.lacking {
                standing.lacking.entry(lack.clone()).or_insert_with(|| (0, node.clone())).0 += 1;
            }
        }
    }
    standings
}
