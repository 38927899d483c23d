//! What a peer made known (Adj-RIB-In), and which of it is best.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use cilium_rest::bgp::{Family, ImportedRoute};
use ipnet::IpNet;

use crate::export::{LOCAL_PREFERENCE, family};
use crate::session::{Path, Update};

/// Not to be kept for long without a session (RFC 9494, 4.7).
pub const NO_LLGR: u32 = 0xFFFF_0007;

/// Kept for long without a session by somebody on the way (RFC 9494, 4.6).
pub const LLGR_STALE: u32 = 0xFFFF_0006;

/// How much is known of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Age {
    /// The session that brought it holds.
    #[default]
    Fresh,
    /// From before the peer's restart (RFC 4724).
    Stale,
    /// The same, and the restart takes long (RFC 9494).
    LongLived,
}

/// A route of a peer.
#[derive(Clone, Debug)]
pub struct Route {
    /// What the peer said of it.
    pub path: Arc<Path>,
    /// When it came, in seconds since 1970.
    pub since: u32,
    /// How much is known of it.
    pub age: Age,
}

/// Paths, each once: thousands of prefixes have one in common.
#[derive(Debug, Default)]
pub struct Paths {
    all: HashSet<Arc<Path>>,
    /// Nobody looked for unused ones since there were half as many.
    limit: usize,
}

impl Paths {
    fn shared(&mut self, path: Path) -> Arc<Path> {
        if let Some(path) = self.all.get(&path) {
            return path.clone();
        }
        if self.all.len() >= self.limit {
            self.all.retain(|it| Arc::strong_count(it) > 1);
            self.limit = (2 * self.all.len()).max(1024);
        }
        let path = Arc::new(path);
        self.all.insert(path.clone());
        path
    }
}

/// Routes of one peer.
#[derive(Debug, Default)]
pub struct AdjIn {
    routes: HashMap<IpNet, Route>,
    counts: BTreeMap<Family, u64>,
}

impl AdjIn {
    /// Prefixes of a family.
    pub fn count(&self, family: Family) -> u64 {
        self.counts.get(&family).copied().unwrap_or_default()
    }

    /// All routes, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&IpNet, &Route)> {
        self.routes.iter()
    }

    /// Takes what an UPDATE says; `now` in seconds since 1970.
    pub fn apply(&mut self, update: Update, now: u32, paths: &mut Paths) {
        for prefix in update.withdrawn {
            self.remove(prefix);
        }
        for (path, prefixes) in update.announced {
            let path = paths.shared(path);
            for prefix in prefixes {
                let route = Route { path: path.clone(), since: now, age: Age::Fresh };
                if self.routes.insert(prefix, route).is_none() {
                    *self.counts.entry(family(&prefix)).or_default() += 1;
                }
            }
        }
    }

    fn remove(&mut self, prefix: IpNet) {
        if self.routes.remove(&prefix).is_some() {
            *self.counts.entry(family(&prefix)).or_default() -= 1;
        }
    }

    fn retain(&mut self, keep: impl Fn(&IpNet, &Route) -> bool) {
        let Self { routes, counts } = self;
        routes.retain(|prefix, route| {
            let keeps = keep(prefix, route);
            if !keeps {
                *counts.entry(family(prefix)).or_default() -= 1;
            }
            keeps
        });
        routes.shrink_to_fit();
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The session ended, and routes of these families may stay for now. Ones that were stale already go: the peer had its time.
    pub fn mark_stale(&mut self, families: &[Family]) {
        self.retain(|prefix, route| families.contains(&family(prefix)) && route.age == Age::Fresh);
        self.routes.values_mut().for_each(|route| route.age = Age::Stale);
    }

    /// Stale routes of a family stay for longer, but for those that say no.
    pub fn mark_long_lived(&mut self, of: Family) {
        self.retain(|prefix, route| {
            family(prefix) != of || route.age == Age::Fresh || !route.path.communities.contains(&NO_LLGR)
        });
        let stale = self.routes.iter_mut().filter(|(prefix, _)| family(prefix) == of);
        stale.filter(|(_, route)| route.age == Age::Stale).for_each(|(_, route)| route.age = Age::LongLived);
    }

    /// Stale routes of a family go.
    pub fn drop_stale(&mut self, of: Family) {
        self.retain(|prefix, route| family(prefix) != of || route.age == Age::Fresh);
    }
}

/// Who brought a route.
#[derive(Clone, Copy, Debug)]
pub struct From {
    /// Our AS number and BGP identifier: what went through us before does not count.
    pub local: (u32, Ipv4Addr),
    /// The peer has our AS number.
    pub is_internal: bool,
}

/// The better, the greater: RFC 4271, 9.1.2.2 without what needs an IGP, and without its last steps, which choose one of equal ones.
type Rank = (bool, u32, Reverse<usize>, Reverse<crate::session::Origin>);

fn rank(route: &Route) -> Rank {
    let path = &route.path;
    let is_last_resort = route.age == Age::LongLived || path.communities.contains(&LLGR_STALE);
    let preference = path.local_preference.unwrap_or(LOCAL_PREFERENCE);
    (!is_last_resort, preference, Reverse(path.length()), Reverse(path.origin))
}

fn is_usable(from: From, path: &Path) -> bool {
    !path.contains(from.local.0) && path.originator != Some(from.local.1)
}

/// The best routes of all peers, equally good ones together; sorted.
pub fn best(mut routes: Vec<(From, IpNet, Route)>) -> Vec<ImportedRoute> {
    routes.retain(|(from, _, route)| is_usable(*from, &route.path));
    // A table of prefixes would cost several times as much as this.
    routes.sort_unstable_by_key(|(_, prefix, _)| *prefix);
    routes.chunk_by(|one, next| one.1 == next.1).map(|routes| best_of(routes[0].1, routes)).collect()
}

/// The best of the routes of one prefix.
fn best_of(prefix: IpNet, routes: &[(From, IpNet, Route)]) -> ImportedRoute {
    let best = routes.iter().map(|(_, _, route)| rank(route)).max();
    let all = routes.iter().filter(|(_, _, route)| Some(rank(route)) == best);
    let mut routes: Vec<(From, &Route)> = all.map(|(from, _, route)| (*from, route)).collect();
    if routes.len() > 1 {
        drop_worse_meds(&mut routes);
    }
    if routes.iter().any(|(from, _)| !from.is_internal) {
        routes.retain(|(from, _)| !from.is_internal);
    }
    let mut next_hops: Vec<IpAddr> = routes.iter().map(|(_, route)| route.path.next_hop).collect();
    next_hops.sort_unstable();
    next_hops.dedup();
    ImportedRoute { prefix, next_hops }
}

/// MEDs compare between routes of one neighbouring AS (RFC 4271, 9.1.2.2 c).
fn drop_worse_meds(routes: &mut Vec<(From, &Route)>) {
    let mut lowest: HashMap<Option<u32>, u32> = HashMap::new();
    for (_, route) in routes.iter() {
        let med = route.path.med.unwrap_or_default();
        lowest.entry(route.path.neighbour()).and_modify(|it| *it = med.min(*it)).or_insert(med);
    }
    routes.retain(|(_, route)| lowest[&route.path.neighbour()] == route.path.med.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Origin, Segment};

    const LOCAL: (u32, Ipv4Addr) = (65001, Ipv4Addr::new(192, 0, 2, 1));

    fn mk_path(next_hop: u8, as_path: &[u32]) -> Path {
        Path {
            next_hop: Ipv4Addr::new(192, 0, 2, next_hop).into(),
            as_path: Box::new([Segment::Sequence(as_path.into())]),
            origin: Origin::Igp,
            local_preference: None,
            med: None,
            communities: Box::default(),
            large_communities: Box::default(),
            originator: None,
        }
    }

    fn mk_update(path: Path, prefixes: &[&str]) -> Update {
        let prefixes = prefixes.iter().map(|it| it.parse().unwrap()).collect();
        Update { announced: vec![(path, prefixes)], ..Update::default() }
    }

    fn shown(table: &AdjIn) -> Vec<(String, Age)> {
        let mut all: Vec<_> = table.iter().map(|(prefix, route)| (prefix.to_string(), route.age)).collect();
        all.sort_unstable();
        all
    }

    /// Last byte of next hops that are chosen for the one prefix of all paths.
    fn chosen(paths: &[(Path, bool, Age)]) -> Vec<u8> {
        let prefix: IpNet = "10.0.0.0/24".parse().unwrap();
        let route = |path: &Path, age| Route { path: Arc::new(path.clone()), since: 0, age };
        let routes: Vec<_> = paths
            .iter()
            .map(|(path, is_internal, age)| {
                (From { local: LOCAL, is_internal: *is_internal }, prefix, route(path, *age))
            })
            .collect();
        let all = best(routes);
        let last = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(_) => 0,
        };
        all.iter().flat_map(|it| &it.next_hops).map(last).collect()
    }

    #[test]
    fn the_best_of_several_is_chosen() {
        let fresh = |path| (path, false, Age::Fresh);
        let short = mk_path(1, &[65002]);
        let preferred = Path { local_preference: Some(200), ..mk_path(3, &[65002, 65003, 65004]) };
        let incomplete = Path { origin: Origin::Incomplete, ..mk_path(4, &[65002]) };
        let far = Path { med: Some(10), ..mk_path(5, &[65002]) };
        let other_as = Path { med: Some(10), ..mk_path(6, &[65007]) };
        let looped = mk_path(7, &[65001]);
        let all =
            |paths: &[&Path]| chosen(&paths.iter().map(|path| fresh((*path).clone())).collect::<Vec<_>>());
        assert_eq!(all(&[&mk_path(2, &[65002, 65003]), &short]), [1]);
        assert_eq!(all(&[&short, &preferred]), [3]);
        assert_eq!(all(&[&incomplete, &short]), [1]);
        assert_eq!(all(&[&far, &short, &other_as]), [1, 6]);
        assert!(all(&[&looped]).is_empty());
        let reflected = Path { originator: Some(LOCAL.1), ..short.clone() };
        assert!(all(&[&reflected]).is_empty());
        assert_eq!(chosen(&[(mk_path(8, &[65002]), true, Age::Fresh), fresh(short.clone())]), [1]);
        assert_eq!(
            chosen(&[(short.clone(), false, Age::LongLived), fresh(mk_path(2, &[65002, 65003]))]),
            [2]
        );
        assert_eq!(chosen(&[(short, false, Age::LongLived)]), [1]);
    }

    #[test]
    fn routes_age_and_go() {
        let (mut table, mut paths) = (AdjIn::default(), Paths::default());
        table.apply(
            mk_update(mk_path(1, &[65002]), &["10.0.0.0/24", "10.0.1.0/24", "fd00::/64"]),
            5,
            &mut paths,
        );
        let no_llgr = Path { communities: Box::new([NO_LLGR]), ..mk_path(1, &[65002]) };
        table.apply(mk_update(no_llgr, &["10.0.2.0/24"]), 6, &mut paths);
        table.mark_stale(&[Family::Ipv4]);
        let of = |text: &str, age| (text.to_owned(), age);
        let all = ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"].map(|it| of(it, Age::Stale));
        assert_eq!(shown(&table), all);
        assert_eq!((table.count(Family::Ipv4), table.count(Family::Ipv6)), (3, 0));
        table.apply(mk_update(mk_path(1, &[65002]), &["10.0.0.0/24"]), 7, &mut paths);
        table.mark_long_lived(Family::Ipv4);
        assert_eq!(shown(&table), [of("10.0.0.0/24", Age::Fresh), of("10.0.1.0/24", Age::LongLived)]);
        table.drop_stale(Family::Ipv4);
        assert_eq!((shown(&table), table.count(Family::Ipv4)), (vec![of("10.0.0.0/24", Age::Fresh)], 1));
        let gone = Update { withdrawn: vec!["10.0.0.0/24".parse().unwrap()], ..Update::default() };
        table.apply(gone, 8, &mut paths);
        assert_eq!((shown(&table), table.count(Family::Ipv4)), (vec![], 0));
    }

    #[test]
    fn equal_paths_are_one() {
        let (mut table, mut paths) = (AdjIn::default(), Paths::default());
        table.apply(mk_update(mk_path(1, &[65002]), &["10.0.0.0/24"]), 5, &mut paths);
        table.apply(mk_update(mk_path(1, &[65002]), &["10.0.1.0/24"]), 6, &mut paths);
        let all: Vec<_> = table.iter().map(|(_, route)| route.path.clone()).collect();
        assert!(Arc::ptr_eq(&all[0], &all[1]));
    }
}
