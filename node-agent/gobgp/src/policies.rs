//! Which prefixes go to which peer, in GoBGP's words: a policy for each advertisement that a peer gets of a family, with a set of
//! prefixes of the same name and a set of one neighbour. What no policy names is not advertised; what comes is taken.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cilium_rest::bgp::{Attributes, Family, RoutePolicy};
use ipnet::IpNet;

use crate::proto::{
    Actions, CommunityAction, Conditions, DefinedSet, LocalPrefAction, MatchSet, Policy, PolicyAssignment,
    Prefix, Statement,
};
use crate::version::Version;

const ACCEPT: i32 = 1;
const REJECT: i32 = 2;
const EXPORT: i32 = 2;

/// Of which origin routes must be: `-1` is any.
const ANY_VALIDATION: i32 = -1;

/// `policy`, in the protocol's words.
pub(crate) fn policy(version: Version, policy: &RoutePolicy) -> Policy {
    let name = policy_name(policy);
    let any = |name| Some(MatchSet { r#type: version.number(0), name });
    let conditions = Conditions {
        prefix_set: any(name.clone()),
        neighbor_set: any(neighbour_name(policy)),
        rpki_result: ANY_VALIDATION,
    };
    let actions = Some(actions(version, &policy.attributes));
    let statement = Statement { name: name.clone(), conditions: Some(conditions), actions };
    Policy { name, statements: vec![statement] }
}

fn policy_name(policy: &RoutePolicy) -> String {
    let family = match policy.family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    };
    format!("{}/{}/{family}", neighbour_name(policy), policy.advertisement)
}

fn neighbour_name(policy: &RoutePolicy) -> String {
    format!("{}/{}", policy.instance, policy.peer)
}

fn actions(version: Version, attributes: &Attributes) -> Actions {
    let add = |communities: Vec<String>| {
        (!communities.is_empty()).then(|| CommunityAction { r#type: version.number(0), communities })
    };
    let standard = attributes.communities.iter().map(|c| format!("{}:{}", c >> 16, c & 0xffff));
    let large = attributes.large_communities.iter().map(|(admin, one, two)| format!("{admin}:{one}:{two}"));
    Actions {
        route_action: ACCEPT,
        community: add(standard.collect()),
        local_pref: attributes.local_preference.map(|value| LocalPrefAction { value }),
        large_community: add(large.collect()),
    }
}

/// The sets of the kind `number` that `policies` name, each once.
pub(crate) fn defined_sets(version: Version, number: i32, policies: &[RoutePolicy]) -> Vec<DefinedSet> {
    let defined_type = version.number(version.ordinal(number));
    let sets: BTreeMap<String, DefinedSet> = match version.ordinal(number) {
        0 => policies.iter().map(|policy| prefix_set(defined_type, policy)).collect(),
        1 => policies.iter().map(|policy| neighbour_set(defined_type, policy)).collect(),
        _ => BTreeMap::new(),
    };
    sets.into_values().collect()
}

fn prefix_set(defined_type: i32, policy: &RoutePolicy) -> (String, DefinedSet) {
    let prefixes = policy.prefixes.iter().map(|prefix| Prefix {
        ip_prefix: prefix.to_string(),
        mask_length_min: prefix.prefix_len().into(),
        mask_length_max: prefix.prefix_len().into(),
    });
    let name = policy_name(policy);
    let set = DefinedSet { defined_type, name: name.clone(), list: Vec::new(), prefixes: prefixes.collect() };
    (name, set)
}

fn neighbour_set(defined_type: i32, policy: &RoutePolicy) -> (String, DefinedSet) {
    let name = neighbour_name(policy);
    let list = vec![IpNet::from(policy.address).to_string()];
    (name.clone(), DefinedSet { defined_type, name, list, prefixes: Vec::new() })
}

/// What holds for `peer` (`None`: for all of them) in a direction.
pub(crate) fn assignment(
    version: Version,
    name: String,
    peer: Option<IpAddr>,
    direction: i32,
    policies: &[RoutePolicy],
) -> PolicyAssignment {
    let is_export = direction == EXPORT;
    let of_peer =
        policies.iter().filter(|policy| is_export && peer.is_none_or(|peer| policy.address == peer));
    PolicyAssignment {
        name,
        direction,
        policies: of_peer.map(|of_peer| policy(version, of_peer)).collect(),
        default_action: if is_export { REJECT } else { ACCEPT },
    }
}
