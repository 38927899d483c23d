//! What the speaker says of itself.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use cilium_rest::bgp::{
    Config, FamilyState, ImportedRoute, Instance, Peer, PeerState, Peers, RoutePolicy, RouteTable, RouteView,
    Routes,
};
use ipnet::IpNet;

use super::{Name, Neighbour, Speaker, State, name, peers};
use crate::export::{Offer, family};
use crate::peer::Sent;
use crate::rib::{Age, From, Route, best};
use crate::session::Origin;

/// The longest that a question for news is left without an answer.
const PATIENCE: Duration = Duration::from_secs(20);

impl Speaker {
    /// Every neighbour.
    pub fn peers(&self) -> Peers {
        // Before the rest: what changes meanwhile is news.
        let generation = *self.0.common.generation().borrow();
        let state = self.state();
        let peers = peers(&state.config);
        let known = peers.filter_map(|(instance, peer)| {
            let neighbour = state.neighbours.get(&name(instance, peer))?;
            Some(peer_state(instance, peer, neighbour))
        });
        Peers { generation, peers: known.collect() }
    }

    /// The same, as soon as its generation is not `after`, or after a while.
    pub async fn peers_after(&self, after: u64) -> Peers {
        let mut generation = self.0.common.generation();
        let news = generation.wait_for(|generation| *generation != after);
        // In time or not, there is an answer.
        drop(tokio::time::timeout(PATIENCE, news).await);
        self.peers()
    }

    /// Routes of all tables: the node's first, then those of each peer.
    pub fn routes(&self) -> Vec<RouteView> {
        let tables = Tables::of(&self.state());
        let mut views = Vec::new();
        for instance in &tables.config.instances {
            available(instance, &tables, &mut views);
            for peer in &instance.peers {
                if let Some(of_peer) = tables.peers.get(&name(instance, peer)) {
                    peer_views(instance, peer, of_peer, &tables, &mut views);
                }
            }
        }
        views
    }

    /// What it was told to be, without passwords.
    pub fn config(&self) -> Config {
        let mut config = self.state().config.clone();
        let peers = config.instances.iter_mut().flat_map(|instance| &mut instance.peers);
        peers.for_each(|peer| peer.password = None);
        config
    }

    /// The best routes of peers whose routes are wanted.
    pub fn import(&self) -> Vec<ImportedRoute> {
        let routes = {
            let state = self.state();
            received(&state, peers(&state.config).filter(|(_, peer)| peer.import))
        };
        best(routes)
    }

    /// The best of what peers made known to each instance, by its name.
    pub fn best(&self) -> BTreeMap<String, Vec<ImportedRoute>> {
        let routes: Vec<_> = {
            let state = self.state();
            let routes = state.config.instances.iter().map(|instance| {
                let peers = instance.peers.iter().map(|peer| (instance, peer));
                (instance.name.clone(), received(&state, peers))
            });
            routes.collect()
        };
        routes.into_iter().map(|(name, routes)| (name, best(routes))).collect()
    }

    /// Which prefixes go to which peer, by advertisement.
    pub fn policies(&self) -> Vec<RoutePolicy> {
        let state = self.state();
        let routes = state.routes.clone().unwrap_or_default();
        let mut policies = Vec::new();
        for (instance, peer) in peers(&state.config) {
            for (of, advertisement) in
                peer.families.iter().flat_map(|(of, all)| all.iter().map(move |it| (of, it)))
            {
                let prefixes = routes
                    .iter()
                    .filter(|(prefix, names)| family(prefix) == *of && names.contains(advertisement));
                policies.push(RoutePolicy {
                    instance: instance.name.clone(),
                    local_asn: instance.asn,
                    peer: peer.name.clone(),
                    address: peer.address,
                    advertisement: advertisement.clone(),
                    family: *of,
                    prefixes: prefixes.map(|(prefix, _)| *prefix).collect(),
                    attributes: instance.advertisements.get(advertisement).cloned().unwrap_or_default(),
                });
            }
        }
        policies
    }
}

/// What all tables are made of. Sessions wait for it: what takes long is done with the result.
struct Tables {
    config: Config,
    routes: Option<Arc<Routes>>,
    since: HashMap<IpNet, u32>,
    peers: HashMap<Name, OfPeer>,
}

/// What a peer was told, and what it made known.
struct OfPeer {
    sent: Vec<Sent>,
    received: Vec<(IpNet, Route)>,
}

impl Tables {
    fn of(state: &State) -> Self {
        let of_peer = |neighbour: &Neighbour| {
            neighbour.status.change(|known| OfPeer {
                sent: known.sent.values().cloned().collect(),
                received: known.routes.iter().map(|(prefix, route)| (*prefix, route.clone())).collect(),
            })
        };
        Self {
            config: state.config.clone(),
            routes: state.routes.clone(),
            since: state.since.clone(),
            peers: state.neighbours.iter().map(|(name, it)| (name.clone(), of_peer(it))).collect(),
        }
    }
}

/// Routes of these peers. Sessions wait for it: what takes long is done with the result.
fn received<'a>(
    state: &State,
    peers: impl Iterator<Item = (&'a Instance, &'a Peer)>,
) -> Vec<(From, IpNet, Route)> {
    let mut routes = Vec::new();
    for (instance, peer) in peers {
        let Some(neighbour) = state.neighbours.get(&name(instance, peer)) else { continue };
        neighbour.status.change(|known| {
            let asn = known.negotiated.as_ref().map_or(peer.asn, |it| it.peer_asn);
            let from = From { local: (instance.asn, instance.router_id), is_internal: asn == instance.asn };
            routes.extend(known.routes.iter().map(|(prefix, route)| (from, *prefix, route.clone())));
        });
    }
    routes
}

fn peer_state(instance: &Instance, peer: &Peer, neighbour: &Neighbour) -> PeerState {
    neighbour.status.change(|known| {
        let negotiated = known.negotiated.clone().unwrap_or_default();
        let families = match &known.negotiated {
            Some(negotiated) => negotiated.families.clone(),
            None => neighbour.spec.families.clone(),
        };
        let of = |family| FamilyState {
            family,
            received: known.routes.count(family),
            advertised: known.sent.get(&family).map_or(0, |sent| sent.table.len() as u64),
        };
        PeerState {
            instance: instance.name.clone(),
            local_asn: instance.asn,
            name: peer.name.clone(),
            address: peer.address,
            port: peer.port,
            asn: if known.negotiated.is_some() { negotiated.peer_asn } else { peer.asn },
            router_id: negotiated.peer_id,
            state: known.state,
            since: known.since,
            established_count: known.established_count,
            hold_time: negotiated.hold_time,
            keepalive: negotiated.keepalive,
            families: families.into_iter().map(of).collect(),
            reason: known.reason.clone(),
            bfd: known.bfd,
            bfd_problem: known.bfd_problem.clone(),
            capabilities: negotiated.capabilities.clone(),
        }
    })
}

fn unspecified(prefix: &IpNet) -> IpAddr {
    match prefix {
        IpNet::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpNet::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A route of the node.
fn own(instance: &Instance, prefix: IpNet, offer: &Offer, tables: &Tables) -> RouteView {
    RouteView {
        instance: instance.name.clone(),
        local_asn: instance.asn,
        table: RouteTable::Available,
        peer: None,
        prefix,
        next_hop: unspecified(&prefix),
        as_path: Vec::new(),
        origin: Origin::Igp.as_str().to_owned(),
        local_preference: offer.local_preference,
        med: None,
        communities: offer.communities.clone(),
        large_communities: offer.large_communities.clone(),
        since: tables.since.get(&prefix).copied().unwrap_or_default().into(),
        stale: false,
    }
}

fn available(instance: &Instance, tables: &Tables, views: &mut Vec<RouteView>) {
    for (prefix, names) in tables.routes.iter().flat_map(|routes| routes.iter()) {
        let known: Vec<_> = names.iter().filter_map(|name| instance.advertisements.get(name)).collect();
        if !known.is_empty() {
            views.push(own(instance, *prefix, &Offer::merge(known, true), tables));
        }
    }
}

fn peer_views(
    instance: &Instance,
    peer: &Peer,
    of_peer: &OfPeer,
    tables: &Tables,
    views: &mut Vec<RouteView>,
) {
    for sent in &of_peer.sent {
        advertised(instance, peer, sent, tables, views);
    }
    let mut received: Vec<_> = of_peer.received.iter().collect();
    received.sort_unstable_by_key(|(prefix, _)| *prefix);
    views.extend(received.into_iter().map(|(prefix, route)| of_route(instance, peer, *prefix, route)));
}

fn advertised(instance: &Instance, peer: &Peer, sent: &Sent, tables: &Tables, views: &mut Vec<RouteView>) {
    let Some(voice) = sent.voice else { return };
    for (prefix, offer) in Arc::as_ref(&sent.table) {
        views.push(RouteView {
            table: RouteTable::Advertised,
            peer: Some(peer.address),
            next_hop: voice.next_hop.address(),
            as_path: voice.asn.iter().map(ToString::to_string).collect(),
            ..own(instance, *prefix, offer, tables)
        });
    }
}

fn of_route(instance: &Instance, peer: &Peer, prefix: IpNet, route: &Route) -> RouteView {
    let path = &route.path;
    RouteView {
        instance: instance.name.clone(),
        local_asn: instance.asn,
        table: RouteTable::Received,
        peer: Some(peer.address),
        prefix,
        next_hop: path.next_hop,
        as_path: path.hops(),
        origin: path.origin.as_str().to_owned(),
        local_preference: path.local_preference,
        med: path.med,
        communities: path.communities.to_vec(),
        large_communities: path.large_communities.to_vec(),
        since: route.since.into(),
        stale: route.age != Age::Fresh,
    }
}
