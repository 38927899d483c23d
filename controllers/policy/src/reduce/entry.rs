//! One entry of `ingress`, `egress` or their deny lists: peers, ports, and what else was asked for.
//!
//! Absent and empty lists differ, and not in the same way for all lists:
//! - no list of peers: any peer, on the ports given; without ports the entry is about nothing,
//! - an empty list of endpoints, entities, nodes, prefixes, services or groups: no peer,
//! - an empty list of names: as if it were absent.

use cilium_api::egress::{EgressDenyRule, EgressPeers, EgressRule};
use cilium_api::icmp::IcmpRule;
use cilium_api::ingress::{IngressDenyRule, IngressPeers, IngressRule};
use cilium_api::peer::{CidrRule, Entity, FqdnSelector, ServiceSelector};
use cilium_api::port::{PortDenyRule, PortRule};
use cilium_api::rule::{Authentication, AuthenticationMode};
use cilium_api::selector::EndpointSelector;
use cilium_core::{Peers, Selector, entity};

use super::ports::{self, Asked, Found};
use super::selectors::{PeerScope, peer};
use super::{icmp, names, prefixes, selectors, services};
use crate::invalid::{Invalid, Path};
use crate::reference::Reference;
use crate::rules::{Name, Ports, Traffic};

/// An entry of either direction, with the lists of peers that it has.
pub(super) struct Entry<'a> {
    is_egress: bool,
    lists: Vec<List<'a>>,
    /// Length of a list that must be empty, with its name.
    requires: (&'static str, usize),
    to_ports: ToPorts<'a>,
    icmps: &'a [IcmpRule],
    authentication: Option<&'a Authentication>,
}

/// Ports of an entry.
#[derive(Clone, Copy)]
enum ToPorts<'a> {
    Allow(&'a [PortRule]),
    Deny(&'a [PortDenyRule]),
}

impl ToPorts<'_> {
    fn is_empty(self) -> bool {
        match self {
            Self::Allow(items) => items.is_empty(),
            Self::Deny(items) => items.is_empty(),
        }
    }
}

/// A list of peers that is present.
struct List<'a> {
    field: &'static str,
    content: Content<'a>,
}

enum Content<'a> {
    Endpoints(&'a [EndpointSelector]),
    Entities(&'a [Entity]),
    Cidrs(&'a [String]),
    CidrSets(&'a [CidrRule]),
    Services(&'a [ServiceSelector]),
    Nodes(&'a [EndpointSelector]),
    Names(&'a [FqdnSelector]),
    /// Not enforced by this version unless it is empty.
    Unsupported {
        /// What the list holds, as the subject of a sentence.
        what: &'static str,
        length: usize,
    },
}

impl<'a> List<'a> {
    fn endpoints(field: &'static str, list: &'a Option<Vec<EndpointSelector>>) -> Option<Self> {
        list.as_deref().map(|list| Self { field, content: Content::Endpoints(list) })
    }

    fn entities(field: &'static str, list: &'a Option<Vec<Entity>>) -> Option<Self> {
        list.as_deref().map(|list| Self { field, content: Content::Entities(list) })
    }

    fn cidrs(field: &'static str, list: &'a Option<Vec<String>>) -> Option<Self> {
        list.as_deref().map(|list| Self { field, content: Content::Cidrs(list) })
    }

    fn cidr_sets(field: &'static str, list: &'a Option<Vec<CidrRule>>) -> Option<Self> {
        list.as_deref().map(|list| Self { field, content: Content::CidrSets(list) })
    }

    fn services(field: &'static str, list: &'a Option<Vec<ServiceSelector>>) -> Option<Self> {
        list.as_deref().map(|list| Self { field, content: Content::Services(list) })
    }

    fn nodes(field: &'static str, list: &'a Option<Vec<EndpointSelector>>) -> Option<Self> {
        list.as_deref().map(|list| Self { field, content: Content::Nodes(list) })
    }

    fn names_of(field: &'static str, list: &'a Option<Vec<FqdnSelector>>) -> Option<Self> {
        list.as_deref().map(|list| Self { field, content: Content::Names(list) })
    }

    fn unsupported<T>(field: &'static str, what: &'static str, list: &Option<Vec<T>>) -> Option<Self> {
        let length = list.as_ref()?.len();
        Some(Self { field, content: Content::Unsupported { what, length } })
    }

    fn length(&self) -> usize {
        match self.content {
            Content::Endpoints(list) => list.len(),
            Content::Entities(list) => list.len(),
            Content::Cidrs(list) => list.len(),
            Content::CidrSets(list) => list.len(),
            Content::Services(list) => list.len(),
            Content::Nodes(list) => list.len(),
            Content::Names(list) => list.len(),
            Content::Unsupported { length, .. } => length,
        }
    }

    /// Whether the list restricts peers; one that does not is as good as absent.
    fn restricts(&self) -> bool {
        self.length() > 0 || !matches!(self.content, Content::Names(_))
    }

    fn peers(&self, scope: &PeerScope<'_>, path: &Path) -> Result<Vec<Peers>, Invalid> {
        let path = path.field(self.field);
        match self.content {
            Content::Endpoints(list) => {
                each(list, &path, |path, selector| Ok(selectors::peers(scope, peer(scope, path, selector)?)))
            }
            Content::Entities(list) => each(list, &path, |path, entity| {
                entity::peers(entity, scope.scope.settings.cluster)
                    .ok_or_else(|| path.malformed(format!("{:?} is not an entity", entity.as_str())))
            }),
            Content::Cidrs(list) => each(list, &path, |path, text| prefixes::cidr(path, text)),
            Content::CidrSets(list) => each(list, &path, prefixes::cidr_set),
            Content::Nodes([_, ..]) if !scope.scope.settings.node_selector_labels => Err(path.disabled(
                "a peer by node labels",
                "enable-node-selector-labels",
                "nodeSelectorLabels",
            )),
            Content::Nodes(list) => each(list, &path, |path, selector| {
                Ok(Peers::Selected(vec![selectors::node(scope, path, selector)?]))
            }),
            // Services are references, and names are no identities before a node hears of their addresses.
            Content::Services(_) | Content::Names(_) | Content::Unsupported { length: 0, .. } => {
                Ok(Vec::new())
            }
            Content::Unsupported { what, .. } => Err(path.unsupported(what)),
        }
    }

    /// Peers that other objects stand for.
    fn references(&self, path: &Path) -> Result<Vec<Reference>, Invalid> {
        let path = path.field(self.field);
        match self.content {
            Content::CidrSets(list) => {
                Ok(each(list, &path, prefixes::group_reference)?.into_iter().flatten().collect())
            }
            Content::Services(list) => {
                Ok(each(list, &path, services::reference)?.into_iter().flatten().collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    fn names(&self, path: &Path) -> Result<Vec<Name>, Invalid> {
        match self.content {
            Content::Names(list) => names::patterns(&path.field(self.field), list),
            _ => Ok(Vec::new()),
        }
    }
}

fn from_lists(peers: &IngressPeers) -> Vec<List<'_>> {
    let lists = [
        List::endpoints("fromEndpoints", &peers.from_endpoints),
        List::cidrs("fromCIDR", &peers.from_cidr),
        List::cidr_sets("fromCIDRSet", &peers.from_cidr_set),
        List::entities("fromEntities", &peers.from_entities),
        List::unsupported("fromGroups", "a group of a cloud provider", &peers.from_groups),
        List::nodes("fromNodes", &peers.from_nodes),
    ];
    lists.into_iter().flatten().collect()
}

fn to_lists<'a>(peers: &'a EgressPeers, fqdns: &'a Option<Vec<FqdnSelector>>) -> Vec<List<'a>> {
    let lists = [
        List::endpoints("toEndpoints", &peers.to_endpoints),
        List::cidrs("toCIDR", &peers.to_cidr),
        List::cidr_sets("toCIDRSet", &peers.to_cidr_set),
        List::entities("toEntities", &peers.to_entities),
        List::services("toServices", &peers.to_services),
        List::names_of("toFQDNs", fqdns),
        List::unsupported("toGroups", "a group of a cloud provider", &peers.to_groups),
        List::nodes("toNodes", &peers.to_nodes),
    ];
    lists.into_iter().flatten().collect()
}

impl<'a> From<&'a IngressRule> for Entry<'a> {
    fn from(api: &'a IngressRule) -> Self {
        Self {
            is_egress: false,
            lists: from_lists(&api.peers),
            requires: ("fromRequires", super::count(&api.peers.from_requires)),
            to_ports: ToPorts::Allow(api.to_ports.as_deref().unwrap_or_default()),
            icmps: api.icmps.as_deref().unwrap_or_default(),
            authentication: api.authentication.as_ref(),
        }
    }
}

impl<'a> From<&'a IngressDenyRule> for Entry<'a> {
    fn from(api: &'a IngressDenyRule) -> Self {
        Self {
            is_egress: false,
            lists: from_lists(&api.peers),
            requires: ("fromRequires", super::count(&api.peers.from_requires)),
            to_ports: ToPorts::Deny(api.to_ports.as_deref().unwrap_or_default()),
            icmps: api.icmps.as_deref().unwrap_or_default(),
            authentication: None,
        }
    }
}

impl<'a> From<&'a EgressRule> for Entry<'a> {
    fn from(api: &'a EgressRule) -> Self {
        Self {
            is_egress: true,
            lists: to_lists(&api.peers, &api.to_fqdns),
            requires: ("toRequires", super::count(&api.peers.to_requires)),
            to_ports: ToPorts::Allow(api.to_ports.as_deref().unwrap_or_default()),
            icmps: api.icmps.as_deref().unwrap_or_default(),
            authentication: api.authentication.as_ref(),
        }
    }
}

impl<'a> From<&'a EgressDenyRule> for Entry<'a> {
    fn from(api: &'a EgressDenyRule) -> Self {
        Self {
            is_egress: true,
            lists: to_lists(&api.peers, &None),
            requires: ("toRequires", super::count(&api.peers.to_requires)),
            to_ports: ToPorts::Deny(api.to_ports.as_deref().unwrap_or_default()),
            icmps: api.icmps.as_deref().unwrap_or_default(),
            authentication: None,
        }
    }
}

impl Entry<'_> {
    /// What the entry allows or denies, apart for each item of `toPorts` or `icmps`; empty when that is nothing.
    pub(super) fn traffic(&self, scope: &PeerScope<'_>, path: &Path) -> Result<Vec<Traffic>, Invalid> {
        self.check_shape(path)?;
        self.check_authentication(path)?;
        let peers = self.peers(scope, path)?;
        let references = self.references(path)?;
        let names = self.names(path)?;
        let items = self.ports(path)?;
        self.check_questions(path, &items, !names.is_empty())?;
        if peers == Peers::Selected(Vec::new()) && references.is_empty() && names.is_empty() {
            return Ok(Vec::new());
        }
        let items = items.into_iter().filter(|(_, item)| !item.found.is_empty());
        let traffic = items.map(|(path, Asked { questions, found: Found { ports, named } })| Traffic {
            path: path.into(),
            peers: peers.clone(),
            references: references.clone(),
            names: names.clone(),
            ports,
            named,
            questions,
        });
        Ok(traffic.flat_map(|traffic| if self.is_egress { traffic.out() } else { vec![traffic] }).collect())
    }

    fn names(&self, path: &Path) -> Result<Vec<Name>, Invalid> {
        let lists = self.lists.iter().map(|list| list.names(path));
        Ok(lists.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Questions are sent out, to servers that policy knows by more than their name.
    fn check_questions(&self, path: &Path, items: &[(Path, Asked)], named: bool) -> Result<(), Invalid> {
        let path = path.field("toPorts");
        match items.iter().any(|(_, item)| item.questions.is_some()) {
            true if !self.is_egress => Err(path.malformed("rules for DNS questions are for egress only")),
            true if named => {
                Err(path.unsupported("a rule for DNS questions to a name server that is given by its name"))
            }
            _ => Ok(()),
        }
    }

    fn check_shape(&self, path: &Path) -> Result<(), Invalid> {
        let (requires, length) = self.requires;
        if length > 0 {
            return Err(path
                .field(requires)
                .malformed(format!("{requires} is no longer supported, remove it")));
        }
        let mut given = self.lists.iter().filter(|list| list.length() > 0);
        if let (Some(one), Some(other)) = (given.next(), given.next()) {
            return Err(path.malformed(format!(
                "combining {} and {} is not supported yet; give each an entry of its own",
                one.field, other.field
            )));
        }
        if !self.icmps.is_empty() && !self.to_ports.is_empty() {
            return Err(path.malformed("icmps and toPorts exclude each other; give each an entry of its own"));
        }
        Ok(())
    }

    fn check_authentication(&self, path: &Path) -> Result<(), Invalid> {
        let path = path.field("authentication.mode");
        match self.authentication.map(|authentication| &authentication.mode) {
            None | Some(AuthenticationMode::Disabled) => Ok(()),
            Some(AuthenticationMode::Required | AuthenticationMode::TestAlwaysFail) => {
                Err(path.unsupported("authentication of peers"))
            }
            Some(AuthenticationMode::Other(mode)) => {
                Err(path.malformed(format!("{mode:?} is not a mode of authentication")))
            }
        }
    }

    fn peers(&self, scope: &PeerScope<'_>, path: &Path) -> Result<Peers, Invalid> {
        let lists = self.lists.iter().map(|list| list.peers(scope, path));
        let peers = lists.collect::<Result<Vec<_>, _>>()?.concat();
        let restricted = self.lists.iter().any(List::restricts);
        let any_on_ports = self.names_traffic() && !restricted;
        if any_on_ports || peers.contains(&Peers::Any) {
            return Ok(Peers::Any);
        }
        let mut selectors: Vec<Selector> = peers.iter().flat_map(Peers::selectors).cloned().collect();
        selectors.sort_unstable();
        selectors.dedup();
        Ok(Peers::Selected(selectors))
    }

    fn references(&self, path: &Path) -> Result<Vec<Reference>, Invalid> {
        let lists = self.lists.iter().map(|list| list.references(path));
        Ok(lists.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Whether ports or ICMP messages are given, even if none of either is in them.
    fn names_traffic(&self) -> bool {
        !(self.to_ports.is_empty() && self.icmps.is_empty())
    }

    /// What each item of `toPorts` or `icmps` names. Neither given: all protocols.
    fn ports(&self, path: &Path) -> Result<Vec<(Path, Asked)>, Invalid> {
        let by_number = |ports| Asked { questions: None, found: Found { ports, named: Vec::new() } };
        if !self.names_traffic() {
            return Ok(vec![(path.clone(), by_number(vec![Ports::ANY]))]);
        }
        if !self.icmps.is_empty() {
            return each(self.icmps, &path.field("icmps"), |path, item| {
                Ok((path.clone(), by_number(icmp::reduce(path, item)?)))
            });
        }
        let path = path.field("toPorts");
        match self.to_ports {
            ToPorts::Allow(items) => {
                each(items, &path, |path, item| Ok((path.clone(), ports::reduce(path, item)?)))
            }
            ToPorts::Deny(items) => {
                each(items, &path, |path, item| Ok((path.clone(), ports::reduce(path, item)?)))
            }
        }
    }
}

fn each<T, R>(
    list: &[T],
    path: &Path,
    read: impl Fn(&Path, &T) -> Result<R, Invalid>,
) -> Result<Vec<R>, Invalid> {
    list.iter().enumerate().map(|(index, item)| read(&path.index(index), item)).collect()
}
