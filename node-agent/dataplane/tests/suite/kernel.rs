//! A kernel in memory. After every single operation it checks that what programs would see is whole.

use std::collections::{BTreeMap, BTreeSet};

use cilium_bpf::layout::{
    Addr, BackendKey, Endpoint, ExemptEntry, ExemptKey, IpcacheEntry, IpcacheKey, MAGLEV_NONE, MaglevKey,
    PolicyEntry, PolicyKey, SERVICE_MAGLEV, ServiceEntry, ServiceKey, Slot, SourceRangeKey,
};
use cilium_dataplane::{
    Behind, BehindKey, Kernel, Lookup, Mac, Neighbour, Piece, PieceKey, Route, SlotIndex,
};
use cilium_delta::Table;
use ipnet::IpNet;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Fault {
    #[error("no room left in {0}")]
    Full(&'static str),
}

/// Content as a program would find it: enforced directions, rules and blocks without their generation.
pub(crate) type Content = (bool, bool, BTreeSet<(u8, u32, u8, u16, u32, u32)>, BTreeSet<(u16, String, u32)>);

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fake {
    pub(crate) endpoints: BTreeMap<Addr, Endpoint>,
    pub(crate) ipcache: BTreeMap<IpcacheKey, IpcacheEntry>,
    pub(crate) slots: BTreeMap<u16, Slot>,
    pub(crate) policy: BTreeMap<PieceKey, Piece>,
    pub(crate) services: BTreeMap<ServiceKey, ServiceEntry>,
    pub(crate) behind: BTreeMap<BehindKey, Behind>,
    pub(crate) exempt: BTreeMap<ExemptKey, ExemptEntry>,
    pub(crate) routes: BTreeMap<IpNet, Route>,
    pub(crate) neighbours: BTreeMap<(u32, std::net::IpAddr), Mac>,
    /// Writes so far.
    pub(crate) writes: usize,
    /// Room in the maps of policies.
    pub(crate) room: Option<usize>,
    /// Room in the ipcache.
    pub(crate) ipcache_room: Option<usize>,
    /// Contents that an open slot may have; not checked while empty.
    pub(crate) allowed: Vec<Content>,
    /// What is written to the maps of policies is lost without notice.
    pub(crate) forgetful: bool,
    /// Writes of routes that could not be done in the background.
    pub(crate) refused: usize,
    /// Somebody else took entries away, so that not everything is whole until it has been repaired.
    pub(crate) sabotaged: bool,
}

impl Fake {
    /// All rules, in the order of their keys.
    pub(crate) fn rules(&self) -> BTreeMap<PolicyKey, PolicyEntry> {
        let mut rules = BTreeMap::new();
        for piece in &self.policy {
            match piece {
                (PieceKey::Peer(peer), Piece::Peer(said)) => rules.extend(said.unpack(*peer)),
                (PieceKey::Port(key), Piece::Port(entry)) => _ = rules.insert(*key, *entry),
                _ => {}
            }
        }
        rules
    }

    /// Keys of all rules.
    pub(crate) fn entries(&self) -> impl Iterator<Item = PolicyKey> {
        self.rules().into_keys()
    }

    pub(crate) fn content(&self, slot: Slot) -> Content {
        let rules = self.rules().into_iter().filter(|(key, _)| key.generation == slot.generation);
        let rules = rules.map(|(key, entry)| {
            (key.direction, key.peer, key.protocol, key.port.0, key.prefix_len, entry.cookie)
        });
        let blocks = self.policy.iter().filter_map(|piece| match piece {
            (PieceKey::Block(key), Piece::Block(entry)) if key.generation == slot.generation => {
                Some((key.direction, format!("{:?}", key.prefix()), entry.peer))
            }
            _ => None,
        });
        (slot.ingress_enforced, slot.egress_enforced, rules.collect(), blocks.collect())
    }

    /// The table of a service by Maglev hashing; empty for one without.
    pub(crate) fn table(&self, service: &ServiceEntry) -> Vec<u16> {
        let chunk =
            |chunk| self.behind.get(&BehindKey::Maglev(MaglevKey { generation: service.generation, chunk }));
        let chunks = (0..).map_while(chunk).flat_map(|chunk| match chunk {
            Behind::Maglev(chunk) => chunk.backends.0,
            other => panic!("{other:?} is no piece of a table"),
        });
        chunks.filter(|index| *index != MAGLEV_NONE).collect()
    }

    /// No open slot has half a policy, no service half of its backends, no endpoint a slot that is not its identity's.
    fn wrote(&mut self) {
        self.writes += 1;
        if self.sabotaged {
            return;
        }
        for slot in self.slots.values().filter(|slot| slot.open) {
            let content = self.content(*slot);
            assert!(self.allowed.is_empty() || self.allowed.contains(&content), "half a policy: {content:?}");
        }
        for service in self.services.values() {
            let key = |index| BehindKey::Backend(BackendKey { generation: service.generation, index });
            let has = |index| self.behind.contains_key(&key(index));
            assert!((0..service.count).all(has), "half of the backends of {service:?}");
            if service.flags & SERVICE_MAGLEV != 0 {
                let table = self.table(service);
                assert_eq!(table.len(), 509, "half of the table of {service:?}");
                assert!(
                    table.iter().all(|index| u32::from(*index) < service.count),
                    "a table of another set"
                );
            }
        }
        let mut owners: BTreeMap<u16, u32> = BTreeMap::new();
        for entry in self.endpoints.values() {
            let owner = *owners.entry(entry.slot).or_insert(entry.identity);
            assert_eq!(owner, entry.identity, "two identities in slot {}", entry.slot);
        }
    }
}

macro_rules! table {
    ($key:ty, $value:ty, $field:ident, $name:literal, |$k:ident| $to:expr, |$f:ident| $from:expr) => {
        impl Table<$key, $value> for Fake {
            type Error = Fault;
            fn list(&mut self) -> Result<Vec<($key, $value)>, Fault> {
                Ok(self.$field.iter().map(|($f, value)| ($from, value.to_owned())).collect())
            }
            fn set(&mut self, $k: &$key, value: &$value) -> Result<(), Fault> {
                let room = match $name {
                    "policy" => self.room,
                    "ipcache" => self.ipcache_room,
                    _ => None,
                };
                if room.is_some_and(|room| self.$field.len() >= room) && !self.$field.contains_key(&$to) {
                    return Err(Fault::Full($name));
                }
                if !($name == "policy" && self.forgetful) {
                    self.$field.insert($to, value.to_owned());
                }
                self.wrote();
                Ok(())
            }
            fn delete(&mut self, $k: &$key) -> Result<(), Fault> {
                self.$field.remove(&$to);
                self.wrote();
                Ok(())
            }
        }
    };
}

table!(Addr, Endpoint, endpoints, "endpoints", |k| *k, |f| *f);
table!(IpcacheKey, IpcacheEntry, ipcache, "ipcache", |k| *k, |f| *f);
table!(SlotIndex, Slot, slots, "slots", |k| k.0, |f| SlotIndex(*f));
table!(PieceKey, Piece, policy, "policy", |k| *k, |f| *f);
table!(ServiceKey, ServiceEntry, services, "services", |k| *k, |f| *f);
table!(ExemptKey, ExemptEntry, exempt, "exempt", |k| *k, |f| *f);
table!(BehindKey, Behind, behind, "behind", |k| *k, |f| *f);
table!(IpNet, Route, routes, "routes", |k| *k, |f| *f);
table!(Neighbour, Mac, neighbours, "neighbours", |k| (k.device, k.address), |f| Neighbour {
    device: f.0,
    address: f.1
});

impl Lookup<PieceKey, Piece> for Fake {
    fn lookup(&mut self, key: &PieceKey) -> Result<Option<Piece>, Fault> {
        Ok(self.policy.get(key).copied())
    }
}

impl Lookup<BehindKey, Behind> for Fake {
    fn lookup(&mut self, key: &BehindKey) -> Result<Option<Behind>, Fault> {
        Ok(self.behind.get(key).cloned())
    }
}

impl Kernel for Fake {
    type Fault = Fault;

    fn refused(&self) -> usize {
        self.refused
    }
}

/// Seconds of affinity, flags, backends, source ranges and table of a service.
type SeenService = (u32, u32, Vec<Behind>, Vec<SourceRangeKey>, Vec<u16>);

/// What programs can see, without the numbers that are free to choose.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    endpoints: BTreeMap<Addr, (u32, u32, u16, Content)>,
    ipcache: BTreeMap<IpcacheKey, IpcacheEntry>,
    services: BTreeMap<ServiceKey, SeenService>,
    exempt: BTreeMap<ExemptKey, ExemptEntry>,
    routes: BTreeMap<IpNet, String>,
    neighbours: BTreeMap<(u32, std::net::IpAddr), Mac>,
    open_slots: usize,
    /// Entries under a generation that no slot has.
    stray_rules: usize,
    behind: usize,
}

impl Fake {
    fn stray_rules(&self) -> usize {
        let named: BTreeSet<u32> = self.slots.values().map(|slot| slot.generation).collect();
        let is_stray = |key: &&PieceKey| match key {
            PieceKey::Peer(peer) => !named.contains(&peer.generation),
            PieceKey::Port(key) => !named.contains(&key.generation),
            PieceKey::Block(key) => !named.contains(&key.generation),
        };
        self.policy.keys().filter(is_stray).count()
    }

    pub(crate) fn backend(&self, service: &ServiceEntry, index: u32) -> Behind {
        self.behind[&BehindKey::Backend(BackendKey { generation: service.generation, index })].clone()
    }

    /// Source ranges of a service, without the number of their generation.
    pub(crate) fn ranges(&self, service: &ServiceEntry) -> Vec<SourceRangeKey> {
        let range = |key: &BehindKey| match key {
            BehindKey::Range(key) if key.generation == service.generation => {
                Some(SourceRangeKey { generation: 0, ..*key })
            }
            _ => None,
        };
        self.behind.keys().filter_map(range).collect()
    }

    pub(crate) fn seen(&self) -> Seen {
        let slot = |entry: &Endpoint| self.slots.get(&entry.slot).copied().unwrap_or_default();
        let behind = |service: &ServiceEntry| {
            let backends = (0..service.count).map(|index| self.backend(service, index)).collect();
            (service.affinity, service.flags, backends, self.ranges(service), self.table(service))
        };
        Seen {
            endpoints: self
                .endpoints
                .iter()
                .map(|(addr, e)| (*addr, (e.ifindex, e.identity, e.id, self.content(slot(e)))))
                .collect(),
            ipcache: self.ipcache.clone(),
            services: self.services.iter().map(|(key, service)| (*key, behind(service))).collect(),
            exempt: self.exempt.clone(),
            routes: self.routes.iter().map(|(to, route)| (*to, format!("{route:?}"))).collect(),
            neighbours: self.neighbours.clone(),
            open_slots: self.slots.values().filter(|slot| slot.open).count(),
            stray_rules: self.stray_rules(),
            behind: self.behind.len(),
        }
    }
}
