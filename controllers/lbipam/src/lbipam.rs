//! The order of a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use cilium_api::condition::Condition;
use cilium_api::slim;
use cilium_services::ServiceName;

use crate::block::Family;
use crate::claim::{Claim, Config, Rank, Reduced, Role};
use crate::conditions;
use crate::failure::Failure;
use crate::pool::Pool;
use crate::pools::{Offer, Pools};
use crate::sharing::clash;

/// A Service, and what it has.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) claim: Arc<Claim>,
    /// Of its status, or planned for it.
    pub(crate) held: Vec<IpAddr>,
    /// Its status has a condition of ours.
    is_marked: bool,
    /// It is among the users of what it has.
    pub(crate) is_settled: bool,
    /// With whom it may share is as it was when it got what it has: others that changed go behind it.
    is_steady: bool,
    failure: Option<Failure>,
    /// The outcome of the last plan.
    told: Option<Outcome>,
}

/// What is to stand in the status of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These addresses and no others, and a condition.
    Assigned {
        /// The addresses, those that it had before first.
        addresses: Vec<IpAddr>,
        /// Why it is not all that the Service asks for.
        failure: Option<Failure>,
    },
    /// No condition of ours.
    Released {
        /// The addresses are another controller's; otherwise, none are left.
        keeps_ingress: bool,
    },
}

impl Outcome {
    /// The condition of the Service, without time and generation; `None` if it is to have none.
    pub fn condition(&self) -> Option<Condition> {
        match self {
            Self::Assigned { failure, .. } => Some(conditions::satisfied(failure.as_ref())),
            Self::Released { .. } => None,
        }
    }
}

/// What one plan has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Services with another outcome, by age.
    pub services: Vec<ServiceName>,
    /// Pools whose conditions may be others.
    pub pools: BTreeSet<String>,
}

/// How many there are of what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Pools that give nothing, as they conflict with themselves or an older one.
    pub conflicting_pools: usize,
    /// Services that get addresses of pools, as far as there are any.
    pub services_matching: usize,
    /// Those of them that do not have all that they ask for.
    pub services_unsatisfied: usize,
    /// Of each pool, the oldest first.
    pub pools: Vec<PoolNumbers>,
}

/// Addresses of a pool; those that it never gives count as used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolNumbers {
    /// The pool.
    pub name: String,
    /// Those that nobody has.
    pub available: u128,
    /// The others.
    pub used: u128,
}

/// All pools and Services.
///
/// # Expected flow
/// Feed objects as they are, then [`Lbipam::plan`], and bring the status of the Services that it names to their [`Lbipam::outcome`]. What
/// was planned counts as given from then on. If a write turns out not to have been made over what was believed, tell it with
/// [`Lbipam::set_held`].
#[derive(Clone, Debug)]
pub struct Lbipam {
    config: Config,
    pub(crate) pools: Pools,
    pub(crate) services: BTreeMap<Rank, Entry>,
    ranks: BTreeMap<ServiceName, Rank>,
    /// Who has an address.
    pub(crate) users: BTreeMap<IpAddr, BTreeSet<Rank>>,
    /// Addresses of Services with a sharing key.
    keys: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Services that changed since the last plan.
    dirty: BTreeSet<Rank>,
    /// Services that do not have all that they ask for.
    waiting: BTreeSet<Rank>,
    /// How many Services of ours are settled.
    pub(crate) matching: usize,
    pools_changed: bool,
    /// Something happened that those who wait may gain by.
    is_stirred: bool,
}

impl Lbipam {
    /// Knows nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            pools: Pools::default(),
            services: BTreeMap::new(),
            ranks: BTreeMap::new(),
            users: BTreeMap::new(),
            keys: BTreeMap::new(),
            dirty: BTreeSet::new(),
            waiting: BTreeSet::new(),
            matching: 0,
            pools_changed: false,
            is_stirred: false,
        }
    }

    /// Takes a pool as it is now; `None` if it is gone.
    pub fn set_pool(&mut self, name: &str, pool: Option<Pool>) {
        if self.pools.set(name, pool) && !std::mem::replace(&mut self.pools_changed, true) {
            self.unsettle_all();
        }
    }

    /// Takes a Service as it is now. While a write of its status is out (`is_writing`), its addresses are those that were planned. Says
    /// whether the Service is anything to us.
    pub fn set_service(&mut self, service: &slim::Service, is_writing: bool) -> bool {
        let name = name_of(service);
        let Some(reduced) = Reduced::of(service, &self.config) else {
            self.remove_service(&name);
            return false;
        };
        let Reduced { claim, mut held, is_marked, is_judged } = reduced;
        let mut is_steady = is_judged;
        let known = self.ranks.get(&name).and_then(|rank| self.services.get_mut(rank));
        if let Some(known) = known {
            if is_writing && claim.role != Role::Foreign {
                held.clone_from(&known.held);
            }
            is_steady = known.claim.shares_as(&claim);
            // Without pools, the mark decides.
            if *known.claim == claim && known.held == held && !self.pools.is_empty() {
                known.is_marked = is_marked;
                return true;
            }
        }
        let entry = Entry {
            claim: Arc::new(claim),
            held,
            is_marked,
            is_steady,
            is_settled: false,
            failure: None,
            told: None,
        };
        self.put(name, entry);
        true
    }

    /// The status of a Service has these addresses after all, whatever was planned.
    pub fn set_held(&mut self, service: &ServiceName, held: Vec<IpAddr>) {
        let known = self.ranks.get(service).and_then(|rank| self.services.get(rank));
        if let Some(known) = known.filter(|known| known.held != held) {
            let entry = Entry { held, is_settled: false, failure: None, ..known.clone() };
            self.put(service.clone(), entry);
        }
    }

    /// Takes note that a Service is gone.
    pub fn remove_service(&mut self, service: &ServiceName) {
        let Some(rank) = self.ranks.remove(service) else { return };
        self.unsettle(&rank);
        self.services.remove(&rank);
        self.dirty.remove(&rank);
    }

    /// What is to stand in the status of a Service; `None` if that is not for us to say.
    pub fn outcome(&self, service: &ServiceName) -> Option<&Outcome> {
        self.services.get(self.ranks.get(service)?)?.told.as_ref()
    }

    /// Whether a Service is anything to us.
    pub fn knows(&self, service: &ServiceName) -> bool {
        self.ranks.contains_key(service)
    }

    /// What is to stand in the status of a pool, without times and generation.
    pub fn pool_conditions(&self, pool: &str) -> Option<Vec<Condition>> {
        self.pools.get(pool).map(conditions::of_pool)
    }

    /// As of the last plan.
    pub fn numbers(&self) -> Numbers {
        let pools = || self.pools.all();
        Numbers {
            conflicting_pools: pools().filter(|(_, known)| known.conflict.is_some()).count(),
            services_matching: self.matching,
            services_unsatisfied: self.waiting.len(),
            pools: pools()
                .map(|(name, known)| PoolNumbers {
                    name: name.to_owned(),
                    available: known.available(),
                    used: known.used,
                })
                .collect(),
        }
    }

    /// What would stand in the way of a pool that is about to be stored.
    pub fn advise(&self, name: &str, pool: Pool) -> Option<String> {
        let mut pools = self.pools.clone();
        pools.set(name, Some(pool));
        pools.resolve();
        let known = pools.get(name)?;
        let conflict = known.conflict.as_ref().map(conditions::conflict);
        let conflict = conflict.map(|conflict| format!("it gives no addresses: {conflict}"));
        conflict.or_else(|| known.overlapped.as_ref().map(conditions::overlapped))
    }

    /// Gives what can be given. Touches only what the changes since the last plan can reach; a changed pool reaches everything.
    pub fn plan(&mut self) -> Changes {
        let reaches_all = std::mem::take(&mut self.pools_changed);
        let fresh = std::mem::take(&mut self.dirty);
        if reaches_all {
            self.pools.resolve();
            let steady: Vec<Rank> =
                self.services.keys().filter(|rank| !fresh.contains(rank)).cloned().collect();
            steady.iter().for_each(|rank| self.settle(rank));
        }
        // What did not change keeps its place beside what did.
        let is_steady = |rank: &&Rank| self.services.get(*rank).is_some_and(|entry| entry.is_steady);
        let (steady, others): (Vec<&Rank>, Vec<&Rank>) = fresh.iter().partition(is_steady);
        steady.into_iter().chain(others).for_each(|rank| self.settle(rank));
        let mut touched = fresh;
        if reaches_all {
            touched = self.services.keys().cloned().collect();
        } else if self.is_stirred {
            touched.extend(self.waiting.iter().cloned());
        }
        self.allocate_all(&mut touched);
        Changes { services: self.tell(&touched), pools: self.pools.take_recounted() }
    }

    fn put(&mut self, name: ServiceName, entry: Entry) {
        let told = self.outcome(&name).cloned();
        self.remove_service(&name);
        let rank = Rank { created: entry.claim.created, name: name.clone() };
        self.ranks.insert(name, rank.clone());
        self.services.insert(rank.clone(), Entry { told, ..entry });
        self.dirty.insert(rank);
    }

    /// Nobody has anything, so that everything can be gone through again.
    fn unsettle_all(&mut self) {
        self.users.clear();
        self.keys.clear();
        self.waiting.clear();
        self.matching = 0;
        self.services.values_mut().for_each(|entry| entry.is_settled = false);
    }

    /// The Service has nothing any more.
    fn unsettle(&mut self, rank: &Rank) {
        self.waiting.remove(rank);
        let Some(entry) = self.services.get_mut(rank) else { return };
        if !std::mem::take(&mut entry.is_settled) {
            return;
        }
        let (claim, held) = (entry.claim.clone(), entry.held.clone());
        self.matching -= usize::from(claim.role == Role::Ours);
        self.is_stirred |= !held.is_empty();
        for address in held {
            let Some(users) = self.users.get_mut(&address) else { continue };
            users.remove(rank);
            if users.is_empty() {
                self.users.remove(&address);
                self.pools.give(address);
            }
            self.forget_key(&claim, address);
        }
    }

    /// Makes the Service a user of what it may keep of what it has.
    fn settle(&mut self, rank: &Rank) {
        let Some(entry) = self.services.get(rank) else { return };
        if self.is_idle(entry) {
            return;
        }
        let (claim, held) = (entry.claim.clone(), entry.held.clone());
        let mut kept = Vec::new();
        for address in held {
            if !kept.contains(&address) && self.may_keep(rank, &claim, address) {
                self.enter(rank, &claim, address);
                kept.push(address);
            }
        }
        if let Some(entry) = self.services.get_mut(rank) {
            self.matching += usize::from(claim.role == Role::Ours && !entry.is_settled);
            (entry.held, entry.is_settled) = (kept, true);
        }
    }

    /// Without any pool, only what was given once is looked at.
    fn is_idle(&self, entry: &Entry) -> bool {
        self.pools.is_empty() && entry.claim.role == Role::Ours && !entry.is_marked
    }

    fn may_keep(&self, rank: &Rank, claim: &Claim, address: IpAddr) -> bool {
        match claim.role {
            Role::Foreign => true,
            Role::Former { .. } => false,
            Role::Ours => {
                let mut users = self.users_of(address).filter(|(_, other)| other.role == Role::Ours);
                let is_alone = users.all(|(other, known)| {
                    let (own, other) = (rank.name.namespace.as_str(), other.name.namespace.as_str());
                    clash((own, claim), (other, known)).is_none()
                });
                is_alone && claim.wants(address) && self.pools.leaves(address, &claim.labels)
            }
        }
    }

    fn users_of(&self, address: IpAddr) -> impl Iterator<Item = (&Rank, &Claim)> {
        let ranks = self.users.get(&address).into_iter().flatten();
        ranks.filter_map(|rank| Some((rank, &*self.services.get(rank)?.claim)))
    }

    /// The Service is a user of the address from now on. Says whether there are others.
    fn enter(&mut self, rank: &Rank, claim: &Claim, address: IpAddr) -> bool {
        let users = self.users.entry(address).or_default();
        let is_first = users.is_empty();
        users.insert(rank.clone());
        if is_first {
            self.pools.take(address);
        }
        if let Some(key) = claim.sharing_key.as_ref().filter(|_| claim.role == Role::Ours) {
            self.keys.entry(key.clone()).or_default().insert(address);
        }
        !is_first
    }

    /// The key leads to the address no more, unless another user has it, too.
    fn forget_key(&mut self, claim: &Claim, address: IpAddr) {
        let Some(key) = &claim.sharing_key else { return };
        let has_key = |other: &Claim| other.role == Role::Ours && other.sharing_key.as_ref() == Some(key);
        if self.users_of(address).any(|(_, other)| has_key(other)) {
            return;
        }
        if let Some(addresses) = self.keys.get_mut(key) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.keys.remove(key);
            }
        }
    }

    /// Requested addresses first: whoever takes any can take another one. Adds those that were gone through again.
    fn allocate_all(&mut self, ranks: &mut BTreeSet<Rank>) {
        let mut has_joined = false;
        for picky in [true, false] {
            for rank in ranks.iter() {
                if self.services.get(rank).is_some_and(|entry| entry.claim.is_picky() == picky) {
                    has_joined |= self.allocate(rank);
                }
            }
        }
        // Who shares an address now can be the reason why another Service cannot.
        if has_joined {
            let waiting = self.waiting.clone();
            for rank in &waiting {
                self.allocate(rank);
            }
            ranks.extend(waiting);
        }
        self.is_stirred = false;
    }

    /// Gives a Service what it lacks, as far as possible. Says whether it has joined another one.
    fn allocate(&mut self, rank: &Rank) -> bool {
        let Some(entry) = self.services.get(rank) else { return false };
        if !entry.is_settled || entry.claim.role != Role::Ours {
            return false;
        }
        let (claim, mut held) = (entry.claim.clone(), entry.held.clone());
        let (mut failure, mut has_joined) = (None, false);
        for found in self.lacking(&claim, &held) {
            let found = match found {
                Lack::Address(address) => self.access(rank, &claim, address).map(|()| address),
                Lack::Family(family) => self.pick(rank, &claim, family),
            };
            match found {
                Ok(address) => {
                    has_joined |= self.enter(rank, &claim, address);
                    held.push(address);
                }
                Err(error) => failure = Some(error),
            }
        }
        // It is the only one that nobody but the user can do anything about.
        let failure = claim.unreadable.clone().map(Failure::Unreadable).or(failure);
        if failure.is_some() {
            self.waiting.insert(rank.clone());
        } else {
            self.waiting.remove(rank);
        }
        if let Some(entry) = self.services.get_mut(rank) {
            (entry.held, entry.failure) = (held, failure);
        }
        has_joined
    }

    fn lacking(&self, claim: &Claim, held: &[IpAddr]) -> Vec<Lack> {
        if claim.is_picky() {
            let missing = claim.requested.iter().filter(|address| !held.contains(address));
            return missing.map(|address| Lack::Address(*address)).collect();
        }
        let has = |family: Family| held.iter().any(|address| Family::of(*address) == family);
        claim.families.iter().filter(|family| !has(**family)).map(|family| Lack::Family(*family)).collect()
    }

    /// Whether the Service may have just this address.
    fn access(&self, rank: &Rank, claim: &Claim, address: IpAddr) -> Result<(), Failure> {
        let offer = self.pools.offer(address, &claim.labels)?;
        let mut users = self.users_of(address).peekable();
        if users.peek().is_none() {
            return if offer == Offer::Given { Ok(()) } else { Err(Failure::Allocated(address)) };
        }
        for (other, known) in users {
            if known.role == Role::Foreign || claim.sharing_key.is_none() {
                return Err(Failure::Allocated(address));
            }
            let (own, other) = (rank.name.namespace.as_str(), other.name.namespace.as_str());
            if let Some(clash) = clash((own, claim), (other, known)) {
                return Err(Failure::Incompatible(address, clash));
            }
        }
        Ok(())
    }

    /// Any address of a family: one that the Service may share, or a free one.
    fn pick(&self, rank: &Rank, claim: &Claim, family: Family) -> Result<IpAddr, Failure> {
        let shared = claim.sharing_key.as_ref().and_then(|key| self.keys.get(key)).into_iter().flatten();
        let mut shared = shared.copied().filter(|address| Family::of(*address) == family);
        match shared.find(|address| self.access(rank, claim, *address).is_ok()) {
            Some(address) => Ok(address),
            None => self.pools.next(family, &claim.labels),
        }
    }

    /// Services whose outcome is another one now.
    fn tell(&mut self, touched: &BTreeSet<Rank>) -> Vec<ServiceName> {
        let mut changed = Vec::new();
        for rank in touched {
            let outcome = self.services.get(rank).and_then(outcome);
            if let Some(entry) = self.services.get_mut(rank)
                && entry.told != outcome
            {
                entry.told = outcome;
                changed.push(rank.name.clone());
            }
        }
        changed
    }
}

/// What a Service does not have.
enum Lack {
    /// An address that it requests.
    Address(IpAddr),
    /// Any address of a family.
    Family(Family),
}

fn outcome(entry: &Entry) -> Option<Outcome> {
    match entry.claim.role {
        Role::Ours if entry.is_settled => {
            Some(Outcome::Assigned { addresses: entry.held.clone(), failure: entry.failure.clone() })
        }
        Role::Ours => None,
        // What we may have said of it before is out of date.
        Role::Foreign => Some(Outcome::Released { keeps_ingress: true }),
        Role::Former { keeps_ingress } => Some(Outcome::Released { keeps_ingress }),
    }
}

fn name_of(service: &slim::Service) -> ServiceName {
    let meta = &service.metadata;
    ServiceName::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}
