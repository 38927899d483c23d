//! Services: one pointer for each address, port and scope, and what is behind it: the backends that this node uses, and the source
//! ranges of clients.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use cilium_api::frontends::{Frontend, FrontendKind, Here, Scope};
use cilium_api::parts::{Backend, HostPort, PartKey, Redirect, RedirectFrontend, Service};
use cilium_bpf::layout::{
    BackendEntry, BackendKey, MaglevKey, NetPort, SCOPE_EXEMPT, SCOPE_EXTERNAL, SCOPE_INTERNAL,
    SERVICE_AT_OWN_NODE, SERVICE_DSR, SERVICE_MAGLEV, SERVICE_ONLY_OWN, SERVICE_RANGES, SERVICE_RANGES_DENY,
    ServiceEntry, ServiceKey, SourceRangeEntry, SourceRangeKey,
};
use ipnet::IpNet;

use crate::config::Balancing;
use crate::kernel::{Behind, BehindKey};
use crate::maglev::{self, Maglev};
use crate::switched::{Scheme, Switched};

pub(crate) struct ServiceScheme;

impl Scheme for ServiceScheme {
    type Owner = ServiceKey;
    type Pointer = ServiceEntry;
    type Content = Content;
    type Key = BehindKey;
    type Value = Behind;

    const FIRST: u32 = 1;

    fn items(generation: u32, content: &Content) -> Vec<(BehindKey, Behind)> {
        let backends = (0..).zip(&content.backends).map(|(index, entry)| {
            (BehindKey::Backend(BackendKey { generation, index }), Behind::Backend(*entry))
        });
        let ranges = content.ranges.iter().flatten().map(|range| {
            let key = SourceRangeKey::new(generation, range.network(), range.prefix_len());
            (BehindKey::Range(key), ALLOWED)
        });
        let table = content.table.iter().flat_map(|table| maglev::chunks(table));
        let table = (0..).zip(table).map(|(chunk, entries)| {
            (BehindKey::Maglev(MaglevKey { generation, chunk }), Behind::Maglev(Arc::new(entries)))
        });
        backends.chain(ranges).chain(table).collect()
    }
    fn item(content: &Content, key: &BehindKey) -> Option<Behind> {
        let at = |index: u32| usize::try_from(index).ok();
        match key {
            BehindKey::Backend(key) => content.backends.get(at(key.index)?).copied().map(Behind::Backend),
            BehindKey::Range(key) => {
                let (address, length) = key.prefix()?;
                let range = IpNet::new(address, length).ok()?;
                content.ranges.as_ref()?.binary_search(&range).ok()?;
                Some(ALLOWED)
            }
            BehindKey::Maglev(key) => {
                let chunk = maglev::chunks(content.table.as_ref()?).nth(at(key.chunk)?)?;
                Some(Behind::Maglev(Arc::new(chunk)))
            }
        }
    }
    fn count(content: &Content) -> usize {
        let ranges = content.ranges.as_ref().map_or(0, |ranges| ranges.len());
        let chunks = content.table.as_ref().map_or(0, |table| maglev::chunks(table).len());
        content.backends.len() + ranges + chunks
    }
    fn pointer(generation: u32, content: &Content) -> ServiceEntry {
        let count = u32::try_from(content.backends.len()).unwrap_or(u32::MAX);
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        let flags = flag(content.only_own, SERVICE_ONLY_OWN)
            | flag(content.ranges.is_some(), SERVICE_RANGES)
            | flag(content.denies_ranges, SERVICE_RANGES_DENY)
            | flag(content.at_own_node, SERVICE_AT_OWN_NODE)
            | flag(content.direct, SERVICE_DSR)
            | flag(content.table.is_some(), SERVICE_MAGLEV);
        ServiceEntry { generation, count, affinity: content.affinity, flags }
    }
    /// Nothing remembers a generation of backends but to ask whether it is still the same one: seven weeks of changes go by before a
    /// number comes again.
    fn mark(_: u32) -> Option<(ServiceKey, ServiceEntry)> {
        None
    }
    fn generation(pointer: &ServiceEntry) -> Option<u32> {
        Some(pointer.generation)
    }
    fn item_generation(key: &BehindKey) -> u32 {
        match key {
            BehindKey::Backend(key) => key.generation,
            BehindKey::Range(key) => key.generation,
            BehindKey::Maglev(key) => key.generation,
        }
    }
    fn content(pointer: &ServiceEntry, items: Vec<(BehindKey, Behind)>) -> Option<Content> {
        let mut backends = Vec::new();
        let mut ranges = Vec::new();
        let mut chunks = Vec::new();
        for item in items {
            match item {
                (BehindKey::Backend(key), Behind::Backend(entry)) => backends.push((key.index, entry)),
                (BehindKey::Range(key), Behind::Range(_)) => {
                    let (address, length) = key.prefix()?;
                    ranges.push(IpNet::new(address, length).ok()?);
                }
                (BehindKey::Maglev(key), Behind::Maglev(entries)) => chunks.push((key.chunk, entries)),
                _ => return None,
            }
        }
        chunks.sort_unstable_by_key(|(chunk, _)| *chunk);
        backends.sort_unstable_by_key(|(index, _)| *index);
        ranges.sort_unstable();
        let gapless = (0..).zip(&backends).all(|(index, (found, _))| *found == index)
            && (0..).zip(&chunks).all(|(index, (found, _))| *found == index);
        let whole = usize::try_from(pointer.count) == Ok(backends.len());
        let is_restricted = pointer.flags & SERVICE_RANGES != 0;
        let has_table = pointer.flags & SERVICE_MAGLEV != 0;
        let known = pointer.flags & !FLAGS == 0;
        let fits = (is_restricted || ranges.is_empty()) && (has_table || chunks.is_empty());
        (gapless && whole && known && fits).then(|| Content {
            affinity: pointer.affinity,
            only_own: pointer.flags & SERVICE_ONLY_OWN != 0,
            at_own_node: pointer.flags & SERVICE_AT_OWN_NODE != 0,
            direct: pointer.flags & SERVICE_DSR != 0,
            ranges: is_restricted.then(|| ranges.into()),
            denies_ranges: pointer.flags & SERVICE_RANGES_DENY != 0,
            table: has_table.then(|| maglev::join(chunks.iter().map(|(_, entries)| &**entries))),
            backends: backends.into_iter().map(|(_, entry)| entry).collect(),
        })
    }
}

/// What is said of a source range.
const ALLOWED: Behind = Behind::Range(SourceRangeEntry { allowed: 1 });

/// All that a pointer can say.
const FLAGS: u32 = SERVICE_ONLY_OWN
    | SERVICE_RANGES
    | SERVICE_RANGES_DENY
    | SERVICE_AT_OWN_NODE
    | SERVICE_MAGLEV
    | SERVICE_DSR;

/// What a frontend leads to.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Content {
    /// Seconds for which a client keeps its backend; 0 is not at all.
    affinity: u32,
    /// Without backends, packets are dropped and not refused.
    only_own: bool,
    /// At addresses of other nodes, these decide by themselves.
    at_own_node: bool,
    /// Backends of other nodes answer clients outside by themselves.
    direct: bool,
    /// Clients that are served, sorted; `None` is everybody.
    ranges: Option<Box<[IpNet]>>,
    /// Those are the ones that are not served.
    denies_ranges: bool,
    /// Indexes of the backends by Maglev hashing; without it a new client has any of them.
    table: Option<Arc<[u16]>>,
    backends: Box<[BackendEntry]>,
}

impl Content {
    /// These backends for everybody, with nothing special about them.
    fn to(backends: Box<[BackendEntry]>) -> Self {
        Self {
            affinity: 0,
            only_own: false,
            at_own_node: false,
            direct: false,
            ranges: None,
            denies_ranges: false,
            table: None,
            backends,
        }
    }
}

/// The wish of a Service, pod or redirect to have a frontend.
struct Claim {
    /// Who has it if several want it: the lowest.
    rank: u8,
    part: PartKey,
    content: Arc<Content>,
    /// Some pods are to have what the next one wants.
    exempts: bool,
}

/// Before every kind of frontend of a Service.
const RANK_OF_REDIRECTS: u8 = 0;

/// Behind every kind of frontend of a Service.
const RANK_OF_HOST_PORTS: u8 = u8::MAX;

/// Kinds of frontends of Services in their order.
fn rank(kind: FrontendKind) -> u8 {
    kind as u8 + RANK_OF_REDIRECTS + 1
}

/// A frontend that something wants to have.
struct Wanted {
    key: ServiceKey,
    rank: u8,
    content: Content,
    exempts: bool,
}

/// Frontends of every Service.
pub(crate) struct Services {
    pub(crate) switched: Switched<ServiceScheme>,
    frontends: HashMap<PartKey, Box<[ServiceKey]>>,
    /// Sorted: the first one has the frontend. Addresses that users choose may be chosen twice.
    claims: HashMap<ServiceKey, Vec<Claim>>,
    here: Here,
    balancing: Balancing,
}

impl Services {
    pub(crate) fn new(node: String, balancing: Balancing) -> Self {
        let here = Here { node, ..Here::default() };
        Self { switched: Switched::new(), frontends: HashMap::new(), claims: HashMap::new(), here, balancing }
    }

    /// Takes the node's zone and addresses. Returns the Services to be set again.
    pub(crate) fn move_to(&mut self, zone: &str, addresses: &[IpAddr]) -> Vec<PartKey> {
        if self.here.zone == zone && self.here.addresses == addresses {
            return Vec::new();
        }
        zone.clone_into(&mut self.here.zone);
        self.here.addresses = addresses.to_owned();
        self.frontends.keys().cloned().collect()
    }

    /// Takes a service part, or that there is none.
    pub(crate) fn set(&mut self, part: &PartKey, service: Option<&Service>) {
        let here = &self.here;
        let wanted = service.into_iter().flat_map(|service| {
            service.frontends(here).map(|frontend| Wanted {
                key: key(&frontend),
                rank: rank(frontend.kind),
                content: content(&frontend, service),
                exempts: false,
            })
        });
        let mut wanted: Vec<Wanted> = wanted.collect();
        if let Some(service) = service {
            let outside = wanted.iter_mut().filter(|wanted| wanted.key.scope == SCOPE_EXTERNAL);
            outside.for_each(|it| {
                it.content.direct = self.balancing.returns_directly(service, it.key.protocol);
            });
        }
        if let Some(maglev) = service.and_then(|service| self.balancing.maglev_of(service)) {
            fill_tables(maglev, &mut wanted);
        }
        let is_balanced =
            |service: &&Service| service.only.is_none_or(|only| only == FrontendKind::LoadBalancer);
        let balanced = service.filter(is_balanced).map_or(&[][..], |service| &service.load_balancer);
        wanted.extend(balanced.iter().map(every_other_port));
        self.put(part, wanted);
    }

    /// Takes what goes to pods of the node in place of where it would go, or that nothing does.
    pub(crate) fn set_redirect(&mut self, part: &PartKey, redirect: Option<&Redirect>) {
        let exempts = redirect.is_some_and(|redirect| !redirect.exempt.is_empty());
        let wanted = redirect.into_iter().flat_map(redirect_keys).map(|(key, frontend)| {
            let backends = frontend.backends.iter();
            let backends = backends.map(|(address, port)| backend(*address, *port)).collect();
            Wanted { key, rank: RANK_OF_REDIRECTS, content: Content::to(backends), exempts }
        });
        let wanted = wanted.collect();
        self.put(part, wanted);
    }

    /// Takes the ports of the node that lead to a pod with these addresses. `own` are the node's addresses.
    pub(crate) fn set_host_ports(
        &mut self,
        part: &PartKey,
        ports: &[HostPort],
        pod: &[IpAddr],
        own: &[IpAddr],
    ) {
        let wanted = ports.iter().flat_map(|port| host_port_keys(port, own).map(move |key| (port, key)));
        let wanted = wanted.filter_map(|(port, (address, scope))| {
            let target = *pod.iter().find(|ip| ip.is_ipv4() == address.is_ipv4())?;
            let key = ServiceKey {
                address: address.into(),
                port: NetPort(port.port),
                protocol: port.protocol,
                scope,
            };
            let backends = Box::new([backend(target, port.target)]);
            let content = Content { only_own: true, ..Content::to(backends) };
            Some(Wanted { key, rank: RANK_OF_HOST_PORTS, content, exempts: false })
        });
        let wanted = wanted.collect();
        self.put(part, wanted);
    }

    /// Takes all that a part wants.
    fn put(&mut self, part: &PartKey, wanted: Vec<Wanted>) {
        let mut old = self.frontends.remove(part).unwrap_or_default().into_vec();
        let mut new = Vec::with_capacity(wanted.len());
        // Frontends of one part often lead to the same.
        let mut contents: Vec<Arc<Content>> = Vec::new();
        for Wanted { key, rank, content, exempts } in wanted {
            old.retain(|it| *it != key);
            // A Service that names an address twice has it once, as what comes first.
            if new.contains(&key) {
                continue;
            }
            new.push(key);
            let content = contents.iter().find(|it| ***it == content).cloned().unwrap_or_else(|| {
                contents.push(Arc::new(content));
                contents[contents.len() - 1].clone()
            });
            // Nearly always one.
            let claims = self.claims.entry(key).or_insert_with(|| Vec::with_capacity(1));
            claims.retain(|claim| claim.part != *part);
            claims.push(Claim { rank, part: part.clone(), content, exempts });
            claims.sort_by(|a, b| (a.rank, &a.part).cmp(&(b.rank, &b.part)));
            grant(&mut self.switched, key, claims);
        }
        for key in old {
            let Some(claims) = self.claims.get_mut(&key) else { continue };
            claims.retain(|claim| claim.part != *part);
            grant(&mut self.switched, key, claims);
            if claims.is_empty() {
                self.claims.remove(&key);
            }
        }
        if !new.is_empty() {
            self.frontends.insert(part.clone(), new.into());
        }
    }

    /// A Service as this node has it, but for what belongs to others.
    pub(crate) fn frontends<'a>(
        &'a self,
        part: &'a PartKey,
        service: &'a Service,
    ) -> impl Iterator<Item = Frontend<'a>> {
        service.frontends(&self.here).filter(|frontend| self.owns(part, &key(frontend)))
    }

    /// Ports of the node that lead to its pods: the part of the pod, where sockets find it, and the pod's address and port.
    pub(crate) fn host_ports(&self) -> impl Iterator<Item = (&PartKey, &ServiceKey, &BackendEntry)> {
        self.frontends.iter().filter(|(part, _)| part.0.starts_with("endpoint/")).flat_map(
            move |(part, keys)| {
                let inside = keys.iter().filter(|key| key.scope == SCOPE_INTERNAL && self.owns(part, key));
                inside.filter_map(move |key| {
                    Some((part, key, self.claims.get(key)?.first()?.content.backends.first()?))
                })
            },
        )
    }

    fn owns(&self, part: &PartKey, key: &ServiceKey) -> bool {
        self.claims.get(key).and_then(|claims| claims.first()).is_some_and(|first| first.part == *part)
    }

    /// Services that are not in force, and why.
    pub(crate) fn failures(&self) -> Vec<(PartKey, String)> {
        let owner = |key: ServiceKey| match key.scope {
            SCOPE_EXEMPT => self.claims.get(&ServiceKey { scope: SCOPE_INTERNAL, ..key })?.get(1),
            _ => self.claims.get(&key)?.first(),
        };
        let switched = self.switched.failures();
        let switched =
            switched.filter_map(|(key, message)| Some((owner(key)?.part.clone(), message.to_owned())));
        switched.chain(self.claims.iter().flat_map(|(key, claims)| refused(key, claims))).collect()
    }
}

/// What stands at an address of a load balancer for the ports that no Service has there: nothing. The address leads to the nodes, which
/// would send such packets back to where they come from.
fn every_other_port(address: &IpAddr) -> Wanted {
    let key = ServiceKey { address: (*address).into(), port: NetPort(0), protocol: 0, scope: SCOPE_EXTERNAL };
    Wanted { key, rank: RANK_OF_HOST_PORTS, content: Content::to(Box::default()), exempts: false }
}

/// Gives the frontends for the outside their tables. Those with equal backends have one between them.
fn fill_tables(maglev: Maglev, wanted: &mut [Wanted]) {
    let mut filled: HashMap<Box<[BackendEntry]>, Option<Arc<[u16]>>> = HashMap::new();
    for Wanted { content, .. } in wanted.iter_mut().filter(|wanted| wanted.key.scope == SCOPE_EXTERNAL) {
        let table = filled.entry(content.backends.clone());
        content.table = table.or_insert_with(|| maglev.fill(&content.backends)).clone();
    }
}

/// Gives a frontend to the first that wants it, and if that is not for everybody, keeps what the next wants for the others.
fn grant(switched: &mut Switched<ServiceScheme>, key: ServiceKey, claims: &[Claim]) {
    let mut give = |key, claim: Option<&Claim>| match claim {
        Some(claim) => switched.set(key, claim.content.clone()),
        None => switched.remove(key),
    };
    give(key, claims.first());
    if key.scope == SCOPE_INTERNAL {
        let next = claims.get(1).filter(|_| claims.first().is_some_and(|first| first.exempts));
        give(ServiceKey { scope: SCOPE_EXEMPT, ..key }, next);
    }
}

/// All but the first that want a frontend. A Service loses nothing by a redirect: that is what it is for.
fn refused(key: &ServiceKey, claims: &[Claim]) -> Vec<(PartKey, String)> {
    // Services that share an address want the same for its other ports.
    if key.port == NetPort(0) {
        return Vec::new();
    }
    let is_redirect = |claim: &&Claim| claim.rank == RANK_OF_REDIRECTS;
    let services = claims.iter().position(|claim| !is_redirect(&claim)).unwrap_or(claims.len());
    let (redirects, services) = claims.split_at(services);
    [redirects, services].into_iter().flat_map(|claims| behind_first(key, claims)).collect()
}

fn behind_first(key: &ServiceKey, claims: &[Claim]) -> Vec<(PartKey, String)> {
    // Asked for every acknowledgement, of every frontend: nearly none has another one.
    let [first, others @ ..] = claims else { return Vec::new() };
    if others.is_empty() {
        return Vec::new();
    }
    let names =
        [("service/", "Service "), ("endpoint/", "pod "), ("redirect/", "CiliumLocalRedirectPolicy ")];
    let owner =
        names.iter().fold(first.part.0.to_string(), |name, (kind, word)| name.replacen(kind, word, 1));
    let message = || format!("{} port {} belongs to {owner}", key.address, key.port.0);
    others.iter().map(|claim| (claim.part.clone(), message())).collect()
}

fn backend(address: IpAddr, port: u16) -> BackendEntry {
    BackendEntry { address: address.into(), port: NetPort(port) }
}

/// What a redirect is about.
pub(crate) fn redirect_keys(redirect: &Redirect) -> impl Iterator<Item = (ServiceKey, &RedirectFrontend)> {
    redirect.frontends.iter().map(|frontend| {
        let RedirectFrontend { address, protocol, port, .. } = *frontend;
        let key =
            ServiceKey { address: address.into(), port: NetPort(port), protocol, scope: SCOPE_INTERNAL };
        (key, frontend)
    })
}

fn key(frontend: &Frontend<'_>) -> ServiceKey {
    ServiceKey {
        address: frontend.address.into(),
        port: NetPort(frontend.port),
        protocol: frontend.service_port.protocol,
        scope: match frontend.scope {
            Scope::Internal => SCOPE_INTERNAL,
            Scope::External => SCOPE_EXTERNAL,
        },
    }
}

/// Addresses and scopes under which a port of the node is met: at one address of the node, or at all of them.
fn host_port_keys<'a>(port: &HostPort, own: &'a [IpAddr]) -> impl Iterator<Item = (IpAddr, u8)> + use<'a> {
    const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let asked = port.address;
    let is_asked = move |address: &IpAddr| asked.is_none_or(|asked| asked == *address);
    let own = own.iter().copied().filter(is_asked);
    let own = own.flat_map(|address| [(address, SCOPE_INTERNAL), (address, SCOPE_EXTERNAL)]);
    own.chain(LOOPBACK.into_iter().filter(is_asked).map(|address| (address, SCOPE_INTERNAL)))
}

fn content(frontend: &Frontend<'_>, service: &Service) -> Content {
    let entry = |it: &&Backend| backend(it.address, it.port);
    let is_restricted = [FrontendKind::LoadBalancer, FrontendKind::ExternalIp].contains(&frontend.kind)
        && frontend.scope == Scope::External;
    let ranges = service.source_ranges.as_ref().filter(|_| is_restricted);
    let of_family = |range: &&IpNet| range.addr().is_ipv4() == frontend.address.is_ipv4();
    let mut ranges: Option<Vec<IpNet>> =
        ranges.map(|ranges| ranges.iter().filter(of_family).map(IpNet::trunc).collect());
    if let Some(ranges) = &mut ranges {
        ranges.sort_unstable();
        ranges.dedup();
    }
    Content {
        affinity: service.affinity,
        only_own: frontend.only_own,
        at_own_node: service.external_local
            && (frontend.kind, frontend.scope) == (FrontendKind::NodePort, Scope::Internal),
        direct: false,
        denies_ranges: service.denies_ranges && ranges.is_some(),
        ranges: ranges.map(Vec::into_boxed_slice),
        table: None,
        backends: frontend.backends.iter().map(entry).collect(),
    }
}
